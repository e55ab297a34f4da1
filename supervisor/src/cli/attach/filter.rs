//! What a program in the container may send to the terminal of the person who attached.
//!
//! Text, CSI and plain escape sequences pass. Of the strings only these do: titles (OSC 0, 1, 2), colours (OSC 4, 10–12,
//! 104, 110–112), web links (OSC 8 to http and https). Clipboard writes (OSC 52), unknown OSC, DCS, APC, PM and SOS are
//! dropped: terminals act on them in ways that nobody here can know. Pure.
//!
//! Bounds: a string is held back until it ends, at most [`LIMIT`] bytes; a longer one is dropped.

const LIMIT: usize = 4096;
const ESC: u8 = 0x1b;

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    Escape,
    Text {
        osc: bool,
    },
    TextEscape {
        osc: bool,
    },
}

/// See the module's header.
#[derive(Debug, Default)]
pub(super) struct Filter {
    state: State,
    held: Vec<u8>,
}

impl Filter {
    /// Appends to `out` what of `bytes` may pass.
    pub(super) fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.step(*byte, out);
        }
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = match std::mem::take(&mut self.state) {
            State::Ground if byte == ESC => State::Escape,
            State::Ground => {
                out.push(byte);
                State::Ground
            }
            State::Escape => match byte {
                b']' => self.begin(true),
                b'P' | b'_' | b'^' | b'X' => self.begin(false),
                ESC => State::Escape,
                _ => {
                    out.extend_from_slice(&[ESC, byte]);
                    State::Ground
                }
            },
            State::Text { osc } => match byte {
                ESC => State::TextEscape { osc },
                0x07 if osc => self.end(osc, out),
                0x18 | 0x1a => State::Ground,
                _ => {
                    if self.held.len() <= LIMIT {
                        self.held.push(byte);
                    }
                    State::Text { osc }
                }
            },
            State::TextEscape { osc } if byte == b'\\' => self.end(osc, out),
            // Broken off by a new sequence.
            State::TextEscape { .. } => {
                self.state = State::Escape;
                return self.step(byte, out);
            }
        };
    }

    fn begin(&mut self, osc: bool) -> State {
        self.held.clear();
        State::Text { osc }
    }

    fn end(&mut self, osc: bool, out: &mut Vec<u8>) -> State {
        if osc && self.held.len() <= LIMIT && may_pass(&self.held) {
            out.extend_from_slice(b"\x1b]");
            // A control character inside a title has no business there.
            out.extend(self.held.iter().filter(|byte| **byte >= 0x20));
            out.extend_from_slice(b"\x1b\\");
        }
        State::Ground
    }
}

fn may_pass(body: &[u8]) -> bool {
    let (number, rest) = match body.iter().position(|byte| *byte == b';') {
        Some(at) => (
            body.get(..at).unwrap_or_default(),
            body.get(at + 1..).unwrap_or_default(),
        ),
        None => (body, &[][..]),
    };
    match number {
        b"0" | b"1" | b"2" | b"104" | b"110" | b"111" | b"112" => true,
        // A colour query's answer would be typed into the program: that is what it asked for.
        b"4" | b"10" | b"11" | b"12" => true,
        b"8" => {
            let address = rest
                .iter()
                .position(|byte| *byte == b';')
                .and_then(|at| rest.get(at + 1..));
            address.is_some_and(|address| {
                address.is_empty()
                    || address.starts_with(b"http://")
                    || address.starts_with(b"https://")
            })
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filtered(bytes: &[u8]) -> Vec<u8> {
        let mut whole = Vec::new();
        Filter::default().pass(bytes, &mut whole);
        for cut in 0..bytes.len() {
            let mut filter = Filter::default();
            let mut parts = Vec::new();
            filter.pass(&bytes[..cut], &mut parts);
            filter.pass(&bytes[cut..], &mut parts);
            assert_eq!(parts, whole, "cut at {cut}");
        }
        whole
    }

    #[test]
    fn text_and_control_sequences_pass() {
        let bytes = "a\x1b[31mé\x1b[0m\x1b(0\x1b7\x1b[?1049h\r\n".as_bytes();
        assert_eq!(filtered(bytes), bytes);
    }

    #[test]
    fn strings_pass_by_list() {
        assert_eq!(filtered(b"\x1b]0;title\x07x"), b"\x1b]0;title\x1b\\x");
        assert_eq!(
            filtered(b"\x1b]8;;https://a.example\x1b\\l\x1b]8;;\x1b\\"),
            b"\x1b]8;;https://a.example\x1b\\l\x1b]8;;\x1b\\"
        );
        for dropped in [
            &b"\x1b]52;c;aGk=\x07"[..],
            b"\x1b]1337;File=:AAAA\x07",
            b"\x1b]8;;javascript:alert(1)\x1b\\",
            b"\x1bPtmux;\x1b\x1b]52;c;x\x07\x1b\\",
            b"\x1b_Gf=32;AAAA\x1b\\",
            b"\x1b]777;notify;a;b\x07",
        ] {
            let mut bytes = dropped.to_vec();
            bytes.extend_from_slice(b"after");
            let out = filtered(&bytes);
            assert!(
                out.ends_with(b"after"),
                "{dropped:?} swallowed what follows: {out:?}"
            );
            assert!(!out.windows(2).any(|pair| pair == b"52"), "{out:?}");
        }
        let mut long = b"\x1b]2;".to_vec();
        long.extend(vec![b'x'; LIMIT * 3]);
        long.extend_from_slice(b"\x07after");
        let mut out = Vec::new();
        Filter::default().pass(&long, &mut out);
        assert_eq!(out, b"after");
    }
}
