//! The supervisor's handle to the helper.
//!
//! One task owns the socket and the process; it starts the helper again when it ended (the agent may kill it). A
//! request that was under way then fails with [`HelperError::Died`] and may be repeated: every action is idempotent.
//! Bounds: [`WAITING`] requests wait; [`DEADLINE`] for each answer, after which the helper is killed and replaced.

mod owner;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot};
use whim_entrypoint::wire::{Credentials, Io, Launch};

use super::protocol::{Action, Answer, Entry, NO_SIZE, Reply, SOCKET, Stamp, encode, lengths};
use crate::keeper::{Keeper, KeeperError, Process};
use owner::Owner;

/// Requests that may wait for the helper.
const WAITING: usize = 64;
/// The helper never waits for anything but a disk: after this it is wedged (a dead network file system) and replaced.
const DEADLINE: Duration = Duration::from_secs(20);
/// Change reports that a slow listener may be behind; beyond, it is told that it missed some.
const CHANGES: usize = 256;

/// Why a piece of work in the agents' directories was not done.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("the helper died during {action} {path}", path = path.display())]
    Died { action: &'static str, path: PathBuf },
    #[error("the helper could not be started: {0}")]
    Start(#[from] KeeperError),
}

impl HelperError {
    /// The file or directory does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Something is there already.
    #[must_use]
    pub fn is_in_the_way(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists)
    }

    /// The file changed between reading and writing; read again and repeat.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.raw_os_error() == Some(nix::errno::Errno::ESTALE as i32))
    }
}

/// A directory in which something changed; an empty name: look at everything again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub directory: PathBuf,
    pub name: String,
}

/// What is below a directory, by paths below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// All but directories.
    pub leaves: Vec<Entry>,
    /// The directory itself has an empty path.
    pub directories: Vec<String>,
    /// There is more than one answer holds.
    pub cut: bool,
}

/// Handle to the helper; clones share it.
#[derive(Clone, Debug)]
pub struct Helper {
    jobs: mpsc::Sender<Job>,
    changes: broadcast::Sender<Change>,
}

#[derive(Debug)]
struct Job {
    action: Action,
    body: Vec<u8>,
    answer: oneshot::Sender<io::Result<(Answer, Vec<u8>)>>,
}

impl Helper {
    /// The helper starts with the first request.
    #[must_use]
    pub fn new(keeper: Keeper, binary: PathBuf, user: Option<Credentials>) -> Self {
        let (jobs, inbox) = mpsc::channel(WAITING);
        let (changes, _) = broadcast::channel(CHANGES);
        let owner = Owner {
            keeper,
            binary,
            user,
            inbox,
            changes: changes.clone(),
            watches: Vec::new(),
            generation: 0,
        };
        tokio::spawn(owner.run());
        Self { jobs, changes }
    }

    /// Without a process of its own, for tests of what stands on it.
    #[cfg(test)]
    pub(crate) fn here() -> Self {
        use super::server::{Watches, failed, perform};
        let (jobs, mut inbox) = mpsc::channel::<Job>(WAITING);
        let (changes, _) = broadcast::channel(CHANGES);
        tokio::spawn(async move {
            let mut watches = Watches::new().unwrap();
            while let Some(job) = inbox.recv().await {
                let done = perform(&job.action, &job.body, &mut watches);
                let done = done.unwrap_or_else(|error| (failed(&error), Vec::new()));
                drop(job.answer.send(Ok(done)));
            }
        });
        Self { jobs, changes }
    }

    /// Changes in watched directories. Subscribe before [`Helper::watch`].
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// The whole regular file and its stamp, at most `limit` bytes.
    ///
    /// # Errors
    /// [`HelperError::Io`]; a file longer than `limit` is `FileTooLarge`.
    pub async fn read(&self, path: &Path, limit: usize) -> Result<(Vec<u8>, Stamp), HelperError> {
        let (content, stamp) = self.read_at(path, 0, limit).await?;
        if stamp.size > limit as u64 {
            let source = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(HelperError::Io {
                action: "read",
                path: path.to_owned(),
                source,
            });
        }
        Ok((content, stamp))
    }

