#![expect(
    unsafe_code,
    reason = "what a forked child may call is the system call interface"
)]
//! Between fork and exec.
//!
//! Only async-signal-safe calls on memory that [`Prepared::new`] set up before the fork. Order matters: the terminal
//! before the session can lose it, descriptors closed before the process may become dumpable, limits and
//! `oom_score_adj` while we still have the privilege, credentials before the directory (it must be reachable as the
//! user), the signal mask last.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{Gid, Uid};

use super::{MAX_EXTRA, Plan, SpawnError, Step, pointers};
use crate::limits::Limits;

/// Standard three, further ones, report pipe, cgroup.
const MAX_MOVES: usize = 3 + MAX_EXTRA;

/// The plan as raw numbers and pointers.
pub(super) struct Prepared<'a> {
    candidates: &'a [CString],
    argv: Vec<*const libc::c_char>,
    /// argv of the shell that runs a script without an interpreter line: `sh`, the script, the rest.
    script_argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    directory: &'a CStr,
    credentials: Option<(Uid, Gid, Vec<Gid>)>,
    moves: [(RawFd, RawFd); MAX_MOVES],
    move_count: usize,
    highest_target: RawFd,
    controlling_terminal: bool,
    oom_score_adj: Option<Vec<u8>>,
    privileged: bool,
    no_new_privs: bool,
    limits: Option<Limits>,
    cgroup: Option<RawFd>,
    report: RawFd,
}

impl<'a> Prepared<'a> {
    pub(super) fn new(plan: &'a Plan<'_>, report: BorrowedFd<'_>) -> Self {
        let mut moves = [(-1, -1); MAX_MOVES];
        let standard = plan.stdio.iter().map(AsRawFd::as_raw_fd).zip(0..);
        let extra = plan
            .extra
            .iter()
            .map(|(fd, target)| (fd.as_raw_fd(), *target));
        let mut move_count = 0;
        for (slot, wanted) in moves.iter_mut().zip(standard.chain(extra)) {
            *slot = wanted;
            move_count += 1;
        }
        let argv = pointers(&plan.arguments);
        let mut script_argv = vec![c"/bin/sh".as_ptr(), std::ptr::null()];
        script_argv.extend(argv.iter().skip(1));
        if script_argv.len() < 3 {
            script_argv.push(std::ptr::null());
        }
        let raise = |wanted: &i32| super::oom_score_adj().is_some_and(|current| *wanted > current);
        let credentials = plan.user.map(|user| {
            let groups = user
                .groups
                .iter()
                .map(|group| Gid::from_raw(*group))
                .collect();
            (Uid::from_raw(user.uid), Gid::from_raw(user.gid), groups)
        });
        Self {
            candidates: &plan.program,
            argv,
            script_argv,
            envp: pointers(&plan.environment),
            directory: &plan.directory,
            credentials,
            highest_target: plan
                .extra
                .iter()
                .map(|(_, target)| *target)
                .fold(2, RawFd::max),
            moves,
            move_count,
            controlling_terminal: plan.controlling_terminal,
            oom_score_adj: plan
                .oom_score_adj
                .filter(raise)
                .map(|wanted| wanted.to_string().into_bytes()),
            privileged: nix::unistd::geteuid().is_root(),
            no_new_privs: plan.no_new_privs,
            limits: plan.limits,
            cgroup: plan.cgroup.map(|fd| fd.as_fd().as_raw_fd()),
            report: report.as_raw_fd(),
        }
    }
}

/// Becomes the program, or reports why not and ends.
pub(super) fn run(mut prepared: Prepared<'_>) -> ! {
    let Err((step, errno)) = become_program(&mut prepared);
    let bytes = SpawnError::new(step, errno).to_bytes();
    // SAFETY: `bytes` is valid for its length. Nobody is left to tell when the parent's end is gone.
    let _reported = unsafe { libc::write(prepared.report, bytes.as_ptr().cast(), bytes.len()) };
    // SAFETY: ends the process without running what the parent registered to run at exit.
    unsafe { libc::_exit(127) }
}

type Failure = (Step, Errno);

fn at<T>(step: Step, result: nix::Result<T>) -> Result<T, Failure> {
    result.map_err(|errno| (step, errno))
}

