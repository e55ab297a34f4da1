//! Tells what a viewer's terminal answered by itself from what a person typed.
//!
//! Every viewer's terminal answers the queries that it sees, so with three viewers a program would be answered
//! three times. The engine lets the answers of one viewer through, and only as many as there are open queries.
//!
//! A message longer than [`MAX_MESSAGE`] bytes is a paste and goes through as it is.

/// Longest message that may consist of answers.
pub const MAX_MESSAGE: usize = 512;

/// One piece of a viewer's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A person's keys, a paste, a mouse or focus report.
    Typed(&'a [u8]),
    /// The answer to a query.
    Answer(&'a [u8]),
    /// `CSI 1 ; m R`: a cursor report, or F3 with modifiers. An answer while a query is open, else a key.
    Either(&'a [u8]),
}

/// Cuts a message into pieces.
pub fn pieces(message: &[u8]) -> Vec<Piece<'_>> {
    if message.len() > MAX_MESSAGE || !message.contains(&0x1b) {
        return vec![Piece::Typed(message)];
    }
    let mut all = Vec::new();
    let mut typed = 0;
    let mut at = 0;
    while let Some(rest) = message.get(at..).filter(|rest| !rest.is_empty()) {
        match answer_at(rest) {
            Some(answer) => {
                if let Some(before) = message.get(typed..at).filter(|before| !before.is_empty()) {
                    all.push(Piece::Typed(before));
                }
                at += match answer {
                    Piece::Typed(bytes) | Piece::Answer(bytes) | Piece::Either(bytes) => {
                        bytes.len()
                    }
                };
                typed = at;
                all.push(answer);
            }
            None => at += 1,
        }
    }
    if let Some(before) = message.get(typed..).filter(|before| !before.is_empty()) {
        all.push(Piece::Typed(before));
    }
    all
}

/// The answer that `bytes` begin with.
fn answer_at(bytes: &[u8]) -> Option<Piece<'_>> {
    match bytes.get(..2)? {
        b"\x1b[" => {
            let length = 2 + bytes
                .get(2..)?
                .iter()
                .position(|byte| (0x40..=0x7e).contains(byte))?;
            let whole = bytes.get(..=length)?;
            let body = std::str::from_utf8(bytes.get(2..length)?).ok()?;
            let last = *bytes.get(length)?;
            let numbers = |text: &str| {
                text.split(';')
                    .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
            };
            let answer = match last {
                b'c' => body.starts_with(['?', '>', '=']),
                b'n' => numbers(body.trim_start_matches('?')),
                b'u' => body.strip_prefix('?').is_some_and(numbers),
                b'y' => body.ends_with('$'),
                b't' => numbers(body),
                b'R' => {
                    let position = body.strip_prefix('?').unwrap_or(body);
                    if !numbers(position) || position.matches(';').count() == 0 {
                        return None;
                    }
                    if body.starts_with("1;") && body.matches(';').count() == 1 {
                        return Some(Piece::Either(whole));
                    }
                    true
                }
                _ => false,
            };
            answer.then_some(Piece::Answer(whole))
        }
        b"\x1b]" | b"\x1bP" => {
            let body = bytes.get(2..)?;
            let end = body.iter().position(|byte| matches!(byte, 0x07 | 0x1b))?;
            let terminator = if body.get(end) == Some(&0x07) {
                1
            } else if body.get(end + 1) == Some(&b'\\') {
                2
            } else {
                return None;
            };
            bytes.get(..2 + end + terminator).map(Piece::Answer)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_keys() {
        let message = b"ls\x1b[?1;2cx\x1b[A\x1b[24;80R\x1b[1;2R\x1b]11;rgb:0000/0000/0000\x1b\\\x1bP1$r0m\x1b\\\x1b[I\x1b[<0;3;4M";
        assert_eq!(
            pieces(message),
            [
                Piece::Typed(b"ls"),
                Piece::Answer(b"\x1b[?1;2c"),
                Piece::Typed(b"x\x1b[A"),
                Piece::Answer(b"\x1b[24;80R"),
                Piece::Either(b"\x1b[1;2R"),
                Piece::Answer(b"\x1b]11;rgb:0000/0000/0000\x1b\\"),
                Piece::Answer(b"\x1bP1$r0m\x1b\\"),
                Piece::Typed(b"\x1b[I\x1b[<0;3;4M"),
            ]
        );
    }

    #[test]
    fn keys_of_the_kitty_protocol_are_keys() {
        assert_eq!(pieces(b"\x1b[97;5u"), [Piece::Typed(b"\x1b[97;5u")]);
        assert_eq!(pieces(b"\x1b[?5u"), [Piece::Answer(b"\x1b[?5u")]);
    }

    #[test]
    fn every_byte_comes_out_once() {
        for message in [
            &b"\x1b"[..],
            b"\x1b[",
            b"\x1b]11;",
            b"a\x1b[?",
            b"\x1bOP",
            b"\x1b\x1b[6n",
        ] {
            let joined: Vec<u8> = pieces(message)
                .into_iter()
                .flat_map(|piece| match piece {
                    Piece::Typed(b) | Piece::Answer(b) | Piece::Either(b) => b.to_vec(),
                })
                .collect();
            assert_eq!(joined, message);
        }
    }
}
