//! The supervisor.

pub mod journal;
pub mod state;
