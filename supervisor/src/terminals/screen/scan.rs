//! Walks the raw output of a program and finds what the screen model does not tell: queries that
//! expect an answer, operating system commands, bells, printed addresses of local servers, and the
//! bytes of a sequence that has begun and not ended.
//!
//! It never changes the bytes and never looks ahead: [`Scanner::next`] stops right behind each
//! find, so that the caller can bring the screen to exactly that point before it answers.
//!
//! Bounds: at most [`PARTIAL_LIMIT`] bytes of an unfinished sequence are kept. A longer one (an image,
//! a large clipboard write) is remembered by its kind alone: [`Scanner::partial`] then opens a
//! string of the same kind that every terminal ignores, so that the rest is swallowed, not shown.

use super::listen::Listen;

/// Most bytes of one unfinished sequence that are kept.
pub(super) const PARTIAL_LIMIT: usize = 4096;

/// What the scanner stopped for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The program asked the terminal something.
    Query(Query),
    /// An operating system command, without introducer and terminator, at most [`PARTIAL_LIMIT`] bytes.
    Osc(Vec<u8>),
    Bell,
    /// An address of a local server was printed.
    Listen(u16),
}

/// A question that a terminal answers by typing into the program. Sources: ECMA-48 and xterm's
/// `ctlseqs` (DA, DSR, DECRQM, DECRQSS, XTVERSION), the kitty keyboard protocol (`CSI ? u`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    PrimaryAttributes,
    SecondaryAttributes,
    TertiaryAttributes,
    Status,
    CursorPosition {
        private: bool,
    },
    Mode {
        number: u16,
        private: bool,
    },
    Version,
    KeyboardFlags,
    /// A colour (OSC 4, 10, 11, 12): known to a viewer only.
    Color,
    /// DECRQSS or XTGETTCAP: known to a viewer only.
    Setting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ground,
    /// Inside a UTF-8 character; so many bytes are missing.
    Utf8(u8),
    Escape,
    EscapeIntermediate,
    Csi,
    Osc,
    /// DCS, APC, PM or SOS.
    Text,
    /// ESC inside a string: `\` ends it, anything else aborts it and begins a new sequence.
    StringEscape {
        osc: bool,
    },
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    partial: Vec<u8>,
    overflow: bool,
    listen: Listen,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Ground,
            partial: Vec::new(),
            overflow: false,
            listen: Listen::default(),
        }
    }
}

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;
const CAN: u8 = 0x18;
const SUB: u8 = 0x1a;

