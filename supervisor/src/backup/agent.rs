//! The task that decides when a backup is taken, and tells what became of it.
//!
//! Nothing is polled. Changes below the agents' directories (told by the helper's inotify) make a backup due, at most one
//! an interval; the end of a turn makes one due at once; whoever asks gets one that began after the question. A store
//! that takes nothing is tried again at growing distances. When nothing changes, nothing runs.
//!
//! Bounds: [`WAITING`] requests wait, and all that wait are answered by the same backup; [`WATCHED`] directories are
//! watched, the rest is looked at with them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{SetOnce, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use whim_wire::event::kind;
use whim_wire::state::Backup as Standing;

use super::due::Due;
use super::engine::{Done, Engine, EngineError, Setup as EngineSetup};
use super::known;
use super::mask::Masks;
use super::pace::Now;
use super::platform;
use super::sink::{PATIENCE, SPOOL, Sink};
use super::snapshot::Snapshots;
use super::store::{Store, StoreError};
use super::{collect::Collector, manifest::Places};
use crate::board::Board;
use crate::clock;
use crate::config::Variables;
use crate::config::settings::Backup;
use crate::helper::{Change, Helper};
use crate::journal::{Delivery, Entry, Subscription};
use crate::paths::Paths;
use crate::rotated::Rotated;
use crate::secrets::Secrets;

/// Requests that wait.
const WAITING: usize = 32;
/// Directories that are watched.
const WATCHED: usize = 300;
/// How long whoever asks for a backup waits for it (contract: `now` answers within 60 s).
pub const ANSWER: Duration = Duration::from_secs(55);
/// How long the store may take for an object when the container ends.
const LAST: Duration = Duration::from_secs(2);

/// Why a backup that was asked for is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("the container is still being prepared; there is nothing to save yet")]
    NotReady,
    #[error("another backup is under way and others wait; try again")]
    Busy,
    #[error("the backup is not done within {} s; it goes on", .0.as_secs())]
    Late(Duration),
    #[error("the supervisor ends")]
    Ended,
    #[error("nothing was saved: {0}")]
    Failed(String),
    #[error("it is kept here, but not in the store: {0}")]
    Owed(String),
    #[error("{path} cannot be saved: {reason}")]
    Unreadable { path: String, reason: String },
}

/// What the task works on.
#[derive(Debug)]
pub struct Setup {
    pub settings: Backup,
    pub variables: Variables,
    /// Id of the task.
    pub task: String,
    pub helper: Helper,
    pub paths: Paths,
    pub board: Arc<Board>,
    pub secrets: Arc<Secrets>,
    pub rotated: Arc<Rotated>,
    /// None: the work tree is not saved.
    pub snapshots: Option<Snapshots>,
    pub stop: CancellationToken,
}

/// Handle to the task. Before it is started, nothing is saved.
#[derive(Clone, Debug, Default)]
pub struct Backups(Arc<SetOnce<Running>>);

#[derive(Debug)]
struct Running {
    requests: mpsc::Sender<Request>,
    /// See [`EngineSetup::hurry`].
    hurry: CancellationToken,
    settings: Backup,
    variables: Variables,
    task: String,
    rotated: Arc<Rotated>,
}

#[derive(Debug)]
enum Request {
    Backup(Wanted),
    /// Remove everything, here and in the store; the number of objects.
    Purge(oneshot::Sender<Result<usize, String>>),
}

#[derive(Debug)]
struct Wanted {
    reason: &'static str,
    answer: oneshot::Sender<Result<Done, String>>,
}

impl Backups {
    /// Starts the task.
    ///
    /// # Errors
    /// [`EngineError`] when our own disk cannot be used for it.
    pub fn start(&self, setup: Setup) -> Result<(), EngineError> {
        let directory = setup.paths.backup();
        let sink = Sink::new(
            setup.settings.clone(),
            setup.variables.clone(),
            &setup.task,
            &directory.join("spool"),
            SPOOL,
        )?;
        let hurry = CancellationToken::new();
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let engine = Engine::new(EngineSetup {
            task: setup.task.clone(),
            collector: Collector::new(
                Some(setup.helper.clone()),
                &setup.paths,
                setup.settings.recordings,
            ),
            sink,
            index: directory.join("index.json.zst"),
            places: Places {
                home: text(setup.paths.home().to_owned()),
                checkout: text(setup.paths.checkout()),
                state: text(setup.paths.state()),
            },
            snapshots: setup.snapshots.clone(),
            now: Now::read,
            hurry: hurry.clone(),
        })?;
        let (requests, inbox) = mpsc::channel(WAITING);
        let running = Running {
            requests,
            hurry,
            settings: setup.settings.clone(),
            variables: setup.variables.clone(),
            task: setup.task.clone(),
            rotated: setup.rotated.clone(),
        };
        let task = Task {
            watched: HashSet::new(),
            roots: Collector::new(None, &setup.paths, false).expected(),
            setup,
            engine,
            standing: Standing::default(),
            due: Due::new(running.settings.interval, Instant::now()),
        };
        if self.0.set(running).is_ok() {
            drop(tokio::spawn(task.run(inbox)));
        }
        Ok(())
    }

