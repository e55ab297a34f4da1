//! What whim itself brought into files that others write, too: so that a reload, and the next life of the container, take
//! back nothing else.
//!
//! Fingerprints by file (see [`Share`](crate::agents::edit::Share)), in one small file under the state directory, noted
//! before the file is written: a crash between leaves a note too many, and what it names is still taken out only if it
//! stands there exactly as we would have written it. At the bound ([`MOST`]) nothing more is noted, so it stays for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Fingerprints in all: a hundred skills of 50 files, and settings beside them.
const MOST: usize = 20_000;
/// Largest file: a fingerprint takes 70 bytes.
const LIMIT: u64 = 8 * 1024 * 1024;

type Known = BTreeMap<PathBuf, BTreeSet<String>>;

/// See the module's header.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
    known: Mutex<Known>,
}

impl Written {
    /// Goes on where an earlier supervisor stopped. What cannot be read counts as nothing: then nothing is taken out.
    #[must_use]
    pub fn open(path: PathBuf) -> Self {
        let read = || -> io::Result<Known> {
            if std::fs::metadata(&path)?.len() > LIMIT {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(serde_json::from_slice(&std::fs::read(&path)?)?)
        };
        let known = read().unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(path = %path.display(), %error, "what was written into the agents' files is not known");
            }
            Known::new()
        });
        Self {
            path,
            known: Mutex::new(known),
        }
    }

    /// These are about to be written into `file`.
    pub fn note(&self, file: &Path, new: Vec<String>) {
        let mut known = self.lock();
        let count: usize = known.values().map(BTreeSet::len).sum();
        if new.is_empty() {
            return;
        }
        if count + new.len() > MOST {
            tracing::warn!(file = %file.display(), "too much was written to remember all of it: this will stay");
            return;
        }
        known.entry(file.to_owned()).or_default().extend(new);
        self.save(&known);
    }

    /// Files that something of ours is in.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.lock().keys().cloned().collect()
    }

    /// What of `file` is ours.
    #[must_use]
    pub fn of(&self, file: &Path) -> BTreeSet<String> {
        self.lock().get(file).cloned().unwrap_or_default()
    }

    /// These are not in `file` any more, or not ours.
    pub fn forget<'a>(&self, file: &Path, gone: impl Iterator<Item = &'a String>) {
        let mut known = self.lock();
        let Some(prints) = known.get_mut(file) else {
            return;
        };
        for print in gone {
            prints.remove(print);
        }
        if prints.is_empty() {
            known.remove(file);
        }
        self.save(&known);
    }

    fn save(&self, known: &Known) {
        let written = serde_json::to_vec(known)
            .map_err(io::Error::other)
            .and_then(|bytes| crate::files::write(&self.path, 0o600, &bytes));
        if let Err(error) = written {
            tracing::error!(%error, "what was written into the agents' files is not remembered");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_outlives_its_supervisor() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("written.json");
        let file = Path::new("/home/node/.mcp.json");
        let written = Written::open(path.clone());
        written.note(file, vec!["a".into(), "b".into()]);
        written.note(Path::new("/other"), vec!["a".into()]);
        let again = Written::open(path.clone());
        assert_eq!(again.of(file), ["a".to_owned(), "b".to_owned()].into());
        again.forget(file, ["a".to_owned(), "c".to_owned()].iter());
        assert_eq!(
            Written::open(path.clone()).of(file),
            ["b".to_owned()].into()
        );
        std::fs::write(&path, "[").unwrap();
        assert!(Written::open(path).of(file).is_empty());
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let written = Written::open(directory.path().join("written.json"));
        let many = |from: usize| (from..from + MOST / 2).map(|n| n.to_string()).collect();
        written.note(Path::new("/a"), many(0));
        written.note(Path::new("/b"), many(0));
        written.note(Path::new("/c"), many(0));
        assert!(written.of(Path::new("/c")).is_empty());
        assert_eq!(written.of(Path::new("/b")).len(), MOST / 2);
    }
}
