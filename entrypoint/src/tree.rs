//! Ending a set of processes wholly.
//!
//! Owns the order: stop everything until a look at `/proc` finds nothing new (a stopped process cannot fork away from
//! us), TERM, CONT, wait, and at the end of the grace KILL until a look finds nothing. Which processes belong is the
//! caller's: it selects them from each scan.
//!
//! Promises: a signal meets the process that was selected and not one that got its pid since (pidfd, then start time).
//! A process that ignores TERM but not HUP, as interactive shells do, is told by HUP: what a closing terminal says.
//!
//! At the bounds: stopping takes at most [`MAX_ROUNDS`] looks (a fork bomb is then killed running); killing goes on at
//! growing intervals until the caller gives up, because a process in an uninterruptible wait dies when that ends.

#![expect(unsafe_code, reason = "pidfd system calls")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use crate::procfs::{self, Stat};
use crate::signals::kill;

/// Most looks at `/proc` in one go.
const MAX_ROUNDS: usize = 64;
/// First and longest interval between rounds of killing.
const KILL_INTERVAL: Duration = Duration::from_millis(20);
const MAX_KILL_INTERVAL: Duration = Duration::from_secs(1);

/// One ending under way.
#[derive(Debug)]
pub(crate) struct Ending {
    kill_at: Instant,
    phase: Phase,
    /// When there is something to do; `None`: at once.
    due: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Terminate,
    Wait,
    Kill { interval: Duration },
}

impl Ending {
    /// TERM at the first [`step`](Self::step), KILL at `kill_at`.
    pub(crate) fn new(kill_at: Instant) -> Self {
        Self {
            kill_at,
            phase: Phase::Terminate,
            due: None,
        }
    }

    /// Brings the KILL forward; a later time changes nothing.
    pub(crate) fn hurry(&mut self, kill_at: Instant) {
        self.kill_at = self.kill_at.min(kill_at);
        self.due = self.due.map(|due| due.min(kill_at));
    }

    /// Does what is due. `select` gives the living members by a new scan; `died`: somebody did, so it is worth a look
    /// whether anybody is left even before something is due. `None`: nobody is left. Otherwise when to come again at the
    /// latest.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        died: bool,
        mut select: impl FnMut() -> Vec<Stat>,
    ) -> Option<Instant> {
        if let Some(due) = self.due
            && now < due
        {
            return (!died || !select().is_empty()).then_some(due);
        }
        if now >= self.kill_at && !matches!(self.phase, Phase::Kill { .. }) {
            self.phase = Phase::Kill {
                interval: KILL_INTERVAL,
            };
        }
        let (anybody, due) = match self.phase {
            Phase::Terminate => {
                let anybody = terminate(&mut select);
                self.phase = Phase::Wait;
                (anybody, self.kill_at)
            }
            Phase::Wait => (!select().is_empty(), self.kill_at),
            Phase::Kill { interval } => {
                let kill = |member: &Stat| signal_exactly(member, libc::SIGKILL);
                let anybody = !every_member(&mut select, kill).is_empty();
                self.phase = Phase::Kill {
                    interval: (interval * 2).min(MAX_KILL_INTERVAL),
                };
                (anybody, now + interval)
            }
        };
        self.due = Some(due);
        anybody.then_some(due)
    }
}

/// Stops everybody, asks everybody to end and lets them go on; false when there is nobody.
fn terminate(select: &mut impl FnMut() -> Vec<Stat>) -> bool {
    let members = every_member(select, |member| signal_exactly(member, libc::SIGSTOP));
    for member in &members {
        signal_exactly(member, ending_signal(member.pid));
    }
    for member in &members {
        signal_exactly(member, libc::SIGCONT);
    }
    !members.is_empty()
}

/// Looks until a look finds nothing new, and does `act` once to each member.
fn every_member(select: &mut impl FnMut() -> Vec<Stat>, mut act: impl FnMut(&Stat)) -> Vec<Stat> {
    let mut seen: Vec<Stat> = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let known = seen.len();
        for member in select() {
            let known = |other: &Stat| other.pid == member.pid && other.start == member.start;
            if !seen.iter().any(known) {
                act(&member);
                seen.push(member);
            }
        }
        if seen.len() == known {
            break;
        }
    }
    seen
}

