//! Hooks: the agent CLIs run a command of ours at each step of a turn.
//!
//! Transport: the command is `whim hook AGENT EVENT`. It reads the CLI's JSON from standard input, cuts it down to what
//! is needed ([`record`]), connects to the unix socket that `WHIM_HOOK_SOCKET` names, writes one line and closes. The
//! keeper holds the listening socket, so lines sent while the supervisor restarts wait in the kernel and are read
//! afterwards. The command never prints (output would become part of the conversation), never fails and never waits
//! (see [`super::hook_client`]); without the two variables, in a shell of the user's, it does nothing.
//!
//! Which session a line belongs to is said by `WHIM_SESSION`; that the sender is the agents' user, by the socket's peer
//! credentials. More is not claimed: the agent could send any line itself, so a hook is the agent's word, no evidence.
//!
//! Bounds: [`MAX_PAYLOAD`] bytes are read, a line has at most [`MAX_RECORD`] bytes; longer texts are cut, at worst the
//! tool's input is left out.
//!
//! How each CLI is told: Claude Code by `--settings`, Codex by `-c` overrides with their trust hash, Copilot by a file
//! of ours in `~/.copilot/hooks` (1.0.102 reads every `*.json` there, version 1). Seen to fire: facts 1.5 and 2.3;
//! beyond them Codex 0.169.0 has `Interrupt` (Esc and Ctrl-C) and `SessionEnd` (not on TERM), Copilot all of
//! [`COPILOT_EVENTS`] but nothing on an interrupt. Claude Code fires none on an interrupt either.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use toml_edit::{Array, InlineTable};
use whim_wire::spec::AgentKind;

use super::super::setup::{HookTransport, Setup};

/// Name of the variable with our session's id.
pub const SESSION_VARIABLE: &str = "WHIM_SESSION";
/// Name of the variable with the socket's path.
pub const SOCKET_VARIABLE: &str = "WHIM_HOOK_SOCKET";

/// Largest payload that is read from the CLI, in bytes. A tool's whole response is in it.
pub const MAX_PAYLOAD: usize = 16 * 1024 * 1024;
/// Longest line on the socket, in bytes, with its newline. Fits the default buffer of a unix socket (208 KiB), so that
/// a write never waits for a reader.
pub const MAX_RECORD: usize = 64 * 1024;

/// Longest text of a field, in bytes.
pub const MAX_TEXT: usize = 4 * 1024;
/// Most members of an object or elements of an array that are kept.
const MAX_MEMBERS: usize = 32;
/// Deepest nesting that is kept; a question with its options needs five.
const MAX_DEPTH: usize = 6;

/// Seconds that Claude Code and Copilot wait for the command.
const TIMEOUT_S: u64 = 5;
/// Seconds that Codex waits: `SessionEnd` and `Interrupt` allow no more than 3, and the number is part of the hash.
const CODEX_TIMEOUT_S: u64 = 3;

/// Events asked of Claude Code. `MessageDisplay` is left out: it fires for each piece of text.
pub const CLAUDE_EVENTS: [&str; 13] = [
    "SessionStart",
    "UserPromptSubmit",
    "PreToolUse",
    "PostToolUse",
    "PostToolUseFailure",
    "PermissionRequest",
    "Notification",
    "Stop",
    "StopFailure",
    "SubagentStart",
    "SubagentStop",
    "PreCompact",
    "SessionEnd",
];

/// Events asked of Codex, with the names that its trust keys use.
pub const CODEX_EVENTS: [(&str, &str); 10] = [
    ("SessionStart", "session_start"),
    ("UserPromptSubmit", "user_prompt_submit"),
    ("PreToolUse", "pre_tool_use"),
    ("PermissionRequest", "permission_request"),
    ("PostToolUse", "post_tool_use"),
    ("Stop", "stop"),
    ("SubagentStart", "subagent_start"),
    ("SubagentStop", "subagent_stop"),
    ("Interrupt", "interrupt"),
    ("SessionEnd", "session_end"),
];

