//! `whim run`: the process that must not fail.
//!
//! Owns every child, every terminal and the container's end. One thread, one epoll loop; each idea is a module: the
//! [`reaper`], the [`supervisor`] and its [`restart`] policy, the [`process`]es in their [`table`] and their [`output`],
//! [`requests`] carried out, the [`inventory`] told, the [`shutdown`].
//!
//! Promises: after start-up nothing makes it bail. Errors are logged and dealt with where they happen, a panic is logged
//! and the loop goes on. It parses nothing that comes from outside; what comes from the supervisor and the holders is
//! checked.
//!
//! Bounds: [`table::MAX_PROCESSES`] processes, [`held::MAX_HELD`] held descriptors, no queue of messages.

mod cgroup;
mod final_state;
mod held;
mod holding;
mod inventory;
mod launching;
mod oom;
mod output;
mod process;
mod reaper;
mod requests;
mod restart;
mod shutdown;
mod start;
mod supervisor;
mod table;
mod token;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signalfd::SignalFd;

use crate::Part;
use crate::limits::Limits;
use crate::log;
use crate::resident;
use crate::signals;
use crate::title::Title;
use cgroup::Cgroups;
use held::Held;
use inventory::Outbox;
use shutdown::Stop;
use supervisor::Supervisor;
use table::Table;
use token::Token;

/// Events taken in one round.
const EVENTS: usize = 64;
/// Pause after a panic, so that one that comes again at once does not burn the machine.
const PANIC_PAUSE: Duration = Duration::from_millis(100);

/// Without a request for so long, the code that serves them is given back.
const REST: Duration = Duration::from_secs(1);

/// What does not change.
#[derive(Clone, Copy, Debug)]
struct Identity {
    /// What the supervisor does.
    part: Part,
    pid: i32,
    /// PID 1 of its namespace.
    init: bool,
    /// Orphans come to us.
    reaps: bool,
    started_ms: u64,
    /// For children; `None` when they could not be read.
    limits: Option<Limits>,
    /// SIGHUP was ignored when we were started (nohup).
    ignores_hangup: bool,
}

#[derive(Debug)]
struct Keeper {
    identity: Identity,
    epoll: Epoll,
    signals: SignalFd,
    supervisor: Supervisor,
    table: Table,
    held: Held,
    cgroups: Cgroups,
    outbox: Outbox,
    /// Wake when the supervisor's socket takes more.
    blocked: bool,
    stop: Option<Stop>,
    grace: Duration,
    sweep_due: Option<Instant>,
    /// Some child was reaped in this round.
    died: bool,
    /// When code that only requests need is given back, if none comes before.
    rest_due: Option<Instant>,
    buffer: Vec<u8>,
}

/// Runs until the container's end. Before anything else: `title` is where argv and environment lie, to be sealed and
/// overwritten.
pub(crate) fn run(title: Option<Title>, part: Part) -> ExitCode {
    let mut keeper = match start::start(title, part) {
        Ok(keeper) => keeper,
        Err(error) => {
            log::line(format_args!("cannot start: {error}"));
            return ExitCode::from(70);
        }
    };
    std::panic::set_hook(Box::new(|panic| log::line(format_args!("{panic}"))));
    loop {
        match catch_unwind(AssertUnwindSafe(|| keeper.turn())) {
            Ok(None) => {}
            Ok(Some(code)) => return ExitCode::from(code),
            Err(_logged) => std::thread::sleep(PANIC_PAUSE),
        }
    }
}

