//! What the present supervisor has been told.
//!
//! There is no queue of messages: what is to be said follows from the state of the keeper and a few marks of what was
//! said already. So a supervisor that does not read costs nothing, and one that comes anew gets the whole inventory by
//! clearing the marks. Only refusals are queued, at most [`MAX_REFUSALS`]; further ones are logged and dropped.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::libc;

use super::Keeper;
use super::process::Told;
use crate::log;
use crate::wire::{FromKeeper, MAX_TEXT, VERSION};

const MAX_REFUSALS: usize = 16;
/// How long the inventory waits for processes that an earlier supervisor asked for and that are still starting. Told of
/// them later, the new one would have started its own by then. An exec that hangs (a dead network file system) must not
/// keep it from its work for ever.
const STARTING: Duration = Duration::from_secs(5);

/// How far the inventory got.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Hello,
    /// Names after this one.
    Held(Option<String>),
    /// Processes from this slot on.
    Processes(u32),
    End,
    Live,
}

#[derive(Debug)]
pub(super) struct Outbox {
    stage: Stage,
    told_stopping: bool,
    refusals: VecDeque<String>,
    /// Until when it waits for what is still starting.
    waits_until: Option<Instant>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            stage: Stage::Hello,
            told_stopping: false,
            refusals: VecDeque::new(),
            waits_until: None,
        }
    }

    /// When the keeper must go on telling at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waits_until
    }

    pub(super) fn refuse(&mut self, mut what: String) {
        log::line(format_args!("refused: {what}"));
        if self.refusals.len() < MAX_REFUSALS {
            let mut end = what.len().min(MAX_TEXT);
            while !what.is_char_boundary(end) {
                end -= 1;
            }
            what.truncate(end);
            self.refusals.push_back(what);
        }
    }
}

/// Whether the socket took the message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Yes,
    Full,
    Lost,
    /// Not yet: something is to be decided first.
    Later,
}

impl Keeper {
    /// A new supervisor knows nothing. The marks of a process are set anew when it is described.
    pub(super) fn forget_what_was_told(&mut self) {
        self.outbox = Outbox::new();
    }

    /// Says what is new; true when the socket is full and more is to be said.
    pub(super) fn tell(&mut self, now: Instant) -> bool {
        if self.supervisor.channel().is_none() {
            return false;
        }
        let mut sent = Sent::Yes;
        while self.outbox.stage != Stage::Live && sent == Sent::Yes {
            sent = self.tell_inventory(now);
        }
        // Before the ends that it brings: a supervisor that heard of them first would take them for crashes.
        if sent == Sent::Yes {
            sent = self.tell_stopping(now);
        }
        if sent == Sent::Yes {
            sent = self.tell_changes();
        }
        while sent == Sent::Yes
            && let Some(what) = self.outbox.refusals.front().cloned()
        {
            sent = self.say(&FromKeeper::Refused { what });
            if sent == Sent::Yes {
                self.outbox.refusals.pop_front();
            }
        }
        sent == Sent::Full
    }

    fn say(&self, message: &FromKeeper) -> Sent {
        self.say_with(message, |channel| channel.send(message, &[]))
    }

