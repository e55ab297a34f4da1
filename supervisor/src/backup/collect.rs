//! What there is to save: which files, and their bytes.
//!
//! Files of the agents' home are listed and read by the helper, as the agents' user, and what it says is data: paths are
//! checked, symlinks are never followed below a root. Files under `/whim/state` are our own and read here. Bounds: the
//! helper's for a listing; what is beyond is said.

use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::index::{Key, is_plain};
use super::manifest::{Kind, Place};
use crate::helper::{EntryKind, Helper, HelperError, Stamp};
use crate::paths::Paths;

/// How a file is written, as far as it can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Records are appended, a line each.
    Lines,
    /// Replaced as a whole.
    Whole,
}

/// Where conversations and shell histories are below the home, for saving and for restoring. Sources: Claude Code
/// 2.1.197, Codex 0.169.0 (which moves what is archived), Copilot 1.0.102; what resuming needs is among it.
pub const HOME: &[(&str, Kind, Option<&str>)] = &[
    (".claude/projects", Kind::Conversation, Some("claude")),
    (".claude/todos", Kind::Conversation, Some("claude")),
    (".codex/sessions", Kind::Conversation, Some("codex")),
    (
        ".codex/archived_sessions",
        Kind::Conversation,
        Some("codex"),
    ),
    (
        ".copilot/session-state",
        Kind::Conversation,
        Some("copilot"),
    ),
    (".local/state/whim/history", Kind::Shell, None),
];
/// Larger files that are replaced as a whole are nobody's transcripts.
pub const MAX_WHOLE: u64 = 32 * 1024 * 1024;
/// Larger ones that grow are neither: the largest transcripts that people have have some hundred MiB.
pub const MAX_LINES: u64 = 2 * 1024 * 1024 * 1024;

/// A file that was found.
#[derive(Clone, Debug)]
pub struct Found {
    pub key: Key,
    pub kind: Kind,
    pub agent: Option<&'static str>,
    pub mode: u32,
    pub shape: Shape,
    pub stamp: Stamp,
    /// Not a symlink, a device or the like.
    pub regular: bool,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Listing {
    pub files: Vec<Found>,
    /// Directories whose changes matter, those that change often last.
    pub directories: Vec<PathBuf>,
    /// Roots of which not everything is listed.
    pub cut: Vec<String>,
}

/// Why a listing or a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error(transparent)]
    Helper(#[from] HelperError),
    #[error("{}: {source}", path.display())]
    Own { path: PathBuf, source: io::Error },
    #[error("a reader of files ended early")]
    Task,
}

impl CollectError {
    /// The file itself is the trouble, and not that there was nobody to read it.
    #[must_use]
    pub fn is_of_the_file(&self) -> bool {
        match self {
            Self::Helper(HelperError::Io { source, .. }) | Self::Own { source, .. } => {
                let code = source.raw_os_error();
                let passing = [
                    nix::errno::Errno::EIO,
                    nix::errno::Errno::EMFILE,
                    nix::errno::Errno::ENOMEM,
                ];
                code.is_some_and(|code| !passing.iter().any(|errno| *errno as i32 == code))
            }
            Self::Helper(_) | Self::Task => false,
        }
    }
}

/// Lists and reads.
#[derive(Clone, Debug)]
pub struct Collector {
    /// None: the home's files are read here, too; in tests only.
    helper: Option<Helper>,
    home: PathBuf,
    state: PathBuf,
    recordings: bool,
}

impl Collector {
    #[must_use]
    pub fn new(helper: Option<Helper>, paths: &Paths, recordings: bool) -> Self {
        Self {
            helper,
            home: paths.home().to_owned(),
            state: paths.state(),
            recordings,
        }
    }

    /// Paths of the home's roots and of what is above them up to the home: where something can appear.
    #[must_use]
    pub fn expected(&self) -> Vec<PathBuf> {
        HOME.iter().map(|(root, ..)| self.home.join(root)).collect()
    }

