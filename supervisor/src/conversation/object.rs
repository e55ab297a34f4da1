//! JSON objects of records, read leniently: a member of another type than expected is as if it were not there, so a record
//! of a later version still tells what it can.
//!
//! Members stay text until they are asked for. A record of many megabytes, or one made to be costly, is never spread out
//! as a tree.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use whim_wire::generation::Usage;
use whim_wire::time::Time;

/// An object, its members unread.
#[derive(Debug, Default)]
pub(super) struct Object<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Object<'a> {
    /// None: the text is no object.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok().map(Self)
    }

    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|raw| raw.get())
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        text(self.raw(name)?)
    }

    /// An empty string for what is not there.
    pub(super) fn word(&self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    pub(super) fn object(&self, name: &str) -> Option<Self> {
        Self::parse(self.raw(name)?)
    }

    pub(super) fn list(&self, name: &str) -> Option<Vec<&'a str>> {
        list(self.raw(name)?)
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        serde_json::from_str(self.raw(name)?).ok()
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.flag(name) == Some(true)
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        self.raw(name)
            .and_then(|raw| serde_json::from_str(raw).ok())
            .unwrap_or(0)
    }

    pub(super) fn time(&self, name: &str) -> Option<Time> {
        self.text(name)?.parse().ok()
    }

    /// Tokens as OpenAI counts them: those from and into caches are a part of the input.
    pub(super) fn inclusive_usage(
        &self,
        [input, cached, written, output, reasoning]: [&str; 5],
    ) -> Usage {
        let (cached, written) = (self.number(cached), self.number(written));
        Usage {
            input_tokens: self
                .number(input)
                .saturating_sub(cached)
                .saturating_sub(written),
            cache_read_tokens: cached,
            cache_write_5m_tokens: written,
            cache_write_1h_tokens: 0,
            output_tokens: self.number(output),
            reasoning_tokens: self.number(reasoning),
        }
    }
}

/// A JSON string's content.
pub(super) fn text(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok()
}

/// The elements of a JSON list.
pub(super) fn list(raw: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// A small value as a tree; `None` when it is longer than `limit` bytes.
pub(super) fn tree(raw: &str, limit: usize) -> Option<Value> {
    if raw.len() > limit {
        return None;
    }
    serde_json::from_str(raw).ok()
}

/// A line as text, in which every escaped surrogate has its partner: agents cut strings between the two halves of a
/// character, which JSON's grammar lets pass and no reader can make text of. Invalid UTF-8 makes it no record: `None`.
pub(super) fn mended(line: &[u8]) -> Option<Cow<'_, str>> {
    let line = std::str::from_utf8(line).ok()?;
    if !line.contains("\\ud") && !line.contains("\\uD") {
        return Some(line.into());
    }
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        clean.push_str(before);
        let taken = match (unit(escape), escape.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => {
                clean.push_str(escape.get(..12).unwrap_or_default());
                12
            }
            (Some(0xd800..=0xdfff), _) => {
                clean.push_str("\\ufffd");
                6
            }
            // Any other escape, of which the second character may be a backslash too.
            _ => {
                let length = escape.chars().take(2).map(char::len_utf8).sum();
                clean.push_str(escape.get(..length).unwrap_or_default());
                length
            }
        };
        rest = escape.get(taken..).unwrap_or_default();
    }
    clean.push_str(rest);
    Some(clean.into())
}

/// The UTF-16 unit that an escape at the beginning of the text stands for.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_another_type_is_not_there() {
        let object = Object::parse(r#"{"a":1,"b":"x","c":{"d":[1,"y"]},"e":true}"#).unwrap();
        assert_eq!(object.text("a"), None);
        assert_eq!(object.word("b"), "x");
        assert_eq!(object.number("b"), 0);
        assert_eq!(
            object.object("c").unwrap().list("d").unwrap(),
            ["1", "\"y\""]
        );
        assert!(object.is("e") && !object.is("a"));
        assert!(Object::parse("[1]").is_none());
    }

    #[test]
    fn half_characters_are_replaced_and_whole_ones_stay() {
        let mend = |text: &str| {
            let line = format!("\"{text}\"");
            self::text(&mended(line.as_bytes()).unwrap())
        };
        assert_eq!(mend(r"cut \ud83d").as_deref(), Some("cut \u{fffd}"));
        assert_eq!(mend(r"\udc4d late").as_deref(), Some("\u{fffd} late"));
        assert_eq!(mend(r"\ud83d\udc4d").as_deref(), Some("👍"));
        assert_eq!(mend(r"\uD83D\uD83D\uDC4D").as_deref(), Some("\u{fffd}👍"));
        assert_eq!(mend(r"\\ud83d ü").as_deref(), Some(r"\ud83d ü"));
        assert_eq!(mend(r"\ud83").as_deref(), None);
        assert_eq!(mended(b"\xff"), None);
    }
}
