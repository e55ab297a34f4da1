//! Starting a process: fork and exec of our own.
//!
//! Owns the way from a [`Launch`] to a running program with exactly the descriptors, credentials, limits and signal
//! state it should have. No library does it all: the exec error must survive the closing of descriptors, the slave of a
//! terminal must become the controlling one, blocked and ignored signals must not be inherited, and PID 1 must never
//! block on a program that hangs in `execve` (a stale network mount), so the outcome comes through a pipe that the
//! caller polls.
//!
//! Promises: everything that allocates happens before the fork; a failed step is reported with its name and errno.

mod child;
mod path;

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::unistd::{ForkResult, Pid, pipe2};

use crate::limits::Limits;
use crate::wire::{Credentials, Launch};

/// Most descriptors beyond the standard three: those of a launch, or those of a holder.
const MAX_EXTRA: usize = 8;

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    Launch = 1,
    Limit,
    Terminal,
    Pipe,
    Ring,
    Holder,
    Fork,
    Session,
    Descriptors,
    ControllingTerminal,
    Limits,
    OomScore,
    NoNewPrivileges,
    Groups,
    Gid,
    Uid,
    Directory,
    Exec,
}

impl Step {
    const ALL: [Self; 18] = [
        Self::Launch,
        Self::Limit,
        Self::Terminal,
        Self::Pipe,
        Self::Ring,
        Self::Holder,
        Self::Fork,
        Self::Session,
        Self::Descriptors,
        Self::ControllingTerminal,
        Self::Limits,
        Self::OomScore,
        Self::NoNewPrivileges,
        Self::Groups,
        Self::Gid,
        Self::Uid,
        Self::Directory,
        Self::Exec,
    ];

    /// As in [`FromKeeper::SpawnFailed`](crate::wire::FromKeeper::SpawnFailed).
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Limit => "limit",
            Self::Terminal => "openpty",
            Self::Pipe => "pipe",
            Self::Ring => "ring",
            Self::Holder => "holder",
            Self::Fork => "fork",
            Self::Session => "setsid",
            Self::Descriptors => "dup2",
            Self::ControllingTerminal => "TIOCSCTTY",
            Self::Limits => "setrlimit",
            Self::OomScore => "oom_score_adj",
            Self::NoNewPrivileges => "no_new_privs",
            Self::Groups => "setgroups",
            Self::Gid => "setgid",
            Self::Uid => "setuid",
            Self::Directory => "chdir",
            Self::Exec => "exec",
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == byte)
    }
}

/// A process that could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpawnError {
    pub(crate) step: Step,
    pub(crate) errno: Errno,
}

impl SpawnError {
    pub(crate) fn new(step: Step, errno: Errno) -> Self {
        Self { step, errno }
    }

    /// From an error that may carry no errno: then `EIO`.
    pub(crate) fn io(step: Step, error: &io::Error) -> Self {
        Self {
            step,
            errno: error.raw_os_error().map_or(Errno::EIO, Errno::from_raw),
        }
    }

    /// Five bytes, written in one go: less than `PIPE_BUF`, thus whole.
    pub(crate) fn to_bytes(self) -> [u8; 5] {
        let [a, b, c, d] = (self.errno as i32).to_ne_bytes();
        [self.step as u8, a, b, c, d]
    }

    pub(crate) fn from_bytes(bytes: [u8; 5]) -> Self {
        let [step, errno @ ..] = bytes;
        Self {
            step: Step::from_byte(step).unwrap_or(Step::Exec),
            errno: Errno::from_raw(i32::from_ne_bytes(errno)),
        }
    }
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step.name(), self.errno.desc())
    }
}

/// All that the child needs, made before the fork.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Paths to try in turn.
    program: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: CString,
    user: Option<&'a Credentials>,
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Make standard input the controlling terminal.
    pub(crate) controlling_terminal: bool,
    /// Further descriptors and the numbers they get.
    pub(crate) extra: Vec<(BorrowedFd<'a>, i32)>,
    /// Written to the child's `oom_score_adj` when higher than ours.
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) no_new_privs: bool,
    /// Put back before exec.
    pub(crate) limits: Option<Limits>,
    /// `cgroup.procs` that the child writes itself into.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, SpawnError> {
    CString::new(text).map_err(|_| SpawnError::new(Step::Launch, Errno::EINVAL))
}

