//! Changes to files that belong to a CLI or to the user.
//!
//! An edit is a pure function from the old content to the new one. It sets what it must and leaves everything else as
//! it is, comments, order and formatting included; applied twice it changes nothing the second time. A file that cannot
//! be understood is refused with its reason, never replaced: the caller decides whether to set it aside.
//!
//! Bound: a file of more than [`MAX_FILE`] bytes is refused.

mod block;
mod json;
mod share;
mod toml;

use std::fmt;
use std::path::PathBuf;

pub use block::{Block, Comment, Position};
pub use json::{JsonChange, JsonEdit};
pub use share::{Left, Share};
pub use toml::{TomlChange, TomlEdit};

/// Largest file that is edited, in bytes. Claude Code's `.claude.json` reaches a few megabytes in long use.
pub const MAX_FILE: usize = 32 * 1024 * 1024;

/// A file and what is to be done with it. `Debug` shows no content: MCP servers' environments may hold secrets.
#[derive(Clone, PartialEq)]
pub struct FileEdit {
    pub path: PathBuf,
    /// Permission bits of a new file. An existing one keeps its own.
    pub mode: u32,
    pub edit: Edit,
}

impl fmt::Debug for FileEdit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileEdit")
            .field("path", &self.path)
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

/// What is to be done with a file.
#[derive(Clone, PartialEq)]
#[expect(missing_debug_implementations, reason = "its values may hold secrets")]
pub enum Edit {
    Json(JsonEdit),
    Toml(TomlEdit),
    /// A marked part of a text file is ours, the rest is not.
    Block(Block),
    /// The whole file is ours.
    Replace(Vec<u8>),
}

/// Why an edit could not be applied. The file stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    #[error("{path} is larger than {MAX_FILE} bytes", path = path.display())]
    TooLarge { path: PathBuf },
    #[error("{path} is not UTF-8", path = path.display())]
    NotText { path: PathBuf },
    #[error("{path} is no JSON: {reason}", path = path.display())]
    NotJson { path: PathBuf, reason: String },
    #[error("{path} is no TOML: {reason}", path = path.display())]
    NotToml { path: PathBuf, reason: String },
    #[error("{path}: `{at}` is not {expected}", path = path.display())]
    Shape {
        path: PathBuf,
        at: String,
        expected: &'static str,
    },
}

impl FileEdit {
    /// The file's new content; `None` when the old one is right already.
    ///
    /// # Errors
    /// When the old content cannot be understood, see [`EditError`].
    pub fn apply(&self, old: Option<&[u8]>) -> Result<Option<Vec<u8>>, EditError> {
        let text = match (&self.edit, old) {
            (Edit::Replace(content), _) => {
                return Ok((old != Some(content)).then(|| content.clone()));
            }
            (_, None) => "",
            (_, Some(bytes)) if bytes.len() > MAX_FILE => {
                return Err(EditError::TooLarge {
                    path: self.path.clone(),
                });
            }
            (_, Some(bytes)) => std::str::from_utf8(bytes).map_err(|_| EditError::NotText {
                path: self.path.clone(),
            })?,
        };
        let new = match &self.edit {
            Edit::Json(edit) => edit.apply(&self.path, text)?,
            Edit::Toml(edit) => edit.apply(&self.path, text)?,
            Edit::Block(block) => block.apply(text),
            Edit::Replace(content) => return Ok(Some(content.clone())),
        };
        Ok((old != Some(new.as_bytes())).then(|| new.into_bytes()))
    }
}
