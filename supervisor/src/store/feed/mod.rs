//! Keeps the store current: reads what transcripts and histories have more of, and hands it over with the place it ends at.
//!
//! One task. A change of a watched directory, an event about a session, or a search says that there may be more; then a
//! pass looks at what is concerned, and passes are at least [`PAUSE`] apart. Without a change nothing runs. A search asks
//! for a pass of its own and waits for it, so it finds what was written before it came.
//!
//! Files are read by the helper, as the agents' user. A source that cannot be read is told once and tried again with
//! the next pass, so that a search is complete only once it was read. Bounds: pages of [`conversations::TURNS`] turns,
//! [`ASKS`] searches wait for a pass, and no more than [`WATCHED`] directories are watched; sessions beyond are read
//! when an event or a search says so.

mod conversations;
pub mod elsewhere;
mod shells;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use whim_wire::event::kind;
use whim_wire::state::{AgentState, Phase, StateObject};

use super::mask::Mask;
use super::{Store, StoreError, Task};
use crate::board::Board;
use crate::config::Settings;
use crate::conversation::reader::{Conversations, ReadError};
use crate::helper::{Change, Helper, HelperError, Stamp};
use crate::journal::{Delivery, Entry, Subscription};
use crate::paths::Paths;
use crate::secrets::Secrets;

/// Between two passes: an agent at work writes many times a second.
const PAUSE: Duration = Duration::from_secs(1);
/// Searches that may wait for a pass.
const ASKS: usize = 64;
/// How often a pass is repeated because the store was begun anew in the middle of it.
const AGAIN: usize = 3;
/// Directories of transcripts.
const WATCHED: usize = 96;
/// Files whose length is remembered; beyond, all are looked into again.
const SEEN: usize = 4096;

/// Why a source was not read to its end.
#[derive(Debug, thiserror::Error)]
enum FeedError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Helper(#[from] HelperError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: {source}", path = path.display())]
    Sessions {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("reading was given up")]
    GivenUp,
}

/// What a search or a rebuild asks; answered when the pass is done, with whether everything was read.
#[derive(Debug)]
enum Ask {
    CatchUp(oneshot::Sender<bool>),
    Rebuild(oneshot::Sender<Result<bool, StoreError>>),
}

/// What the task works with.
#[derive(Debug)]
pub struct Setup {
    pub store: Store,
    pub conversations: Conversations,
    pub helper: Helper,
    pub board: Arc<Board>,
    pub paths: Paths,
    pub secrets: Arc<Hidden>,
}

/// Handle to the task; clones share it.
#[derive(Clone, Debug)]
pub struct Feed(mpsc::Sender<Ask>);

impl Feed {
    /// The handle, and the task itself, which ends with `stop`.
    pub fn new(
        setup: Setup,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (asks, inbox) = mpsc::channel(ASKS);
        let feeder = Feeder {
            // Before anything is watched or read, so that no change is missed.
            changes: setup.helper.changes(),
            events: setup.board.journal().subscribe(None),
            begun: setup.store.begun(),
            setup,
            dirty: Dirty {
                all: true,
                ..Dirty::default()
            },
            owed: Dirty::default(),
            seen: HashMap::new(),
            read: BTreeMap::new(),
            watched: BTreeMap::new(),
            secrets: None,
            failing: false,
        };
        (Self(asks), feeder.run(inbox, stop))
    }

    /// Has everything read that is there now. `false`: not all of it could be, or not within `patience`.
    pub async fn catch_up(&self, patience: Duration) -> bool {
        let (done, answered) = oneshot::channel();
        let asked = async {
            self.0.send(Ask::CatchUp(done)).await.ok()?;
            answered.await.ok()
        };
        let answer = tokio::time::timeout(patience, asked).await;
        answer.ok().flatten().unwrap_or(false)
    }

    /// Forgets everything and reads it again. `false`: it goes on after `patience`.
    ///
    /// # Errors
    /// When the store cannot be begun anew.
    pub async fn rebuild(&self, patience: Duration) -> Result<bool, StoreError> {
        let (done, answered) = oneshot::channel();
        let asked = async {
            let sent = self.0.send(Ask::Rebuild(done)).await;
            sent.map_err(|_| StoreError::Ended)?;
            answered.await.map_err(|_| StoreError::Ended)?
        };
        let answer = tokio::time::timeout(patience, asked).await;
        answer.unwrap_or(Ok(false))
    }
}

/// The secrets that must not get into the store.
#[derive(Debug)]
pub struct Hidden {
    mask: Mutex<Mask>,
    known: Arc<Secrets>,
}

impl Hidden {
    #[must_use]
    pub fn new(known: Arc<Secrets>) -> Self {
        Self {
            mask: Mutex::default(),
            known,
        }
    }

    /// The mask as of now.
    fn mask(&self) -> MutexGuard<'_, Mask> {
        let mut mask = self.mask.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in self.known.all() {
            mask.learn(secret.expose());
        }
        mask
    }
}

