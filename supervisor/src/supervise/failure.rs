//! Why the container ends early.

use std::path::Path;

use crate::files;
use crate::keeper::KeeperError;

/// How the container is to end.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Exit code, contract §8.
    pub code: u8,
    pub message: String,
}

impl Failure {
    /// # Panics
    /// Never.
    #[must_use]
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A message with all that it comes from, and what to do about a full disk.
    #[must_use]
    pub fn caused(code: u8, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some of ours say their cause themselves.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        if files::says_disk_full(&message) {
            message.push_str("; free some space there, or give it a larger disk");
        }
        Self { code, message }
    }
}

impl From<KeeperError> for Failure {
    fn from(error: KeeperError) -> Self {
        Self::new(70, error.to_string())
    }
}

/// A file or directory of the layout that cannot be had.
pub(super) fn at(path: &Path, error: std::io::Error) -> Failure {
    let message = format!("{} cannot be had: {error}", path.display());
    Failure::caused(73, &std::io::Error::new(error.kind(), message))
}
