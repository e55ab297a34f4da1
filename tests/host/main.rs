//! Black-box tests of the host: the binary, real agents, real processes, and a scripted model.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod agents;
mod asleep;
mod attach;
mod attachments;
mod backup;
mod checkout;
mod container;
mod conversation;
mod crashes;
mod disk;
mod elsewhere;
mod endurance;
mod idle;
mod init;
mod kills;
mod loaded;
mod logins;
mod person;
mod platform;
mod ports;
mod provider;
mod refusals;
mod reload;
mod restore;
mod search;
mod sessions;
mod shells;
mod steering;
mod support;
mod trust;
