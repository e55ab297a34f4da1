//! A prompt's way into an agent's terminal.
//!
//! `queued → delivered → working → done | interrupted | failed`, one prompt at a time, in order. [`Queue`] is a state
//! machine without clock and without I/O: it is told what happens (the agent's state, bytes taken by the terminal,
//! signals of a submitted prompt, human keys) and says what to write and what to report; [`Queue::next_deadline`] says
//! when it wants to be woken at the latest.
//!
//! What it promises:
//! - A prompt is typed only while the agent is idle, at its input box (bracketed paste is on), with no dialog open and
//!   nobody typing. Busy agents would queue (Claude Code), join (Copilot) or drop their answer (Codex steers): none of
//!   that is what the sender of a second prompt means, and the own queue can say what became of each.
//! - Text arrives literally: nothing in it can end the paste or act as a key ([`paste`]).
//! - Enter is pressed when the terminal took the whole paste and the agent showed a reaction, or after a deadline. It is
//!   pressed again only while nothing at all happened: no dialog can be open then, because a dialog needs a model call.
//! - A person at the keyboard comes first. Nothing is typed within 2 s of their last key. While something of theirs
//!   stands in the input box it waits until they enter or delete it, or have left it for 60 s; only then it is deleted.
//!   What they enter is a turn like any other: the next prompt waits for its end.
//! - What stands in the input box is deleted first: such a draft, and the prompt that Claude Code puts back there when it
//!   is interrupted before its first word.
//! - A paste cut by a restart of the supervisor is closed, the input box cleared, the prompt reported `failed`.
//!
//! Bounds: [`MAX_QUEUED`] prompts and [`MAX_QUEUED_BYTES`] bytes wait; more are refused ([`QueueFull`]). Every phase has a
//! deadline but the wait for an idle agent and for the end of a turn: those end with the agent.

pub mod paste;
mod queue;

use std::time::Duration;

pub use paste::{MAX_PROMPT, Refused, check};
pub use queue::Queue;

/// Prompts that may wait.
pub const MAX_QUEUED: usize = 64;
/// Bytes of all waiting prompts.
pub const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;

/// A moment on any clock that only goes forward.
pub type Moment = Duration;

/// How an agent's terminal takes a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptRules {
    /// Wait for bracketed paste, which the CLI turns on when its input box is there. Without it (a `custom` command)
    /// text is sent as typed, markers only when the program asked for them.
    pub paste_required: bool,
    /// First characters that begin a command of the agent's own, which may run no turn.
    pub local: &'static [char],
    /// A submitted prompt is told by a hook.
    pub tells_submit: bool,
    /// Interrupts a turn.
    pub interrupt: &'static [u8],
    /// Leaves a dialog with "no".
    pub leave_dialog: &'static [u8],
    /// Shortest time between two interrupts: pressed twice, the same key may end the program.
    pub interrupt_gap: Duration,
    /// Deletes a line from the input box; twice per line deletes its newline, too.
    pub clear_line: &'static [u8],
}

/// What the agent is doing, as the fusion of all sources sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub activity: Activity,
    /// The program has turned on bracketed paste (DEC mode 2004).
    pub bracketed_paste: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    Starting,
    Idle,
    Working,
    /// A dialog is open.
    Dialog,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    View(View),
    /// The terminal took everything written so far.
    Written,
    /// The agent printed something.
    Output,
    /// A hook told of a submitted prompt.
    Submitted(&'a str),
    /// A model call of the session began, side calls left out.
    GenerationStarted,
    TurnEnded {
        failed: bool,
    },
    Interrupted,
    /// Someone typed into the terminal; `leaves_draft`: something may stand in the input box since.
    HumanKey {
        leaves_draft: bool,
    },
    /// Someone entered what they had typed into the input box: if it is a prompt, its turn comes first.
    HumanSubmitted,
    /// The agent's process ended. `returns`: it will be started again.
    Gone {
        returns: bool,
        reason: &'a str,
    },
    /// A deadline passed.
    Tick,
}

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// To be recorded before the writes that follow: a supervisor that finds this prompt so reports it `failed`.
    Typing { id: String },
    /// Nothing of it was written after all: it waits again.
    Untyped { id: String },
    /// Bytes for the terminal; [`Event::Written`] answers.
    Write(Vec<u8>),
    Report {
        id: String,
        status: Status,
        /// Why, where it is not plain.
        reason: Option<String>,
    },
}

/// What became of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Queued,
    /// Enter was pressed.
    Delivered,
    /// The agent took it up.
    Working,
    Done,
    Interrupted,
    Failed,
}

impl Status {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delivered => "delivered",
            Self::Working => "working",
            Self::Done => "done",
            Self::Interrupted => "interrupted",
            Self::Failed => "failed",
        }
    }

    /// Nothing follows.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Interrupted | Self::Failed)
    }
}

/// A prompt as an earlier supervisor recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    pub id: String,
    pub text: String,
    pub progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Queued,
    /// [`Effect::Typing`] was the last word.
    Typing,
    Delivered,
    Working,
}

/// The queue takes no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{waiting} prompts ({bytes} bytes) wait already; at most {MAX_QUEUED} and {MAX_QUEUED_BYTES} bytes may"
)]
pub struct QueueFull {
    pub waiting: usize,
    pub bytes: usize,
}
