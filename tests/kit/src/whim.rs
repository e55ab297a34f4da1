//! A `whim run` that a test started: its files, its processes, its end, and the end of what it left behind.
//!
//! A [`crate::Run`] says how to start one: as root or as an ordinary user, as PID 1 of a namespace of its own or beside
//! everything else, with all capabilities or with those that Docker gives by default. Ports are free ones, the control
//! token is known, the environment holds nothing that was not given. Output goes to files, so a chatty program never
//! blocks on its test. Dropping a [`Whim`] kills it and everything that inherited its mark in the environment.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::client::{Client, ClientError};
use crate::proc;
use crate::root::Root;
use crate::run::MARK;
use crate::wait::{self, FileError, TimedOut};

/// Why a run failed to do what the test wants of it.
#[derive(Debug, thiserror::Error)]
pub enum WhimError {
    /// A file of the run.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// The program (or `unshare`, `setpriv` in front of it) cannot be started.
    #[error("cannot start {program}: {source}")]
    Start { program: String, source: io::Error },
    /// It did not come up; with what it printed.
    #[error("not ready: {source}\n{output}")]
    NotReady { source: FileError, output: String },
    /// It did not end; with what it printed.
    #[error("{source}\n{output}")]
    NotEnded { source: TimedOut, output: String },
    /// Its process cannot be asked about.
    #[error("cannot wait for the process: {0}")]
    Wait(io::Error),
    /// The signal could not be sent.
    #[error("cannot send {signal} to {pid}: {source}")]
    Signal {
        signal: Signal,
        pid: i32,
        source: nix::Error,
    },
    /// No such process.
    #[error("no {0} process")]
    NoProcess(&'static str),
    /// No client for its API.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// What `ready.json` says.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// The keeper's, as numbered in its namespace.
    pub pid: i32,
    pub generation: SocketAddr,
    pub local: SocketAddr,
    pub backup: SocketAddr,
    pub ui: SocketAddr,
}

/// A loopback address for one that stands for all; no client is at home there, and a host check would refuse its name.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
    }
    address
}

/// A running whim.
#[derive(Debug)]
pub struct Whim {
    child: Child,
    namespace: bool,
    root: Root,
    logs: tempfile::TempDir,
    mark: String,
    token: String,
    status: Option<ExitStatus>,
}

impl Whim {
    pub(crate) fn started(
        child: Child,
        namespace: bool,
        root: Root,
        logs: tempfile::TempDir,
        mark: String,
        token: String,
    ) -> Self {
        Self {
            child,
            namespace,
            root,
            logs,
            mark,
            token,
            status: None,
        }
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Its control token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Waits for `ready.json`.
    ///
    /// # Errors
    /// When it is not written within the limit; the error shows what was printed.
    pub fn ready(&self, limit: Duration) -> Result<Ready, WhimError> {
        let path = self.root.at("/run/whim/ready.json");
        wait::file(&path, limit, |content| serde_json::from_str(content).ok()).map_err(|source| {
            WhimError::NotReady {
                source,
                output: self.output(),
            }
        })
    }

    /// A client of the people's port (7681), with the control token.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn client(&self, limit: Duration) -> Result<Client, WhimError> {
        Ok(Client::tcp(reachable(self.ready(limit)?.ui))?.bearer(&self.token))
    }