/// Events asked of Copilot.
pub const COPILOT_EVENTS: [&str; 13] = [
    "sessionStart",
    "userPromptSubmitted",
    "preToolUse",
    "postToolUse",
    "postToolUseFailure",
    "permissionRequest",
    "notification",
    "agentStop",
    "subagentStart",
    "subagentStop",
    "errorOccurred",
    "preCompact",
    "sessionEnd",
];

/// The session's variables that the hook command needs.
pub(in super::super) fn environment(setup: &Setup) -> Vec<(String, String)> {
    setup.hooks.as_ref().map_or_else(Vec::new, |transport| {
        vec![
            (SESSION_VARIABLE.to_owned(), setup.session.clone()),
            (
                SOCKET_VARIABLE.to_owned(),
                transport.socket.to_string_lossy().into_owned(),
            ),
        ]
    })
}

/// The command as a shell reads it. Whatever happens (the binary gone, too) it succeeds and says nothing.
fn shell_command(program: &Path, agent: &str, event: &str) -> String {
    format!(
        "'{}' hook {agent} {event} 2>/dev/null || :",
        program.to_string_lossy().replace('\'', r"'\''")
    )
}

/// The member `hooks` of Claude Code's settings.
pub(in super::super) fn claude_settings(transport: &HookTransport) -> Value {
    let hooks: Map<String, Value> = CLAUDE_EVENTS
        .iter()
        .map(|event| {
            let command = shell_command(&transport.program, "claude", event);
            let entry = json!([{"hooks": [
                {"type": "command", "command": command, "timeout": TIMEOUT_S}
            ]}]);
            ((*event).to_owned(), entry)
        })
        .collect();
    Value::Object(hooks)
}

/// Content of Copilot's hook file.
pub(in super::super) fn copilot_file(transport: &HookTransport) -> Value {
    let hooks: Map<String, Value> = COPILOT_EVENTS
        .iter()
        .map(|event| {
            let command = shell_command(&transport.program, "copilot", event);
            let entry = json!([{"type": "command", "bash": command, "timeoutSec": TIMEOUT_S}]);
            ((*event).to_owned(), entry)
        })
        .collect();
    json!({"version": 1, "hooks": hooks})
}

/// Keys and values for Codex's `-c`: the hooks, and the trust in exactly these.
pub(in super::super) fn codex_overrides(
    transport: &HookTransport,
) -> Vec<(String, toml_edit::Value)> {
    let mut overrides = vec![("features.hooks".to_owned(), true.into())];
    let mut state = InlineTable::new();
    for (event, key) in CODEX_EVENTS {
        let command = shell_command(&transport.program, "codex", event);
        let mut handler = InlineTable::new();
        handler.insert("type", "command".into());
        handler.insert("command", command.as_str().into());
        handler.insert("timeout", (CODEX_TIMEOUT_S.cast_signed()).into());
        let mut group = InlineTable::new();
        group.insert("hooks", array(handler.into()));
        overrides.push((format!("hooks.{event}"), array(group.into())));
        let mut trust = InlineTable::new();
        trust.insert("trusted_hash", codex_trust(key, &command).into());
        state.insert(
            format!("/<session-flags>/config.toml:{key}:0:0"),
            trust.into(),
        );
    }
    overrides.push(("hooks.state".to_owned(), state.into()));
    overrides
}

fn array(value: toml_edit::Value) -> toml_edit::Value {
    let mut array = Array::new();
    array.push(value);
    array.into()
}

/// Codex's hash of a hook: SHA-256 over its description as JSON with sorted keys.
fn codex_trust(key: &str, command: &str) -> String {
    let identity = json!({
        "event_name": key,
        "hooks": [{
            "async": false,
            "command": command,
            "timeout": CODEX_TIMEOUT_S,
            "type": "command",
        }],
    });
    let digest = Sha256::digest(identity.to_string());
    digest.iter().fold("sha256:".to_owned(), |mut text, byte| {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
        text
    })
}