impl<'a> Plan<'a> {
    /// A program of ours: `arguments` with argv\[0], empty environment, in `/`.
    pub(crate) fn own(
        program: &OsStr,
        arguments: &[&str],
        user: Option<&'a Credentials>,
        stdio: [BorrowedFd<'a>; 3],
    ) -> Result<Self, SpawnError> {
        Ok(Self {
            program: vec![c_string(program.as_bytes())?],
            arguments: arguments
                .iter()
                .map(|text| c_string(*text))
                .collect::<Result<_, _>>()?,
            environment: Vec::new(),
            directory: c_string("/")?,
            user,
            stdio,
            controlling_terminal: false,
            extra: Vec::new(),
            oom_score_adj: None,
            no_new_privs: false,
            limits: None,
            cgroup: None,
        })
    }

    /// What a supervisor asked for, without its descriptors.
    pub(crate) fn launch(
        launch: &'a Launch,
        stdio: [BorrowedFd<'a>; 3],
    ) -> Result<Self, SpawnError> {
        let environment = launch.environment.iter().map(|(name, value)| {
            let mut text = OsString::with_capacity(name.len() + value.len() + 2);
            text.push(name);
            text.push("=");
            text.push(value);
            c_string(text.as_bytes())
        });
        let arguments = launch
            .arguments
            .iter()
            .map(|text| c_string(text.as_bytes()));
        let program = path::candidates(&launch.program, launch.variable("PATH"));
        Ok(Self {
            program: program.map(c_string).collect::<Result<_, _>>()?,
            arguments: arguments.collect::<Result<_, _>>()?,
            environment: environment.collect::<Result<_, _>>()?,
            directory: c_string(launch.directory().as_os_str().as_bytes())?,
            user: launch.user.as_ref(),
            stdio,
            controlling_terminal: false,
            extra: Vec::new(),
            oom_score_adj: launch.oom_score_adj,
            no_new_privs: launch.no_new_privs,
            limits: None,
            cgroup: None,
        })
    }
}

/// A process between fork and the outcome of its exec.
#[derive(Debug)]
pub(crate) struct Starting {
    pub(crate) pid: Pid,
    report: OwnedFd,
}

impl Starting {
    /// The outcome once known: exec succeeded (the pipe closed), or a step failed. `None`: not yet; poll
    /// [`AsFd`](Self::as_fd) for readability.
    pub(crate) fn outcome(&self) -> Option<Result<(), SpawnError>> {
        let mut bytes = [0; 5];
        match nix::unistd::read(&self.report, &mut bytes) {
            Err(Errno::EAGAIN | Errno::EINTR) => None,
            Err(errno) => Some(Err(SpawnError::new(Step::Pipe, errno))),
            Ok(0) => Some(Ok(())),
            Ok(_) => Some(Err(SpawnError::from_bytes(bytes))),
        }
    }
}

impl AsFd for Starting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }
}

/// Forks. The child goes on alone; its outcome comes through [`Starting`].
///
/// # Errors
/// `limit` for too many descriptors, `pipe` and `fork`.
pub(crate) fn start(plan: &Plan<'_>) -> Result<Starting, SpawnError> {
    if plan.extra.len() > MAX_EXTRA {
        return Err(SpawnError::new(Step::Limit, Errno::E2BIG));
    }
    let (report, write) =
        pipe2(OFlag::O_CLOEXEC).map_err(|errno| SpawnError::new(Step::Pipe, errno))?;
    crate::descriptors::set_nonblocking(&report)
        .map_err(|errno| SpawnError::new(Step::Pipe, errno))?;
    let prepared = child::Prepared::new(plan, write.as_fd());
    match fork() {
        Ok(ForkResult::Parent { child }) => Ok(Starting { pid: child, report }),
        Ok(ForkResult::Child) => child::run(prepared),
        Err(errno) => Err(SpawnError::new(Step::Fork, errno)),
    }
}

#[expect(unsafe_code, reason = "fork")]
fn fork() -> nix::Result<ForkResult> {
    // SAFETY: keeper, holder and init have one thread, so no lock can be held by a thread that the child lacks; and the
    // child only makes system calls with memory prepared before.
    unsafe { nix::unistd::fork() }
}

/// The calling process' own `oom_score_adj`.
pub(crate) fn oom_score_adj() -> Option<i32> {
    let mut buffer = [0; 16];
    crate::procfs::read_into(c"/proc/self/oom_score_adj", &mut buffer)
        .and_then(|bytes| std::str::from_utf8(bytes).ok()?.trim().parse().ok())
}

/// Null-terminated array of pointers into `strings`, for `execve`.
fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|text| text.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}
