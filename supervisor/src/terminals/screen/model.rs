//! The screen as the program sees it: `alacritty_terminal`'s grid, corrected and completed.
//!
//! The library's `Term` keeps the cells. Around it stands this handler, because part of the state that a
//! viewer needs is private there (margins, tab stops, character set in use), because it leaves some of
//! xterm's behaviour out (modes 47, 1047, 1048), and because some input would make it grow or panic: an unbounded
//! number of combining marks per cell, 4,096 pushed keyboard modes. What the library would answer to queries is not
//! used; see `answer`.
//!
//! Bounds: [`MAX_MARKS`] combining marks a cell, [`MAX_STACK`] pushed keyboard modes or titles,
//! [`MAX_TITLE`] characters of title, [`MAX_LINK`] bytes of a link's address (longer ones are not links).

use alacritty_terminal::event::VoidListener;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line};
use alacritty_terminal::term::cell::{Cell, Flags};
use alacritty_terminal::term::{Config, TermMode};
use alacritty_terminal::vte::ansi::{
    Attr, CharsetIndex, ClearMode, CursorShape, CursorStyle, Handler, Hyperlink, KeyboardModes,
    KeyboardModesApplyBehavior, LineClearMode, Mode, ModifyOtherKeys, NamedPrivateMode,
    PrivateMode, Rgb, StandardCharset, TabulationClearMode,
};
use alacritty_terminal::{Grid, Term};

use super::super::size::Size;

pub(super) const MAX_MARKS: usize = 16;
pub(super) const MAX_STACK: usize = 16;
pub(super) const MAX_TITLE: usize = 256;
pub(super) const MAX_LINK: usize = 2083;

/// Lines above the screen that stay in the grid, so that a screen that grows can take them back.
pub(super) const KEPT_ABOVE: usize = 128;
/// Room for what one slice of output can scroll out before it is harvested; see `Screen::feed`.
pub(super) const SLICE: usize = 2048;

impl Dimensions for Size {
    fn total_lines(&self) -> usize {
        self.screen_lines()
    }
    fn screen_lines(&self) -> usize {
        usize::from(self.rows)
    }
    fn columns(&self) -> usize {
        usize::from(self.columns)
    }
}

/// Private modes that only a viewer acts on. Kept as set or not set.
const VIEWER_MODES: [u16; 10] = [9, 45, 1000, 1002, 1003, 1004, 1005, 1006, 1016, 2031];
/// Mouse protocols: at most one is on; resetting any turns reporting off, as in xterm.js.
const MOUSE_PROTOCOLS: [u16; 4] = [9, 1000, 1002, 1003];
const MOUSE_ENCODINGS: [u16; 3] = [1005, 1006, 1016];

/// See the module's header.
pub(super) struct Model {
    pub(super) term: Term<VoidListener>,
    /// Those of [`VIEWER_MODES`] that are on, in the order they were set.
    pub(super) viewer_modes: Vec<u16>,
    /// First and last row of the margins, when they are not the whole screen; from 0.
    pub(super) margins: Option<(u16, u16)>,
    pub(super) charset: usize,
    /// Columns with a tab stop, once they differ from every eighth.
    pub(super) tabs: Option<Vec<u16>>,
    pub(super) keyboard: Vec<u8>,
    pub(super) other_keyboard: Vec<u8>,
    pub(super) modify_other_keys: u8,
    pub(super) title: String,
    titles: Vec<String>,
    pub(super) synchronized: bool,
    /// The program asked for the scrollback to go (ED 3, RIS).
    pub(super) scrollback_cleared: bool,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Model")
            .field("title", &self.title)
            .finish_non_exhaustive()
    }
}

impl Model {
    pub(super) fn new(size: Size) -> Self {
        let config = Config {
            scrolling_history: KEPT_ABOVE + SLICE,
            ..Config::default()
        };
        Self {
            term: Term::new(config, &size, VoidListener),
            viewer_modes: Vec::new(),
            margins: None,
            charset: 0,
            tabs: None,
            keyboard: Vec::new(),
            other_keyboard: Vec::new(),
            modify_other_keys: 0,
            title: String::new(),
            titles: Vec::new(),
            synchronized: false,
            scrollback_cleared: false,
        }
    }

    pub(super) fn grid(&self) -> &Grid<Cell> {
        self.term.grid()
    }

    pub(super) fn has(&self, mode: TermMode) -> bool {
        self.term.mode().contains(mode)
    }

    pub(super) fn resize(&mut self, size: Size) {
        self.term.resize(size);
        self.margins = None;
        let columns = size.columns;
        if let Some(tabs) = &mut self.tabs {
            tabs.retain(|column| *column < columns);
        }
    }

    fn column(&self) -> u16 {
        u16::try_from(self.grid().cursor.point.column.0).unwrap_or(u16::MAX)
    }

    fn tab_stops(&mut self) -> &mut Vec<u16> {
        let columns = u16::try_from(self.term.columns()).unwrap_or(u16::MAX);
        self.tabs
            .get_or_insert_with(|| (0..columns).step_by(8).collect())
    }

