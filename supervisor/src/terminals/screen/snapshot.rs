//! Writes the bytes that bring a fresh terminal to the present state: scrollback, both screens, pens, saved
//! cursors, modes, title, and the beginning of a sequence that is not finished.
//!
//! The bytes contain no query, so replaying them makes no terminal type answers into the program.

use std::io::Write as _;

use alacritty_terminal::Grid;
use alacritty_terminal::grid::{Cursor, Dimensions, Row};
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::TermMode;
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::vte::ansi::{CharsetIndex, CursorShape, Rgb, StandardCharset};

use super::encode::{self, Pen};
use super::model::Model;
use super::scan::Scanner;
use super::scrollback::Scrollback;

/// Colours that a program can change: the palette, foreground, background, cursor.
const COLORS: usize = 259;
const FOREGROUND: usize = 256;

pub(super) struct Parts<'a> {
    pub(super) model: &'a mut Model,
    pub(super) scrollback: &'a Scrollback,
    pub(super) scanner: &'a Scanner,
}

/// What a snapshot is made for.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotOptions {
    /// Rows of the terminal that will show it: that many line feeds push the scrollback out of its screen.
    pub rows: u16,
    /// Newest lines of scrollback to send.
    pub lines: usize,
    /// Bytes that this viewer never got: told in a line of its own above the screen.
    pub skipped: u64,
}

