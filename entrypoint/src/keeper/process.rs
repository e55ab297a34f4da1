//! One process that a supervisor asked for, from its request to its acknowledgement.
//!
//! Owns its descriptors, its pids and its status. Signals go to a pid only while the process is not reaped, so never to
//! a stranger with the same number.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::holding::Holder;
use super::output::Output;
use super::token::Token;
use crate::holder::report::{FromHolder, ToHolder};
use crate::log;
use crate::procfs;
use crate::signals::kill;
use crate::spawn::{SpawnError, Starting, Step};
use crate::tree::Ending;
use crate::wait;
use crate::wire::{FromKeeper, ProcessId, Streams};

/// How much longer than its grace a holder gets to end everything before the keeper, who may do more, does it.
const HOLDER_PATIENCE: Duration = Duration::from_secs(1);
/// TERM to KILL for what a killed holder leaves to us.
const ORPHAN_GRACE: Duration = Duration::from_secs(2);

/// What the present supervisor knows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Told {
    pub(super) started: bool,
    pub(super) exited: bool,
    pub(super) gone: bool,
}

/// Where standard streams lead.
#[derive(Debug)]
pub(super) enum Streaming {
    Terminal {
        output: Output,
        /// Kept open while the program lives, so that a terminal that nobody has open for a moment is not one that
        /// ended.
        slave: Option<OwnedFd>,
    },
    Pipes {
        stdin: Option<OwnedFd>,
        output: Output,
        error: Output,
    },
    None,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Starting,
    Running,
    Failed(SpawnError),
}

/// What a child of ours is to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Leader,
    Holder,
}

#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: ProcessId,
    pub(super) name: String,
    /// Which supervisor asked for it.
    pub(super) generation: u32,
    /// Our own child: the holder, or without one the process itself.
    child: i32,
    child_reaped: bool,
    starting: Option<Starting>,
    phase: Phase,
    /// The process itself; 0 until a holder has told.
    leader: i32,
    pub(super) status: Option<i32>,
    tree_gone: bool,
    pub(super) holder: Option<Holder>,
    pub(super) streaming: Streaming,
    /// When to KILL what was asked to end.
    kill_at: Option<Instant>,
    /// Our own ending of what a holder cannot end, or left to us.
    pub(super) sweep: Option<Ending>,
    pub(super) acknowledged: bool,
    pub(super) told: Told,
}

impl Process {
    pub(super) fn new(
        id: ProcessId,
        name: String,
        generation: u32,
        starting: Starting,
        holder: Option<Holder>,
        streaming: Streaming,
    ) -> Self {
        let child = starting.pid.as_raw();
        Self {
            id,
            name,
            generation,
            child,
            child_reaped: false,
            starting: Some(starting),
            phase: Phase::Starting,
            leader: if holder.is_some() { 0 } else { child },
            status: None,
            tree_gone: false,
            holder,
            streaming,
            kill_at: None,
            sweep: None,
            acknowledged: false,
            told: Told::default(),
        }
    }

    pub(super) fn register(&mut self, epoll: &Epoll, slot: u32) -> nix::Result<()> {
        let input = |token: Token| EpollEvent::new(EpollFlags::EPOLLIN, token.encode());
        if let Some(starting) = &self.starting {
            epoll.add(starting, input(Token::Start(slot)))?;
        }
        if let Some(holder) = &self.holder {
            epoll.add(&holder.handle, input(Token::Holder(slot)))?;
        }
        match &mut self.streaming {
            Streaming::Terminal { output, .. } => output.register(epoll, slot, 0),
            Streaming::Pipes { output, error, .. } => {
                output.register(epoll, slot, 0)?;
                error.register(epoll, slot, 1)
            }
            Streaming::None => Ok(()),
        }
    }

    /// Takes what others hold copies of out of the epoll set; the rest goes when it is closed.
    pub(super) fn unregister(&mut self, epoll: &Epoll) {
        for output in self.outputs() {
            output.unregister(epoll);
        }
    }

    pub(super) fn outputs(&mut self) -> impl Iterator<Item = &mut Output> {
        let (first, second) = match &mut self.streaming {
            Streaming::Terminal { output, .. } => (Some(output), None),
            Streaming::Pipes { output, error, .. } => (Some(output), Some(error)),
            Streaming::None => (None, None),
        };
        first.into_iter().chain(second)
    }

    pub(super) fn pid(&self) -> i32 {
        self.leader
    }

    /// Our child, while it is not reaped.
    pub(super) fn child(&self) -> Option<i32> {
        (!self.child_reaped).then_some(self.child)
    }

    /// The leader, once a killed holder has left it to us.
    pub(super) fn adopted_leader(&self) -> Option<i32> {
        let orphaned = self.holder.as_ref().is_some_and(|holder| !holder.alive);
        (orphaned && self.leader != 0 && self.status.is_none()).then_some(self.leader)
    }

