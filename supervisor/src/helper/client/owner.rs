//! The task that owns the helper's process and its socket: one request at a time, started again when it is gone.

use super::*;

/// The task that owns the helper process.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) keeper: Keeper,
    pub(super) binary: PathBuf,
    pub(super) user: Option<Credentials>,
    pub(super) inbox: mpsc::Receiver<Job>,
    pub(super) changes: broadcast::Sender<Change>,
    pub(super) watches: Vec<PathBuf>,
    pub(super) generation: u64,
}

/// Connection to one running helper.
#[derive(Debug)]
struct Connection {
    socket: UnixStream,
    process: Process,
    /// Bytes of a frame that is not complete yet.
    pending: Vec<u8>,
}

/// The helper ended: before it answered, or while nobody asked.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Whether it may be asked again without a thought of what the first try did.
fn only_looks(action: &Action) -> bool {
    matches!(
        action,
        Action::Read { .. }
            | Action::ReadPlain { .. }
            | Action::List { .. }
            | Action::Tree { .. }
            | Action::Stat { .. }
            | Action::Canonicalize { .. }
            | Action::Sizes { .. }
            | Action::Watch { .. }
    )
}

impl Owner {
    pub(super) async fn run(mut self) {
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
            let mut result = self.perform(&mut connection, &job.action, &job.body).await;
            if result.as_ref().is_err_and(is_gone) && only_looks(&job.action) {
                Self::retire(connection.take()).await;
                self.report_all();
                result = self.perform(&mut connection, &job.action, &job.body).await;
            }
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
            let mut watched = Vec::new();
            for directory in self.watches.clone() {
                let action = Action::Watch {
                    directory: directory.clone(),
                };
                // One that is gone by now is not watched for ever.
                if let (Answer::Done, _) = self.exchange(&mut fresh, &action, &[]).await? {
                    watched.push(directory);
                }
            }
            self.watches = watched;
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
        let Ok(frame) = encode(&RequestRef { id, action }, body) else {
            // Nothing was sent: whoever asked is told, and the helper goes on.
            let error = io::Error::from_raw_os_error(nix::libc::EMSGSIZE);
            return Ok((super::super::server::failed(&error), Vec::new()));
        };
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
            arguments: vec!["whim".into(), "helper".into()],
            user: self.user.clone(),
            io: Io::Null,
            holder: false,
            end_with_leader: false,
            descriptors: vec![SOCKET],
            ..Launch::of(&self.binary)
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
