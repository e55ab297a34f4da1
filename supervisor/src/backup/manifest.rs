//! What one snapshot is: which files there were, and where in the store their bytes lie. Pure.
//!
//! A snapshot is a manifest and the segments it names. Segments hold the bytes of many files, compressed, and are named
//! by the SHA-256 of what is stored; a file is a list of pieces of them. The manifest is written last and whole, so that
//! a snapshot is either listed and complete, or not there.
//!
//! [`decode`] trusts nothing: a store is shared, and what it holds may have been changed. A manifest is taken only when
//! every path in it stays inside its place, every piece inside its segment, and every size below its bound.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use whim_wire::time::Time;

/// Version of the format that is written. Readers take no other.
pub const VERSION: u32 = 1;
/// Largest manifest as it is stored.
pub const MAX_STORED: usize = 16 * 1024 * 1024;
/// Largest manifest as JSON.
pub const MAX_JSON: usize = 128 * 1024 * 1024;
/// Most files of a snapshot.
pub const MAX_FILES: usize = 50_000;
/// Most pieces of all files of a snapshot together.
pub const MAX_PIECES: usize = 500_000;
/// Most segments that one snapshot names.
pub const MAX_SEGMENTS: usize = 200_000;
/// Most bytes of a segment, before it is compressed and as it is stored: a reader holds one of them in memory.
pub const MAX_SEGMENT: u64 = 16 * 1024 * 1024;
/// Longest path, bytes (PATH_MAX).
const MAX_PATH: usize = 4096;
/// Longest name in a path, bytes (NAME_MAX).
const MAX_NAME: usize = 255;
/// Compression of a manifest: it is small and read often.
const LEVEL: i32 = 6;

/// Why a manifest is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ManifestError {
    #[error("the manifest is no zstd stream of at most {MAX_JSON} bytes")]
    Compression,
    #[error("the manifest is no such JSON: {0}")]
    Json(String),
    #[error("the manifest has version {0}; this whim reads version {VERSION}")]
    Version(u32),
    #[error("{0:?} is no id of a snapshot")]
    Id(String),
    #[error("{0:?} is no id of a task")]
    Task(String),
    #[error("the manifest is of {what} {found:?}, not {wanted:?}")]
    Stranger {
        what: &'static str,
        found: String,
        wanted: String,
    },
    #[error("the manifest has more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error("segment {0:?}: no SHA-256, or its sizes are out of bounds")]
    Segment(String),
    #[error("{path:?} leads outside its place, or is no plain relative path")]
    Path { path: String },
    #[error("{path:?} is in the manifest twice, or is a directory of another file")]
    Twice { path: String },
    #[error("{path:?}: piece {piece} lies outside its segment, overlaps another, or is empty")]
    Piece { path: String, piece: usize },
    #[error("{path:?}: its pieces make {pieces} bytes, not {bytes}")]
    Length {
        path: String,
        pieces: u64,
        bytes: u64,
    },
    #[error("{path:?}: its checksum is no SHA-256")]
    Checksum { path: String },
    #[error("{path:?}: its mode has more than permission bits")]
    Mode { path: String },
    #[error("the code's bundle {path:?} is not among the files")]
    Bundle { path: String },
}

/// Id of a snapshot: time to the millisecond, then what tells containers apart. Ids sort as their snapshots were taken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(String);

