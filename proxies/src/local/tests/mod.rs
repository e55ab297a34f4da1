//! The proxy as a client and a server see it: real sockets on both sides.

mod access;
mod bodies;
mod down;
mod frameworks;
mod hosts;
mod http2;
mod kit;
mod limits;
mod upgrades;
