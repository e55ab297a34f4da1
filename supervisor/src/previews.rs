//! Previews: the port monitor and the local proxy, wired to the rest.
//!
//! The monitor's picture goes to the board, its events to the journal, its table to the proxy on 8080. The router's
//! secret outlives the supervisor in the keeper's memory, so that links stay good over a crash; which of them were
//! revoked, and what was decided about ports, does not, so both are written down beside the journal.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whim_proxies::local::{
    Access, Change, Config as ProxyConfig, Limits, Link, LinkError, PortSettings, Proxy, Secret,
    Settings, SetupError, serve,
};
use whim_wire::port::Port;

use crate::board::Board;
use crate::clock;
use crate::ports::{self, Notice, PortMonitor, PortsHandle, PreviewPorts};

/// Events of ports that may wait for the journal; the monitor coalesces what does not fit.
const NOTICES: usize = 256;
/// How long after a person's last request a preview keeps the machine awake.
const AWAKE: Duration = Duration::from_secs(60);
/// Between two looks at whether that time is over.
const LOOK: Duration = Duration::from_secs(5);

/// Why previews are not there.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    #[error(transparent)]
    Monitor(#[from] ports::StartError),
    #[error(transparent)]
    Proxy(#[from] SetupError),
    #[error("preview links: {0}")]
    Links(#[from] LinkError),
    #[error("{path}: {source}", path = path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// What previews are set up with.
#[derive(Debug)]
pub struct Setup<'a> {
    pub board: Arc<Board>,
    /// Ports of this program.
    pub own: Vec<SocketAddr>,
    /// That of them on which previews are served.
    pub local: SocketAddr,
    pub preview_url: Option<String>,
    pub limits: Limits,
    pub secret: Vec<u8>,
    pub agents_uid: u32,
    /// Directory for what outlives the supervisor.
    pub state: &'a Path,
}

/// A revoked link, and until when that matters.
#[derive(Debug, Serialize, Deserialize)]
struct Revoked {
    id: String,
    until_s: u64,
}

/// See the module's header.
#[derive(Debug)]
pub struct Previews {
    monitor: PortMonitor,
    handle: PortsHandle,
    proxy: Arc<Proxy>,
    revoked: PathBuf,
    decided: PathBuf,
}

impl Previews {
    /// Starts the monitor and makes the proxy.
    ///
    /// # Errors
    /// [`PreviewError`].
    pub fn start(
        setup: Setup<'_>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, PreviewError> {
        let own: Vec<u16> = setup.own.iter().map(SocketAddr::port).collect();
        let board = setup.board;
        let by_pid = board.clone();
        let config = ports::Config {
            own: own.clone(),
            preview_url: setup.preview_url.clone(),
            agents_uid: setup.agents_uid,
            session_of: Arc::new(move |pid| {
                let found = by_pid
                    .sessions()
                    .into_iter()
                    .find(|session| session.pid == Some(pid));
                found.map(|session| session.id)
            }),
            proc: "/proc".into(),
        };
        let (notices, inbox) = mpsc::channel(NOTICES);
        let (monitor, handle) = PortMonitor::start(config, notices)?;
        let visits = Arc::new(Mutex::new(None));
        let visited = visits.clone();
        let table = PreviewPorts::new(
            handle.clone(),
            own,
            Arc::new(move |port| {
                *visited.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((port, Instant::now()))
            }),
        );
        let revoked = setup.state.join("revoked-links.json");
        let decided = setup.state.join("preview-settings.json");
        let access = Access::new(&Secret::new(setup.secret), read_revoked(&revoked)?);
        let config = ProxyConfig {
            limits: setup.limits,
            access,
            preview_url: setup.preview_url,
            port: setup.local.port(),
            settings: read::<Settings>(&decided)?.unwrap_or_default(),
        };
        let proxy = Arc::new(Proxy::new(config, Arc::new(table))?);
        drop(tasks.spawn(tell(board.clone(), inbox, stop.clone())));
        drop(tasks.spawn(show(board.clone(), handle.clone(), stop.clone())));
        drop(tasks.spawn(keep_awake(board, visits, stop.clone())));
        Ok(Self {
            monitor,
            handle,
            proxy,
            revoked,
            decided,
        })
    }

    /// Serves 8080 until the stop.
    pub fn serve(
        &self,
        listeners: Vec<TcpListener>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        drop(tasks.spawn(serve(
            listeners,
            self.proxy.clone(),
            stop.clone().cancelled_owned(),
        )));
    }

    /// What listens.
    #[must_use]
    pub fn list(&self) -> Vec<Port> {
        self.handle.list()
    }

    /// A link that opens this port without any other credential, for a while.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn link(&self, port: u16, life: Duration) -> Result<Link, LinkError> {
        // Asked for by number: also a port of the ephemeral range may be shown now.
        self.handle.name(port);
        self.proxy.create_link(port, life)
    }

    /// Takes a link back, for good.
    ///
    /// # Errors
    /// [`PreviewError`]; the link is then still revoked in this supervisor.
    pub fn revoke(&self, id: &str) -> Result<(), PreviewError> {
        self.proxy.revoke_link(id)?;
        let seconds = |end: SystemTime| {
            end.duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs())
        };
        let all: Vec<Revoked> = self
            .proxy
            .revocations()
            .into_iter()
            .map(|(id, end)| Revoked {
                id,
                until_s: seconds(end),
            })
            .collect();
        write(&self.revoked, &all)
    }

    /// What was decided about a port, and whether it is the one that is meant by default.
    #[must_use]
    pub fn settings_of(&self, port: u16) -> (PortSettings, bool) {
        let all = self.proxy.settings();
        let own = all.ports.get(&port).copied().unwrap_or_default();
        (own, all.default == Some(port))
    }

    /// Changes what is decided about a port, for what listens there now.
    ///
    /// # Errors
    /// [`PreviewError`]; the change is then in force until this supervisor ends.
    pub fn change(&self, port: u16, change: Change) -> Result<(), PreviewError> {
        self.proxy.change(port, change);
        write(&self.decided, &self.proxy.settings())
    }

    /// The picture of what listens, and who can be asked to look again.
    #[must_use]
    pub fn ports(&self) -> PortsHandle {
        self.handle.clone()
    }

    /// Whether the monitor runs.
    #[must_use]
    pub fn monitor(&self) -> &PortMonitor {
        &self.monitor
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PreviewError> {
    let failed = |source| PreviewError::File {
        path: path.to_owned(),
        source,
    };
    match std::fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|error| failed(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), PreviewError> {
    let failed = |source| PreviewError::File {
        path: path.to_owned(),
        source,
    };
    let json = serde_json::to_vec(value).map_err(|error| failed(error.into()))?;
    crate::files::write(path, 0o600, &json).map_err(failed)
}

fn read_revoked(path: &Path) -> Result<Vec<(String, SystemTime)>, PreviewError> {
    let all: Vec<Revoked> = read(path)?.unwrap_or_default();
    Ok(all
        .into_iter()
        .map(|revoked| {
            (
                revoked.id,
                UNIX_EPOCH + Duration::from_secs(revoked.until_s),
            )
        })
        .collect())
}

/// Events into the journal.
async fn tell(board: Arc<Board>, mut inbox: mpsc::Receiver<Notice>, stop: CancellationToken) {
    loop {
        let notice = tokio::select! {
            notice = inbox.recv() => notice,
            () = stop.cancelled() => return,
        };
        let Some(notice) = notice else { return };
        match notice.draft(clock::now()) {
            Ok(draft) => board.append(&draft),
            Err(error) => tracing::error!(%error, "an event of a port is not written"),
        }
    }
}

/// The list onto the board.
async fn show(board: Arc<Board>, handle: PortsHandle, stop: CancellationToken) {
    let mut picture = handle.watch();
    loop {
        let mut numbers: Vec<u16> = picture
            .borrow_and_update()
            .ports
            .iter()
            .map(|port| port.port)
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        board.ports(numbers);
        tokio::select! {
            changed = picture.changed() => if changed.is_err() {
                return;
            },
            () = stop.cancelled() => return,
        }
    }
}

/// The last visit, as a reason to stay awake while it is fresh.
async fn keep_awake(
    board: Arc<Board>,
    visits: Arc<Mutex<Option<(u16, Instant)>>>,
    stop: CancellationToken,
) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = stop.cancelled() => return,
        }
        let last = *visits.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = last.filter(|(_, at)| at.elapsed() < AWAKE);
        let reason = fresh.map(|(port, at)| {
            format!(
                "preview traffic on {port}, {} s ago",
                at.elapsed().as_secs()
            )
        });
        board.keep_awake("previews", reason.into_iter().collect());
    }
}
