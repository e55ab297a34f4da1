//! A text as the bytes that a terminal's program receives for a paste.

/// Longest prompt, in bytes.
pub const MAX_PROMPT: usize = 1024 * 1024;

const START: &[u8] = b"\x1b[200~";
/// Ends a bracketed paste.
pub const END: &[u8] = b"\x1b[201~";

/// Why a text is no prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the prompt is empty")]
    Empty,
    #[error("the prompt has {0} bytes; at most {MAX_PROMPT} are taken")]
    TooLong(usize),
    #[error(
        "the prompt has the control character U+{code:04X} at byte {at}; only newline and tab are taken"
    )]
    Control { code: u32, at: usize },
}

/// Whether a text can be a prompt: not empty, not too long, no control characters but newline, tab and the carriage
/// return of a CRLF.
///
/// # Errors
/// The first finding.
pub fn check(text: &str) -> Result<(), Refused> {
    if text.trim().is_empty() {
        return Err(Refused::Empty);
    }
    if text.len() > MAX_PROMPT {
        return Err(Refused::TooLong(text.len()));
    }
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let crlf = c == '\r' && characters.peek().is_some_and(|&(_, next)| next == '\n');
        if c.is_control() && !matches!(c, '\n' | '\t') && !crlf {
            return Err(Refused::Control {
                code: u32::from(c),
                at,
            });
        }
    }
    Ok(())
}

/// The bytes of a paste. Newlines become carriage returns, as terminals send them; other control characters, C1
/// included, are dropped, so that nothing in the text can end the paste or act as a key.
#[must_use]
pub(super) fn encode(text: &str, bracketed: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + START.len() + END.len());
    if bracketed {
        bytes.extend_from_slice(START);
    }
    let mut utf8 = [0; 4];
    for c in text.replace("\r\n", "\n").chars() {
        match c {
            '\n' | '\r' => bytes.push(b'\r'),
            '\t' => bytes.push(b'\t'),
            c if c.is_control() => {}
            c => bytes.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes()),
        }
    }
    if bracketed {
        bytes.extend_from_slice(END);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_pasted_as_terminals_do() {
        assert_eq!(encode("a\n\tb\r\nc", true), b"\x1b[200~a\r\tb\rc\x1b[201~");
        assert_eq!(encode("é\n", false), "é\r".as_bytes());
    }

    #[test]
    fn a_marker_inside_the_text_does_not_end_the_paste() {
        let bytes = encode("x\x1b[201~\rrm -rf /\u{9b}201~y\u{0}\u{7f}", true);
        assert_eq!(bytes, b"\x1b[200~x[201~\rrm -rf /201~y\x1b[201~");
    }

    #[test]
    fn what_is_no_prompt_is_refused_by_name() {
        assert_eq!(check(" \n"), Err(Refused::Empty));
        assert_eq!(check("ab\x1b"), Err(Refused::Control { code: 0x1b, at: 2 }));
        assert_eq!(check("a\rb"), Err(Refused::Control { code: 13, at: 1 }));
        assert_eq!(check("a\r\nb\tc\n"), Ok(()));
        assert_eq!(
            check(&"x".repeat(MAX_PROMPT + 1)),
            Err(Refused::TooLong(MAX_PROMPT + 1))
        );
        assert!(check("\u{9b}A").unwrap_err().to_string().contains("U+009B"));
    }

    proptest! {
        #[test]
        fn one_end_and_it_is_the_last(text in "[\\PC\u{1b}\u{9b}\n\r\t\\[201~]{0,80}") {
            let bytes = encode(&text, true);
            let ends = bytes.windows(END.len()).filter(|window| *window == END).count();
            prop_assert_eq!(ends, 1);
            prop_assert!(bytes.ends_with(END));
            prop_assert_eq!(bytes.iter().filter(|&&byte| byte == 0x1b).count(), 2);
        }

        #[test]
        fn an_accepted_text_arrives_whole(text in "[\\PC\n\t]{1,80}") {
            prop_assume!(check(&text).is_ok());
            let bytes = encode(&text, false);
            prop_assert_eq!(String::from_utf8(bytes).unwrap().replace('\r', "\n"), text);
        }
    }
}