/// Members of a payload that are passed on.
const KEPT: [&str; 30] = [
    "session_id",
    "sessionId",
    "transcript_path",
    "transcriptPath",
    "cwd",
    "source",
    "model",
    "prompt",
    "prompt_id",
    "turn_id",
    "permission_mode",
    "agent_id",
    "agent_type",
    "tool_name",
    "toolName",
    "tool_input",
    "toolInput",
    "toolArgs",
    "tool_use_id",
    "permission_suggestions",
    "error",
    "is_interrupt",
    "message",
    "title",
    "notification_type",
    "last_assistant_message",
    "stopReason",
    "reason",
    "trigger",
    "duration_ms",
];

/// The line that the hook command sends.
#[must_use]
pub fn record(agent: &str, event: &str, session: &str, payload: &[u8]) -> Vec<u8> {
    let payload: Value = serde_json::from_slice(payload).unwrap_or(Value::Null);
    let mut kept: Map<String, Value> = payload
        .as_object()
        .map(|members| {
            members
                .iter()
                .filter(|(name, _)| KEPT.contains(&name.as_str()))
                .map(|(name, value)| (name.clone(), cut(value, MAX_DEPTH)))
                .collect()
        })
        .unwrap_or_default();
    let mut line = to_line(agent, event, session, &kept);
    if line.len() > MAX_RECORD {
        for bulky in [
            "tool_input",
            "toolInput",
            "toolArgs",
            "permission_suggestions",
        ] {
            kept.remove(bulky);
        }
        line = to_line(agent, event, session, &kept);
    }
    line
}

fn to_line(agent: &str, event: &str, session: &str, payload: &Map<String, Value>) -> Vec<u8> {
    let mut line = json!({
        "v": 1,
        "agent": cut_text(agent, 64),
        "event": cut_text(event, 64),
        "session": cut_text(session, 256),
        "payload": payload,
    })
    .to_string()
    .into_bytes();
    line.push(b'\n');
    line
}

fn cut(value: &Value, depth: usize) -> Value {
    match value {
        Value::String(text) => cut_text(text, MAX_TEXT).into(),
        Value::Array(_) | Value::Object(_) if depth == 0 => Value::Null,
        Value::Array(values) => values
            .iter()
            .take(MAX_MEMBERS)
            .map(|value| cut(value, depth - 1))
            .collect(),
        Value::Object(members) => members
            .iter()
            .take(MAX_MEMBERS)
            .map(|(name, value)| (cut_text(name, 256).to_owned(), cut(value, depth - 1)))
            .collect(),
        other => other.clone(),
    }
}

/// The longest prefix of at most `limit` bytes that ends between characters.
fn cut_text(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

/// A hook's line, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct HookEvent {
    pub agent: AgentKind,
    /// Our session's id, as the sender claims.
    pub session: String,
    /// The agent's own session id.
    pub agent_session: Option<String>,
    pub transcript: Option<PathBuf>,
    /// Set inside a subagent: its tools and stops are not the turn's.
    pub subagent: Option<String>,
    pub signal: Signal,
}

/// What the agent says, the same words for every agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// `source`: `startup`, `resume`, `clear`, `compact`, `new`.
    SessionStarted {
        source: Option<String>,
    },
    PromptSubmitted {
        text: String,
    },
    ToolStarted(Tool),
    ToolEnded {
        tool: Tool,
        failed: bool,
        interrupted: bool,
    },
    /// A dialog is about to be shown.
    PermissionAsked(Tool),
    /// The agent asks its user something, with the choices it offers. Told before Codex refuses the tool outside of its
    /// plan mode, so with Codex it only announces a dialog.
    QuestionAsked {
        tool: Tool,
        questions: Vec<Question>,
    },
    /// `kind`: `permission_prompt`, `idle_prompt`, …
    Notified {
        kind: String,
        text: String,
    },
    /// The turn is over. `failed`: by an error.
    TurnEnded {
        failed: bool,
    },
    Interrupted,
    SubagentStarted,
    SubagentEnded,
    Compacting,
    SessionEnded {
        reason: Option<String>,
    },
    /// An event that means nothing to us.
    Other,
}

