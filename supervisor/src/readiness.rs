#![expect(
    unsafe_code,
    reason = "tokio asks for a promise about the descriptor, which an owned one keeps by itself"
)]
//! Waiting for descriptors of our own with tokio.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers an owned, non-blocking descriptor.
///
/// # Errors
/// When the reactor cannot take it (an exhausted `epoll` limit, a regular file).
pub fn register(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, its number never changes, and the `AsyncFd` keeps it until it is dropped.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(io::Error::from)
}
