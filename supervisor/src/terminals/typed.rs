//! What stands in a program's input box, as far as the typed keys tell.
//!
//! Agents do not say what is in their input box, so [`Keys`] follows every byte that is typed, by people and by the
//! supervisor, and keeps a count of characters. It errs on the side of "something is there": keys that recall a history
//! or complete a word count as text, Escape and deleting by the word take nothing away. Enter and Ctrl-C empty the box,
//! Ctrl-U and Backspace do where they can be followed. Enter with Shift, Alt or after a backslash, Ctrl-J and line breaks
//! of a paste are text, as in all the agents' input boxes.
//!
//! The keys are those of a terminal: legacy sequences, the kitty protocol, xterm's modifyOtherKeys. Reports of mouse and
//! focus are none. Pure; at most [`PENDING`] bytes of a sequence that is not complete are kept.

use memchr::memmem;

const PASTE_END: &[u8] = b"\x1b[201~";
/// Characters that are counted one by one.
const LONG: usize = 4096;
/// Longest sequence that may come in two messages.
const PENDING: usize = 64;

/// What was typed into a terminal so far. The counts only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// Messages of people with at least one key in them.
    pub messages: u64,
    /// Enter by people.
    pub entered: u64,
    /// Of these, with something in the input box.
    pub submitted: u64,
    /// Escape by people.
    pub escaped: u64,
    /// Ctrl-C by people.
    pub interrupted: u64,
    /// Something may stand in the input box.
    pub draft: bool,
    /// `messages` when the present (or last) draft began.
    pub draft_from: u64,
}

/// Who types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    Person,
    Supervisor,
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct Keys {
    typed: Typed,
    /// Characters in the input box that can be deleted one by one.
    characters: usize,
    /// It has more than one line: the keys that delete a line leave others.
    lines: bool,
    /// It may hold what was never typed.
    unknown: bool,
    backslash: bool,
    pasting: bool,
    pending: Vec<u8>,
}

/// A key, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Enter,
    /// A line break in the text.
    Break,
    Escape,
    Interrupt,
    Text(char),
    Backspace,
    DeleteLine,
    /// Brings text that was not typed.
    Recall,
    Paste,
    Other,
    /// No key: a report.
    Report,
}

impl Keys {
    #[must_use]
    pub fn typed(&self) -> Typed {
        self.typed
    }

