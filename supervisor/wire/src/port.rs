//! Ports that listen: an entry of `/v1/ports`, and what the events about ports carry.
//!
//! There is one entry per listening *address*: a port that two processes serve, one on IPv4 and one on IPv6, has two.
//! Events are about the *port*: it opens with its first address and closes with its last.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// An address that listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    pub port: u16,
    /// What the socket is bound to, unspecified addresses included.
    #[schemars(with = "String")]
    pub address: IpAddr,
    /// 4 or 6. A socket on `::` that serves IPv4 too is one entry of family 6 with `dual` set.
    pub family: u8,
    /// IPv6 only: does it serve IPv4 clients as well?
    #[serde(default)]
    pub dual: bool,
    /// Owner of the listening socket; none when it could not be found out.
    pub process: Option<PortProcess>,
    /// User id of the process that made the socket.
    #[serde(default)]
    pub uid: u32,
    /// Session whose agent started the process.
    #[serde(default)]
    pub session: Option<String>,
    /// Since when this address listens.
    pub since: Time,
    /// Address at which a person sees it.
    pub preview: String,
    /// Does it speak HTTP? None: not known yet; nothing is ever sent only to find out.
    pub http: Option<bool>,
    /// Can be reached from outside the container without the local proxy.
    #[serde(default)]
    pub exposed: bool,
    /// Another program than the one before listens here: links to the port are suspended until it is shared again.
    #[serde(default)]
    pub taken_over: bool,
}

/// The process that listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct PortProcess {
    /// As numbered in the container.
    pub pid: u32,
    /// As the kernel names it (at most 15 bytes).
    pub name: String,
    /// Arguments joined by spaces, cut to [`PortProcess::COMMAND_MAX`] bytes.
    pub command: String,
}

impl PortProcess {
    /// Longest `command`, in bytes.
    pub const COMMAND_MAX: usize = 512;
}

/// What happened to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PortChange {
    /// The first address listens.
    Opened,
    /// Another address, process or finding.
    Changed,
    /// No address listens any more.
    Closed,
}

/// Payload of `port.opened`, `port.changed` and `port.closed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortEvent {
    /// The address the proxy would choose; of a closed port, the last one it had.
    pub port: Port,
}

/// Payload of `ports.changed`: more happened within 100 ms than is worth an event each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortsEvent {
    /// How many changes there were.
    pub count: u64,
    /// The first [`PortsEvent::LISTED`] of them.
    pub ports: Vec<PortsEventEntry>,
}

impl PortsEvent {
    /// How many changes are named; the others are in `/v1/ports`.
    pub const LISTED: usize = 100;
}

/// One of the changes that a [`PortsEvent`] sums up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortsEventEntry {
    pub change: PortChange,
    pub port: Port,
}

/// How a server is told its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostMode {
    /// As it is; as `localhost` once the framework refused that.
    #[default]
    Auto,
    /// Always as it is.
    Preserve,
    /// Always as `localhost`.
    Localhost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_contract_is_readable_and_survives() {
        let text = r#"{"port":3000,"address":"127.0.0.1","family":4,"process":{"pid":31,"name":"node","command":"node x"},"since":"2026-11-22T03:00:00.000Z","preview":"/proxy/3000/","http":true,"newer":1}"#;
        let port: Port = serde_json::from_str(text).unwrap();
        assert_eq!(port.http, Some(true));
        let again: Port = serde_json::from_str(&serde_json::to_string(&port).unwrap()).unwrap();
        assert_eq!(again, port);
    }

    #[test]
    fn what_is_unknown_is_null() {
        let text = r#"{"port":1,"address":"::1","family":6,"process":null,"since":"2026-11-22T03:00:00.000Z","preview":"","http":null}"#;
        let value = serde_json::to_value(serde_json::from_str::<Port>(text).unwrap()).unwrap();
        assert!(value["process"].is_null() && value["http"].is_null());
        assert_eq!(value["address"], "::1");
    }
}
