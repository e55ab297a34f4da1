//! The supervisor: everything clever about hosting an agent. See ARCHITECTURE.md for the map.

pub mod agents;
pub mod api;
pub mod attachments;
pub mod backup;
pub mod board;
pub mod boot;
pub mod claim;
pub mod cli;
pub mod clock;
pub mod config;
pub mod conversation;
pub mod doctor;
pub mod files;
pub mod helper;
pub mod identity;
pub mod idle;
pub mod journal;
pub mod keeper;
pub mod listeners;
pub mod logs;
pub mod outbound;
pub mod paths;
pub mod platform;
pub mod ports;
pub mod previews;
pub mod random;
pub mod readiness;
pub mod reload;
pub mod resolve;
pub mod rest;
pub mod restore;
pub mod rotated;
pub mod secrets;
pub mod sessions;
pub mod spending;
pub mod state;
pub mod store;
pub mod supervise;
pub mod terminals;
mod written;

use std::process::ExitCode;

/// Plays the part that the first argument names: the supervisor, its helper, a hook, or the command line.
#[must_use]
pub fn main() -> ExitCode {
    match std::env::args_os()
        .nth(1)
        .as_deref()
        .and_then(std::ffi::OsStr::to_str)
    {
        Some("supervise") => supervise::main(),
        Some("restoring") => cli::restore::main(),
        Some("helper") => helper::main(),
        Some("hook") => cli::hook::main(),
        _ => cli::main(),
    }
}
