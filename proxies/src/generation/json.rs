//! Incremental reader of JSON: bytes in, scalars with their paths out, in flat memory.
//!
//! The proxy reads what passes by, bodies of 64 MiB among them, and wants a dozen scalars near the top. So nothing is
//! kept but the keys on the way down: [`DEPTH`] levels, keys cut to [`KEY`] bytes, strings cut to [`TEXT`] bytes;
//! deeper values are passed over. The result does not depend on where the input is split.
//!
//! It is a reader for accounting, not a validator: whoever receives the bytes judges them. What is no JSON at all ends
//! the reading ([`Reader::broken`]); lesser faults go unnoticed. Of a key that appears twice both values are told.

/// Levels of nesting at which scalars are told.
pub const DEPTH: usize = 8;
/// Bytes of a key that are kept; longer ones equal no key that anyone asks for.
pub const KEY: usize = 40;
/// Bytes of a string value that are kept.
pub const TEXT: usize = 256;

/// Where a value stands: the keys from the root down. Elements of an array have an empty key.
#[derive(Clone, Debug)]
pub struct Path {
    keys: [[u8; KEY]; DEPTH],
    lens: [u8; DEPTH],
    len: usize,
}

impl Path {
    const fn new() -> Self {
        Self {
            keys: [[0; KEY]; DEPTH],
            lens: [0; DEPTH],
            len: 0,
        }
    }