    fn alternate(&mut self, on: bool) {
        if self.has(TermMode::ALT_SCREEN) != on {
            self.term.swap_alt();
            std::mem::swap(&mut self.keyboard, &mut self.other_keyboard);
        }
    }

    fn set_viewer_mode(&mut self, mode: u16, on: bool) {
        let group: &[u16] = if MOUSE_PROTOCOLS.contains(&mode) {
            &MOUSE_PROTOCOLS
        } else if MOUSE_ENCODINGS.contains(&mode) {
            &MOUSE_ENCODINGS
        } else {
            &[]
        };
        self.viewer_modes
            .retain(|old| *old != mode && !group.contains(old));
        if on {
            self.viewer_modes.push(mode);
        }
    }

    /// DECRPM's word for a private mode: 1 set, 2 reset, 0 unknown.
    pub(super) fn private_mode(&self, mode: u16) -> u8 {
        let flag = match mode {
            1 => TermMode::APP_CURSOR,
            6 => TermMode::ORIGIN,
            7 => TermMode::LINE_WRAP,
            25 => TermMode::SHOW_CURSOR,
            47 | 1047 | 1049 => TermMode::ALT_SCREEN,
            66 => TermMode::APP_KEYPAD,
            2004 => TermMode::BRACKETED_PASTE,
            2026 => return if self.synchronized { 1 } else { 2 },
            _ if VIEWER_MODES.contains(&mode) => {
                return if self.viewer_modes.contains(&mode) {
                    1
                } else {
                    2
                };
            }
            _ => return 0,
        };
        if self.has(flag) { 1 } else { 2 }
    }
}

/// Hands calls on to the library unchanged.
macro_rules! delegate {
    ($($name:ident($($argument:ident: $kind:ty),*);)*) => {
        $(fn $name(&mut self, $($argument: $kind),*) {
            Handler::$name(&mut self.term, $($argument),*);
        })*
    };
}

impl Handler for Model {
    delegate! {
        set_cursor_style(style: Option<CursorStyle>);
        set_cursor_shape(shape: CursorShape);
        goto(line: i32, column: usize);
        goto_line(line: i32);
        goto_col(column: usize);
        insert_blank(count: usize);
        move_up(rows: usize);
        move_down(rows: usize);
        move_forward(columns: usize);
        move_backward(columns: usize);
        move_down_and_cr(rows: usize);
        move_up_and_cr(rows: usize);
        backspace();
        carriage_return();
        linefeed();
        substitute();
        newline();
        scroll_up(rows: usize);
        scroll_down(rows: usize);
        insert_blank_lines(count: usize);
        delete_lines(count: usize);
        erase_chars(count: usize);
        delete_chars(count: usize);
        move_backward_tabs(count: u16);
        move_forward_tabs(count: u16);
        save_cursor_position();
        restore_cursor_position();
        clear_line(mode: LineClearMode);
        reverse_index();
        terminal_attribute(attribute: Attr);
        set_mode(mode: Mode);
        unset_mode(mode: Mode);
        set_keypad_application_mode();
        unset_keypad_application_mode();
        configure_charset(index: CharsetIndex, charset: StandardCharset);
        set_color(index: usize, color: Rgb);
        reset_color(index: usize);
        decaln();
    }

    fn input(&mut self, character: char) {
        // Only characters beyond Latin-1 can be combining marks.
        if character >= '\u{300}' && self.marks_are_full() && is_mark(character) {
            return;
        }
        self.term.input(character);
    }

    /// The library leaves the tab itself in the cell that it crossed; xterm only moves.
    fn put_tab(&mut self, count: u16) {
        self.term.move_forward_tabs(count);
    }

    fn set_title(&mut self, title: Option<String>) {
        self.title = clean_title(&title.unwrap_or_default());
    }

    fn push_title(&mut self) {
        if self.titles.len() < MAX_STACK {
            self.titles.push(self.title.clone());
        }
    }

    fn pop_title(&mut self) {
        if let Some(title) = self.titles.pop() {
            self.title = title;
        }
    }

    fn set_active_charset(&mut self, index: CharsetIndex) {
        self.charset = index as usize;
        self.term.set_active_charset(index);
    }

    fn set_horizontal_tabstop(&mut self) {
        let column = self.column();
        let stops = self.tab_stops();
        if let Err(place) = stops.binary_search(&column) {
            stops.insert(place, column);
        }
        self.term.set_horizontal_tabstop();
    }

    fn clear_tabs(&mut self, mode: TabulationClearMode) {
        let column = self.column();
        let stops = self.tab_stops();
        match mode {
            TabulationClearMode::Current => stops.retain(|stop| *stop != column),
            TabulationClearMode::All => stops.clear(),
        }
        self.term.clear_tabs(mode);
    }

    fn set_hyperlink(&mut self, link: Option<Hyperlink>) {
        let link = link.filter(|link| {
            link.uri.len() <= MAX_LINK && link.id.as_ref().is_none_or(|id| id.len() <= MAX_TITLE)
        });
        self.term.set_hyperlink(link);
    }

