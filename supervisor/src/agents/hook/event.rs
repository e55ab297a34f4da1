//! A hook's line, understood: the same words for every agent.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use whim_wire::spec::AgentKind;

use super::MAX_RECORD;

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
