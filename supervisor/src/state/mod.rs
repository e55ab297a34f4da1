//! What the agents are doing: from evidence to the state that people, platforms and files see.
//!
//! - [`observation`]: the vocabulary of evidence, each piece with the [`moment`] it was true at;
//! - [`fusion`]: the pure fold from evidence to one state with a reason, per session;
//! - [`tree`]: evidence from `/proc`: what runs beneath an agent, and how hard;
//! - [`clock`]: where moments come from;
//! - [`publish`]: the files `/tmp/claude_state` and `/tmp/claude_state.json`.
//!
//! `moment`, `observation` and `fusion` do no I/O and read no clock.

pub mod clock;
pub mod fusion;
pub mod moment;
pub mod observation;
pub mod publish;
pub mod tree;

#[cfg(test)]
mod tests;
