//! Incremental reader of JSON: bytes in, scalars with their paths out, in flat memory.
//!
//! The proxy reads what passes by, bodies of 64 MiB among them, and wants a dozen scalars near the top. So nothing is
//! kept but the keys on the way down: [`DEPTH`] levels, keys cut to [`KEY`] bytes, strings cut to [`TEXT`] bytes;
//! deeper values are passed over. The result does not depend on where the input is split.
//!
//! It is a reader for accounting, not a validator: whoever receives the bytes judges them. What is no JSON at all ends
//! the reading ([`Reader::broken`]); lesser faults go unnoticed. Of a key that appears twice both values are told.

mod end;
mod path;
#[cfg(test)]
mod tests;

use end::{end_of_text, is_escaped};
pub use path::Path;

/// Levels of nesting at which scalars are told.
pub const DEPTH: usize = 8;
/// Bytes of a key that are kept; longer ones equal no key that anyone asks for.
pub const KEY: usize = 40;
/// Bytes of a string value that are kept.
pub const TEXT: usize = 256;

/// A value that is no container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    /// Contents of a string, escapes undone, cut to [`TEXT`] bytes at a character; and its length as written, in bytes.
    Text(&'a str, u64),
    /// A number as written, cut to [`TEXT`] bytes.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Receives what a [`Reader`] finds.
pub trait Visit {
    /// A scalar; of strings also those below [`DEPTH`], with the path of the level above them that is still known.
    fn scalar(&mut self, path: &Path, value: Scalar<'_>);
    /// An object or array began.
    fn open(&mut self, _path: &Path) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// A value, or the end of the container it would be in.
    Value,
    /// A key, or the end of its object.
    Key,
    /// A colon.
    Colon,
    /// A comma or the end of a container.
    Next,
    /// In a string; the flag tells a key.
    Text {
        key: bool,
    },
    /// After a backslash in a string.
    Escape {
        key: bool,
    },
    /// In `\u`; digits left, value so far.
    Unicode {
        key: bool,
        left: u8,
        value: u16,
    },
    /// In a number or a word.
    Word,
    /// The root's value has ended.
    Done,
    Broken,
}

/// The reader's place in a document.
#[derive(Clone, Debug)]
pub struct Reader {
    expect: Expect,
    path: Path,
    /// One bit per open container, the innermost lowest: 1 for an object. Depth is bounded by [`DEEPEST`].
    kinds: u128,
    depth: usize,
    text: Vec<u8>,
    written: u64,
    /// A high surrogate that waits for its other half.
    high: Option<u16>,
}

/// Containers within containers that are followed; deeper nesting is broken for us.
const DEEPEST: usize = 127;

impl Default for Reader {
    fn default() -> Self {
        Self {
            expect: Expect::Value,
            path: Path::new(),
            kinds: 0,
            depth: 0,
            text: Vec::new(),
            written: 0,
            high: None,
        }
    }
}

impl Reader {
    /// Whether the input was no JSON.
    #[must_use]
    pub const fn broken(&self) -> bool {
        matches!(self.expect, Expect::Broken)
    }

    /// Whether a whole document was read.
    #[must_use]
    pub const fn done(&self) -> bool {
        matches!(self.expect, Expect::Done)
    }

    /// Begins a new document, keeping the buffer.
    pub fn reset(&mut self) {
        // The keys stand where they are: none is read that was not set on the way down.
        self.expect = Expect::Value;
        self.path.stand_at(0);
        self.kinds = 0;
        self.depth = 0;
        self.text.clear();
        self.written = 0;
        self.high = None;
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, mut input: &[u8], visit: &mut impl Visit) {
        while let Some((&byte, rest)) = input.split_first() {
            input = match self.expect {
                Expect::Text { key } => self.in_text(key, input, visit),
                Expect::Escape { key } => {
                    self.escape(key, byte);
                    rest
                }
                Expect::Unicode { key, left, value } => {
                    if self.unicode(key, left, value, byte) {
                        rest
                    } else {
                        input
                    }
                }
                Expect::Word => {
                    if matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t') {
                        self.end_word(visit);
                        input
                    } else {
                        self.keep(byte);
                        rest
                    }
                }
                // What follows a document is nobody's.
                Expect::Broken | Expect::Done => return,
                _ => {
                    if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                        self.structure(byte, visit);
                    }
                    rest
                }
            };
        }
    }

    /// The input has ended: a number at the root ends with it.
    pub fn finish(&mut self, visit: &mut impl Visit) {
        if self.expect == Expect::Word {
            self.end_word(visit);
        }
    }

    fn structure(&mut self, byte: u8, visit: &mut impl Visit) {
        self.expect = match (self.expect, byte) {
            (Expect::Value, b'{' | b'[') => {
                if self.depth >= DEEPEST {
                    Expect::Broken
                } else {
                    if self.depth <= DEPTH {
                        visit.open(&self.path);
                    }
                    self.push(byte == b'{')
                }
            }
            (Expect::Value, b'"') => self.begin_text(false),
            (Expect::Key, b'"') => self.begin_text(true),
            (Expect::Value, b']') if self.depth > 0 && !self.in_object() => self.pop(),
            (Expect::Value, b't' | b'f' | b'n' | b'-' | b'0'..=b'9') => {
                self.text.clear();
                self.text.push(byte);
                Expect::Word
            }
            (Expect::Key | Expect::Next, b'}') if self.in_object() => self.pop(),
            (Expect::Next, b']') if self.depth > 0 && !self.in_object() => self.pop(),
            (Expect::Next, b',') if self.in_object() => Expect::Key,
            (Expect::Next, b',') => Expect::Value,
            (Expect::Colon, b':') => Expect::Value,
            _ => Expect::Broken,
        };
    }

    const fn in_object(&self) -> bool {
        self.depth > 0 && self.kinds & 1 == 1
    }

    fn push(&mut self, object: bool) -> Expect {
        self.kinds = self.kinds << 1 | u128::from(object);
        self.depth += 1;
        if self.depth <= DEPTH {
            self.path.stand_at(self.depth);
            self.set_key(&[]);
        }
        if object { Expect::Key } else { Expect::Value }
    }

    const fn pop(&mut self) -> Expect {
        self.kinds >>= 1;
        self.depth -= 1;
        if self.depth < DEPTH {
            self.path.stand_at(self.depth);
        }
        self.after_value()
    }

    const fn after_value(&self) -> Expect {
        if self.depth == 0 {
            Expect::Done
        } else {
            Expect::Next
        }
    }

    fn set_key(&mut self, key: &[u8]) {
        if let Some(level) = self.depth.checked_sub(1) {
            self.path.set(level, key);
        }
    }

    fn begin_text(&mut self, key: bool) -> Expect {
        self.text.clear();
        self.written = 0;
        self.high = None;
        Expect::Text { key }
    }

    fn keep(&mut self, byte: u8) {
        if self.text.len() < TEXT {
            self.text.push(byte);
        }
    }

    fn in_text<'i>(&mut self, key: bool, input: &'i [u8], visit: &mut impl Visit) -> &'i [u8] {
        if self.text.len() >= TEXT {
            return self.beyond_text(key, input, visit);
        }
        let end = memchr::memchr2(b'"', b'\\', input).unwrap_or(input.len());
        let (plain, rest) = input.split_at_checked(end).unwrap_or((input, &[]));
        if !plain.is_empty() {
            self.lone_surrogate();
            self.written = self.written.saturating_add(plain.len() as u64);
            let room = TEXT.saturating_sub(self.text.len()).min(plain.len());
            self.text
                .extend_from_slice(plain.get(..room).unwrap_or(plain));
        }
        let Some((&byte, rest)) = rest.split_first() else {
            return rest;
        };
        if byte == b'\\' {
            self.written = self.written.saturating_add(1);
            self.expect = Expect::Escape { key };
        } else {
            self.lone_surrogate();
            self.end_text(key, visit);
        }
        rest
    }

    /// The part of a string that is not kept, which is most of what passes: only its end is looked for, the first
    /// quotation mark with an even number of backslashes before it.
    fn beyond_text<'i>(&mut self, key: bool, input: &'i [u8], visit: &mut impl Visit) -> &'i [u8] {
        if let Some(end) = end_of_text(input) {
            self.written = self.written.saturating_add(end as u64);
            self.end_text(key, visit);
            return input.get(end + 1..).unwrap_or_default();
        }
        self.written = self.written.saturating_add(input.len() as u64);
        if is_escaped(input, input.len()) {
            self.expect = Expect::Escape { key };
        }
        &[]
    }

    fn escape(&mut self, key: bool, byte: u8) {
        self.written = self.written.saturating_add(1);
        self.expect = Expect::Text { key };
        let plain = match byte {
            b'u' => {
                self.expect = Expect::Unicode {
                    key,
                    left: 4,
                    value: 0,
                };
                return;
            }
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            other => other,
        };
        self.lone_surrogate();
        self.keep(plain);
    }

    /// False: the byte is no digit and is read again as text; whoever receives the body refuses it.
    fn unicode(&mut self, key: bool, left: u8, value: u16, byte: u8) -> bool {
        let digit = char::from(byte).to_digit(16);
        let Some(digit) = digit.and_then(|d| u16::try_from(d).ok()) else {
            self.keep_char(None);
            self.expect = Expect::Text { key };
            return false;
        };
        self.written = self.written.saturating_add(1);
        let value = value << 4 | digit;
        if left > 1 {
            self.expect = Expect::Unicode {
                key,
                left: left - 1,
                value,
            };
            return true;
        }
        self.expect = Expect::Text { key };
        match (self.high.take(), value) {
            (None, 0xD800..=0xDBFF) => self.high = Some(value),
            (Some(high), 0xDC00..=0xDFFF) => {
                let point =
                    0x1_0000 + ((u32::from(high) - 0xD800) << 10) + (u32::from(value) - 0xDC00);
                self.keep_char(char::from_u32(point));
            }
            (high, _) => {
                if high.is_some() {
                    self.keep_char(None);
                }
                self.keep_char(char::from_u32(u32::from(value)));
            }
        }
        true
    }

    fn lone_surrogate(&mut self) {
        if self.high.take().is_some() {
            self.keep_char(None);
        }
    }

    fn keep_char(&mut self, c: Option<char>) {
        let mut buffer = [0; 4];
        let encoded = c
            .unwrap_or(char::REPLACEMENT_CHARACTER)
            .encode_utf8(&mut buffer);
        if self.text.len() + encoded.len() <= TEXT {
            self.text.extend_from_slice(encoded.as_bytes());
        } else {
            // Nothing shorter may follow a character that was left out.
            self.text.resize(TEXT, b' ');
        }
    }

    fn end_text(&mut self, key: bool, visit: &mut impl Visit) {
        if key {
            let text = std::mem::take(&mut self.text);
            self.set_key(&text);
            self.text = text;
            self.expect = Expect::Colon;
            return;
        }
        let text = match std::str::from_utf8(&self.text) {
            Ok(text) => text,
            // Cut in the middle of a character, or no UTF-8 at all: what is good up to there.
            Err(error) => self
                .text
                .get(..error.valid_up_to())
                .and_then(|good| std::str::from_utf8(good).ok())
                .unwrap_or_default(),
        };
        visit.scalar(&self.path, Scalar::Text(text, self.written));
        self.expect = self.after_value();
    }

    fn end_word(&mut self, visit: &mut impl Visit) {
        let scalar = match self.text.as_slice() {
            b"true" => Scalar::Bool(true),
            b"false" => Scalar::Bool(false),
            b"null" => Scalar::Null,
            number => match std::str::from_utf8(number) {
                Ok(number) if !number.starts_with(['t', 'f', 'n']) => Scalar::Number(number),
                _ => {
                    self.expect = Expect::Broken;
                    return;
                }
            },
        };
        if self.depth <= DEPTH {
            visit.scalar(&self.path, scalar);
        }
        self.expect = self.after_value();
    }
}
