//! Ports: what listens in this container, whose it is, and how a person gets to see it.
//!
//! [`PortMonitor`] looks (by `INET_DIAG`, else `/proc/net`), attributes each new listener once, and tells: a picture for
//! readers ([`PortsHandle`]) and events for the journal ([`Notice`]). Nothing is ever connected to or written to in
//! order to find something out. A failed scan is not "no ports"; every list is bounded (see the modules).
//!
//! - `listener`, `diag`, `procnet`, `scan`: sockets as the kernel reports them
//! - `owner`, `guess`: the process behind a socket, and what its name says about the protocol
//! - `table`, `announce`: pure: scans in, changes and events out
//! - `monitor`, `handle`: the thread, and what others hold of it
//! - `preview`: the same as the local proxy's table
//!
//! A terminal that prints an address is a reason to look at once: [`PortsHandle::name`].

mod announce;
mod diag;
mod guess;
mod handle;
mod listener;
mod monitor;
mod owner;
mod preview;
mod procnet;
mod scan;
mod table;

pub use announce::Notice;
pub use diag::DiagError;
pub use handle::PortsHandle;
pub use listener::Listener;
pub use monitor::{Config, PortMonitor, SessionOf, StartError};
pub use preview::{PreviewPorts, Traffic};
pub use procnet::ProcNetError;
pub use scan::{Method, ScanError};
pub use table::{Snapshot, Target};
