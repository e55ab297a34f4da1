//! What handles and viewers ask of the engine, and what they are told.

use tokio::sync::oneshot;

use crate::terminals::input;
use crate::terminals::size::{Size, ViewerId};
use crate::terminals::terminal::Exit;

/// What handles and viewers ask of the engine.
#[derive(Debug)]
pub(in crate::terminals) enum Command {
    Attach(Attach, oneshot::Sender<Attached>),
    Snapshot {
        viewer: ViewerId,
        from: u64,
        reply: oneshot::Sender<Snapshot>,
    },
    Input {
        viewer: ViewerId,
        piece: input::Piece,
    },
    Resize {
        viewer: ViewerId,
        size: Size,
    },
    TakeOver {
        viewer: ViewerId,
    },
    Paused {
        viewer: ViewerId,
        paused: bool,
    },
    /// Bytes of a prompt or of the API; no viewer's.
    Type(input::Piece),
    Text(oneshot::Sender<ScreenText>),
    /// The program ended.
    Exited(Exit),
    /// All of the program's output is in the source.
    Drained,
}

#[derive(Clone, Copy, Debug)]
pub(in crate::terminals) struct Attach {
    pub(in crate::terminals) viewer: ViewerId,
    pub(in crate::terminals) size: Option<Size>,
    pub(in crate::terminals) read_only: bool,
    pub(in crate::terminals) resume: Option<u64>,
    pub(in crate::terminals) lines: usize,
    pub(in crate::terminals) counted: bool,
}

#[derive(Debug)]
pub(in crate::terminals) struct Attached {
    /// Where the viewer goes on reading.
    pub(in crate::terminals) offset: u64,
    /// What it must show first; `None` when it resumes.
    pub(in crate::terminals) snapshot: Option<Vec<u8>>,
    /// Output before this offset is a replay: queries in it are not to be answered.
    pub(in crate::terminals) live_from: u64,
}

#[derive(Debug)]
pub(in crate::terminals) struct Snapshot {
    pub(in crate::terminals) bytes: Vec<u8>,
    pub(in crate::terminals) offset: u64,
}

/// The visible screen, for those who read it by program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScreenText {
    /// One line a row, trailing blanks cut.
    pub text: String,
    /// Whether the program wants pastes bracketed.
    pub bracketed_paste: bool,
    pub title: String,
}
