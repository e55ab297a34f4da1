//! Whether what a transcript became may take the place of what was saved of it. Pure.
//!
//! Transcripts are no safe source: agents are known to leave them truncated, or rewritten to a stub without what was
//! said. So a file that did not simply grow is compared record by record with the saved one, and replaces it only when
//! it still holds all of them. A record is known by its own id (`uuid`, `id`), else by its whole line; one whose line
//! shrank to less than half is lost as well. What says nothing about the conversation does not count.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// Longest line that is parsed for its id; a longer one is known by its bytes, which are not kept.
const MAX_PARSED: usize = 8 * 1024 * 1024;
/// Most records that are compared; 24 bytes of memory each.
pub const MAX_RECORDS: usize = 2_000_000;
/// Records that an agent writes anew at will. Source: Claude Code 2.1's transcripts.
const BOOKKEEPING: &[&str] = &[
    "agent-color",
    "agent-name",
    "agent-setting",
    "ai-title",
    "attribution-snapshot",
    "custom-title",
    "file-history-delta",
    "file-history-snapshot",
    "last-prompt",
    "mode",
    "permission-mode",
    "pr-link",
    "progress",
    "queue-operation",
    "summary",
    "tag",
    "task-summary",
    "worktree-state",
];

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Records of the saved file are not in it.
    Lost { records: u64 },
    /// There is nothing in it.
    Empty,
    /// There are too many records to compare.
    TooMany,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost { records: 1 } => f.write_str("it lost a record"),
            Self::Lost { records } => write!(f, "it lost {records} records"),
            Self::Empty => f.write_str("it is empty"),
            Self::TooMany => write!(
                f,
                "it has more than {MAX_RECORDS} records, too many to compare"
            ),
        }
    }
}

/// Records of a file, line by line.
#[derive(Debug, Default)]
pub struct Records {
    /// Lengths by identity.
    known: HashMap<u128, u32>,
    /// What came of the last line.
    line: Vec<u8>,
    /// And of one that is too long to be kept: its hash and its length.
    long: Option<(Sha256, u64)>,
    too_many: bool,
    any: bool,
}

impl Records {
    /// Takes the file's next bytes.
    pub fn push(&mut self, mut content: &[u8]) {
        self.any |= !content.is_empty();
        while let Some(end) = memchr::memchr(b'\n', content) {
            let (line, rest) = content.split_at(end);
            content = rest.get(1..).unwrap_or_default();
            if self.line.is_empty() && self.long.is_none() && line.len() <= MAX_PARSED {
                self.record(identity(line), line.len() as u64);
            } else {
                self.go_on(line);
                self.end();
            }
        }
        self.go_on(content);
    }

    /// More of the last line.
    fn go_on(&mut self, more: &[u8]) {
        if let Some((hash, length)) = &mut self.long {
            hash.update(more);
            *length = length.saturating_add(more.len() as u64);
        } else if self.line.len() + more.len() <= MAX_PARSED {
            self.line.extend_from_slice(more);
        } else {
            let begin = std::mem::take(&mut self.line);
            let hash = Sha256::new()
                .chain_update(b"line ")
                .chain_update(&begin)
                .chain_update(more);
            self.long = Some((hash, (begin.len() + more.len()) as u64));
        }
    }

    /// The last line is whole.
    fn end(&mut self) {
        let line = std::mem::take(&mut self.line);
        match self.long.take() {
            Some((hash, length)) => self.record(shortened(hash), length),
            None => self.record(identity(&line), line.len() as u64),
        }
    }

    fn record(&mut self, identity: Option<u128>, length: u64) {
        if self.known.len() >= MAX_RECORDS {
            self.too_many = true;
        } else if let Some(identity) = identity {
            let length = u32::try_from(length).unwrap_or(u32::MAX);
            let known = self.known.entry(identity).or_default();
            *known = length.max(*known);
        }
    }
}

/// Whether `now` may replace `saved`.
///
/// # Errors
/// What is wrong with it.
pub fn compare(mut saved: Records, mut now: Records) -> Result<(), Damage> {
    // The last line may be without its end.
    saved.end();
    now.end();
    if saved.any && !now.any {
        return Err(Damage::Empty);
    }
    if saved.too_many || now.too_many {
        return Err(Damage::TooMany);
    }
    let kept = |identity: &u128, length: u32| {
        now.known
            .get(identity)
            .is_some_and(|now| *now >= length / 2)
    };
    let lost = saved
        .known
        .iter()
        .filter(|(identity, length)| !kept(identity, **length));
    match lost.count() as u64 {
        0 => Ok(()),
        records => Err(Damage::Lost { records }),
    }
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow, default)]
    uuid: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, rename = "type")]
    kind: Option<Cow<'a, str>>,
}

