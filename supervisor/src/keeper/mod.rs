//! The supervisor's side of the wire to the keeper.
//!
//! Owns the channel and the table of processes that the keeper runs for us. One task reads and writes the channel; the
//! cheap handle [`Keeper`] asks it for work. What the keeper already ran when this supervisor came up is in
//! [`Inventory`]: the same processes, with the same terminals.
//!
//! Bounds: [`REQUESTS`] waiting requests (a caller beyond waits), [`SPAWN_DEADLINE`] for a start. When the channel closes
//! the keeper is gone, which ends the container; every waiter gets [`KeeperError::Gone`].

mod output;
mod process;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use whim_entrypoint::wire::{
    FromKeeper, Launch, ProcessId, SupervisorChannel, ToKeeper, memfd_sealed,
};

use crate::readiness;
pub use output::{Chunk, Output};
pub use process::{Captured, Exit, Process, ProcessIo, RunError};

/// Requests that may wait for the channel; a caller beyond that waits for a place.
const REQUESTS: usize = 64;
/// A start answers after one fork and exec; slower than this the machine is not usable.
const SPAWN_DEADLINE: Duration = Duration::from_secs(20);

/// Why the keeper did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    #[error("the keeper is gone")]
    Gone,
    #[error("{step} failed for {name}: {source}")]
    Spawn {
        name: String,
        step: String,
        source: std::io::Error,
    },
    #[error("the keeper did not answer within {} s when asked to start {name}", SPAWN_DEADLINE.as_secs())]
    Deadline { name: String },
    #[error("cannot pass the launch of {name}: {source}")]
    Launch {
        name: String,
        source: std::io::Error,
    },
    #[error("the keeper refused: {what}")]
    Refused { what: String },
    #[error("keeper channel: {0}")]
    Channel(#[from] std::io::Error),
}

/// What the keeper had when this supervisor came up.
#[derive(Debug)]
pub struct Inventory {
    pub hello: Hello,
    pub held: HashMap<String, OwnedFd>,
    pub processes: Vec<Process>,
}

/// The keeper's first words, see [`FromKeeper::Hello`].
#[derive(Clone, Debug)]
pub struct Hello {
    pub keeper_pid: i32,
    pub restarts: u32,
    pub reason: String,
    pub reaps: bool,
    /// `CLOCK_BOOTTIME` in milliseconds.
    pub started_ms: u64,
}

/// The ordered end of the container has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// The signal that began it, 0 when we asked for it.
    pub signal: i32,
    pub deadline: tokio::time::Instant,
}

/// Handle to the keeper; clones share one channel.
#[derive(Clone, Debug)]
pub struct Keeper {
    requests: mpsc::Sender<Request>,
    stopping: watch::Receiver<Option<Stopping>>,
    next: Arc<Mutex<u64>>,
}

#[derive(Debug)]
enum Request {
    Tell(ToKeeper, Vec<OwnedFd>),
    /// Answered when the kernel has it: from there on it reaches the keeper, whatever becomes of us.
    Hold {
        name: String,
        descriptor: OwnedFd,
        sent: oneshot::Sender<()>,
    },
    EndNamed {
        name: String,
        grace_ms: u64,
    },
    Spawn {
        process: ProcessId,
        name: String,
        descriptors: Vec<OwnedFd>,
        answer: oneshot::Sender<Result<Process, KeeperError>>,
    },
}