impl Parts<'_> {
    pub(super) fn write(&mut self, options: SnapshotOptions, out: &mut Vec<u8>) {
        self.scrollback.write(out, options.lines);
        let alternate = self.model.has(TermMode::ALT_SCREEN);
        let mut pen = Pen::default();
        if alternate {
            // The library shows the other screen only by switching to it, and clears this one on the way back.
            let shown = self.model.grid().clone();
            self.model.term.swap_alt();
            self.write_main(options, &mut pen, out);
            write_cursor(self.model.grid(), &self.model.grid().cursor, &mut pen, out);
            self.model.term.swap_alt();
            *self.model.term.grid_mut() = shown;
            push_keyboard(&self.model.other_keyboard, out);
            pen.change(Pen::default(), out);
            out.extend_from_slice(b"\x1b[?1049h\x1b[H");
            write_screen(self.model.grid(), false, &mut pen, out);
        } else {
            self.write_main(options, &mut pen, out);
        }
        self.write_colors(out);
        self.write_tabs(out);
        self.write_saved_cursor(&mut pen, out);
        self.write_margins(&mut pen, out);
        self.write_cursor(&mut pen, out);
        self.write_modes(out);
        push_keyboard(&self.model.keyboard, out);
        print(out, format_args!("\x1b]2;{}\x1b\\", self.model.title));
        if self.model.synchronized {
            out.extend_from_slice(b"\x1b[?2026h");
        }
        out.extend_from_slice(&self.scanner.partial());
    }

    /// The main screen below everything that has scrolled out of it. Printed in one flow, the screen's rows end up as the
    /// last ones of a terminal that has as many.
    fn write_main(&self, options: SnapshotOptions, pen: &mut Pen, out: &mut Vec<u8>) {
        let grid = self.model.grid();
        let mut wrapped = self.scrollback.is_wrapped();
        let above = i32::try_from(grid.history_size().min(options.lines)).unwrap_or(i32::MAX);
        for line in (1..=above).rev() {
            wrapped = write_line(grid, -line, wrapped, pen, out);
            if !wrapped {
                out.extend_from_slice(b"\r\n");
            }
        }
        let same_rows = usize::from(options.rows) == grid.screen_lines();
        if options.skipped > 0 || (!same_rows && !out.is_empty()) {
            if wrapped {
                pen.change(Pen::default(), out);
                out.extend_from_slice(b"\r\n");
                wrapped = false;
            }
            if options.skipped > 0 {
                print(
                    out,
                    format_args!("\x1b[0;7m[skipped {} bytes]\x1b[0m\r\n", options.skipped),
                );
            }
        }
        if !same_rows {
            write_gap(options.rows, out);
        }
        write_screen(grid, wrapped, pen, out);
    }

    fn write_colors(&self, out: &mut Vec<u8>) {
        let colors = self.model.term.colors();
        for index in 0..COLORS {
            let Some(Rgb { r, g, b }) = colors[index] else {
                continue;
            };
            let color = format_args!("rgb:{r:02x}/{g:02x}/{b:02x}\x1b\\").to_string();
            match index.checked_sub(FOREGROUND) {
                None => print(out, format_args!("\x1b]4;{index};{color}")),
                Some(which) => print(out, format_args!("\x1b]{};{color}", which + 10)),
            }
        }
    }

    fn write_tabs(&self, out: &mut Vec<u8>) {
        let Some(tabs) = &self.model.tabs else { return };
        out.extend_from_slice(b"\x1b[3g");
        for column in tabs {
            print(out, format_args!("\x1b[{}G\x1bH", column + 1));
        }
    }

    /// Margins move the cursor home, so they come before it.
    fn write_margins(&self, pen: &mut Pen, out: &mut Vec<u8>) {
        pen.change(Pen::default(), out);
        if let Some((top, bottom)) = self.model.margins {
            print(out, format_args!("\x1b[{};{}r", top + 1, bottom + 1));
        }
    }

    /// It is set by going there and saving; before the margins, so that nothing scrolls.
    fn write_saved_cursor(&self, pen: &mut Pen, out: &mut Vec<u8>) {
        let grid = self.model.grid();
        let saved = &grid.saved_cursor;
        if *saved == Cursor::default() {
            return;
        }
        write_cursor(grid, saved, pen, out);
        write_charsets(saved, self.model.charset, out);
        out.extend_from_slice(b"\x1b7");
        reset_charsets(saved, out);
        if saved.input_needs_wrap {
            write_flow(grid, saved.point.line.0, pen, out);
        }
    }

    fn write_cursor(&self, pen: &mut Pen, out: &mut Vec<u8>) {
        let grid = self.model.grid();
        if self.model.has(TermMode::ORIGIN) {
            out.extend_from_slice(b"\x1b[?6h");
        } else if is_restored(grid) {
            out.extend_from_slice(b"\x1b8");
            *pen = Pen::of(&grid.saved_cursor.template);
            reset_charsets(&grid.saved_cursor, out);
            pen.change(Pen::of(&grid.cursor.template), out);
            write_charsets(&grid.cursor, self.model.charset, out);
            return;
        }
        let top = if self.model.has(TermMode::ORIGIN) {
            self.model.margins.map_or(0, |(top, _)| i32::from(top))
        } else {
            0
        };
        write_cursor_below(grid, &grid.cursor, top, pen, out);
        write_charsets(&grid.cursor, self.model.charset, out);
    }

    fn write_modes(&self, out: &mut Vec<u8>) {
        const SET: [(TermMode, &[u8]); 5] = [
            (TermMode::APP_CURSOR, b"\x1b[?1h"),
            (TermMode::BRACKETED_PASTE, b"\x1b[?2004h"),
            (TermMode::INSERT, b"\x1b[4h"),
            (TermMode::LINE_FEED_NEW_LINE, b"\x1b[20h"),
            (TermMode::APP_KEYPAD, b"\x1b="),
        ];
        const UNSET: [(TermMode, &[u8]); 2] = [
            (TermMode::LINE_WRAP, b"\x1b[?7l"),
            (TermMode::SHOW_CURSOR, b"\x1b[?25l"),
        ];
        for (mode, bytes) in SET {
            if self.model.has(mode) {
                out.extend_from_slice(bytes);
            }
        }
        for (mode, bytes) in UNSET {
            if !self.model.has(mode) {
                out.extend_from_slice(bytes);
            }
        }
        for mode in &self.model.viewer_modes {
            print(out, format_args!("\x1b[?{mode}h"));
        }
        if self.model.modify_other_keys > 0 {
            print(
                out,
                format_args!("\x1b[>4;{}m", self.model.modify_other_keys),
            );
        }
        let style = self.model.term.cursor_style();
        let shape = match style.shape {
            CursorShape::Underline => 3,
            CursorShape::Beam => 5,
            _ => 1,
        };
        let number = if style.blinking { shape } else { shape + 1 };
        // A steady block is the default of the model, and no viewer's: they keep their own.
        if number != 2 {
            print(out, format_args!("\x1b[{number} q"));
        }
    }
}

/// Appends formatted text; writing into a Vec cannot fail.
fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let written = out.write_fmt(text);
    debug_assert!(written.is_ok());
}

/// One line without its line break; ends in the default pen. Returns whether the text flows on into the next line.
pub(super) fn write_line(
    grid: &Grid<Cell>,
    line: i32,
    from_above: bool,
    pen: &mut Pen,
    out: &mut Vec<u8>,
) -> bool {
    let below = flows_into(grid, line);
    let flow = encode::Flow { from_above, below };
    encode::write_row(&grid[Line(line)], flow, pen, out);
    if below.is_none() {
        pen.change(Pen::default(), out);
    }
    below.is_some()
}

/// The row that a line goes on in.
fn flows_into(grid: &Grid<Cell>, line: i32) -> Option<&Row<Cell>> {
    let rows = i32::try_from(grid.screen_lines()).unwrap_or(i32::MAX);
    (encode::is_wrapped(&grid[Line(line)]) && line + 1 < rows)
        .then(|| &grid[Line(line + 1)])
        .filter(|below| encode::takes_wrap(below))
}

/// A line whose last cell is printed again no longer goes on in the next one; that one's first cell, printed right
/// behind, lets it.
fn write_flow(grid: &Grid<Cell>, line: i32, pen: &mut Pen, out: &mut Vec<u8>) {
    if let Some(below) = flows_into(grid, line) {
        encode::write_column(below, 0, pen, out);
    }
}

