//! The supervisor.
pub mod config;

pub mod agents;

pub mod state;
pub mod terminals;