    /// Waits for the task to be started, at most this long.
    pub async fn started(&self, patience: Duration) {
        // Who asks next is told whether it was.
        drop(tokio::time::timeout(patience, self.0.wait()).await);
    }

    /// A backup that begins after now; every complete record that exists is in the store when it returns well.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn now(&self, reason: &'static str) -> Result<Done, BackupError> {
        let done = self.ask(reason, ANSWER).await?;
        if let Some(owed) = done.owed {
            return Err(BackupError::Owed(owed));
        }
        if let Some(file) = done.unreadable.first() {
            return Err(BackupError::Unreadable {
                path: file.key.path.clone(),
                reason: file.reason.clone(),
            });
        }
        Ok(done)
    }

    /// Removes what is kept of the task, in the store and here. What the agents' own files hold is saved anew when they
    /// change.
    ///
    /// # Errors
    /// [`BackupError`].
    pub async fn purge(&self) -> Result<usize, BackupError> {
        let (answer, answered) = oneshot::channel();
        self.send(Request::Purge(answer), answered, ANSWER).await
    }

    async fn ask(&self, reason: &'static str, patience: Duration) -> Result<Done, BackupError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Backup(Wanted { reason, answer });
        self.send(request, answered, patience).await
    }

    async fn send<T>(
        &self,
        request: Request,
        answered: oneshot::Receiver<Result<T, String>>,
        patience: Duration,
    ) -> Result<T, BackupError> {
        let running = self.0.get().ok_or(BackupError::NotReady)?;
        running
            .requests
            .try_send(request)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => BackupError::Busy,
                mpsc::error::TrySendError::Closed(_) => BackupError::Ended,
            })?;
        match tokio::time::timeout(patience, answered).await {
            Ok(Ok(done)) => done.map_err(BackupError::Failed),
            Ok(Err(_)) => Err(BackupError::Ended),
            Err(_) => Err(BackupError::Late(patience)),
        }
    }

    /// The last backup, before the container ends.
    pub async fn finish(&self, deadline: Instant) {
        if let Some(running) = self.0.get() {
            running.hurry.cancel();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match self.ask("stop", left).await {
            Ok(done) => match done.owed {
                None => tracing::info!(bytes = done.new_bytes, "everything is saved"),
                Some(owed) => tracing::error!(owed, "the last backup is not in the store"),
            },
            Err(BackupError::NotReady) => {}
            Err(error) => tracing::error!(%error, "the last backup is not done"),
        }
    }

    /// The task's snapshots, wherever they are kept.
    ///
    /// # Errors
    /// [`BackupError::NotReady`], [`BackupError::Failed`].
    pub fn store(&self) -> Result<Store, BackupError> {
        let running = self.0.get().ok_or(BackupError::NotReady)?;
        let settings = platform::renewed(&running.settings, &running.rotated);
        Store::open(&settings, &running.variables, &running.task)
            .map_err(|error: StoreError| BackupError::Failed(error.to_string()))
    }

    /// Where the snapshots are, without credentials.
    #[must_use]
    pub fn url(&self) -> Option<String> {
        let running = self.0.get()?;
        Some(crate::config::redact(running.settings.url.expose()))
    }
}

