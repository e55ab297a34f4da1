//! Files that flags and variables name: bounded, and regular ones only.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::document;
use crate::config::mistake::{Mistake, Place};
use crate::config::printable;

/// Where the spec is.
#[derive(Clone, PartialEq, Eq)]
pub enum SpecSource {
    Stdin,
    Inline(String),
    File(PathBuf),
}

impl std::fmt::Debug for SpecSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdin => f.write_str("Stdin"),
            Self::Inline(text) => write!(f, "Inline(<hidden, {} bytes>)", text.len()),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl From<&str> for SpecSource {
    /// `-`, a JSON object, or a path.
    fn from(text: &str) -> Self {
        match text.trim_start() {
            "-" => Self::Stdin,
            inline if inline.starts_with('{') => Self::Inline(text.to_owned()),
            _ => Self::File(PathBuf::from(text)),
        }
    }
}

impl SpecSource {
    /// The bytes of the spec.
    ///
    /// # Errors
    /// Unreadable, no regular file, or larger than [`document::MAX_BYTES`].
    pub fn read(&self, stdin: &mut dyn Read) -> Result<Vec<u8>, Mistake> {
        let failed =
            |what: String, remedy: &str| Mistake::new(Place::Spec(String::new()), what, remedy);
        let limit = document::MAX_BYTES as u64;
        let read = match self {
            Self::Inline(text) => return Ok(text.clone().into_bytes()),
            Self::Stdin => read_bounded(stdin, limit),
            Self::File(path) => {
                open_regular(path).and_then(|mut file| read_bounded(&mut file, limit))
            }
        };
        read.map_err(|error| {
            let from = match self {
                Self::File(path) => format!("file {}", printable(&path.to_string_lossy())),
                _ => "standard input".to_owned(),
            };
            match error {
                FileError::Io(error) => failed(
                    format!("cannot be read from {from}: {}", reason(&error)),
                    "name a readable file",
                ),
                FileError::NotRegular => failed(
                    format!("is to be read from {from}, which is no regular file"),
                    "use `-` and a pipe",
                ),
                FileError::TooLarge => failed(
                    format!("from {from} is larger than 32 MiB"),
                    "leave large files to attachments",
                ),
            }
        })
    }
}

pub(super) enum FileError {
    Io(std::io::Error),
    NotRegular,
    TooLarge,
}

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// The kind of an error without the path, which the message has already.
pub(super) fn reason(error: &std::io::Error) -> String {
    error.kind().to_string()
}

pub(super) fn open_regular(path: &Path) -> Result<std::fs::File, FileError> {
    // Without O_NONBLOCK, opening a FIFO would wait for its writer.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(FileError::NotRegular)
    }
}

pub(super) fn read_bounded(from: &mut dyn Read, limit: u64) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    from.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        Err(FileError::TooLarge)
    } else {
        Ok(bytes)
    }
}
