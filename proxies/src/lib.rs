//! HTTP mechanism and the proxies built on it. Knows nothing of agents, of what a session means, or of disks beyond
//! the ledger's directory that it is handed.

pub mod generation;
pub mod http;
pub mod local;