impl SnapshotId {
    /// The id of a snapshot taken at `at` by the container with these 8 hexadecimal digits, above `newest` even when the
    /// clock was set back since.
    #[must_use]
    pub fn after(newest: Option<&Self>, at: Time, container: &str) -> Self {
        let newest = newest.map_or(i64::MIN, Self::milliseconds);
        let at = at.as_millisecond().max(newest.saturating_add(1));
        let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX);
        Self(format!("{}-{container}", at.strftime("%Y%m%dT%H%M%S.%3fZ")))
    }

    /// The time in it, milliseconds since the epoch.
    #[must_use]
    pub fn milliseconds(&self) -> i64 {
        parse_time(&self.0).unwrap_or(i64::MIN)
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn parse_time(id: &str) -> Option<i64> {
    let (time, container) = id.split_once('-')?;
    let plain = time.len() == 20 && container.len() == 8;
    if !plain || !container.bytes().all(is_hex) {
        return None;
    }
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S.%fZ", time).ok()?;
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(zoned.timestamp().as_millisecond())
}

impl FromStr for SnapshotId {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        match parse_time(text) {
            Some(_) => Ok(Self(text.to_owned())),
            None => Err(ManifestError::Id(shown(text))),
        }
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = ManifestError;

    fn try_from(text: String) -> Result<Self, ManifestError> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.0
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One snapshot of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    /// Id of the task.
    pub task: String,
    pub id: SnapshotId,
    /// The wall clock's time, which may have jumped; the order is the ids'.
    pub taken_at: Time,
    /// What it was taken for: `interval`, `now`, `turn_end`, `idle`, `quiesce`, `stop`.
    pub reason: String,
    /// Version of the whim that took it.
    pub whim: String,
    pub places: Places,
    #[serde(default)]
    pub sessions: Vec<Session>,
    pub segments: Vec<Segment>,
    pub files: Vec<File>,
    /// The work tree, if it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
}

/// Where the places were in the container of the snapshot; for translating, never for writing to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    pub home: String,
    pub checkout: String,
    pub state: String,
}

/// A session as it was known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: String,
    /// `claude`, `codex`, `ccr`, `copilot`, `custom`.
    pub agent: String,
    /// The agent's own id of its session, once it has one.
    pub agent_session_id: Option<String>,
    pub cwd: String,
    /// Path of its transcript under the home, as in [`File::path`].
    pub transcript: Option<String>,
}

/// Stored bytes that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// SHA-256 of the stored bytes, hexadecimal; the object's name.
    pub name: String,
    /// Stored bytes.
    pub bytes: u64,
    /// Bytes once uncompressed.
    pub content_bytes: u64,
}

/// What a file's path starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The agents' home.
    Home,
    /// `/whim/state`.
    State,
    /// Nowhere: made for the snapshot (the bundle of the code).
    Code,
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Conversation,
    Shell,
    Ledger,
    Journal,
    Recording,
    Code,
}

/// A file and where its bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    pub place: Place,
    /// Relative to the place.
    pub path: String,
    pub kind: Kind,
    /// Whose conversation it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Permission bits.
    pub mode: u32,
    pub bytes: u64,
    /// SHA-256 of the whole content, hexadecimal.
    pub sha256: String,
    pub pieces: Vec<Piece>,
    /// This is what became of the file at that path; the file there is the last good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged_copy_of: Option<String>,
}

/// `length` bytes of a segment's content from `offset`. As JSON: `[segment, offset, length]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece(
    /// Index into [`Manifest::segments`].
    pub u32,
    /// Offset in the uncompressed content.
    pub u64,
    /// Bytes.
    pub u64,
);

/// The state of the work tree, as the code snapshot describes it.
pub type Code = serde_json::Value;

/// The manifest as it is stored.
///
/// # Errors
/// [`ManifestError`]: what would not be read again is not written.
pub fn encode(manifest: &Manifest) -> Result<Vec<u8>, ManifestError> {
    check(manifest)?;
    let json = serde_json::to_vec(manifest).map_err(|error| json_error(&error))?;
    let stored = zstd::bulk::compress(&json, LEVEL).map_err(|_| ManifestError::Compression)?;
    if json.len() > MAX_JSON || stored.len() > MAX_STORED {
        return Err(ManifestError::Compression);
    }
    Ok(stored)
}

/// Reads a stored manifest and checks it.
///
/// # Errors
/// [`ManifestError`].
pub fn decode(stored: &[u8]) -> Result<Manifest, ManifestError> {
    use std::io::Read as _;
    let stream =
        zstd::stream::read::Decoder::new(stored).map_err(|_| ManifestError::Compression)?;
    let mut json = Vec::new();
    // One byte more than allowed tells too long from just long enough.
    let read = stream.take(MAX_JSON as u64 + 1).read_to_end(&mut json);
    if read.is_err() || json.len() > MAX_JSON || stored.len() > MAX_STORED {
        return Err(ManifestError::Compression);
    }
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    // First alone: the fields of another version may be others.
    let Version { version } = serde_json::from_slice(&json).map_err(|error| json_error(&error))?;
    if version != VERSION {
        return Err(ManifestError::Version(version));
    }
    let manifest = serde_json::from_slice(&json).map_err(|error| json_error(&error))?;
    check(&manifest)?;
    Ok(manifest)
}