/// A tool call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tool {
    pub id: Option<String>,
    pub name: String,
    /// What it does, one line: a command, a path, an address.
    pub detail: String,
}

/// A question with its choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub text: String,
    pub options: Vec<String>,
    pub several: bool,
}

/// Why a line was not understood.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("hook line of {0} bytes is longer than {MAX_RECORD}")]
    TooLong(usize),
    #[error("hook line is no JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("hook line has version {0}, not 1")]
    Version(Value),
    #[error("hook line has no {0}")]
    Missing(&'static str),
    #[error("hook line names the agent {0:?}")]
    Agent(String),
}

/// Reads a line of the socket.
///
/// # Errors
/// For a line that the hook command of any version would not send; drop it and say so.
pub fn parse(line: &[u8]) -> Result<HookEvent, HookError> {
    if line.len() > MAX_RECORD {
        return Err(HookError::TooLong(line.len()));
    }
    let line: Value = serde_json::from_slice(line)?;
    if line.get("v") != Some(&json!(1)) {
        return Err(HookError::Version(
            line.get("v").cloned().unwrap_or_default(),
        ));
    }
    let word = |name: &'static str| {
        line.get(name)
            .and_then(Value::as_str)
            .ok_or(HookError::Missing(name))
    };
    let agent: AgentKind = word("agent")?
        .parse()
        .map_err(|_| HookError::Agent(word("agent").unwrap_or_default().to_owned()))?;
    let payload = Payload(line.get("payload").and_then(Value::as_object));
    Ok(HookEvent {
        agent,
        session: word("session")?.to_owned(),
        agent_session: payload.text(&["session_id", "sessionId"]),
        transcript: payload
            .text(&["transcript_path", "transcriptPath"])
            .map(PathBuf::from),
        subagent: payload.text(&["agent_id"]),
        signal: signal(word("event")?, &payload),
    })
}

struct Payload<'a>(Option<&'a Map<String, Value>>);

impl Payload<'_> {
    fn get(&self, names: &[&str]) -> Option<&Value> {
        names
            .iter()
            .find_map(|name| self.0.and_then(|members| members.get(*name)))
            .filter(|value| !value.is_null())
    }

    fn text(&self, names: &[&str]) -> Option<String> {
        self.get(names).and_then(Value::as_str).map(str::to_owned)
    }

    fn tool(&self) -> Tool {
        Tool {
            id: self.text(&["tool_use_id"]),
            name: self.text(&["tool_name", "toolName"]).unwrap_or_default(),
            detail: self
                .get(&["tool_input", "toolInput", "toolArgs"])
                .map(tool_detail)
                .unwrap_or_default(),
        }
    }

    fn questions(&self) -> Vec<Question> {
        let input = self.get(&["tool_input", "toolInput", "toolArgs"]);
        let Some(input) = input else {
            return Vec::new();
        };
        let listed = input.get("questions").and_then(Value::as_array);
        match listed {
            Some(questions) => questions.iter().filter_map(question).collect(),
            None => question(input).into_iter().collect(),
        }
    }
}

/// `{question, options|choices}` (Claude Code, Codex, older Copilot), or Copilot's form `{message, requestedSchema}`.
fn question(value: &Value) -> Option<Question> {
    let labels = |options: &Value| -> Vec<String> {
        options
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|option| {
                ["label", "title", "const"]
                    .iter()
                    .find_map(|name| option.get(*name).and_then(Value::as_str))
                    .or_else(|| option.as_str())
            })
            .map(str::to_owned)
            .collect()
    };
    if let Some(text) = value.get("question").and_then(Value::as_str) {
        return Some(Question {
            text: text.to_owned(),
            options: ["options", "choices"]
                .iter()
                .find_map(|name| value.get(*name))
                .map(labels)
                .unwrap_or_default(),
            several: value.get("multiSelect") == Some(&Value::Bool(true)),
        });
    }
    let text = value.get("message").and_then(Value::as_str)?;
    let fields = value.pointer("/requestedSchema/properties")?.as_object()?;
    let choices = |field: &Value| {
        ["enum", "oneOf"]
            .iter()
            .find_map(|name| field.get(*name))
            .map(labels)
            .unwrap_or_default()
    };
    Some(Question {
        text: text.to_owned(),
        options: fields.values().next().map(choices).unwrap_or_default(),
        several: fields.len() != 1,
    })
}

