//! Escape sequences that tell the agent's state, out of the raw output of its terminal.
//!
//! - `OSC 7501 ; state=WORD : app=codex` (Codex 0.169.0): `working`, `idle`, `done`, `blocked`, `clear`. A turn is
//!   `working done idle`, an interrupt `working idle`, an approval `working blocked working`, the exit `clear`.
//! - `OSC 0` and `OSC 2`, the title: Claude Code begins it with `✳` when idle and with a Braille dot (`⠂ ⠐`) when
//!   working; Codex begins it with a Braille spinner while working. Copilot's title tells only the subject.
//! - `OSC 9 ; 4 ; N`, progress: 0 ends it, anything else means work (Copilot, where the terminal is known to show it).
//!
//! The scanner takes the stream in any pieces. It keeps at most [`MAX_SEQUENCE`] bytes; a longer sequence is skipped to
//! its end. Any program can print these, so they are a hint: the fusion never puts them above wire or process evidence.

/// Longest sequence that is kept, in bytes; longer ones (images, clipboards) are skipped.
pub const MAX_SEQUENCE: usize = 2048;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

/// What a sequence says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// OSC 7501.
    Codex(CodexState),
    /// A new title; what its first character says about work, where it says anything.
    Title { text: String, working: Option<bool> },
    /// OSC 9;4.
    Progress { working: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodexState {
    Working,
    Idle,
    /// The turn came to its end by itself.
    Done,
    /// An approval or a question waits.
    Blocked,
    /// The interface ended.
    Clear,
}

/// Finds the signs in a stream.
#[derive(Debug, Default)]
pub struct Scanner {
    state: State,
    sequence: Vec<u8>,
    too_long: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// Inside an OSC.
    Osc,
    /// After an ESC inside an OSC: a backslash ends it.
    OscEscape,
}

impl Scanner {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the stream and gives the signs in it, in order.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Sign> {
        let mut signs = Vec::new();
        let mut rest = bytes;
        while let Some((&byte, tail)) = rest.split_first() {
            if self.state == State::Text {
                // Almost all bytes are text: jump to the next escape.
                let Some(at) = rest.iter().position(|&byte| byte == ESC) else {
                    break;
                };
                self.state = State::Escape;
                rest = rest.get(at + 1..).unwrap_or_default();
                continue;
            }
            rest = tail;
            match (self.state, byte) {
                (State::Escape, b']') => {
                    self.state = State::Osc;
                    self.sequence.clear();
                    self.too_long = false;
                }
                (State::Escape, ESC) => {}
                (State::Osc, BEL) | (State::OscEscape, b'\\') => {
                    self.state = State::Text;
                    if !self.too_long {
                        signs.extend(sign(&self.sequence));
                    }
                    self.sequence = Vec::new();
                }
                (State::Osc, ESC) => self.state = State::OscEscape,
                // CAN and SUB abort a sequence.
                (State::Osc, 0x18 | 0x1a) => self.state = State::Text,
                (State::Osc, byte) if self.sequence.len() < MAX_SEQUENCE => {
                    self.sequence.push(byte)
                }
                (State::Osc, _) => self.too_long = true,
                // ESC and anything else ends the OSC without effect and begins another sequence.
                (State::OscEscape, b']') => {
                    self.state = State::Osc;
                    self.sequence.clear();
                    self.too_long = false;
                }
                (State::OscEscape, ESC) => self.state = State::Escape,
                (State::Escape | State::OscEscape | State::Text, _) => self.state = State::Text,
            }
        }
        signs
    }
}

fn sign(sequence: &[u8]) -> Option<Sign> {
    let text = std::str::from_utf8(sequence).ok()?;
    let (number, rest) = text.split_once(';')?;
    match number {
        "0" | "2" => Some(Sign::Title {
            text: rest.chars().filter(|c| !c.is_control()).collect(),
            working: title_working(rest),
        }),
        "7501" => {
            let word = rest
                .split(':')
                .find_map(|part| part.strip_prefix("state="))?;
            Some(Sign::Codex(match word {
                "working" => CodexState::Working,
                "idle" => CodexState::Idle,
                "done" => CodexState::Done,
                "blocked" => CodexState::Blocked,
                "clear" => CodexState::Clear,
                _ => return None,
            }))
        }
        "9" => {
            let state = rest.strip_prefix("4;")?.split(';').next()?;
            Some(Sign::Progress {
                working: state != "0",
            })
        }
        _ => None,
    }
}

fn title_working(title: &str) -> Option<bool> {
    match title.chars().next()? {
        '✳' => Some(false),
        '\u{2801}'..='\u{28ff}' => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Vec<Sign> {
        Scanner::new().feed(bytes)
    }

    fn title(text: &str, working: Option<bool>) -> Sign {
        Sign::Title {
            text: text.into(),
            working,
        }
    }

    const TURN: &[u8] = "\x1b[2J\x1b]0;repo\x07x\x1b]7501;state=working:app=codex\x1b\\\x1b]0;⠋ repo\x07é\x1b]7501;state=done:app=codex\x1b\\\x1b]7501;state=idle:app=codex\x1b\\\x1b[0m".as_bytes();

    fn turn() -> Vec<Sign> {
        vec![
            title("repo", None),
            Sign::Codex(CodexState::Working),
            title("⠋ repo", Some(true)),
            Sign::Codex(CodexState::Done),
            Sign::Codex(CodexState::Idle),
        ]
    }

    #[test]
    fn a_turn_is_read_whole() {
        assert_eq!(all(TURN), turn());
    }

    #[test]
    fn titles_tell_claudes_work() {
        assert_eq!(
            all("\x1b]0;✳ Claude Code\x07\x1b]2;⠂ fix it\x1b\\".as_bytes()),
            [
                title("✳ Claude Code", Some(false)),
                title("⠂ fix it", Some(true))
            ]
        );
    }

    #[test]
    fn progress_is_read() {
        assert_eq!(
            all(b"\x1b]9;4;3\x07\x1b]9;4;0;0\x07\x1b]9;hello\x07"),
            [
                Sign::Progress { working: true },
                Sign::Progress { working: false }
            ]
        );
    }

    #[test]
    fn what_is_no_sign_is_passed_over() {
        for bytes in [
            &b"\x1b]8;;http://x\x07"[..],
            b"\x1b]7501;state=sleeping:app=codex\x07",
            b"\x1b]0;cut\x18\x07",
            b"\x1b]0;\xff\xfe\x07",
            b"\x1b]0\x07",
            b"]0;no escape\x07",
        ] {
            assert_eq!(all(bytes), [], "{bytes:?}");
        }
        // An OSC that another sequence interrupts has no effect; the next one has.
        assert_eq!(all(b"\x1b]0;a\x1b[0m\x1b]0;b\x07"), [title("b", None)]);
        assert_eq!(all(b"\x1b]0;a\x1b]0;b\x07"), [title("b", None)]);
    }

    #[test]
    fn an_endless_sequence_takes_bounded_memory() {
        let mut scanner = Scanner::new();
        assert_eq!(scanner.feed(b"\x1b]0;"), []);
        for _ in 0..100 {
            assert_eq!(scanner.feed(&[b'x'; 1000]), []);
            assert!(scanner.sequence.capacity() <= 2 * MAX_SEQUENCE);
        }
        assert_eq!(scanner.feed(b"\x07\x1b]0;b\x07"), [title("b", None)]);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(cuts in prop::collection::vec(0..TURN.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, TURN.len()]);
            cuts.sort_unstable();
            let mut scanner = Scanner::new();
            let signs: Vec<Sign> = cuts
                .windows(2)
                .flat_map(|cut| scanner.feed(&TURN[cut[0]..cut[1]]))
                .collect();
            prop_assert_eq!(signs, turn());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(prop_oneof![Just(0x1b_u8), Just(b']'), Just(7), Just(b'\\'), any::<u8>()], 0..200)) {
            drop(all(&bytes));
        }
    }
}