fn identity(line: &[u8]) -> Option<u128> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return None;
    }
    let named: Option<Named<'_>> = serde_json::from_slice(line).ok();
    let digest = match &named {
        Some(Named { uuid: Some(id), .. } | Named { id: Some(id), .. }) => Sha256::new()
            .chain_update(b"id ")
            .chain_update(id.as_bytes()),
        Some(Named {
            kind: Some(kind), ..
        }) if BOOKKEEPING.contains(&kind.as_ref()) => return None,
        _ => Sha256::new().chain_update(b"line ").chain_update(line),
    };
    shortened(digest)
}

fn shortened(hash: Sha256) -> Option<u128> {
    let digest = hash.finalize();
    let first = digest.first_chunk::<16>()?;
    Some(u128::from_le_bytes(*first))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn records(text: &str) -> Records {
        let mut records = Records::default();
        records.push(text.as_bytes());
        records
    }

    fn verdict(saved: &str, now: &str) -> Result<(), Damage> {
        compare(records(saved), records(now))
    }

    #[test]
    fn what_replaces_and_what_does_not() {
        let user =
            r#"{"type":"user","uuid":"u1","message":{"role":"user","content":"hello there"}}"#;
        let answer =
            r#"{"type":"assistant","uuid":"a1","message":{"role":"assistant","content":"well"}}"#;
        let moved = r#"{"uuid":"u1","type":"user","sessionId":"new","message":{"role":"user","content":"hello there"}}"#;
        let stub = r#"{"type":"user","uuid":"u1"}"#;
        let mode = r#"{"type":"mode","mode":"plan"}"#;
        let codex = r#"{"timestamp":"2026","ordinal":1,"type":"response_item","payload":{}}"#;
        let lost = |records| Err(Damage::Lost { records });
        let cases = [
            (
                "grew",
                format!("{user}\n"),
                format!("{user}\n{answer}\n"),
                Ok(()),
            ),
            (
                "another order",
                format!("{user}\n{answer}\n"),
                format!("{answer}\n{user}\n"),
                Ok(()),
            ),
            (
                "written anew",
                format!("{user}\n"),
                format!("{moved}\n"),
                Ok(()),
            ),
            (
                "without its last end",
                format!("{user}\n{answer}\n"),
                format!("{user}\n{answer}"),
                Ok(()),
            ),
            (
                "bookkeeping gone",
                format!("{mode}\n{user}\n"),
                format!("{user}\n"),
                Ok(()),
            ),
            (
                "shrank",
                format!("{user}\n{answer}\n"),
                format!("{user}\n"),
                lost(1),
            ),
            (
                "a stub",
                format!("{user}\n{answer}\n"),
                format!("{mode}\n"),
                lost(2),
            ),
            ("hollow", format!("{user}\n"), format!("{stub}\n"), lost(1)),
            (
                "cut in a line",
                format!("{user}\n"),
                user.chars().take(30).collect(),
                lost(1),
            ),
            (
                "other lines",
                format!("{codex}\n"),
                format!("{answer}\n"),
                lost(1),
            ),
            (
                "empty",
                format!("{user}\n"),
                String::new(),
                Err(Damage::Empty),
            ),
            (
                "no JSON",
                "one\ntwo\n".into(),
                "two\none\nthree\n".into(),
                Ok(()),
            ),
            (
                "no JSON, less",
                "one\ntwo\n".into(),
                "two\n".into(),
                lost(1),
            ),
            ("nothing was saved", String::new(), String::new(), Ok(())),
        ];
        for (what, saved, now, wanted) in cases {
            assert_eq!(verdict(&saved, &now), wanted, "{what}");
        }
    }

    #[test]
    fn an_endless_line_is_known_by_its_bytes_and_not_kept() {
        let part = vec![b'x'; MAX_PARSED / 2 + 1];
        let line = |parts: usize, end: &[u8]| {
            let mut records = Records::default();
            for _ in 0..parts {
                records.push(&part);
                assert!(records.line.len() <= MAX_PARSED);
            }
            records.push(end);
            records
        };
        assert_eq!(
            compare(line(5, b"a\nshort\n"), line(5, b"a\nshort")),
            Ok(())
        );
        let lost = Err(Damage::Lost { records: 1 });
        assert_eq!(
            compare(line(5, b"a\nshort\n"), line(5, b"b\nshort\n")),
            lost
        );
        assert_eq!(compare(line(5, b"\n"), line(4, b"\n")), lost);
        // However it came.
        let mut whole = part.repeat(3);
        whole.push(b'\n');
        let mut at_once = Records::default();
        at_once.push(&whole);
        assert_eq!(compare(line(3, b"\n"), at_once), Ok(()));
    }

    proptest! {
        #[test]
        fn only_what_holds_every_line_replaces(saved in proptest::collection::vec("[a-c]{1,4}", 0..12), now in proptest::collection::vec("[a-c]{1,4}", 0..12), cut in 0_usize..60) {
            let text = now.join("\n");
            let (first, second) = text.split_at(cut.min(text.len()));
            let mut chunked = Records::default();
            chunked.push(first.as_bytes());
            chunked.push(second.as_bytes());
            let holds = saved.iter().all(|line| now.contains(line));
            prop_assert_eq!(compare(records(&saved.join("\n")), chunked).is_ok(), holds);
        }
    }
}
