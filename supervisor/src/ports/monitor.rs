//! The thread that looks.
//!
//! One thread of its own, because attribution changes the thread's file-system ids. It scans every [`FAST`], every
//! [`SLOW`] once nothing happened for [`QUIET`], and several times within a few milliseconds after a kick. `/proc/net`
//! is a hundred times dearer than sock_diag and is read every [`PROC_NET`] unless kicked. A failed scan keeps the list.
//! Events go to a bounded channel; while it is full, changes are summed up and wait.
//!
//! The kernel could tell at once (tracepoint `sock:inet_sock_set_state`), but containers are given neither tracefs nor
//! `CAP_PERFMON`, so looking would stay needed beside it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;
use whim_wire::time::Time;

use super::announce::{Announcer, Notice};
use super::handle::{Inbox, PortsHandle, Shared};
use super::owner::Processes;
use super::scan::{Method, Scanner};
use super::table::{Policy, Snapshot, Table};

pub(crate) const FAST: Duration = Duration::from_millis(50);
pub(crate) const SLOW: Duration = Duration::from_millis(250);
pub(crate) const PROC_NET: Duration = Duration::from_secs(1);
const QUIET: Duration = Duration::from_secs(60);
/// When to look after a kick: a server that prints its address listens already, a started process soon.
const AFTER_KICK: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(12),
    Duration::from_millis(30),
];
/// Kicks closer together than this are one: a program that prints addresses without end must not cost a core.
const BETWEEN_KICKS: Duration = Duration::from_micros(500);
/// How often the owners of known sockets are checked to still live.
const CHECK_OWNERS: Duration = Duration::from_secs(2);

/// Finds the session whose holder a process is.
pub type SessionOf = Arc<dyn Fn(u32) -> Option<String> + Send + Sync>;

/// How the monitor is set up.
#[derive(Clone)]
pub struct Config {
    /// Ports of this program.
    pub own: Vec<u16>,
    /// `--preview-url`; none: the local proxy's path form.
    pub preview_url: Option<String>,
    /// User of agents and shells.
    pub agents_uid: u32,
    pub session_of: SessionOf,
    /// Usually `/proc`.
    pub proc: PathBuf,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config")
            .field("own", &self.own)
            .field("preview_url", &self.preview_url)
            .field("agents_uid", &self.agents_uid)
            .field("proc", &self.proc)
            .finish_non_exhaustive()
    }
}

/// Why the monitor could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot start the port monitor's thread")]
    Thread(#[source] std::io::Error),
}

/// The running monitor. It ends when this is dropped.
#[derive(Debug)]
pub struct PortMonitor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl PortMonitor {
    /// Starts looking; the first scan is in the handle's picture once [`PortsHandle::rescan`] returns.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(
        config: Config,
        events: Sender<Notice>,
    ) -> Result<(Self, PortsHandle), StartError> {
        Self::start_with(config, events, Scanner::new)
    }

    pub(crate) fn start_with(
        config: Config,
        events: Sender<Notice>,
        scanner: impl FnOnce(PathBuf) -> Scanner,
    ) -> Result<(Self, PortsHandle), StartError> {
        let (wake, woken) = sync_channel(1);
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox::default()),
            begun: AtomicU64::new(0),
            wake,
        });
        let (snapshot, snapshot_out) = watch::channel(Arc::new(Snapshot::default()));
        let (scans, scans_out) = watch::channel(0);
        let handle = PortsHandle {
            shared: Arc::clone(&shared),
            snapshot: snapshot_out,
            scans: scans_out,
        };
        let policy = Policy {
            own: config.own.iter().copied().collect(),
            ephemeral: ephemeral_range(&config.proc),
            preview: config
                .preview_url
                .clone()
                .unwrap_or_else(|| "/proxy/{port}/".to_owned()),
            agents_uid: config.agents_uid,
        };
        let mut worker = Worker {
            scanner: scanner(config.proc.join("net")),
            processes: Processes::new(config.proc.clone()),
            session_of: Arc::clone(&config.session_of),
            table: Table::new(policy),
            announcer: Announcer::default(),
            events,
            snapshot,
            scans,
            shared: Arc::clone(&shared),
            failing: false,
            owners_checked: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("ports".to_owned())
            .spawn(move || worker.run(&woken))
            .map_err(StartError::Thread)?;
        Ok((
            Self {
                shared,
                thread: Some(thread),
            },
            handle,
        ))
    }
}

