//! Turns cells of the screen model back into the bytes that print them.

use std::io::Write as _;

use alacritty_terminal::grid::Row;
use alacritty_terminal::index::Column;
use alacritty_terminal::term::cell::{Cell, Flags, Hyperlink};
use alacritty_terminal::vte::ansi::{Color, NamedColor};

/// Flags that are part of the pen; the others describe the cell's place in a line.
const STYLE: Flags = Flags::INVERSE
    .union(Flags::BOLD)
    .union(Flags::ITALIC)
    .union(Flags::DIM)
    .union(Flags::HIDDEN)
    .union(Flags::STRIKEOUT)
    .union(Flags::ALL_UNDERLINES);

/// How characters are drawn: colours, style, link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pen {
    foreground: Color,
    background: Color,
    style: Flags,
    underline: Option<Color>,
    link: Option<Hyperlink>,
}

impl Default for Pen {
    fn default() -> Self {
        Self {
            foreground: Color::Named(NamedColor::Foreground),
            background: Color::Named(NamedColor::Background),
            style: Flags::empty(),
            underline: None,
            link: None,
        }
    }
}

impl Pen {
    pub(super) fn of(cell: &Cell) -> Self {
        Self {
            foreground: cell.fg,
            background: cell.bg,
            style: cell.flags & STYLE,
            underline: cell.underline_color(),
            link: cell.hyperlink(),
        }
    }

    fn draws(&self, cell: &Cell) -> bool {
        self.foreground == cell.fg
            && self.background == cell.bg
            && self.style == cell.flags & STYLE
            && (cell.extra.is_none() && self.underline.is_none() && self.link.is_none()
                || cell.extra.is_some()
                    && self.underline == cell.underline_color()
                    && self.link == cell.hyperlink())
    }

    /// Appends what changes the terminal's pen from `self` to `next`.
    pub(super) fn change(&mut self, next: Self, out: &mut Vec<u8>) {
        if self.link != next.link {
            match &next.link {
                Some(link) => {
                    out.extend_from_slice(b"\x1b]8;id=");
                    out.extend_from_slice(link.id().as_bytes());
                    out.push(b';');
                    out.extend_from_slice(link.uri().as_bytes());
                    out.extend_from_slice(b"\x1b\\");
                }
                None => out.extend_from_slice(b"\x1b]8;;\x1b\\"),
            }
        }
        let same_style = self.foreground == next.foreground
            && self.background == next.background
            && self.style == next.style
            && self.underline == next.underline;
        if !same_style {
            next.write_style(out);
        }
        *self = next;
    }

    /// The whole style from scratch: as short as a difference in nearly all output, and never wrong.
    fn write_style(&self, out: &mut Vec<u8>) {
        const CODES: [(Flags, &str); 11] = [
            (Flags::BOLD, ";1"),
            (Flags::DIM, ";2"),
            (Flags::ITALIC, ";3"),
            (Flags::UNDERLINE, ";4"),
            (Flags::DOUBLE_UNDERLINE, ";4:2"),
            (Flags::UNDERCURL, ";4:3"),
            (Flags::DOTTED_UNDERLINE, ";4:4"),
            (Flags::DASHED_UNDERLINE, ";4:5"),
            (Flags::INVERSE, ";7"),
            (Flags::HIDDEN, ";8"),
            (Flags::STRIKEOUT, ";9"),
        ];
        out.extend_from_slice(b"\x1b[0");
        for (flag, code) in CODES {
            if self.style.contains(flag) {
                out.extend_from_slice(code.as_bytes());
            }
        }
        write_color(self.foreground, Layer::Foreground, out);
        write_color(self.background, Layer::Background, out);
        if let Some(color) = self.underline {
            write_color(color, Layer::Underline, out);
        }
        out.push(b'm');
    }
}

#[derive(Clone, Copy)]
enum Layer {
    Foreground,
    Background,
    Underline,
}

fn write_color(color: Color, layer: Layer, out: &mut Vec<u8>) {
    let base = match layer {
        Layer::Foreground => 30,
        Layer::Background => 40,
        Layer::Underline => 50,
    };
    // Writing into a Vec cannot fail.
    let written = match color {
        Color::Spec(rgb) => match layer {
            Layer::Underline => write!(out, ";58:2::{}:{}:{}", rgb.r, rgb.g, rgb.b),
            _ => write!(out, ";{};2;{};{};{}", base + 8, rgb.r, rgb.g, rgb.b),
        },
        Color::Indexed(index) => match layer {
            Layer::Underline => write!(out, ";58:5:{index}"),
            _ => write!(out, ";{};5;{index}", base + 8),
        },
        Color::Named(name) => match (name as usize, layer) {
            (index @ 0..=7, Layer::Foreground | Layer::Background) => {
                write!(out, ";{}", base + index)
            }
            (index @ 8..=15, Layer::Foreground | Layer::Background) => {
                write!(out, ";{}", base + 60 + index - 8)
            }
            (index @ 0..=15, Layer::Underline) => write!(out, ";58:5:{index}"),
            // The default colour is what the leading reset gave.
            _ => Ok(()),
        },
    };
    debug_assert!(written.is_ok());
}

