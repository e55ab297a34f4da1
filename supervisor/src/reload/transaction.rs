//! File changes that happen together: when one fails, those before it are undone.
//!
//! Undoing looks before it writes: a file that somebody changed meanwhile is theirs and stays. A file that cannot be
//! understood ends the transaction instead of being set aside, as the boot does it: an agent works with it right now.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use crate::agents::FileEdit;
use crate::agents::edit::{EditError, Left, MAX_FILE, Share};
use crate::boot::Grounds;
use crate::boot::again::{self, OurFile};
use crate::boot::home;
use crate::helper::{HelperError, Stamp};

/// A CLI that rewrites its file all the time must not keep us for ever.
const ATTEMPTS: usize = 8;

/// Which step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Helper(#[from] HelperError),
    #[error("{0}; correct or delete it")]
    Edit(#[from] EditError),
    #[error("{path} changes faster than it can be merged", path = .0.display())]
    Busy(PathBuf),
    #[error("{path}: {source}", path = path.display())]
    Ours { path: PathBuf, source: io::Error },
}

/// How one change is taken back.
#[derive(Debug)]
struct Undo {
    path: PathBuf,
    owner: Owner,
    old: Option<Vec<u8>>,
    new: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug)]
enum Owner {
    /// Written by the helper, with these permission bits.
    Agents {
        mode: u32,
    },
    Us {
        public: bool,
    },
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Transaction<'a> {
    grounds: &'a Grounds,
    done: Vec<Undo>,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(grounds: &'a Grounds) -> Self {
        Self {
            grounds,
            done: Vec::new(),
        }
    }

    /// Puts `new` in the place of `old`, both at one path. One that is wanted no more goes if it is as we wrote it.
    pub(super) fn ours(
        &mut self,
        old: Option<&OurFile>,
        new: Option<&OurFile>,
    ) -> Result<(), StepError> {
        let Some(file) = new.or(old) else {
            return Ok(());
        };
        let failed = |source| StepError::Ours {
            path: file.path.clone(),
            source,
        };
        let present = match std::fs::read(&file.path) {
            Ok(present) => Some(present),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(error)),
        };
        match new {
            Some(new) if present.as_deref() == Some(new.text.as_bytes()) => return Ok(()),
            Some(new) => {
                again::put(self.grounds, new).map_err(failed)?;
            }
            None if present.as_deref() == old.map(|old| old.text.as_bytes())
                && present.is_some() =>
            {
                std::fs::remove_file(&file.path).map_err(failed)?;
            }
            None => return Ok(()),
        }
        self.done.push(Undo {
            path: file.path.clone(),
            owner: Owner::Us {
                public: file.public,
            },
            old: present,
            new: new.map(|new| new.text.clone().into_bytes()),
        });
        Ok(())
    }

    /// Merges an edit into its file.
    pub(super) async fn merge(&mut self, edit: &FileEdit) -> Result<(), StepError> {
        let written = &self.grounds.written;
        let new = |content: Option<&[u8]>| {
            let Some(new) = edit.apply(content)? else {
                return Ok(Left::Same);
            };
            written.note(&edit.path, edit.share()?.missing_in(&edit.path, content)?);
            Ok(Left::Content(new))
        };
        let undo = change(self.grounds, &edit.path, edit.mode, new).await?;
        self.done.extend(undo);
        Ok(())
    }

    /// Takes out of a file what is ours and wanted no more.
    pub(super) async fn take_out(&mut self, path: &Path, share: &Share) -> Result<(), StepError> {
        let ours: BTreeSet<String> = self.grounds.written.of(path);
        let new = |content: Option<&[u8]>| match content {
            None => Ok(Left::Same),
            Some(content) => share.withdraw(path, content, &ours),
        };
        let undo = change(self.grounds, path, 0o600, new).await?;
        if undo.as_ref().is_some_and(|undo| undo.new.is_none()) {
            home::tidy(&self.grounds.helper, path).await;
        }
        self.done.extend(undo);
        Ok(())
    }

    /// Takes everything back, the last first. What cannot be taken back is logged: there is nobody else to tell.
    pub(super) async fn undo(self) {
        for undo in self.done.into_iter().rev() {
            if let Err(error) = take_back(self.grounds, &undo).await {
                tracing::error!(path = %undo.path.display(), %error, "a change of a failed reload stays");
            }
        }
    }
}

/// Reads, changes and writes a file of the agents', again if it changed meanwhile. `None`: nothing was to be changed.
async fn change(
    grounds: &Grounds,
    path: &Path,
    mode: u32,
    new: impl Fn(Option<&[u8]>) -> Result<Left, EditError>,
) -> Result<Option<Undo>, StepError> {
    let helper = &grounds.helper;
    for _ in 0..ATTEMPTS {
        let old = helper.read_optional(path, MAX_FILE).await?;
        let (old, stamp): (Option<Vec<u8>>, Option<Stamp>) = old.unzip();
        let mode = match &old {
            Some(_) => helper.stat(path).await?.mode,
            None => mode,
        };
        let new = match new(old.as_deref())? {
            Left::Same => return Ok(None),
            Left::Nothing => {
                helper.remove(path).await?;
                None
            }
            Left::Content(new) => match helper.write(path, mode, Some(stamp), new.clone()).await {
                Ok(()) => Some(new),
                Err(error) if error.is_stale() => continue,
                Err(error) => return Err(error.into()),
            },
        };
        return Ok(Some(Undo {
            path: path.to_owned(),
            owner: Owner::Agents { mode },
            old,
            new,
        }));
    }
    Err(StepError::Busy(path.to_owned()))
}

async fn take_back(grounds: &Grounds, undo: &Undo) -> Result<(), StepError> {
    match undo.owner {
        Owner::Us { public } => {
            let done = match &undo.old {
                Some(old) => again::write(grounds, &undo.path, old, public),
                None => std::fs::remove_file(&undo.path),
            };
            done.map_err(|source| StepError::Ours {
                path: undo.path.clone(),
                source,
            })
        }
        Owner::Agents { mode } => {
            let back = |content: Option<&[u8]>| {
                if content != undo.new.as_deref() {
                    return Ok(Left::Same);
                }
                Ok(undo.old.clone().map_or(Left::Nothing, Left::Content))
            };
            change(grounds, &undo.path, mode, back).await.map(drop)
        }
    }
}