/// The task as the store describes it.
#[must_use]
pub fn task(settings: &Settings) -> Task {
    let branch = settings.repo.as_ref().and_then(|repo| repo.branch.clone());
    Task {
        id: settings.task.id.clone().unwrap_or_default(),
        title: settings.task.title.clone(),
        workspace: settings.task.workspace.clone(),
        branch,
    }
}

/// What may have more.
#[derive(Debug, Default)]
struct Dirty {
    /// Every session, and the shells.
    all: bool,
    sessions: BTreeSet<String>,
    shells: bool,
}

impl Dirty {
    fn any(&self) -> bool {
        self.all || self.shells || !self.sessions.is_empty()
    }

    fn join(&mut self, other: Self) {
        self.all |= other.all;
        self.shells |= other.shells;
        self.sessions.extend(other.sessions);
    }
}

struct Feeder {
    setup: Setup,
    changes: broadcast::Receiver<Change>,
    events: Subscription,
    dirty: Dirty,
    /// What could not be read in the last pass: no reason for another pass, but read with it.
    owed: Dirty,
    /// Files as they were when they were read to their end.
    seen: HashMap<PathBuf, Stamp>,
    /// Sessions, and their conversations when all those before it had been read.
    read: BTreeMap<String, String>,
    /// Directories and the sessions whose transcripts are in them.
    watched: BTreeMap<PathBuf, BTreeSet<String>>,
    /// The store as it was when `seen` began.
    begun: u64,
    /// How many secrets were known to the pass before.
    secrets: Option<usize>,
    /// The last pass failed, which was told.
    failing: bool,
}

