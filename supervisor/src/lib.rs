//! The supervisor.

pub mod agents;