impl Keeper {
    /// One round: wait, take in, do what is due, tell. The exit code when all is over.
    fn turn(&mut self) -> Option<u8> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let timeout = self.timeout();
        let count = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => {
                log::line(format_args!("epoll: {errno}"));
                0
            }
        };
        let now = Instant::now();
        self.died = false;
        // The dead first: their order among each other is kept by the kernel, and nothing may delay them.
        let tokens = events
            .iter()
            .take(count)
            .filter_map(|event| Token::decode(event.data()));
        let mut others = [None; EVENTS];
        for (token, other) in tokens.zip(&mut others) {
            if token == Token::Signals {
                self.take_signals(now);
            } else {
                *other = Some(token);
            }
        }
        for token in others.into_iter().flatten() {
            self.handle(token, now);
        }
        self.do_what_is_due(now);
        if let Some(code) = self.step_stop(now) {
            return Some(code);
        }
        let blocked = self.tell(now);
        self.watch_socket(blocked);
        None
    }

    fn timeout(&mut self) -> EpollTimeout {
        let unready_since = self.supervisor.unready_since();
        let mut due = self.supervisor.due();
        let mut sooner = |other: Option<Instant>| due = [due, other].into_iter().flatten().min();
        sooner(self.stop.as_ref().map(Stop::due));
        sooner(self.sweep_due);
        sooner(self.rest_due);
        sooner(self.outbox.due());
        for (_, process) in self.table.iter_mut() {
            sooner(process.due());
            for output in process.outputs() {
                sooner(output.due(unready_since));
            }
        }
        let Some(due) = due else {
            return EpollTimeout::NONE;
        };
        let left = due.saturating_duration_since(Instant::now());
        let milliseconds = i32::try_from(left.as_micros().div_ceil(1000)).unwrap_or(i32::MAX);
        EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::MAX)
    }

    fn take_signals(&mut self, now: Instant) {
        while let Some(signal) = signals::next(&self.signals) {
            match signal {
                libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => self.stop_in_order(signal, 0, now),
                libc::SIGHUP if !self.identity.ignores_hangup => self.stop_in_order(signal, 0, now),
                // Reaping follows every round of signals; the others have no meaning here, and PID 1 must not die of
                // them.
                _ => {}
            }
        }
        self.reap(now);
    }

    fn handle(&mut self, token: Token, now: Instant) {
        match token {
            Token::Signals => {}
            Token::Supervisor => {
                self.rest_due = Some(now + REST);
                // Level-triggered: what is left comes with the next round.
                self.listen_to_supervisor(now);
            }
            Token::SupervisorStart => self.supervisor.check_start(),
            Token::Start(slot) => {
                if let Some(process) = self.table.get(slot) {
                    process.check_start();
                }
                self.settle(slot, now);
            }
            Token::Holder(slot) => {
                if let Some(process) = self.table.get(slot) {
                    process.listen(&self.epoll);
                }
                self.settle(slot, now);
            }
            Token::Output(slot, stream) => self.pump(slot, Some(stream), now),
            Token::Space(slot, stream) => {
                let output = self
                    .table
                    .get(slot)
                    .and_then(|process| process.outputs().nth(usize::from(stream)));
                if let Some(output) = output {
                    output.woken();
                }
                self.pump(slot, Some(stream), now);
            }
        }
    }

    /// Moves output of one stream, or of all; true when there may be more.
    fn pump(&mut self, slot: u32, stream: Option<u8>, now: Instant) {
        let unready_since = self.supervisor.unready_since();
        let Some(process) = self.table.get(slot) else {
            return;
        };
        let over = process.over();
        for (number, output) in (0..).zip(process.outputs()) {
            if stream.is_none_or(|wanted| wanted == number) {
                // When it is over no event may follow, so the last bytes are fetched now; a ring's worth at most.
                while output.pump(&self.epoll, &mut self.buffer, now, over, unready_since) && over {
                }
            }
        }
    }

    /// After a change: a process that is over has its last output fetched.
    fn settle(&mut self, slot: u32, now: Instant) {
        if self.table.get(slot).is_some_and(|process| process.over()) {
            self.pump(slot, None, now);
        }
    }

    fn do_what_is_due(&mut self, now: Instant) {
        self.sweep_due = None;
        self.step_endings(now);
        let unready_since = self.supervisor.unready_since();
        for slot in 0..self.table.end() {
            let waiting = self.table.get(slot).is_some_and(|process| {
                process
                    .outputs()
                    .any(|output| output.due(unready_since).is_some_and(|due| now >= due))
            });
            if waiting {
                self.pump(slot, None, now);
            }
        }
        if self.supervisor.step(&self.epoll, now) {
            self.forget_what_was_told();
            self.blocked = false;
        }
        if self.rest_due.is_some_and(|due| now >= due) {
            self.rest_due = None;
            if let Err(error) = resident::forget_code().and_then(|()| resident::forget_stack()) {
                log::line(format_args!("cannot give back memory: {error}"));
            }
        }
    }

    /// Nobody needs it any more.
    fn forget(&mut self, slot: u32) {
        if let Some(mut process) = self.table.remove(slot) {
            process.unregister(&self.epoll);
        }
    }

    fn watch_socket(&mut self, blocked: bool) {
        if blocked == self.blocked {
            return;
        }
        let Some(channel) = self.supervisor.channel() else {
            return;
        };
        let flags = if blocked {
            EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT
        } else {
            EpollFlags::EPOLLIN
        };
        let mut event = EpollEvent::new(flags, Token::Supervisor.encode());
        match self.epoll.modify(channel, &mut event) {
            Ok(()) => self.blocked = blocked,
            Err(errno) => log::line(format_args!("epoll: supervisor: {errno}")),
        }
    }
}
