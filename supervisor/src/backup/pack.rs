//! Bytes of many files packed into segments. Pure.

use bytes::Bytes;

use super::manifest::Segment;
use super::store::segment_name;

/// Bytes of a segment before it is compressed: what a reader must fetch for a single file, and a store's round trip.
pub const FULL: usize = 8 * 1024 * 1024;
/// Fast enough not to hold up a first backup; JSON shrinks to a fifth with it.
const LEVEL: i32 = 1;
/// Begins a zstd frame that decoders skip (RFC 8878, 3.1.2).
const SKIPPABLE: [u8; 4] = 0x184D_2A50_u32.to_le_bytes();

/// A part of a file in the segment with this number of a [`Packer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed {
    pub segment: usize,
    pub offset: u64,
    pub length: u64,
}

/// Collects content until a segment is full.
#[derive(Debug, Default)]
pub struct Packer {
    open: Vec<u8>,
    sealed: usize,
}

impl Packer {
    /// Takes as much as fits; what is left belongs to the next segment, after [`Packer::seal`].
    pub fn push<'a>(&mut self, content: &'a [u8], pieces: &mut Vec<Packed>) -> &'a [u8] {
        let room = FULL.saturating_sub(self.open.len()).min(content.len());
        let (fits, rest) = content.split_at(room);
        if fits.is_empty() {
            return rest;
        }
        let (offset, length) = (self.open.len() as u64, fits.len() as u64);
        self.open.extend_from_slice(fits);
        match pieces.last_mut() {
            Some(last) if last.segment == self.sealed && last.offset + last.length == offset => {
                last.length += length;
            }
            _ => pieces.push(Packed {
                segment: self.sealed,
                offset,
                length,
            }),
        }
        rest
    }

    #[must_use]
    pub fn is_full(&self) -> bool {
        self.open.len() >= FULL
    }

    /// The content of the segment that was being filled, if there is any; the next one begins.
    pub fn seal(&mut self) -> Option<Vec<u8>> {
        if self.open.is_empty() {
            return None;
        }
        self.sealed += 1;
        Some(std::mem::take(&mut self.open))
    }
}

/// A segment as it is stored. `salt` makes every one its own, whatever is in it: what somebody removed as unused is then
/// never what a snapshot under way relies on.
///
/// # Errors
/// When there is no memory for it.
pub fn stored(content: &[u8], salt: [u8; 8]) -> std::io::Result<(Segment, Bytes)> {
    let compressed = zstd::bulk::compress(content, LEVEL)?;
    let mut stored = Vec::with_capacity(compressed.len() + 16);
    stored.extend_from_slice(&SKIPPABLE);
    stored.extend_from_slice(&8_u32.to_le_bytes());
    stored.extend_from_slice(&salt);
    stored.extend_from_slice(&compressed);
    let segment = Segment {
        name: segment_name(&stored),
        bytes: stored.len() as u64,
        content_bytes: content.len() as u64,
    };
    Ok((segment, stored.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_stored_is_read_by_any_zstd() {
        let (segment, stored) = stored(b"what was said", *b"12345678").unwrap();
        assert_eq!(
            zstd::bulk::decompress(&stored, 100).unwrap(),
            b"what was said"
        );
        assert_eq!(
            (segment.bytes, segment.content_bytes),
            (stored.len() as u64, 13)
        );
        let (other, _) = super::stored(b"what was said", *b"87654321").unwrap();
        assert_ne!(segment.name, other.name);
    }

    #[test]
    fn a_full_segment_takes_no_more() {
        let mut packer = Packer::default();
        let mut pieces = Vec::new();
        let content = vec![1; FULL + 10];
        let rest = packer.push(&content, &mut pieces);
        assert!(packer.is_full() && rest.len() == 10);
        assert_eq!(packer.push(rest, &mut pieces).len(), 10);
        assert_eq!(packer.seal().unwrap().len(), FULL);
        assert!(packer.push(rest, &mut pieces).is_empty());
        assert_eq!(
            pieces[1],
            Packed {
                segment: 1,
                offset: 0,
                length: 10
            }
        );
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out(files in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12), seals in proptest::collection::vec(any::<bool>(), 12)) {
            let (mut packer, mut segments, mut packed) = (Packer::default(), Vec::new(), Vec::new());
            for (file, seal) in files.iter().zip(seals) {
                let mut pieces = Vec::new();
                for part in file.chunks(7) {
                    prop_assert!(packer.push(part, &mut pieces).is_empty());
                }
                packed.push(pieces);
                if seal {
                    segments.extend(packer.seal());
                }
            }
            segments.extend(packer.seal());
            for (file, pieces) in files.iter().zip(packed) {
                let whole: Vec<u8> = pieces.iter().flat_map(|piece| {
                    let from = usize::try_from(piece.offset).unwrap();
                    segments[piece.segment][from..from + usize::try_from(piece.length).unwrap()].to_vec()
                }).collect();
                prop_assert_eq!(&whole, file);
            }
        }
    }
}