    /// As [`Helper::read`], `None` when the file does not exist.
    ///
    /// # Errors
    /// [`HelperError::Io`] for anything else.
    pub async fn read_optional(
        &self,
        path: &Path,
        limit: usize,
    ) -> Result<Option<(Vec<u8>, Stamp)>, HelperError> {
        match self.read(path, limit).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// At most `limit` bytes from `offset`.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn read_at(
        &self,
        path: &Path,
        offset: u64,
        limit: usize,
    ) -> Result<(Vec<u8>, Stamp), HelperError> {
        match self
            .ask(
                "read",
                path,
                Action::Read {
                    path: path.to_owned(),
                    offset,
                    limit,
                },
                Vec::new(),
            )
            .await?
        {
            (Answer::Content { stamp }, content) => Ok((content, stamp)),
            other => Err(unexpected("read", path, &other.0)),
        }
    }

    /// Replaces a file whole. `expect` as in [`Action::Write`].
    ///
    /// # Errors
    /// [`HelperError::Io`]; [`HelperError::is_stale`] when the file is not as expected.
    pub async fn write(
        &self,
        path: &Path,
        mode: u32,
        expect: Option<Option<Stamp>>,
        content: Vec<u8>,
    ) -> Result<(), HelperError> {
        self.ask(
            "write",
            path,
            Action::Write {
                path: path.to_owned(),
                mode,
                expect,
            },
            content,
        )
        .await
        .map(drop)
    }

