//! Claude Code's transcript (and CCR's, which runs it). Seen with 2.1.197; types of earlier versions from its own files.
//!
//! - A record a line: `type`, `uuid`, `parentUuid`, `timestamp`, and mostly `message` as the API knows it. One answer of the
//!   model is a record for each of its blocks, all with the same `message.id` and `usage`.
//! - A sub-agent has a transcript of its own below `<session>/subagents/`; older versions put its records into the main one
//!   with `isSidechain`. The result of the tool that started it names it as `toolUseResult.agentId`.
//! - Compaction appends `system`/`compact_boundary` and a user record with `isCompactSummary`; nothing is removed.
//! - A fork is a whole copy with the same uuids; a rewind appends, with an earlier record as parent.

use whim_wire::conversation::Role;
use whim_wire::generation::Usage;

use super::draft::{Draft, media};
use super::object::{Object, list, text};

/// Types that say nothing about the conversation which another record does not say.
const BOOKKEEPING: &[&str] = &[
    "agent-color",
    "agent-name",
    "agent-setting",
    "ai-title",
    "attachment",
    "attribution-snapshot",
    "content-replacement",
    "context-collapse-commit",
    "custom-title",
    "file-history-delta",
    "file-history-snapshot",
    "last-prompt",
    "mode",
    "permission-mode",
    "pr-link",
    "progress",
    "queue-operation",
    "tag",
    "task-summary",
    "worktree-state",
];

/// How a person's interrupt is written: as a prompt.
const INTERRUPTED: &str = "[Request interrupted by user";

/// What a command of the CLI itself (`/compact`) printed.
const LOCAL_OUTPUT: &str = "<local-command-stdout>";

pub(super) fn read(record: &Object<'_>) -> Option<Draft> {
    let kind = record.text("type")?;
    let mut draft = match kind.as_str() {
        "user" => user(record),
        "assistant" => assistant(record),
        "system" => system(record),
        "summary" => {
            let mut draft = Draft::new(Role::System, kind);
            draft.notice("summary", &record.word("summary"));
            Some(draft)
        }
        "attachment" => queued(record),
        _ => None,
    }
    .or_else(|| {
        let known = BOOKKEEPING.contains(&record.word("type").as_str());
        known.then(|| Draft::new(Role::Record, record.word("type")))
    })?;
    let turn = &mut draft.turn;
    turn.at = record.time("timestamp");
    turn.record_id = record.text("uuid");
    turn.parent_id = record.text("parentUuid");
    if record.is("isSidechain") {
        turn.subagent = Some(
            record
                .text("agentId")
                .unwrap_or_else(|| "sidechain".to_owned()),
        );
    }
    Some(draft)
}

fn user(record: &Object<'_>) -> Option<Draft> {
    let mut draft = Draft::new(Role::User, "user".to_owned());
    let content = record.object("message")?;
    let content = content.raw("content")?;
    let said = |draft: &mut Draft, said: &str| {
        if record.is("isCompactSummary") {
            draft.turn.role = Role::System;
            draft.notice("compaction", said);
        } else if said.starts_with(LOCAL_OUTPUT) {
            draft.turn.role = Role::System;
            draft.notice("command_output", said);
        } else if said.starts_with(INTERRUPTED) {
            draft.turn.role = Role::System;
            draft.notice("interrupted", said);
        } else {
            if record.is("isMeta") {
                draft.turn.role = Role::System;
            }
            draft.text(said);
        }
    };
    if let Some(text) = text(content) {
        said(&mut draft, &text);
        return Some(draft);
    }
    let mut only_results = true;
    for block in list(content)? {
        let Some(parts) = Object::parse(block) else {
            draft.raw(block);
            continue;
        };
        if parts.word("type") == "tool_result" {
            let subagent = record
                .object("toolUseResult")
                .and_then(|result| result.text("agentId"));
            result(&mut draft, &parts, subagent);
            continue;
        }
        only_results = false;
        match parts.text("text") {
            Some(text) => said(&mut draft, &text),
            None => match media(&parts) {
                Some(name) => draft.attachment(&name),
                None => draft.raw(block),
            },
        }
    }
    if only_results {
        draft.turn.role = Role::Tool;
    }
    Some(draft)
}

