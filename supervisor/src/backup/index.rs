//! What of each file is saved, and where: the local memory by which only new bytes are read.
//!
//! On disk as `index.json.zst` under `/whim/state/backup`, replaced after every backup that is durable. It is a cache of
//! the newest snapshot and of what the files looked like: one that is lost or old is made from that snapshot, and then
//! the files are read and compared once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::code::Code;
use super::draft::bundle;
use super::hash::Running;
use super::manifest::{self, File, Kind, Manifest, Piece, Place, Segment, SnapshotId};
use crate::helper::Stamp;

/// Version of the file.
const VERSION: u32 = 1;
/// Largest index, uncompressed.
const LIMIT: u64 = 512 * 1024 * 1024;
/// What a damaged copy is called beside the good one.
const DAMAGED: &str = ".damaged";

/// Which file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    pub place: Place,
    pub path: String,
}

/// A file that is saved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub kind: Kind,
    pub agent: Option<String>,
    pub mode: u32,
    /// The last good one.
    pub good: Copy,
    /// What became of it, if that must not replace the good one.
    pub damaged: Option<Copy>,
    /// Size of the file when the damaged copy was last compared with the good one.
    #[serde(default)]
    pub compared: u64,
    /// What is wrong with the file, as it was told.
    pub trouble: Option<String>,
}

/// Saved content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Copy {
    /// The file as it was when this was the whole of it; none: it was never looked at from here.
    pub seen: Option<Stamp>,
    /// For going on; none: only the digest is known.
    pub hash: Option<Running>,
    /// Hexadecimal SHA-256 of the content as it is saved.
    pub sha256: String,
    pub bytes: u64,
    /// Hexadecimal SHA-256 of the file's bytes right before [`Copy::bytes`], at most [`TAIL`] of them.
    pub tail: Option<String>,
    pub pieces: Vec<Held>,
}

/// Bytes before the end of what is saved that are looked at to see whether a file only grew.
pub const TAIL: u64 = 4096;

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub segment: Segment,
    pub offset: u64,
    pub length: u64,
}

impl Entry {
    /// What the file at the path is compared with.
    #[must_use]
    pub fn live(&self) -> &Copy {
        self.damaged.as_ref().unwrap_or(&self.good)
    }

    /// This container had the file itself; else it is what another one left.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.live().seen.is_some() || self.live().hash.is_some()
    }
}

/// See the module's header.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Eight hexadecimal digits that tell this container's snapshots and segments from others'.
    pub container: String,
    /// The newest snapshot that is known to have been put, here or in the spool.
    pub newest: Option<SnapshotId>,
    pub files: BTreeMap<Key, Entry>,
    /// The work tree of the newest snapshot; its bundle is among the files.
    pub code: Option<Box<Code>>,
    /// What other containers of the task saved is in it, or there was nothing. Until then a snapshot of this container's
    /// holds less than the store does.
    pub adopted: bool,
}

/// [`Saved`], as it is written.
#[derive(Serialize)]
struct Saving<'a> {
    version: u32,
    container: &'a str,
    newest: Option<&'a SnapshotId>,
    files: Vec<(&'a Key, &'a Entry)>,
    code: Option<&'a Code>,
    adopted: bool,
}

#[derive(Deserialize)]
struct Saved {
    version: u32,
    container: String,
    newest: Option<SnapshotId>,
    files: Vec<(Key, Entry)>,
    #[serde(default)]
    code: Option<Box<Code>>,
    #[serde(default)]
    adopted: bool,
}

impl Index {
    /// Nothing is saved yet.
    #[must_use]
    pub fn new(container: String) -> Self {
        Self {
            container,
            newest: None,
            files: BTreeMap::new(),
            code: None,
            adopted: false,
        }
    }

