//! The keeper as a real process, with the test as its supervisor.

#[path = "../support/mod.rs"]
mod support;

mod holding;
mod launching;
mod restarting;
mod stopping;
mod storm;
