//! Addresses that a terminal prints: `http://localhost:3000/`, `127.0.0.1:8000`, also coloured and cut by escape
//! sequences.
//!
//! What is printed proves nothing, so it only makes the monitor look at once and shows a port of the ephemeral range
//! that does listen. The scanner keeps [`WINDOW`] bytes between two pieces of output, so an address that is cut in two
//! is found; a longer run of text without a break cannot be an address and is dropped.

/// Longest text that is looked at as one address.
const WINDOW: usize = 96;

/// Names under which a server on this machine prints itself.
const HOSTS: [&str; 6] = [
    "localhost",
    "127.0.0.1",
    "0.0.0.0",
    "[::1]",
    "[::]",
    "[::0]",
];

/// Finds printed addresses in a stream of terminal output.
#[derive(Debug, Default)]
pub struct AddressScanner {
    word: Vec<u8>,
    escape: Escape,
    /// The present word grew too long to be an address.
    overlong: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After ESC.
    Start,
    /// In a control sequence, until its final byte.
    Control,
    /// In an operating system command or another string, until BEL or ESC \.
    Text,
    /// After ESC in such a string.
    MaybeEnd,
}

impl AddressScanner {
    /// Takes the next bytes of the output; the ports whose addresses it completes, in order, each once per call.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u16> {
        let mut found = Vec::new();
        for byte in bytes {
            if !self.is_text(*byte) {
                continue;
            }
            if byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\'' | b'<' | b'>' | b'`' | b',')
            {
                if self.word.len() < WINDOW {
                    self.word.push(*byte);
                } else {
                    self.overlong = true;
                }
            } else {
                self.end_of_word(&mut found);
            }
        }
        // A server may print no break for long: a number that has ended counts at once. What may go on does not.
        if !self.word.last().is_some_and(u8::is_ascii_digit) {
            self.look(&mut found, false);
        }
        found
    }

    fn end_of_word(&mut self, found: &mut Vec<u16>) {
        self.look(found, true);
        self.word.clear();
        self.overlong = false;
    }

    fn look(&self, found: &mut Vec<u16>, ended: bool) {
        if self.overlong && self.word.len() < WINDOW {
            return;
        }
        if let Ok(word) = std::str::from_utf8(&self.word)
            && let Some((port, explicit)) = port_of(word)
            && (ended || explicit)
            && !found.contains(&port)
        {
            found.push(port);
        }
    }

    /// Follows escape sequences; is `byte` text?
    fn is_text(&mut self, byte: u8) -> bool {
        let (next, text) = match (self.escape, byte) {
            (Escape::None | Escape::Start | Escape::Control, 0x1b) => (Escape::Start, false),
            (Escape::None, _) => (Escape::None, true),
            (Escape::Start, b'[') => (Escape::Control, false),
            (Escape::Start, b']' | b'P' | b'_' | b'^' | b'X') => (Escape::Text, false),
            (Escape::Start, _) => (Escape::None, false),
            (Escape::Control, 0x40..=0x7e) => (Escape::None, false),
            (Escape::Control, _) => (Escape::Control, false),
            (Escape::Text | Escape::MaybeEnd, 0x07) | (Escape::MaybeEnd, b'\\') => {
                (Escape::None, false)
            }
            (Escape::Text | Escape::MaybeEnd, 0x1b) => (Escape::MaybeEnd, false),
            (Escape::Text | Escape::MaybeEnd, _) => (Escape::Text, false),
        };
        self.escape = next;
        text
    }
}

/// The port of the first address in a word, and whether its number is there.
fn port_of(word: &str) -> Option<(u16, bool)> {
    let (scheme, rest) = match word.find("://") {
        Some(at) => (
            word.get(..at)?
                .rsplit(|c: char| !c.is_ascii_alphanumeric())
                .next(),
            word.get(at + 3..)?,
        ),
        None => (None, word.trim_start_matches(['(', '*', '='])),
    };
    let host = HOSTS.iter().find(|host| {
        rest.get(..host.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(host))
    })?;
    let rest = rest.get(host.len()..)?;
    let Some(digits) = rest.strip_prefix(':') else {
        // Without a number only a scheme says which port is meant.
        return match scheme {
            Some("http") if rest.is_empty() || rest.starts_with('/') => Some((80, false)),
            Some("https") if rest.is_empty() || rest.starts_with('/') => Some((443, false)),
            _ => None,
        };
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let port = digits.get(..end)?.parse().ok()?;
    (port != 0).then_some((port, true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_servers_print_is_found() {
        for (text, expected) in [
            ("  ➜  Local:   http://localhost:5173/\r\n", vec![5173]),
            (
                "\x1b[32m➜\x1b[39m  \x1b[1mLocal\x1b[22m:   \x1b[36mhttp://localhost:\x1b[1m5173\x1b[22m/\x1b[39m\r\n",
                vec![5173],
            ),
            (
                "Serving HTTP on 0.0.0.0 port 8000 (http://0.0.0.0:8000/) ...\n",
                vec![8000],
            ),
            (" * Running on http://127.0.0.1:5000\r\n", vec![5000]),
            ("listening on [::]:3001\n", vec![3001]),
            (
                "- Local: http://localhost:3000\n- Network: http://10.0.0.2:3000\n",
                vec![3000],
            ),
            ("http://localhost/x\n", vec![80]),
            ("https://[::1]\n", vec![443]),
            ("http://localhost:99999\n", vec![]),
            ("http://example.com:3000\n", vec![]),
            ("\x1b]0;http://localhost:4000\x07 title only\n", vec![]),
            ("localhost\n", vec![]),
            (
                "a\nhttp://localhost:3000 http://localhost:3000/x http://localhost:4000\n",
                vec![3000, 4000],
            ),
        ] {
            assert_eq!(
                AddressScanner::default().push(text.as_bytes()),
                expected,
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_cut_anywhere_changes_nothing(at in 0usize..60, port in 1u16..) {
            let text = format!("\x1b[1mready\x1b[0m in 3 s \x1b[36mhttp://localhost:\x1b[1m{port}\x1b[22m/ and more\n");
            let (first, second) = text.as_bytes().split_at(at.min(text.len()));
            let mut scanner = AddressScanner::default();
            let mut found = scanner.push(first);
            for port in scanner.push(second) {
                if !found.contains(&port) { found.push(port); }
            }
            prop_assert_eq!(found, vec![port]);
        }

        #[test]
        fn no_output_breaks_it(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut scanner = AddressScanner::default();
            scanner.push(&bytes);
            prop_assert!(scanner.word.len() <= WINDOW);
        }
    }
}
