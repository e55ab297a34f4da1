//! The snapshots of one task in a store.
//!
//! Under `tasks/<task>/`: `segments/<sha256>` and `manifests/<snapshot>.json.zst`. A segment is named by what it holds,
//! so putting it twice is putting it once. A manifest is put after all its segments; before that the snapshot does not
//! exist.
//!
//! Reading checks everything: a segment against its name, a file against its checksum. A reader holds at most
//! [`KEPT`] segments in memory.

use std::collections::VecDeque;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::manifest::{
    self, File, MAX_SEGMENT, MAX_STORED, Manifest, ManifestError, Piece, Segment, SnapshotId,
};
use super::objects::{ObjectError, Objects, OpenError, Put};
use crate::config::Variables;
use crate::config::settings::Backup;

/// Uncompressed segments that a reader keeps: neighbouring files lie in the same ones.
const KEPT: usize = 2;
/// The end of a manifest's name.
const MANIFEST: &str = ".json.zst";

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error("snapshot {id}: {source}")]
    Manifest { id: String, source: ManifestError },
    #[error(transparent)]
    Task(ManifestError),
    #[error("the store did not answer within {} s", .0.as_secs())]
    Slow(std::time::Duration),
    #[error("there is a snapshot {0} already")]
    Exists(SnapshotId),
    #[error("segment {name} is damaged: {what}")]
    Segment { name: String, what: &'static str },
    #[error("{path:?} does not come out as it went in: its checksum differs")]
    Checksum { path: String },
    #[error("{path:?} has {bytes} bytes; at most {limit} are read at once")]
    TooLarge {
        path: String,
        bytes: u64,
        limit: u64,
    },
}

/// See the module's header. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Objects,
    task: String,
}

impl Store {
    /// The part of the store at that URL that is the task's.
    ///
    /// # Errors
    /// [`StoreError::Open`], [`StoreError::Task`].
    pub fn open(settings: &Backup, variables: &Variables, task: &str) -> Result<Self, StoreError> {
        Self::of(Objects::open(settings, variables)?, task)
    }

    /// The part of this place that is the task's.
    ///
    /// # Errors
    /// [`StoreError::Task`].
    pub fn of(objects: Objects, task: &str) -> Result<Self, StoreError> {
        manifest::check_task(task).map_err(StoreError::Task)?;
        Ok(Self {
            objects,
            task: task.to_owned(),
        })
    }

    #[must_use]
    pub fn task(&self) -> &str {
        &self.task
    }

    /// Puts a segment's stored bytes under the name that [`segment_name`] makes of them.
    ///
    /// # Errors
    /// [`StoreError::Object`].
    pub async fn put_segment(&self, name: &str, stored: Bytes) -> Result<Put, StoreError> {
        Ok(self.objects.put(&self.segment(name), stored).await?)
    }

