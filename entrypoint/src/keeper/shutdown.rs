//! The ordered end.
//!
//! TERM to everything but the supervisor at once; KILL two seconds before the end of the grace, so that what remains of
//! it belongs to the final flush; the supervisor, and what it starts for the flush, has until the deadline. Finished
//! early when all is gone and flushed. A second TERM or INT kills everything at once. In the end every process that is
//! left is killed: as PID 1 the whole namespace, otherwise every descendant.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;

use super::Keeper;
use crate::Part;
use crate::log;
use crate::procfs::Stat;
use crate::signals::kill;
use crate::tree::{Ending, Snapshot};
use crate::wait::{self, Dead};
use crate::wire::{FINAL_STATE_DIRECTORY, FromKeeper};

/// Default of `--grace`: fits into `docker stop`'s 10 s.
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(8);
/// KILL comes this much before the deadline (half the grace when that is shorter).
const FLUSH_MARGIN: Duration = Duration::from_secs(2);
/// A supervisor that said `Flushed` may take this long to exit when nothing else is left to wait for.
const FLUSHED_PATIENCE: Duration = Duration::from_millis(500);
/// A supervisor that died during the end is started again for the flush if this much time is left.
const RESTART_MARGIN: Duration = Duration::from_secs(1);
/// How long the last sweep may take.
const LAST_SWEEP: Duration = Duration::from_millis(500);
/// Exit code after a second TERM.
const KILLED: u8 = 137;

/// An ordered end under way.
#[derive(Debug)]
pub(super) struct Stop {
    signal: i32,
    code: u8,
    deadline: Instant,
    /// What no request started: orphans, shells of `docker exec`.
    strays: Option<Ending>,
    strays_due: Option<Instant>,
    flushed: Option<Instant>,
    restarted: bool,
    finished: bool,
}

