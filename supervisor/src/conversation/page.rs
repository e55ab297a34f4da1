//! A page of a conversation, collected from a transcript's bytes as they are read.

use whim_wire::conversation::{Role, Turn};
use whim_wire::spec::AgentKind;

use super::cursor::{CHECKED, Cursor};
use super::lines::Lines;

/// Turns of a page when no limit is given.
pub const DEFAULT: usize = 200;
/// Most turns of a page.
pub const MOST: usize = 2000;
/// Bytes of records after which a page is full, whatever its limit; the turn that passes it is still in it.
pub const BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a transcript that one page looks through.
pub const LOOKED: u64 = 64 * 1024 * 1024;

/// What belongs on the page.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub kind: AgentKind,
    /// Whose transcript it is; none: the session's own.
    pub transcript_of: Option<String>,
    /// Only what this sub-agent wrote into its session's transcript.
    pub only: Option<String>,
    /// Bookkeeping too.
    pub all: bool,
    /// Turns.
    pub limit: usize,
}

/// The page while it grows.
#[derive(Debug)]
pub struct Page {
    wanted: Wanted,
    lines: Lines,
    pub turns: Vec<Turn>,
    size: usize,
    start: u64,
    /// End of the last line that was taken.
    end: u64,
    /// The last bytes before `end`.
    before: Vec<u8>,
}

impl Page {
    /// `before`: the last [`CHECKED`] bytes before `start`, or as many as there are.
    #[must_use]
    pub fn new(wanted: Wanted, start: u64, before: Vec<u8>) -> Self {
        Self {
            wanted,
            lines: Lines::new(start),
            turns: Vec::new(),
            size: 0,
            start,
            end: start,
            before,
        }
    }

    /// Takes the next bytes of the transcript in; `true`: the page is full.
    pub fn feed(&mut self, bytes: &[u8]) -> bool {
        self.lines.feed(bytes);
        while !self.full() {
            let Some(line) = self.lines.next() else {
                return false;
            };
            self.end = line.end();
            let kept = line.bytes.len().saturating_sub(CHECKED);
            self.before
                .extend_from_slice(line.bytes.get(kept..).unwrap_or_default());
            self.before
                .drain(..self.before.len().saturating_sub(CHECKED));
            let turn = super::turn(
                self.wanted.kind,
                &line,
                self.wanted.transcript_of.as_deref(),
            );
            let shown = self.wanted.all || turn.role != Role::Record;
            let ours = self.wanted.only.is_none() || turn.subagent == self.wanted.only;
            if shown && ours {
                self.size += line.bytes.len();
                self.turns.push(turn);
            }
        }
        true
    }

    /// Nothing more is taken.
    #[must_use]
    pub fn full(&self) -> bool {
        self.turns.len() >= self.wanted.limit
            || self.size >= BYTES
            || self.end - self.start >= LOOKED
    }

    /// Where the bytes begin that are fed next.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.lines.position()
    }

    /// Whether a line that was fed is not on the page.
    pub fn left_over(&mut self) -> bool {
        self.lines.ready()
    }

    /// Where the next page begins.
    #[must_use]
    pub fn next(&self, transcript: &str) -> Cursor {
        Cursor::new(transcript, self.end, &self.before)
    }
}
