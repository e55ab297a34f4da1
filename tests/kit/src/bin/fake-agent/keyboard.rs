//! What a person (or a host) types.
//!
//! On a terminal the line discipline is turned off, bracketed paste is turned on, and Enter outside of a paste submits,
//! as in the agents' own interfaces. Elsewhere a line is a prompt. A thread reads; at most 64 things wait to be taken,
//! then reading stops.

use std::io::{self, IsTerminal, Read, Write};

use nix::sys::termios::{InputFlags, LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::sync::mpsc;

/// One thing typed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Typed {
    /// A submitted prompt.
    Prompt(String),
    /// Escape or Ctrl-C.
    Interrupt,
}

/// The keyboard while it is read. Dropping it gives the terminal its former modes back.
#[derive(Debug)]
pub(crate) struct Keyboard {
    typed: mpsc::Receiver<Typed>,
    before: Option<Termios>,
}

impl Keyboard {
    pub(crate) fn open() -> io::Result<Self> {
        let stdin = io::stdin();
        let mut before = None;
        if stdin.is_terminal() {
            let modes = tcgetattr(&stdin)?;
            let mut raw = modes.clone();
            raw.local_flags
                .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG);
            raw.input_flags.remove(InputFlags::ICRNL);
            tcsetattr(&stdin, SetArg::TCSADRAIN, &raw)?;
            before = Some(modes);
            print(b"\x1b[?2004h")?;
        }
        let (sender, typed) = mpsc::channel(64);
        let mut keys = Keys {
            terminal: before.is_some(),
            ..Keys::default()
        };
        // Ends with the input or with the receiver; nobody waits for it, because a read cannot be called off.
        drop(
            std::thread::Builder::new()
                .name("keyboard".into())
                .spawn(move || {
                    let mut buffer = [0; 4096];
                    let mut stdin = io::stdin().lock();
                    while let Ok(count @ 1..) = stdin.read(&mut buffer) {
                        for typed in keys.take(buffer.get(..count).unwrap_or_default()) {
                            if sender.blocking_send(typed).is_err() {
                                return;
                            }
                        }
                    }
                    if let Some(rest) = keys.rest() {
                        // The receiver may have gone; then nobody wants it.
                        drop(sender.blocking_send(rest));
                    }
                })?,
        );
        Ok(Self { typed, before })
    }

    /// The next thing typed; nothing at the end of input.
    pub(crate) async fn next(&mut self) -> Option<Typed> {
        self.typed.recv().await
    }

    /// Whether a person sees what is printed.
    pub(crate) fn is_terminal(&self) -> bool {
        self.before.is_some()
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that has gone needs no modes.
            drop(print(b"\x1b[?2004l"));
            let _gone = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

pub(crate) fn print(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

const PASTE: &[u8] = b"\x1b[200~";
const PASTED: &[u8] = b"\x1b[201~";

/// Bytes to prompts.
#[derive(Debug, Default)]
struct Keys {
    terminal: bool,
    pasting: bool,
    line: Vec<u8>,
    /// A sequence that has begun.
    held: Vec<u8>,
}

impl Keys {
    fn take(&mut self, bytes: &[u8]) -> Vec<Typed> {
        let mut typed = Vec::new();
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        while let Some((&byte, after)) = rest.split_first() {
            if let Some(after) = rest.strip_prefix(PASTE).filter(|_| self.terminal) {
                (self.pasting, rest) = (true, after);
                continue;
            }
            if let Some(after) = rest.strip_prefix(PASTED).filter(|_| self.terminal) {
                (self.pasting, rest) = (false, after);
                continue;
            }
            let begun = rest.len() > 1 || self.pasting;
            if self.terminal && begun && (PASTE.starts_with(rest) || PASTED.starts_with(rest)) {
                self.held = rest.to_vec();
                break;
            }
            rest = after;
            match byte {
                _ if self.pasting => self.line.push(byte),
                b'\r' if self.terminal => typed.push(self.submit()),
                b'\n' if !self.terminal => typed.push(self.submit()),
                0x03 | 0x1b if self.terminal => typed.push(Typed::Interrupt),
                0x7f if self.terminal => drop(self.line.pop()),
                _ => self.line.push(byte),
            }
        }
        typed
    }

    fn submit(&mut self) -> Typed {
        Typed::Prompt(String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned())
    }

    fn rest(&mut self) -> Option<Typed> {
        (!self.line.is_empty()).then(|| self.submit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(text: &str) -> Typed {
        Typed::Prompt(text.to_owned())
    }

    #[test]
    fn a_paste_is_one_prompt_wherever_it_is_cut() {
        let bytes = "\x1b[200~one\rtwo\n\x1b[31mä\x1b[201~!\rnext\r".as_bytes();
        for cut in 0..=bytes.len() {
            let mut keys = Keys {
                terminal: true,
                ..Keys::default()
            };
            let (head, tail) = bytes.split_at(cut);
            // A lone escape is a key of its own: where it is cut off, nobody could tell.
            if head == b"\x1b" {
                continue;
            }
            let mut typed = keys.take(head);
            typed.extend(keys.take(tail));
            assert_eq!(
                typed,
                [prompt("one\rtwo\n\x1b[31mä!"), prompt("next")],
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn escape_and_ctrl_c_interrupt() {
        let mut keys = Keys {
            terminal: true,
            ..Keys::default()
        };
        assert_eq!(keys.take(b"\x1b"), [Typed::Interrupt]);
        assert_eq!(keys.take(b"\x03"), [Typed::Interrupt]);
    }

    #[test]
    fn without_a_terminal_a_line_is_a_prompt() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"one\ntwo"), [prompt("one")]);
        assert_eq!(keys.rest(), Some(prompt("two")));
    }
}
