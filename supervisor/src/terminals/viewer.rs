//! Someone who watches a terminal: the browser, a ttyd client, `whim attach`, the recorder.
//!
//! A viewer has a place in the output and takes it at its own pace; the engine never waits for it. A viewer that fell
//! out of the backlog gets a fresh snapshot that says how much was skipped.
//!
//! Bounds: one frame of at most [`FRAME`] bytes of output is copied at a time; a snapshot is as large as screen and
//! scrollback are.

use std::sync::{Arc, PoisonError};

use tokio::sync::{oneshot, watch};

use super::engine::{Attached, Command};
use super::input;
use super::screen::MAX_LINES;
use super::size::{Size, ViewerId};
use super::terminal::{Exit, Status, Terminal};

/// Most bytes of output in one frame. Larger frames save little and cost each viewer their size in buffers.
pub const FRAME: usize = 16 << 10;

/// How someone watches.
#[derive(Clone, Copy, Debug)]
pub struct ViewerOptions {
    /// The size of its window, if it has one.
    pub size: Option<Size>,
    /// Can neither type, paste nor resize.
    pub read_only: bool,
    /// Offset up to which it has seen the output.
    pub resume: Option<u64>,
    /// Lines of scrollback it wants in a snapshot.
    pub lines: usize,
    /// Whether it counts as a viewer to others; the recorder does not.
    pub counted: bool,
}

impl Default for ViewerOptions {
    fn default() -> Self {
        Self {
            size: None,
            read_only: false,
            resume: None,
            lines: MAX_LINES,
            counted: true,
        }
    }
}

/// What a viewer is to show, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Output. `offset` is that of the first byte. Bytes before `live_from` are a replay, whose queries are not to be
    /// answered.
    Output {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Forget everything and show this instead; output goes on at `offset`. `skipped`: bytes never sent.
    Snapshot {
        offset: u64,
        bytes: Vec<u8>,
        skipped: u64,
    },
    Title(String),
    /// The size, and whether it is this viewer's.
    Size {
        size: Size,
        own: bool,
    },
    /// The program ended. The last frame.
    Exit(Exit),
}

/// Makes the engine forget the viewer when dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    terminal: Terminal,
    id: ViewerId,
}

impl Ticket {
    pub(super) fn new(terminal: Terminal, id: ViewerId) -> Self {
        Self { terminal, id }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.terminal.shared.detached.add(self.id);
    }
}

/// The watching half; see the module's header.
#[derive(Debug)]
pub struct Viewer {
    ticket: Arc<Ticket>,
    read_only: bool,
    at: u64,
    live_from: u64,
    first: Option<Vec<u8>>,
    head: watch::Receiver<u64>,
    status: watch::Receiver<Status>,
    shown: Shown,
    over: bool,
}

/// What of the status the viewer has been told.
#[derive(Debug, Default)]
struct Shown {
    title: Option<String>,
    size: Option<(Size, bool)>,
}

impl Viewer {
    pub(super) fn new(ticket: Ticket, read_only: bool, attached: Attached) -> Self {
        let shared = &ticket.terminal.shared;
        let mut head = shared.head.subscribe();
        let mut status = shared.status.subscribe();
        head.mark_changed();
        status.mark_changed();
        Self {
            ticket: Arc::new(ticket),
            read_only,
            at: attached.offset,
            live_from: attached.live_from,
            first: attached.snapshot,
            head,
            status,
            shown: Shown::default(),
            over: false,
        }
    }

    pub fn id(&self) -> ViewerId {
        self.ticket.id
    }

    /// Output before this offset is a replay.
    pub fn live_from(&self) -> u64 {
        self.live_from
    }

    /// The typing half. Clones stay valid; the viewer is forgotten when all halves are gone.
    pub fn input(&self) -> ViewerInput {
        ViewerInput {
            ticket: Arc::clone(&self.ticket),
            read_only: self.read_only,
        }
    }