    /// Reads the index; none when there is none that can be used.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        use std::io::Read as _;
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut json = Vec::new();
        zstd::stream::read::Decoder::new(file)?
            .take(LIMIT)
            .read_to_end(&mut json)?;
        let saved: Saved = serde_json::from_slice(&json)?;
        Ok((saved.version == VERSION).then(|| Self {
            container: saved.container,
            newest: saved.newest,
            files: saved.files.into_iter().collect(),
            code: saved.code,
            adopted: saved.adopted,
        }))
    }

    /// Replaces the index on disk.
    ///
    /// # Errors
    /// Those of the disk; the old one is then as it was.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let saved = Saving {
            version: VERSION,
            container: &self.container,
            newest: self.newest.as_ref(),
            files: self.files.iter().collect(),
            code: self.code.as_deref(),
            adopted: self.adopted,
        };
        let json = serde_json::to_vec(&saved)?;
        crate::files::write(path, 0o600, &zstd::bulk::compress(&json, 1)?)
    }

    /// What is saved according to a snapshot.
    #[must_use]
    pub fn adopt(container: String, manifest: &Manifest) -> Self {
        let mut index = Self::new(container);
        index.newest = Some(manifest.id.clone());
        let copy = |file: &File| Copy {
            sha256: file.sha256.clone(),
            bytes: file.bytes,
            pieces: file
                .pieces
                .iter()
                .filter_map(|Piece(segment, offset, length)| {
                    Some(Held {
                        segment: manifest.segments.get(*segment as usize)?.clone(),
                        offset: *offset,
                        length: *length,
                    })
                })
                .collect(),
            ..Copy::default()
        };
        let code: Option<Code> = manifest.code.clone().and_then(|code| {
            let code: Code = serde_json::from_value(code).ok()?;
            code.check().ok().map(|()| code)
        });
        let of_code = |file: &File| {
            let Key { place, path } = bundle::key();
            code.is_some() && file.place == place && file.path == path
        };
        let good = manifest.files.iter();
        for file in good.filter(|file| {
            file.damaged_copy_of.is_none() && (file.kind != Kind::Code || of_code(file))
        }) {
            let key = Key {
                place: file.place,
                path: file.path.clone(),
            };
            let entry = Entry {
                kind: file.kind,
                agent: file.agent.clone(),
                mode: file.mode,
                good: copy(file),
                damaged: None,
                compared: 0,
                trouble: None,
            };
            index.files.insert(key, entry);
        }
        for file in &manifest.files {
            if let Some(original) = &file.damaged_copy_of
                && let Some(entry) = index.files.get_mut(&Key {
                    place: file.place,
                    path: original.clone(),
                })
            {
                entry.damaged = Some(copy(file));
            }
        }
        index.code = code
            .filter(|_| index.files.contains_key(&bundle::key()))
            .map(Box::new);
        index
    }

    /// Files and segments as a manifest names them.
    #[must_use]
    pub fn files(&self) -> (Vec<Segment>, Vec<File>) {
        let mut segments = Segments::default();
        let mut files = Vec::with_capacity(self.files.len());
        // A directory may have come where a file was that is gone.
        let directories: HashSet<(Place, &str)> = self
            .files
            .keys()
            .flat_map(|key| above(&key.path).map(|above| (key.place, above)))
            .collect();
        for (key, entry) in &self.files {
            let path = if directories.contains(&(key.place, key.path.as_str())) {
                self.beside(key)
            } else {
                key.path.clone()
            };
            files.push(file(path, key, entry, &entry.good, None, &mut segments));
            if let Some(damaged) = &entry.damaged {
                let of = Some(key.path.clone());
                files.push(file(
                    self.beside(key),
                    key,
                    entry,
                    damaged,
                    of,
                    &mut segments,
                ));
            }
        }
        (segments.list, files)
    }

    /// A free name beside the file.
    fn beside(&self, key: &Key) -> String {
        let taken = |path: &String| {
            let place = key.place;
            let path = path.clone();
            self.files.contains_key(&Key { place, path })
        };
        let mut path = format!("{}{DAMAGED}", key.path);
        while taken(&path) {
            path.push_str(DAMAGED);
        }
        path
    }

    /// Forgets what is said to be in the store: it is not there any more.
    pub fn forget_stored(&mut self) {
        self.newest = None;
        self.files.clear();
        self.code = None;
    }
}

/// The directories that a path is in.
fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at))
}

fn file(
    path: String,
    key: &Key,
    entry: &Entry,
    copy: &Copy,
    damaged_copy_of: Option<String>,
    segments: &mut Segments,
) -> File {
    let pieces = copy.pieces.iter().map(|held| {
        let index = segments.index(&held.segment);
        Piece(index, held.offset, held.length)
    });
    File {
        place: key.place,
        path,
        kind: entry.kind,
        agent: entry.agent.clone(),
        mode: entry.mode & 0o777,
        bytes: copy.bytes,
        sha256: copy.sha256.clone(),
        pieces: pieces.collect(),
        damaged_copy_of,
    }
}

/// The segments that are named, each once.
#[derive(Debug, Default)]
pub struct Segments {
    list: Vec<Segment>,
    known: HashMap<String, u32>,
}

impl Segments {
    /// Number of a segment in the manifest's list.
    pub fn index(&mut self, segment: &Segment) -> u32 {
        if let Some(index) = self.known.get(&segment.name) {
            return *index;
        }
        let index = u32::try_from(self.list.len()).unwrap_or(u32::MAX);
        self.list.push(segment.clone());
        self.known.insert(segment.name.clone(), index);
        index
    }
}

/// Whether a path that somebody told can be a file of a place.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    manifest::check_path(path).is_ok()
}
