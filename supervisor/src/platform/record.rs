//! What must be known after a crash: the stream's name, and what was acknowledged of it.
//!
//! One small file beside the journal, replaced with every acknowledgement. It may be behind by what was acknowledged
//! right before a crash: those events are sent again. It must never be ahead of the journal: a journal that lost its end
//! (the machine crashed) gives the lost numbers again, which the platform would take for repetitions. Then a new stream
//! begins.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why the record cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}", path = path.display())]
pub struct RecordError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    stream: String,
    acknowledged: u64,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    content: Content,
}

impl Record {
    /// Reads the record in `directory`, or begins a stream. `newest`: of the journal, as it was opened.
    pub(super) fn open(directory: &Path, newest: u64) -> Result<Self, RecordError> {
        let path = directory.join("platform.json");
        let failed = |source| RecordError {
            path: path.clone(),
            source,
        };
        let known = match std::fs::read(&path) {
            Ok(json) => match serde_json::from_slice::<Content>(&json) {
                Ok(content) => Some(content),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "not readable; the events go to the platform as a new stream");
                    None
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        match known {
            Some(content) if content.acknowledged <= newest => {
                return Ok(Self { path, content });
            }
            Some(content) => tracing::warn!(
                acknowledged = content.acknowledged,
                newest,
                "the journal has lost events that the platform has; a new stream begins"
            ),
            None => {}
        }
        let content = Content {
            stream: crate::random::uuid(),
            acknowledged: 0,
        };
        let record = Self {
            path: path.clone(),
            content,
        };
        record.write().map_err(failed)?;
        // The name must not change under numbers that were sent; what is acknowledged may be behind.
        File::open(&path)
            .and_then(|file| file.sync_all())
            .and_then(|()| File::open(directory)?.sync_all())
            .map_err(failed)?;
        Ok(record)
    }

    pub(super) fn stream(&self) -> &str {
        &self.content.stream
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.content.acknowledged
    }

    /// Notes what was acknowledged. On a disk that refuses, events are sent again after a crash: no more than that.
    pub(super) fn acknowledge(&mut self, number: u64) {
        if self.content.acknowledged == number {
            return;
        }
        self.content.acknowledged = number;
        if let Err(error) = self.write() {
            tracing::warn!(path = %self.path.display(), %error, "what the platform acknowledged is not written down");
        }
    }

    fn write(&self) -> io::Result<()> {
        let json = serde_json::to_vec(&self.content)?;
        crate::files::write(&self.path, 0o600, &json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_outlives_its_writer() {
        let directory = tempfile::tempdir().unwrap();
        let mut record = Record::open(directory.path(), 0).unwrap();
        let stream = record.stream().to_owned();
        record.acknowledge(7);
        let again = Record::open(directory.path(), 9).unwrap();
        assert_eq!((again.stream(), again.acknowledged()), (stream.as_str(), 7));
    }

    #[test]
    fn numbers_that_will_be_given_twice_belong_to_another_stream() {
        let directory = tempfile::tempdir().unwrap();
        let mut record = Record::open(directory.path(), 0).unwrap();
        let stream = record.stream().to_owned();
        record.acknowledge(7);
        let again = Record::open(directory.path(), 6).unwrap();
        assert_ne!(again.stream(), stream);
        assert_eq!(again.acknowledged(), 0);
        std::fs::write(directory.path().join("platform.json"), "{").unwrap();
        let damaged = Record::open(directory.path(), 9).unwrap();
        assert_eq!(damaged.acknowledged(), 0);
        assert_ne!(damaged.stream(), again.stream());
    }
}