impl Scanner {
    /// Takes bytes up to and including the first find, or all of them. Returns how many were taken.
    pub(super) fn next(&mut self, bytes: &[u8]) -> (usize, Option<Found>) {
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Ground {
                let (taken, found) = self.ground(rest);
                at += taken;
                if found.is_some() {
                    return (at, found);
                }
                continue;
            }
            // Strings can be megabytes long: jump to what may end them.
            if matches!(self.state, State::Osc | State::Text) {
                let end = rest
                    .iter()
                    .position(|byte| matches!(*byte, ESC | BEL | CAN | SUB))
                    .unwrap_or(rest.len());
                if let Some(body) = rest.get(..end).filter(|body| !body.is_empty()) {
                    self.keep(body);
                    at += end;
                    continue;
                }
            }
            let Some(byte) = rest.first().copied() else {
                break;
            };
            at += 1;
            if let Some(found) = self.step(byte) {
                return (at, Some(found));
            }
        }
        (at, None)
    }

    /// The bytes of the unfinished sequence, for a terminal that is to continue with the next byte.
    pub(super) fn partial(&self) -> Vec<u8> {
        if !self.overflow {
            return self.partial.clone();
        }
        let ended_by_escape = matches!(self.state, State::StringEscape { .. });
        let mut opening: Vec<u8> = match (self.state, self.partial.get(1)) {
            (State::Osc | State::StringEscape { osc: true }, _) => b"\x1b]9999;".to_vec(),
            (_, Some(b'P')) => b"\x1bP9999|".to_vec(),
            (_, Some(kind)) => vec![ESC, *kind],
            (_, None) => Vec::new(),
        };
        if ended_by_escape {
            opening.push(ESC);
        }
        opening
    }

    /// How many bytes of an unfinished character came last.
    pub(super) fn character_part(&self) -> usize {
        if matches!(self.state, State::Utf8(_)) {
            self.partial.len()
        } else {
            0
        }
    }

    /// Whether the stream stands between sequences and characters.
    pub(super) fn at_rest(&self) -> bool {
        self.state == State::Ground
    }

    /// Plain text up to the next control that matters.
    fn ground(&mut self, bytes: &[u8]) -> (usize, Option<Found>) {
        let end = memchr::memchr2(ESC, BEL, bytes).unwrap_or(bytes.len());
        let text = bytes.get(..end).unwrap_or_default();
        if let Some((taken, port)) = self.listen.scan(text) {
            return (taken, Some(Found::Listen(port)));
        }
        match bytes.get(end) {
            Some(&ESC) => {
                self.begin(State::Escape, &[ESC]);
                (end + 1, None)
            }
            Some(_) => (end + 1, Some(Found::Bell)),
            None => {
                let missing = unfinished_character(text);
                if let Some((tail, missing)) = missing {
                    self.begin(State::Utf8(missing), tail);
                }
                (end, None)
            }
        }
    }

    fn begin(&mut self, state: State, bytes: &[u8]) {
        self.state = state;
        self.overflow = false;
        self.partial.clear();
        self.partial.extend_from_slice(bytes);
    }

    fn rest(&mut self) {
        self.state = State::Ground;
        self.overflow = false;
        self.partial.clear();
        if self.partial.capacity() > PARTIAL_LIMIT / 4 {
            self.partial = Vec::new();
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.partial.len() + bytes.len() > PARTIAL_LIMIT {
            self.overflow = true;
        }
        if !self.overflow {
            self.partial.extend_from_slice(bytes);
        }
    }

    fn step(&mut self, byte: u8) -> Option<Found> {
        match self.state {
            State::Ground => None,
            State::Utf8(missing) => {
                if byte & 0xc0 != 0x80 {
                    // Broken off: the byte stands for itself.
                    self.rest();
                    return match byte {
                        ESC => {
                            self.begin(State::Escape, &[ESC]);
                            None
                        }
                        BEL => Some(Found::Bell),
                        _ => {
                            if let Some(missing) = continuation_bytes(byte) {
                                self.begin(State::Utf8(missing), &[byte]);
                            }
                            None
                        }
                    };
                }
                if missing <= 1 {
                    self.rest();
                } else {
                    self.keep(&[byte]);
                    self.state = State::Utf8(missing - 1);
                }
                None
            }
            State::Osc | State::Text => {
                let osc = self.state == State::Osc;
                match byte {
                    ESC => {
                        self.keep(&[ESC]);
                        self.state = State::StringEscape { osc };
                        None
                    }
                    BEL if osc => self.end_osc(),
                    CAN | SUB => {
                        self.rest();
                        None
                    }
                    _ => {
                        self.keep(&[byte]);
                        None
                    }
                }
            }
            State::StringEscape { osc } => {
                if byte == b'\\' {
                    if !self.overflow {
                        self.partial.pop();
                    }
                    return if osc { self.end_osc() } else { self.end_text() };
                }
                let found = if osc {
                    self.end_osc_before_escape()
                } else {
                    None
                };
                self.begin(State::Escape, &[ESC]);
                // The byte belongs to the new sequence; it can end it, but only with a find of its own
                // if there is none to report yet.
                let next = self.step(byte);
                found.or(next)
            }
            State::Escape | State::EscapeIntermediate | State::Csi => self.step_control(byte),
        }
    }

    fn step_control(&mut self, byte: u8) -> Option<Found> {
        match byte {
            ESC => {
                self.begin(State::Escape, &[ESC]);
                None
            }
            CAN | SUB => {
                self.rest();
                None
            }
            BEL => Some(Found::Bell),
            // Other controls are executed at once, inside the sequence; they must not be replayed.
            0x00..=0x1f | 0x7f => None,
            _ => {
                self.keep(&[byte]);
                match self.state {
                    State::Escape => match byte {
                        b'[' => self.state = State::Csi,
                        b']' => self.state = State::Osc,
                        b'P' | b'_' | b'^' | b'X' => self.state = State::Text,
                        0x20..=0x2f => self.state = State::EscapeIntermediate,
                        b'Z' => {
                            self.rest();
                            return Some(Found::Query(Query::PrimaryAttributes));
                        }
                        _ => self.rest(),
                    },
                    State::EscapeIntermediate if !(0x20..=0x2f).contains(&byte) => self.rest(),
                    State::Csi if (0x40..=0x7e).contains(&byte) => {
                        let query = if self.overflow {
                            None
                        } else {
                            csi_query(&self.partial)
                        };
                        self.rest();
                        return query.map(Found::Query);
                    }
                    State::Csi if byte >= 0x80 => self.rest(),
                    _ => {}
                }
                None
            }
        }
    }

    fn end_osc(&mut self) -> Option<Found> {
        let body = (!self.overflow).then(|| self.partial.get(2..).unwrap_or_default().to_vec());
        self.rest();
        let body = body?;
        if is_color_query(&body) {
            return Some(Found::Query(Query::Color));
        }
        Some(Found::Osc(body))
    }

    fn end_osc_before_escape(&mut self) -> Option<Found> {
        if !self.overflow {
            self.partial.pop();
        }
        self.end_osc()
    }

    fn end_text(&mut self) -> Option<Found> {
        let body = self.partial.get(1..).unwrap_or_default();
        let query = !self.overflow && (body.starts_with(b"P$q") || body.starts_with(b"P+q"));
        self.rest();
        query.then_some(Found::Query(Query::Setting))
    }
}

