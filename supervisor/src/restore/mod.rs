//! Bringing a task back from a backup.

pub mod repository;
