//! The supervisor: everything clever about hosting an agent. See ARCHITECTURE.md for the map.

pub mod agents;
pub mod board;
pub mod boot;
pub mod clock;
pub mod config;
pub mod files;
pub mod helper;
pub mod journal;
pub mod keeper;
pub mod listeners;
pub mod logs;
pub mod paths;
pub mod readiness;
pub mod state;
pub mod terminals;
//! The supervisor.

pub mod ports;
pub mod doctor;
