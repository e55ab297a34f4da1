//! History that outlives the container: conversations, shell histories, the ledger and the journal, saved as they grow,
//! and the work tree.
//!
//! - `manifest`: the format of a snapshot: pure, trusts nothing
//! - `hash`, `mask`, `cut`, `guard`, `pack`: pure: what happens to a file's bytes
//! - `objects`, `connector`, `platform`: a place by URL; our way out to it; the platform's API as such a place
//! - `store`, `sink`: the snapshots of one task in such a place; the spool while it takes nothing
//! - `collect`: which files there are, and their bytes, through the helper
//! - `index`: what is saved of each file
//! - `draft`, `engine`: one backup, from the listing to the snapshots: the conversations' first, then the work tree's;
//!   one after the other
//! - `agent`, `due`: when one is taken, and what is told of it; the times, pure
//! - `secrets`, `known`: what must not leave; the sessions as a snapshot names them
//! - `pace`: the time in snapshots' ids, whatever the wall clock does: pure
//! - `retention`, `verify`: what goes in time; the proof that it comes back
//! - `code`, `leaks`, `snapshot`: the work tree: what is told of it, and where in it secrets are, pure; taking it without
//!   touching the checkout

/// The task's id in the store where nobody named one.
pub const NAMELESS: &str = "task";

pub mod agent;
pub mod code;
pub mod collect;
pub mod connector;
pub mod cut;
pub mod draft;
pub mod due;
pub mod engine;
pub mod guard;
pub mod hash;
pub mod index;
pub mod known;
mod leaks;
pub mod manifest;
pub mod mask;
pub mod objects;
pub mod pace;
pub mod pack;
pub mod platform;
pub mod retention;
pub mod sink;
pub mod snapshot;
pub mod store;
pub mod verify;
