//! Where a reader is in a conversation: which transcript, how far, and what stood there.
//!
//! The last bytes before the place are remembered as a checksum, so that a transcript that was rewritten is known for
//! another one although it is long enough.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Bytes before the place that the checksum is of.
pub const CHECKED: usize = 128;

/// A place in a transcript, between two lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub offset: u64,
    check: u32,
    /// The transcript, as the agent names it.
    pub transcript: String,
}

impl Cursor {
    /// `before`: the transcript's bytes up to the place, at least the last [`CHECKED`] if there are as many.
    #[must_use]
    pub fn new(transcript: &str, offset: u64, before: &[u8]) -> Self {
        Self {
            offset,
            check: check(before),
            transcript: transcript.to_owned(),
        }
    }

    /// Whether these bytes stand before the place.
    #[must_use]
    pub fn fits(&self, before: &[u8]) -> bool {
        self.check == check(before)
    }
}

fn check(before: &[u8]) -> u32 {
    let start = before.len().saturating_sub(CHECKED);
    let digest = Sha256::digest(before.get(start..).unwrap_or_default());
    digest
        .first_chunk::<4>()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:08x}-{}", self.offset, self.check, self.transcript)
    }
}

/// A text that is no cursor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("after: {0:?} is no place in a conversation; give the `next` of an earlier answer")]
pub struct NoCursor(String);

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let parsed = || {
            let (offset, rest) = text.split_once('-')?;
            let (check, transcript) = rest.split_once('-')?;
            Some(Self {
                offset: offset.parse().ok()?,
                check: u32::from_str_radix(check, 16).ok()?,
                transcript: transcript.to_owned(),
            })
        };
        parsed().ok_or_else(|| NoCursor(text.chars().take(100).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_as_text() {
        let cursor = Cursor::new("55dd44bd-cb89/sub", 1234, b"the end\n");
        assert_eq!(cursor.to_string().parse(), Ok(cursor.clone()));
        assert!(cursor.fits(b"the end\n") && !cursor.fits(b"another\n"));
        for bad in ["", "1", "1-2", "x-00000000-a", "1-zz-a", "-1-0-a"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_last_bytes_count() {
        let mut long = vec![b'a'; 300];
        let cursor = Cursor::new("t", 300, &long);
        long[0] = b'b';
        assert!(cursor.fits(&long));
        assert!(cursor.fits(&long[300 - CHECKED..]));
    }
}