fn json_error(error: &serde_json::Error) -> ManifestError {
    ManifestError::Json(shown(&error.to_string()))
}

/// Whether this can name a task in a store.
///
/// # Errors
/// [`ManifestError::Task`].
pub fn check_task(task: &str) -> Result<(), ManifestError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good =
        !task.is_empty() && task.len() <= 128 && task.bytes().all(plain) && !task.starts_with('.');
    good.then_some(())
        .ok_or_else(|| ManifestError::Task(shown(task)))
}

fn check(manifest: &Manifest) -> Result<(), ManifestError> {
    if manifest.version != VERSION {
        return Err(ManifestError::Version(manifest.version));
    }
    check_task(&manifest.task)?;
    let pieces = manifest.files.iter().map(|file| file.pieces.len()).sum();
    for (what, number, limit) in [
        ("files", manifest.files.len(), MAX_FILES),
        ("segments", manifest.segments.len(), MAX_SEGMENTS),
        ("pieces", pieces, MAX_PIECES),
    ] {
        if number > limit {
            return Err(ManifestError::TooMany { what, limit });
        }
    }
    for segment in &manifest.segments {
        let sizes = [segment.bytes, segment.content_bytes];
        if !is_sha256(&segment.name) || sizes.iter().any(|size| *size > MAX_SEGMENT) {
            return Err(ManifestError::Segment(shown(&segment.name)));
        }
    }
    let mut seen = HashSet::new();
    for file in &manifest.files {
        check_file(file, &manifest.segments)?;
        if !seen.insert((file.place, file.path.as_str())) {
            return Err(twice(file));
        }
    }
    for file in &manifest.files {
        let mut above = file.path.as_str();
        while let Some((directory, _)) = above.rsplit_once('/') {
            if seen.contains(&(file.place, directory)) {
                return Err(twice(file));
            }
            above = directory;
        }
    }
    for session in &manifest.sessions {
        if let Some(path) = &session.transcript {
            check_path(path)?;
        }
    }
    Ok(())
}

fn twice(file: &File) -> ManifestError {
    ManifestError::Twice {
        path: shown(&file.path),
    }
}

fn check_file(file: &File, segments: &[Segment]) -> Result<(), ManifestError> {
    check_path(&file.path)?;
    let path = || shown(&file.path);
    if let Some(original) = &file.damaged_copy_of {
        check_path(original)?;
    }
    if !is_sha256(&file.sha256) {
        return Err(ManifestError::Checksum { path: path() });
    }
    if file.mode > 0o777 {
        return Err(ManifestError::Mode { path: path() });
    }
    let mut total = 0_u64;
    let mut taken: Vec<(u32, u64, u64)> = Vec::with_capacity(file.pieces.len());
    for (number, Piece(segment, offset, length)) in file.pieces.iter().copied().enumerate() {
        let outside = || ManifestError::Piece {
            path: path(),
            piece: number,
        };
        let within = segments
            .get(segment as usize)
            .ok_or_else(outside)?
            .content_bytes;
        let end = offset.checked_add(length).ok_or_else(outside)?;
        if length == 0 || end > within {
            return Err(outside());
        }
        total = total.checked_add(length).ok_or_else(outside)?;
        taken.push((segment, offset, end));
    }
    taken.sort_unstable();
    for (number, pair) in taken.windows(2).enumerate() {
        if let [(first, _, end), (second, begin, _)] = pair
            && first == second
            && begin < end
        {
            return Err(ManifestError::Piece {
                path: path(),
                piece: number,
            });
        }
    }
    if total != file.bytes {
        return Err(ManifestError::Length {
            path: path(),
            pieces: total,
            bytes: file.bytes,
        });
    }
    Ok(())
}

/// Whether this is a plain relative path that stays where it starts.
///
/// # Errors
/// [`ManifestError::Path`].
pub fn check_path(path: &str) -> Result<(), ManifestError> {
    let plain = |name: &str| {
        !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && !name.contains('\0')
    };
    let good = path.len() <= MAX_PATH && path.split('/').all(plain);
    good.then_some(())
        .ok_or_else(|| ManifestError::Path { path: shown(path) })
}

pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(is_hex)
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// What of a foreign text stands in a message.
fn shown(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