    /// Everything there is to save now.
    ///
    /// # Errors
    /// [`CollectError`] when nobody could look; what cannot be looked at is not there.
    pub async fn list(&self) -> Result<Listing, CollectError> {
        let mut listing = Listing::default();
        for (root, kind, agent) in HOME {
            let path = self.home.join(root);
            let tree = match &self.helper {
                Some(helper) => helper.tree(&path).await,
                None => without_helper(&path),
            };
            let tree = match tree {
                Ok(tree) => tree,
                // Nothing of this agent's was ever there. Anything else must not make its files look gone.
                Err(error) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            if tree.cut {
                listing.cut.push((*root).to_owned());
            }
            for leaf in tree.leaves {
                let below = format!("{root}/{}", leaf.name);
                if !is_plain(&below) {
                    continue;
                }
                listing.files.push(Found {
                    shape: shape(&below, *kind),
                    key: Key {
                        place: Place::Home,
                        path: below,
                    },
                    kind: *kind,
                    agent: *agent,
                    mode: leaf.mode,
                    stamp: leaf.stamp,
                    regular: leaf.kind == EntryKind::File,
                });
            }
            let directories = tree.directories.into_iter();
            listing
                .directories
                .extend(directories.map(|below| path.join(below)));
        }
        let (state, recordings) = (self.state.clone(), self.recordings);
        let own = tokio::task::spawn_blocking(move || own(&state, recordings)).await;
        listing.files.extend(own.map_err(|_| CollectError::Task)??);
        Ok(listing)
    }

    /// At most `limit` bytes of a file from `offset`, and its stamp from before they were read.
    ///
    /// # Errors
    /// [`CollectError`].
    pub async fn read(
        &self,
        key: &Key,
        offset: u64,
        limit: usize,
    ) -> Result<(Vec<u8>, Stamp), CollectError> {
        match (&self.helper, key.place) {
            (Some(helper), Place::Home) => {
                let path = self.home.join(&key.path);
                Ok(helper.read_plain(&path, offset, limit).await?)
            }
            (_, place) => {
                let base = if place == Place::Home {
                    &self.home
                } else {
                    &self.state
                };
                let path = base.join(&key.path);
                let read = tokio::task::spawn_blocking(move || {
                    read_own(&path, offset, limit)
                        .map_err(|source| CollectError::Own { path, source })
                });
                read.await.map_err(|_| CollectError::Task)?
            }
        }
    }
}

#[cfg(test)]
fn without_helper(path: &Path) -> Result<crate::helper::Tree, HelperError> {
    crate::helper::walk(path).map_err(|source| HelperError::Io {
        action: "list",
        path: path.to_owned(),
        source,
    })
}

#[cfg(not(test))]
fn without_helper(path: &Path) -> Result<crate::helper::Tree, HelperError> {
    Err(HelperError::Died {
        action: "list",
        path: path.to_owned(),
    })
}

pub(super) fn shape(path: &str, kind: Kind) -> Shape {
    let lines = [".jsonl", ".cast"].iter().any(|end| path.ends_with(end));
    if lines || kind == Kind::Shell {
        Shape::Lines
    } else {
        Shape::Whole
    }
}

/// Whether a file right below the state directory is of the ledger.
#[must_use]
pub fn is_ledger(name: &str) -> bool {
    name == "generations.totals.json"
        || (name.starts_with("generations") && name.ends_with(".jsonl") && !name.contains('/'))
}

/// Our own files: the ledger, the journal, and recordings if they are asked for.
fn own(state: &Path, recordings: bool) -> Result<Vec<Found>, CollectError> {
    let mut found = Vec::new();
    let mut look = |below: &str, kind: Kind, wanted: &dyn Fn(&str) -> bool| {
        let directory = state.join(below);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                return Err(CollectError::Own {
                    path: directory,
                    source,
                });
            }
        };
        for entry in entries.flatten() {
            let (Ok(name), Ok(metadata)) = (entry.file_name().into_string(), entry.metadata())
            else {
                continue;
            };
            if !metadata.is_file() || !wanted(&name) {
                continue;
            }
            let path = if below.is_empty() {
                name
            } else {
                format!("{below}/{name}")
            };
            found.push(Found {
                shape: shape(&path, kind),
                key: Key {
                    place: Place::State,
                    path,
                },
                kind,
                agent: None,
                mode: metadata.mode() & 0o777,
                stamp: stamp(&metadata),
                regular: true,
            });
        }
        Ok(())
    };
    look("", Kind::Ledger, &is_ledger)?;
    look("journal", Kind::Journal, &|name| name.ends_with(".jsonl"))?;
    if recordings {
        look("terminals", Kind::Recording, &|name| {
            name.ends_with(".cast")
        })?;
    }
    Ok(found)
}

fn read_own(path: &Path, offset: u64, limit: usize) -> io::Result<(Vec<u8>, Stamp)> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    let stamp = stamp(&file.metadata()?);
    let left = usize::try_from(stamp.size.saturating_sub(offset)).unwrap_or(usize::MAX);
    // One byte more, so that what was appended since is seen to be there.
    let mut content = vec![0; limit.min(left.saturating_add(1))];
    let mut filled = 0;
    while let Some(room) = content.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    content.truncate(filled);
    Ok((content, stamp))
}

fn stamp(metadata: &std::fs::Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
    }
}
