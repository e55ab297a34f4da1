//! The supervisor.
pub mod cli;
pub mod terminals;