impl Drop for PortMonitor {
    fn drop(&mut self) {
        self.shared.inbox().stop = true;
        self.shared.wake.try_send(()).ok();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the port monitor's thread had panicked");
        }
    }
}

struct Worker {
    scanner: Scanner,
    processes: Processes,
    session_of: SessionOf,
    table: Table,
    announcer: Announcer,
    events: Sender<Notice>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    scans: watch::Sender<u64>,
    shared: Arc<Shared>,
    failing: bool,
    owners_checked: Instant,
}

impl Worker {
    fn run(&mut self, woken: &Receiver<()>) {
        let mut active = Instant::now();
        let mut burst = AFTER_KICK.iter();
        loop {
            let begun = Instant::now();
            if self.shared.inbox().stop {
                return;
            }
            if self.turn(begun) {
                active = begun;
            }
            let regular = match self.scanner.method() {
                Method::ProcNet => PROC_NET,
                Method::Diag if begun.duration_since(active) >= QUIET => SLOW,
                Method::Diag => FAST,
            };
            let wait = burst.next().copied().unwrap_or(regular).min(regular);
            let due = self.announcer.next();
            let until = due.map_or(begun + wait, |due| due.min(begun + wait));
            match woken.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(()) => {
                    active = Instant::now();
                    burst = AFTER_KICK.iter();
                    // Not a wait for anything: the least distance between two scans.
                    std::thread::sleep(
                        (begun + BETWEEN_KICKS).saturating_duration_since(Instant::now()),
                    );
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// One scan and what follows from it; true when something had changed.
    fn turn(&mut self, now: Instant) -> bool {
        let inbox = std::mem::take(&mut *self.shared.inbox());
        let number = self.shared.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let mut changes = Vec::new();
        let mut touched = false;
        match self.scanner.scan() {
            Ok(scan) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the listening sockets can be listed again");
                }
                let orphaned = self.orphaned(now);
                if !self.table.is_same(&scan) || !orphaned.is_empty() {
                    touched = true;
                    let mut wanted = self.table.unattributed(&scan);
                    wanted.extend(orphaned);
                    let owners = self.processes.owners(&wanted, &*self.session_of);
                    let at = Time::from(Timestamp::now());
                    changes.extend(self.table.scanned(scan, owners, at));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, source = ?std::error::Error::source(&error), "keeping the list of ports as it was");
                }
            }
        }
        for port in inbox.named {
            touched = true;
            changes.extend(self.table.named(port));
        }
        for (port, http) in inbox.observed {
            touched = true;
            changes.extend(self.table.observed(port, http));
        }
        for port in inbox.confirmed {
            touched = true;
            changes.extend(self.table.confirmed(port));
        }
        if touched {
            self.snapshot.send_replace(Arc::new(self.table.snapshot()));
        }
        let mut notices = self.announcer.due(now);
        notices.extend(self.announcer.push(changes, now));
        self.publish(notices, now);
        // Last, so that whoever waits for this scan finds its result.
        self.scans.send_replace(number);
        touched
    }

    fn orphaned(&mut self, now: Instant) -> Vec<(u64, u32)> {
        if now.duration_since(self.owners_checked) < CHECK_OWNERS {
            return Vec::new();
        }
        self.owners_checked = now;
        self.table
            .orphaned(|pid, start| self.processes.is(pid, start))
    }

    fn publish(&mut self, notices: Vec<Notice>, now: Instant) {
        let mut waiting = notices.into_iter();
        while let Some(notice) = waiting.next() {
            match self.events.try_send(notice) {
                Ok(()) => {}
                Err(TrySendError::Full(notice)) => {
                    let rest = std::iter::once(notice).chain(waiting).collect();
                    self.announcer.hold_back(rest, now);
                    return;
                }
                // Nobody listens any more; the picture is still kept.
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }
}

/// `net.ipv4.ip_local_port_range`, which holds for IPv6 too; the kernel's default where it cannot be read.
fn ephemeral_range(proc: &std::path::Path) -> std::ops::RangeInclusive<u16> {
    let text = std::fs::read_to_string(proc.join("sys/net/ipv4/ip_local_port_range"));
    let parsed = text.ok().and_then(|text| {
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(low)), Some(Ok(high))) => Some(low..=high),
            _ => None,
        }
    });
    parsed.unwrap_or(32768..=60999)
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