/// The query in a complete CSI sequence (with `ESC [`), if it is one.
fn csi_query(sequence: &[u8]) -> Option<Query> {
    let (last, body) = sequence.get(2..)?.split_last()?;
    let text = std::str::from_utf8(body).ok()?;
    match (last, text) {
        (b'c', "" | "0") => Some(Query::PrimaryAttributes),
        (b'c', ">" | ">0") => Some(Query::SecondaryAttributes),
        (b'c', "=" | "=0") => Some(Query::TertiaryAttributes),
        (b'n', "5") => Some(Query::Status),
        (b'n', "6") => Some(Query::CursorPosition { private: false }),
        (b'n', "?6") => Some(Query::CursorPosition { private: true }),
        (b'q', ">" | ">0") => Some(Query::Version),
        (b'u', "?") => Some(Query::KeyboardFlags),
        (b'p', mode) => {
            let number = mode.strip_suffix('$')?;
            let private = number.starts_with('?');
            let number = number.trim_start_matches('?').parse().ok()?;
            Some(Query::Mode { number, private })
        }
        _ => None,
    }
}

fn is_color_query(body: &[u8]) -> bool {
    let mut fields = body.split(|byte| *byte == b';');
    matches!(fields.next(), Some(b"4" | b"10" | b"11" | b"12")) && fields.any(|field| field == b"?")
}

/// How many bytes follow a first byte of UTF-8; `None` for a byte that stands alone.
fn continuation_bytes(byte: u8) -> Option<u8> {
    match byte {
        0xc2..=0xdf => Some(1),
        0xe0..=0xef => Some(2),
        0xf0..=0xf4 => Some(3),
        _ => None,
    }
}

