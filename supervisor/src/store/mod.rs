//! The embedded store: what was said and done, to be searched. SQLite with FTS5 in `/whim/state/store.db`.
//!
//! - [`query`], [`when`], [`snippet`], [`text`], [`commands`], [`mask`]: what is asked, and what of a record is kept. Pure.
//! - [`schema`]: the file. [`write`], [`find`]: its rows, and the way back; [`narrow`]: what keeps that way short.
//! - [`feed`]: keeps it current from transcripts and histories, and from other tasks' backups when that is asked for.
//!
//! [`Store`] is the handle. One thread owns the file and does one thing after the other, so a question waits for one page
//! of rows at most. [`Store::append`] takes rows of any task: those of others come in by the same door as this one's, with
//! [`Origin::task`] set and a cursor of their own. What is found is decided in two steps, [`find`]'s candidates and their
//! presentation, so that candidates from elsewhere (embeddings) can be merged between them.
//!
//! Bounds: [`JOBS`] jobs wait for the thread, a caller beyond waits too; a search is given up after [`PATIENCE`]; a file of
//! 4 GiB takes nothing more.

mod commands;
pub mod feed;
mod find;
pub mod mask;
mod narrow;
pub mod query;
mod schema;
mod snippet;
mod text;
pub mod when;
mod write;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use whim_wire::search::Answer;
use zeroize::Zeroizing;

pub use query::Query;
use schema::{Db, Found};
pub use write::{Batch, Document, Origin, Task, What};

/// Jobs that may wait for the thread.
const JOBS: usize = 16;
/// For one search; the words were too common then.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 10_000;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is of version {version}, not ours", path = path.display())]
    Foreign { path: PathBuf, version: i32 },
    #[error("the store: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the search was given up after {} s: search for rarer words, or give a time", PATIENCE.as_secs())]
    TooLong,
    #[error("the store goes on from another place of {0:?} than these rows")]
    Elsewhere(String),
    #[error("the store's thread has ended")]
    Ended,
}

impl StoreError {
    /// The file cannot be used any more.
    fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite(error) => schema::is_damage(error),
            Self::Foreign { .. } => true,
            Self::File { .. } | Self::TooLong | Self::Elsewhere(_) | Self::Ended => false,
        }
    }

    /// Room is missing on the disk, or below the bound.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let full = Some(rusqlite::ErrorCode::DiskFull);
        matches!(self, Self::Sqlite(error) if error.sqlite_error_code() == full)
    }
}

type Job = Box<dyn FnOnce(&mut Owner) + Send>;

/// Handle to the store; clones share it. The thread ends with the last one.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    /// How often the file was begun anew.
    begun: Arc<AtomicU64>,
}

