//! The supervisor.

pub mod ports;