/// See the module's header.
#[derive(Debug)]
struct Task {
    setup: Setup,
    engine: Engine,
    watched: HashSet<PathBuf>,
    /// Where transcripts can appear.
    roots: Vec<PathBuf>,
    standing: Standing,
    due: Due,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        let mut changes = self.setup.helper.changes();
        let mut events = self.setup.board.journal().subscribe(None);
        let mut watching = true;
        let stop = self.setup.stop.clone();
        loop {
            tokio::select! {
                request = inbox.recv() => {
                    let Some(request) = request else { return };
                    let mut all = vec![request];
                    while let Ok(more) = inbox.try_recv() {
                        all.push(more);
                    }
                    self.serve(all).await;
                    self.tidy().await;
                }
                () = clock::until(self.due.at()) => {
                    let reason = if self.due.is_retry() { "retry" } else { "interval" };
                    drop(self.backup(reason).await);
                    self.tidy().await;
                }
                change = changes.recv() => match change {
                    Ok(change) => self.changed(&change),
                    Err(RecvError::Lagged(_)) => self.due.changed(Instant::now()),
                    Err(RecvError::Closed) => return,
                },
                ended = turn_end(&mut events), if watching => {
                    if ended {
                        self.due.turn_ended(Instant::now());
                    } else {
                        watching = false;
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    /// Not when the container is about to end: what was not thinned until then is thinned by the next one.
    async fn tidy(&mut self) {
        let hurry = self.engine.hurry();
        tokio::select! {
            biased;
            () = hurry.cancelled() => {}
            () = self.engine.tidy_if_due() => {}
        }
    }

    async fn serve(&mut self, requests: Vec<Request>) {
        let mut wanted = Vec::new();
        for request in requests {
            match request {
                Request::Backup(backup) => wanted.push(backup),
                Request::Purge(answer) => {
                    let purged = self.engine.purge().await;
                    // Whoever asked may have left.
                    drop(answer.send(purged.map_err(|error| error.to_string())));
                }
            }
        }
        if !wanted.is_empty() {
            self.answer(wanted).await;
        }
    }

    async fn answer(&mut self, requests: Vec<Wanted>) {
        let last = requests.iter().any(|request| request.reason == "stop");
        self.engine.be_patient(if last { LAST } else { PATIENCE });
        let reason = requests.first().map_or("now", |request| request.reason);
        let done = self.backup(if last { "stop" } else { reason }).await;
        self.engine.be_patient(PATIENCE);
        for request in requests {
            // Whoever asked may have left.
            drop(request.answer.send(done.clone()));
        }
    }

    fn changed(&mut self, change: &Change) {
        let path = change.directory.join(&change.name);
        // What was made anew under this name is watched anew.
        self.watched.remove(&path);
        if change.name.is_empty() {
            self.watched.remove(&change.directory);
        }
        let matters = self
            .roots
            .iter()
            .any(|root| change.directory.starts_with(root) || root.starts_with(&path));
        if matters {
            self.due.changed(Instant::now());
        }
    }

    async fn backup(&mut self, reason: &str) -> Result<Done, String> {
        let began = Instant::now();
        self.due.begin(began);
        let paths = self.setup.paths.clone();
        let sessions = tokio::task::spawn_blocking(move || known::sessions(&paths)).await;
        let masks = Masks::new(&self.setup.secrets.all());
        let settings = platform::renewed(&self.setup.settings, &self.setup.rotated);
        self.engine.renew(settings);
        let done = self
            .engine
            .backup(reason, sessions.unwrap_or_default(), &masks)
            .await;
        match done {
            Ok(done) => {
                self.tell(reason, &done, began).await;
                self.watch(done.directories.clone()).await;
                if done.unfinished {
                    self.due.changed(Instant::now());
                }
                Ok(done)
            }
            Err(error) => {
                let error = error.to_string();
                let owed = self.engine.owed().await;
                self.failed(&error, owed);
                Err(error)
            }
        }
    }

    async fn tell(&mut self, reason: &str, done: &Done, began: Instant) {
        for guarded in &done.guarded {
            tracing::warn!(
                path = guarded.key.path,
                reason = guarded.reason,
                "the good copy is kept"
            );
            let event = json!({
                "path": guarded.key.path, "place": guarded.key.place, "reason": guarded.reason,
            });
            self.setup.board.note(kind::BACKUP_GUARDED, event);
        }
        for file in &done.unreadable {
            tracing::warn!(
                path = file.key.path,
                reason = file.reason,
                "a file is not saved"
            );
        }
        match &done.owed {
            Some(owed) => {
                let bytes = self.engine.owed().await;
                self.failed(owed, bytes);
            }
            None => {
                self.due.succeeded();
                if done.taken {
                    let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                    let event = json!({
                        "snapshot": done.snapshot, "reason": reason, "files": done.files,
                        "new_bytes": done.new_bytes, "put_bytes": done.put_bytes, "ms": ms,
                    });
                    self.setup.board.note(kind::BACKUP_FINISHED, event);
                }
                self.standing = Standing {
                    last_ok: Some(clock::now()),
                    pending_bytes: 0,
                    error: None,
                };
                self.setup.board.backup(self.standing.clone());
            }
        }
    }

    fn failed(&mut self, error: &str, pending_bytes: u64) {
        // Once until it works again: the words differ from object to object.
        let news = self.due.failed(Instant::now());
        self.standing.error = Some(error.to_owned());
        self.standing.pending_bytes = pending_bytes;
        self.setup.board.backup(self.standing.clone());
        if news {
            tracing::warn!(error, pending_bytes, "the store does not have everything");
            let event = json!({"error": error, "pending_bytes": pending_bytes});
            self.setup.board.note(kind::BACKUP_FAILED, event);
        }
    }

    /// Watches what is there, and where roots that are not there can appear.
    async fn watch(&mut self, mut directories: Vec<PathBuf>) {
        directories.truncate(WATCHED);
        let there: HashSet<PathBuf> = directories.iter().cloned().collect();
        let home = self.setup.paths.home().to_owned();
        let missing = self.roots.iter().filter(|root| !there.contains(*root));
        let above: Vec<Vec<PathBuf>> = missing
            .map(|root| {
                let above = root.ancestors().skip(1);
                let within = above.take_while(|path| path.starts_with(&home));
                within.map(PathBuf::from).collect()
            })
            .collect();
        self.watched.retain(|path| there.contains(path));
        let mut fresh = false;
        for directory in directories {
            if !self.watched.contains(&directory) {
                fresh |= self.watch_one(directory).await;
            }
        }
        for chain in above {
            for directory in chain {
                if self.watch_one(directory).await {
                    break;
                }
            }
        }
        // Something may have been written between the look and the watch.
        if fresh {
            self.due.changed(Instant::now());
        }
    }

    async fn watch_one(&mut self, directory: PathBuf) -> bool {
        match self.setup.helper.watch(&directory).await {
            Ok(()) => self.watched.insert(directory),
            Err(error) => {
                if !error.is_not_found() {
                    tracing::debug!(%error, "a directory is not watched");
                }
                false
            }
        }
    }
}

/// Waits until a session has finished a turn; false when the journal has ended.
async fn turn_end(events: &mut Subscription) -> bool {
    loop {
        match events.next().await {
            None => return false,
            Some(Ok(Delivery::Event(entry))) => {
                if is_turn_end(&entry) {
                    return true;
                }
            }
            // What is missed here is seen by the changes of files.
            Some(Ok(Delivery::Missing { .. }) | Err(_)) => {}
        }
    }
}

fn is_turn_end(entry: &Entry) -> bool {
    let session = || {
        let event = entry.event().ok()?;
        event.fields.get("session")?;
        let state = event.fields.get("state")?.as_str()?;
        Some(matches!(state, "idle" | "needs_input" | "stopped"))
    };
    &*entry.kind == kind::STATE_CHANGED && session() == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn entry(event: &Value) -> Entry {
        Entry {
            seq: 1,
            kind: event["type"].as_str().unwrap().into(),
            json: event.to_string().into(),
        }
    }

    #[test]
    fn only_the_end_of_a_turn_asks_for_a_backup() {
        let at = "2026-11-22T03:04:05.678Z";
        let state = |session: Option<&str>, state: &str| json!({"seq": 1, "at": at, "type": kind::STATE_CHANGED, "session": session, "state": state});
        for ended in ["idle", "needs_input", "stopped"] {
            assert!(is_turn_end(&entry(&state(Some("main"), ended))), "{ended}");
        }
        assert!(!is_turn_end(&entry(&state(Some("main"), "working"))));
        // Its own events least of all: each backup would ask for the next.
        for own in [
            kind::BACKUP_FINISHED,
            kind::BACKUP_FAILED,
            kind::BACKUP_GUARDED,
        ] {
            let event =
                json!({"seq": 1, "at": at, "type": own, "session": "main", "state": "idle"});
            assert!(!is_turn_end(&entry(&event)), "{own}");
        }
    }
}
