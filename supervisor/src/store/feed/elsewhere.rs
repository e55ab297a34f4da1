//! Other tasks' histories, from the place where their backups lie beside ours: read when somebody searches everywhere.
//!
//! Of each task the newest snapshot is looked at, and only if it is another one than the last time; of each of its
//! transcripts and histories only what came since is fetched. Whose a file is says the snapshot; it is taken for data, and
//! checked as every snapshot is. What a task's own host knew for a secret is not in it, and what this one knows is taken
//! out here. A task whose backups were removed is forgotten with the next search.
//!
//! Bounds: [`TASKS`] tasks, [`ROOM`] bytes of the store's file, and the time that a search waits; what is not read by then
//! is read by the searches after it.

mod source;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use self::source::{Reads, Source};
use super::super::text::of_turn;
use super::super::{Batch, Document, Store, StoreError, commands};
use super::Hidden;
use super::conversations::{TURNS, document};
use super::shells;
use crate::backup::agent::{BackupError, Backups};
use crate::backup::manifest::{File, SnapshotId};
use crate::backup::objects::Objects;
use crate::backup::store::{self as shared, Reader};
use crate::conversation::cursor::{CHECKED, Cursor};
use crate::conversation::lines::Lines;

/// Tasks of one place, by name.
const TASKS: usize = 500;
/// Beyond this the store is left to this container's own history.
const ROOM: u64 = 1024 * 1024 * 1024;

/// Why other tasks' histories are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum ElsewhereError {
    #[error(transparent)]
    Backups(#[from] BackupError),
    #[error("other tasks' histories: {0}")]
    Shared(#[from] shared::StoreError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("reading was given up")]
    GivenUp,
}

/// Handle; clones share it.
#[derive(Clone, Debug)]
pub struct Elsewhere(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    backups: Backups,
    hidden: Arc<Hidden>,
    /// One pass at a time: a segment is the largest thing that it holds.
    turn: Semaphore,
    read: Mutex<Read>,
}

/// Tasks and the snapshots that were read to their end.
#[derive(Debug, Default)]
struct Read {
    /// The store as it was then.
    begun: u64,
    newest: HashMap<String, SnapshotId>,
}

impl Elsewhere {
    #[must_use]
    pub fn new(store: Store, backups: Backups, hidden: Arc<Hidden>) -> Self {
        Self(Arc::new(Inner {
            store,
            backups,
            hidden,
            turn: Semaphore::new(1),
            read: Mutex::default(),
        }))
    }

    /// Reads what other tasks have more of. `false`: not all of it could be, or not within `patience`.
    ///
    /// # Errors
    /// [`ElsewhereError`] when there is no telling which tasks there are.
    pub async fn catch_up(&self, patience: Duration) -> Result<bool, ElsewhereError> {
        let pass = async {
            let turn = self.0.turn.acquire().await;
            let _turn = turn.map_err(|_| ElsewhereError::GivenUp)?;
            self.0.pass().await
        };
        tokio::time::timeout(patience, pass)
            .await
            .unwrap_or(Ok(false))
    }
}

impl Inner {
    async fn pass(&self) -> Result<bool, ElsewhereError> {
        let own = match self.backups.store() {
            Ok(own) => own,
            // It is not known yet where they are.
            Err(BackupError::NotReady) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let mut tasks = shared::tasks(own.objects(), Some(own.task())).await?;
        tasks.retain(|task| task != own.task());
        for gone in self.store.others().await? {
            if !tasks.contains(&gone) {
                self.store.forget_task(gone).await?;
            }
        }
        let mut complete = tasks.len() <= TASKS;
        tasks.truncate(TASKS);
        for task in tasks {
            if self.store.bytes().await? > ROOM {
                tracing::warn!("the search's index takes no more of other tasks");
                return Ok(false);
            }
            // One that cannot be read must not keep the others out.
            if let Err(error) = self.task(own.objects(), &task).await {
                tracing::warn!(task, %error, "a task's history is not all in the search's index");
                complete = false;
            }
        }
        Ok(complete)
    }

    async fn task(&self, objects: &Objects, task: &str) -> Result<(), ElsewhereError> {
        let theirs = shared::Store::of(objects.clone(), task)?;
        let ids = theirs.list_manifests().await?;
        let Some(newest) = ids.last() else {
            return Ok(self.store.forget_task(task.to_owned()).await?);
        };
        let begun = self.store.begun();
        if self.read(begun).newest.get(task) == Some(newest) {
            return Ok(());
        }
        let manifest = theirs.get_manifest(newest).await?;
        let mut reader = theirs.reader(&manifest);
        for file in &manifest.files {
            if let Some(source) = source::of(&manifest, file) {
                self.file(&mut reader, file, source).await?;
            }
        }
        // Where the store was begun anew meanwhile, this is forgotten with the next look.
        let mut read = self.read(begun);
        read.newest.insert(task.to_owned(), newest.clone());
        Ok(())
    }

    /// What was read of the store as it is now.
    fn read(&self, begun: u64) -> MutexGuard<'_, Read> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.begun != begun {
            *read = Read {
                begun,
                newest: HashMap::new(),
            };
        }
        read
    }

    /// Reads what a file has more of.
    async fn file<'m>(
        &self,
        reader: &mut Reader<'m>,
        file: &'m File,
        source: Source,
    ) -> Result<(), ElsewhereError> {
        let Source { origin, reads } = source;
        let mut after = self.store.cursor(&origin).await?;
        let cursor = after.as_deref().and_then(|text| text.parse().ok());
        if cursor
            .as_ref()
            .is_some_and(|cursor: &Cursor| cursor.transcript == file.sha256)
        {
            return Ok(());
        }
        // What does not stand where it stood is another file.
        let known = match &cursor {
            Some(cursor) => before(reader, file, cursor).await?,
            None => None,
        };
        let mut anew = known.is_none();
        let (start, before) = known.unwrap_or_default();
        let mut taking = Taking {
            lines: Lines::new(start),
            reads,
            place: start,
            before,
        };
        let mut at = 0;
        for (number, piece) in file.pieces.iter().enumerate() {
            let begin = at;
            at += piece.2;
            if at <= start {
                continue;
            }
            let Some(bytes) = reader.piece(file, number).await? else {
                break;
            };
            let skipped = usize::try_from(start.saturating_sub(begin)).unwrap_or(usize::MAX);
            let bytes = bytes.slice(skipped.min(bytes.len())..);
            let hidden = self.hidden.clone();
            let taken = tokio::task::spawn_blocking(move || {
                let batches = taking.take(&bytes, &hidden);
                (taking, batches)
            });
            let batches;
            (taking, batches) = taken.await.map_err(|_| ElsewhereError::GivenUp)?;
            for (documents, cursor) in batches {
                let cursor = Some(cursor.to_string());
                let batch = Batch {
                    origin: origin.clone(),
                    after: std::mem::replace(&mut after, cursor.clone()),
                    anew: std::mem::take(&mut anew),
                    documents,
                    cursor,
                    names: Vec::new(),
                };
                self.store.append(batch).await?;
            }
        }
        let end = Cursor::new(&file.sha256, taking.place, &taking.before);
        let batch = Batch {
            origin,
            after,
            anew,
            documents: Vec::new(),
            cursor: Some(end.to_string()),
            names: Vec::new(),
        };
        Ok(self.store.append(batch).await?)
    }
}

