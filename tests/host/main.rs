//! Black-box tests of the host: the binary, real agents, real processes, and a scripted model.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod agents;
mod checkout;
mod container;
mod disk;
mod endurance;
mod init;
mod logins;
mod refusals;
mod sessions;
mod support;
mod trust;
