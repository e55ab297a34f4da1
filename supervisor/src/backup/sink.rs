//! Where a backup goes: to the store, or while that takes nothing, into a spool on our own disk.
//!
//! The spool is a store in a directory, with the same names. What is in it goes to the real one before anything newer
//! does, segments before the snapshot that names them, so that whatever is killed in between leaves no torn snapshot.
//! Only the newest spooled snapshot is kept: it holds all that the ones before it held. Recordings are never spooled,
//! they wait where they are. At [`SPOOL`] bytes the spool takes no more; then what is owed waits in the agents' own
//! files, and nothing that is saved is given up for it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use whim_wire::time::Time;

use super::manifest::{Manifest, Segment, SnapshotId};
use super::objects::{ObjectError, Objects};
use super::retention::UNUSED;
use super::store::{Store, StoreError};
use crate::clock;
use crate::config::Variables;
use crate::config::settings::Backup;

/// Most bytes of the spool.
pub const SPOOL: u64 = 1024 * 1024 * 1024;

/// How long the store may take for one object before it counts as one that takes nothing.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// Why something is neither in the store nor in the spool.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("{store}; and the spool: {source}")]
    Spool { store: String, source: StoreError },
    #[error("{store}; and the spool has its {bound} bytes")]
    Full { store: String, bound: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// See the module's header.
#[derive(Debug)]
pub struct Sink {
    settings: Backup,
    variables: Variables,
    task: String,
    target: Option<Store>,
    spool: Store,
    spooled: u64,
    bound: u64,
    patience: Duration,
    /// Why the store takes nothing: since then everything of this backup goes into the spool.
    failed: Option<String>,
    /// Spooled segments that the store acknowledged while their snapshot is still owed, and when. They stay in the spool
    /// until that is put: another container's tidying removes what no snapshot names for long.
    acknowledged: HashMap<String, Time>,
}

impl Sink {
    /// The store is opened with the first backup.
    ///
    /// # Errors
    /// When the spool's directory cannot be had.
    pub fn new(
        settings: Backup,
        variables: Variables,
        task: &str,
        spool: &Path,
        bound: u64,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            settings,
            variables,
            task: task.to_owned(),
            target: None,
            spool: Store::of(Objects::directory(spool.to_owned())?, task)?,
            spooled: 0,
            bound,
            patience: PATIENCE,
            failed: None,
            acknowledged: HashMap::new(),
        })
    }

    #[cfg(test)]
    pub(super) fn watch(&mut self, watch: super::objects::Watch) {
        let target = self.target().unwrap();
        self.target = Some(target.watched(watch));
    }

    /// The store, opened if it was not.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn target(&mut self) -> Result<Store, StoreError> {
        if let Some(target) = &self.target {
            return Ok(target.clone());
        }
        let target = Store::open(&self.settings, &self.variables, &self.task)?;
        Ok(self.target.insert(target).clone())
    }

    /// Why the store took nothing, if it did not.
    #[must_use]
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// Bytes in the spool.
    #[must_use]
    pub fn spooled(&self) -> u64 {
        self.spooled
    }

    /// These settings from now on; the store is opened anew when a credential in them changed.
    pub fn renew(&mut self, settings: Backup) {
        let same = settings.environment.len() == self.settings.environment.len()
            && settings.environment.iter().all(|(name, value)| {
                let before = self.settings.environment.get(name);
                before.is_some_and(|before| before.expose() == value.expose())
            });
        if !same {
            self.settings = settings;
            self.target = None;
            self.acknowledged.clear();
        }
    }

    /// How long the store may take for one object from now on.
    pub fn be_patient(&mut self, patience: Duration) {
        self.patience = patience;
    }

    #[must_use]
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// From now on into the spool.
    pub fn fail(&mut self, error: &StoreError) {
        self.failed.get_or_insert_with(|| error.to_string());
    }

    /// A backup begins: first what is owed goes to the store.
    pub async fn begin(&mut self) {
        self.failed = None;
        if let Err(error) = self.drain().await {
            self.fail(&error);
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "the spool is not swept");
            }
        }
        self.spooled = self.spool_size().await;
    }

    /// Removes from the spool what no snapshot in it names: what a backup left that failed half way.
    async fn sweep(&self) -> Result<(), StoreError> {
        let mut named = HashSet::new();
        for id in self.spool.list_manifests().await? {
            let manifest = self.spool.get_manifest(&id).await?;
            named.extend(manifest.segments.into_iter().map(|segment| segment.name));
        }
        for segment in self.spool.list_segments().await? {
            if !named.contains(&segment.name) {
                self.spool.delete_segment(&segment.name).await?;
            }
        }
        Ok(())
    }

    async fn spool_size(&self) -> u64 {
        match self.spool.list_segments().await {
            Ok(listed) => listed.iter().map(|segment| segment.bytes).sum(),
            Err(error) => {
                tracing::warn!(%error, "the spool cannot be looked at");
                0
            }
        }
    }

    async fn drain(&mut self) -> Result<(), StoreError> {
        let target = self.target()?;
        let ids = self.spool.list_manifests().await?;
        let segments = self.spool.list_segments().await?;
        if !ids.is_empty() {
            for segment in &segments {
                if self.is_acknowledged(&segment.name)
                    && within(self.patience, target.has_segment(&segment.name)).await?
                {
                    continue;
                }
                let stored = self.spool.stored_segment(&segment.name).await?;
                let put = target.put_segment(&segment.name, stored);
                within(self.patience, put).await?;
                let name = segment.name.clone();
                self.acknowledged.insert(name, clock::now());
            }
        }
        for id in &ids {
            let manifest = self.spool.get_manifest(id).await?;
            match within(self.patience, target.put_manifest(&manifest)).await {
                // It was put before we were killed.
                Ok(()) | Err(StoreError::Exists(_)) => self.spool.delete_manifest(id).await?,
                Err(error) => return Err(error),
            }
        }
        // Without a snapshot that names them they are what a failed backup left.
        for segment in &segments {
            self.spool.delete_segment(&segment.name).await?;
        }
        self.acknowledged.clear();
        Ok(())
    }

    /// A try before this one put it, and not so long ago that it could be gone again.
    fn is_acknowledged(&self, segment: &str) -> bool {
        let now = clock::now().as_millisecond();
        let bound = i64::try_from(UNUSED.as_millis() / 2).unwrap_or(0);
        let put = self.acknowledged.get(segment);
        put.is_some_and(|at| (0..bound).contains(&(now - at.as_millisecond())))
    }

    /// Puts a segment.
    ///
    /// # Errors
    /// [`SinkError`].
    pub async fn put(&mut self, segment: &Segment, stored: Bytes) -> Result<(), SinkError> {
        if self.failed.is_none() {
            let put = match self.target() {
                Ok(target) => {
                    let put = target.put_segment(&segment.name, stored.clone());
                    within(self.patience, put).await
                }
                Err(error) => Err(error),
            };
            match put {
                Ok(_) => return Ok(()),
                Err(error) => self.fail(&error),
            }
        }
        if self.spooled.saturating_add(segment.bytes) > self.bound {
            return Err(SinkError::Full {
                store: self.failed.clone().unwrap_or_default(),
                bound: self.bound,
            });
        }
        let put = self.spool.put_segment(&segment.name, stored).await;
        put.map_err(|source| self.spool_error(source))?;
        self.spooled += segment.bytes;
        Ok(())
    }

    /// Puts the snapshot whose segments were put.
    ///
    /// # Errors
    /// [`SinkError`].
    pub async fn finish(&mut self, manifest: &Manifest) -> Result<(), SinkError> {
        if self.failed.is_none() {
            let put = match self.target() {
                Ok(target) => within(self.patience, target.put_manifest(manifest)).await,
                Err(error) => Err(error),
            };
            match put {
                Ok(()) => return Ok(()),
                // Another try will not make it better.
                Err(error @ (StoreError::Manifest { .. } | StoreError::Exists(_))) => {
                    return Err(error.into());
                }
                Err(error) => self.fail(&error),
            }
        }
        let put = self.spool.put_manifest(manifest).await;
        put.map_err(|source| self.spool_error(source))?;
        self.drop_older(&manifest.id)
            .await
            .map_err(|source| self.spool_error(source))
    }

    async fn drop_older(&self, newest: &SnapshotId) -> Result<(), StoreError> {
        for id in self.spool.list_manifests().await? {
            if id < *newest {
                self.spool.delete_manifest(&id).await?;
            }
        }
        Ok(())
    }

    fn spool_error(&self, source: StoreError) -> SinkError {
        SinkError::Spool {
            store: self.failed.clone().unwrap_or_default(),
            source,
        }
    }

    /// A segment's content, wherever it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&mut self, segment: &Segment) -> Result<Bytes, StoreError> {
        match self.spool.get_segment(segment).await {
            Err(StoreError::Object(ObjectError::NotFound { .. })) => {
                self.target()?.get_segment(segment).await
            }
            found => found,
        }
    }

    /// Removes what is spooled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clear(&mut self) -> Result<(), StoreError> {
        self.spool.purge().await?;
        self.acknowledged.clear();
        self.spooled = 0;
        Ok(())
    }
}

async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(patience, call).await {
        Ok(done) => done,
        Err(_) => Err(StoreError::Slow(patience)),
    }
}