    /// The next thing to show; `None` when the terminal is over and told so, or gone. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if self.over {
                return None;
            }
            if let Some(frame) = self.status_frame() {
                return Some(frame);
            }
            if let Some(bytes) = self.first.take() {
                return Some(Frame::Snapshot {
                    offset: self.at,
                    bytes,
                    skipped: 0,
                });
            }
            let mut bytes = Vec::new();
            let copied = {
                let shared = &self.ticket.terminal.shared;
                let backlog = shared
                    .backlog
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                let waiting =
                    usize::try_from(backlog.head().saturating_sub(self.at)).unwrap_or(FRAME);
                bytes.reserve_exact(waiting.min(FRAME));
                backlog.copy(self.at, FRAME, &mut bytes)
            };
            match copied {
                Ok(0) => {}
                Ok(count) => {
                    let offset = self.at;
                    self.at += count as u64;
                    return Some(Frame::Output { offset, bytes });
                }
                Err(_) => return self.skip().await,
            }
            // All output is shown. The engine publishes the exit only after the last byte.
            let exit = self.status.borrow().exit;
            if let Some(exit) = exit {
                if *self.head.borrow_and_update() > self.at {
                    continue;
                }
                self.over = true;
                return Some(Frame::Exit(exit));
            }
            tokio::select! {
                changed = self.head.changed() => if changed.is_err() { return None },
                changed = self.status.changed() => if changed.is_err() { return None },
            }
        }
    }

    /// Title and size as they are now, when the viewer was not told yet.
    fn status_frame(&mut self) -> Option<Frame> {
        let status = self.status.borrow_and_update();
        if self.shown.title.as_ref() != Some(&status.title) {
            self.shown.title = Some(status.title.clone());
            return Some(Frame::Title(status.title.clone()));
        }
        let size = (status.size, status.owner == Some(self.ticket.id));
        if self.shown.size != Some(size) {
            self.shown.size = Some(size);
            return Some(Frame::Size {
                size: size.0,
                own: size.1,
            });
        }
        None
    }

    async fn skip(&mut self) -> Option<Frame> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Snapshot {
            viewer: self.ticket.id,
            from: self.at,
            reply,
        };
        self.ticket.terminal.commands.send(command).await.ok()?;
        let snapshot = answer.await.ok()?;
        let skipped = snapshot.offset.saturating_sub(self.at);
        self.at = snapshot.offset;
        self.live_from = snapshot.offset;
        Some(Frame::Snapshot {
            offset: snapshot.offset,
            bytes: snapshot.bytes,
            skipped,
        })
    }
}

/// The typing half of a viewer. What a read-only viewer sends is dropped.
#[derive(Clone, Debug)]
pub struct ViewerInput {
    ticket: Arc<Ticket>,
    read_only: bool,
}

impl ViewerInput {
    /// Types bytes; waits while 16 MiB are waiting already, except for a lone interrupt key.
    pub async fn send(&self, bytes: &[u8]) {
        if self.read_only || bytes.is_empty() {
            return;
        }
        let permit = if input::interrupt_key(bytes).is_some() {
            None
        } else {
            let permits = u32::try_from(bytes.len().min(input::LIMIT)).unwrap_or(u32::MAX);
            let room = Arc::clone(&self.ticket.terminal.shared.input_room);
            let Ok(permit) = room.acquire_many_owned(permits).await else {
                return;
            };
            Some(permit)
        };
        let piece = input::Piece {
            bytes: bytes.to_vec(),
            permit,
            done: None,
        };
        self.command(Command::Input {
            viewer: self.ticket.id,
            piece,
        })
        .await;
    }

    /// The viewer's window changed.
    pub async fn resize(&self, size: Size) {
        if !self.read_only {
            self.command(Command::Resize {
                viewer: self.ticket.id,
                size,
            })
            .await;
        }
    }

    /// Makes this viewer's size the terminal's.
    pub async fn take_over(&self) {
        if !self.read_only {
            self.command(Command::TakeOver {
                viewer: self.ticket.id,
            })
            .await;
        }
    }

    /// Tells whether the viewer reads along: one that does not, does not answer queries.
    pub async fn paused(&self, paused: bool) {
        self.command(Command::Paused {
            viewer: self.ticket.id,
            paused,
        })
        .await;
    }

    /// The terminal's present size, for requests that leave a part out.
    pub fn size(&self) -> Size {
        self.ticket.terminal.shared.status.borrow().size
    }

    async fn command(&self, command: Command) {
        // A terminal that is gone takes no input; the watching half says so.
        drop(self.ticket.terminal.commands.send(command).await);
    }
}
