//! The supervisor.
pub mod config;
pub mod doctor;
