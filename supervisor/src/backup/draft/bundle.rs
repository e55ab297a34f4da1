//! The bundle of a code snapshot, as a file of the backup. It is packed as it is: what is inside is compressed by git, and
//! its checksums are the repository's, so nothing in it can be replaced: what holds a secret is not put into it
//! (`backup::snapshot::clean`).

use std::io;
use std::path::Path;

use super::{Change, Draft, DraftError};
use crate::backup::code::BUNDLE;
use crate::backup::collect::CollectError;
use crate::backup::hash::Running;
use crate::backup::index::{Copy, Entry, Key};
use crate::backup::manifest::{Kind, Place};
use crate::helper::Helper;

/// Bytes that are read at once.
const PART: usize = 8 * 1024 * 1024;

/// Its place among the files.
#[must_use]
pub fn key() -> Key {
    Key {
        place: Place::Code,
        path: BUNDLE.to_owned(),
    }
}

impl Draft<'_> {
    /// Takes its first `bytes` bytes in, in place of the one before: so many there were when git was done with it, and the
    /// file is the agents' to write to.
    ///
    /// # Errors
    /// [`DraftError`].
    pub async fn take_bundle(
        &mut self,
        helper: &Helper,
        path: &Path,
        bytes: u64,
    ) -> Result<(), DraftError> {
        let mut hash = Running::default();
        let mut fresh = Vec::new();
        while hash.bytes() < bytes {
            let left = usize::try_from(bytes - hash.bytes()).unwrap_or(usize::MAX);
            let read = helper.read_at(path, hash.bytes(), left.min(PART)).await;
            let (mut part, _) = read.map_err(|error| DraftError::Collect(error.into()))?;
            part.truncate(left);
            if part.is_empty() {
                return Err(DraftError::Collect(CollectError::Own {
                    path: path.to_owned(),
                    source: io::ErrorKind::UnexpectedEof.into(),
                }));
            }
            hash.update(&part);
            self.read += part.len() as u64;
            self.fresh += part.len() as u64;
            self.pack(&part, &mut fresh).await?;
        }
        let entry = Entry {
            kind: Kind::Code,
            agent: None,
            mode: 0o600,
            good: Copy {
                sha256: hash.digest(),
                bytes: hash.bytes(),
                // It is never gone on with, but tells whose it is.
                hash: Some(hash),
                ..Copy::default()
            },
            damaged: None,
            compared: 0,
            trouble: None,
        };
        self.changes.insert(key(), Change { entry, fresh });
        Ok(())
    }
}