    /// Lists the snapshot from now on. All its segments must have been put.
    ///
    /// # Errors
    /// [`StoreError::Exists`]; [`StoreError::Manifest`] for one that no reader would take.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<(), StoreError> {
        let whole = manifest.clone();
        let encoded = tokio::task::spawn_blocking(move || manifest::encode(&whole)).await;
        let encoded = encoded.unwrap_or(Err(ManifestError::Compression));
        let stored = encoded.map_err(|source| StoreError::Manifest {
            id: manifest.id.to_string(),
            source,
        })?;
        let name = self.manifest(&manifest.id);
        match self.objects.put(&name, stored.into()).await? {
            Put::Written => Ok(()),
            Put::Exists => Err(StoreError::Exists(manifest.id.clone())),
        }
    }

    /// Ids of the task's snapshots, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Object`].
    pub async fn list_manifests(&self) -> Result<Vec<SnapshotId>, StoreError> {
        let prefix = format!("tasks/{}/manifests", self.task);
        let listed = self.objects.list(&prefix).await?;
        let ids = listed.iter().filter_map(|object| {
            let (_, name) = object.name.rsplit_once('/')?;
            // What is not ours is left alone.
            name.strip_suffix(MANIFEST)?.parse().ok()
        });
        let mut ids: Vec<SnapshotId> = ids.collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// A snapshot, checked.
    ///
    /// # Errors
    /// [`StoreError::Object`], [`StoreError::Manifest`].
    pub async fn get_manifest(&self, id: &SnapshotId) -> Result<Manifest, StoreError> {
        let name = self.manifest(id);
        let stored = self.objects.get(&name, MAX_STORED as u64).await?;
        let wrong = |source| StoreError::Manifest {
            id: id.to_string(),
            source,
        };
        let decoded = tokio::task::spawn_blocking(move || manifest::decode(&stored)).await;
        let decoded = decoded.unwrap_or(Err(ManifestError::Compression));
        let manifest = decoded.map_err(wrong)?;
        for (what, found, wanted) in [
            ("task", manifest.task.as_str(), self.task.as_str()),
            ("snapshot", manifest.id.as_str(), id.as_str()),
        ] {
            if found != wanted {
                return Err(wrong(ManifestError::Stranger {
                    what,
                    found: found.to_owned(),
                    wanted: wanted.to_owned(),
                }));
            }
        }
        Ok(manifest)
    }

    /// The newest snapshot, if there is one.
    ///
    /// # Errors
    /// As [`Store::get_manifest`].
    pub async fn newest(&self) -> Result<Option<Manifest>, StoreError> {
        match self.list_manifests().await?.last() {
            Some(id) => self.get_manifest(id).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads files of a snapshot.
    #[must_use]
    pub fn reader<'a>(&'a self, manifest: &'a Manifest) -> Reader<'a> {
        Reader {
            store: self,
            manifest,
            kept: VecDeque::new(),
        }
    }

    /// A file's whole content, checked.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] above `limit` bytes, and as [`Reader::next`].
    pub async fn read_file(
        &self,
        manifest: &Manifest,
        file: &File,
        limit: u64,
    ) -> Result<Vec<u8>, StoreError> {
        self.reader(manifest).whole(file, limit).await
    }

    /// The uncompressed content of a segment, checked.
    ///
    /// # Errors
    /// [`StoreError::Object`], [`StoreError::Segment`].
    pub async fn get_segment(&self, segment: &Segment) -> Result<Bytes, StoreError> {
        let name = self.segment(&segment.name);
        let stored = self.objects.get(&name, MAX_SEGMENT).await?;
        let damaged = |what| StoreError::Segment {
            name: segment.name.clone(),
            what,
        };
        let (bytes, content_bytes, wanted) = (
            segment.bytes,
            segment.content_bytes.min(MAX_SEGMENT),
            segment.name.clone(),
        );
        let opened = tokio::task::spawn_blocking(move || {
            if stored.len() as u64 != bytes || segment_name(&stored) != wanted {
                return Err("what is stored is not what was put");
            }
            let room = usize::try_from(content_bytes).unwrap_or(0);
            let content = zstd::bulk::decompress(&stored, room)
                .map_err(|_| "its compressed content cannot be read")?;
            if content.len() as u64 == content_bytes {
                Ok(Bytes::from(content))
            } else {
                Err("its content has another size")
            }
        });
        let opened = opened.await.unwrap_or(Err("its content could not be read"));
        opened.map_err(damaged)
    }

    /// A segment as it is stored, unchecked: for putting it elsewhere.
    ///
    /// # Errors
    /// [`StoreError::Object`].
    pub async fn stored_segment(&self, name: &str) -> Result<Bytes, StoreError> {
        Ok(self.objects.get(&self.segment(name), MAX_SEGMENT).await?)
    }

    /// Whether a snapshot is listed.
    ///
    /// # Errors
    /// [`StoreError::Object`].
    pub async fn has_manifest(&self, id: &SnapshotId) -> Result<bool, StoreError> {
        Ok(self.objects.exists(&self.manifest(id)).await?)
    }

    /// Whether a segment is there.
    ///
    /// # Errors
    /// [`StoreError::Object`].
    pub async fn has_segment(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.objects.exists(&self.segment(name)).await?)
    }

    /// Removes all snapshots of the task, then their segments. The number of objects that were removed.
    ///
    /// # Errors
    /// [`StoreError::Object`]; what was removed until then is gone.
    pub async fn purge(&self) -> Result<usize, StoreError> {
        let ids = self.list_manifests().await?;
        for id in &ids {
            self.delete_manifest(id).await?;
        }
        let segments = self.list_segments().await?;
        for segment in &segments {
            self.delete_segment(&segment.name).await?;
        }
        Ok(ids.len() + segments.len())
    }

    /// Names and times of all segments of the task.
    ///
    /// # Errors
    /// [`StoreError::Object`].
    pub async fn list_segments(&self) -> Result<Vec<super::objects::Listed>, StoreError> {
        let prefix = format!("tasks/{}/segments", self.task);
        let mut listed = self.objects.list(&prefix).await?;
        for object in &mut listed {
            if let Some((_, name)) = object.name.rsplit_once('/') {
                object.name = name.to_owned();
            }
        }
        listed.retain(|object| manifest::is_sha256(&object.name));
        Ok(listed)
    }

    /// Removes a segment that no snapshot names any more.
    ///
    /// # Errors
    /// [`StoreError::Object`].
    pub async fn delete_segment(&self, name: &str) -> Result<(), StoreError> {
        Ok(self.objects.delete(&self.segment(name)).await?)
    }

    /// Removes a snapshot; its segments stay.
    ///
    /// # Errors
    /// [`StoreError::Object`].
    pub async fn delete_manifest(&self, id: &SnapshotId) -> Result<(), StoreError> {
        Ok(self.objects.delete(&self.manifest(id)).await?)
    }

    #[must_use]
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    #[cfg(test)]
    pub(super) fn watched(self, watch: super::objects::Watch) -> Self {
        Self {
            objects: self.objects.watched(watch),
            ..self
        }
    }

    fn segment(&self, name: &str) -> String {
        format!("tasks/{}/segments/{name}", self.task)
    }

    fn manifest(&self, id: &SnapshotId) -> String {
        format!("tasks/{}/manifests/{id}{MANIFEST}", self.task)
    }
}

/// Ids of the tasks that have something in this place, as far as the task `own` may know.
///
/// # Errors
/// [`StoreError::Object`].
pub async fn tasks(objects: &Objects, own: Option<&str>) -> Result<Vec<String>, StoreError> {
    let mut tasks = objects.tasks(own).await?;
    tasks.retain(|task| manifest::check_task(task).is_ok());
    tasks.sort_unstable();
    Ok(tasks)
}

/// The name of a segment with these stored bytes.
#[must_use]
pub fn segment_name(stored: &[u8]) -> String {
    hex(&Sha256::digest(stored))
}

pub(super) fn hex(digest: &[u8]) -> String {
    use std::fmt::Write as _;
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads files of one snapshot, one after the other.
#[derive(Debug)]
pub struct Reader<'a> {
    store: &'a Store,
    manifest: &'a Manifest,
    /// Index and content; the last used at the end.
    kept: VecDeque<(u32, Bytes)>,
}

impl<'a> Reader<'a> {
    /// Begins to read a file of the snapshot.
    pub fn open<'r>(&'r mut self, file: &'a File) -> Content<'r, 'a> {
        Content {
            reader: self,
            file,
            piece: 0,
            hash: Sha256::new(),
            ended: false,
        }
    }

    /// A file's whole content, checked.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] above `limit` bytes, and as [`Content::next`].
    pub async fn whole(&mut self, file: &'a File, limit: u64) -> Result<Vec<u8>, StoreError> {
        if file.bytes > limit {
            return Err(StoreError::TooLarge {
                path: file.path.clone(),
                bytes: file.bytes,
                limit,
            });
        }
        let mut whole = Vec::with_capacity(usize::try_from(file.bytes).unwrap_or(0));
        let mut content = self.open(file);
        while let Some(part) = content.next().await? {
            whole.extend_from_slice(&part);
        }
        Ok(whole)
    }

    /// The bytes of one piece of a file of the snapshot; the checksum is that of its segment. None: it has no such piece.
    ///
    /// # Errors
    /// [`StoreError::Segment`], [`StoreError::Checksum`], [`StoreError::Object`].
    pub async fn piece(&mut self, file: &File, number: usize) -> Result<Option<Bytes>, StoreError> {
        let Some(Piece(segment, offset, length)) = file.pieces.get(number).copied() else {
            return Ok(None);
        };
        let content = self.segment(segment).await?;
        let range = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(offset.saturating_add(length)).ok())
            .filter(|(begin, end)| begin <= end && *end <= content.len());
        let (begin, end) = range.ok_or_else(|| StoreError::Checksum {
            path: file.path.clone(),
        })?;
        Ok(Some(content.slice(begin..end)))
    }

    async fn segment(&mut self, index: u32) -> Result<Bytes, StoreError> {
        let found = self.kept.iter().position(|(kept, _)| *kept == index);
        let entry = match found.and_then(|position| self.kept.remove(position)) {
            Some(entry) => entry,
            None => {
                let segment = self.manifest.segments.get(index as usize);
                let segment = segment.ok_or_else(|| StoreError::Segment {
                    name: index.to_string(),
                    what: "the manifest does not name it",
                })?;
                (index, self.store.get_segment(segment).await?)
            }
        };
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        let content = entry.1.clone();
        self.kept.push_back(entry);
        Ok(content)
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct Content<'r, 'a> {
    reader: &'r mut Reader<'a>,
    file: &'a File,
    piece: usize,
    hash: Sha256,
    ended: bool,
}

impl Content<'_, '_> {
    /// The next part, at most a segment; none after the last, and only when the whole was right.
    ///
    /// # Errors
    /// [`StoreError::Segment`], [`StoreError::Checksum`], [`StoreError::Object`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        let Some(part) = self.reader.piece(self.file, self.piece).await? else {
            if !self.ended && hex(&self.hash.finalize_reset()) != self.file.sha256 {
                return Err(StoreError::Checksum {
                    path: self.file.path.clone(),
                });
            }
            self.ended = true;
            return Ok(None);
        };
        self.hash.update(&part);
        self.piece += 1;
        Ok(Some(part))
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
