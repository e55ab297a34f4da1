//! The supervisor's handle to the helper.
//!
//! One task owns the socket and the process; it starts the helper again when it ended (the agent may kill it). A
//! request that was under way then fails with [`HelperError::Died`] and may be repeated: every action is idempotent.
//! Bounds: [`WAITING`] requests wait; [`DEADLINE`] for each answer, after which the helper is killed and replaced.

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
        match answered.await.map_err(|_| died())?.map_err(failed)? {
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

/// The task that owns the helper process.
#[derive(Debug)]
struct Owner {
    keeper: Keeper,
    binary: PathBuf,
    user: Option<Credentials>,
    inbox: mpsc::Receiver<Job>,
    changes: broadcast::Sender<Change>,
    watches: Vec<PathBuf>,
    generation: u64,
}

/// Connection to one running helper.
#[derive(Debug)]
struct Connection {
    socket: UnixStream,
    process: Process,
    /// Bytes of a frame that is not complete yet.
    pending: Vec<u8>,
}

impl Owner {
    async fn run(mut self) {
        let mut connection: Option<Connection> = None;
        loop {
            let job = match &mut connection {
                Some(open) => tokio::select! {
                    job = self.inbox.recv() => job,
                    reply = open.receive() => {
                        match reply {
                            Ok((reply, _)) => self.report(reply),
                            Err(error) => {
                                // At the container's end the keeper ends it with everything else.
                                if self.keeper.stopping().borrow().is_none() {
                                    tracing::warn!(%error, "the helper ended and is started again when needed");
                                }
                                Self::retire(connection.take()).await;
                                self.report_all();
                            }
                        }
                        continue;
                    }
                },
                None => self.inbox.recv().await,
            };
            let Some(job) = job else { break };
            let result = self.perform(&mut connection, &job.action, &job.body).await;
            if result.is_err() {
                Self::retire(connection.take()).await;
                self.report_all();
            }
            drop(job.answer.send(result));
        }
        Self::retire(connection).await;
    }

    async fn perform(
        &mut self,
        connection: &mut Option<Connection>,
        action: &Action,
        body: &[u8],
    ) -> io::Result<(Answer, Vec<u8>)> {
        if connection.is_none() {
            let mut fresh = self.start().await.map_err(io::Error::other)?;
            for directory in self.watches.clone() {
                self.exchange(&mut fresh, &Action::Watch { directory }, &[])
                    .await?;
            }
            *connection = Some(fresh);
        }
        let Some(open) = connection.as_mut() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let answer = self.exchange(open, action, body).await?;
        if let (Action::Watch { directory }, Answer::Done) = (action, &answer.0)
            && !self.watches.contains(directory)
        {
            self.watches.push(directory.clone());
        }
        Ok(answer)
    }

    async fn exchange(
        &mut self,
        open: &mut Connection,
        action: &Action,
        body: &[u8],
    ) -> io::Result<(Answer, Vec<u8>)> {
        self.generation += 1;
        let id = self.generation;
        let frame = encode(&RequestRef { id, action }, body)?;
        let exchange = async {
            open.socket.write_all(&frame).await?;
            loop {
                let (reply, content) = open.receive().await?;
                if reply.id == id {
                    return Ok((reply.answer, content));
                }
                self.report(reply);
            }
        };
        tokio::time::timeout(DEADLINE, exchange)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    fn report(&self, reply: Reply) {
        if let Answer::Changed { directory, name } = reply.answer {
            // No listener is no loss: the watch was for someone who left.
            drop(self.changes.send(Change { directory, name }));
        }
    }

    /// Changes may have been missed while no helper watched.
    fn report_all(&self) {
        for directory in &self.watches {
            drop(self.changes.send(Change {
                directory: directory.clone(),
                name: String::new(),
            }));
        }
    }

    async fn start(&self) -> Result<Connection, KeeperError> {
        let (ours, theirs) = UnixStream::pair()?;
        let launch = Launch {
            program: self.binary.clone().into_os_string(),
            arguments: vec!["whim".into(), "helper".into()],
            environment: Vec::new(),
            directory: PathBuf::from("/"),
            user: self.user.clone(),
            io: Io::Null,
            holder: false,
            end_with_leader: false,
            oom_score_adj: None,
            no_new_privs: false,
            descriptors: vec![SOCKET],
        };
        let theirs: OwnedFd = theirs.into_std()?.into();
        nonblocking(&theirs, false)?;
        let process = self.keeper.spawn("helper", &launch, vec![theirs]).await?;
        Ok(Connection {
            socket: ours,
            process,
            pending: Vec::new(),
        })
    }

    async fn retire(connection: Option<Connection>) {
        let Some(Connection {
            socket, process, ..
        }) = connection
        else {
            return;
        };
        drop(socket);
        let ended = async {
            process.end(Duration::ZERO).await?;
            process.acknowledge().await
        };
        if let Err(error) = ended.await {
            tracing::warn!(%error, "the helper could not be ended");
        }
    }
}

/// [`Request`] with a borrowed action.
#[derive(serde::Serialize)]
struct RequestRef<'a> {
    id: u64,
    action: &'a Action,
}

impl Connection {
    /// The next frame. Safe to drop half-way: what was read stays in `pending`.
    async fn receive(&mut self) -> io::Result<(Reply, Vec<u8>)> {
        loop {
            if let Some(header) = self.pending.first_chunk::<8>() {
                let (json, body) = lengths(*header)?;
                let total = 8 + json + body;
                if self.pending.len() >= total {
                    let mut frame: Vec<u8> = self.pending.drain(..total).collect();
                    let content = frame.split_off(8 + json);
                    let reply = serde_json::from_slice(frame.get(8..).unwrap_or_default())?;
                    return Ok((reply, content));
                }
            }
            if self.socket.read_buf(&mut self.pending).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn nonblocking(descriptor: &OwnedFd, on: bool) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(descriptor, FcntlArg::F_GETFL)?);
    let flags = if on {
        flags | OFlag::O_NONBLOCK
    } else {
        flags - OFlag::O_NONBLOCK
    };
    fcntl(descriptor, FcntlArg::F_SETFL(flags))?;
    Ok(())
}