/// Tools whose only purpose is to ask the user.
fn asks_user(tool: &str) -> bool {
    matches!(tool, "AskUserQuestion" | "request_user_input" | "ask_user")
}

fn signal(event: &str, payload: &Payload<'_>) -> Signal {
    match event {
        "SessionStart" | "sessionStart" => Signal::SessionStarted {
            source: payload.text(&["source"]),
        },
        "UserPromptSubmit" | "userPromptSubmitted" => Signal::PromptSubmitted {
            text: payload.text(&["prompt"]).unwrap_or_default(),
        },
        "PreToolUse" | "preToolUse" => {
            let tool = payload.tool();
            let questions = payload.questions();
            if asks_user(&tool.name) && !questions.is_empty() {
                Signal::QuestionAsked { tool, questions }
            } else {
                Signal::ToolStarted(tool)
            }
        }
        "PostToolUse" | "postToolUse" => Signal::ToolEnded {
            tool: payload.tool(),
            failed: false,
            interrupted: false,
        },
        "PostToolUseFailure" | "postToolUseFailure" => Signal::ToolEnded {
            tool: payload.tool(),
            failed: true,
            interrupted: payload.get(&["is_interrupt"]) == Some(&Value::Bool(true)),
        },
        "PermissionRequest" | "permissionRequest" => {
            let tool = payload.tool();
            let questions = payload.questions();
            if asks_user(&tool.name) && !questions.is_empty() {
                Signal::QuestionAsked { tool, questions }
            } else {
                Signal::PermissionAsked(tool)
            }
        }
        "Notification" | "notification" => Signal::Notified {
            kind: payload.text(&["notification_type"]).unwrap_or_default(),
            text: payload.text(&["message", "title"]).unwrap_or_default(),
        },
        "Stop" | "agentStop" => Signal::TurnEnded { failed: false },
        "StopFailure" | "errorOccurred" => Signal::TurnEnded { failed: true },
        "Interrupt" => Signal::Interrupted,
        "SubagentStart" | "subagentStart" => Signal::SubagentStarted,
        "SubagentStop" | "subagentStop" => Signal::SubagentEnded,
        "PreCompact" | "preCompact" => Signal::Compacting,
        "SessionEnd" | "sessionEnd" => Signal::SessionEnded {
            reason: payload.text(&["reason"]),
        },
        _ => Signal::Other,
    }
}

/// What a tool call does, in one line of at most 200 characters.
#[must_use]
pub fn tool_detail(input: &Value) -> String {
    const TELLING: [&str; 12] = [
        "command",
        "cmd",
        "file_path",
        "path",
        "pattern",
        "url",
        "query",
        "skill",
        "description",
        "prompt",
        "question",
        "plan",
    ];
    let telling = TELLING.iter().find_map(|name| match input.get(*name) {
        Some(Value::String(text)) => Some(text.clone()),
        Some(Value::Array(words)) => Some(
            words
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" "),
        ),
        _ => None,
    });
    let text = match (telling, input) {
        (Some(text), _) => text,
        (None, Value::String(text)) => text.clone(),
        (None, _) => String::new(),
    };
    one_line(&text, 200)
}

/// The text on one line, control characters as spaces, cut to `limit` characters.
#[must_use]
pub fn one_line(text: &str, limit: usize) -> String {
    let mut line = String::new();
    for (count, word) in text
        .split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .enumerate()
    {
        if count > 0 {
            line.push(' ');
        }
        line.push_str(word);
        if line.chars().count() > limit {
            line = line.chars().take(limit.saturating_sub(1)).collect();
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
#[path = "hook_tests.rs"]
mod tests;