/// The beginning of a character at the end of `text`, and how many of its bytes are missing.
fn unfinished_character(text: &[u8]) -> Option<(&[u8], u8)> {
    for length in 1..=3usize {
        let tail = text.get(text.len().checked_sub(length)?..)?;
        let first = *tail.first()?;
        if first & 0xc0 == 0x80 {
            continue;
        }
        let missing = usize::from(continuation_bytes(first)?).checked_sub(length - 1)?;
        return (missing > 0).then(|| (tail, u8::try_from(missing).unwrap_or(0)));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(scanner: &mut Scanner, mut bytes: &[u8]) -> Vec<Found> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let (taken, found) = scanner.next(bytes);
            assert!(taken > 0 || found.is_some(), "no progress");
            all.extend(found);
            bytes = &bytes[taken..];
        }
        all
    }

    #[test]
    fn finds_queries_at_any_cut() {
        let stream = b"text\x1b[c\x1b[>0c\x1b[6n\x1b[?6n\x1b[5n\x1b[?2026$p\x1b[>q\x1b[?u\x1b]11;?\x07\x1bP$qm\x1b\\x";
        let expected = vec![
            Query::PrimaryAttributes,
            Query::SecondaryAttributes,
            Query::CursorPosition { private: false },
            Query::CursorPosition { private: true },
            Query::Status,
            Query::Mode {
                number: 2026,
                private: true,
            },
            Query::Version,
            Query::KeyboardFlags,
            Query::Color,
            Query::Setting,
        ];
        for cut in 0..stream.len() {
            let mut scanner = Scanner::default();
            let mut all = finds(&mut scanner, &stream[..cut]);
            all.extend(finds(&mut scanner, &stream[cut..]));
            let queries: Vec<Query> = all
                .into_iter()
                .filter_map(|found| match found {
                    Found::Query(query) => Some(query),
                    _ => None,
                })
                .collect();
            assert_eq!(queries, expected, "cut at {cut}");
        }
    }

    #[test]
    fn keeps_the_unfinished_sequence() {
        for (bytes, partial) in [
            (&b"abc\x1b"[..], &b"\x1b"[..]),
            (b"abc\x1b[38;5", b"\x1b[38;5"),
            (b"abc\x1b]0;ti", b"\x1b]0;ti"),
            (b"abc\xe2\x94", b"\xe2\x94"),
            (b"abc\xf0\x9f\x98", b"\xf0\x9f\x98"),
            (b"abc\x1b[1m", b""),
            (b"abc\xe2\x94\x80", b""),
            (b"\x1b]0;t\x1b", b"\x1b]0;t\x1b"),
        ] {
            let mut scanner = Scanner::default();
            finds(&mut scanner, bytes);
            assert_eq!(scanner.partial(), partial, "{bytes:?}");
            assert_eq!(scanner.at_rest(), partial.is_empty());
        }
    }

    #[test]
    fn a_long_string_is_swallowed_not_kept() {
        let mut scanner = Scanner::default();
        finds(&mut scanner, b"\x1b]52;c;");
        finds(&mut scanner, &vec![b'A'; 1 << 20]);
        assert!(scanner.partial().len() < 16);
        assert_eq!(scanner.partial(), b"\x1b]9999;");
        assert_eq!(finds(&mut scanner, b"AAA\x07"), vec![]);
        assert!(scanner.at_rest());
    }

    #[test]
    fn reports_commands_and_bells() {
        let mut scanner = Scanner::default();
        let all = finds(&mut scanner, b"\x1b]0;title\x07\x07\x1b]133;A\x1b\\");
        assert_eq!(
            all,
            vec![
                Found::Osc(b"0;title".to_vec()),
                Found::Bell,
                Found::Osc(b"133;A".to_vec())
            ]
        );
    }

    #[test]
    fn printed_addresses_are_found_across_colours() {
        let mut scanner = Scanner::default();
        let all = finds(&mut scanner, b"  http://localhost:\x1b[1m5173\x1b[22m/\r\n");
        assert_eq!(all, vec![Found::Listen(5173)]);
    }
}
