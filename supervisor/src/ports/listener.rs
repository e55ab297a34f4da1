//! A listening TCP socket, as the kernel reports it, and the choice of addresses at which to dial it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// One listening socket of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listener {
    pub port: u16,
    pub address: IpAddr,
    /// Index of the interface that the socket is bound to, or the scope of a link-local address; 0: none.
    pub interface: u32,
    /// Inode of the socket: its identity while it lives.
    pub inode: u64,
    /// File-system uid of the process that made the socket.
    pub uid: u32,
    /// On `::` and serves IPv4 clients too (`IPV6_V6ONLY` off).
    pub dual: bool,
}

/// What one entry of the list is about: all sockets (`SO_REUSEPORT`) on the same address are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Bound {
    pub(crate) port: u16,
    pub(crate) address: IpAddr,
    pub(crate) interface: u32,
}

impl Listener {
    pub(crate) fn bound(&self) -> Bound {
        Bound {
            port: self.port,
            address: self.address,
            interface: self.interface,
        }
    }

    /// Rank among the addresses of a port, lower first: what is meant for this machine only comes before what is open
    /// to others, and IPv4 before IPv6.
    pub(crate) fn rank(&self) -> u8 {
        match canonical(self.address) {
            IpAddr::V4(ip) if ip == Ipv4Addr::LOCALHOST => 0,
            IpAddr::V4(ip) if ip.is_unspecified() => 1,
            IpAddr::V6(ip) if ip == Ipv6Addr::LOCALHOST => 2,
            IpAddr::V6(ip) if ip.is_unspecified() => 3,
            IpAddr::V4(ip) if ip.is_loopback() => 4,
            IpAddr::V4(_) => 5,
            IpAddr::V6(_) => 6,
        }
    }

    /// Where to connect, best first. An unspecified address is reached through loopback. `::` with IPv4 clients is
    /// dialled on IPv4 first (a container may lack `::1`), unless another socket of the port takes IPv4 (`v4_taken`).
    pub(crate) fn dial(&self, v4_taken: bool) -> Vec<SocketAddr> {
        let v4 = |ip| SocketAddr::new(IpAddr::V4(ip), self.port);
        let v6 = |ip, scope| SocketAddr::V6(SocketAddrV6::new(ip, self.port, 0, scope));
        match canonical(self.address) {
            IpAddr::V4(ip) if ip.is_unspecified() => vec![v4(Ipv4Addr::LOCALHOST)],
            IpAddr::V4(ip) => vec![v4(ip)],
            IpAddr::V6(ip) if ip.is_unspecified() => {
                let loopback = v6(Ipv6Addr::LOCALHOST, 0);
                if self.dual && !v4_taken {
                    vec![v4(Ipv4Addr::LOCALHOST), loopback]
                } else {
                    vec![loopback]
                }
            }
            IpAddr::V6(ip) if ip.is_unicast_link_local() => vec![v6(ip, self.interface)],
            IpAddr::V6(ip) => vec![v6(ip, 0)],
        }
    }

    /// Do IPv4 clients of loopback reach this socket by its own IPv4 address?
    pub(crate) fn takes_v4_loopback(&self) -> bool {
        matches!(canonical(self.address), IpAddr::V4(ip) if ip == Ipv4Addr::LOCALHOST || ip.is_unspecified())
    }

    pub(crate) fn family(&self) -> u8 {
        if self.address.is_ipv4() { 4 } else { 6 }
    }

    /// Can be reached from another machine.
    pub(crate) fn exposed(&self) -> bool {
        !canonical(self.address).is_loopback()
    }
}

/// IPv4-mapped addresses are IPv4.
fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(address: &str, dual: bool) -> Listener {
        Listener {
            port: 3000,
            address: address.parse().unwrap(),
            interface: 7,
            inode: 1,
            uid: 0,
            dual,
        }
    }

    #[test]
    fn every_kind_of_address_is_dialled_where_it_answers() {
        for (address, dual, v4_taken, expected) in [
            ("127.0.0.1", false, false, vec!["127.0.0.1:3000"]),
            ("127.0.0.53", false, false, vec!["127.0.0.53:3000"]),
            ("0.0.0.0", false, false, vec!["127.0.0.1:3000"]),
            ("::1", false, false, vec!["[::1]:3000"]),
            ("::", false, false, vec!["[::1]:3000"]),
            ("::", true, false, vec!["127.0.0.1:3000", "[::1]:3000"]),
            ("::", true, true, vec!["[::1]:3000"]),
            ("::ffff:127.0.0.1", true, false, vec!["127.0.0.1:3000"]),
            ("172.17.0.2", false, false, vec!["172.17.0.2:3000"]),
            ("fe80::1", false, false, vec!["[fe80::1%7]:3000"]),
        ] {
            let dialled: Vec<String> = listener(address, dual)
                .dial(v4_taken)
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(dialled, expected, "{address}");
        }
    }

    #[test]
    fn only_loopback_is_not_exposed() {
        for (address, exposed) in [
            ("127.0.0.1", false),
            ("127.0.0.53", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("0.0.0.0", true),
            ("::", true),
            ("172.17.0.2", true),
        ] {
            assert_eq!(listener(address, false).exposed(), exposed, "{address}");
        }
    }

    #[test]
    fn v4_loopback_ranks_first() {
        let ranks: Vec<u8> = ["127.0.0.1", "0.0.0.0", "::1", "::", "172.17.0.2", "fe80::1"]
            .map(|address| listener(address, false).rank())
            .to_vec();
        assert!(ranks.is_sorted() && ranks.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