    /// The library scrolls the screen into the history on ED 2 and forgets row 0 on ED 1 from row 1; a viewer's
    /// xterm clears in place.
    fn clear_screen(&mut self, mode: ClearMode) {
        match mode {
            ClearMode::All => self.term.grid_mut().reset_region(..),
            ClearMode::Above => {
                let line = self.grid().cursor.point.line;
                if line > Line(0) {
                    self.term.grid_mut().reset_region(..line);
                }
                self.term.clear_line(LineClearMode::Left);
            }
            ClearMode::Saved => {
                self.scrollback_cleared = true;
                if !self.has(TermMode::ALT_SCREEN) {
                    self.term.clear_screen(ClearMode::Saved);
                }
            }
            ClearMode::Below => self.term.clear_screen(ClearMode::Below),
        }
    }

    fn reset_state(&mut self) {
        let title = std::mem::take(&mut self.title);
        let size = Size {
            columns: self.column_count(),
            rows: self.row_count(),
        };
        *self = Self::new(size);
        self.title = title;
        self.scrollback_cleared = true;
    }

    fn set_private_mode(&mut self, mode: PrivateMode) {
        match mode.raw() {
            // The width belongs to the viewers.
            3 => {}
            47 | 1047 => self.alternate(true),
            1048 => self.term.save_cursor_position(),
            1049 => self.alternate(true),
            2026 => self.synchronized = true,
            66 => self.term.set_keypad_application_mode(),
            other if VIEWER_MODES.contains(&other) => self.set_viewer_mode(other, true),
            _ => self.term.set_private_mode(mode),
        }
    }

    fn unset_private_mode(&mut self, mode: PrivateMode) {
        match mode.raw() {
            3 => {}
            47 | 1047 | 1049 => self.alternate(false),
            1048 => self.term.restore_cursor_position(),
            2026 => self.synchronized = false,
            66 => self.term.unset_keypad_application_mode(),
            6 => {
                self.term
                    .unset_private_mode(PrivateMode::Named(NamedPrivateMode::Origin));
                self.term.goto(0, 0);
            }
            other if VIEWER_MODES.contains(&other) => self.set_viewer_mode(other, false),
            _ => self.term.unset_private_mode(mode),
        }
    }

    fn set_scrolling_region(&mut self, top: usize, bottom: Option<usize>) {
        let rows = usize::from(self.row_count());
        let bottom = bottom.map_or(rows, |bottom| bottom.min(rows));
        if top >= bottom {
            return;
        }
        let margin = |row: usize| u16::try_from(row - 1).unwrap_or(u16::MAX);
        self.margins = (top > 1 || bottom < rows).then(|| (margin(top), margin(bottom)));
        self.term.set_scrolling_region(top, Some(bottom));
    }

    fn push_keyboard_mode(&mut self, mode: KeyboardModes) {
        if self.keyboard.len() == MAX_STACK {
            self.keyboard.remove(0);
        }
        self.keyboard.push(mode.bits());
    }

    fn pop_keyboard_modes(&mut self, count: u16) {
        let left = self.keyboard.len().saturating_sub(usize::from(count));
        self.keyboard.truncate(left);
    }

    fn set_keyboard_mode(&mut self, mode: KeyboardModes, how: KeyboardModesApplyBehavior) {
        if self.keyboard.is_empty() {
            self.keyboard.push(0);
        }
        if let Some(current) = self.keyboard.last_mut() {
            *current = match how {
                KeyboardModesApplyBehavior::Replace => mode.bits(),
                KeyboardModesApplyBehavior::Union => *current | mode.bits(),
                KeyboardModesApplyBehavior::Difference => *current & !mode.bits(),
            };
        }
    }

    fn set_modify_other_keys(&mut self, mode: ModifyOtherKeys) {
        self.modify_other_keys = match mode {
            ModifyOtherKeys::Reset => 0,
            ModifyOtherKeys::EnableExceptWellDefined => 1,
            ModifyOtherKeys::EnableAll => 2,
        };
    }
}

impl Model {
    pub(super) fn column_count(&self) -> u16 {
        u16::try_from(self.term.columns()).unwrap_or(u16::MAX)
    }

    pub(super) fn row_count(&self) -> u16 {
        u16::try_from(self.term.screen_lines()).unwrap_or(u16::MAX)
    }

    /// Whether the cell that a combining mark would join has all it may have.
    fn marks_are_full(&self) -> bool {
        let cursor = &self.grid().cursor;
        let mut column = cursor.point.column.0;
        if !cursor.input_needs_wrap {
            column = column.saturating_sub(1);
        }
        let row = &self.grid()[cursor.point.line];
        if row[Column(column)].flags.contains(Flags::WIDE_CHAR_SPACER) {
            column = column.saturating_sub(1);
        }
        row[Column(column)]
            .zerowidth()
            .is_some_and(|marks| marks.len() >= MAX_MARKS)
    }
}

fn is_mark(character: char) -> bool {
    unicode_width::UnicodeWidthChar::width(character) == Some(0)
}

/// A title without control and direction-changing characters, cut to [`MAX_TITLE`] characters.
pub fn clean_title(title: &str) -> String {
    title
        .chars()
        .filter(|character| {
            !character.is_control()
                && !matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        })
        .take(MAX_TITLE)
        .collect()
}