    pub(super) fn role(&self, pid: i32) -> Option<Role> {
        if self.child() == Some(pid) {
            Some(if self.holder.is_some() {
                Role::Holder
            } else {
                Role::Leader
            })
        } else if self.adopted_leader() == Some(pid) {
            Some(Role::Leader)
        } else {
            None
        }
    }

    /// Whether it will run is not decided yet.
    pub(super) fn starting(&self) -> bool {
        matches!(self.phase, Phase::Starting)
    }

    pub(super) fn running(&self) -> bool {
        matches!(self.phase, Phase::Running)
    }

    pub(super) fn failed(&self) -> Option<SpawnError> {
        match self.phase {
            Phase::Failed(error) => Some(error),
            Phase::Starting | Phase::Running => None,
        }
    }

    fn fail(&mut self, error: SpawnError) {
        self.phase = Phase::Failed(error);
        self.tree_gone = true;
    }

    /// Nobody is left beneath it, itself included.
    pub(super) fn over(&self) -> bool {
        self.tree_gone
    }

    /// Over, and its output is wholly in the rings.
    pub(super) fn gone(&mut self) -> bool {
        self.over() && self.outputs().all(|output| output.ended())
    }

    /// Looks whether exec happened. With a holder this is the holder's own exec; the leader's comes as a report.
    pub(super) fn check_start(&mut self) {
        let Some(outcome) = self.starting.as_ref().and_then(Starting::outcome) else {
            return;
        };
        self.starting = None;
        match outcome {
            Ok(()) if self.holder.is_none() => self.phase = Phase::Running,
            Ok(()) => {}
            Err(error) if self.holder.is_none() => self.fail(error),
            Err(error) => {
                log::line(format_args!("{}: holder: {error}", self.name));
                self.fail(SpawnError::new(Step::Holder, error.errno));
            }
        }
    }

    /// Takes in what the holder says, up to nothing more.
    pub(super) fn listen(&mut self, epoll: &Epoll) {
        loop {
            let Some(holder) = &self.holder else { return };
            match holder.handle.receive() {
                Ok(Some((message, _))) => self.holder_says(message),
                Ok(None) => {
                    // Its exit comes as SIGCHLD; until then an end of file would be reported without end.
                    if let Err(errno) = epoll.delete(&holder.handle)
                        && errno != Errno::ENOENT
                    {
                        log::line(format_args!("epoll: holder: {errno}"));
                    }
                    return;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::line(format_args!("{}: holder: {error}", self.name));
                    return;
                }
            }
        }
    }

    /// A child of the holder's, or one that ended and was reaped since.
    fn may_be_leader(&self, pid: i32) -> bool {
        pid > 1 && procfs::stat(pid).is_none_or(|stat| stat.parent == self.child)
    }

    fn holder_says(&mut self, message: FromHolder) {
        match message {
            FromHolder::Started { pid } if self.leader == 0 && self.may_be_leader(pid) => {
                self.leader = pid;
                self.phase = Phase::Running;
                if let Some(holder) = &mut self.holder {
                    holder.leader_started(pid);
                }
            }
            FromHolder::Failed(error) if self.leader == 0 => self.fail(error),
            FromHolder::Exited { status } if self.leader != 0 && self.status.is_none() => {
                self.leader_ended(status)
            }
            FromHolder::Gone if self.status.is_some() || self.failed().is_some() => {
                self.tree_gone = true
            }
            // The holder runs as the agents' user: what makes no sense is not believed.
            _ => log::line(format_args!(
                "{}: holder said {message:?} out of turn",
                self.name
            )),
        }
    }

    fn leader_ended(&mut self, status: i32) {
        self.status = Some(status);
        if let Streaming::Terminal { slave, .. } = &mut self.streaming {
            *slave = None;
        }
    }

    /// Just before the zombie goes: the last moment at which its group is surely its own.
    pub(super) fn before_reaping(&mut self, role: Role) {
        if role == Role::Leader && self.holder.is_none() && self.kill_at.is_some() {
            // ESRCH: it was alone.
            let _alone = kill(-self.child, libc::SIGKILL);
        }
    }

    /// Our child `pid` is reaped.
    pub(super) fn child_ended(&mut self, role: Role, status: i32, epoll: &Epoll) {
        self.check_start();
        match role {
            Role::Leader => {
                if self.holder.is_none() {
                    self.child_reaped = true;
                    self.tree_gone = true;
                }
                if self.failed().is_none() {
                    self.leader_ended(status);
                }
            }
            Role::Holder => {
                // Its last reports may still be in the socket.
                self.listen(epoll);
                self.child_reaped = true;
                if let Some(holder) = &mut self.holder {
                    holder.alive = false;
                }
                if !self.tree_gone {
                    let end = wait::End::from_raw(status);
                    log::line(format_args!(
                        "{}: its holder ended ({end:?}): ending what it held",
                        self.name
                    ));
                    self.sweep = Some(Ending::new(Instant::now() + ORPHAN_GRACE));
                }
            }
        }
    }

