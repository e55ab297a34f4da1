//! The task that owns one terminal.
//!
//! It always drains its source, hands the bytes to the backlog for the viewers first and to the screen model second, types
//! what viewers and prompts ask for, decides the size, and ends the terminal when its program has ended. It never waits
//! for a viewer: viewers copy from the backlog at their own pace, and one that falls out of it asks for a snapshot.
//!
//! # Bounds
//! - [`unseen::FULL`] bytes are forwarded before the screen model has seen them, for at most [`unseen::WITHIN`]; then the
//!   model catches up in slices, which for a flood of plain text is a skip (see `screen::flood`).
//! - [`COMMANDS`] commands wait; a viewer that sends more waits itself.
//! - The window changes at most once in [`RESIZE_EVERY`]; the last size asked for wins.
//! - After the program's end its output is read on for at most [`LINGER`], so that a process which keeps the terminal
//!   open cannot hide the end.
//! - Signals for the supervisor's state are dropped, and counted, when nobody takes them in time.

mod command;
mod unseen;
mod viewers;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::terminals::input::{Input, TypeError};
use crate::terminals::keep::{Keep, KeepError};
use crate::terminals::pty::Master;
use crate::terminals::screen::{Effect, Effects, Screen};
use crate::terminals::size::{SizePolicy, ViewerId};
use crate::terminals::source::Source;
use crate::terminals::terminal::{Exit, Shared, Signal};
use crate::terminals::typed::{Hand, Keys};
pub use command::ScreenText;
pub(in crate::terminals) use command::{Attach, Attached, Command};
use unseen::Unseen;
use viewers::Viewer;

/// Most bytes taken from the source between two looks at commands.
const READ: usize = 64 << 10;
pub(in crate::terminals) const COMMANDS: usize = 256;
/// At most 20 window changes a second.
const RESIZE_EVERY: Duration = Duration::from_millis(50);
/// How long a terminal that no program has open is left alone.
const REST: Duration = Duration::from_millis(50);
/// How long output is read on after the program's end.
const LINGER: Duration = Duration::from_secs(2);

/// A query nobody has answered yet.
#[derive(Debug)]
struct Open {
    offset: u64,
    answer: Option<Vec<u8>>,
}

/// Most queries that stay open: what is older was given up by the program.
const OPEN: usize = 32;

pub(in crate::terminals) struct Engine<S> {
    shared: Arc<Shared>,
    source: S,
    master: Master,
    commands: mpsc::Receiver<Command>,
    signals: Option<mpsc::Sender<Signal>>,
    keep: Option<Keep>,
    screen: Screen,
    effects: Effects,
    policy: SizePolicy,
    viewers: BTreeMap<ViewerId, Viewer>,
    input: Input,
    keys: Keys,
    read: Vec<u8>,
    unseen: Unseen,
    open: Vec<Open>,
    resized_at: Option<Instant>,
    resize_at: Option<Instant>,
    exit: Option<Exit>,
    end_at: Option<Instant>,
    source_ended: bool,
    /// The source is not looked at before this time.
    source_rests_until: Option<Instant>,
    master_broken: bool,
    /// Nothing is typed before this time.
    master_rests_until: Option<Instant>,
}

impl<S: Source> Engine<S> {
    pub(in crate::terminals) fn new(
        shared: Arc<Shared>,
        source: S,
        master: Master,
        commands: mpsc::Receiver<Command>,
        signals: Option<mpsc::Sender<Signal>>,
        keep: Option<Keep>,
        screen: Screen,
    ) -> Self {
        let policy = SizePolicy::new(screen.size());
        Self {
            shared,
            source,
            master,
            commands,
            signals,
            keep,
            screen,
            effects: Effects::default(),
            policy,
            viewers: BTreeMap::new(),
            input: Input::default(),
            keys: Keys::default(),
            read: Vec::new(),
            unseen: Unseen::default(),
            open: Vec::new(),
            resized_at: None,
            resize_at: None,
            exit: None,
            end_at: None,
            source_ended: false,
            source_rests_until: None,
            master_broken: false,
            master_rests_until: None,
        }
    }