    /// Number of keys.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether this is the root.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The key at a level, counted from 0; empty for array elements and beyond the end.
    #[must_use]
    pub fn key(&self, level: usize) -> &[u8] {
        if level >= self.len {
            return &[];
        }
        match (self.keys.get(level), self.lens.get(level)) {
            (Some(key), Some(&len)) => key.get(..usize::from(len)).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// Whether the path below `level` consists of exactly these keys.
    #[must_use]
    pub fn ends_with(&self, level: usize, keys: &[&str]) -> bool {
        self.len == level + keys.len()
            && keys
                .iter()
                .zip(level..)
                .all(|(key, at)| self.key(at) == key.as_bytes())
    }

    /// Whether the path consists of exactly these keys.
    #[must_use]
    pub fn is(&self, keys: &[&str]) -> bool {
        self.ends_with(0, keys)
    }
}

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
        self.path.len = 0;
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
            self.path.len = self.depth;
            self.set_key(&[]);
        }
        if object { Expect::Key } else { Expect::Value }
    }

    const fn pop(&mut self) -> Expect {
        self.kinds >>= 1;
        self.depth -= 1;
        if self.depth < DEPTH {
            self.path.len = self.depth;
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
        let Some(level) = self.depth.checked_sub(1) else {
            return;
        };
        if let (Some(slot), Some(len)) =
            (self.path.keys.get_mut(level), self.path.lens.get_mut(level))
        {
            // A key that does not fit is kept cut; at full length it equals none that is asked for.
            let kept = key.len().min(KEY);
            if let (Some(to), Some(from)) = (slot.get_mut(..kept), key.get(..kept)) {
                to.copy_from_slice(from);
            }
            *len = u8::try_from(kept).unwrap_or(0);
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

/// Whether an odd number of backslashes stands before a place.
fn is_escaped(input: &[u8], at: usize) -> bool {
    let before = input.get(..at).unwrap_or_default().iter().rev();
    before.take_while(|byte| **byte == b'\\').count() % 2 == 1
}

/// Bytes that are looked at together in a string.
const BLOCK: usize = 64;

/// Where the first quotation mark stands that is not escaped.
///
/// Prompts are full of escaped marks (code, schemas), so stopping at each costs more than the bytes themselves. A block
/// is passed over when each of its marks follows one backslash that follows none: eight bytes are asked that at a time.
fn end_of_text(input: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    loop {
        // Each byte is judged with the two before it.
        while let Some(from) = at.checked_sub(2)
            && let Some(block) = input.get(from..at + BLOCK)
            && is_passed_over(block)
        {
            at += BLOCK;
        }
        let to = input.len().min(at + BLOCK);
        let mut marks = memchr::memchr_iter(b'"', input.get(at..to)?).map(|mark| at + mark);
        if let Some(end) = marks.find(|mark| !is_escaped(input, *mark)) {
            return Some(end);
        }
        if to == input.len() {
            return None;
        }
        at = to;
    }
}

/// Whether every mark behind the first two bytes follows exactly one backslash.
fn is_passed_over(block: &[u8]) -> bool {
    let words = |from: usize| block.get(from..).unwrap_or_default().as_chunks::<8>().0;
    let ends = words(2).iter().zip(words(1)).zip(words(0));
    { ends }.all(|((text, before), further)| {
        let marks = places(*text, b'"');
        marks == 0 || marks & (!places(*before, b'\\') | places(*further, b'\\')) == 0
    })
}

/// The highest bit of each byte that is the wanted one. By hand, because the whole program is optimised for its size, and
/// loops over bytes stay loops over bytes.
fn places(word: [u8; 8], wanted: u8) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = 0x7f * EACH;
    let differing = u64::from_le_bytes(word) ^ (EACH * u64::from(wanted));
    // Of a byte that differs, the sum has its highest bit or the byte itself has; no sum reaches the next byte.
    !(((differing & LOW) + LOW) | differing | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Default)]
    struct Log(Vec<String>);

    impl Visit for Log {
        fn scalar(&mut self, path: &Path, value: Scalar<'_>) {
            let keys: Vec<_> = (0..path.len())
                .map(|level| String::from_utf8_lossy(path.key(level)).into_owned())
                .collect();
            let value = match value {
                Scalar::Text(text, _) => format!("{text:?}"),
                other => format!("{other:?}"),
            };
            self.0.push(format!("{}={value}", keys.join(".")));
        }
    }

    fn read(chunks: &[&[u8]]) -> (Vec<String>, bool) {
        let (mut reader, mut log) = (Reader::default(), Log::default());
        for chunk in chunks {
            reader.feed(chunk, &mut log);
        }
        reader.finish(&mut log);
        (log.0, reader.done())
    }

    const DOCUMENT: &[u8] =
        r#" {"model":"a\"b\u00e9\ud83d\ude00\ud800x","n":-1.5e3,"list":[1,[2],{"k":null}],
        "deep":{"er":{"x":true}},"empty":{},"none":[] , "last":false}"#
            .as_bytes();

    #[test]
    fn scalars_come_with_their_paths() {
        let expected = [
            "model=\"a\\\"bé😀\u{fffd}x\"",
            "n=Number(\"-1.5e3\")",
            "list.=Number(\"1\")",
            "list..=Number(\"2\")",
            "list..k=Null",
            "deep.er.x=Bool(true)",
            "last=Bool(false)",
        ];
        assert_eq!(
            read(&[DOCUMENT]),
            (expected.map(str::to_owned).to_vec(), true)
        );
    }

    #[test]
    fn every_split_gives_the_same() {
        let whole = read(&[DOCUMENT]);
        for at in 0..=DOCUMENT.len() {
            let (a, b) = DOCUMENT.split_at(at);
            assert_eq!(read(&[a, b]), whole, "split at {at}");
        }
    }

    #[test]
    fn memory_is_flat() {
        let mut reader = Reader::default();
        let mut log = Log::default();
        reader.feed(b"{\"", &mut log);
        for _ in 0..10_000 {
            reader.feed(b"key or value without end", &mut log);
        }
        reader.feed(b"\":\"", &mut log);
        for _ in 0..10_000 {
            reader.feed("é\\u00e9".as_bytes(), &mut log);
        }
        reader.feed(b"\"}", &mut log);
        assert!(reader.done());
        assert!(
            reader.text.capacity() <= 2 * TEXT,
            "{}",
            reader.text.capacity()
        );
        assert!(log.0.iter().all(|line| line.len() <= KEY + TEXT + 8));
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(read(&[&deep(DEEPEST)]).1);
        assert!(!read(&[&deep(DEEPEST + 1)]).1);
        let below = br#"{"a":[[[[[[[[[["x",1]]]]]]]]]],"b":2}"#;
        assert!(
            read(&[below]).0.contains(&"b=Number(\"2\")".to_owned()),
            "finds its way back"
        );
    }

    /// Where a string beyond [`TEXT`] ends, escape by escape.
    fn end_of_text_slowly(input: &[u8]) -> Option<usize> {
        let mut escaped = false;
        input.iter().position(|byte| {
            let end = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            end
        })
    }

    proptest! {
        #[test]
        fn a_long_text_ends_where_its_escapes_say(
            pieces in prop::collection::vec("[a-z]{0,90}|\\\\{1,5}|\"", 0..40),
        ) {
            let text = pieces.concat();
            prop_assert_eq!(end_of_text(text.as_bytes()), end_of_text_slowly(text.as_bytes()), "{}", text);
        }

        #[test]
        fn any_bytes_any_split(bytes: Vec<u8>, at: prop::sample::Index) {
            let (a, b) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(read(&[a, b]), read(&[&bytes]));
        }

        #[test]
        fn agrees_with_serde(texts: Vec<String>, numbers: Vec<u64>) {
            let document = serde_json::json!({"texts": texts, "numbers": numbers});
            let (found, done) = read(&[document.to_string().as_bytes()]);
            prop_assert!(done);
            let expected: Vec<String> = texts.iter().filter(|t| t.len() <= TEXT).map(|t| format!("texts.={t:?}"))
                .chain(numbers.iter().map(|n| format!("numbers.=Number(\"{n}\")"))).collect();
            let found: Vec<String> = found.into_iter().filter(|f| expected.contains(f)).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
