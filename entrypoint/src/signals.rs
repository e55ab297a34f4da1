//! Signals as something to poll.

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Faults of the process itself: blocking them would only change how it dies.
pub(crate) const FAULTS: [Signal; 7] = [
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGABRT,
    Signal::SIGTRAP,
    Signal::SIGSYS,
];

/// Blocks everything but the faults and gives what is blocked to a non-blocking signalfd.
///
/// # Errors
/// Those of `sigprocmask` and `signalfd`.
pub(crate) fn take_all() -> nix::Result<SignalFd> {
    let mut set = SigSet::all();
    for fault in FAULTS {
        set.remove(fault);
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The next pending signal's number.
pub(crate) fn next(signals: &SignalFd) -> Option<i32> {
    match signals.read_signal() {
        Ok(Some(info)) => i32::try_from(info.ssi_signo).ok(),
        Ok(None) => None,
        Err(errno) => {
            crate::log::line(format_args!("read of signalfd: {errno}"));
            None
        }
    }
}

/// `kill` by number, real-time signals included. A negative `pid` names a process group.
///
/// # Errors
/// Those of `kill`.
#[expect(unsafe_code, reason = "nix knows no real-time signals")]
pub(crate) fn kill(pid: i32, signal: i32) -> nix::Result<()> {
    // SAFETY: takes two integers.
    nix::errno::Errno::result(unsafe { libc::kill(pid, signal) }).map(drop)
}