fn result(draft: &mut Draft, block: &Object<'_>, subagent: Option<String>) {
    let flat = block
        .raw("content")
        .map(|content| draft.flat(content))
        .unwrap_or_default();
    let failed = block.flag("is_error");
    draft.result(block.text("tool_use_id"), &flat, failed, subagent);
}

fn assistant(record: &Object<'_>) -> Option<Draft> {
    let mut draft = Draft::new(Role::Assistant, "assistant".to_owned());
    let message = record.object("message")?;
    let error = record.is("isApiErrorMessage");
    if error {
        draft.turn.role = Role::System;
    }
    let said = |draft: &mut Draft, text: &str| {
        if error {
            draft.notice("error", text);
        } else {
            draft.text(text);
        }
    };
    let content = message.raw("content")?;
    if let Some(text) = text(content) {
        said(&mut draft, &text);
    } else {
        for block in list(content)? {
            let Some(parts) = Object::parse(block) else {
                draft.raw(block);
                continue;
            };
            let kind = parts.word("type");
            match kind.as_str() {
                "text" => said(&mut draft, &parts.word("text")),
                "thinking" => draft.thinking(&parts.word("thinking")),
                "redacted_thinking" => draft.thinking(""),
                "tool_use" | "server_tool_use" | "mcp_tool_use" => {
                    let input = parts.raw("input").unwrap_or("null");
                    draft.call(parts.text("id"), parts.word("name"), input);
                }
                _ if kind.ends_with("_tool_result") => result(&mut draft, &parts, None),
                _ => match media(&parts) {
                    Some(name) => draft.attachment(&name),
                    None => draft.raw(block),
                },
            }
        }
    }
    let turn = &mut draft.turn;
    // What the CLI makes up itself, as its error messages, is of no model.
    turn.model = message.text("model").filter(|model| model != "<synthetic>");
    if turn.model.is_some() {
        turn.generation = message.text("id");
        turn.usage = message.object("usage").as_ref().map(usage);
    }
    turn.stop_reason = message.text("stop_reason");
    Some(draft)
}

fn usage(usage: &Object<'_>) -> Usage {
    let split = usage.object("cache_creation").unwrap_or_default();
    let hour = split.number("ephemeral_1h_input_tokens");
    let written = usage.number("cache_creation_input_tokens");
    Usage {
        input_tokens: usage.number("input_tokens"),
        cache_read_tokens: usage.number("cache_read_input_tokens"),
        cache_write_5m_tokens: written.saturating_sub(hour),
        cache_write_1h_tokens: hour,
        output_tokens: usage.number("output_tokens"),
        reasoning_tokens: 0,
    }
}

fn system(record: &Object<'_>) -> Option<Draft> {
    let subtype = record.word("subtype");
    let name = format!("system/{subtype}");
    let Some(content) = record.text("content") else {
        // Durations and summaries of hooks: numbers without a word.
        let silent = matches!(
            subtype.as_str(),
            "turn_duration" | "stop_hook_summary" | "api_metrics" | "away_summary"
        );
        if subtype == "api_error" {
            let mut draft = Draft::new(Role::System, name);
            let error = record.object("error").unwrap_or_default();
            let message = error.text("message").or_else(|| error.text("formatted"));
            draft.notice("error", &message.unwrap_or_default());
            return Some(draft);
        }
        return silent.then(|| Draft::new(Role::Record, name));
    };
    let mut draft = Draft::new(Role::System, name);
    let kind = match subtype.as_str() {
        "compact_boundary" | "microcompact_boundary" => "compaction",
        "" => "note",
        other => other,
    };
    draft.notice(kind, &content);
    Some(draft)
}

/// A prompt that was given while the agent worked comes as an attachment.
fn queued(record: &Object<'_>) -> Option<Draft> {
    let attachment = record.object("attachment")?;
    if attachment.word("type") != "queued_command" {
        return None;
    }
    let mut draft = Draft::new(Role::User, "attachment/queued_command".to_owned());
    let prompt = draft.flat(attachment.raw("prompt")?);
    draft.text(&prompt);
    Some(draft)
}