/// Whether a line goes on in the next one without a line break.
pub(super) fn is_wrapped(row: &Row<Cell>) -> bool {
    row.len()
        .checked_sub(1)
        .is_some_and(|last| row[Column(last)].flags.contains(Flags::WRAPLINE))
}

/// Whether printing `next` right behind the wrapped row before it puts its first cell into its first column.
pub(super) fn takes_wrap(next: &Row<Cell>) -> bool {
    next.len() > 0 && !next[Column(0)].flags.contains(Flags::WIDE_CHAR_SPACER)
}

fn starts_wide(row: &Row<Cell>) -> bool {
    row.len() > 0 && row[Column(0)].flags.contains(Flags::WIDE_CHAR)
}

/// How many leading cells must be printed; what follows is blank in one background.
fn printed_cells(row: &Row<Cell>) -> usize {
    if is_wrapped(row) {
        return row.len();
    }
    let mut cells = row.len();
    let Some(last) = cells.checked_sub(1).map(|last| &row[Column(last)]) else {
        return 0;
    };
    if !is_blank(last) {
        return cells;
    }
    while cells > 0 {
        let cell = &row[Column(cells - 1)];
        if !is_blank(cell) || cell.bg != last.bg {
            break;
        }
        cells -= 1;
    }
    cells
}

fn is_blank(cell: &Cell) -> bool {
    cell.c == ' '
        && !cell
            .flags
            .intersects(STYLE | Flags::WIDE_CHAR_SPACER | Flags::LEADING_WIDE_CHAR_SPACER)
        && cell.extra.is_none()
}

/// What a cell is of a wide character.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// A character of its own (wide ones: the first half).
    Whole,
    /// The second half, drawn with the first; or the column left free in front of a wrapped one.
    Covered,
    /// One half whose other half was overwritten: shown as a blank.
    Orphan,
}

pub(super) fn half(row: &Row<Cell>, column: usize) -> Half {
    let has =
        |column: usize, flag: Flags| column < row.len() && row[Column(column)].flags.contains(flag);
    if has(column, Flags::LEADING_WIDE_CHAR_SPACER) {
        Half::Covered
    } else if has(column, Flags::WIDE_CHAR_SPACER) {
        let drawn = column
            .checked_sub(1)
            .is_some_and(|before| has(before, Flags::WIDE_CHAR));
        if drawn { Half::Covered } else { Half::Orphan }
    } else if has(column, Flags::WIDE_CHAR) && !has(column + 1, Flags::WIDE_CHAR_SPACER) {
        Half::Orphan
    } else {
        Half::Whole
    }
}

/// Where a row stands among its neighbours.
#[derive(Clone, Copy, Default)]
pub(super) struct Flow<'a> {
    /// The row before wraps into this one: its first cell is printed even when blank, so that the terminal wraps too.
    pub(super) from_above: bool,
    /// The row that this one wraps into.
    pub(super) below: Option<&'a Row<Cell>>,
}

/// Appends what prints the cell of one column of a row; nothing for one that is drawn with another.
pub(super) fn write_column(row: &Row<Cell>, column: usize, pen: &mut Pen, out: &mut Vec<u8>) {
    match half(row, column) {
        Half::Whole => write_cell(&row[Column(column)], pen, out),
        Half::Covered => {}
        Half::Orphan => {
            let blank = Cell {
                c: ' ',
                flags: row[Column(column)].flags & STYLE,
                ..row[Column(column)].clone()
            };
            write_cell(&blank, pen, out);
        }
    }
}

/// Appends what prints one row into a clear line, cursor in its first column (or waiting to wrap into it). `pen` is the
/// terminal's.
pub(super) fn write_row(row: &Row<Cell>, flow: Flow<'_>, pen: &mut Pen, out: &mut Vec<u8>) {
    let printed = printed_cells(row)
        .max(usize::from(flow.from_above))
        .min(row.len());
    for column in 0..printed {
        write_column(row, column, pen, out);
    }
    // The last column was left free for a wide character that has been overwritten since.
    let last = row.len().saturating_sub(1);
    let left_free = row.len() > 0
        && row[Column(last)]
            .flags
            .contains(Flags::LEADING_WIDE_CHAR_SPACER)
        && flow.below.is_some_and(|below| !starts_wide(below));
    if left_free {
        out.push(b' ');
    }
    if printed < row.len() {
        let blank = &row[Column(printed)];
        // A wrap at the bottom scrolls in a line in the background of the pen, hence also after a wrap.
        if flow.from_above || blank.bg != Color::Named(NamedColor::Background) {
            pen.change(
                Pen {
                    background: blank.bg,
                    ..Pen::default()
                },
                out,
            );
            out.extend_from_slice(b"\x1b[K");
        }
    }
}

/// Appends what prints one whole character.
pub(super) fn write_cell(cell: &Cell, pen: &mut Pen, out: &mut Vec<u8>) {
    if !pen.draws(cell) {
        pen.change(Pen::of(cell), out);
    }
    let mut buffer = [0; 4];
    out.extend_from_slice(cell.c.encode_utf8(&mut buffer).as_bytes());
    for mark in cell.zerowidth().unwrap_or_default() {
        out.extend_from_slice(mark.encode_utf8(&mut buffer).as_bytes());
    }
}