fn become_program(p: &mut Prepared<'_>) -> Result<std::convert::Infallible, Failure> {
    at(Step::Session, nix::unistd::setsid())?;
    place_descriptors(p)?;
    if p.controlling_terminal {
        // SAFETY: an ioctl on our standard input that takes an integer.
        let result = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        at(Step::ControllingTerminal, Errno::result(result))?;
    }
    if let Some(limits) = &p.limits {
        at(Step::Limits, limits.apply())?;
    }
    close_others(p);
    if let Some(score) = &p.oom_score_adj {
        // The file belongs to root while we are undumpable. By now no descriptor of the parent's is open here.
        if !p.privileged {
            at(Step::OomScore, nix::sys::prctl::set_dumpable(true))?;
        }
        at(
            Step::OomScore,
            write_file(c"/proc/self/oom_score_adj", score),
        )?;
    }
    if p.no_new_privs {
        at(Step::NoNewPrivileges, nix::sys::prctl::set_no_new_privs())?;
    }
    if let Some((uid, gid, groups)) = &p.credentials {
        at(Step::Groups, nix::unistd::setgroups(groups))?;
        at(Step::Gid, nix::unistd::setresgid(*gid, *gid, *gid))?;
        at(Step::Uid, nix::unistd::setresuid(*uid, *uid, *uid))?;
    }
    // SAFETY: changes a number of this process.
    let _previous = unsafe { libc::umask(0o022) };
    at(Step::Directory, nix::unistd::chdir(p.directory))?;
    default_signals();
    at(
        Step::Exec,
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None),
    )?;
    Err((Step::Exec, exec(p)))
}

/// Puts every descriptor at its number. A source may sit at the target of another, so all are first moved out of the
/// way.
fn place_descriptors(p: &mut Prepared<'_>) -> Result<(), Failure> {
    let beyond = p.highest_target + 1;
    p.report = at(Step::Descriptors, duplicate(p.report, beyond))?;
    if let Some(cgroup) = p.cgroup {
        // By now: the descriptor is closed below. A process outside its cgroup is still found by its holder.
        // SAFETY: one byte from a static string.
        let _joined = unsafe { libc::write(cgroup, c"0".as_ptr().cast(), 1) };
    }
    let moves = p.moves.get_mut(..p.move_count).unwrap_or_default();
    for (source, _) in moves.iter_mut() {
        *source = at(Step::Descriptors, duplicate(*source, beyond))?;
    }
    for (source, target) in moves {
        // SAFETY: both are numbers of this process; whatever is at the target was moved away if it is needed.
        let result = unsafe { libc::dup2(*source, *target) };
        at(Step::Descriptors, Errno::result(result))?;
    }
    Ok(())
}

fn duplicate(fd: RawFd, least: RawFd) -> nix::Result<RawFd> {
    // SAFETY: makes a new number for an open descriptor.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, least) })
}

/// Closes all but the targets and the report pipe. On kernels without `close_range` (before 5.9) exec closes the rest:
/// everything of the parent's is closed on exec.
fn close_others(p: &Prepared<'_>) {
    let moves = p.moves.get(..p.move_count).unwrap_or_default();
    for number in 3..=p.highest_target {
        if !moves.iter().any(|(_, target)| *target == number) {
            // SAFETY: nobody uses this number any more.
            let _closed = unsafe { libc::close(number) };
        }
    }
    close_range(p.highest_target + 1, p.report - 1);
    close_range(p.report + 1, RawFd::MAX);
}

fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: nobody uses these numbers any more.
        let _closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

fn write_file(path: &CStr, content: &[u8]) -> nix::Result<()> {
    // SAFETY: the path is null-terminated.
    let fd = Errno::result(unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) })?;
    // SAFETY: `content` is valid for its length.
    let written = Errno::result(unsafe { libc::write(fd, content.as_ptr().cast(), content.len()) });
    // SAFETY: opened above.
    let _closed = unsafe { libc::close(fd) };
    written.map(drop)
}

/// By the system call, because libc refuses to touch its own two signals, which a parent may have left ignored.
fn default_signals() {
    /// A kernel `sigaction` of zeros is `SIG_DFL`; large enough for every architecture's.
    const DEFAULT: [u64; 8] = [0; 8];
    /// Bytes of the kernel's signal set.
    const SET: usize = 8;
    let none = std::ptr::null_mut::<u64>();
    for signal in 1..=64 {
        // SAFETY: the new action is valid for reading, the old one is not asked for. KILL and STOP are refused.
        let _refused =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), none, SET) };
    }
}

/// As `execvpe`: a directory that may not be searched does not end the search, but is what is reported if nothing else
/// is found; a file without an interpreter line is a shell script.
fn exec(p: &mut Prepared<'_>) -> Errno {
    let mut denied = false;
    let mut last = Errno::ENOENT;
    for candidate in p.candidates {
        // SAFETY: path and both arrays are null-terminated and outlive the call.
        let _never = unsafe { libc::execve(candidate.as_ptr(), p.argv.as_ptr(), p.envp.as_ptr()) };
        last = Errno::last();
        match last {
            Errno::ENOEXEC => {
                if let Some(script) = p.script_argv.get_mut(1) {
                    *script = candidate.as_ptr();
                }
                // SAFETY: as above.
                let _never = unsafe {
                    libc::execve(c"/bin/sh".as_ptr(), p.script_argv.as_ptr(), p.envp.as_ptr())
                };
                return Errno::ENOEXEC;
            }
            Errno::EACCES => denied = true,
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            other => return other,
        }
    }
    if denied { Errno::EACCES } else { last }
}
