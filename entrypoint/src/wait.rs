#![expect(
    unsafe_code,
    reason = "nix turns a death by a real-time signal into an error, so waitid and waitpid are called directly"
)]
//! The one place that waits for children.

use nix::errno::Errno;
use nix::libc;

/// What there is to reap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dead {
    /// A zombie child. It keeps its pid, and a group it leads keeps its number, until [`reap`].
    Child(i32),
    /// Children live, none is dead.
    None,
    /// No children at all.
    NoChildren,
}

/// Looks for a dead child and leaves it in place.
pub(crate) fn dead_child() -> Dead {
    loop {
        // SAFETY: all-zero bytes are a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: `info` is valid for writing.
        let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
        match Errno::result(result) {
            Ok(_) => {
                // SAFETY: waitid filled in the fields of SIGCHLD, or left zero.
                let pid = unsafe { info.si_pid() };
                return if pid == 0 {
                    Dead::None
                } else {
                    Dead::Child(pid)
                };
            }
            Err(Errno::EINTR) => {}
            // Only ECHILD is left: the arguments are constants.
            Err(_) => return Dead::NoChildren,
        }
    }
}

/// Takes the zombie `pid` away and gives its raw wait status.
pub(crate) fn reap(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    let result = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    (result == pid).then_some(status)
}

/// How a raw wait status ended: the exit code or the signal's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Code(u8),
    Signal(i32),
}

impl End {
    pub(crate) fn from_raw(status: i32) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
        }
    }

    /// As shells report it: 128 + N for signal N.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }
}
