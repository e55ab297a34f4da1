//! The screen of a terminal on the server: what a viewer that comes now must see.
//!
//! It owns the parser, the cells, the scrollback and the scanner, and promises that [`Screen::snapshot`] brings a
//! fresh terminal of the same size to the same state as all bytes fed so far, even inside a sequence. Feeding never
//! fails and never panics outward: should the library panic on some input, the screen starts afresh and says so.
//!
//! # Choice of the library
//!
//! `alacritty_terminal` 0.26, `vt100` 0.18 and `avt` 0.19 were fed the same cases; see
//! `benches/terminal/models.md` for the table. In short: all three do the alternate screen, margins and wide characters;
//! only alacritty_terminal keeps links (OSC 8), palette changes, underline styles and colours; vt100 does not reflow, avt
//! loses combining marks; and alacritty_terminal's parser is the fastest.
//! Its price is 24 bytes a cell, so lines that leave the screen are harvested into [`scrollback`] as text; what it keeps
//! private is tracked by [`model`].
//!
//! # Fast-forward
//!
//! A flood of plain text leaves only its last lines behind. [`Screen::without_trace`] therefore tells what part of a large
//! plain run cannot be seen any more and need not be fed; [`flood`] gives the exact rule.
//!
//! # Bounds
//!
//! One screen takes at most 24 bytes for each cell of both screens and of [`model::KEPT_ABOVE`] lines, plus the
//! scrollback's bounds. Signals go into [`Effects`], which the caller empties after each feed.

mod encode;
mod flood;
mod listen;
mod model;
mod scan;
mod scrollback;
mod snapshot;

use std::panic::{AssertUnwindSafe, catch_unwind};

use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::TermMode;
use alacritty_terminal::vte::ansi::{Processor, Timeout};

use self::encode::Pen;
pub use self::model::clean_title;
use self::model::{KEPT_ABOVE, Model, SLICE};
use self::scan::Scanner;
pub use self::scan::{Found, Query};
pub use self::scrollback::MAX_LINES;
use self::scrollback::Scrollback;
use self::snapshot::Parts;
pub use self::snapshot::SnapshotOptions;
use super::size::Size;

/// Synchronized updates (mode 2026) only tell a viewer when to draw; the model applies them as they come, so that it is
/// true at every byte.
#[derive(Debug, Default)]
struct Unsynchronized;

impl Timeout for Unsynchronized {
    fn set_timeout(&mut self, _: std::time::Duration) {}
    fn clear_timeout(&mut self) {}
    fn pending_timeout(&self) -> bool {
        false
    }
}

/// What came to light while feeding, in order.
#[derive(Debug, Default)]
pub struct Effects {
    pub found: Vec<Effect>,
}

/// One thing that came to light.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The program asked. `answer` is what this terminal says, `None` where only a viewer can know.
    Query {
        query: Query,
        answer: Option<Vec<u8>>,
    },
    Osc(Vec<u8>),
    Bell,
    Listen(u16),
    Title(String),
    /// The screen had to start afresh: the library panicked on the input.
    Restarted,
}

/// See the module's header.
pub struct Screen {
    parser: Processor<Unsynchronized>,
    model: Model,
    scanner: Scanner,
    scrollback: Scrollback,
    line: Vec<u8>,
    /// The beginning of a character, at most three bytes.
    character: Vec<u8>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Screen")
            .field("model", &self.model)
            .field("scrollback", &self.scrollback.len())
            .finish_non_exhaustive()
    }
}

impl Screen {
    pub fn new(size: Size) -> Self {
        Self {
            parser: Processor::new(),
            model: Model::new(size),
            scanner: Scanner::default(),
            scrollback: Scrollback::default(),
            line: Vec::new(),
            character: Vec::new(),
        }
    }

    pub fn size(&self) -> Size {
        Size {
            columns: self.model.column_count(),
            rows: self.model.row_count(),
        }
    }

    pub fn title(&self) -> &str {
        &self.model.title
    }

    /// Whether the program wants pastes bracketed (mode 2004).
    pub fn bracketed_paste(&self) -> bool {
        self.model.has(TermMode::BRACKETED_PASTE)
    }

    /// Takes output of the program.
    pub fn feed(&mut self, bytes: &[u8], effects: &mut Effects) {
        if catch_unwind(AssertUnwindSafe(|| self.feed_all(bytes, effects))).is_err() {
            let size = self.size();
            *self = Self::new(size);
            effects.found.push(Effect::Restarted);
        }
    }

    /// How many bytes at the front of a flood need not be fed: what follows them leaves the same screen and scrollback.
    pub fn without_trace(&self, bytes: &[u8]) -> usize {
        flood::visible_part(bytes, self.scanner.at_rest(), self.model.row_count())
            .map_or(0, |rest| bytes.len() - rest.len())
    }

    fn feed_all(&mut self, mut bytes: &[u8], effects: &mut Effects) {
        while !bytes.is_empty() {
            let slice = bytes.get(..SLICE).unwrap_or(bytes);
            let (taken, found) = self.scanner.next(slice);
            let (now, later) = bytes.split_at(taken);
            self.parse(now);
            bytes = later;
            self.harvest();
            if let Some(found) = found {
                self.tell(found, effects);
            }
        }
    }