    /// Runs until the program has ended and its output is delivered, or until every handle is gone.
    pub(in crate::terminals) async fn run(mut self) {
        loop {
            let due = [
                self.unseen.due(),
                self.resize_at,
                self.end_at,
                self.source_rests_until,
                self.master_rests_until,
            ];
            let due = due.into_iter().flatten().min();
            let type_on =
                !self.input.is_empty() && !self.master_broken && self.master_rests_until.is_none();
            // A model that is that far behind holds up the program: what it has not seen, nobody could be shown again.
            let listen =
                !self.source_ended && self.source_rests_until.is_none() && !self.unseen.is_full();
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = self.shared.detached.notified() => self.forget_detached(),
                ready = self.source.ready(), if listen => {
                    match ready {
                        Ok(()) => self.drain().await,
                        Err(error) => self.source_failed(&error),
                    }
                }
                room = self.master.writable(), if type_on => {
                    let written = room.and_then(|()| self.input.write(&self.master));
                    if matches!(written, Ok(0)) {
                        // A hung-up terminal counts as writable for ever.
                        self.master_rests_until = Some(Instant::now() + REST);
                    }
                    self.check_master(written.map(drop));
                }
                // Others of this thread first, then one slice.
                () = tokio::task::yield_now(), if self.unseen.is_catching_up() => self.parse_slice(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.timers(),
            }
            if self.is_over() {
                break;
            }
        }
        self.finish().await;
    }

    fn is_over(&self) -> bool {
        self.exit.is_some()
            && (self.source_ended || self.end_at.is_some_and(|end| Instant::now() >= end))
    }

    fn timers(&mut self) {
        let now = Instant::now();
        if self.unseen.due().is_some_and(|at| at <= now) {
            self.catch_up();
        }
        if self.resize_at.is_some_and(|at| at <= now) {
            self.apply_size();
        }
        if self.source_rests_until.is_some_and(|at| at <= now) {
            self.source_rests_until = None;
        }
        if self.master_rests_until.is_some_and(|at| at <= now) {
            self.master_rests_until = None;
        }
    }

    /// Reads what there is, forwards it, then lets the model see it.
    async fn drain(&mut self) {
        self.read.clear();
        let taken = match self.source.read(&mut self.read, READ) {
            Ok(taken) => taken,
            Err(error) => return self.source_failed(&error),
        };
        if taken.lost > 0 {
            self.lost(taken.lost);
        }
        // A program that closed the terminal and lives on may open it again; only its exit ends the terminal.
        self.source_ended = taken.ended && self.exit.is_some();
        if taken.ended && !self.source_ended {
            // Waiting for it would return at once, again and again.
            self.source_rests_until = Some(Instant::now() + REST);
        }
        if self.read.is_empty() {
            return;
        }
        self.shared.touch_output();
        self.forward();
        // Viewers first: what the model does with the bytes delays nobody's echo.
        tokio::task::yield_now().await;
        if self.unseen.is_small() {
            self.parse();
        } else if self.unseen.is_full() && !self.unseen.is_catching_up() {
            self.skip();
            if self.unseen.is_full() {
                self.catch_up();
            }
        }
    }

    /// Hands on what was read: to the viewers, to the file that outlives this process, to the model. Only then may the
    /// source forget it.
    fn forward(&mut self) {
        let head = {
            let mut backlog = self
                .shared
                .backlog
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            backlog.push(&self.read);
            backlog.head()
        };
        self.shared.head.send_replace(head);
        self.unseen.push(&self.read);
        self.keep(|keep, read| keep.output(read));
        self.source.acknowledge(head);
        if self.keep.as_ref().is_some_and(Keep::is_overdue) && !self.unseen.is_catching_up() {
            self.catch_up();
        }
    }

