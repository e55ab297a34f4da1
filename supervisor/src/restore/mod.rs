//! Bringing a task back from a backup.

pub mod brief;
pub mod plan;
pub mod repository;