fn ending_signal(pid: i32) -> i32 {
    let told_by_hangup = procfs::status(pid)
        .is_some_and(|status| status.ignores(libc::SIGTERM) && !status.ignores(libc::SIGHUP));
    if told_by_hangup {
        libc::SIGHUP
    } else {
        libc::SIGTERM
    }
}

/// Signals the process that `member` describes, if it still is that one. A failure is left to the caller's next look:
/// the process is gone (fine) or not ours to signal (then it stays, and whoever may kill it sees it).
pub(crate) fn signal_exactly(member: &Stat, signal: i32) {
    let result = match open(member.pid) {
        Ok(pidfd) => {
            // The pidfd holds on to the process; now see whether it is the right one.
            let right = procfs::stat(member.pid).is_some_and(|now| now.start == member.start);
            if right { send(&pidfd, signal) } else { Ok(()) }
        }
        Err(Errno::ENOSYS) => kill(member.pid, signal),
        Err(errno) => Err(errno),
    };
    match result {
        Ok(()) | Err(Errno::ESRCH | Errno::EPERM) => {}
        Err(errno) => crate::log::line(format_args!(
            "signal {signal} to process {}: {errno}",
            member.pid
        )),
    }
}

fn open(pid: i32) -> nix::Result<OwnedFd> {
    // SAFETY: takes two integers and returns a descriptor.
    let number = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    let number = i32::try_from(number).map_err(|_| Errno::EBADF)?;
    // SAFETY: just made, owned by nobody else; pidfds are closed on exec.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn send(pidfd: &OwnedFd, signal: i32) -> nix::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no siginfo is passed, so the kernel makes one as for kill.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            none,
            0,
        )
    })
    .map(drop)
}

/// Parentage within one scan.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// By rising pid.
    processes: Vec<Stat>,
}

impl Snapshot {
    pub(crate) fn take() -> Self {
        Self {
            processes: procfs::scan(),
        }
    }

    fn parent(&self, pid: i32) -> Option<i32> {
        let index = self
            .processes
            .binary_search_by_key(&pid, |process| process.pid)
            .ok()?;
        self.processes.get(index).map(|process| process.parent)
    }

    /// Whether `pid` is a descendant of `root`. A scan is not atomic, so parentage may loop: bounded by its length.
    pub(crate) fn is_below(&self, pid: i32, root: i32) -> bool {
        let mut ancestor = pid;
        for _ in 0..=self.processes.len() {
            match self.parent(ancestor) {
                Some(parent) if parent == root => return true,
                Some(parent) if parent > 0 => ancestor = parent,
                _ => return false,
            }
        }
        false
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = &Stat> {
        self.processes.iter().filter(|process| process.alive())
    }

    /// Living descendants of `root`.
    pub(crate) fn below(&self, root: i32) -> Vec<Stat> {
        self.living()
            .filter(|process| self.is_below(process.pid, root))
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(pid: i32, parent: i32) -> Stat {
        Stat {
            pid,
            state: b'S',
            parent,
            session: 1,
            start: 1,
        }
    }

    #[test]
    fn descendants_are_found_through_living_parents_and_loops_end() {
        let processes = vec![
            stat(2, 1),
            stat(3, 2),
            stat(4, 3),
            stat(5, 1),
            stat(8, 9),
            stat(9, 8),
        ];
        let snapshot = Snapshot { processes };
        assert_eq!(
            snapshot
                .below(2)
                .iter()
                .map(|process| process.pid)
                .collect::<Vec<_>>(),
            [3, 4]
        );
        assert!(!snapshot.is_below(5, 2));
        assert!(!snapshot.is_below(8, 2));
    }

    #[test]
    fn a_process_that_only_has_the_pid_is_spared() {
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let member = procfs::stat(pid).unwrap();
        signal_exactly(
            &Stat {
                start: member.start + 1,
                ..member
            },
            libc::SIGKILL,
        );
        assert!(child.try_wait().unwrap().is_none());
        signal_exactly(&member, libc::SIGKILL);
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&child.wait().unwrap()),
            Some(libc::SIGKILL)
        );
    }
}