    /// A client of the platform's port (8081), with the control token.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub fn platform(&self, limit: Duration) -> Result<Client, WhimError> {
        Ok(Client::tcp(reachable(self.ready(limit)?.backup))?.bearer(&self.token))
    }

    /// What it has printed: standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.log("stdout")
    }

    /// What it has printed: standard error.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.log("stderr")
    }

    /// Both, for messages.
    #[must_use]
    pub fn output(&self) -> String {
        format!("--- stdout\n{}--- stderr\n{}", self.stdout(), self.stderr())
    }

    fn log(&self, name: &str) -> String {
        fs::read(self.logs.path().join(name)).map_or_else(
            |error| format!("({error})\n"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// The keeper's pid, as numbered here.
    ///
    /// # Errors
    /// When it has ended, or `unshare` has not got so far yet.
    pub fn keeper(&self) -> Result<i32, WhimError> {
        let pid = self.pid();
        if !self.namespace {
            return if proc::alive(pid) {
                Ok(pid)
            } else {
                Err(WhimError::NoProcess("keeper"))
            };
        }
        let children = proc::children(pid);
        children
            .first()
            .map(|child| child.pid)
            .ok_or(WhimError::NoProcess("keeper"))
    }

    /// The supervisor's pid, as numbered here.
    ///
    /// # Errors
    /// When there is none at the moment.
    pub fn supervisor(&self) -> Result<i32, WhimError> {
        self.part("supervise")
            .ok_or(WhimError::NoProcess("supervisor"))
    }

    /// The helper's pid, as numbered here.
    ///
    /// # Errors
    /// When there is none at the moment: it is started when it is needed.
    pub fn helper(&self) -> Result<i32, WhimError> {
        self.part("helper").ok_or(WhimError::NoProcess("helper"))
    }

    /// The pid of the holder of this session or terminal, as numbered here.
    ///
    /// # Errors
    /// When there is none.
    pub fn holder(&self, id: &str) -> Result<i32, WhimError> {
        let keeper = self.keeper()?;
        let holds = |arguments: &[String]| {
            arguments
                .iter()
                .skip(1)
                .map(String::as_str)
                .take(2)
                .eq(["hold", id])
        };
        let children = proc::children(keeper);
        let holder = children
            .into_iter()
            .find(|child| holds(&proc::arguments(child.pid)));
        holder
            .map(|process| process.pid)
            .ok_or(WhimError::NoProcess("holder"))
    }

    fn part(&self, role: &str) -> Option<i32> {
        let children = proc::children(self.keeper().ok()?);
        children
            .into_iter()
            .find(|child| {
                proc::arguments(child.pid)
                    .get(1)
                    .is_some_and(|own| own == role)
            })
            .map(|child| child.pid)
    }

    /// Sends a signal to the keeper.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), WhimError> {
        let pid = self.keeper()?;
        kill(Pid::from_raw(pid), signal).map_err(|source| WhimError::Signal {
            signal,
            pid,
            source,
        })
    }

    /// Waits for its end; the exit code as a shell shows it (128+N for a signal).
    ///
    /// # Errors
    /// When it has not ended within the limit; the error shows what was printed.
    pub fn ended(&mut self, limit: Duration) -> Result<i32, WhimError> {
        let child = &mut self.child;
        let mut broken = None;
        let ended = wait::until("whim's end", limit, || match child.try_wait() {
            Ok(status) => status.map(Some),
            Err(error) => {
                broken = Some(error);
                Some(None)
            }
        });
        if let Some(error) = broken {
            return Err(WhimError::Wait(error));
        }
        match ended {
            Ok(Some(status)) => {
                self.status = Some(status);
                Ok(status
                    .code()
                    .or_else(|| status.signal().map(|signal| 128 + signal))
                    .unwrap_or(-1))
            }
            Ok(None) => Err(WhimError::NoProcess("whim")),
            Err(source) => Err(WhimError::NotEnded {
                source,
                output: self.output(),
            }),
        }
    }

    /// The `whim` command of the same binary against this run, such as `status`; owner by the control token.
    #[must_use]
    pub fn whim(&self, binary: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary);
        command.args(arguments).env_clear().stdin(Stdio::null());
        command
            .env("WHIM_ROOT", self.root.path())
            .env("WHIM_CONTROL_TOKEN", &self.token)
            .env("LANG", "C.UTF-8");
        command
    }

    fn pid(&self) -> i32 {
        // Linux numbers processes below 2^22.
        i32::try_from(self.child.id()).unwrap_or(i32::MAX)
    }
}

impl Drop for Whim {
    fn drop(&mut self) {
        if self.status.is_none() {
            // The keeper first: the kernel forgets what `unshare --kill-child` asked for when its child becomes another
            // user, and a namespace ends with its first process. Either may just have ended.
            if let Ok(keeper) = self.keeper() {
                let _gone = kill(Pid::from_raw(keeper), Signal::SIGKILL);
            }
            drop(self.child.kill());
            drop(self.child.wait());
        }
        let all_gone = wait::until(
            "the end of what whim left behind",
            Duration::from_secs(5),
            || {
                let left = proc::with_variable(MARK, &self.mark);
                for process in &left {
                    // One that has just ended is what is wanted; the next look tells.
                    let _gone = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
                }
                left.is_empty().then_some(())
            },
        );
        if let (Err(left), false) = (all_gone, std::thread::panicking()) {
            panic!("{left}");
        }
    }
}