    fn keep(&mut self, act: impl FnOnce(&mut Keep, &[u8]) -> Result<(), KeepError>) {
        if let Some(keep) = &mut self.keep
            && let Err(error) = act(keep, &self.read)
        {
            self.keeping_failed(&error);
        }
    }

    /// The screen as it stands at `offset`, then what it has not seen.
    fn checkpoint(&mut self, offset: u64) {
        let Some(keep) = &mut self.keep else { return };
        let kept =
            keep.checkpoint(&mut self.screen, offset)
                .and_then(|()| match self.unseen.rest() {
                    [] => Ok(()),
                    rest => keep.output(rest),
                });
        if let Err(error) = kept {
            self.keeping_failed(&error);
        }
    }

    fn keeping_failed(&self, error: &KeepError) {
        tracing::warn!(terminal = %self.shared.id, %error, "the screen is not kept for the next supervisor until the disk takes it again");
    }

    fn source_failed(&mut self, error: &std::io::Error) {
        tracing::warn!(terminal = %self.shared.id, %error, "the terminal's output cannot be read any more");
        self.source_ended = true;
    }

    /// The source lost output (nobody read it in time): viewers are told by their snapshot, the model by CAN, which
    /// ends a sequence whose rest is gone.
    fn lost(&mut self, bytes: u64) {
        self.parse();
        let at = self.source.offset() - self.read.len() as u64;
        *self
            .shared
            .backlog
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = super::backlog::Backlog::at(at);
        self.screen.feed(&[0x18], &mut self.effects);
        self.checkpoint(at);
        self.effects.found.clear();
        tracing::warn!(terminal = %self.shared.id, bytes, "output was lost before it could be read");
    }

    /// Brings the model up to date at once.
    fn parse(&mut self) {
        self.catch_up();
        while self.unseen.is_catching_up() {
            self.parse_slice();
        }
    }

    /// Begins to bring the model up to date.
    fn catch_up(&mut self) {
        self.skip();
        self.unseen.catch_up();
    }

    /// Leaves out what cannot be seen any more.
    fn skip(&mut self) {
        let gone = self.screen.without_trace(self.unseen.rest());
        self.unseen.skip(gone);
    }

    /// Shows the model a little more and acts on what it found.
    fn parse_slice(&mut self) {
        let slice = self.unseen.slice();
        let length = slice.len();
        self.screen.feed(slice, &mut self.effects);
        self.unseen.advance(length);
        let head = *self.shared.head.borrow();
        let offset = head - self.unseen.rest().len() as u64;
        for effect in std::mem::take(&mut self.effects.found) {
            self.effect(effect, offset);
        }
        self.answer_alone();
        if !self.unseen.is_catching_up() && self.keep.as_ref().is_some_and(Keep::is_due) {
            self.checkpoint(offset);
        }
    }

    fn effect(&mut self, effect: Effect, offset: u64) {
        let signal = match effect {
            Effect::Query { answer, .. } => {
                if self.open.len() == OPEN {
                    self.open.remove(0);
                }
                self.open.push(Open { offset, answer });
                return;
            }
            Effect::Title(title) => {
                self.shared.status.send_if_modified(|status| {
                    let changed = status.title != title;
                    status.title.clone_from(&title);
                    changed
                });
                Signal::Title(title)
            }
            Effect::Osc(body) => Signal::Osc(body),
            Effect::Bell => Signal::Bell,
            Effect::Listen(port) => Signal::Listen(port),
            Effect::Restarted => {
                tracing::error!(terminal = %self.shared.id, "the screen model failed on the output and starts afresh");
                return;
            }
        };
        self.signal(signal);
    }