    /// Hands bytes to the parser in whole characters: `vte` 0.15 loses a character that follows one which was cut at the
    /// end of the previous call, when a third one is cut at the end of its four-byte buffer.
    fn parse(&mut self, bytes: &[u8]) {
        let part = self.scanner.character_part();
        if self.character.is_empty() && part == 0 {
            self.parser.advance(&mut self.model, bytes);
            return;
        }
        self.character.extend_from_slice(bytes);
        let whole = self.character.len().saturating_sub(part);
        let cut = self.character.split_off(whole);
        self.parser.advance(&mut self.model, &self.character);
        self.character = cut;
    }

    fn tell(&mut self, found: Found, effects: &mut Effects) {
        let effect = match found {
            Found::Query(query) => {
                let answer = self.answer(&query);
                Effect::Query { query, answer }
            }
            Found::Osc(body)
                if matches!(body.split(|byte| *byte == b';').next(), Some(b"0" | b"2")) =>
            {
                Effect::Title(self.model.title.clone())
            }
            Found::Osc(body) => Effect::Osc(body),
            Found::Bell => Effect::Bell,
            Found::Listen(port) => Effect::Listen(port),
        };
        effects.found.push(effect);
    }

    /// What this terminal answers, as xterm.js would in its default state. Colours and settings are a viewer's.
    fn answer(&self, query: &Query) -> Option<Vec<u8>> {
        let text = match query {
            Query::PrimaryAttributes => "\x1b[?1;2c".to_owned(),
            Query::SecondaryAttributes => "\x1b[>0;276;0c".to_owned(),
            Query::Status => "\x1b[0n".to_owned(),
            Query::CursorPosition { private } => {
                let point = self.model.grid().cursor.point;
                let mark = if *private { "?" } else { "" };
                format!("\x1b[{mark}{};{}R", point.line.0 + 1, point.column.0 + 1)
            }
            Query::Mode {
                number,
                private: true,
            } => {
                format!("\x1b[?{number};{}$y", self.model.private_mode(*number))
            }
            Query::Mode {
                number,
                private: false,
            } => {
                let flag = match number {
                    4 => Some(TermMode::INSERT),
                    20 => Some(TermMode::LINE_FEED_NEW_LINE),
                    _ => None,
                };
                let state = flag.map_or(0, |flag| if self.model.has(flag) { 1 } else { 2 });
                format!("\x1b[{number};{state}$y")
            }
            Query::Version => format!("\x1bP>|whim({})\x1b\\", env!("CARGO_PKG_VERSION")),
            Query::KeyboardFlags => {
                format!(
                    "\x1b[?{}u",
                    self.model.keyboard.last().copied().unwrap_or(0)
                )
            }
            Query::TertiaryAttributes | Query::Color | Query::Setting => return None,
        };
        Some(text.into_bytes())
    }

    /// Moves lines that are far enough above the screen into the scrollback.
    fn harvest(&mut self) {
        if std::mem::take(&mut self.model.scrollback_cleared) {
            self.scrollback.clear();
        }
        if self.model.has(TermMode::ALT_SCREEN) {
            return;
        }
        let above = self.model.grid().history_size();
        if above <= KEPT_ABOVE {
            return;
        }
        let mut from_above = self.scrollback.is_wrapped();
        for line in (KEPT_ABOVE + 1..=above).rev() {
            let Ok(line) = i32::try_from(line) else {
                continue;
            };
            let mut pen = Pen::default();
            self.line.clear();
            from_above = snapshot::write_line(
                self.model.grid(),
                -line,
                from_above,
                &mut pen,
                &mut self.line,
            );
            pen.change(Pen::default(), &mut self.line);
            self.scrollback.push(&self.line, from_above);
        }
        let grid = self.model.term.grid_mut();
        grid.update_history(KEPT_ABOVE);
        grid.update_history(KEPT_ABOVE + SLICE);
    }

    /// The window changed: the main screen reflows, the alternate one is cut or padded, as in xterm.js.
    pub fn resize(&mut self, size: Size) {
        let size = size.clamped();
        if size == self.size() {
            return;
        }
        let resized = catch_unwind(AssertUnwindSafe(|| {
            self.model.resize(size);
            self.harvest();
        }));
        if resized.is_err() {
            *self = Self::new(size);
        }
    }

    /// Bytes that bring a fresh terminal to this state. Changes nothing that can be seen.
    pub fn snapshot(&mut self, options: SnapshotOptions) -> Vec<u8> {
        let mut out = Vec::new();
        Parts {
            model: &mut self.model,
            scrollback: &self.scrollback,
            scanner: &self.scanner,
        }
        .write(options, &mut out);
        out
    }

    /// The visible screen as text, one line a row, trailing blanks cut.
    pub fn text(&self) -> String {
        let grid = self.model.grid();
        let mut text = String::new();
        for line in 0..i32::from(self.model.row_count()) {
            let row = &grid[Line(line)];
            let start = text.len();
            for column in 0..grid.columns() {
                let cell = &row[Column(column)];
                match encode::half(row, column) {
                    encode::Half::Covered => {}
                    encode::Half::Orphan => text.push(' '),
                    encode::Half::Whole => {
                        text.push(cell.c);
                        text.extend(cell.zerowidth().unwrap_or_default());
                    }
                }
            }
            let end = text.trim_end_matches(' ').len().max(start);
            text.truncate(end);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests;
