//! How each CLI is told to run the hook command.

use std::path::Path;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use toml_edit::{Array, InlineTable};

use super::super::setup::{HookTransport, Setup};
use super::{SESSION_VARIABLE, SOCKET_VARIABLE};

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
pub(super) fn shell_command(program: &Path, agent: &str, event: &str) -> String {
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
pub(super) fn codex_trust(key: &str, command: &str) -> String {
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