impl Keeper {
    /// Takes the channel over, reads the inventory, and starts the task that owns the channel from then on.
    ///
    /// # Errors
    /// [`KeeperError::Channel`] when the keeper speaks another protocol or hangs up during the inventory.
    pub async fn connect(channel: SupervisorChannel) -> Result<(Self, Inventory), KeeperError> {
        let readiness = readiness::register(
            channel.as_fd().try_clone_to_owned()?,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (stopping_sender, stopping) = watch::channel(None);
        let keeper = Self {
            requests,
            stopping,
            next: Arc::new(Mutex::new(1)),
        };
        let mut owner = Owner {
            channel,
            readiness,
            inbox,
            stopping: stopping_sender,
            spawning: HashMap::new(),
            running: HashMap::new(),
            keeper: keeper.clone(),
        };
        let inventory = owner.inventory().await?;
        let highest = inventory
            .processes
            .iter()
            .map(|process| process.id().0)
            .max()
            .unwrap_or(0);
        *keeper.next.lock().unwrap_or_else(PoisonError::into_inner) = highest + 1;
        tokio::spawn(owner.run());
        Ok((keeper, inventory))
    }

    /// Starts a process. `descriptors` land at the numbers of [`Launch::descriptors`].
    ///
    /// # Errors
    /// [`KeeperError::Spawn`] names the call that failed (`exec` with ENOENT: no such program).
    pub async fn spawn(
        &self,
        name: &str,
        launch: &Launch,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Process, KeeperError> {
        let process = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let process = ProcessId(*next);
            *next += 1;
            process
        };
        let failed = |source| KeeperError::Launch {
            name: name.to_owned(),
            source,
        };
        let encoded = launch
            .encode()
            .map_err(std::io::Error::from)
            .map_err(failed)?;
        let memfd = memfd_sealed("launch", &encoded).map_err(failed)?;
        let mut all = vec![memfd];
        all.extend(descriptors);
        let (answer, answered) = oneshot::channel();
        let request = Request::Spawn {
            process,
            name: name.to_owned(),
            descriptors: all,
            answer,
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| KeeperError::Gone)?;
        match tokio::time::timeout(SPAWN_DEADLINE, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(KeeperError::Gone),
            Err(_) => Err(KeeperError::Deadline {
                name: name.to_owned(),
            }),
        }
    }

    /// Sends a message that has no answer.
    ///
    /// # Errors
    /// [`KeeperError::Gone`] when the channel is closed.
    pub async fn tell(&self, message: ToKeeper) -> Result<(), KeeperError> {
        self.requests
            .send(Request::Tell(message, Vec::new()))
            .await
            .map_err(|_| KeeperError::Gone)
    }

    /// Ends the process of this name and everything it left; returns once that is under way.
    ///
    /// # Errors
    /// [`KeeperError::Gone`].
    pub async fn end_named(&self, name: &str, grace: Duration) -> Result<(), KeeperError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.requests
            .send(Request::EndNamed {
                name: name.to_owned(),
                grace_ms,
            })
            .await
            .map_err(|_| KeeperError::Gone)
    }

    /// Has the keeper hold a descriptor for the next supervisor. Once this returns, a crash of ours does not lose it.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated, or the channel is closed.
    pub async fn hold(&self, name: &str, descriptor: impl AsFd) -> Result<(), KeeperError> {
        let copy = descriptor.as_fd().try_clone_to_owned()?;
        let (sent, done) = oneshot::channel();
        self.requests
            .send(Request::Hold {
                name: name.to_owned(),
                descriptor: copy,
                sent,
            })
            .await
            .map_err(|_| KeeperError::Gone)?;
        done.await.map_err(|_| KeeperError::Gone)
    }

    /// Has the keeper hold these bytes, sealed, as [`Keeper::hold`].
    ///
    /// # Errors
    /// When there is no memory for them, or the channel is closed.
    pub async fn hold_sealed(&self, name: &str, bytes: &[u8]) -> Result<(), KeeperError> {
        self.hold(name, memfd_sealed(name, bytes)?).await
    }

    /// Set once, when the ordered end of the container begins.
    #[must_use]
    pub fn stopping(&self) -> watch::Receiver<Option<Stopping>> {
        self.stopping.clone()
    }
}

/// The task that owns the channel.
#[derive(Debug)]
struct Owner {
    channel: SupervisorChannel,
    /// A duplicate of the channel's descriptor.
    readiness: AsyncFd<OwnedFd>,
    inbox: mpsc::Receiver<Request>,
    stopping: watch::Sender<Option<Stopping>>,
    spawning: HashMap<ProcessId, (String, oneshot::Sender<Result<Process, KeeperError>>)>,
    running: HashMap<ProcessId, process::Reporter>,
    keeper: Keeper,
}

impl Owner {
    async fn inventory(&mut self) -> Result<Inventory, KeeperError> {
        let mut hello = None;
        let mut held = HashMap::new();
        let mut processes = Vec::new();
        loop {
            let Some((message, mut descriptors)) = self.receive().await? else {
                return Err(KeeperError::Gone);
            };
            match message {
                FromKeeper::Hello {
                    version: _,
                    keeper_pid,
                    restarts,
                    reason,
                    reaps,
                    started_ms,
                } => {
                    hello = Some(Hello {
                        keeper_pid,
                        restarts,
                        reason,
                        reaps,
                        started_ms,
                    });
                }
                FromKeeper::Held { name } => {
                    if let Some(descriptor) = descriptors.pop() {
                        held.insert(name, descriptor);
                    }
                }
                FromKeeper::Process {
                    process,
                    name,
                    pid,
                    streams,
                    status,
                    gone,
                } => {
                    let (handle, reporter) = Process::new(
                        process,
                        name,
                        pid,
                        streams,
                        descriptors,
                        self.keeper.clone(),
                    )?;
                    if let Some(status) = status {
                        reporter.exited(status);
                    }
                    if gone {
                        reporter.gone();
                    }
                    self.running.insert(process, reporter);
                    processes.push(handle);
                }
                FromKeeper::InventoryEnd => break,
                other => self.handle(other, Vec::new()),
            }
        }
        let hello = hello.ok_or_else(|| std::io::Error::other("the keeper did not say hello"))?;
        Ok(Inventory {
            hello,
            held,
            processes,
        })
    }

