//! The line that the hook command sends: the CLI's payload cut down to what is needed.

use serde_json::{Map, Value, json};

use super::MAX_RECORD;

/// Longest text of a field, in bytes.
pub const MAX_TEXT: usize = 4 * 1024;
/// Most members of an object or elements of an array that are kept.
const MAX_MEMBERS: usize = 32;
/// Deepest nesting that is kept; a question with its options needs five.
const MAX_DEPTH: usize = 6;

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
