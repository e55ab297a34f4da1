//! What is saved of a task, and how it leaves the container.
//!
//! - `code`: what a code snapshot is. Pure.
//! - `snapshot`: taking one, as the agents' user.

pub mod code;
pub mod snapshot;
