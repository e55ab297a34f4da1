//! Where a body ends, found while its bytes pass unchanged.
//!
//! Chunked bodies are not re-encoded: extensions and trailers go through as they came. Bounds: an extension line of
//! [`MAX_LINE`], trailers of [`MAX_TRAILERS`] bytes in all; beyond, or malformed, the transfer is broken off.

use super::wire::Framing;

const MAX_LINE: usize = 4096;
const MAX_TRAILERS: usize = 16 * 1024;

/// A chunked body that is not as RFC 9112 §7.1 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunked body is malformed")]
pub(crate) struct Malformed;

/// How far a body has come.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Length(u64),
    Chunked(Chunks),
    Close,
}

/// Of some bytes: how many belong to the body, and is it complete with them?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) taken: usize,
    pub(crate) done: bool,
}

impl Progress {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::default()),
            Framing::Close => Self::Close,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == State::Done,
            Self::Close => false,
        }
    }

    /// Takes the next bytes; what is data of theirs goes to `data`.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        data: impl FnMut(&[u8]),
    ) -> Result<Step, Malformed> {
        match self {
            Self::Length(left) => {
                let taken =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left = left.saturating_sub(taken as u64);
                let mut data = data;
                data(bytes.get(..taken).unwrap_or_default());
                Ok(Step {
                    taken,
                    done: *left == 0,
                })
            }
            Self::Chunked(chunks) => {
                let taken = chunks.feed(bytes, data)?;
                Ok(Step {
                    taken,
                    done: chunks.state == State::Done,
                })
            }
            Self::Close => {
                let mut data = data;
                data(bytes);
                Ok(Step {
                    taken: bytes.len(),
                    done: false,
                })
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends it all.
    TrailerStart,
    Trailer,
    TrailerEnd,
    LastLf,
    Done,
}

/// Follows a chunked body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunks {
    state: State,
    size: u64,
    digits: u8,
    line: usize,
    trailers: usize,
}

impl Chunks {
    fn feed(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.state == State::Done {
                break;
            }
            if self.state == State::Data {
                let rest = bytes.get(at..).unwrap_or_default();
                let taken =
                    usize::try_from(self.size).map_or(rest.len(), |size| size.min(rest.len()));
                data(rest.get(..taken).unwrap_or_default());
                self.size -= taken as u64;
                at += taken;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                continue;
            }
            self.step(*byte)?;
            at += 1;
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<(), Malformed> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < 15 => {
                let digit = char::from(byte).to_digit(16).ok_or(Malformed)?;
                self.size = self.size << 4 | u64::from(digit);
                self.digits += 1;
                State::Size
            }
            (State::Size, b';' | b' ' | b'\t') if self.digits > 0 => State::Extension,
            (State::Size, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\n') => return Err(Malformed),
            (State::Extension, _) => {
                self.line += 1;
                if self.line > MAX_LINE {
                    return Err(Malformed);
                }
                State::Extension
            }
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                self.line = 0;
                if self.size == 0 {
                    State::TrailerStart
                } else {
                    State::Data
                }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::Trailer, b'\r') => State::TrailerEnd,
            (State::TrailerStart | State::Trailer, b'\n') => return Err(Malformed),
            (State::TrailerStart | State::Trailer, _) => {
                self.trailers += 1;
                if self.trailers > MAX_TRAILERS {
                    return Err(Malformed);
                }
                State::Trailer
            }
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(Malformed),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BODY: &str = "4;a=\"b\"\r\nWiki\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n";

    #[test]
    fn malformed_chunks_are_not_repaired() {
        for text in [
            "\r\n",
            "g\r\n",
            "4\nWiki",
            "4\r\nWikiX\r\n",
            "4\r\nWiki\n",
            " 4\r\n",
            "-1\r\n",
            "0x4\r\n",
            "1234567890abcdef0\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\rX",
            "4;a\nb\r\n",
        ] {
            assert!(
                Progress::new(Framing::Chunked)
                    .feed(text.as_bytes(), |_| ())
                    .is_err(),
                "{text:?}"
            );
        }
        let endless = format!("4;{}", "a".repeat(MAX_LINE + 1));
        assert!(
            Progress::new(Framing::Chunked)
                .feed(endless.as_bytes(), |_| ())
                .is_err()
        );
        let trailers = format!("0\r\n{}", "X: y\r\n".repeat(MAX_TRAILERS / 4 + 1));
        assert!(
            Progress::new(Framing::Chunked)
                .feed(trailers.as_bytes(), |_| ())
                .is_err()
        );
    }

    #[test]
    fn a_length_takes_what_is_its_own() {
        let mut progress = Progress::new(Framing::Length(5));
        assert_eq!(
            progress.feed(b"abc", |_| ()),
            Ok(Step {
                taken: 3,
                done: false
            })
        );
        assert_eq!(
            progress.feed(b"defgh", |_| ()),
            Ok(Step {
                taken: 2,
                done: true
            })
        );
        assert!(progress.is_done());
        assert!(Progress::new(Framing::None).is_done());
    }

    proptest! {
        #[test]
        fn the_end_is_found_however_the_bytes_are_cut(cuts in proptest::collection::vec(0usize..90, 0..12)) {
            let bytes = format!("{BODY}NEXT");
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let (mut progress, mut start, mut taken, mut data) = (Progress::new(Framing::Chunked), 0, 0, Vec::new());
            for cut in cuts {
                let step = progress.feed(&bytes.as_bytes()[start..cut], |part| data.extend_from_slice(part)).unwrap();
                taken += step.taken;
                if step.done { break; }
                start = cut;
            }
            prop_assert!(progress.is_done());
            prop_assert_eq!(taken, BODY.len());
            prop_assert_eq!(data, b"Wiki0123456789");
        }
    }
}
