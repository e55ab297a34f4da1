//! Commands.
pub mod attach;
