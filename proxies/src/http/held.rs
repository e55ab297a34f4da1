//! Whether a socket of this machine is still held by a process.
//!
//! The kernel is asked for that one socket (`INET_DIAG`, sock_diag(7)): a closed one is gone or has no inode any more.
//! Where that is refused (gVisor, seccomp), the table in `/proc/net` tells the same (proc(5)); reading it costs
//! milliseconds on a machine with much memory, for the kernel walks its whole hash of connections.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// An answer is one message of less than 300 bytes.
const ANSWER: usize = 4096;

/// Whether some process holds the socket at `owner` that is connected to `other`. False where nothing can be known.
pub(super) fn is_held(owner: SocketAddr, other: SocketAddr) -> bool {
    ask(owner, other).unwrap_or_else(|_refused| in_table(owner, other))
}

/// # Errors
/// The kernel does not tell.
fn ask(owner: SocketAddr, other: SocketAddr) -> io::Result<bool> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    // The kernel answers while it is asked: what follows never waits.
    let now = MsgFlags::MSG_DONTWAIT;
    send(kernel.as_raw_fd(), &request(owner, other), now)?;
    let mut answer = [0; ANSWER];
    let size = recv(kernel.as_raw_fd(), &mut answer, now)?;
    let message =
        NetlinkMessage::<SockDiagMessage>::deserialize(answer.get(..size).unwrap_or_default())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    match message.payload {
        NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
            // Where there is no such connection, a listener on the same port is found.
            let is_it = found.header.socket_id.destination_port == other.port();
            Ok(is_it && found.header.inode != 0)
        }
        NetlinkPayload::Error(error) => match error.to_io() {
            error if error.kind() == io::ErrorKind::NotFound => Ok(false),
            error => Err(error),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn request(owner: SocketAddr, other: SocketAddr) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(
        header,
        SockDiagMessage::InetRequest(InetRequest {
            family: if owner.is_ipv4() { AF_INET } else { AF_INET6 },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::all(),
            socket_id: SocketId {
                source_port: owner.port(),
                destination_port: other.port(),
                source_address: owner.ip(),
                destination_address: other.ip(),
                interface_id: 0,
                // No cookie: whichever it is.
                cookie: [0xff; 8],
            },
        })
        .into(),
    );
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn in_table(owner: SocketAddr, other: SocketAddr) -> bool {
    let table = if owner.is_ipv4() {
        "/proc/net/tcp"
    } else {
        "/proc/net/tcp6"
    };
    let Ok(table) = fs::read_to_string(table) else {
        return false;
    };
    let (owner, other) = (written(owner), written(other));
    table.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some(&owner)
            && fields.next() == Some(&other)
            // After the state: queues, timer, retransmits, uid, timeouts, and then the inode.
            && fields.nth(6).is_some_and(|inode| inode != "0")
    })
}

/// An address as the table writes it: 32-bit words in the machine's byte order.
fn written(address: SocketAddr) -> String {
    let bytes = match address {
        SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
        SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
    };
    let words = bytes
        .chunks_exact(4)
        .filter_map(|word| word.try_into().ok())
        .map(u32::from_ne_bytes);
    let hex: String = words.map(|word| format!("{word:08X}")).collect();
    format!("{hex}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener, TcpStream};

    #[test]
    fn a_held_socket_is_told_from_a_closed_one() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(bind) else {
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, peer) = listener.accept().unwrap();
            let local = server.local_addr().unwrap();
            let both = || (ask(peer, local).unwrap(), in_table(peer, local));
            assert_eq!(both(), (true, true), "{bind}");
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(both(), (true, true), "{bind}: half closed");
            drop(client);
            assert_eq!(both(), (false, false), "{bind}: closed");
            let (listening, nobody) = (local, SocketAddr::new(local.ip(), 1));
            assert!(
                !ask(listening, nobody).unwrap(),
                "{bind}: a listener is no connection"
            );
        }
    }
}
