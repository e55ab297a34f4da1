//! The generation proxy between raw sockets: a scripted provider on one side, an agent on the other.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test that cannot go on ends by panicking"
)]

mod bodies;
mod budget;
mod caps;
mod cuts;
mod kit;
mod oracle;
mod pass;
mod probe;
mod sockets;
mod way_out;
