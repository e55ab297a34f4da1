//! The newest output of a terminal, addressed by absolute offsets.
//!
//! The engine appends; every viewer copies from where it stands. Offsets count all bytes since the terminal began,
//! also across restarts of the supervisor, and never go back. Pure: no tokio, no I/O.
//!
//! Bounds: [`Backlog::LIMIT`] bytes. What falls out is gone for viewers that had not read it: they get [`Behind`] and go on
//! from a snapshot of the screen.

use std::collections::VecDeque;

/// See the module's header.
#[derive(Debug, Default)]
pub struct Backlog {
    bytes: VecDeque<u8>,
    start: u64,
}

/// The wanted offset is no longer, or not yet, in the backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {wanted} is outside the backlog {start}..={head}")]
pub struct Behind {
    pub wanted: u64,
    pub start: u64,
    pub head: u64,
}

impl Backlog {
    /// Bytes kept.
    pub const LIMIT: usize = 1 << 20;

    /// An empty backlog whose next byte has this offset.
    pub fn at(offset: u64) -> Self {
        Self {
            bytes: VecDeque::new(),
            start: offset,
        }
    }

    /// Offset of the oldest byte kept.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the newest byte.
    pub fn head(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Appends output; the oldest bytes beyond the limit go.
    pub fn push(&mut self, bytes: &[u8]) {
        let tail = bytes
            .get(bytes.len().saturating_sub(Self::LIMIT)..)
            .unwrap_or(bytes);
        let over = (self.bytes.len() + tail.len()).saturating_sub(Self::LIMIT);
        self.bytes.drain(..over);
        self.start += over as u64 + (bytes.len() - tail.len()) as u64;
        self.bytes.extend(tail);
    }

    /// Appends at most `most` bytes from `offset` on to `into`; none at the head.
    ///
    /// # Errors
    /// [`Behind`] when the bytes at `offset` are not kept (any more).
    pub fn copy(&self, offset: u64, most: usize, into: &mut Vec<u8>) -> Result<usize, Behind> {
        let behind = Behind {
            wanted: offset,
            start: self.start,
            head: self.head(),
        };
        let from = offset.checked_sub(self.start).ok_or(behind)?;
        let from = usize::try_from(from).map_err(|_| behind)?;
        let length = self.bytes.len().checked_sub(from).ok_or(behind)?.min(most);
        let (first, second) = self.bytes.as_slices();
        let end = from + length;
        if from < first.len() {
            into.extend_from_slice(first.get(from..end.min(first.len())).unwrap_or_default());
        }
        if end > first.len() {
            let start = from.saturating_sub(first.len());
            into.extend_from_slice(second.get(start..end - first.len()).unwrap_or_default());
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(backlog: &Backlog, offset: u64, most: usize) -> Result<Vec<u8>, Behind> {
        let mut bytes = Vec::new();
        backlog.copy(offset, most, &mut bytes).map(|_| bytes)
    }

    #[test]
    fn offsets_are_absolute() {
        let mut backlog = Backlog::at(100);
        backlog.push(b"hello");
        assert_eq!(read(&backlog, 102, 2).unwrap(), b"ll");
        assert_eq!(read(&backlog, 105, 2).unwrap(), b"");
        assert!(read(&backlog, 106, 2).is_err());
        assert!(read(&backlog, 99, 2).is_err());
    }

    #[test]
    fn the_oldest_bytes_go() {
        let mut backlog = Backlog::at(0);
        for number in 0u32..400_000 {
            backlog.push(&number.to_be_bytes());
        }
        assert_eq!(backlog.head(), 1_600_000);
        assert_eq!(backlog.start(), 1_600_000 - Backlog::LIMIT as u64);
        let oldest = read(&backlog, backlog.start(), 4).unwrap();
        assert_eq!(
            u64::from(u32::from_be_bytes(oldest.try_into().unwrap())) * 4,
            backlog.start()
        );
        let mut at = backlog.start();
        while at < backlog.head() {
            let part = read(&backlog, at, 4).unwrap();
            assert_eq!(
                u64::from(u32::from_be_bytes(part.try_into().unwrap())) * 4,
                at
            );
            at += 4;
        }
        backlog.push(&vec![7; Backlog::LIMIT * 3]);
        assert_eq!(backlog.head() - backlog.start(), Backlog::LIMIT as u64);
        assert_eq!(backlog.head(), 1_600_000 + 3 * Backlog::LIMIT as u64);
    }
}
