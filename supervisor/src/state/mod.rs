//! What the agents are doing: from evidence to the state that people, platforms and files see.
//!
//! - [`observation`]: the vocabulary of evidence, each piece with the [`moment`] it was true at;
//! - [`fusion`]: the pure fold from evidence to one state with a reason, per session;
//! - [`combine`]: from the sessions' states to the container's;
//! - [`tree`]: evidence from `/proc`: what runs beneath an agent, and how hard;
//! - [`clock`]: where moments come from;
//! - [`monitor`]: the task that owns all of this and says what changed;
//! - [`memory`]: the last word, for the next supervisor;
//! - [`publish`]: the files `/tmp/claude_state` and `/tmp/claude_state.json`.
//!
//! `moment`, `observation`, `fusion` and `combine` do no I/O and read no clock.

pub mod clock;
pub mod combine;
pub mod fusion;
pub mod memory;
pub mod moment;
pub mod monitor;
pub mod observation;
pub mod publish;
pub mod tree;
