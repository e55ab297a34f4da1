//! The supervisor.
pub mod config;
