//! A short program, as the agents' user, with a deadline.

#![expect(unsafe_code, reason = "pidfd_open has no safe wrapper here")]

use std::ffi::{OsStr, OsString};
use std::io::Read as _;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Subject;

/// Most bytes of output that are kept; what comes beyond is read and dropped, so that the program is not held up.
const MAX_OUTPUT: u64 = 64 * 1024;
/// How long output may take to end after its program did. Only a process that left the group can hold it open.
const DRAIN: Duration = Duration::from_secs(1);

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("{program} cannot be started: {source}")]
    Start {
        program: PathBuf,
        source: std::io::Error,
    },
    #[error("{program} gave no answer within {} s", deadline.as_secs())]
    Deadline {
        program: PathBuf,
        deadline: Duration,
    },
    #[error("{program} cannot be waited for: {source}")]
    Wait {
        program: PathBuf,
        source: std::io::Error,
    },
}

/// What a program answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: ExitStatus,
    pub(super) stdout: String,
}

/// Runs a program in the agents' user's home with a small environment of its own.
pub(super) fn run(
    subject: &Subject,
    program: &Path,
    arguments: &[&str],
    deadline: Duration,
) -> Result<Answer, RunError> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", &subject.path)
        .env("LANG", crate::config::environment::LANG);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .current_dir("/");
    if let Ok(user) = &subject.user {
        command.env("HOME", &user.home).env("USER", &user.name);
        if subject.separate() && subject.uid == 0 {
            // The standard library drops supplementary groups together with root.
            command.gid(user.gid).uid(user.uid);
        }
    }
    let failed = |source| RunError::Wait {
        program: program.to_owned(),
        source,
    };
    let mut child = command.spawn().map_err(|source| RunError::Start {
        program: program.to_owned(),
        source,
    })?;
    let output = read_aside(&mut child);
    let ended = wait(&child, deadline);
    // The child is not reaped yet, so its number still means its group.
    if let Ok(pid) = i32::try_from(child.id()) {
        match killpg(Pid::from_raw(pid), Signal::SIGKILL) {
            // EPERM: what is left changed its user.
            Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    let status = child.wait().map_err(failed)?;
    if !ended.map_err(failed)? {
        return Err(RunError::Deadline {
            program: program.to_owned(),
            deadline,
        });
    }
    let stdout = output.recv_timeout(DRAIN).unwrap_or_default();
    Ok(Answer {
        status,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
    })
}

/// Reads standard output to its end on a thread of its own.
fn read_aside(child: &mut Child) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::sync_channel(1);
    if let Some(mut stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            let read = stdout.by_ref().take(MAX_OUTPUT).read_to_end(&mut kept);
            if read.is_ok() && std::io::copy(&mut stdout, &mut std::io::sink()).is_ok() {
                // Nobody listens any more after the deadline.
                let _unheard = send.send(kept);
            }
        });
    }
    receive
}

/// Whether the child ended in time.
fn wait(child: &Child, deadline: Duration) -> std::io::Result<bool> {
    let pidfd = pidfd_open(child.id())?;
    let timeout = PollTimeout::try_from(deadline).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(
            &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A descriptor that becomes readable when the process ends (Linux 5.3).
pub(super) fn pidfd_open(pid: u32) -> std::io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)?;
    let fd = i32::try_from(fd).map_err(std::io::Error::other)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The first executable regular file of this name, as execvp would find it.
pub(super) fn find(path: &OsStr, name: &str) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    std::env::split_paths(path)
        .map(|directory| directory.join(name))
        .find(|candidate| {
            candidate.is_absolute()
                && std::fs::metadata(candidate)
                    .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

/// The directories of a search path, for messages.
pub(super) fn shown(path: &OsString) -> String {
    path.to_string_lossy().into_owned()
}