    /// Takes in what is typed.
    pub fn follow(&mut self, hand: Hand, bytes: &[u8]) {
        let whole;
        let mut rest = if self.pending.is_empty() {
            bytes
        } else {
            whole = [&std::mem::take(&mut self.pending), bytes].concat();
            &whole
        };
        let mut counted = hand == Hand::Supervisor;
        while !rest.is_empty() {
            if self.pasting {
                self.count(&mut counted);
                rest = self.paste(rest);
                continue;
            }
            let text = rest
                .iter()
                .position(|&byte| byte < 0x20 || byte == 0x7f)
                .unwrap_or(rest.len());
            if text > 1 {
                // What has no control character is written at once: it may be a long paste.
                self.count(&mut counted);
                let (text, more) = rest.split_at(text);
                self.characters += characters(text);
                self.backslash = text.ends_with(b"\\");
                rest = more;
                continue;
            }
            let Some((key, length)) = key(rest) else {
                // The rest of the sequence comes with the next message.
                if rest.len() <= PENDING {
                    self.pending = rest.to_vec();
                }
                break;
            };
            if key != Key::Report {
                self.count(&mut counted);
                self.press(hand, key);
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        self.settle();
    }

    /// One message is one, however many keys are in it.
    fn count(&mut self, counted: &mut bool) {
        if !std::mem::replace(counted, true) {
            self.typed.messages += 1;
        }
    }

    /// Takes the text of a paste, to its end if that is there.
    fn paste<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (text, rest) = match memmem::find(bytes, PASTE_END) {
            Some(end) => {
                self.pasting = false;
                let (text, rest) = bytes.split_at(end);
                (text, rest.get(PASTE_END.len()..).unwrap_or_default())
            }
            None => {
                let begun = (1..PASTE_END.len())
                    .rev()
                    .find(|&length| bytes.ends_with(PASTE_END.get(..length).unwrap_or_default()))
                    .unwrap_or(0);
                let (text, begun) = bytes.split_at(bytes.len() - begun);
                self.pending = begun.to_vec();
                (text, &[][..])
            }
        };
        self.characters += text.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        self.lines |= text.contains(&b'\r') || text.contains(&b'\n');
        self.backslash = text.ends_with(b"\\");
        rest
    }

    fn press(&mut self, hand: Hand, key: Key) {
        let person = u64::from(hand == Hand::Person);
        let escaping = std::mem::replace(&mut self.backslash, key == Key::Text('\\'));
        match key {
            Key::Enter if escaping => self.write(true),
            Key::Enter => {
                self.typed.entered += person;
                if self.any() {
                    self.typed.submitted += person;
                }
                self.empty();
            }
            Key::Break => self.write(true),
            Key::Text(_) => self.write(false),
            Key::Escape => self.typed.escaped += person,
            Key::Interrupt => {
                self.typed.interrupted += person;
                self.empty();
            }
            // Agents fold a long paste into one mark: deleting it by one key is not followed.
            Key::Backspace => self.characters = self.characters.saturating_sub(1),
            Key::DeleteLine if !self.lines => self.empty(),
            Key::Recall => self.unknown = true,
            Key::Paste => self.pasting = true,
            Key::DeleteLine | Key::Other | Key::Report => {}
        }
        self.settle();
    }

    fn write(&mut self, line_break: bool) {
        self.characters += 1;
        self.lines |= line_break;
    }

    fn any(&self) -> bool {
        self.characters > 0 || self.unknown
    }

    fn empty(&mut self) {
        self.characters = 0;
        self.lines = false;
        self.unknown = false;
    }

    fn settle(&mut self) {
        let draft = self.any();
        if draft && !self.typed.draft {
            self.typed.draft_from = self.typed.messages;
        }
        if !draft {
            self.lines = false;
        }
        self.typed.draft = draft;
    }
}

/// How many characters; of a long text, that nobody deletes one by one, how many bytes.
fn characters(text: &[u8]) -> usize {
    if text.len() > LONG {
        return text.len();
    }
    let begins = |byte: &&u8| **byte & 0xc0 != 0x80;
    text.iter().filter(begins).count()
}

/// The first key of `bytes` and its length; `None`: a sequence that is not complete.
fn key(bytes: &[u8]) -> Option<(Key, usize)> {
    let first = *bytes.first()?;
    let key = match first {
        b'\r' => Key::Enter,
        b'\n' => Key::Break,
        0x03 => Key::Interrupt,
        0x08 | 0x7f => Key::Backspace,
        0x15 => Key::DeleteLine,
        // Completion, next, previous, search, yank.
        b'\t' | 0x0e | 0x10 | 0x12 | 0x19 => Key::Recall,
        0x1b => return escape(bytes),
        0x00..=0x1f => Key::Other,
        0x20..=0x7e => Key::Text(char::from(first)),
        // The rest of a character; its first byte counted.
        0x80..=0xbf => Key::Other,
        0xc0.. => Key::Text('\u{fffd}'),
    };
    Some((key, 1))
}

fn escape(bytes: &[u8]) -> Option<(Key, usize)> {
    match bytes.get(1) {
        None | Some(0x1b) => Some((Key::Escape, 1)),
        Some(b'\r' | b'\n') => Some((Key::Break, 2)),
        Some(b'O') => match bytes.get(2)? {
            b'A' | b'B' => Some((Key::Recall, 3)),
            b'M' => Some((Key::Enter, 3)),
            _ => Some((Key::Other, 3)),
        },
        Some(b'[') => sequence(bytes),
        Some(_) => Some((Key::Other, 2)),
    }
}

/// `CSI parameters final`.
fn sequence(bytes: &[u8]) -> Option<(Key, usize)> {
    let end = bytes
        .iter()
        .skip(2)
        .position(|byte| (0x40..=0x7e).contains(byte))?
        + 2;
    let parameters = bytes.get(2..end).unwrap_or_default();
    let number = |index: usize| -> Option<u32> {
        let field = parameters.split(|&byte| byte == b';').nth(index)?;
        let number = field.split(|&byte| byte == b':').next()?;
        std::str::from_utf8(number).ok()?.parse().ok()
    };
    let key = match bytes.get(end)? {
        b'A' | b'B' => Key::Recall,
        b'I' | b'O' if parameters.is_empty() => Key::Report,
        b'M' | b'm' if parameters.starts_with(b"<") => Key::Report,
        b'M' if parameters.is_empty() => {
            // The oldest kind of mouse report: three bytes follow.
            return (bytes.len() >= end + 4).then_some((Key::Report, end + 4));
        }
        b'~' if number(0) == Some(200) => Key::Paste,
        b'~' if number(0) == Some(27) => coded(number(2), number(1)),
        b'u' => {
            // `code ; modifiers : kind`, kind 3: released.
            let released = parameters
                .split(|&byte| byte == b';')
                .nth(1)
                .is_some_and(|field| field.ends_with(b":3"));
            if released {
                Key::Report
            } else {
                coded(number(0), number(1))
            }
        }
        _ => Key::Other,
    };
    Some((key, end + 1))
}

/// A key by its code point and modifiers (1 and a bit each: Shift 1, Alt 2, Ctrl 4).
fn coded(code: Option<u32>, modifiers: Option<u32>) -> Key {
    // Caps lock and num lock are states, not modifiers.
    let modifiers = (modifiers.unwrap_or(1).max(1) - 1) & 0x0f;
    let control = modifiers & 4 != 0;
    let alt = modifiers & 2 != 0;
    match code.and_then(char::from_u32) {
        Some('\r') if modifiers == 0 => Key::Enter,
        Some('\r') => Key::Break,
        Some('\u{1b}') => Key::Escape,
        Some('\u{7f}' | '\u{8}') if modifiers == 0 => Key::Backspace,
        Some('\t') if modifiers == 0 => Key::Recall,
        Some(letter @ 'a'..='z') if control && !alt => {
            // As the control character it stands for.
            let byte = u8::try_from(u32::from(letter) & 0x1f).unwrap_or_default();
            key(&[byte]).map_or(Key::Other, |(key, _)| key)
        }
        // Private use: keys without a character.
        Some('\u{e000}'..='\u{f8ff}') => Key::Other,
        Some(c) if !control && !alt && !c.is_control() => Key::Text(c),
        _ => Key::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn after(messages: &[&[u8]]) -> Typed {
        let mut keys = Keys::default();
        for message in messages {
            keys.follow(Hand::Person, message);
        }
        keys.typed()
    }

    #[test]
    fn a_line_is_a_draft_until_it_is_entered_or_deleted() {
        for (bytes, draft) in [
            (&b"h"[..], true),
            (b"hi\x7f", true),
            (b"hi\x7f\x7f", false),
            (b"hi\x7f\x7f\x7f\x7fx", true),
            (b"\xc3\xa4\x7f", false),
            (b"hi\r", false),
            (b"hi\x03", false),
            (b"hi\x15", false),
            (b"\x03", false),
            (b"\r", false),
            // All that only may leave something.
            (b"\x1b[A", true),
            (b"\x1bOA", true),
            (b"\x10", true),
            (b"/he\t", true),
            (b"hi\x17", true),
            (b"hi\x1b", true),
            // Breaks of the line.
            (b"hi\n", true),
            (b"hi\\\r", true),
            (b"hi\x1b\r", true),
            (b"hi\x1b[13;2u", true),
            (b"hi\x1b[27;2;13~", true),
            (b"one\ntwo\x15", true),
            (b"one\ntwo\r", false),
            // The same keys in the newer protocols.
            (b"hi\x1b[13u", false),
            (b"hi\x1b[99;5u", false),
            (b"hi\x1b[127u\x1b[127u", false),
            (b"\x1b[97u", true),
            (b"\x1b[97;1:3u", false),
            (b"\x1b[97;5u", false),
            (b"\x1b[57441;2u", false),
            // Moving about types nothing.
            (b"\x1b[C\x1b[D\x1b[H\x1b[5~\x1b[3~\x1bb\x01\x05", false),
        ] {
            assert_eq!(after(&[bytes]).draft, draft, "{:?}", bytes.escape_ascii());
        }
    }

    #[test]
    fn reports_are_no_keys() {
        for report in [
            &b"\x1b[I"[..],
            b"\x1b[O",
            b"\x1b[<35;10;3M",
            b"\x1b[<0;10;3m",
            b"\x1b[M !!",
            b"\x1b[97;1:3u",
        ] {
            assert_eq!(after(&[report]), Typed::default(), "{report:?}");
        }
        assert_eq!(after(&[b"\x1b[C"]).messages, 1);
    }

    #[test]
    fn what_people_do_is_counted() {
        let typed = after(&[b"fix it", b"\r", b"\x1b", b"\x03", b"\r"]);
        assert_eq!(typed.messages, 5);
        assert_eq!((typed.entered, typed.submitted), (2, 1));
        assert_eq!((typed.escaped, typed.interrupted), (1, 1));
        assert_eq!(typed.draft_from, 1);
    }

    #[test]
    fn the_supervisors_own_typing_changes_the_box_but_is_nobodys_key() {
        let mut keys = Keys::default();
        keys.follow(Hand::Person, b"half a li");
        assert!(keys.typed().draft);
        keys.follow(Hand::Supervisor, b"\x15\x15");
        assert!(!keys.typed().draft);
        keys.follow(Hand::Supervisor, b"\x1b[200~one\rtwo\x1b[201~");
        assert!(keys.typed().draft);
        keys.follow(Hand::Supervisor, b"\r");
        let typed = keys.typed();
        assert!(!typed.draft);
        assert_eq!((typed.messages, typed.entered, typed.submitted), (1, 0, 0));
    }

    #[test]
    fn a_paste_is_text_whatever_is_in_it_and_however_it_is_cut() {
        let paste = b"\x1b[200~one\rtwo\x03\x1b[A\x1b[201~";
        for cut in 0..=paste.len() {
            // A lone Escape at the end of a message is the key.
            if cut == 1 {
                continue;
            }
            let typed = after(&[&paste[..cut], &paste[cut..]]);
            assert!(typed.draft, "cut at {cut}");
            assert_eq!((typed.entered, typed.interrupted), (0, 0), "cut at {cut}");
            let typed = after(&[&paste[..cut], &paste[cut..], b"\r"]);
            assert!(!typed.draft, "cut at {cut}");
            assert_eq!(typed.submitted, 1, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_kept_and_enter_always_empties(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut keys = Keys::default();
            keys.follow(Hand::Person, &bytes);
            prop_assert!(keys.pending.len() <= PENDING);
            keys.follow(Hand::Person, b"~~~~\x1b[201~x\x7f\r\r");
            prop_assert!(!keys.typed().draft);
        }
    }
}
