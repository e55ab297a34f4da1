//! Secrets that the supervisor knows, replaced in what leaves the container. Pure.
//!
//! A secret becomes as many bytes as it had, so that offsets in a file are those of its saved copy, and JSON stays
//! JSON: what takes its place is plain ASCII without quotes. What is cut into two chunks is found as well: the end of a
//! chunk waits for the next one.

use memchr::memmem::Finder;

use crate::config::Secret;
use crate::secrets;

/// What stands for a secret, as far as it has room, then asterisks.
const WORDS: &[u8] = b"[secret]";

/// What is looked for. Shows nothing of it.
#[derive(Clone, Default)]
pub struct Masks {
    finders: Vec<Finder<'static>>,
    longest: usize,
}

impl std::fmt::Debug for Masks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masks({} forms)", self.finders.len())
    }
}

impl Masks {
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let forms = secrets
            .into_iter()
            .flat_map(|one| secrets::forms(one.expose()));
        let mut forms: Vec<Vec<u8>> = forms.map(|form| form.as_bytes().to_vec()).collect();
        forms.sort_unstable();
        forms.dedup();
        Self {
            longest: forms.iter().map(Vec::len).max().unwrap_or(0),
            finders: forms
                .iter()
                .map(|form| Finder::new(form).into_owned())
                .collect(),
        }
    }

    /// How many there are, in all their forms.
    #[must_use]
    pub fn known(&self) -> usize {
        self.finders.len()
    }

    /// Bytes of the longest.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Whether one of them stands there.
    #[must_use]
    pub fn are_in(&self, text: &[u8]) -> bool {
        self.finders
            .iter()
            .any(|finder| finder.find(text).is_some())
    }

    /// Begins with a file, or goes on where its last part ended.
    #[must_use]
    pub fn begin(&self) -> Masking<'_> {
        Masking {
            masks: self,
            raw: Vec::new(),
            covered: Vec::new(),
            run: 0,
        }
    }

    /// A text that is whole.
    #[must_use]
    pub fn apply(&self, text: &[u8]) -> Vec<u8> {
        let mut masking = self.begin();
        let mut out = masking.push(text);
        out.extend(masking.finish());
        out
    }
}

/// A stream under way.
#[derive(Debug)]
pub struct Masking<'a> {
    masks: &'a Masks,
    /// What was not given back yet: its end may be a secret's beginning.
    raw: Vec<u8>,
    /// Beginnings and ends of what in it is a secret's; some may overlap.
    covered: Vec<(usize, usize)>,
    /// Bytes of secrets that were replaced right before.
    run: usize,
}

impl Masking<'_> {
    /// Takes more; gives back what can be said for certain.
    pub fn push(&mut self, more: &[u8]) -> Vec<u8> {
        if self.masks.finders.is_empty() {
            return more.to_vec();
        }
        self.raw.extend_from_slice(more);
        for finder in &self.masks.finders {
            let length = finder.needle().len();
            let mut from = 0;
            while let Some(found) = self.raw.get(from..).and_then(|rest| finder.find(rest)) {
                let at = from + found;
                let end = at + length;
                match self.covered.last_mut() {
                    Some(last) if (last.0..=last.1).contains(&at) => last.1 = last.1.max(end),
                    _ => self.covered.push((at, end)),
                }
                // The same may begin again within itself.
                from = at + 1;
            }
        }
        self.give((self.raw.len() + 1).saturating_sub(self.masks.longest))
    }

    /// What is left at the end.
    pub fn finish(mut self) -> Vec<u8> {
        self.give(self.raw.len())
    }

    fn give(&mut self, bytes: usize) -> Vec<u8> {
        let rest = self.raw.split_off(bytes);
        let mut out = std::mem::replace(&mut self.raw, rest);
        self.covered.sort_unstable();
        let mut replaced = 0;
        for &(start, end) in self.covered.iter().filter(|(start, _)| *start < bytes) {
            if start > replaced {
                self.run = 0;
            }
            let end = end.min(bytes);
            let new = out.get_mut(start.max(replaced)..end).unwrap_or_default();
            for byte in new {
                *byte = WORDS.get(self.run).copied().unwrap_or(b'*');
                self.run += 1;
            }
            replaced = replaced.max(end);
        }
        if replaced < bytes {
            self.run = 0;
        }
        self.covered.retain(|(_, end)| *end > bytes);
        for (start, end) in &mut self.covered {
            *start = start.saturating_sub(bytes);
            *end -= bytes;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn masks(secrets: &[&str]) -> Masks {
        let secrets: Vec<Secret> = secrets
            .iter()
            .map(|s| Secret::new((*s).to_owned()))
            .collect();
        Masks::new(&secrets)
    }

    #[test]
    fn secrets_are_found_in_every_form() {
        let masks = masks(&["hunter2\"\\é+ x", "sk-ant-0123"]);
        for text in [
            "a hunter2\"\\é+ x b",
            r#"{"a":"hunter2\"\\é+ x"}"#,
            r#"{"a":"{\"b\":\"hunter2\\\"\\\\é+ x\"}"}"#,
            "https://u:hunter2%22%5C%C3%A9%2B%20x@h/",
            "?q=hunter2%22%5C%C3%A9%2B+x",
        ] {
            let out = masks.apply(text.as_bytes());
            assert_eq!(out.len(), text.len());
            let out = String::from_utf8(out).unwrap();
            assert!(
                !out.contains("hunter2") && out.contains("[secret]"),
                "{text}: {out}"
            );
            if text.starts_with('{') {
                serde_json::from_str::<serde_json::Value>(&out).unwrap();
            }
        }
        assert_eq!(masks.apply(b"x sk-ant-0123 y"), b"x [secret]*** y");
        assert_eq!(masks.apply(b"sk-ant-012"), b"sk-ant-012");
    }

    #[test]
    fn short_ones_and_none_change_nothing() {
        for masks in [masks(&["abc"]), Masks::default()] {
            assert_eq!(masks.apply(b"abc abc"), b"abc abc");
        }
        assert!(!format!("{:?}", masks(&["hunter2222"])).contains("hunter"));
    }

    #[test]
    fn overlapping_ones_are_both_replaced() {
        assert_eq!(
            masks(&["abcabcab", "cabxyz"]).apply(b"abcabcabxyz"),
            b"[secret]***"
        );
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(parts in proptest::collection::vec("[ab]{0,9}|aabbaab|bbbabbb", 0..20), cuts in proptest::collection::vec(0_usize..120, 0..8)) {
            let masks = masks(&["aabbaab", "bbbabbb", "abbbbbba"]);
            let text = parts.concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let mut masking = masks.begin();
            let (mut out, mut from) = (Vec::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                out.extend(masking.push(&text.as_bytes()[from..cut]));
                from = cut;
            }
            out.extend(masking.finish());
            prop_assert_eq!(&out, &masks.apply(text.as_bytes()));
            prop_assert_eq!(out.len(), text.len());
            for secret in ["aabbaab", "bbbabbb", "abbbbbba"] {
                prop_assert!(!String::from_utf8_lossy(&out).contains(secret));
            }
        }
    }
}
