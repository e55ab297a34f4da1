//! What others hold of the port monitor: the list, its changes, and ways to hurry it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use whim_wire::port::Port;

use super::table::Snapshot;

/// What is owed to the monitor; it takes all of it at its next turn. Bounded by the number of ports there are.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) named: BTreeSet<u16>,
    pub(crate) observed: BTreeMap<u16, bool>,
    pub(crate) confirmed: BTreeSet<u16>,
    pub(crate) stop: bool,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inbox: Mutex<Inbox>,
    /// Number of the scan that began last.
    pub(crate) begun: AtomicU64,
    /// Wakes the monitor; one waiting wake-up is as good as many.
    pub(crate) wake: SyncSender<()>,
}

impl Shared {
    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Every change of the inbox is complete in itself, so a panic elsewhere leaves nothing half-done.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Full: the monitor is woken already. Disconnected: it has ended, and its last list stays.
        self.wake.try_send(()).ok();
    }
}

/// A view of the monitor; clones are the same view.
#[derive(Clone, Debug)]
pub struct PortsHandle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) scans: watch::Receiver<u64>,
}

impl PortsHandle {
    /// What listens, as `/v1/ports` shows it.
    #[must_use]
    pub fn list(&self) -> Vec<Port> {
        self.snapshot.borrow().ports.clone()
    }

    /// The whole picture of this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Follows the picture. A slow reader sees the newest one only.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.clone()
    }

    /// Looks at once, and more often for a moment: something was started or said that may listen soon.
    pub fn kick(&self) {
        self.shared.wake();
    }

    /// A terminal printed this port, or a person asked for it: it is shown even if its number is from the kernel's
    /// ephemeral range.
    pub fn name(&self, port: u16) {
        self.shared.inbox().named.insert(port);
        self.shared.wake();
    }

    /// What a visitor's own request showed about the server on `port`.
    pub fn observe(&self, port: u16, http: bool) {
        self.shared.inbox().observed.insert(port, http);
        self.shared.wake();
    }

    /// The program that listens on `port` now is the one that the person means to share.
    pub fn confirm(&self, port: u16) {
        self.shared.inbox().confirmed.insert(port);
        self.shared.wake();
    }

    /// Returns when a scan that began after this call is in the picture, or the monitor has ended.
    pub async fn rescan(&self) {
        let begun = self.shared.begun.load(Ordering::SeqCst);
        let mut scans = self.scans.clone();
        self.shared.wake();
        // An error means that the monitor has ended: there is nothing to wait for.
        scans.wait_for(|done| *done > begun).await.ok();
    }
}
