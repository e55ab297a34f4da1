//! The bound sockets: taken over from the keeper, which holds them so that clients queue during a restart, or bound anew.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use crate::keeper::{Keeper, KeeperError};

/// Connections that wait while a supervisor restarts.
const BACKLOG: i32 = 1024;

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "port {port} ({name}) cannot be had on {address}: {source}; free it, or choose another with {flag}"
    )]
    Port {
        name: &'static str,
        flag: &'static str,
        address: IpAddr,
        port: u16,
        source: io::Error,
    },
    #[error("socket {path} cannot be had: {source}", path = path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// What to bind.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub name: &'static str,
    /// The option that changes the port, for the error.
    pub flag: &'static str,
    /// 0: any free one.
    pub port: u16,
    pub address: Address,
}

/// Where to bind.
#[derive(Clone, Copy, Debug)]
pub enum Address {
    /// 127.0.0.1, and ::1 where there is IPv6.
    Loopback,
    /// The given one; `::` takes IPv4 too, and is `0.0.0.0` where there is no IPv6.
    Given(IpAddr),
}

/// Hands out sockets, held or new.
#[derive(Debug)]
pub struct Listeners {
    held: HashMap<String, OwnedFd>,
    keeper: Keeper,
}

impl Listeners {
    /// `held`: what the keeper holds; sockets found there are used.
    #[must_use]
    pub fn new(held: HashMap<String, OwnedFd>, keeper: Keeper) -> Self {
        Self { held, keeper }
    }

    /// The TCP sockets for one service, at least one. The first tells the port.
    ///
    /// # Errors
    /// [`ListenError::Port`].
    pub async fn tcp(&mut self, wanted: Wanted) -> Result<Vec<TcpListener>, ListenError> {
        let names = [
            format!("listen:{}:0", wanted.name),
            format!("listen:{}:1", wanted.name),
        ];
        let mut found: Vec<TcpListener> = names
            .iter()
            .filter_map(|name| self.held.remove(name))
            .map(TcpListener::from)
            .collect();
        if found.is_empty() {
            found = bind(wanted)?;
            for (name, listener) in names.iter().zip(&found) {
                self.keeper.hold(name, listener.as_fd()).await?;
            }
        }
        for listener in &found {
            listener
                .set_nonblocking(true)
                .map_err(KeeperError::Channel)?;
        }
        Ok(found)
    }

    /// The unix socket; anyone may connect, the peer's uid decides what it may do.
    ///
    /// # Errors
    /// [`ListenError::Socket`].
    pub async fn unix(&mut self, path: &Path) -> Result<UnixListener, ListenError> {
        let failed = |source| ListenError::Socket {
            path: path.to_owned(),
            source,
        };
        let name = format!(
            "listen:{}",
            path.file_name().unwrap_or_default().to_string_lossy()
        );
        let listener = match self.held.remove(&name) {
            Some(held) => UnixListener::from(held),
            None => {
                match std::fs::remove_file(path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                }
                let listener = UnixListener::bind(path).map_err(failed)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
                    .map_err(failed)?;
                self.keeper.hold(&name, listener.as_fd()).await?;
                listener
            }
        };
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }
}

fn bind(wanted: Wanted) -> Result<Vec<TcpListener>, ListenError> {
    let failed = |address: IpAddr| {
        move |source| ListenError::Port {
            name: wanted.name,
            flag: wanted.flag,
            address,
            port: wanted.port,
            source,
        }
    };
    match wanted.address {
        Address::Loopback => {
            let v4 = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let first = listen(v4, wanted.port).map_err(failed(v4))?;
            let port = first.local_addr().map_err(failed(v4))?.port();
            let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
            match listen(v6, port) {
                Ok(second) => Ok(vec![first, second]),
                Err(error) if no_ipv6(&error) => Ok(vec![first]),
                Err(error) => Err(failed(v6)(error)),
            }
        }
        Address::Given(address) => match listen(address, wanted.port) {
            Err(error) if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && no_ipv6(&error) => {
                let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                Ok(vec![listen(any, wanted.port).map_err(failed(any))?])
            }
            bound => Ok(vec![bound.map_err(failed(address))?]),
        },
    }
}

fn listen(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The machine has no IPv6 at all, or none on loopback (a container's default in Docker).
fn no_ipv6(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

/// A port that was free a moment ago; 0 where none can be had, and the router then says so itself.
#[must_use]
pub fn free_port() -> u16 {
    let bound = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0));
    bound
        .and_then(|listener| listener.local_addr())
        .map_or(0, |address| address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_bound_in_both_families_on_one_port() {
        let wanted = Wanted {
            name: "generation",
            flag: "--generation-port",
            port: 0,
            address: Address::Loopback,
        };
        let bound = bind(wanted).unwrap();
        let ports: Vec<u16> = bound
            .iter()
            .map(|listener| listener.local_addr().unwrap().port())
            .collect();
        assert!(
            ports.iter().all(|port| *port == ports[0] && *port != 0),
            "{ports:?}"
        );
        assert!(
            bound
                .iter()
                .all(|listener| listener.local_addr().unwrap().ip().is_loopback())
        );
    }

    #[test]
    fn a_taken_port_names_the_option() {
        let taken = listen(IpAddr::V4(Ipv4Addr::LOCALHOST), 0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let wanted = Wanted {
            name: "ui",
            flag: "--ui-port",
            port,
            address: Address::Given(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        };
        let error = bind(wanted).unwrap_err().to_string();
        assert!(
            error.contains(&port.to_string()) && error.contains("--ui-port"),
            "{error}"
        );
    }
}
