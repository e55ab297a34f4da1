//! The shared-memory ring between the keeper, which reads a program's output, and the supervisor, which may be killed.
//!
//! Owns the layout and the two ends. Output is addressed by absolute offset: byte `n` since the program's start lies at
//! `n % capacity` of the data area. The writer publishes `head` (bytes written) and `oldest` (first byte still there);
//! the reader publishes `tail` (everything before it is recorded). Acknowledged bytes stay readable until newer ones
//! take their place, so a new supervisor can look back.
//!
//! Promises: a reader killed at any instruction loses nothing that it had not acknowledged. Neither end trusts a number
//! that the other wrote: each is clamped to what is possible, so a broken peer gets wrong bytes, never a panic or memory
//! outside the ring.
//!
//! At the bound (unacknowledged bytes fill the ring) the writer has no room, and its owner stops reading the program;
//! only [`RingWriter::make_room`] gives up the oldest bytes, and counts them as lost.

mod header;
mod reader;
mod writer;

pub use reader::{ReadOutcome, RingReader};
pub use writer::RingWriter;

/// Data area of a terminal's ring, bytes: several seconds of a full-speed flood, or hours of an agent's drawing, while
/// no supervisor reads; small enough that dozens of terminals cost no memory that matters.
pub const TERMINAL_CAPACITY: u64 = 1024 * 1024;
/// Data area of a pipe's ring, bytes: four times the pipe itself.
pub const PIPE_CAPACITY: u64 = 256 * 1024;
/// Size of the header, bytes: one page on every architecture that has pages of at most 64 KiB, so that the data area
/// can be mapped by itself.
pub(crate) const HEADER_SIZE: u64 = 64 * 1024;

#[cfg(test)]
mod tests;
