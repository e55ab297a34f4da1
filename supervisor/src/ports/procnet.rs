//! Listening sockets by `/proc/net/tcp` and `tcp6`: the way where sock_diag is refused or absent (gVisor, seccomp).
//!
//! The kernel walks its whole connection hash for it, a hundred times the cost of a dump, so the monitor asks less
//! often. These files do not say whether an IPv6 socket serves IPv4; the system's default is assumed.

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::diag::MAX_LISTENERS;
use super::listener::Listener;

/// `TCP_LISTEN` as these files write it (include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum ProcNetError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("a line of {} is not as the kernel writes it: {line}", path.display())]
    Line { path: PathBuf, line: String },
}

/// All listening TCP sockets in the namespace of `proc` (usually `/proc/net`). A kernel without IPv6 has no `tcp6`.
pub(crate) fn scan(directory: &Path) -> Result<Vec<Listener>, ProcNetError> {
    let mut found = Vec::new();
    for name in ["tcp", "tcp6"] {
        let path = directory.join(name);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if name == "tcp6" && error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(ProcNetError::Read { path, source }),
        };
        for line in BufReader::new(file).lines().skip(1) {
            let line = line.map_err(|source| ProcNetError::Read {
                path: path.clone(),
                source,
            })?;
            match parse(&line) {
                Ok(Some(listener)) if found.len() < MAX_LISTENERS => found.push(listener),
                Ok(_) => {}
                Err(NotALine) => return Err(ProcNetError::Line { path, line }),
            }
        }
    }
    Ok(found)
}

struct NotALine;

/// One line: `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`; none if it does not listen.
fn parse(line: &str) -> Result<Option<Listener>, NotALine> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1).ok_or(NotALine)?;
    let state = fields.nth(1).ok_or(NotALine)?;
    if state != LISTEN {
        return Ok(None);
    }
    let uid = fields.nth(3).ok_or(NotALine)?;
    let inode = fields.nth(1).ok_or(NotALine)?;
    let (address, port) = local.split_once(':').ok_or(NotALine)?;
    let address = address_of(address)?;
    Ok(Some(Listener {
        port: u16::from_str_radix(port, 16).map_err(|_| NotALine)?,
        address,
        interface: 0,
        inode: inode.parse().map_err(|_| NotALine)?,
        uid: uid.parse().map_err(|_| NotALine)?,
        dual: address == IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }))
}

/// The kernel prints each 32-bit word of the address as a number in the machine's own byte order.
fn address_of(hex: &str) -> Result<IpAddr, NotALine> {
    let word = |at: usize| -> Result<[u8; 4], NotALine> {
        let digits = hex.get(at * 8..at * 8 + 8).ok_or(NotALine)?;
        u32::from_str_radix(digits, 16)
            .map(u32::to_ne_bytes)
            .map_err(|_| NotALine)
    };
    match hex.len() {
        8 => Ok(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let mut bytes = [0; 16];
            for (to, from) in bytes.iter_mut().zip(words.iter().flatten()) {
                *to = *from;
            }
            Ok(Ipv6Addr::from(bytes).into())
        }
        _ => Err(NotALine),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn reads_the_kernels_own_lines() {
        let line = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1001        0 4242 1 0000000000000000 100 0 0 10 0";
        let Ok(Some(listener)) = parse(line) else {
            panic!("not parsed")
        };
        assert_eq!(
            (listener.port, listener.uid, listener.inode),
            (3000, 1001, 4242)
        );
        if cfg!(target_endian = "little") {
            assert_eq!(listener.address, "127.0.0.1".parse::<IpAddr>().unwrap());
        }
        let connected = line.replace(" 0A ", " 01 ");
        assert!(matches!(parse(&connected), Ok(None)));
        assert!(parse("  0: zz").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn agrees_with_the_dump_about_real_sockets() {
        let sockets = ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "[::]:0"]
            .map(|address| TcpListener::bind(address).unwrap());
        let ports = sockets
            .each_ref()
            .map(|socket| socket.local_addr().unwrap().port());
        let pick = |mut list: Vec<Listener>| {
            list.retain(|entry| ports.contains(&entry.port));
            list.sort();
            list
        };
        let by_proc = pick(scan(Path::new("/proc/net")).unwrap());
        let by_diag = pick(super::super::diag::Diag::open().unwrap().scan().unwrap());
        assert_eq!(by_proc.len(), sockets.len());
        assert_eq!(by_proc, by_diag);
    }

    #[test]
    fn a_missing_table_is_an_error_and_not_an_empty_list() {
        let nowhere = tempfile::tempdir().unwrap();
        assert!(matches!(
            scan(nowhere.path()),
            Err(ProcNetError::Read { .. })
        ));
        std::fs::write(nowhere.path().join("tcp"), "header\n 0: broken\n").unwrap();
        assert!(matches!(
            scan(nowhere.path()),
            Err(ProcNetError::Line { .. })
        ));
    }
}
