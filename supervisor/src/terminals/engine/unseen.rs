//! Output that was handed on and that the screen model has not seen yet.
//!
//! The model reads slower than a flood is printed, and hundreds of kilobytes at once would keep every other task of its
//! thread waiting. So it catches up in slices of [`SLICE`], and what a flood of plain text leaves no trace of is left out.
//!
//! Bounds: [`FULL`] bytes; then the engine takes no more from the program until the model has caught up.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes the model may lag behind.
pub(super) const FULL: usize = 2 << 20;
/// Time the model may lag behind, before it begins to catch up.
pub(super) const WITHIN: Duration = Duration::from_millis(200);
/// The same in a flood that is left out but for its end: who wants to see the screen has the model catch up at once.
pub(super) const WITHIN_A_FLOOD: Duration = Duration::from_millis(1000);
/// Less than this is shown to the model at once.
const AT_ONCE: usize = 32 << 10;
/// What the model reads between two looks at everything else: about a third of a millisecond.
const SLICE: usize = 16 << 10;

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    bytes: Vec<u8>,
    /// Bytes at the front that the model has seen, or need not see.
    seen: usize,
    /// Where the catching up ends that is under way; 0 when none is.
    goal: usize,
    due: Option<Instant>,
    /// Something was left out since the model caught up.
    is_flood: bool,
}

impl Unseen {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        if self.due.is_none() {
            self.due = Some(Instant::now() + WITHIN);
        }
    }

    /// What the model has not seen.
    pub(super) fn rest(&self) -> &[u8] {
        self.bytes.get(self.seen..).unwrap_or_default()
    }

    pub(super) fn is_full(&self) -> bool {
        self.rest().len() >= FULL
    }

    /// So little that it delays nobody.
    pub(super) fn is_small(&self) -> bool {
        self.rest().len() < AT_ONCE
    }

    pub(super) fn is_catching_up(&self) -> bool {
        self.seen < self.goal
    }

    /// When catching up is to begin.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_catching_up())
    }

    /// Leaves out bytes at the front: those of a flood.
    pub(super) fn skip(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        if !self.is_flood {
            self.is_flood = true;
            self.due = self.due.map(|due| due + (WITHIN_A_FLOOD - WITHIN));
        }
        self.advance(count);
    }

    /// Begins to catch up with everything there is.
    pub(super) fn catch_up(&mut self) {
        self.goal = self.bytes.len();
        self.due = None;
        self.is_flood = false;
    }

    /// What the model is to see next; nothing when it has caught up.
    pub(super) fn slice(&self) -> &[u8] {
        let end = self.goal.min(self.seen + SLICE);
        self.bytes.get(self.seen..end).unwrap_or_default()
    }

    /// The model has seen so many bytes of [`Self::rest`].
    pub(super) fn advance(&mut self, count: usize) {
        self.seen += count;
        if self.seen < self.goal {
            return;
        }
        self.bytes.drain(..self.seen);
        (self.seen, self.goal) = (0, 0);
        if self.bytes.is_empty() {
            self.due = None;
            if self.bytes.capacity() > AT_ONCE {
                self.bytes = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the model sees until it has caught up.
    fn seen(unseen: &mut Unseen) -> Vec<u8> {
        let mut seen = Vec::new();
        while unseen.is_catching_up() {
            let slice = unseen.slice().to_vec();
            assert!(!slice.is_empty() && slice.len() <= SLICE);
            seen.extend_from_slice(&slice);
            unseen.advance(slice.len());
        }
        seen
    }

    #[test]
    fn everything_is_seen_once_in_order_and_in_slices() {
        let output: Vec<u8> = (0..FULL).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut unseen = Unseen::default();
        let mut all = Vec::new();
        for part in output.chunks(100_000) {
            unseen.push(part);
            unseen.catch_up();
            // What comes meanwhile waits for the next time.
            unseen.push(b"later");
            all.extend(seen(&mut unseen));
            assert_eq!(unseen.rest(), b"later");
            unseen.skip(5);
        }
        assert_eq!(all, output);
        assert!(unseen.rest().is_empty() && unseen.due().is_none());
    }

    #[test]
    fn what_is_left_is_due_again() {
        let mut unseen = Unseen::default();
        unseen.push(b"now");
        let first = unseen.due().unwrap();
        unseen.catch_up();
        assert_eq!(unseen.due(), None);
        unseen.push(b"later");
        assert_eq!(seen(&mut unseen), b"now");
        assert!(unseen.due().unwrap() >= first);
    }
}
