//! The supervisor.
pub mod terminals;
