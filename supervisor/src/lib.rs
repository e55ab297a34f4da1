//! The supervisor.

pub mod state;