impl Stop {
    /// For the supervisor; the deadline in milliseconds from now.
    pub(super) fn announcement(&self, now: Instant) -> FromKeeper {
        let left = self.deadline.saturating_duration_since(now).as_millis();
        FromKeeper::Stopping {
            signal: self.signal,
            deadline_ms: u64::try_from(left).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn due(&self) -> Instant {
        let mut due = self.deadline;
        if let Some(flushed) = self.flushed {
            due = due.min(flushed + FLUSHED_PATIENCE);
        }
        self.strays_due.map_or(due, |strays| due.min(strays))
    }
}

impl Keeper {
    /// Begins the end, or with a second signal finishes it at once. `signal` 0: the supervisor asked for it.
    ///
    /// A container that is told to end has done so when it ended, so its code is 0. Work that a signal interrupts is not
    /// done: its code is what the supervisor says of it, or 128 and the signal.
    pub(super) fn stop_in_order(&mut self, signal: i32, code: u8, now: Instant) {
        if let Some(stop) = &mut self.stop {
            if signal != 0 && stop.signal != 0 {
                log::line(format_args!("second signal {signal}: killing everything"));
                stop.code = KILLED;
                stop.finished = true;
            } else if signal != 0 {
                stop.signal = signal;
            } else if (stop.signal == 0 || self.identity.part == Part::Restore) && !stop.finished {
                stop.code = code;
            }
            return;
        }
        let code = match self.identity.part {
            Part::Restore if signal != 0 => u8::try_from(128 + signal).unwrap_or(KILLED),
            Part::Restore | Part::Run => code,
        };
        let deadline = now.checked_add(self.grace).unwrap_or(now + DEFAULT_GRACE);
        let kill_at = deadline
            .checked_sub(FLUSH_MARGIN.min(self.grace / 2))
            .unwrap_or(now);
        let grace = kill_at.saturating_duration_since(now);
        for (_, process) in self.table.iter_mut() {
            process.end(now, grace);
        }
        self.stop = Some(Stop {
            signal,
            code,
            deadline,
            strays: Some(Ending::new(kill_at)),
            strays_due: Some(now),
            flushed: None,
            restarted: false,
            finished: false,
        });
        // One that waits for its turn would wait through the flush.
        self.supervisor.hurry(now);
    }

    pub(super) fn flushed(&mut self, now: Instant) {
        if let Some(stop) = &mut self.stop {
            stop.flushed.get_or_insert(now);
        }
    }

    /// The supervisor ended and the end is under way: started once more if it still owes the flush.
    pub(super) fn supervisor_ended_while_stopping(&mut self, now: Instant) {
        let Some(stop) = &mut self.stop else { return };
        let time = stop.deadline.saturating_duration_since(now) >= RESTART_MARGIN;
        if stop.flushed.is_none() && stop.signal_or_crash() && time && !stop.restarted {
            stop.restarted = true;
            self.supervisor.hurry(now);
        } else {
            self.supervisor.no_more();
        }
    }

    /// Does what is due; the exit code when all is done.
    pub(super) fn step_stop(&mut self, now: Instant) -> Option<u8> {
        let (own, died) = (self.identity.pid, self.died);
        let stop = self.stop.as_mut()?;
        if stop.finished || now >= stop.deadline {
            return Some(self.finish());
        }
        let mut strays = stop.strays.take();
        let mut due = None;
        if let Some(ending) = &mut strays {
            // Those see to their own: holders and our children by their endings, the supervisor until the deadline.
            let children = self.table.iter().filter_map(|process| process.child());
            let spared: Vec<i32> = children.chain(self.supervisor.pid()).collect();
            let init = self.identity.init;
            due = ending.step(now, died, || strangers(own, init, &spared));
            if due.is_none() {
                strays = None;
            }
        }
        let stop = self.stop.as_mut()?;
        (stop.strays, stop.strays_due) = (strays, due);
        let quiet = stop.strays.is_none() && self.table.iter().all(|process| process.over());
        let flushed = stop
            .flushed
            .is_some_and(|since| now >= since + FLUSHED_PATIENCE);
        let supervisor_over =
            self.supervisor.running().is_none() && self.supervisor.due().is_none();
        (quiet && (supervisor_over || flushed)).then(|| self.finish())
    }

    /// Kills and reaps whatever is left, and writes the last word.
    pub(super) fn finish(&mut self) -> u8 {
        let code = self.stop.as_ref().map_or(0, |stop| stop.code);
        self.supervisor.kill();
        if self.identity.init {
            // ESRCH: nobody is left.
            let _left = kill(-1, libc::SIGKILL);
        }
        let own = self.identity.pid;
        let end = Instant::now() + LAST_SWEEP;
        let mut ending = Ending::new(Instant::now());
        loop {
            while let Dead::Child(pid) = wait::dead_child() {
                if wait::reap(pid).is_none() {
                    break;
                }
            }
            let now = Instant::now();
            let due = ending.step(now, true, || strangers(own, self.identity.init, &[]));
            let Some(due) = due.filter(|_| now < end) else {
                break;
            };
            self.wait_for_child(due.min(end));
        }
        if let Some(directory) = self.held.get(FINAL_STATE_DIRECTORY)
            && let Err(error) = super::final_state::write_stopped(directory)
        {
            log::line(format_args!("cannot write the final state: {error}"));
        }
        code
    }

    fn wait_for_child(&self, until: Instant) {
        use std::os::fd::AsFd;
        let mut fds = [nix::poll::PollFd::new(
            self.signals.as_fd(),
            nix::poll::PollFlags::POLLIN,
        )];
        match nix::poll::poll(&mut fds, crate::holder::timeout_until(Some(until))) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => log::line(format_args!("poll: {errno}")),
        }
        while crate::signals::next(&self.signals).is_some() {}
    }
}

impl Stop {
    fn signal_or_crash(&self) -> bool {
        // A supervisor that asked for the end itself has decided what it still wants to do.
        self.signal != 0
    }
}

/// Living processes that are neither we, nor spared, nor below somebody spared.
fn strangers(own: i32, init: bool, spared: &[i32]) -> Vec<Stat> {
    let snapshot = Snapshot::take();
    let ours =
        |process: &&Stat| process.pid != own && (init || snapshot.is_below(process.pid, own));
    let free = |process: &&Stat| {
        !spared
            .iter()
            .any(|root| process.pid == *root || snapshot.is_below(process.pid, *root))
    };
    snapshot
        .living()
        .filter(ours)
        .filter(free)
        .copied()
        .collect()
}