/// Where to go on and the bytes before it; `None`: something else stands there now.
async fn before(
    reader: &mut Reader<'_>,
    file: &File,
    cursor: &Cursor,
) -> Result<Option<(u64, Vec<u8>)>, ElsewhereError> {
    if cursor.offset > file.bytes {
        return Ok(None);
    }
    let from = cursor.offset.saturating_sub(CHECKED as u64);
    let mut found = Vec::new();
    let mut at = 0;
    for (number, piece) in file.pieces.iter().enumerate() {
        let begin = at;
        at += piece.2;
        if at <= from || begin >= cursor.offset {
            continue;
        }
        let bytes = reader.piece(file, number).await?.unwrap_or_default();
        let place = |offset: u64| {
            let within = usize::try_from(offset.saturating_sub(begin)).unwrap_or(usize::MAX);
            within.min(bytes.len())
        };
        found.extend_from_slice(
            bytes
                .get(place(from)..place(cursor.offset))
                .unwrap_or_default(),
        );
    }
    Ok(cursor.fits(&found).then_some((cursor.offset, found)))
}

/// A file while it is read.
struct Taking {
    lines: Lines,
    reads: Reads,
    /// End of the last whole line, and what stands before it.
    place: u64,
    before: Vec<u8>,
}

impl Taking {
    /// The rows of further bytes, without secrets, and how far the file is read with each lot of them.
    fn take(&mut self, bytes: &[u8], hidden: &Hidden) -> Vec<(Vec<Document>, Cursor)> {
        self.lines.feed(bytes);
        let mask = hidden.mask();
        let mut batches = Vec::new();
        let mut documents = Vec::new();
        for line in self.lines.by_ref() {
            self.place = line.end();
            let kept = line.bytes.len().saturating_sub(CHECKED);
            self.before
                .extend_from_slice(line.bytes.get(kept..).unwrap_or_default());
            self.before
                .drain(..self.before.len().saturating_sub(CHECKED));
            match &self.reads {
                Reads::Turns { kind, subagent } => {
                    let turn = crate::conversation::turn(*kind, &line, subagent.as_deref());
                    let text = mask.hide(of_turn(&turn));
                    if !text.trim().is_empty() {
                        documents.push(document(&turn, text));
                    }
                }
                Reads::Commands => {
                    if let Some(command) = commands::read(line.content()) {
                        documents.push(shells::document(line.offset, command, &mask));
                    }
                }
            }
            if documents.len() >= TURNS {
                // Not to its end: no checksum stands for it yet.
                let cursor = Cursor::new("", self.place, &self.before);
                batches.push((std::mem::take(&mut documents), cursor));
            }
        }
        if !documents.is_empty() {
            batches.push((documents, Cursor::new("", self.place, &self.before)));
        }
        batches
    }
}
