//! One process that the keeper runs for us: its streams, its end, and run-to-completion for short ones.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use whim_entrypoint::wire::{Io, Launch, ProcessId, Stdin, Streams, ToKeeper};

use super::{Keeper, KeeperError, Output};

/// How long a process that was told to end may take before it is killed, when [`Keeper::run`] runs out of time.
const RUN_END_GRACE: Duration = Duration::from_secs(2);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// From a raw wait status (`wait(2)`).
    #[must_use]
    pub fn from_raw(status: i32) -> Self {
        let signal = status & 0x7f;
        if signal == 0 {
            Self::Code((status >> 8) & 0xff)
        } else {
            Self::Signal(signal)
        }
    }

    #[must_use]
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// As a shell reports it: 128 + N for signal N.
    #[must_use]
    pub fn code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(formatter, "{name}"),
                Err(_) => write!(formatter, "signal {signal}"),
            },
        }
    }
}

/// Handle to a process of the keeper's. Dropping it changes nothing for the process.
#[derive(Debug)]
pub struct Process {
    id: ProcessId,
    name: String,
    pid: i32,
    /// Taken by whoever consumes the output.
    pub io: ProcessIo,
    status: watch::Receiver<Option<Exit>>,
    gone: watch::Receiver<bool>,
    keeper: Keeper,
}

/// Streams of a process.
#[derive(Debug)]
pub enum ProcessIo {
    /// `master`: non-blocking, shared with the keeper, for input and size; the output comes from the ring.
    Terminal {
        master: OwnedFd,
        output: Output,
    },
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: Output,
        stderr: Output,
    },
    None,
}

/// Where the channel's task reports what happened to a process.
#[derive(Debug)]
pub(super) struct Reporter {
    name: String,
    status: watch::Sender<Option<Exit>>,
    gone: watch::Sender<bool>,
}

impl Reporter {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn exited(&self, status: i32) {
        self.status.send_replace(Some(Exit::from_raw(status)));
    }

    pub(super) fn gone(&self) {
        self.gone.send_replace(true);
    }
}

/// What a short process printed.
#[derive(Debug)]
pub struct Captured {
    pub exit: Exit,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Why a short process did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Keeper(#[from] KeeperError),
    #[error("{name} did not end within {} s", deadline.as_secs())]
    Deadline { name: String, deadline: Duration },
    #[error("{name} printed more than {limit} bytes")]
    TooMuch { name: String, limit: usize },
}

impl Process {
    pub(super) fn new(
        id: ProcessId,
        name: String,
        pid: i32,
        streams: Streams,
        descriptors: Vec<OwnedFd>,
        keeper: Keeper,
    ) -> std::io::Result<(Self, Reporter)> {
        let (status_sender, status) = watch::channel(None);
        let (gone_sender, gone) = watch::channel(false);
        let mut descriptors = descriptors.into_iter();
        let mut take = || {
            descriptors
                .next()
                .ok_or_else(|| std::io::Error::other("the keeper sent too few descriptors"))
        };
        let mut first = || match streams {
            Streams::Terminal | Streams::Pipes { stdin: true } => take().map(Some),
            Streams::Pipes { stdin: false } | Streams::None => Ok(None),
        };
        let first = first()?;
        let mut ring = || Output::new(&take()?, take()?, take()?, gone.clone());
        let io = match (streams, first) {
            (Streams::Terminal, Some(master)) => ProcessIo::Terminal {
                master,
                output: ring()?,
            },
            (Streams::Pipes { .. }, stdin) => ProcessIo::Pipes {
                stdin,
                stdout: ring()?,
                stderr: ring()?,
            },
            (Streams::Terminal | Streams::None, _) => ProcessIo::None,
        };
        let reporter = Reporter {
            name: name.clone(),
            status: status_sender,
            gone: gone_sender,
        };
        let process = Self {
            id,
            name,
            pid,
            io,
            status,
            gone,
            keeper,
        };
        Ok((process, reporter))
    }

    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.id
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As numbered in the container.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The end of the process itself; set once.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Option<Exit>> {
        self.status.clone()
    }

