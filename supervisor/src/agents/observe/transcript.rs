//! Where an agent writes its conversation, and the few records that tell what no hook tells.
//!
//! | agent | place below the home | resume needs |
//! |---|---|---|
//! | Claude Code | `.claude/projects/<munged cwd>/<id>.jsonl` | the file below the munged cwd of the new process |
//! | Codex | `.codex/sessions/YYYY/MM/DD/rollout-<time>-<id>.jsonl` | the file |
//! | Copilot | `.copilot/session-state/<id>/events.jsonl` | the directory |
//!
//! Records of interest: an interrupt (Claude Code and Copilot run no hook then), and Copilot's permission and question
//! dialogs, which carry ids and the whole command. All three CLIs date each record (`timestamp`, RFC 3339 UTC).

use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;
use whim_wire::spec::AgentKind;

use super::super::hook::one_line;

/// Longest line that is looked at, in bytes: Copilot's request to write a file holds the file. A tool's result can be
/// far longer and tells nothing here.
pub const MAX_LINE: usize = 1024 * 1024;

/// Claude Code's name of a project directory: every character but ASCII letters and digits becomes a dash. Names of
/// more than about 200 characters are cut and hashed by the CLI: take the path from a hook then.
#[must_use]
pub fn claude_project(cwd: &Path) -> String {
    cwd.to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect()
}

/// The conversation of session `id` where the path follows from the id alone. Codex's holds the date: `None`, see
/// [`is_rollout_of`].
#[must_use]
pub fn path(kind: AgentKind, home: &Path, cwd: &Path, id: &str) -> Option<PathBuf> {
    match kind {
        AgentKind::Claude | AgentKind::Ccr => Some(
            home.join(".claude/projects")
                .join(claude_project(cwd))
                .join(format!("{id}.jsonl")),
        ),
        AgentKind::Copilot => Some(
            home.join(".copilot/session-state")
                .join(id)
                .join("events.jsonl"),
        ),
        AgentKind::Codex | AgentKind::Custom => None,
    }
}

/// Whether a file name is that of Codex's session `id`.
#[must_use]
pub fn is_rollout_of(file_name: &str, id: &str) -> bool {
    file_name
        .strip_prefix("rollout-")
        .and_then(|rest| rest.strip_suffix(".jsonl"))
        .and_then(|rest| rest.strip_suffix(id))
        .is_some_and(|rest| rest.ends_with('-') && !id.is_empty())
}

/// Where to follow the conversation of session `id`: the file that a hook named, if it can be that conversation's, else
/// where it should be. A hook is the agent's word: a path outside of the home, or of another name, is not taken.
#[must_use]
pub fn place(
    kind: AgentKind,
    home: &Path,
    cwd: &Path,
    id: &str,
    told: Option<&Path>,
) -> Option<PathBuf> {
    let known = path(kind, home, cwd, id);
    let fits = |told: &&Path| {
        let plain = told
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let name = told
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let named = match kind {
            AgentKind::Claude | AgentKind::Ccr => name.strip_suffix(".jsonl") == Some(id),
            AgentKind::Codex => is_rollout_of(name, id),
            AgentKind::Copilot | AgentKind::Custom => false,
        };
        plain && named && told.starts_with(home)
    };
    told.filter(fits).map(Path::to_owned).or(known)
}

/// A record, and when the agent wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `None`: the record has no date that can be read.
    pub at: Option<Timestamp>,
    pub record: Record,
}

/// What a record tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The turn was interrupted.
    Interrupted,
    /// A dialog opened (Copilot).
    Asked {
        id: String,
        text: String,
        options: Vec<String>,
        question: bool,
    },
    /// The dialog of this id was answered (Copilot).
    Answered { id: String },
}

