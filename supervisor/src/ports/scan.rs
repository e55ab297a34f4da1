//! The list of listening sockets by the best way that this machine allows.
//!
//! sock_diag first; where it is refused for good, `/proc/net`, with another try at sock_diag every [`RETRY`]. A failure
//! is an error for the caller to live with (it keeps the list it had), never an empty list.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::diag::{Diag, DiagError};
use super::listener::Listener;
use super::procnet::{self, ProcNetError};

/// How long a lasting refusal of sock_diag is believed.
const RETRY: Duration = Duration::from_secs(300);

/// Why there is no list this time.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("cannot list the listening sockets")]
    Diag(#[from] DiagError),
    #[error("cannot list the listening sockets")]
    ProcNet(#[from] ProcNetError),
}

/// Which way the last list came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Diag,
    ProcNet,
}

#[derive(Debug)]
enum Way {
    Diag(Diag),
    /// Not open: never tried, or the last try failed in passing.
    Closed,
    ProcNet {
        until: Instant,
    },
}

/// Scans on demand.
#[derive(Debug)]
pub(crate) struct Scanner {
    way: Way,
    proc_net: PathBuf,
}

impl Scanner {
    /// `proc_net` is the fallback's directory, `/proc/net` but in tests.
    pub(crate) fn new(proc_net: PathBuf) -> Self {
        Self {
            way: Way::Closed,
            proc_net,
        }
    }

    /// The fallback alone.
    #[cfg(test)]
    pub(crate) fn without_diag(proc_net: PathBuf) -> Self {
        Self {
            way: Way::ProcNet {
                until: Instant::now() + RETRY,
            },
            proc_net,
        }
    }

    pub(crate) fn method(&self) -> Method {
        match self.way {
            Way::ProcNet { .. } => Method::ProcNet,
            Way::Diag(_) | Way::Closed => Method::Diag,
        }
    }

    /// All listening TCP sockets, sorted.
    ///
    /// # Errors
    /// When no way gave a list.
    pub(crate) fn scan(&mut self) -> Result<Vec<Listener>, ScanError> {
        let mut found = self.list()?;
        found.sort_unstable();
        Ok(found)
    }

    fn list(&mut self) -> Result<Vec<Listener>, ScanError> {
        if let Way::ProcNet { until } = self.way {
            if Instant::now() < until {
                return Ok(procnet::scan(&self.proc_net)?);
            }
            self.way = Way::Closed;
        }
        match self.by_diag() {
            Ok(found) => Ok(found),
            Err(error) if error.is_lasting() => {
                tracing::info!(%error, source = ?std::error::Error::source(&error), "sock_diag is refused; reading /proc/net instead");
                let found = procnet::scan(&self.proc_net)?;
                self.way = Way::ProcNet {
                    until: Instant::now() + RETRY,
                };
                Ok(found)
            }
            Err(error) => {
                // A dump that was cut leaves its rest in the socket: a fresh one next time.
                self.way = Way::Closed;
                Err(error.into())
            }
        }
    }

    fn by_diag(&mut self) -> Result<Vec<Listener>, DiagError> {
        match &mut self.way {
            Way::Diag(diag) => diag.scan(),
            Way::Closed | Way::ProcNet { .. } => {
                let mut diag = Diag::open()?;
                let found = diag.scan()?;
                self.way = Way::Diag(diag);
                Ok(found)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fallback_gives_the_same_list() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut best = Scanner::new("/proc/net".into());
        let mut fallback = Scanner::without_diag("/proc/net".into());
        let pick = |list: Vec<Listener>| {
            list.into_iter()
                .filter(|entry| entry.port == port)
                .collect::<Vec<_>>()
        };
        assert_eq!(pick(best.scan().unwrap()), pick(fallback.scan().unwrap()));
        assert_eq!(best.method(), Method::Diag);
        assert_eq!(fallback.method(), Method::ProcNet);
    }

    #[test]
    fn when_no_way_works_the_answer_is_an_error() {
        let nowhere = tempfile::tempdir().unwrap();
        let mut scanner = Scanner::without_diag(nowhere.path().into());
        assert!(matches!(scanner.scan(), Err(ScanError::ProcNet(_))));
    }
}
