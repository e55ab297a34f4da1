//! Where a terminal's output comes from.
//!
//! In a container the keeper reads every PTY into a ring that outlives this process; tests and benches read a PTY
//! themselves ([`super::pty::PtySource`]). The engine only knows this trait.

use std::future::Future;
use std::io;

/// What one read brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Bytes that were lost right before those that were read (the ring overran while nobody read it).
    pub lost: u64,
    /// Bytes appended.
    pub bytes: usize,
    /// Nothing will follow.
    pub ended: bool,
}

/// A stream of output with absolute offsets.
pub trait Source: Send + 'static {
    /// Offset of the next byte that [`Source::read`] brings.
    fn offset(&self) -> u64;

    /// Waits until there is something to read or the output has ended. Cancelling it loses nothing.
    fn ready(&mut self) -> impl Future<Output = io::Result<()>> + Send;

    /// Appends at most `most` bytes to `into` without waiting; no bytes and not ended means that there are none now.
    ///
    /// # Errors
    /// When the source cannot be read any more. The terminal then ends once its program has.
    fn read(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<Taken>;

    /// Everything before `offset` is safe on this side and may be forgotten.
    fn acknowledge(&mut self, offset: u64);
}
