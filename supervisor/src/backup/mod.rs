//! History that outlives the container: conversations, shell histories, the ledger and the journal, saved as they grow,
//! and the work tree.
//!
//! - `manifest`: the format of a snapshot: pure, trusts nothing
//! - `objects`, `connector`: a place by URL; our way out to it
//! - `store`: the snapshots of one task in such a place
//! - `code`: what a snapshot of the work tree is: pure
//! - `snapshot`: taking one, as the agents' user, without touching the checkout

pub mod code;
pub mod connector;
pub mod manifest;
pub mod objects;
pub mod snapshot;
pub mod store;