    fn say_with(
        &self,
        message: &FromKeeper,
        send: impl FnOnce(&crate::wire::KeeperChannel) -> io::Result<()>,
    ) -> Sent {
        let Some(channel) = self.supervisor.channel() else {
            return Sent::Lost;
        };
        match send(channel) {
            Ok(()) => Sent::Yes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Full,
            // Too many descriptors on their way, or no memory just now: both pass.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETOOMANYREFS | libc::ENOBUFS | libc::ENOMEM)
                ) =>
            {
                Sent::Full
            }
            // The peer is gone; its end is seen as end of file or as SIGCHLD.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Sent::Lost
            }
            Err(error) => {
                // Not a matter of waiting: going on without it beats never saying anything again.
                log::line(format_args!(
                    "cannot tell the supervisor {message:?}: {error}"
                ));
                Sent::Yes
            }
        }
    }

    fn tell_inventory(&mut self, now: Instant) -> Sent {
        match self.outbox.stage.clone() {
            Stage::Hello => {
                let (restarts, reason) = self.supervisor.history();
                let hello = FromKeeper::Hello {
                    version: VERSION,
                    keeper_pid: self.identity.pid,
                    restarts,
                    reason: reason.to_owned(),
                    reaps: self.identity.reaps,
                    started_ms: self.identity.started_ms,
                };
                self.advance(self.say(&hello), Stage::Held(None))
            }
            Stage::Held(last) => {
                let Some((name, fd)) = self.held.after(last.as_deref()) else {
                    self.outbox.stage = Stage::Processes(0);
                    return Sent::Yes;
                };
                let name = name.to_owned();
                let message = FromKeeper::Held { name: name.clone() };
                let sent = self.say_with(&message, |channel| channel.send(&message, &[fd.as_fd()]));
                self.advance(sent, Stage::Held(Some(name)))
            }
            Stage::Processes(slot) if slot >= self.table.end() => {
                self.outbox.stage = Stage::End;
                Sent::Yes
            }
            Stage::Processes(slot) => {
                let (exists, starting) = match self.table.get(slot) {
                    Some(process) => (process.running(), process.starting()),
                    None => (false, false),
                };
                if starting {
                    let until = *self.outbox.waits_until.get_or_insert(now + STARTING);
                    if now < until {
                        return Sent::Later;
                    }
                }
                let sent = if exists {
                    self.describe(slot)
                } else {
                    Sent::Yes
                };
                self.advance(sent, Stage::Processes(slot + 1))
            }
            Stage::End => {
                self.outbox.waits_until = None;
                self.advance(self.say(&FromKeeper::InventoryEnd), Stage::Live)
            }
            Stage::Live => Sent::Yes,
        }
    }

    fn advance(&mut self, sent: Sent, next: Stage) -> Sent {
        if sent == Sent::Yes {
            self.outbox.stage = next;
        }
        sent
    }

    /// Tells all about a process that the present supervisor did not ask for.
    fn describe(&mut self, slot: u32) -> Sent {
        let Some(process) = self.table.get(slot) else {
            return Sent::Yes;
        };
        let description = process.description();
        let told = Told {
            started: true,
            exited: process.status.is_some(),
            gone: process.gone(),
        };
        self.say_about(slot, &description, told)
    }

    /// Sends a message that carries the process' descriptors, and marks what it told.
    fn say_about(&mut self, slot: u32, message: &FromKeeper, told: Told) -> Sent {
        let Some(process) = self.table.get(slot) else {
            return Sent::Yes;
        };
        let descriptors = process.descriptors();
        let Some(channel) = self.supervisor.channel() else {
            return Sent::Lost;
        };
        let result = channel.send(message, &descriptors);
        drop(descriptors);
        let sent = self.say_with(message, |_| result);
        if sent == Sent::Yes
            && let Some(process) = self.table.get(slot)
        {
            process.told = told;
        }
        sent
    }

    fn tell_changes(&mut self) -> Sent {
        for slot in 0..self.table.end() {
            let sent = self.tell_process(slot);
            if sent != Sent::Yes {
                return sent;
            }
        }
        Sent::Yes
    }

    fn tell_process(&mut self, slot: u32) -> Sent {
        let generation = self.supervisor.generation();
        let Some(process) = self.table.get(slot) else {
            return Sent::Yes;
        };
        let (id, told) = (process.id, process.told);
        if let Some(error) = process.failed() {
            let asked = process.generation == generation;
            let failed = FromKeeper::SpawnFailed {
                process: id,
                step: error.step.name().to_owned(),
                errno: error.errno as i32,
            };
            let sent = if asked { self.say(&failed) } else { Sent::Yes };
            if sent == Sent::Yes {
                self.forget(slot);
            }
            return sent;
        }
        if !process.running() {
            return Sent::Yes;
        }
        if !told.started {
            if process.generation != generation {
                return self.describe(slot);
            }
            let spawned = FromKeeper::Spawned {
                process: id,
                pid: process.pid(),
                streams: process.streams(),
            };
            let sent = self.say_about(
                slot,
                &spawned,
                Told {
                    started: true,
                    ..told
                },
            );
            if sent != Sent::Yes {
                return sent;
            }
        }
        let Some(process) = self.table.get(slot) else {
            return Sent::Yes;
        };
        if let (Some(status), false) = (process.status, told.exited) {
            let sent = self.say(&FromKeeper::Exited {
                process: id,
                status,
            });
            if sent != Sent::Yes {
                return sent;
            }
        }
        let Some(process) = self.table.get(slot) else {
            return Sent::Yes;
        };
        process.told.exited = process.status.is_some();
        if process.gone() && !told.gone {
            let sent = self.say(&FromKeeper::Gone { process: id });
            if sent != Sent::Yes {
                return sent;
            }
        }
        let Some(process) = self.table.get(slot) else {
            return Sent::Yes;
        };
        process.told.gone = process.gone();
        if process.acknowledged && process.told.gone {
            self.forget(slot);
        }
        Sent::Yes
    }

    fn tell_stopping(&mut self, now: Instant) -> Sent {
        let Some(stop) = &self.stop else {
            return Sent::Yes;
        };
        if self.outbox.told_stopping {
            return Sent::Yes;
        }
        let sent = self.say(&stop.announcement(now));
        self.outbox.told_stopping = sent == Sent::Yes;
        sent
    }
}