impl Feeder {
    async fn run(mut self, mut asks: mpsc::Receiver<Ask>, stop: CancellationToken) {
        let work = async {
            self.wait_for_boot(&mut asks).await;
            let mut next = Instant::now();
            loop {
                let due = self.dirty.any();
                tokio::select! {
                    ask = asks.recv() => match ask {
                        Some(ask) => self.answer(ask, &mut asks).await,
                        // Nobody can search any more.
                        None => std::future::pending().await,
                    },
                    change = self.changes.recv() => {
                        self.changed(change);
                        continue;
                    }
                    event = self.events.next() => {
                        self.heard(event).await;
                        continue;
                    }
                    () = tokio::time::sleep_until(next), if due => {
                        self.pass().await;
                    }
                }
                next = Instant::now() + PAUSE;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// The boot needs disk and processor more than the index does; a search does not wait for it.
    async fn wait_for_boot(&mut self, asks: &mut mpsc::Receiver<Ask>) {
        let mut states = self.setup.board.watch();
        let settled = async {
            let done = |object: &Arc<StateObject>| {
                matches!(object.phase, Phase::Ready | Phase::Failed { .. })
            };
            // The board lives as long as the supervisor.
            drop(states.wait_for(done).await);
        };
        tokio::select! {
            () = settled => {}
            ask = asks.recv() => if let Some(ask) = ask {
                self.answer(ask, asks).await;
            },
        }
    }

    /// One pass for all that wait: whoever asked before it begins is answered by it.
    async fn answer(&mut self, first: Ask, asks: &mut mpsc::Receiver<Ask>) {
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(ask) = next {
            match ask {
                Ask::CatchUp(done) => waiting.push(done),
                Ask::Rebuild(done) => {
                    let answer = match self.setup.store.clear().await {
                        Ok(()) => Ok(self.pass().await),
                        Err(error) => Err(error),
                    };
                    drop(done.send(answer));
                }
            }
            next = asks.try_recv().ok();
        }
        if waiting.is_empty() {
            return;
        }
        self.dirty.shells = true;
        self.dirty.sessions.extend(self.live());
        let all = self.pass().await;
        for done in waiting {
            // Who asked may have given up waiting.
            let _ = done.send(all);
        }
    }

    /// Sessions whose agent runs, or will again.
    fn live(&self) -> Vec<String> {
        let sessions = self.setup.board.sessions().into_iter();
        let live = sessions.filter(|session| session.state != AgentState::Stopped);
        live.map(|session| session.id).collect()
    }

    fn changed(&mut self, change: Result<Change, broadcast::error::RecvError>) {
        match change {
            Ok(change) if change.directory == self.setup.paths.histories() => {
                let ours =
                    change.name.is_empty() || super::commands::terminal(&change.name).is_some();
                self.dirty.shells |= ours;
            }
            Ok(change) => {
                if let Some(sessions) = self.watched.get(&change.directory) {
                    self.dirty.sessions.extend(sessions.iter().cloned());
                }
            }
            Err(broadcast::error::RecvError::Lagged(_)) => self.dirty.all = true,
            // The helper's owner lives as long as the supervisor.
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    async fn heard(&mut self, event: Option<Result<Delivery, crate::journal::SegmentError>>) {
        match event {
            Some(Ok(Delivery::Event(entry))) => self.dirty.sessions.extend(concerned(&entry)),
            Some(Ok(Delivery::Missing { .. })) => self.dirty.sessions.extend(self.live()),
            Some(Err(error)) => {
                tracing::debug!(%error, "events are not heard");
                tokio::time::sleep(PAUSE).await;
            }
            // The journal lives as long as the supervisor.
            None => std::future::pending().await,
        }
    }

    /// Reads what has more. `true`: everything was read to its end.
    async fn pass(&mut self) -> bool {
        let mut read = self.read_dirty().await;
        for _ in 0..AGAIN {
            // What a store lost that was taken away meanwhile.
            self.notice_a_new_store();
            if !self.dirty.any() {
                break;
            }
            read = self.read_dirty().await;
        }
        match read {
            Ok(()) => {
                self.failing = false;
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!(%error, "what was said is not all in the search's index");
                }
                false
            }
        }
    }

    async fn read_dirty(&mut self) -> Result<(), FeedError> {
        self.forget_new_secrets().await?;
        self.notice_a_new_store();
        let mut dirty = std::mem::take(&mut self.dirty);
        dirty.join(std::mem::take(&mut self.owed));
        let mut sessions = dirty.sessions;
        if dirty.all {
            sessions.extend(sessions_on_record(&self.setup.paths).await?);
        }
        // One that fails must not keep the others out; the first error is told.
        let mut first = Ok(());
        for session in sessions {
            let read = self.session(&session).await;
            if let Err(error) = read {
                self.again(|dirty| dirty.sessions.extend([session]), error, &mut first);
            }
        }
        if dirty.shells || dirty.all {
            let read = self.shells().await;
            if let Err(error) = read {
                self.again(|dirty| dirty.shells = true, error, &mut first);
            }
        }
        if let Err(error) = self.setup.store.rest().await {
            tracing::debug!(%error, "the store keeps its memory");
        }
        first
    }

    /// A secret may have been said before anybody knew that it is one. Then everything is forgotten and read again: what
    /// is deleted from an index stays in its file for long.
    async fn forget_new_secrets(&mut self) -> Result<(), FeedError> {
        let (known, new) = {
            let mask = self.setup.secrets.mask();
            // What an earlier supervisor knew is not in the store, and to look for all of it would read the whole store.
            let before = self.secrets.unwrap_or(usize::MAX);
            (mask.known(), mask.since(before))
        };
        for secret in new {
            if self.setup.store.contains(secret).await? {
                tracing::info!(
                    "a new secret was in the search's index, which is made anew without it"
                );
                self.setup.store.clear().await?;
                break;
            }
        }
        self.secrets = Some(known);
        Ok(())
    }

    /// A store that moved on is read to again at once; everything else with the next pass.
    fn again(
        &mut self,
        mark: impl FnOnce(&mut Dirty),
        error: FeedError,
        first: &mut Result<(), FeedError>,
    ) {
        self.notice_a_new_store();
        mark(match error {
            FeedError::Store(StoreError::Elsewhere(_)) => &mut self.dirty,
            _ => &mut self.owed,
        });
        if first.is_ok() {
            *first = Err(error);
        }
    }

    /// A store that was begun anew has nothing of what was read.
    fn notice_a_new_store(&mut self) {
        let begun = self.setup.store.begun();
        if begun != self.begun {
            self.begun = begun;
            self.seen.clear();
            self.read.clear();
            self.dirty.all = true;
        }
    }

    fn is_seen(&self, path: &Path, stamp: &Stamp) -> bool {
        self.seen.get(path) == Some(stamp)
    }

    fn see(&mut self, path: &Path, stamp: Stamp) {
        if self.seen.len() >= SEEN {
            self.seen.clear();
        }
        self.seen.insert(path.to_owned(), stamp);
    }

    /// Has changes of a session's directory told.
    async fn watch(&mut self, directory: &Path, session: &str) {
        let known = self.watched.get(directory);
        if known.is_some_and(|sessions| sessions.contains(session))
            || known.is_none() && self.watched.len() >= WATCHED
        {
            return;
        }
        match self.setup.helper.watch(directory).await {
            Ok(()) => {
                let sessions = self.watched.entry(directory.to_owned()).or_default();
                sessions.insert(session.to_owned());
            }
            // Events and searches tell, too.
            Err(error) => tracing::debug!(%error, "not watched"),
        }
    }
}

/// The session that an event is about, if it may have a longer transcript now.
fn concerned(entry: &Entry) -> Option<String> {
    let tells = matches!(
        &*entry.kind,
        kind::STATE_CHANGED
            | kind::SESSION_STARTED
            | kind::SESSION_EXITED
            | kind::SESSION_RESTARTED
            | kind::PROMPT_CHANGED
    );
    let event = tells.then(|| entry.event().ok())??;
    Some(event.fields.get("session")?.as_str()?.to_owned())
}

/// Ids of all sessions that there were.
async fn sessions_on_record(paths: &Paths) -> Result<Vec<String>, FeedError> {
    let directory = paths.sessions();
    let path = directory.clone();
    let list = move || -> std::io::Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in std::fs::read_dir(&path)? {
            ids.extend(entry?.file_name().into_string());
        }
        Ok(ids)
    };
    let listed = tokio::task::spawn_blocking(list).await;
    let failed = |source| FeedError::Sessions {
        path: directory,
        source,
    };
    listed.map_err(|_| FeedError::GivenUp)?.map_err(failed)
}