/// Looks at one line of a transcript.
#[must_use]
pub fn entry(kind: AgentKind, line: &[u8]) -> Option<Entry> {
    if line.len() > MAX_LINE {
        return None;
    }
    let interesting: &[&str] = match kind {
        AgentKind::Claude | AgentKind::Ccr => &["[Request interrupted by user"],
        AgentKind::Codex => &["turn_aborted"],
        AgentKind::Copilot => &["\"abort\"", "permission.", "user_input."],
        AgentKind::Custom => return None,
    };
    let text = std::str::from_utf8(line).ok()?;
    // Most lines are of no interest: look before parsing.
    if !interesting.iter().any(|word| text.contains(word)) {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let at = value
        .get("timestamp")
        .and_then(Value::as_str)
        .and_then(|at| at.parse().ok());
    let record = record(kind, &value)?;
    Some(Entry { at, record })
}

fn record(kind: AgentKind, value: &Value) -> Option<Record> {
    let kind_of = value.get("type")?.as_str()?;
    match kind {
        AgentKind::Claude | AgentKind::Ccr => {
            let content = value.get("message")?.get("content")?;
            let begins = |text: &Value| {
                text.as_str()
                    .is_some_and(|text| text.starts_with("[Request interrupted by user"))
            };
            let interrupted = kind_of == "user"
                && value.get("isSidechain") != Some(&Value::Bool(true))
                && (begins(content)
                    || content.as_array().is_some_and(|blocks| {
                        blocks
                            .iter()
                            .any(|block| block.get("text").is_some_and(begins))
                    }));
            interrupted.then_some(Record::Interrupted)
        }
        // A turn that was replaced by another one goes on as that one.
        AgentKind::Codex => (kind_of == "event_msg"
            && value.pointer("/payload/type")?.as_str()? == "turn_aborted"
            && value.pointer("/payload/reason").and_then(Value::as_str) != Some("replaced"))
        .then_some(Record::Interrupted),
        AgentKind::Copilot => copilot(kind_of, value.get("data")?),
        AgentKind::Custom => None,
    }
}

fn copilot(kind: &str, data: &Value) -> Option<Record> {
    let id = || Some(data.get("requestId")?.as_str()?.to_owned());
    match kind {
        "abort" => Some(Record::Interrupted),
        "permission.requested" => {
            let request = data.get("permissionRequest")?;
            let text = [
                "fullCommandText",
                "url",
                "path",
                "fileName",
                "toolName",
                "intention",
                "kind",
            ]
            .iter()
            .find_map(|name| request.get(*name).and_then(Value::as_str))?;
            let verb = match request.get("kind").and_then(Value::as_str) {
                Some("shell") => "Run",
                Some("url") => "Fetch",
                Some("write") => "Write",
                Some("read") => "Read",
                _ => "Allow",
            };
            Some(Record::Asked {
                id: id()?,
                text: format!("{verb}: {}", one_line(text, 200)),
                options: Vec::new(),
                question: false,
            })
        }
        "user_input.requested" => Some(Record::Asked {
            id: id()?,
            text: data
                .get("question")
                .and_then(Value::as_str)
                .map(|text| one_line(text, 1000))
                .unwrap_or_default(),
            options: data
                .get("choices")
                .and_then(Value::as_array)
                .map(|choices| {
                    choices
                        .iter()
                        .filter_map(Value::as_str)
                        .map(str::to_owned)
                        .collect()
                })
                .unwrap_or_default(),
            question: true,
        }),
        "permission.completed" | "user_input.completed" => Some(Record::Answered { id: id()? }),
        _ => None,
    }
}

/// Cuts what was appended to a transcript into lines. A line longer than [`MAX_LINE`] is passed over, so no more than
/// that is ever kept.
#[derive(Debug, Default)]
pub struct Lines {
    pending: Vec<u8>,
    /// The rest of the present line is not wanted.
    skip: bool,
}

impl Lines {
    /// From a place in the middle of a line: the first one that is seen whole begins after the next newline.
    #[must_use]
    pub fn in_the_middle() -> Self {
        Self {
            pending: Vec::new(),
            skip: true,
        }
    }

    /// Gives every line that is complete now.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (text, whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            if !self.skip && self.pending.len() + text.len() <= MAX_LINE {
                self.pending.extend_from_slice(text);
            } else {
                self.pending = Vec::new();
                self.skip = true;
            }
            if whole {
                if !std::mem::take(&mut self.skip) {
                    each(&self.pending);
                }
                self.pending.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: AgentKind, line: &str) -> Option<Record> {
        entry(kind, line.as_bytes()).map(|entry| entry.record)
    }

    #[test]
    fn records_are_dated() {
        let dated = |line: &str| entry(AgentKind::Copilot, line.as_bytes()).unwrap().at;
        assert_eq!(
            dated(
                r#"{"type":"abort","data":{"reason":"user_abort"},"timestamp":"2026-11-22T03:15:11.613Z"}"#
            ),
            Some("2026-11-22T03:15:11.613Z".parse().unwrap())
        );
        assert_eq!(dated(r#"{"type":"abort","data":{},"timestamp":7}"#), None);
    }

    #[test]
    fn a_hooks_path_is_taken_only_for_this_conversation() {
        let (home, cwd) = (Path::new("/home/node"), Path::new("/app/repo"));
        let at = |kind, told: &str| place(kind, home, cwd, "u", Some(Path::new(told)));
        let known = |kind| path(kind, home, cwd, "u");
        let cut = "/home/node/.claude/projects/-long-1a2b3c/u.jsonl";
        assert_eq!(at(AgentKind::Claude, cut), Some(cut.into()));
        let rollout = "/home/node/.codex/sessions/2026/11/22/rollout-2026-11-22T05-43-47-u.jsonl";
        assert_eq!(at(AgentKind::Codex, rollout), Some(rollout.into()));
        for other in [
            "/etc/u.jsonl",
            "/home/node/../root/u.jsonl",
            "/home/node/.claude/projects/-app-repo/v.jsonl",
            "relative/u.jsonl",
        ] {
            assert_eq!(at(AgentKind::Claude, other), known(AgentKind::Claude));
            assert_eq!(at(AgentKind::Codex, other), None);
            assert_eq!(at(AgentKind::Copilot, other), known(AgentKind::Copilot));
        }
    }

    #[test]
    fn lines_are_whole_however_the_file_grows() {
        let text = b"one\n\ntwo words\nthree";
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                lines.feed(part, |line| {
                    seen.push(String::from_utf8(line.to_vec()).unwrap());
                });
            }
            assert_eq!(seen, ["one", "", "two words"], "cut at {cut}");
            lines.feed(b"\n", |line| assert_eq!(line, b"three"));
        }
    }

    #[test]
    fn what_is_too_long_or_cut_is_passed_over_whole() {
        let mut lines = Lines::in_the_middle();
        let mut seen = Vec::new();
        let mut feed = |lines: &mut Lines, bytes: &[u8]| {
            lines.feed(bytes, |line| seen.push(line.to_vec()));
        };
        feed(&mut lines, b"rest of a line\nfirst\n");
        for _ in 0..3 {
            feed(&mut lines, &vec![b'x'; MAX_LINE / 2]);
            assert!(lines.pending.len() <= MAX_LINE);
        }
        feed(&mut lines, b"\nlast\n");
        assert_eq!(seen, [b"first".to_vec(), b"last".to_vec()]);
    }

    #[test]
    fn places_follow_from_the_id() {
        let home = Path::new("/home/node");
        assert_eq!(
            path(AgentKind::Claude, home, Path::new("/h/c9/a_b.c d/é"), "u"),
            Some("/home/node/.claude/projects/-h-c9-a-b-c-d--/u.jsonl".into())
        );
        assert_eq!(
            path(AgentKind::Copilot, home, Path::new("/x"), "u"),
            Some("/home/node/.copilot/session-state/u/events.jsonl".into())
        );
        assert_eq!(path(AgentKind::Codex, home, Path::new("/x"), "u"), None);
        let id = "01a201c8-3460-7940-b5b6-a223b6c4a3a4";
        let name = format!("rollout-2026-11-22T05-43-47-{id}.jsonl");
        assert!(is_rollout_of(&name, id));
        assert!(!is_rollout_of(&name, "a223b6c4a3a"));
        assert!(!is_rollout_of(&name, ""));
    }

    #[test]
    fn interrupts_are_seen_where_no_hook_tells_them() {
        for (kind, line) in [
            (
                AgentKind::Claude,
                r#"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"[Request interrupted by user]"}]}}"#,
            ),
            (
                AgentKind::Ccr,
                r#"{"type":"user","message":{"role":"user","content":"[Request interrupted by user for tool use]"}}"#,
            ),
            (
                AgentKind::Codex,
                r#"{"type":"event_msg","payload":{"type":"turn_aborted","reason":"interrupted"}}"#,
            ),
            (
                AgentKind::Copilot,
                r#"{"type":"abort","data":{"reason":"user_abort"},"id":"x"}"#,
            ),
        ] {
            assert_eq!(read(kind, line), Some(Record::Interrupted), "{kind}");
        }
    }

    #[test]
    fn the_same_words_in_a_conversation_mean_nothing() {
        for (kind, line) in [
            (
                AgentKind::Claude,
                r#"{"type":"user","message":{"content":"why does it say [Request interrupted by user]?"}}"#,
            ),
            (
                AgentKind::Claude,
                r#"{"type":"assistant","message":{"content":[{"type":"text","text":"[Request interrupted by user]"}]}}"#,
            ),
            (
                AgentKind::Claude,
                r#"{"type":"user","isSidechain":true,"message":{"content":"[Request interrupted by user]"}}"#,
            ),
            (
                AgentKind::Codex,
                r#"{"type":"response_item","payload":{"type":"message","text":"turn_aborted"}}"#,
            ),
            (
                AgentKind::Codex,
                r#"{"type":"event_msg","payload":{"type":"turn_aborted","reason":"replaced"}}"#,
            ),
            (
                AgentKind::Copilot,
                r#"{"type":"user.message","data":{"content":"\"abort\" permission.requested"}}"#,
            ),
        ] {
            assert_eq!(read(kind, line), None, "{line}");
        }
    }

    #[test]
    fn copilots_dialogs_have_ids_and_text() {
        assert_eq!(
            read(
                AgentKind::Copilot,
                r#"{"type":"permission.requested","data":{"requestId":"r1","permissionRequest":{"kind":"shell","fullCommandText":"rm -r\nbuild","intention":"clean"}}}"#
            ),
            Some(Record::Asked {
                id: "r1".into(),
                text: "Run: rm -r build".into(),
                options: vec![],
                question: false
            })
        );
        assert_eq!(
            read(
                AgentKind::Copilot,
                r#"{"type":"permission.completed","data":{"requestId":"r1","result":{"kind":"approved"}}}"#
            ),
            Some(Record::Answered { id: "r1".into() })
        );
        assert_eq!(
            read(
                AgentKind::Copilot,
                r#"{"type":"user_input.requested","data":{"requestId":"q","question":"Which?","choices":["a","b"]}}"#
            ),
            Some(Record::Asked {
                id: "q".into(),
                text: "Which?".into(),
                options: vec!["a".into(), "b".into()],
                question: true
            })
        );
    }

    #[test]
    fn long_and_broken_lines_are_passed_over() {
        assert_eq!(read(AgentKind::Copilot, r#"{"type":"abort","data"#), None);
        let long = format!(
            r#"{{"type":"abort","data":{{"x":"{}"}}}}"#,
            "y".repeat(MAX_LINE)
        );
        assert_eq!(read(AgentKind::Copilot, &long), None);
    }
}
