//! What waits to be typed into a program.
//!
//! Pieces are typed in the order they came, whole, and as fast as the program reads: nothing is dropped when it does not.
//! One thing overtakes: a lone interrupt key (Ctrl-C, Ctrl-\, Ctrl-Z) cancels what people have pasted and is still
//! waiting, closes a bracketed paste that is half typed, and goes first.
//!
//! Bounds: every piece holds a permit for its bytes ([`LIMIT`] in all), so a viewer waits before it can queue more. An
//! interrupt key needs none.

use std::collections::VecDeque;
use std::io;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::pty::Master;

/// Bytes that may wait.
pub(super) const LIMIT: usize = 16 << 20;

const PASTE_BEGIN: &[u8] = b"\x1b[200~";
const PASTE_END: &[u8] = b"\x1b[201~";

/// Why something was not (wholly) typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TypeError {
    #[error("an interrupt key cancelled it")]
    Interrupted,
    #[error("the terminal has ended")]
    Ended,
}

/// Bytes to type.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Vec<u8>,
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// Told when the last byte was typed.
    pub(super) done: Option<oneshot::Sender<Result<(), TypeError>>>,
}

impl Piece {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            permit: None,
            done: None,
        }
    }

    fn finish(self, result: Result<(), TypeError>) {
        drop(self.permit);
        if let Some(done) = self.done
            && done.send(result).is_err()
        {
            tracing::debug!("nobody waits for what was typed any more");
        }
    }
}

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Input {
    queue: VecDeque<Piece>,
    /// Bytes of the first piece that are typed already.
    typed: usize,
    paste: OpenPaste,
}

impl Input {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn push(&mut self, piece: Piece) {
        if piece.bytes.is_empty() {
            piece.finish(Ok(()));
        } else {
            self.queue.push_back(piece);
        }
    }

    /// Types what there is room for. Returns how many bytes that were.
    ///
    /// # Errors
    /// When the terminal cannot be typed into any more; the queue is then to be [cancelled](Self::cancel).
    pub(super) fn write(&mut self, master: &Master) -> io::Result<usize> {
        let mut written = 0;
        while let Some(piece) = self.queue.front() {
            let rest = piece.bytes.get(self.typed..).unwrap_or_default();
            match master.write(rest) {
                Ok(0) => return Ok(written),
                Ok(count) => {
                    written += count;
                    self.paste.follow(rest.get(..count).unwrap_or_default());
                    self.typed += count;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(written),
                Err(error) => return Err(error),
            }
            if self.typed >= piece.bytes.len() {
                self.typed = 0;
                if let Some(piece) = self.queue.pop_front() {
                    piece.finish(Ok(()));
                }
            }
        }
        Ok(written)
    }

    /// A lone interrupt key, while something is waiting.
    ///
    /// # Errors
    /// As [`Input::write`].
    pub(super) fn interrupt(&mut self, key: u8, master: &Master) -> io::Result<()> {
        self.cancel(TypeError::Interrupted);
        if self.paste.open {
            self.push(Piece::of(PASTE_END.to_vec()));
        }
        let signal = master.signal_of(key);
        self.push(Piece::of(vec![key]));
        self.write(master)?;
        if let (false, Some(signal)) = (self.is_empty(), signal) {
            // The program does not read, so the key would wait behind what the kernel holds: signal as the key would.
            self.cancel(TypeError::Interrupted);
            return master.signal(signal);
        }
        Ok(())
    }

    /// Drops everything that waits.
    pub(super) fn cancel(&mut self, why: TypeError) {
        self.typed = 0;
        for piece in self.queue.drain(..) {
            piece.finish(Err(why));
        }
    }
}

/// The keys that interrupt: a message of exactly one of these bytes.
pub(super) fn interrupt_key(message: &[u8]) -> Option<u8> {
    match message {
        [key @ (0x03 | 0x1c | 0x1a)] => Some(*key),
        _ => None,
    }
}

/// Follows the typed bytes: is a bracketed paste open?
#[derive(Debug, Default)]
struct OpenPaste {
    open: bool,
    tail: Vec<u8>,
}

impl OpenPaste {
    fn follow(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let begun = memchr::memmem::rfind(&self.tail, PASTE_BEGIN);
        let ended = memchr::memmem::rfind(&self.tail, PASTE_END);
        match (begun, ended) {
            (None, None) => {}
            (begun, ended) => self.open = begun > ended,
        }
        let keep = self.tail.len().min(PASTE_END.len() - 1);
        self.tail.drain(..self.tail.len() - keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_paste_is_noticed_at_any_cut() {
        let typed = b"ab\x1b[200~text";
        for cut in 0..typed.len() {
            let mut paste = OpenPaste::default();
            paste.follow(&typed[..cut]);
            paste.follow(&typed[cut..]);
            assert!(paste.open, "cut at {cut}");
            paste.follow(b"more\x1b[2");
            paste.follow(b"01~");
            assert!(!paste.open);
        }
    }

    #[test]
    fn only_a_lone_key_interrupts() {
        assert_eq!(interrupt_key(b"\x03"), Some(3));
        assert_eq!(interrupt_key(b"\x03\x03"), None);
        assert_eq!(interrupt_key(b"c"), None);
    }
}
