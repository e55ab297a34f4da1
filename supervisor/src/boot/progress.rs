//! Which steps are done in this life of the keeper.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// See the module's header.
#[derive(Debug)]
pub(super) struct Progress {
    path: PathBuf,
    document: Document,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    /// The keeper's start on the boot clock, milliseconds: another one is another life of the container.
    started_ms: u64,
    done: BTreeSet<String>,
}

impl Progress {
    /// What is written down; nothing if it is of another life, missing or damaged: steps are safe to repeat.
    pub(super) fn read(state: &Path, started_ms: u64) -> Self {
        let path = state.join("boot.json");
        let read = || serde_json::from_slice::<Document>(&std::fs::read(&path).ok()?).ok();
        let document = read().filter(|document| document.started_ms == started_ms);
        let document = document.unwrap_or(Document {
            started_ms,
            done: BTreeSet::new(),
        });
        Self { path, document }
    }

    pub(super) fn is_done(&self, step: &str) -> bool {
        self.document.done.contains(step)
    }

    pub(super) fn done(&mut self, step: &str) {
        self.document.done.insert(step.to_owned());
        let written = serde_json::to_vec(&self.document)
            .map_err(std::io::Error::from)
            .and_then(|json| crate::files::write(&self.path, 0o600, &json));
        if let Err(error) = written {
            tracing::warn!(%error, step, "a supervisor after this one would repeat the step");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_remembered_for_one_life() {
        let directory = tempfile::tempdir().unwrap();
        let mut progress = Progress::read(directory.path(), 7);
        assert!(!progress.is_done("init"));
        progress.done("init");
        assert!(Progress::read(directory.path(), 7).is_done("init"));
        assert!(!Progress::read(directory.path(), 8).is_done("init"));
    }
}
