//! The wire between keeper and supervisor.
//!
//! Owns the messages ([`message`]), their encoding, the socket they travel on ([`Channel`]) and the sealed memfds for
//! what is larger than a packet. Both sides link this module, so there is one codec and no second opinion about a byte.
//!
//! Promises: decoding never panics and never allocates more than the input's length; what is encoded fits the bounds
//! or is refused with a [`CodecError`]. Integers are little-endian; a list or string is a `u32` length and its bytes.

mod channel;
mod codec;
mod launch;
mod memfd;
mod message;
mod packets;

pub use channel::{Channel, KeeperChannel, SupervisorChannel, pair};
pub use codec::CodecError;
pub(crate) use codec::{Decoder, Encoder};
pub(crate) use launch::encode_arguments;
pub use launch::{MAX_ARGUMENTS, MAX_LAUNCH};
pub use memfd::{memfd_sealed, read_memfd};
pub use message::*;
pub use packets::Packet;

/// Name of the held descriptor that is the keeper's own: the sealed memfd with argv and environment ([`Arguments`]).
pub const ARGUMENTS: &str = "arguments";
/// Name of the held directory in which the keeper makes `claude_state` read `stopped` when everything ended.
pub const FINAL_STATE_DIRECTORY: &str = "final-state-dir";
/// Longest name of a process or held descriptor, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest text for people (reasons, refusals), in bytes.
pub const MAX_TEXT: usize = 1024;
/// Longest path in a message, in bytes (`PATH_MAX`).
pub const MAX_PATH: usize = 4096;
/// Descriptor of the [`SupervisorChannel`] in a supervisor that was just started.
pub const SUPERVISOR_DESCRIPTOR: i32 = 3;
