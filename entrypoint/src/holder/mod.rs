//! `whim hold NAME`: the subreaper above one session.
//!
//! Owns the session's leader and everything it leaves behind: as child subreaper every descendant stays below it, however
//! often it forked and whatever session it made. Runs as the agents' user, so it works without root too.
//!
//! Promises: the leader's exit is reported at once, `Gone` when no process is left; when the keeper goes away it ends
//! everything by itself. It holds nothing worth stealing (the launch came through a memfd that is closed by then) and is
//! undumpable, so that the agent, which has the same uid, can kill but not inspect it.
//!
//! What it cannot do: end processes that became another user (sudo). The keeper sees them when `Gone` does not come.

pub(crate) mod report;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use crate::descriptors;
use crate::log;
use crate::resident;
use crate::signals;
use crate::spawn::{self, Plan, SpawnError, Starting, Step};
use crate::tree::{Ending, Snapshot};
use crate::wait::{self, Dead};
use crate::wire::{Io, Launch, MAX_LAUNCH, read_memfd};
use report::{FromHolder, HolderChannel, ToHolder};

/// Numbers of the descriptors that the keeper gives: the socket, the launch, the leader's three streams, and where a
/// cgroup could be made its `cgroup.procs`.
pub(crate) const SOCKET: i32 = 3;
pub(crate) const LAUNCH: i32 = 4;
pub(crate) const STREAMS: [i32; 3] = [5, 6, 7];
pub(crate) const CGROUP: i32 = 8;

/// How long what a leader left behind has between TERM and KILL when nobody says otherwise.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);

/// Why a holder could not take up its work.
#[derive(Debug)]
enum HolderError {
    /// A descriptor that the keeper gives is missing: started by hand.
    NotFromKeeper(i32),
    Setup(&'static str, Errno),
}

impl fmt::Display for HolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFromKeeper(number) => write!(
                f,
                "descriptor {number} is missing: only `whim run` starts a holder"
            ),
            Self::Setup(step, errno) => write!(f, "{step}: {errno}"),
        }
    }
}

struct Holder {
    keeper: HolderChannel,
    keeper_gone: bool,
    signals: SignalFd,
    leader: i32,
    starting: Option<Starting>,
    reaped: bool,
    failed: bool,
    end_with_leader: bool,
    ending: Option<Ending>,
}

/// Runs until nothing is left. Exit code 64 when not started by a keeper, 70 when it could not set itself up.
pub(crate) fn run() -> ExitCode {
    match hold() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ HolderError::NotFromKeeper(_)) => {
            log::line(format_args!("hold: {error}"));
            ExitCode::from(64)
        }
        Err(error) => {
            log::line(format_args!("hold: {error}"));
            ExitCode::from(70)
        }
    }
}

fn hold() -> Result<(), HolderError> {
    let at = |step| move |errno| HolderError::Setup(step, errno);
    nix::sys::prctl::set_dumpable(false).map_err(at("PR_SET_DUMPABLE"))?;
    let missing = |number| move |_| HolderError::NotFromKeeper(number);
    let keeper = descriptors::inherited(SOCKET).map_err(missing(SOCKET))?;
    let memory = descriptors::inherited(LAUNCH).map_err(missing(LAUNCH))?;
    let [input, output, error] =
        STREAMS.map(|number| descriptors::inherited(number).map_err(missing(number)));
    let streams = [input?, output?, error?];
    let cgroup = descriptors::inherited(CGROUP).ok();
    let keeper = HolderChannel::new(keeper).map_err(|_| HolderError::NotFromKeeper(SOCKET))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(at("PR_SET_CHILD_SUBREAPER"))?;
    let signals = signals::take_all().map_err(at("signalfd"))?;
    let started = start_leader(memory, &streams, cgroup.as_ref().map(AsFd::as_fd));
    // From here on only the leader has its streams: the end of a terminal or pipe must not wait for us.
    drop((streams, cgroup));
    let mut holder = match started {
        Ok((starting, end_with_leader)) => Holder {
            keeper,
            keeper_gone: false,
            signals,
            leader: starting.pid.as_raw(),
            starting: Some(starting),
            reaped: false,
            failed: false,
            end_with_leader,
            ending: None,
        },
        Err(error) => {
            if let Err(error) = keeper.send(&FromHolder::Failed(error), &[]) {
                log::line(format_args!("hold: report: {error}"));
            }
            return Ok(());
        }
    };
    while holder.turn() {}
    Ok(())
}

