//! Bringing a task back from a backup: as it was, or as a fork.
//!
//! - `plan`: which file goes where, and what the session begins with. Pure; trusts no manifest
//! - `brief`: a conversation told to a session that was not there. Pure
//! - `rewrite`: what a session's files say about where it lives. Pure
//! - `source`: which snapshot is meant
//! - `repository`: the checkout, from remote and bundle
//! - `carry`: carrying the plan out

pub mod brief;
pub mod carry;
pub mod plan;
pub mod repository;
pub mod rewrite;
pub mod source;
