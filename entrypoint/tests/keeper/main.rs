//! The keeper as a real process, with the test as its supervisor.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests fail as tests do"
)]

#[path = "../support/mod.rs"]
mod support;

mod bounds;
mod draining;
mod holding;
mod launching;
mod restarting;
mod settings;
mod stopping;
mod storm;
