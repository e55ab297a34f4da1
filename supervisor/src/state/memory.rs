//! The last word about every session, for the supervisor that comes next.
//!
//! A file in a directory that only the supervisor can write (`/run/whim`), replaced as a whole. It needs no stable
//! storage: with the container the agents end, too. A file that is missing or damaged means that nothing is known; then
//! the sources say what they can.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use whim_wire::state::AgentState;

use super::fusion::Remembered;

/// Largest file that is read, bytes.
const MAX_BYTES: u64 = 1024 * 1024;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The container's state.
    pub state: Option<AgentState>,
    /// By session.
    pub sessions: BTreeMap<String, Remembered>,
}

/// Why the last word could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("{path} has no directory to be written in")]
    Place { path: PathBuf },
    #[error("cannot create a temporary file for {path}")]
    Create {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot write the new {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot rename the new {path} into place")]
    Rename {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is damaged")]
    Damaged {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl Memory {
    /// Replaces the file.
    ///
    /// # Errors
    /// The step that failed; the file then has its old content.
    pub fn save(&self, path: &Path) -> Result<(), MemoryError> {
        let named = || path.to_path_buf();
        let directory = path
            .parent()
            .ok_or_else(|| MemoryError::Place { path: named() })?;
        let mut file = NamedTempFile::new_in(directory).map_err(|source| MemoryError::Create {
            path: named(),
            source,
        })?;
        let content = serde_json::to_vec(self).map_err(|source| MemoryError::Write {
            path: named(),
            source: source.into(),
        })?;
        file.write_all(&content)
            .map_err(|source| MemoryError::Write {
                path: named(),
                source,
            })?;
        file.persist(path).map_err(|error| MemoryError::Rename {
            path: named(),
            source: error.error,
        })?;
        Ok(())
    }

    /// What an earlier supervisor kept; nothing if there was none.
    ///
    /// # Errors
    /// When there is a file that cannot be read or understood.
    pub fn load(path: &Path) -> Result<Self, MemoryError> {
        let failed = |source| MemoryError::Read {
            path: path.to_path_buf(),
            source,
        };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(failed(error)),
        };
        let mut content = Vec::new();
        file.take(MAX_BYTES)
            .read_to_end(&mut content)
            .map_err(failed)?;
        serde_json::from_slice(&content).map_err(|source| MemoryError::Damaged {
            path: path.to_path_buf(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last.json");
        assert_eq!(Memory::load(&path).unwrap(), Memory::default());
        let word = Remembered {
            state: AgentState::NeedsInput,
            reason: "asks".into(),
            dialog: None,
        };
        let memory = Memory {
            state: Some(AgentState::Working),
            sessions: BTreeMap::from([("main".into(), word)]),
        };
        memory.save(&path).unwrap();
        assert_eq!(Memory::load(&path).unwrap(), memory);
        std::fs::write(&path, "{").unwrap();
        assert!(matches!(
            Memory::load(&path),
            Err(MemoryError::Damaged { .. })
        ));
        memory.save(&path).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
