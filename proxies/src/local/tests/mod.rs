//! The proxy as a client and a server see it: real sockets on both sides.
//!
//! Not tested here, and why: transfers of 10 GB and streams of a day (nothing is kept between two reads, and the
//! benchmark's figures show constant memory), ten thousand idle clients (the limit is tested with two), Rails and
//! Spring (no Ruby or JVM on a machine that builds this; Rails' words of refusal are a case of `refusal`, Spring checks
//! no host), PostgreSQL (told by its name before a byte is sent, as Redis is), pages in a browser (the black-box tests).

mod access;
mod bodies;
mod down;
mod frameworks;
mod hosts;
mod http2;
mod kit;
mod limits;
mod upgrades;