fn start_leader(
    memory: OwnedFd,
    streams: &[OwnedFd; 3],
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(Starting, bool), SpawnError> {
    let bytes =
        read_memfd(&memory, MAX_LAUNCH).map_err(|error| SpawnError::io(Step::Launch, &error))?;
    let mut launch =
        Launch::decode(&bytes).map_err(|_| SpawnError::new(Step::Launch, Errno::EINVAL))?;
    // The keeper made us this user already.
    launch.user = None;
    let [input, output, error] = streams;
    let mut plan = Plan::launch(&launch, [input.as_fd(), output.as_fd(), error.as_fd()])?;
    plan.controlling_terminal = matches!(launch.io, Io::Terminal { .. });
    plan.cgroup = cgroup;
    Ok((spawn::start(&plan)?, launch.end_with_leader))
}

impl Holder {
    /// One round of the loop; false when there is nothing left to hold.
    fn turn(&mut self) -> bool {
        self.check_start();
        if !self.reap() {
            if !self.failed {
                self.report(FromHolder::Gone);
            }
            return false;
        }
        let due = self.step_ending();
        self.wait(due);
        while let Some(_signal) = signals::next(&self.signals) {
            // Only SIGCHLD means something, and every turn reaps. Others come from the session's own user and must not
            // end its holder.
        }
        self.listen();
        true
    }

    fn report(&mut self, message: FromHolder) {
        if self.keeper_gone {
            return;
        }
        // Four small packets at most in a holder's life: they always fit the socket.
        if let Err(error) = self.keeper.send(&message, &[]) {
            log::line(format_args!("hold: report: {error}"));
        }
    }

    fn check_start(&mut self) {
        match self.starting.as_ref().and_then(Starting::outcome) {
            None => {}
            Some(Ok(())) => {
                self.starting = None;
                self.report(FromHolder::Started { pid: self.leader });
                // What the start needed is not needed again.
                if let Err(error) = resident::forget_code() {
                    log::line(format_args!("hold: cannot give back memory: {error}"));
                }
            }
            Some(Err(error)) => {
                self.starting = None;
                (self.reaped, self.failed) = (true, true);
                self.report(FromHolder::Failed(error));
            }
        }
    }

    /// Takes all zombies away; false when there are no children, thus no descendants at all.
    fn reap(&mut self) -> bool {
        loop {
            match wait::dead_child() {
                Dead::None => return true,
                Dead::NoChildren => return false,
                Dead::Child(pid) => {
                    if pid == self.leader {
                        // It is dead, so the outcome of its exec is in the pipe.
                        self.check_start();
                    }
                    let status = wait::reap(pid);
                    if let (true, false, Some(status)) = (pid == self.leader, self.reaped, status) {
                        self.reaped = true;
                        self.report(FromHolder::Exited { status });
                        if self.end_with_leader {
                            self.end(LEFTOVER_GRACE);
                        }
                    }
                }
            }
        }
    }

    fn end(&mut self, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match &mut self.ending {
            Some(ending) => ending.hurry(kill_at),
            None => self.ending = Some(Ending::new(kill_at)),
        }
    }

    /// That nobody is left shows in [`reap`](Self::reap), so a death is no reason to look.
    fn step_ending(&mut self) -> Option<Instant> {
        let own = nix::unistd::getpid().as_raw();
        self.ending
            .as_mut()?
            .step(Instant::now(), false, || Snapshot::take().below(own))
    }

    fn wait(&self, due: Option<Instant>) {
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if !self.keeper_gone {
            fds.push(PollFd::new(self.keeper.as_fd(), PollFlags::POLLIN));
        }
        if let Some(starting) = &self.starting {
            fds.push(PollFd::new(starting.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, timeout_until(due)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => log::line(format_args!("hold: poll: {errno}")),
        }
    }

    fn listen(&mut self) {
        while !self.keeper_gone {
            match self.keeper.receive() {
                Ok(Some((ToHolder::Signal { signal, group }, _))) => {
                    // Until it is reaped the leader's pid, and its group's number, are its own.
                    if !self.reaped {
                        let target = if group { -self.leader } else { self.leader };
                        if let Err(errno) = signals::kill(target, signal) {
                            log::line(format_args!("hold: signal {signal} to {target}: {errno}"));
                        }
                    }
                }
                Ok(Some((ToHolder::End { grace_ms }, _))) => {
                    self.end(Duration::from_millis(grace_ms))
                }
                Ok(None) => self.keeper_lost(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::line(format_args!("hold: {error}"));
                    self.keeper_lost();
                }
            }
        }
    }

    fn keeper_lost(&mut self) {
        self.keeper_gone = true;
        self.end(LEFTOVER_GRACE);
    }
}

/// For `poll`: rounded up, so that what is due at the deadline is due when it returns.
pub(crate) fn timeout_until(due: Option<Instant>) -> PollTimeout {
    let Some(due) = due else {
        return PollTimeout::NONE;
    };
    let left = due.saturating_duration_since(Instant::now());
    let milliseconds = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}
