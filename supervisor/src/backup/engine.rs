//! One backup after the other: list, draft, put, remember.
//!
//! Order is everything here. Segments are put before the snapshot that names them; the index on disk follows the
//! snapshot. Killed at any moment, the next supervisor finds an index that is at most behind: it reads again what was
//! put already, and no snapshot is ever listed that lacks a byte. A store that lost the newest snapshot is filled anew
//! from what is left there and from the files.

mod reconcile;
mod room;
mod work_tree;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::collect::{CollectError, Collector, Found};
use super::draft::bundle;
use super::draft::{Draft, DraftError, Guarded};
use super::index::{Entry, Index, Key};
use super::manifest::{
    Kind, MAX_FILES, MAX_PIECES, Manifest, Place, Places, Session, SnapshotId, VERSION,
};
use super::mask::Masks;
use super::pace::{Now, Pace};
use super::retention;
use super::sink::{Sink, SinkError};
use super::snapshot::Snapshots;
use super::store::{Store, StoreError};
use crate::config::settings::Backup;
use work_tree::Looks;

/// Between two tidyings, in backups.
const TIDY_EVERY: u32 = 60;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("listing what there is: {0}")]
    List(#[from] CollectError),
    #[error(transparent)]
    Draft(#[from] DraftError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("{}: {source}", path.display())]
    Index {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What an engine works on.
#[derive(Debug)]
pub struct Setup {
    pub task: String,
    pub collector: Collector,
    pub sink: Sink,
    pub index: PathBuf,
    pub places: Places,
    /// None: the work tree is not saved.
    pub snapshots: Option<Snapshots>,
    /// The clocks: [`Now::read`].
    pub now: fn() -> Now,
    /// Cancelled when the last backup is about to be asked for: one that is under way does not wait for the work tree.
    pub hurry: CancellationToken,
}

/// What a backup did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// The newest snapshot that holds all there was; none when there was nothing at all.
    pub snapshot: Option<SnapshotId>,
    /// It was taken by this backup; else nothing had changed.
    pub taken: bool,
    /// Bytes of files that were read.
    pub read_bytes: u64,
    /// Bytes of files that are new in it.
    pub new_bytes: u64,
    /// Bytes that were put.
    pub put_bytes: u64,
    pub files: usize,
    pub guarded: Vec<Guarded>,
    /// Files that are in no snapshot because they cannot be read.
    pub unreadable: Vec<Guarded>,
    /// Why it is only in the spool.
    pub owed: Option<String>,
    /// The look at the work tree goes on: another backup will find what it brings.
    pub unfinished: bool,
    /// Directories whose changes matter.
    pub directories: Vec<PathBuf>,
}

/// See the module's header.
#[derive(Debug)]
pub struct Engine {
    setup: Setup,
    looks: Looks,
    /// Shared with whoever writes it to the disk.
    index: Arc<Index>,
    /// It is on disk as it is.
    written: bool,
    /// The index was compared with the store.
    reconciled: bool,
    /// There was an index on disk.
    known: bool,
    /// The newest snapshot lacks what was learned of since.
    incomplete: bool,
    backups: u32,
    pace: Pace,
    /// Backups at the last tidying.
    tidied: u32,
}

impl Engine {
    /// # Errors
    /// When the index is there and cannot be read for a reason other than its content.
    pub fn new(mut setup: Setup) -> Result<Self, EngineError> {
        let loaded = match Index::load(&setup.index) {
            Ok(loaded) => loaded,
            Err(source) if source.raw_os_error().is_some() => {
                let path = setup.index;
                return Err(EngineError::Index { path, source });
            }
            Err(error) => {
                tracing::warn!(%error, "the backup's index is damaged and made anew");
                None
            }
        };
        let known = loaded.is_some();
        let index = loaded.unwrap_or_else(|| {
            let random = crate::random::token();
            Index::new(random.get(..8).unwrap_or("00000000").to_owned())
        });
        Ok(Self {
            looks: Looks::new(setup.snapshots.take()),
            setup,
            index: Arc::new(index),
            written: known,
            reconciled: false,
            known,
            incomplete: false,
            backups: 0,
            pace: Pace::default(),
            tidied: 0,
        })
    }

    /// These settings of the store from now on.
    pub fn renew(&mut self, settings: Backup) {
        self.setup.sink.renew(settings);
    }

    /// See [`Setup::hurry`].
    #[must_use]
    pub fn hurry(&self) -> CancellationToken {
        self.setup.hurry.clone()
    }

    /// How long the store may take for one object from now on.
    pub fn be_patient(&mut self, patience: Duration) {
        self.setup.sink.be_patient(patience);
    }

    /// Bytes that exist here only, as far as that is known without reading: what is spooled, and what files have grown.
    pub async fn owed(&self) -> u64 {
        let spooled = self.setup.sink.spooled();
        let Ok(listing) = self.setup.collector.list().await else {
            return spooled;
        };
        let grown = listing.files.iter().map(|found| {
            let saved = self.index.files.get(&found.key);
            let saved = saved.map_or(0, |entry| entry.live().bytes);
            found.stamp.size.saturating_sub(saved)
        });
        grown.fold(spooled, u64::saturating_add)
    }

    /// Saves what changed since the last time. When it returns well, every complete record that existed when it was
    /// called is durable: in the store, or if [`Done::owed`] says so only in the spool.
    ///
    /// # Errors
    /// [`EngineError`]: then nothing changed but that some segments may have been put, which the next time finds there.
    pub async fn backup(
        &mut self,
        reason: &str,
        sessions: Vec<Session>,
        masks: &Masks,
    ) -> Result<Done, EngineError> {
        self.setup.sink.begin().await;
        if self.setup.sink.failed().is_none() {
            let patience = self.setup.sink.patience();
            let reconciled = tokio::time::timeout(patience, self.reconcile()).await;
            let reconciled = reconciled.unwrap_or(Err(StoreError::Slow(patience)));
            if let Err(error) = reconciled {
                self.setup.sink.fail(&error);
            }
        }
        let mut done = self.save_files(reason, &sessions, masks).await?;
        // Before git is waited for.
        self.remember().await;
        self.save_work_tree(reason, &sessions, masks, &mut done)
            .await;
        done.files = self.index.files.len();
        done.snapshot = self.index.newest.clone();
        done.owed = self.setup.sink.failed().map(str::to_owned);
        self.remember().await;
        if done.taken && done.owed.is_none() {
            self.backups += 1;
        }
        Ok(done)
    }

    /// Conversations, histories and our own files.
    async fn save_files(
        &mut self,
        reason: &str,
        sessions: &[Session],
        masks: &Masks,
    ) -> Result<Done, EngineError> {
        let listing = self.setup.collector.list().await?;
        for root in &listing.cut {
            tracing::warn!(
                root,
                "there are more files than are listed; not all of them are saved"
            );
        }
        let (recordings, files): (Vec<&Found>, Vec<&Found>) = listing
            .files
            .iter()
            .partition(|found| found.kind == Kind::Recording);
        let Setup {
            collector, sink, ..
        } = &mut self.setup;
        let mut draft = Draft::new(collector, masks, sink);
        let gone: Vec<Key> = gone(&self.index, &listing.files, &listing.cut);
        let mut room = room::for_new(&self.index, &gone);
        for found in &files {
            let before = before(&self.index, found);
            if before.is_none() && room == 0 {
                draft.unreadable.push(Guarded {
                    key: found.key.clone(),
                    reason: format!("a snapshot has at most {MAX_FILES} files"),
                });
                continue;
            }
            if before.is_none() {
                room -= 1;
            }
            draft.take(found, before.as_deref()).await?;
        }
        let mut removed = Vec::new();
        for key in &gone {
            let Some(entry) = self.index.files.get(key) else {
                continue;
            };
            if key.place == Place::Home {
                draft.trouble(key, entry, "it is gone");
            } else if entry.is_own() {
                removed.push(key.clone());
            }
        }
        let mut changes = draft.finish().await?;
        let mut looks = std::mem::take(&mut draft.looks);
        let mut done = Done {
            read_bytes: draft.read,
            new_bytes: draft.fresh - draft.joined.min(draft.fresh),
            put_bytes: draft.put,
            guarded: std::mem::take(&mut draft.guarded),
            unreadable: std::mem::take(&mut draft.unreadable),
            directories: listing.directories,
            ..Done::default()
        };
        // Last, and only into the store itself: for them nothing waits.
        if self.setup.sink.failed().is_none() && !recordings.is_empty() {
            let Setup {
                collector, sink, ..
            } = &mut self.setup;
            let mut draft = Draft::new(collector, masks, sink);
            let mut taken = Ok(());
            for found in &recordings {
                let before = before(&self.index, found);
                taken = draft.take(found, before.as_deref()).await;
                if taken.is_err() {
                    break;
                }
            }
            let finished = match taken {
                Ok(()) => draft.finish().await,
                Err(error) => Err(error),
            };
            match finished {
                Ok(more) => {
                    changes.extend(more);
                    looks.append(&mut draft.looks);
                    done.read_bytes += draft.read;
                    done.new_bytes += draft.fresh;
                    done.put_bytes += draft.put;
                }
                Err(error) => tracing::warn!(%error, "recordings are not saved this time"),
            }
        }
        let nothing_new = changes.is_empty() && removed.is_empty() && !self.incomplete;
        if nothing_new && looks.is_empty() && self.index.newest.is_some() {
            return Ok(done);
        }
        let mut next = Index::clone(&self.index);
        for key in removed {
            next.files.remove(&key);
        }
        next.files.extend(looks);
        next.files.extend(changes);
        let given_up = room::make(&mut next, &gone, MAX_FILES, MAX_PIECES);
        if given_up > 0 {
            tracing::warn!(
                given_up,
                "the snapshot is full: files that are gone are not kept any more"
            );
        }
        if nothing_new && (self.index.newest.is_some() || next.files.is_empty()) {
            self.index = Arc::new(next);
            self.written = false;
        } else {
            self.put(reason, sessions.to_vec(), next).await?;
            done.taken = true;
        }
        Ok(done)
    }

    /// Removes everything of the task: the index, the spool, and what the store has. The number of objects of the store.
    ///
    /// # Errors
    /// [`EngineError`]; what was removed until then is gone.
    pub async fn purge(&mut self) -> Result<usize, EngineError> {
        // First what is here: killed in between, it is not taken for what the store has.
        Arc::make_mut(&mut self.index).forget_stored();
        self.index
            .save(&self.setup.index)
            .map_err(|source| EngineError::Index {
                path: self.setup.index.clone(),
                source,
            })?;
        self.setup.sink.clear().await?;
        Ok(self.setup.sink.target()?.purge().await?)
    }

    /// Puts the snapshot of this index; then it is the one that holds.
    async fn put(
        &mut self,
        reason: &str,
        sessions: Vec<Session>,
        mut next: Index,
    ) -> Result<(), EngineError> {
        let now = (self.setup.now)();
        let id = self.pace.next(now, next.newest.as_ref(), &next.container);
        let (segments, files) = next.files();
        let code = next.code.as_ref().map(serde_json::to_value).transpose();
        let manifest = Manifest {
            version: VERSION,
            task: self.setup.task.clone(),
            id: id.clone(),
            taken_at: now.wall,
            reason: reason.to_owned(),
            whim: env!("CARGO_PKG_VERSION").to_owned(),
            places: self.setup.places.clone(),
            sessions,
            segments,
            files,
            code: code.map_err(|source| EngineError::Index {
                path: self.setup.index.clone(),
                source: source.into(),
            })?,
        };
        match self.setup.sink.finish(&manifest).await {
            // A name that is taken is passed over the next time.
            Err(SinkError::Store(StoreError::Exists(taken))) => {
                Arc::make_mut(&mut self.index).newest = Some(taken.clone());
                return Err(StoreError::Exists(taken).into());
            }
            finished => finished?,
        }
        next.newest = Some(id);
        self.index = Arc::new(next);
        self.written = false;
        self.incomplete = false;
        Ok(())
    }

    /// The snapshot counts, whether its index is on disk or not: without it more is read the next time.
    async fn remember(&mut self) {
        if self.written {
            return;
        }
        let (index, path) = (self.index.clone(), self.setup.index.clone());
        let saved = tokio::task::spawn_blocking(move || index.save(&path)).await;
        match saved.map_err(std::io::Error::other).and_then(|saved| saved) {
            Ok(()) => {
                self.known = true;
                self.written = true;
            }
            Err(error) => tracing::warn!(%error, "the backup's index is not on disk"),
        }
    }

    /// Thins the past when it is time to: after a backup, not before its answer.
    pub async fn tidy_if_due(&mut self) {
        if self.backups % TIDY_EVERY == 1 && self.backups != self.tidied {
            self.tidied = self.backups;
            self.tidy().await;
        }
    }

    async fn tidy(&mut self) {
        let Ok(store) = self.setup.sink.target() else {
            return;
        };
        match retention::tidy(&store, retention::UNUSED).await {
            Ok(removed) if removed != retention::Removed::default() => {
                tracing::info!(?removed, "the past is thinned");
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the store is not tidied"),
        }
    }
}

/// What is saved of a file, or of the one that it was before it was renamed (our own files are, at rotation).
fn before<'a>(index: &'a Index, found: &Found) -> Option<Cow<'a, Entry>> {
    let inode = |entry: &Entry| entry.live().seen.map(|seen| (seen.device, seen.inode));
    let wanted = Some((found.stamp.device, found.stamp.inode));
    let known = index.files.get(&found.key);
    if found.key.place != Place::State || known.is_some_and(|entry| inode(entry) == wanted) {
        return known.map(Cow::Borrowed);
    }
    let mut same = index
        .files
        .iter()
        .filter(|(key, _)| key.place == Place::State);
    let moved = same.find(|(_, entry)| entry.kind == found.kind && inode(entry) == wanted);
    match moved {
        // Looked at again under its new name, though nothing else changed.
        Some((_, entry)) => Some(Cow::Owned(Entry {
            trouble: Some("renamed".to_owned()),
            ..entry.clone()
        })),
        None => known.map(Cow::Borrowed),
    }
}

/// Entries whose files are not there any more.
fn gone(index: &Index, files: &[Found], cut: &[String]) -> Vec<Key> {
    let there: std::collections::HashSet<&Key> = files.iter().map(|found| &found.key).collect();
    let gone = index.files.keys().filter(|key| {
        // Where not everything is listed, what is missing says nothing.
        let unknown = cut.iter().any(|root| key.path.starts_with(root.as_str()));
        // The bundle is no file that lies somewhere.
        !unknown && !there.contains(key) && key.place != Place::Code
    });
    gone.cloned().collect()
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