    /// True once nothing is left beneath it.
    #[must_use]
    pub fn gone(&self) -> watch::Receiver<bool> {
        self.gone.clone()
    }

    /// Waits for the end of the process itself.
    ///
    /// # Errors
    /// [`KeeperError::Gone`] when the keeper ends first.
    pub async fn wait(&self) -> Result<Exit, KeeperError> {
        let mut status = self.status.clone();
        let exit = status
            .wait_for(Option::is_some)
            .await
            .map_err(|_| KeeperError::Gone)?;
        (*exit).ok_or(KeeperError::Gone)
    }

    /// Sends a signal to the process, or with `tree` to its process group.
    ///
    /// # Errors
    /// [`KeeperError::Gone`].
    pub async fn signal(&self, signal: i32, tree: bool) -> Result<(), KeeperError> {
        self.keeper
            .tell(ToKeeper::Signal {
                process: self.id,
                signal,
                tree,
            })
            .await
    }

    /// Ends the process and everything it left, and waits until that is done.
    ///
    /// # Errors
    /// [`KeeperError::Gone`].
    pub async fn end(&self, grace: Duration) -> Result<(), KeeperError> {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.keeper
            .tell(ToKeeper::End {
                process: self.id,
                grace_ms,
            })
            .await?;
        let mut gone = self.gone.clone();
        gone.wait_for(|gone| *gone)
            .await
            .map_err(|_| KeeperError::Gone)?;
        Ok(())
    }

    /// The end was recorded: the keeper may forget the process and its output.
    ///
    /// # Errors
    /// [`KeeperError::Gone`].
    pub async fn acknowledge(&self) -> Result<(), KeeperError> {
        self.keeper
            .tell(ToKeeper::Acknowledge { process: self.id })
            .await
    }
}

impl Keeper {
    /// Runs a short process to its end and returns what it printed. `launch.io` must be pipes. On every way out the
    /// process and all it left have ended and are forgotten, but for one: whoever stops waiting (drops this future) does
    /// not wait for that either, it comes after.
    ///
    /// # Errors
    /// [`RunError::Deadline`] after `deadline`, [`RunError::TooMuch`] beyond `limit` bytes on one stream.
    pub async fn run(
        &self,
        name: &str,
        launch: &Launch,
        deadline: Duration,
        limit: usize,
    ) -> Result<Captured, RunError> {
        debug_assert_eq!(launch.io, Io::Pipes { stdin: Stdin::Null });
        // A task of its own: nobody else is there to end the process when its caller is not any more.
        let abandoned = CancellationToken::new();
        let guard = abandoned.clone().drop_guard();
        let (keeper, name, launch) = (self.clone(), name.to_owned(), launch.clone());
        let run = async move {
            keeper
                .see_through(name, launch, deadline, limit, abandoned)
                .await
        };
        let ended = tokio::spawn(run).await;
        drop(guard);
        // It does not panic; without a runtime there is no keeper's channel either.
        ended.unwrap_or(Err(RunError::Keeper(KeeperError::Gone)))
    }

