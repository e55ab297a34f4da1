//! The supervisor's process: started, watched, started again.
//!
//! Owns its pid and our end of its channel. There is at most one at a time; what it was told is forgotten with it, since
//! a new one gets the whole inventory.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};

use super::launching::SELF;
use super::oom;
use super::restart::{Exit, Policy, Verdict, reason};
use super::token::Token;
use crate::Part;
use crate::descriptors::standard;
use crate::log;
use crate::signals::kill;
use crate::spawn::{self, Plan, SpawnError, Starting, Step};
use crate::wait::End;
use crate::wire::{KeeperChannel, SUPERVISOR_DESCRIPTOR, pair};

/// How long a supervisor that closed its channel may take to exit; without it it is of no use.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);

/// Counts as its exit code when it could not be executed at all: an internal error.
const EXEC_FAILED: u8 = 70;

/// A running supervisor.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pid: i32,
    pub(super) channel: Option<KeeperChannel>,
    starting: Option<Starting>,
    exec_failed: bool,
    ready: Option<Instant>,
    upgrading: bool,
    oom_kills: Option<u64>,
    kill_at: Option<Instant>,
}

#[derive(Debug)]
enum State {
    Running(Running),
    Waiting {
        until: Instant,
    },
    /// No more of them.
    Over,
}

#[derive(Debug)]
pub(super) struct Supervisor {
    part: Part,
    state: State,
    policy: Policy,
    /// From an upgrade; `None`: our own file.
    program: Option<PathBuf>,
    /// How many were started.
    starts: u32,
    reason: String,
    /// Since when none is ready.
    unready_since: Instant,
}

/// What an exit means to the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Again,
    GiveUp(u8),
}

impl Supervisor {
    pub(super) fn new(part: Part, now: Instant) -> Self {
        Self {
            part,
            state: State::Waiting { until: now },
            policy: Policy::default(),
            program: None,
            starts: 0,
            reason: String::new(),
            unready_since: now,
        }
    }

