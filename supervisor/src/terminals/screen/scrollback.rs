//! Lines that have left the screen, encoded as the bytes that print them.
//!
//! A cell of the screen model takes 24 bytes, so 10,000 lines of 200 columns would take 48 MB there; as
//! text with colour changes they take about as much as the program printed. It also makes a snapshot a
//! plain copy.
//!
//! Bounds: [`MAX_LINES`] lines and [`MAX_BYTES`] bytes, whichever is reached first; the oldest lines go.

use std::collections::VecDeque;

/// Lines kept, as the page's own scrollback.
pub const MAX_LINES: usize = 10_000;
/// Bytes kept. Reached only by lines that average more than 800 bytes (wide and very colourful).
pub(super) const MAX_BYTES: usize = 8 << 20;

#[derive(Debug)]
struct Line {
    bytes: Box<[u8]>,
    /// The text goes on in the next line without a line break.
    wrapped: bool,
}

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Scrollback {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Scrollback {
    /// Adds a line; drops the oldest beyond the bounds.
    pub(super) fn push(&mut self, bytes: &[u8], wrapped: bool) {
        self.bytes += bytes.len();
        self.lines.push_back(Line {
            bytes: bytes.into(),
            wrapped,
        });
        while self.lines.len() > MAX_LINES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.bytes.len();
        }
    }

    pub(super) fn clear(&mut self) {
        self.lines = VecDeque::new();
        self.bytes = 0;
    }

    /// Whether the newest line flows on into what follows.
    pub(super) fn is_wrapped(&self) -> bool {
        self.lines.back().is_some_and(|line| line.wrapped)
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Appends what prints the newest `most` lines, each followed by its line break. Pens do not carry over: every line
    /// starts from, and ends in, the default pen.
    pub(super) fn write(&self, out: &mut Vec<u8>, most: usize) {
        let first = self.lines.len().saturating_sub(most);
        out.reserve(self.bytes + self.lines.len() * 2);
        for line in self.lines.range(first..) {
            out.extend_from_slice(&line.bytes);
            if !line.wrapped {
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_lines() {
        let mut scrollback = Scrollback::default();
        for number in 0..MAX_LINES + 5 {
            scrollback.push(number.to_string().as_bytes(), false);
        }
        assert_eq!(scrollback.len(), MAX_LINES);
        let mut out = Vec::new();
        scrollback.write(&mut out, 2);
        assert_eq!(
            out,
            format!("{}\r\n{}\r\n", MAX_LINES + 3, MAX_LINES + 4).into_bytes()
        );
    }

    #[test]
    fn long_lines_are_bounded_by_bytes() {
        let mut scrollback = Scrollback::default();
        for _ in 0..100 {
            scrollback.push(&vec![b'x'; 1 << 20], true);
        }
        assert_eq!(scrollback.len(), 8);
        scrollback.clear();
        assert_eq!(scrollback.len(), 0);
    }
}
