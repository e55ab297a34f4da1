//! A transcript's bytes, as they are read, cut into lines.
//!
//! A line is given out once its end is there, so one that is being written stays whole. Bound: [`MAX_LINE`]; a longer one
//! comes in pieces of that length, which are no JSON and are kept as what they are. Every byte is given out once.

/// Longest line in bytes, its end included. Agents keep images and files inside their records.
pub const MAX_LINE: usize = 8 * 1024 * 1024;

/// A line, or a piece of one that is too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins in the transcript.
    pub offset: u64,
    /// With its end.
    pub bytes: Vec<u8>,
}

impl Line {
    /// Without its end.
    #[must_use]
    pub fn content(&self) -> &[u8] {
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// Where the next one begins.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

/// The cutter.
#[derive(Debug)]
pub struct Lines {
    /// Of the first byte of `pending`.
    offset: u64,
    pending: Vec<u8>,
    /// Bytes of `pending` that were given out already.
    given: usize,
    /// Bytes of `pending` in which no line end was found.
    searched: usize,
}

impl Lines {
    /// `offset`: where the bytes begin that will be fed.
    #[must_use]
    pub const fn new(offset: u64) -> Self {
        Self {
            offset,
            pending: Vec::new(),
            given: 0,
            searched: 0,
        }
    }

    /// Takes further bytes in.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pending.drain(..self.given);
        self.offset += self.given as u64;
        self.searched -= self.given;
        self.given = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// Where the next byte belongs that is to be fed.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.offset + self.pending.len() as u64
    }

    /// Whether a line can be given out.
    pub fn ready(&mut self) -> bool {
        self.length().is_some()
    }

    fn length(&mut self) -> Option<usize> {
        let rest = self.pending.get(self.searched..).unwrap_or_default();
        match memchr::memchr(b'\n', rest) {
            Some(at) => self.searched += at,
            None => self.searched = self.pending.len(),
        }
        let end = if self.searched < self.pending.len() {
            Some(self.searched + 1 - self.given)
        } else {
            None
        };
        match end {
            Some(length) if length <= MAX_LINE => Some(length),
            _ if self.pending.len() - self.given >= MAX_LINE => Some(MAX_LINE),
            _ => None,
        }
    }
}

impl Iterator for Lines {
    type Item = Line;

    /// The next line that is there.
    fn next(&mut self) -> Option<Line> {
        let length = self.length()?;
        let end = self.given + length;
        let bytes = self.pending.get(self.given..end)?.to_vec();
        let line = Line {
            offset: self.offset + self.given as u64,
            bytes,
        };
        self.given = end;
        self.searched = self.searched.max(end);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &mut Lines) -> Vec<(u64, String)> {
        lines
            .map(|line| {
                (
                    line.offset,
                    String::from_utf8_lossy(&line.bytes).into_owned(),
                )
            })
            .collect()
    }

    #[test]
    fn a_line_waits_for_its_end() {
        let mut lines = Lines::new(100);
        lines.feed(b"one\ntw");
        assert_eq!(texts(&mut lines), [(100, "one\n".into())]);
        assert!(!lines.ready());
        assert_eq!(lines.position(), 106);
        lines.feed(b"o\r\n\n");
        assert!(lines.ready());
        assert_eq!(
            texts(&mut lines),
            [(104, "two\r\n".into()), (109, "\n".into())]
        );
    }

    #[test]
    fn a_line_too_long_comes_in_pieces() {
        let mut lines = Lines::new(0);
        let long = vec![b'x'; MAX_LINE + 1];
        lines.feed(&long);
        let piece = lines.next().unwrap();
        assert_eq!((piece.offset, piece.bytes.len()), (0, MAX_LINE));
        assert!(lines.next().is_none());
        lines.feed(b"\nnext\n");
        assert_eq!(
            texts(&mut lines),
            [
                (MAX_LINE as u64, "x\n".into()),
                (MAX_LINE as u64 + 2, "next\n".into())
            ]
        );
    }

    #[test]
    fn a_line_end_just_past_the_bound_is_a_piece_of_its_own() {
        let mut lines = Lines::new(0);
        let mut long = vec![b'x'; MAX_LINE];
        long.extend_from_slice(b"\na\n");
        lines.feed(&long);
        let lengths: Vec<usize> = lines.map(|line| line.bytes.len()).collect();
        assert_eq!(lengths, [MAX_LINE, 1, 2]);
    }
}