    async fn run(mut self) {
        loop {
            tokio::select! {
                received = self.readiness.async_io(Interest::READABLE, |_| self.channel.receive()) => match received {
                    Ok(Some((message, descriptors))) => self.handle(message, descriptors),
                    Ok(None) => break,
                    // One bad packet; the channel goes on with the next.
                    Err(error) if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::Unsupported) => {
                        tracing::error!(%error, "a message of the keeper is not understood");
                    }
                    Err(error) => {
                        tracing::error!(%error, "the keeper cannot be heard");
                        break;
                    }
                },
                request = self.inbox.recv() => match request {
                    Some(request) => if let Err(error) = self.carry_out(request).await {
                        tracing::error!(%error, "the keeper could not be asked");
                        break;
                    },
                    None => break,
                },
            }
        }
        // Dropping the senders answers every waiter with `Gone`.
    }

    async fn receive(&self) -> std::io::Result<Option<(FromKeeper, Vec<OwnedFd>)>> {
        self.readiness
            .async_io(Interest::READABLE, |_| self.channel.receive())
            .await
    }

    async fn carry_out(&mut self, request: Request) -> std::io::Result<()> {
        let mut sent = None;
        let (message, descriptors) = match request {
            Request::Hold {
                name,
                descriptor,
                sent: waiting,
            } => {
                sent = Some(waiting);
                (ToKeeper::Hold { name }, vec![descriptor])
            }
            Request::Tell(message, descriptors) => {
                if let ToKeeper::Acknowledge { process } = &message {
                    self.running.remove(process);
                }
                (message, descriptors)
            }
            Request::EndNamed { name, grace_ms } => {
                let found = self
                    .running
                    .iter()
                    .find(|(_, reporter)| reporter.name() == name);
                let Some((process, _)) = found else {
                    return Ok(());
                };
                (
                    ToKeeper::End {
                        process: *process,
                        grace_ms,
                    },
                    Vec::new(),
                )
            }
            Request::Spawn {
                process,
                name,
                descriptors,
                answer,
            } => {
                self.spawning.insert(process, (name.clone(), answer));
                (ToKeeper::Spawn { process, name }, descriptors)
            }
        };
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.readiness
            .async_io(Interest::WRITABLE, |_| {
                self.channel.send(&message, &borrowed)
            })
            .await?;
        if let Some(sent) = sent {
            // Whoever asked may have given up waiting.
            let _ = sent.send(());
        }
        Ok(())
    }

    fn handle(&mut self, message: FromKeeper, descriptors: Vec<OwnedFd>) {
        match message {
            FromKeeper::Spawned {
                process,
                pid,
                streams,
            } => {
                let Some((name, answer)) = self.spawning.remove(&process) else {
                    return;
                };
                let result = Process::new(
                    process,
                    name,
                    pid,
                    streams,
                    descriptors,
                    self.keeper.clone(),
                )
                .map(|(handle, reporter)| {
                    self.running.insert(process, reporter);
                    handle
                });
                // A caller that gave up drops the handle here; the process lives and is in the next inventory.
                drop(answer.send(result.map_err(KeeperError::Channel)));
            }
            FromKeeper::SpawnFailed {
                process,
                step,
                errno,
            } => {
                if let Some((name, answer)) = self.spawning.remove(&process) {
                    let source = std::io::Error::from_raw_os_error(errno);
                    drop(answer.send(Err(KeeperError::Spawn { name, step, source })));
                }
            }
            FromKeeper::Exited { process, status } => {
                if let Some(reporter) = self.running.get(&process) {
                    reporter.exited(status);
                }
            }
            FromKeeper::Gone { process } => {
                if let Some(reporter) = self.running.get(&process) {
                    reporter.gone();
                }
            }
            FromKeeper::Stopping {
                signal,
                deadline_ms,
            } => {
                let deadline = tokio::time::Instant::now() + Duration::from_millis(deadline_ms);
                self.stopping
                    .send_replace(Some(Stopping { signal, deadline }));
            }
            FromKeeper::Refused { what } => tracing::error!(what, "the keeper refused a request"),
            FromKeeper::Hello { .. }
            | FromKeeper::Held { .. }
            | FromKeeper::Process { .. }
            | FromKeeper::InventoryEnd => {
                tracing::warn!("the keeper repeated its inventory");
            }
        }
    }
}
