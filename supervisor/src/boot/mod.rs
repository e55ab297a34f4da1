//! The steps before the agent starts.

pub mod credentials;
pub mod git;
pub mod home;
pub mod init_script;
pub mod repository;
