//! Terminals: engines, viewers, and the protocols that show them.

pub mod screen;
pub mod size;