    /// The sweep after a killed holder found nobody. A status that the holder took with it counts as killed.
    pub(super) fn swept(&mut self) {
        self.sweep = None;
        if self.child_reaped {
            if self.leader == 0 {
                self.fail(SpawnError::new(Step::Holder, Errno::ECHILD));
            } else if self.status.is_none() {
                self.leader_ended(libc::SIGKILL);
            }
            self.tree_gone = true;
        }
    }

    pub(super) fn signal(&mut self, signal: i32, group: bool) {
        match &self.holder {
            Some(holder) if holder.alive => {
                if let Err(error) = holder.handle.send(&ToHolder::Signal { signal, group }, &[]) {
                    log::line(format_args!(
                        "{}: signal {signal}: holder: {error}",
                        self.name
                    ));
                }
            }
            Some(_) => {
                // Only what the kernel really gave to us: the number came from a holder.
                let own = nix::unistd::getpid().as_raw();
                let ours = |pid: &i32| procfs::stat(*pid).is_some_and(|stat| stat.parent == own);
                if let Some(leader) = self.adopted_leader().filter(ours) {
                    report_kill(
                        &self.name,
                        kill(if group { -leader } else { leader }, signal),
                    );
                }
            }
            None if self.child_reaped => {}
            None => {
                let result = if group {
                    kill(-self.child, signal)
                } else {
                    kill(self.child, signal)
                };
                // Before its setsid the group does not exist.
                let result = if group && result == Err(Errno::ESRCH) {
                    kill(self.child, signal)
                } else {
                    result
                };
                report_kill(&self.name, result);
            }
        }
    }

    /// TERM now, KILL after `grace`.
    pub(super) fn end(&mut self, now: Instant, grace: Duration) {
        if self.over() {
            return;
        }
        let kill_at = now.checked_add(grace).unwrap_or(now);
        let kill_at = self.kill_at.map_or(kill_at, |earlier| earlier.min(kill_at));
        let first = self.kill_at.replace(kill_at).is_none();
        if let Some(sweep) = &mut self.sweep {
            sweep.hurry(kill_at);
        }
        match &self.holder {
            Some(holder) if holder.alive => {
                let grace_ms = u64::try_from(kill_at.saturating_duration_since(now).as_millis())
                    .unwrap_or(u64::MAX);
                if let Err(error) = holder.handle.send(&ToHolder::End { grace_ms }, &[]) {
                    log::line(format_args!("{}: end: holder: {error}", self.name));
                }
            }
            Some(_) => {}
            None if first => {
                self.signal(libc::SIGTERM, true);
                self.signal(libc::SIGCONT, true);
            }
            None => {}
        }
    }

    /// When the next forced step of an ending is due.
    pub(super) fn due(&self) -> Option<Instant> {
        if self.over() || self.sweep.is_some() {
            return None;
        }
        let patience = if self.holder.is_some() {
            HOLDER_PATIENCE
        } else {
            Duration::ZERO
        };
        self.kill_at.map(|at| at + patience)
    }

    /// The grace of an ending is over.
    pub(super) fn force(&mut self, now: Instant) {
        if let Some(holder) = &self.holder {
            holder.kill_cgroup();
            self.sweep = Some(Ending::new(now));
            self.kill_at = Some(now);
        } else {
            self.signal(libc::SIGKILL, true);
            // An uninterruptible wait ends when it ends; ask again then.
            self.kill_at = Some(now + Duration::from_secs(1));
        }
    }

    pub(super) fn streams(&self) -> Streams {
        match &self.streaming {
            Streaming::Terminal { .. } => Streams::Terminal,
            Streaming::Pipes { stdin, .. } => Streams::Pipes {
                stdin: stdin.is_some(),
            },
            Streaming::None => Streams::None,
        }
    }

    /// Closes our copy of the write end of its standard input; false when there is none.
    pub(super) fn close_stdin(&mut self) -> bool {
        match &mut self.streaming {
            Streaming::Pipes { stdin, .. } => stdin.take().is_some(),
            Streaming::Terminal { .. } | Streaming::None => false,
        }
    }

    /// In the order that [`FromKeeper::Spawned`] fixes.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match &self.streaming {
            Streaming::Terminal { output, .. } => std::iter::once(output.source())
                .chain(output.ring.descriptors())
                .collect(),
            Streaming::Pipes {
                stdin,
                output,
                error,
            } => {
                let stdin = stdin.iter().map(AsFd::as_fd);
                stdin
                    .chain(output.ring.descriptors())
                    .chain(error.ring.descriptors())
                    .collect()
            }
            Streaming::None => Vec::new(),
        }
    }

    /// The whole of it, for a supervisor that did not ask for it.
    pub(super) fn description(&mut self) -> FromKeeper {
        FromKeeper::Process {
            process: self.id,
            name: self.name.clone(),
            pid: self.leader,
            streams: self.streams(),
            status: self.status,
            gone: self.gone(),
        }
    }
}

fn report_kill(name: &str, result: nix::Result<()>) {
    match result {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => log::line(format_args!("{name}: kill: {errno}")),
    }
}