impl Store {
    /// The file is opened by the first job, so that nobody's start waits for it.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(path: &Path) -> io::Result<Self> {
        let (jobs, mut inbox) = mpsc::channel::<Job>(JOBS);
        let begun = Arc::new(AtomicU64::new(0));
        let mut owner = Owner {
            path: path.to_owned(),
            db: None,
            begun: begun.clone(),
        };
        let thread = std::thread::Builder::new().name("store".into());
        drop(thread.spawn(move || {
            while let Some(job) = inbox.blocking_recv() {
                job(&mut owner);
            }
        })?);
        Ok(Self { jobs, begun })
    }

    /// Rises each time when the store is empty again and everything is to be read anew.
    #[must_use]
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// How far a source was read; `None`: not at all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn cursor(&self, origin: &Origin) -> Result<Option<String>, StoreError> {
        let origin = origin.clone();
        self.ask(move |db| write::cursor(&db.connection, &origin))
            .await
    }

    /// Names of the sources of a session.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sources(&self, origin: &Origin) -> Result<Vec<String>, StoreError> {
        let origin = origin.clone();
        self.ask(move |db| write::sources(&db.connection, &origin))
            .await
    }

    /// Takes rows and how far their source is read now: both or neither.
    ///
    /// # Errors
    /// [`StoreError::Elsewhere`] when the source was read to another place than [`Batch::after`].
    pub async fn append(&self, batch: Batch) -> Result<(), StoreError> {
        self.ask(move |db| write::append(&mut db.connection, &batch))
            .await
    }

    /// Describes this container's task.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn describe(&self, task: Task) -> Result<(), StoreError> {
        self.ask(move |db| write::describe(&db.connection, &task))
            .await
    }

    /// Turns and commands that are in it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count(&self) -> Result<u64, StoreError> {
        self.ask(|db| write::count(&db.connection)).await
    }

    /// Ids of other tasks of which something is in it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn others(&self) -> Result<Vec<String>, StoreError> {
        self.ask(|db| write::others(&db.connection)).await
    }

    /// Takes all rows of another task away.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_task(&self, id: String) -> Result<(), StoreError> {
        self.ask(move |db| write::forget_task(&mut db.connection, &id))
            .await
    }

    /// Bytes of the file.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn bytes(&self) -> Result<u64, StoreError> {
        self.ask(|db| write::bytes(&db.connection)).await
    }

    /// Whether a secret stands in it. Looks through all texts: about a second for 300 MB.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn contains(&self, secret: Zeroizing<String>) -> Result<bool, StoreError> {
        self.ask(move |db| write::contains(&db.connection, &secret))
            .await
    }

    /// What fits a query, best first.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] after [`PATIENCE`].
    pub async fn search(&self, query: Query) -> Result<Answer, StoreError> {
        let deadline = Instant::now() + PATIENCE;
        self.ask(move |db| {
            db.connection.execute_batch(schema::LARGE)?;
            let over = move || Instant::now() >= deadline;
            db.connection.progress_handler(STEPS, Some(over))?;
            let answer = find::search(&db.connection, &query);
            db.connection.progress_handler(0, None::<fn() -> bool>)?;
            match answer {
                Err(StoreError::Sqlite(error))
                    if error.sqlite_error_code()
                        == Some(rusqlite::ErrorCode::OperationInterrupted) =>
                {
                    Err(StoreError::TooLong)
                }
                other => other,
            }
        })
        .await
    }

    /// Forgets everything; what is there is to be read again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clear(&self) -> Result<(), StoreError> {
        self.send(|owner| owner.clear()).await
    }

    /// Gives back the memory that the last jobs needed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rest(&self) -> Result<(), StoreError> {
        self.ask(|db| Ok(db.connection.execute_batch(schema::SMALL)?))
            .await
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.send(|owner| owner.with(work)).await
    }

    async fn send<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Owner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |owner| {
            // Who asked may have given up.
            drop(answer.send(work(owner)));
        });
        self.jobs.send(job).await.map_err(|_| StoreError::Ended)?;
        answered.await.map_err(|_| StoreError::Ended)?
    }
}

/// What the thread owns.
#[derive(Debug)]
struct Owner {
    path: PathBuf,
    db: Option<Db>,
    begun: Arc<AtomicU64>,
}

impl Owner {
    /// Does the work on the open file. One that turns out to be damaged is set aside and a new one begun, for the next.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&mut Db) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        if self.db.as_ref().is_some_and(|db| !db.is_there()) {
            tracing::warn!(path = %self.path.display(), "the store was taken away and is made anew");
            self.db = None;
        }
        let db = match &mut self.db {
            Some(db) => db,
            closed => {
                let (db, found) = Db::open(&self.path)?;
                if found != Found::Good {
                    self.begun.fetch_add(1, Ordering::AcqRel);
                }
                closed.insert(db)
            }
        };
        let result = work(db);
        if let Err(error) = &result
            && error.is_damage()
        {
            tracing::warn!(%error, aside = %schema::aside(&self.path).display(), "the store is damaged: it is set aside and made anew");
            self.db = None;
            schema::set_aside(&self.path)?;
            self.db = Some(Db::open(&self.path)?.0);
            self.begun.fetch_add(1, Ordering::AcqRel);
        }
        result
    }

    fn clear(&mut self) -> Result<(), StoreError> {
        self.db = None;
        schema::clear(&self.path)?;
        self.with(|_| Ok(()))
    }
}
