//! All work in directories that the agent can change is done by a helper that runs as the agents' user.
//!
//! Everything under the checkout, the home or `/tmp` can be a symlink, a FIFO or a device by the time we look: root
//! must not open it. So a small process (`whim helper`) with the agents' identity, a clean environment and no secret
//! does it on request: it can reach nothing that the agent could not reach by itself. The agent may kill it (it is
//! started again) and may lie through it (its answers are data, bounded and checked).
//!
//! - `protocol`: requests and answers, one frame each, over a stream socket
//! - `server`: the process itself, synchronous
//! - `client`: the supervisor's handle

mod client;
mod protocol;
mod put;
mod server;

pub use client::{Change, Helper, HelperError, Tree};
pub use protocol::{Entry, EntryKind, Stamp};
pub(crate) use put::put;
pub use server::main;

/// What a helper would say of a directory; for tests that have none.
#[cfg(test)]
pub(crate) fn walk(root: &std::path::Path) -> std::io::Result<Tree> {
    match server::tree(root)? {
        protocol::Answer::Tree {
            leaves,
            directories,
            cut,
        } => Ok(Tree {
            leaves,
            directories,
            cut,
        }),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}
