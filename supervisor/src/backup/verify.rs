//! The proof of a backup: all of it read back, every byte checked. And what a list tells of a snapshot.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use whim_wire::time::Time;

use super::manifest::{Kind, Manifest, SnapshotId};
use super::store::{Store, StoreError};

/// Most files that are told to be damaged.
const TOLD: usize = 100;

/// A snapshot in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    pub id: String,
    pub taken_at: Time,
    /// `interval`, `now`, `quiesce`, `stop`, `retry`.
    pub reason: String,
    pub files: usize,
    pub conversations: usize,
    /// Of all files.
    pub bytes: u64,
    /// In the store; shared with the snapshots around it.
    pub stored_bytes: u64,
    /// Files of which a damaged copy is kept beside the good one.
    pub damaged: usize,
}

impl Summary {
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        let good = manifest.files.iter();
        let conversations =
            good.filter(|file| file.kind == Kind::Conversation && file.damaged_copy_of.is_none());
        Self {
            id: manifest.id.to_string(),
            taken_at: manifest.taken_at,
            reason: manifest.reason.clone(),
            files: manifest.files.len(),
            conversations: conversations.count(),
            bytes: manifest.files.iter().map(|file| file.bytes).sum(),
            stored_bytes: manifest.segments.iter().map(|segment| segment.bytes).sum(),
            damaged: manifest
                .files
                .iter()
                .filter(|file| file.damaged_copy_of.is_some())
                .count(),
        }
    }
}

/// What reading it back found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    pub task: String,
    pub snapshot: String,
    /// Everything came back as it went in.
    pub ok: bool,
    pub files: usize,
    /// Bytes of files that came back.
    pub bytes: u64,
    /// What did not, a hundred at most.
    pub damaged: Vec<Damaged>,
}

/// A file that does not come back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Damaged {
    pub path: String,
    pub error: String,
}

/// The newest `limit` snapshots, newest first. One that cannot be read is told in the log and passed over.
///
/// # Errors
/// [`StoreError`] when the store cannot be listed.
pub async fn list(store: &Store, limit: usize) -> Result<Vec<Summary>, StoreError> {
    let ids = store.list_manifests().await?;
    let mut listed = Vec::new();
    for id in ids.iter().rev().take(limit) {
        match store.get_manifest(id).await {
            Ok(manifest) => listed.push(Summary::of(&manifest)),
            Err(error) => tracing::warn!(%error, "a snapshot cannot be read"),
        }
    }
    Ok(listed)
}

/// Reads a snapshot back, the newest one unless `at` names another; none when there is none.
///
/// # Errors
/// [`StoreError`] when the snapshot itself cannot be read.
pub async fn verify(
    store: &Store,
    at: Option<&SnapshotId>,
) -> Result<Option<Verified>, StoreError> {
    let manifest = match at {
        Some(id) => store.get_manifest(id).await?,
        None => match store.newest().await? {
            Some(manifest) => manifest,
            None => return Ok(None),
        },
    };
    let mut verified = Verified {
        task: manifest.task.clone(),
        snapshot: manifest.id.to_string(),
        ok: true,
        files: manifest.files.len(),
        bytes: 0,
        damaged: Vec::new(),
    };
    let mut reader = store.reader(&manifest);
    for file in &manifest.files {
        let mut content = reader.open(file);
        let read = loop {
            match content.next().await {
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        match read {
            Ok(()) => verified.bytes += file.bytes,
            Err(error) => {
                verified.ok = false;
                if verified.damaged.len() < TOLD {
                    verified.damaged.push(Damaged {
                        path: file.path.clone(),
                        error: error.to_string(),
                    });
                }
            }
        }
    }
    Ok(Some(verified))
}
