//! Listening sockets by `INET_DIAG` (sock_diag(7)): one dump per family, LISTEN only.
//!
//! The kernel walks the hash of listeners alone, so a dump costs microseconds however many connections exist. Another
//! network namespace's sockets never appear. Bounds: at most [`MAX_LISTENERS`] sockets are kept of a dump, the rest of
//! it is read and dropped; an answer that does not come within [`PATIENCE_S`] is an error, never an empty list.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt::ReceiveTimeout,
};
use nix::sys::time::TimeVal;

use super::listener::Listener;

/// Most sockets that a scan keeps.
pub(crate) const MAX_LISTENERS: usize = 8192;
/// Seconds. The kernel answers a dump while it is asked; more than this means that it never will.
const PATIENCE_S: i64 = 1;
/// How often a dump that changed underneath is read again. The last one counts, changed or not: a socket that it misses
/// is in the next scan.
const ATTEMPTS: u8 = 3;
/// The kernel packs a dump into datagrams of at most this size (`NLMSG_GOODSIZE` rounds to 32 KiB at most).
const DATAGRAM: usize = 32 * 1024;

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum DiagError {
    #[error("cannot open a sock_diag socket")]
    Open(#[source] io::Error),
    #[error("cannot ask for listeners of family {family}")]
    Send { family: u8, source: io::Error },
    #[error("no answer about listeners of family {family}")]
    Receive { family: u8, source: io::Error },
    #[error("the kernel refused to list listeners of family {family}")]
    Refused { family: u8, source: io::Error },
    #[error("an answer about listeners of family {family} is not readable: {text}")]
    Decode { family: u8, text: String },
}

impl DiagError {
    /// Will asking again give the same? (No module, no permission, an emulated kernel.)
    pub(crate) fn is_lasting(&self) -> bool {
        let source = match self {
            Self::Open(source) | Self::Send { source, .. } | Self::Refused { source, .. } => source,
            Self::Receive { .. } | Self::Decode { .. } => return false,
        };
        !matches!(
            source.raw_os_error(),
            Some(
                nix::libc::EMFILE
                    | nix::libc::ENFILE
                    | nix::libc::ENOBUFS
                    | nix::libc::ENOMEM
                    | nix::libc::EINTR
                    | nix::libc::EBUSY
            )
        )
    }
}

/// An open socket to sock_diag.
#[derive(Debug)]
pub(crate) struct Diag {
    socket: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Diag {
    pub(crate) fn open() -> Result<Self, DiagError> {
        // Without a destination of its own, what is sent goes to the kernel.
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )
        .map_err(|error| DiagError::Open(error.into()))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::new(PATIENCE_S, 0))
            .map_err(|error| DiagError::Open(error.into()))?;
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM],
            sequence: 0,
        })
    }

    /// All listening TCP sockets. A kernel without IPv6 gives those of IPv4.
    pub(crate) fn scan(&mut self) -> Result<Vec<Listener>, DiagError> {
        let mut found = Vec::new();
        self.scan_family(AF_INET, &mut found)?;
        match self.scan_family(AF_INET6, &mut found) {
            Err(DiagError::Refused { source, .. })
                if source.raw_os_error() == Some(nix::libc::ENOENT) => {}
            other => other?,
        }
        Ok(found)
    }

    fn scan_family(&mut self, family: u8, found: &mut Vec<Listener>) -> Result<(), DiagError> {
        let before = found.len();
        for attempt in 1..=ATTEMPTS {
            found.truncate(before);
            let interrupted = self.dump(family, found)?;
            if !interrupted || attempt == ATTEMPTS {
                break;
            }
        }
        Ok(())
    }

    /// Appends one dump; true when sockets changed underneath.
    fn dump(&mut self, family: u8, found: &mut Vec<Listener>) -> Result<bool, DiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        send(
            self.socket.as_raw_fd(),
            &request(family, self.sequence),
            MsgFlags::empty(),
        )
        .map_err(|error| DiagError::Send {
            family,
            source: error.into(),
        })?;
        let mut interrupted = false;
        loop {
            let size = match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(size) => size,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => {
                    return Err(DiagError::Receive {
                        family,
                        source: error.into(),
                    });
                }
            };
            let mut rest = self.buffer.get(..size).unwrap_or_default();
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<SockDiagMessage>::deserialize(rest).map_err(|error| {
                        DiagError::Decode {
                            family,
                            text: error.to_string(),
                        }
                    })?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                // Messages are aligned to four bytes; a length of nothing would never end.
                let aligned = length.max(1).saturating_add(3) & !3;
                rest = rest.get(aligned..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response))
                        if found.len() < MAX_LISTENERS =>
                    {
                        found.push(listener(&response));
                    }
                    NetlinkPayload::Done(_) => return Ok(interrupted),
                    NetlinkPayload::Error(error) => {
                        return Err(DiagError::Refused {
                            family,
                            source: error.to_io(),
                        });
                    }
                    _ => {}
                }
            }
        }
    }
}

fn request(family: u8, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let socket_id = if family == AF_INET {
        SocketId::new_v4()
    } else {
        SocketId::new_v6()
    };
    let mut message = NetlinkMessage::new(
        header,
        SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::LISTEN,
            socket_id,
        })
        .into(),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn listener(response: &InetResponse) -> Listener {
    let id = &response.header.socket_id;
    // The kernel adds the attribute to every IPv6 listener (inet_diag_msg_attrs_fill); absent: an old kernel, where the
    // system's default (serve both) is the better guess.
    let v6only = response.nlas.iter().find_map(|nla| match nla {
        Nla::SkV6Only(only) => Some(*only),
        _ => None,
    });
    Listener {
        port: id.source_port,
        address: id.source_address,
        interface: id.interface_id,
        inode: u64::from(response.header.inode),
        uid: response.header.uid,
        dual: id.source_address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && !v6only.unwrap_or(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn finds_real_listeners_of_both_families_with_their_inode_and_uid() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let any = TcpListener::bind("[::]:0").unwrap();
        let found = Diag::open().unwrap().scan().unwrap();
        for (socket, dual) in [(&v4, false), (&v6, false), (&any, true)] {
            let local = socket.local_addr().unwrap();
            let link = std::fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
            let entry = found
                .iter()
                .find(|entry| entry.port == local.port() && entry.address == local.ip())
                .unwrap();
            assert_eq!(entry.inode, link.ino());
            assert_eq!(entry.uid, nix::unistd::geteuid().as_raw());
            assert_eq!(entry.dual, dual);
        }
    }

    #[test]
    fn connections_are_not_listeners() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let _client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _accepted = server.accept().unwrap();
        let mut diag = Diag::open().unwrap();
        assert_eq!(
            diag.scan()
                .unwrap()
                .iter()
                .filter(|entry| entry.port == port)
                .count(),
            1
        );
        drop(server);
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        assert!(
            !diag
                .scan()
                .unwrap()
                .iter()
                .any(|entry| entry.port == port && entry.address == loopback)
        );
    }
}