    pub(super) fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            State::Waiting { .. } | State::Over => None,
        }
    }

    fn running_mut(&mut self) -> Option<&mut Running> {
        match &mut self.state {
            State::Running(running) => Some(running),
            State::Waiting { .. } | State::Over => None,
        }
    }

    pub(super) fn pid(&self) -> Option<i32> {
        self.running().map(|running| running.pid)
    }

    pub(super) fn channel(&self) -> Option<&KeeperChannel> {
        self.running()?.channel.as_ref()
    }

    /// Numbers the supervisors, from 1.
    pub(super) fn generation(&self) -> u32 {
        self.starts
    }

    /// For the greeting: how many there were before, and how the last one ended.
    pub(super) fn history(&self) -> (u32, &str) {
        (self.starts.saturating_sub(1), &self.reason)
    }

    /// Since when no supervisor is ready; `None`: one is.
    pub(super) fn unready_since(&self) -> Option<Instant> {
        let ready = self
            .running()
            .is_some_and(|running| running.ready.is_some());
        (!ready).then_some(self.unready_since)
    }

    pub(super) fn is_ready(&mut self, now: Instant) {
        if let Some(running) = self.running_mut() {
            running.ready.get_or_insert(now);
        }
    }

    pub(super) fn upgrade(&mut self, path: &Path) {
        self.program = Some(path.to_owned());
        if let Some(running) = self.running_mut() {
            running.upgrading = true;
        }
    }

    /// When [`step`](Self::step) has something to do.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Running(running) => running.kill_at,
            State::Waiting { until } => Some(*until),
            State::Over => None,
        }
    }

    /// Starts the next one when its time has come; true when one was started. Kills one that hangs without a channel.
    pub(super) fn step(&mut self, epoll: &Epoll, now: Instant) -> bool {
        match &mut self.state {
            State::Running(running) if running.kill_at.is_some_and(|at| now >= at) => {
                running.kill_at = None;
                self.kill();
                false
            }
            State::Waiting { until } if now >= *until => {
                self.starts = self.starts.saturating_add(1);
                match self.start(epoll) {
                    Ok(running) => {
                        self.state = State::Running(running);
                        true
                    }
                    Err(error) => {
                        log::line(format_args!("cannot start the supervisor: {error}"));
                        self.failed(format!("could not be started: {error}"), now);
                        false
                    }
                }
            }
            State::Running(_) | State::Waiting { .. } | State::Over => false,
        }
    }

    fn start(&self, epoll: &Epoll) -> Result<Running, SpawnError> {
        let at = |error: std::io::Error| SpawnError::io(Step::Pipe, &error);
        let (ours, theirs) = pair().map_err(at)?;
        let channel = KeeperChannel::new(ours).map_err(at)?;
        let program = self.program.as_deref().unwrap_or_else(|| Path::new(SELF));
        let mut plan = Plan::own(
            program.as_os_str(),
            &["whim", self.part.supervisor()],
            None,
            standard(),
        )?;
        plan.extra = vec![(theirs.as_fd(), SUPERVISOR_DESCRIPTOR)];
        let oom_kills = oom::kills();
        let starting = spawn::start(&plan)?;
        let event = |token: Token| EpollEvent::new(EpollFlags::EPOLLIN, token.encode());
        epoll
            .add(&starting, event(Token::SupervisorStart))
            .map_err(|errno| SpawnError::new(Step::Pipe, errno))?;
        epoll
            .add(&channel, event(Token::Supervisor))
            .map_err(|errno| SpawnError::new(Step::Pipe, errno))?;
        Ok(Running {
            pid: starting.pid.as_raw(),
            channel: Some(channel),
            starting: Some(starting),
            exec_failed: false,
            ready: None,
            upgrading: false,
            oom_kills,
            kill_at: None,
        })
    }

    fn failed(&mut self, reason: String, now: Instant) {
        let exit = Exit {
            end: End::Signal(libc::SIGABRT),
            ready_for: None,
            upgrade: false,
            out_of_memory: None,
        };
        let verdict = self.policy.judge(exit, self.chance(now));
        self.reason = reason;
        self.wait(verdict, now);
    }

    /// Looks whether the exec of a starting supervisor happened.
    pub(super) fn check_start(&mut self) {
        let Some(running) = self.running_mut() else {
            return;
        };
        let Some(outcome) = running.starting.as_ref().and_then(Starting::outcome) else {
            return;
        };
        running.starting = None;
        if let Err(error) = outcome {
            running.exec_failed = true;
            log::line(format_args!("cannot start the supervisor: {error}"));
        }
    }

    /// The other end of the channel is closed, or says what cannot be understood at all.
    pub(super) fn channel_lost(&mut self, now: Instant) {
        if let Some(running) = self.running_mut() {
            running.channel = None;
            running.kill_at = Some(now + EXIT_PATIENCE);
        }
    }

    /// It is reaped.
    pub(super) fn ended(&mut self, status: i32, now: Instant) -> Outcome {
        self.check_start();
        let State::Running(running) = std::mem::replace(&mut self.state, State::Over) else {
            return Outcome::Again;
        };
        let exit = Exit {
            end: if running.exec_failed {
                End::Code(EXEC_FAILED)
            } else {
                End::from_raw(status)
            },
            ready_for: running
                .ready
                .map(|ready| now.saturating_duration_since(ready)),
            upgrade: running.upgrading,
            out_of_memory: oom::kills()
                .zip(running.oom_kills)
                .map(|(after, before)| after > before),
        };
        if exit.ready_for.is_some() {
            self.unready_since = now;
        }
        let verdict = self.policy.judge(exit, self.chance(now));
        self.reason = reason(exit);
        log::line(format_args!(
            "supervisor {} ended: {}",
            running.pid, self.reason
        ));
        if self.program.is_some() && self.policy.upgrade_failed() {
            log::line(format_args!(
                "the upgraded supervisor does not become ready: going back to our own"
            ));
            self.program = None;
        }
        self.wait(verdict, now)
    }

    fn wait(&mut self, verdict: Verdict, now: Instant) -> Outcome {
        match verdict {
            Verdict::Restart(pause) => {
                if !pause.is_zero() {
                    log::line(format_args!("next supervisor in {} ms", pause.as_millis()));
                }
                self.state = State::Waiting { until: now + pause };
                Outcome::Again
            }
            Verdict::GiveUp(code) => {
                self.state = State::Over;
                Outcome::GiveUp(code)
            }
        }
    }

    /// Any number that differs from container to container.
    fn chance(&self, now: Instant) -> u64 {
        let age = now
            .saturating_duration_since(self.unready_since)
            .subsec_nanos();
        u64::from(age) ^ u64::from(std::process::id()) << 8 ^ u64::from(self.starts)
    }

    /// No further one, once this one ended.
    pub(super) fn no_more(&mut self) {
        if matches!(self.state, State::Waiting { .. }) {
            self.state = State::Over;
        }
    }

    /// Brings a waiting start forward.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let State::Waiting { until } = &mut self.state {
            *until = now;
        }
    }

    pub(super) fn kill(&self) {
        if let Some(pid) = self.pid()
            && let Err(errno) = kill(pid, libc::SIGKILL)
        {
            log::line(format_args!("kill of the supervisor: {errno}"));
        }
    }
}