/// Whether the cursor waits behind a line that goes on: it came there by being restored, and so it must again.
fn is_restored(grid: &Grid<Cell>) -> bool {
    let (cursor, saved) = (&grid.cursor, &grid.saved_cursor);
    cursor.input_needs_wrap
        && saved.input_needs_wrap
        && cursor.point == saved.point
        && flows_into(grid, cursor.point.line.0).is_some()
}

/// Pushes all that was printed so far out of a screen of `rows`: with `k` lines on it, `rows - 1 - k` line feeds reach
/// the bottom and `k` more scroll those lines out.
fn write_gap(rows: u16, out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.extend(std::iter::repeat_n(
            b'\n',
            usize::from(rows.saturating_sub(1)),
        ));
    }
    out.extend_from_slice(b"\x1b[H");
}

fn write_screen(grid: &Grid<Cell>, wrapped: bool, pen: &mut Pen, out: &mut Vec<u8>) {
    let rows = i32::try_from(grid.screen_lines()).unwrap_or(i32::MAX);
    let mut from_above = wrapped;
    for line in 0..rows {
        from_above = write_line(grid, line, from_above, pen, out);
        if !from_above && line + 1 < rows {
            out.extend_from_slice(b"\r\n");
        }
    }
    let bottom = &grid[Line(rows - 1)];
    if rows > 1 && encode::is_wrapped(bottom) && encode::takes_wrap(bottom) {
        // It wrapped below the margins, where nothing scrolls: into itself.
        print(out, format_args!("\x1b[1;{}r", rows - 1));
        write_last_cell(grid, rows - 1, 0, pen, out);
        encode::write_column(bottom, 0, pen, out);
        out.extend_from_slice(b"\x1b[r");
    }
}

/// Prints the last cell of a line (rows counted from `top`) where it is: the cursor waits behind it.
fn write_last_cell(grid: &Grid<Cell>, line: i32, top: i32, pen: &mut Pen, out: &mut Vec<u8>) {
    let row = &grid[Line(line)];
    let mut column = grid.columns() - 1;
    if column > 0 && row[Column(column)].flags.contains(Flags::WIDE_CHAR_SPACER) {
        column -= 1;
    }
    print(out, format_args!("\x1b[{};{}H", line - top + 1, column + 1));
    encode::write_cell(&row[Column(column)], pen, out);
}

fn write_cursor(grid: &Grid<Cell>, cursor: &Cursor<Cell>, pen: &mut Pen, out: &mut Vec<u8>) {
    write_cursor_below(grid, cursor, 0, pen, out);
}

/// Moves to `cursor` (rows counted from `top`) and takes its pen. A cursor that waits behind the last column is brought
/// there by printing the last cell again.
fn write_cursor_below(
    grid: &Grid<Cell>,
    cursor: &Cursor<Cell>,
    top: i32,
    pen: &mut Pen,
    out: &mut Vec<u8>,
) {
    let rows = i32::try_from(grid.screen_lines()).unwrap_or(i32::MAX);
    let line = cursor.point.line.0.clamp(0, rows - 1);
    let column = cursor.point.column.0.min(grid.columns() - 1);
    if cursor.input_needs_wrap && column > 0 {
        write_last_cell(grid, line, top, pen, out);
    } else {
        print(out, format_args!("\x1b[{};{}H", line - top + 1, column + 1));
    }
    pen.change(Pen::of(&cursor.template), out);
}

const CHARSETS: [(CharsetIndex, u8, &[u8]); 4] = [
    (CharsetIndex::G0, b'(', b"\x0f"),
    (CharsetIndex::G1, b')', b"\x0e"),
    (CharsetIndex::G2, b'*', b"\x1bn"),
    (CharsetIndex::G3, b'+', b"\x1bo"),
];

fn write_charsets(cursor: &Cursor<Cell>, used: usize, out: &mut Vec<u8>) {
    for (index, designator, invoke) in CHARSETS {
        if cursor.charsets[index] == StandardCharset::SpecialCharacterAndLineDrawing {
            out.extend_from_slice(&[0x1b, designator, b'0']);
        }
        if index as usize == used && used != 0 {
            out.extend_from_slice(invoke);
        }
    }
}

fn reset_charsets(cursor: &Cursor<Cell>, out: &mut Vec<u8>) {
    for (index, designator, _) in CHARSETS {
        if cursor.charsets[index] == StandardCharset::SpecialCharacterAndLineDrawing {
            out.extend_from_slice(&[0x1b, designator, b'B']);
        }
    }
    out.push(0x0f);
}

fn push_keyboard(modes: &[u8], out: &mut Vec<u8>) {
    for mode in modes {
        print(out, format_args!("\x1b[>{mode}u"));
    }
}
