//! Reads a copy of an encoded body: the bytes themselves pass as they are.
//!
//! Decoded bytes go straight to their reader in small pieces, so memory stays flat whatever a body inflates to;
//! beyond [`INFLATED`] bytes the reading (not the passing) ends. A body in an unknown or broken encoding is passed
//! and not read, which [`Decoder::blind`] tells.

use std::io::{self, Write};

use http::header::{CONTENT_ENCODING, HeaderMap};

/// Decoded bytes that are read of one body.
pub const INFLATED: u64 = 1 << 30;

/// Takes decoded bytes.
pub trait Feed {
    /// The next bytes.
    fn feed(&mut self, bytes: &[u8]);
}

impl Feed for super::tap::Tap {
    fn feed(&mut self, bytes: &[u8]) {
        Self::feed(self, bytes);
    }
}

impl Feed for super::request::RequestReader {
    fn feed(&mut self, bytes: &[u8]) {
        Self::feed(self, bytes);
    }
}

#[derive(Debug)]
struct Sink<F> {
    feed: F,
    left: u64,
}

impl<F: Feed> Write for Sink<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("the body inflates beyond what is read"))?;
        self.feed.feed(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Coding<F: Feed> {
    Identity(Sink<F>),
    Gzip(Box<flate2::write::MultiGzDecoder<Sink<F>>>),
    Deflate(Box<flate2::write::ZlibDecoder<Sink<F>>>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<Sink<F>>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Sink<F>>>),
}

/// Reads a body in some content encoding.
pub struct Decoder<F: Feed> {
    coding: Coding<F>,
    blind: bool,
}

impl<F: Feed> std::fmt::Debug for Decoder<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder")
            .field("blind", &self.blind)
            .finish_non_exhaustive()
    }
}

impl<F: Feed> Decoder<F> {
    /// For a body with these headers.
    pub fn new(headers: &HeaderMap, feed: F) -> Self {
        let mut codings = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&b| b == b','))
            .map(|name| name.trim_ascii().to_ascii_lowercase())
            .filter(|name| !name.is_empty() && name != b"identity");
        let sink = Sink {
            feed,
            left: INFLATED,
        };
        let mut blind = false;
        let coding = match (codings.next().as_deref(), codings.next()) {
            (None, _) => Coding::Identity(sink),
            (Some(b"gzip" | b"x-gzip"), None) => {
                Coding::Gzip(Box::new(flate2::write::MultiGzDecoder::new(sink)))
            }
            (Some(b"deflate"), None) => {
                Coding::Deflate(Box::new(flate2::write::ZlibDecoder::new(sink)))
            }
            (Some(b"br"), None) => Coding::Brotli(Box::new(
                brotli_decompressor::DecompressorWriter::new(sink, 8192),
            )),
            (Some(b"zstd"), None) => match zstd::stream::raw::Decoder::new() {
                Ok(raw) => Coding::Zstd(Box::new(zstd::stream::write::Decoder::with_decoder(
                    sink, raw,
                ))),
                Err(_) => {
                    blind = true;
                    Coding::Identity(sink)
                }
            },
            _ => {
                blind = true;
                Coding::Identity(sink)
            }
        };
        Self { coding, blind }
    }

    /// Whether the body cannot be read.
    pub const fn blind(&self) -> bool {
        self.blind
    }

    /// Whether the bytes that pass are the bytes that are read.
    pub const fn plain(&self) -> bool {
        matches!(self.coding, Coding::Identity(_)) && !self.blind
    }

    /// The reader.
    pub fn feed_ref(&self) -> &F {
        match &self.coding {
            Coding::Identity(sink) => &sink.feed,
            Coding::Gzip(decoder) => &decoder.get_ref().feed,
            Coding::Deflate(decoder) => &decoder.get_ref().feed,
            Coding::Brotli(decoder) => &decoder.get_ref().feed,
            Coding::Zstd(decoder) => &decoder.get_ref().feed,
        }
    }

    /// Takes the next bytes as they pass.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.blind {
            return;
        }
        // Flushing makes the decoders hand over what they hold: an event must be read when it passes, not later.
        let written = match &mut self.coding {
            Coding::Identity(sink) => sink.write_all(bytes),
            Coding::Gzip(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Coding::Deflate(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Coding::Brotli(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
            Coding::Zstd(decoder) => decoder.write_all(bytes).and_then(|()| decoder.flush()),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "a body cannot be decoded and is passed unread");
            self.blind = true;
        }
    }
}