    /// Entries of a directory.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn list(&self, path: &Path) -> Result<Vec<Entry>, HelperError> {
        match self
            .ask(
                "list",
                path,
                Action::List {
                    path: path.to_owned(),
                },
                Vec::new(),
            )
            .await?
        {
            (Answer::Entries { entries, cut }, _) => {
                if cut {
                    tracing::warn!(path = %path.display(), "directory listing cut");
                }
                Ok(entries)
            }
            other => Err(unexpected("list", path, &other.0)),
        }
    }

    /// As [`Helper::read_at`], but not through a symlink at the path's end (`ELOOP`).
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn read_plain(
        &self,
        path: &Path,
        offset: u64,
        limit: usize,
    ) -> Result<(Vec<u8>, Stamp), HelperError> {
        let action = Action::ReadPlain {
            path: path.to_owned(),
            offset,
            limit,
        };
        match self.ask("read", path, action, Vec::new()).await? {
            (Answer::Content { stamp }, content) => Ok((content, stamp)),
            other => Err(unexpected("read", path, &other.0)),
        }
    }

    /// Everything below a directory; links are told, not followed.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn tree(&self, path: &Path) -> Result<Tree, HelperError> {
        let action = Action::Tree {
            path: path.to_owned(),
        };
        match self.ask("list", path, action, Vec::new()).await? {
            (
                Answer::Tree {
                    leaves,
                    directories,
                    cut,
                },
                _,
            ) => Ok(Tree {
                leaves,
                directories,
                cut,
            }),
            other => Err(unexpected("list", path, &other.0)),
        }
    }

    /// Kind and stamp, links followed.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn stat(&self, path: &Path) -> Result<Entry, HelperError> {
        match self
            .ask(
                "stat",
                path,
                Action::Stat {
                    path: path.to_owned(),
                },
                Vec::new(),
            )
            .await?
        {
            (Answer::Entry { entry }, _) => Ok(entry),
            other => Err(unexpected("stat", path, &other.0)),
        }
    }

    /// The path with every link resolved, as the agents' user sees it.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn canonicalize(&self, path: &Path) -> Result<PathBuf, HelperError> {
        match self
            .ask(
                "resolve",
                path,
                Action::Canonicalize {
                    path: path.to_owned(),
                },
                Vec::new(),
            )
            .await?
        {
            (Answer::Path { path }, _) => Ok(path),
            other => Err(unexpected("resolve", path, &other.0)),
        }
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn make_directory(&self, path: &Path, mode: u32) -> Result<(), HelperError> {
        self.ask(
            "make directory",
            path,
            Action::MakeDirectory {
                path: path.to_owned(),
                mode,
            },
            Vec::new(),
        )
        .await
        .map(drop)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn remove(&self, path: &Path) -> Result<(), HelperError> {
        self.ask(
            "remove",
            path,
            Action::Remove {
                path: path.to_owned(),
            },
            Vec::new(),
        )
        .await
        .map(drop)
    }

    /// Removes a directory that is empty.
    ///
    /// # Errors
    /// [`HelperError::Io`], also when something is in it.
    pub async fn remove_directory(&self, path: &Path) -> Result<(), HelperError> {
        self.ask(
            "remove directory",
            path,
            Action::RemoveDirectory {
                path: path.to_owned(),
            },
            Vec::new(),
        )
        .await
        .map(drop)
    }

    /// Removes a directory and all in it; none is fine.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn remove_tree(&self, path: &Path) -> Result<(), HelperError> {
        let action = Action::RemoveTree {
            path: path.to_owned(),
        };
        self.ask("remove", path, action, Vec::new()).await.map(drop)
    }

    /// Puts a piece of a new file beside its place, and with the `last` one the file there. Never over anything:
    /// [`HelperError::is_in_the_way`].
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn put(
        &self,
        path: &Path,
        mode: u32,
        offset: u64,
        last: bool,
        piece: Vec<u8>,
    ) -> Result<(), HelperError> {
        let action = Action::Put {
            path: path.to_owned(),
            mode,
            offset,
            last,
        };
        self.ask("put", path, action, piece).await.map(drop)
    }

    /// Sizes of files below a directory, links not followed; `None` for what is neither file nor link.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn sizes(
        &self,
        directory: &Path,
        names: &[String],
    ) -> Result<Vec<Option<u64>>, HelperError> {
        let action = Action::Sizes {
            directory: directory.to_owned(),
        };
        let body = names.join("\0").into_bytes();
        let (answer, content) = self.ask("measure", directory, action, body).await?;
        let size = |bytes: &[u8; 8]| Some(u64::from_le_bytes(*bytes)).filter(|n| *n != NO_SIZE);
        let (sizes, _) = content.as_chunks::<8>();
        if matches!(answer, Answer::Sizes) && sizes.len() == names.len() {
            return Ok(sizes.iter().map(size).collect());
        }
        Err(unexpected("measure", directory, &answer))
    }

    /// Watches a directory; the watch is set again when the helper is replaced.
    ///
    /// # Errors
    /// [`HelperError::Io`].
    pub async fn watch(&self, directory: &Path) -> Result<(), HelperError> {
        self.ask(
            "watch",
            directory,
            Action::Watch {
                directory: directory.to_owned(),
            },
            Vec::new(),
        )
        .await
        .map(drop)
    }

    async fn ask(
        &self,
        action: &'static str,
        path: &Path,
        request: Action,
        body: Vec<u8>,
    ) -> Result<(Answer, Vec<u8>), HelperError> {
        let died = || HelperError::Died {
            action,
            path: path.to_owned(),
        };
        let (answer, answered) = oneshot::channel();
        self.jobs
            .send(Job {
                action: request,
                body,
                answer,
            })
            .await
            .map_err(|_| died())?;
        let failed = |source| HelperError::Io {
            action,
            path: path.to_owned(),
            source,
        };
        let answered = answered.await.map_err(|_| died())?;
        // No answer at all says nothing of the file.
        let answered = answered.map_err(|error| {
            tracing::debug!(%error, action, path = %path.display(), "the helper did not answer");
            died()
        })?;
        match answered {
            (Answer::Failed { errno, message: _ }, _) => {
                Err(failed(io::Error::from_raw_os_error(errno)))
            }
            done => Ok(done),
        }
    }
}

fn unexpected(action: &'static str, path: &Path, answer: &Answer) -> HelperError {
    let source = io::Error::other(format!("unexpected answer {answer:?}"));
    HelperError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}
