//! Doing what the supervisor asks.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::Keeper;
use super::launching;
use crate::log;
use crate::spawn::{SpawnError, Step};
use crate::wire::{FromKeeper, ProcessId, ToKeeper};

/// Requests taken in one go, so that a supervisor that never stops asking does not starve the reaping.
const BATCH: usize = 64;
/// `stdin:ID` names the keeper's copy of the write end of that process' standard input.
const STDIN: &str = "stdin:";

impl Keeper {
    /// Carries out what was asked, a batch at most; true when there may be more.
    pub(super) fn listen_to_supervisor(&mut self, now: Instant) -> bool {
        for _ in 0..BATCH {
            let Some(channel) = self.supervisor.channel() else {
                return false;
            };
            match channel.receive() {
                Ok(Some((message, descriptors))) => self.carry_out(message, descriptors, now),
                Ok(None) => {
                    self.supervisor.channel_lost(now);
                    return false;
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return false,
                    io::ErrorKind::Interrupted => {}
                    io::ErrorKind::Unsupported | io::ErrorKind::InvalidData => {
                        log::line(format_args!("ignored a message of the supervisor: {error}"));
                    }
                    _ => {
                        log::line(format_args!("channel to the supervisor: {error}"));
                        self.supervisor.channel_lost(now);
                        return false;
                    }
                },
            }
        }
        true
    }

    fn carry_out(&mut self, message: ToKeeper, descriptors: Vec<OwnedFd>, now: Instant) {
        match message {
            ToKeeper::Ready => self.supervisor.is_ready(now),
            ToKeeper::Grace { milliseconds } => self.grace = Duration::from_millis(milliseconds),
            ToKeeper::Spawn { process, name } => self.spawn(process, name, descriptors),
            ToKeeper::Signal {
                process,
                signal,
                tree,
            } => match self.table.find(process) {
                Some((_, found)) => found.signal(signal, tree),
                None => self
                    .outbox
                    .refuse(format!("signal {signal}: no process {}", process.0)),
            },
            ToKeeper::End { process, grace_ms } => match self.table.find(process) {
                Some((_, found)) => found.end(now, Duration::from_millis(grace_ms)),
                None => self.outbox.refuse(format!("end: no process {}", process.0)),
            },
            ToKeeper::Acknowledge { process } => self.acknowledge(process),
            ToKeeper::Hold { name } => self.hold(name, descriptors),
            ToKeeper::Release { name } => self.release(&name),
            ToKeeper::Exit { code } => self.stop_in_order(0, code, now),
            ToKeeper::Upgrade { path } => self.supervisor.upgrade(&path),
            ToKeeper::Flushed => self.flushed(now),
        }
    }

    fn acknowledge(&mut self, id: ProcessId) {
        let Some((slot, process)) = self.table.find(id) else {
            return;
        };
        if process.status.is_none() {
            return;
        }
        process.acknowledged = true;
        // Otherwise when it is gone and that was told.
        if process.told.gone {
            self.forget(slot);
        }
    }

    fn spawn(&mut self, id: ProcessId, name: String, descriptors: Vec<OwnedFd>) {
        if self.table.find(id).is_some() {
            self.outbox
                .refuse(format!("spawn {name}: number {} is taken", id.0));
            return;
        }
        let generation = self.supervisor.generation();
        let result = if self.table.full() {
            Err(SpawnError::new(Step::Limit, Errno::EAGAIN))
        } else {
            launching::launch(
                id,
                name.clone(),
                generation,
                descriptors,
                self.identity.limits,
                &mut self.cgroups,
            )
        };
        match result {
            Ok(process) => self.admit(process),
            Err(error) => self.spawn_failed(id, &name, error),
        }
    }

    fn admit(&mut self, process: super::process::Process) {
        // There is room: it was looked for before anything was started.
        let Some(slot) = self.table.insert(process) else {
            return;
        };
        let Some(process) = self.table.get(slot) else {
            return;
        };
        if let Err(errno) = process.register(&self.epoll, slot) {
            // ENOSPC: fs.epoll.max_user_watches. It runs, but we could not watch it.
            log::line(format_args!("{}: epoll: {errno}: ending it", process.name));
            process.end(Instant::now(), Duration::ZERO);
        }
    }

    fn spawn_failed(&mut self, process: ProcessId, name: &str, error: SpawnError) {
        let step = error.step.name().to_owned();
        let failed = FromKeeper::SpawnFailed {
            process,
            step,
            errno: error.errno as i32,
        };
        let sent = self
            .supervisor
            .channel()
            .map(|channel| channel.send(&failed, &[]));
        if let Some(Err(error)) = sent {
            // Nothing was started, so there is no state to tell it from later: a refusal stands in its place.
            self.outbox.refuse(format!(
                "spawn {}: {failed:?} could not be told: {error}",
                process.0
            ));
        }
        log::line(format_args!("{name}: cannot start: {error}"));
    }

    fn hold(&mut self, name: String, descriptors: Vec<OwnedFd>) {
        let result = match descriptors.into_iter().next() {
            Some(fd) => self.held.hold(name.clone(), fd),
            None => Err("no descriptor came with it"),
        };
        if let Err(why) = result {
            self.outbox.refuse(format!("hold {name}: {why}"));
        }
    }

    fn release(&mut self, name: &str) {
        let process = name
            .strip_prefix(STDIN)
            .and_then(|number| number.parse().ok())
            .map(ProcessId);
        let known = match process {
            Some(id) => self
                .table
                .find(id)
                .is_some_and(|(_, process)| process.close_stdin()),
            None => self.held.release(name),
        };
        if !known {
            self.outbox.refuse(format!("release {name}: there is none"));
        }
    }
}
