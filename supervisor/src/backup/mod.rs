//! History that outlives the container: conversations, shell histories, the ledger and the journal, saved as they grow,
//! and the work tree.
//!
//! - `manifest`: the format of a snapshot: pure, trusts nothing
//! - `objects`, `connector`: a place by URL; our way out to it
//! - `store`: the snapshots of one task in such a place
//! - `code`: what a snapshot of the work tree is: pure
//! - `snapshot`: taking one, as the agents' user, without touching the checkout

/// The task's id in the store where nobody named one.
pub const NAMELESS: &str = "task";

pub mod agent;
pub mod code;
pub mod collect;
pub mod connector;
pub mod cut;
pub mod draft;
pub mod engine;
pub mod guard;
pub mod hash;
pub mod index;
pub mod known;
pub mod manifest;
pub mod mask;
pub mod objects;
pub mod pack;
pub mod retention;
pub mod secrets;
pub mod sink;
pub mod snapshot;
pub mod store;
pub mod verify;