    async fn see_through(
        self,
        name: String,
        launch: Launch,
        deadline: Duration,
        limit: usize,
        abandoned: CancellationToken,
    ) -> Result<Captured, RunError> {
        let mut process = self.spawn(&name, &launch, Vec::new()).await?;
        let io = std::mem::replace(&mut process.io, ProcessIo::None);
        let captured = tokio::select! {
            captured = tokio::time::timeout(deadline, capture(&process, io, limit)) => captured,
            // Nobody reads the answer.
            () = abandoned.cancelled() => Ok(Err(RunError::Keeper(KeeperError::Gone))),
        };
        if !*process.gone.borrow() {
            process.end(RUN_END_GRACE).await?;
        }
        process.acknowledge().await?;
        match captured {
            Ok(captured) => captured,
            Err(_) => Err(RunError::Deadline { name, deadline }),
        }
    }
}

async fn capture(process: &Process, io: ProcessIo, limit: usize) -> Result<Captured, RunError> {
    let ProcessIo::Pipes { stdout, stderr, .. } = io else {
        return Ok(Captured {
            exit: process.wait().await?,
            stdout: Vec::new(),
            stderr: Vec::new(),
        });
    };
    let (stdout, stderr) = tokio::try_join!(
        collect(process, stdout, limit),
        collect(process, stderr, limit)
    )?;
    Ok(Captured {
        exit: process.wait().await?,
        stdout,
        stderr,
    })
}

async fn collect(process: &Process, mut output: Output, limit: usize) -> Result<Vec<u8>, RunError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = output.next().await.map_err(KeeperError::Channel)? {
        if bytes.len() + chunk.bytes.len() > limit {
            return Err(RunError::TooMuch {
                name: process.name.clone(),
                limit,
            });
        }
        bytes.extend_from_slice(&chunk.bytes);
        output.acknowledge(output.position());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use whim_entrypoint::wire::{Channel, FromKeeper, KeeperChannel, pair};

    use super::*;

    /// The keeper's end, played by the test.
    struct Played {
        channel: KeeperChannel,
        readiness: AsyncFd<OwnedFd>,
    }

    impl Played {
        async fn with_supervisor() -> (Self, Keeper) {
            let (ours, theirs) = pair().unwrap();
            let channel = KeeperChannel::new(theirs).unwrap();
            let copy = channel.as_fd().try_clone_to_owned().unwrap();
            let readiness = crate::readiness::register(copy, Interest::READABLE).unwrap();
            let played = Self { channel, readiness };
            played.say(&FromKeeper::Hello {
                version: 1,
                keeper_pid: 1,
                restarts: 0,
                reason: String::new(),
                reaps: true,
                started_ms: 0,
            });
            played.say(&FromKeeper::InventoryEnd);
            let (keeper, _) = Keeper::connect(Channel::new(ours).unwrap()).await.unwrap();
            (played, keeper)
        }

        fn say(&self, message: &FromKeeper) {
            self.channel.send(message, &[]).unwrap();
        }

        async fn hear(&self) -> ToKeeper {
            let heard = self
                .readiness
                .async_io(Interest::READABLE, |_| self.channel.receive());
            heard.await.unwrap().unwrap().0
        }

        async fn asked_to_start(&self) -> ProcessId {
            match self.hear().await {
                ToKeeper::Spawn { process, .. } => process,
                other => panic!("{other:?}"),
            }
        }

        fn started(&self, process: ProcessId) {
            self.say(&FromKeeper::Spawned {
                process,
                pid: 7,
                streams: Streams::None,
            });
        }

        /// The process is ended and forgotten.
        async fn is_cleaned_up(&self, process: ProcessId) {
            let ended = self.hear().await;
            assert!(
                matches!(&ended, ToKeeper::End { process: told, .. } if *told == process),
                "{ended:?}"
            );
            self.say(&FromKeeper::Gone { process });
            assert_eq!(self.hear().await, ToKeeper::Acknowledge { process });
        }
    }

    fn run(keeper: &Keeper) -> tokio::task::JoinHandle<Result<Captured, RunError>> {
        let keeper = keeper.clone();
        let long = Duration::from_secs(600);
        tokio::spawn(async move { keeper.run("git", &Launch::of("git"), long, 1).await })
    }

    #[tokio::test]
    async fn a_run_that_nobody_waits_for_any_more_ends_its_process() {
        let (played, keeper) = Played::with_supervisor().await;
        // While it runs.
        let abandoned = run(&keeper);
        let process = played.asked_to_start().await;
        played.started(process);
        let seen = run(&keeper);
        let other = played.asked_to_start().await;
        abandoned.abort();
        played.is_cleaned_up(process).await;
        // While it is being started.
        seen.abort();
        played.started(other);
        played.is_cleaned_up(other).await;
        // One that is waited for is not disturbed.
        let kept = run(&keeper);
        let process = played.asked_to_start().await;
        played.started(process);
        played.say(&FromKeeper::Exited { process, status: 0 });
        played.say(&FromKeeper::Gone { process });
        let last = played.hear().await;
        assert!(
            matches!(last, ToKeeper::End { .. } | ToKeeper::Acknowledge { .. }),
            "{last:?}"
        );
        assert_eq!(kept.await.unwrap().unwrap().exit, Exit::Code(0));
    }
}