    fn signal(&self, signal: Signal) {
        if let Some(signals) = &self.signals
            && signals.try_send(signal).is_err()
        {
            self.shared.signals_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write_input(&mut self) {
        if self.master_broken {
            self.input.cancel(TypeError::Ended);
            return;
        }
        let written = self.input.write(&self.master).map(drop);
        self.check_master(written);
    }

    fn check_master(&mut self, written: std::io::Result<()>) {
        if let Err(error) = written {
            tracing::debug!(terminal = %self.shared.id, %error, "the terminal cannot be typed into any more");
            self.master_broken = true;
            self.input.cancel(TypeError::Ended);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Attach(attach, reply) => self.attach(attach, reply),
            Command::Snapshot {
                viewer,
                from,
                reply,
            } => self.snapshot(viewer, from, reply),
            Command::Input { viewer, piece } => self.viewer_input(viewer, piece),
            Command::Type(piece) => {
                self.follow(Hand::Supervisor, &piece.bytes);
                self.input.push(piece);
                self.write_input();
            }
            Command::Resize { viewer, size } => {
                if let Some(state) = self.viewers.get_mut(&viewer) {
                    state.rows = Some(size.rows);
                    self.policy.resize(viewer, size);
                    self.size_changed();
                }
            }
            Command::TakeOver { viewer } => {
                self.policy.typed(viewer);
                self.size_changed();
            }
            Command::Paused { viewer, paused } => {
                if let Some(state) = self.viewers.get_mut(&viewer) {
                    state.paused = paused;
                    self.answer_alone();
                }
            }
            Command::Text(reply) => {
                self.parse();
                // The asker may have given up.
                drop(reply.send(ScreenText {
                    text: self.screen.text(),
                    bracketed_paste: self.screen.bracketed_paste(),
                    title: self.screen.title().to_owned(),
                }));
            }
            Command::Exited(exit) => {
                self.exit = Some(exit);
                self.end_at = Some(Instant::now() + LINGER);
            }
            Command::Drained => self.source_ended = self.exit.is_some() && self.take_rest(),
        }
    }

    /// Takes what the source still holds; true when that was all.
    fn take_rest(&mut self) -> bool {
        loop {
            self.read.clear();
            match self.source.read(&mut self.read, READ) {
                Ok(taken) if taken.bytes > 0 => {
                    self.forward();
                    self.parse();
                }
                _ => return true,
            }
        }
    }

    /// Applies the policy's size, at once if the last change is long enough ago.
    fn size_changed(&mut self) {
        if self.policy.size() == self.screen.size() {
            self.resize_at = None;
            return self.publish();
        }
        let earliest = self.resized_at.map(|at| at + RESIZE_EVERY);
        if earliest.is_none_or(|at| at <= Instant::now()) {
            self.apply_size();
        } else if self.resize_at.is_none() {
            self.resize_at = earliest;
        }
    }

    fn apply_size(&mut self) {
        self.resize_at = None;
        self.resized_at = Some(Instant::now());
        self.parse();
        let size = self.policy.size();
        if let Err(error) = self.master.resize(size) {
            tracing::debug!(terminal = %self.shared.id, %error, "the window size could not be set");
        }
        self.screen.resize(size);
        self.keep(|keep, _| keep.resize(size));
        self.publish();
    }

    fn publish(&self) {
        let (size, owner, viewers) = (self.screen.size(), self.policy.owner(), self.counted());
        self.shared.status.send_if_modified(|status| {
            let changed = (status.size, status.owner, status.viewers) != (size, owner, viewers);
            (status.size, status.owner, status.viewers) = (size, owner, viewers);
            changed
        });
    }

    /// The program has ended: tell it, then serve snapshots to those who still look until all handles are gone.
    async fn finish(mut self) {
        self.take_rest();
        self.parse();
        self.input.cancel(TypeError::Ended);
        let exit = self.exit;
        self.shared.status.send_modify(|status| status.exit = exit);
        self.signal(Signal::Ended);
        self.master_broken = true;
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                () = self.shared.detached.notified() => self.forget_detached(),
            }
        }
    }
}
