//! Codex's rollout. Seen with 0.169.0; records of earlier versions from its own files.
//!
//! - A record a line: `timestamp`, `ordinal`, `type`, `payload`. `response_item`s are what goes to and comes from the
//!   model; `event_msg`s mostly say the same again for the screen.
//! - Tokens of a model call are a record of their own, `token_usage_record`, after what the call brought. Versions without
//!   it (their lines have no `ordinal`) have only `token_count`.
//! - Instructions that the program adds come as messages of the user or developer; `content_item_kinds` tells them from a
//!   person's.
//! - A sub-agent is a thread with a rollout of its own. An `item_completed` of a `SubAgentActivity` names it, with the call
//!   of `spawn_agent` as its id; what agents tell each other is an `agent_message`. Versions before name it in the result.

use whim_wire::conversation::Role;

use super::draft::{Draft, media};
use super::object::{Object, list, text};

/// Events that other records tell already.
const BOOKKEEPING: &[&str] = &[
    "agent_message",
    "agent_reasoning",
    "agent_reasoning_raw_content",
    "agent_reasoning_section_break",
    "exec_command_begin",
    "exec_command_end",
    "item_started",
    "mcp_tool_call_begin",
    "mcp_tool_call_end",
    "patch_apply_begin",
    "patch_apply_end",
    "plan_update",
    "task_complete",
    "task_started",
    "thread_name_updated",
    "thread_settings_applied",
    "token_count",
    "turn_complete",
    "turn_diff",
    "turn_started",
    "user_message",
    "web_search_begin",
    "web_search_end",
];

/// How versions that do not say so mark what the program adds.
const ADDED: &[&str] = &[
    "<environment_context>",
    "<user_instructions>",
    "# AGENTS.md instructions",
    "<permissions instructions>",
    "<INSTRUCTIONS>",
];

pub(super) fn read(record: &Object<'_>) -> Option<Draft> {
    let kind = record.text("type")?;
    let payload = record.object("payload")?;
    let inner = payload.word("type");
    let mut draft = match kind.as_str() {
        "response_item" => item(&inner, &payload)?,
        "event_msg" => event(&inner, &payload, record.raw("ordinal").is_none())?,
        "compacted" => {
            let mut draft = Draft::new(Role::System, kind);
            draft.notice("compaction", &payload.word("message"));
            draft
        }
        "token_usage_record" => {
            let mut draft = Draft::new(Role::Assistant, kind);
            draft.turn.generation = payload.text("response_id");
            draft.turn.usage = Some(payload.object("usage")?.inclusive_usage(TOKENS));
            draft
        }
        "session_meta" => {
            let mut draft = Draft::new(Role::Record, kind);
            if let Some(from) = payload.text("forked_from_id") {
                draft.turn.role = Role::System;
                draft.notice("fork", &from);
            }
            draft
        }
        "turn_context" | "world_state" | "inter_agent_communication_metadata" => {
            Draft::new(Role::Record, kind)
        }
        _ => return None,
    };
    draft.turn.at = record.time("timestamp");
    if draft.turn.record_id.is_none() {
        draft.turn.record_id = payload.text("id");
    }
    Some(draft)
}

const TOKENS: [&str; 5] = [
    "input_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
];

fn item(kind: &str, item: &Object<'_>) -> Option<Draft> {
    let name = format!("response_item/{kind}");
    let call_id = || item.text("call_id").or_else(|| item.text("id"));
    Some(match kind {
        "message" => message(name, item)?,
        "reasoning" => {
            let mut draft = Draft::new(Role::Assistant, name);
            let mut texts = Vec::new();
            for part in ["summary", "content"] {
                let pieces = item.list(part).unwrap_or_default().into_iter();
                texts.extend(pieces.filter_map(|piece| Object::parse(piece)?.text("text")));
            }
            draft.thinking(&texts.join("\n\n"));
            draft
        }
        "function_call" => {
            let mut draft = Draft::new(Role::Assistant, name);
            let arguments = item.word("arguments");
            // Arguments are JSON in a string; a model may write none that holds.
            let input = if Object::parse(&arguments).is_some() {
                arguments.as_str()
            } else {
                item.raw("arguments").unwrap_or("null")
            };
            draft.call(call_id(), item.word("name"), input);
            draft
        }
        "custom_tool_call" => {
            let mut draft = Draft::new(Role::Assistant, name);
            let input = item.raw("input").unwrap_or("null");
            draft.call(call_id(), item.word("name"), input);
            draft
        }
        "local_shell_call" | "web_search_call" | "tool_search_call" | "image_generation_call" => {
            let mut draft = Draft::new(Role::Assistant, name);
            let input = item.raw("action").or_else(|| item.raw("arguments"));
            let tool = kind.strip_suffix("_call").unwrap_or(kind);
            draft.call(call_id(), tool.to_owned(), input.unwrap_or("null"));
            draft
        }
        "function_call_output" | "custom_tool_call_output" | "tool_search_output" => {
            let mut draft = Draft::new(Role::Tool, name);
            output(&mut draft, item);
            draft
        }
        "compaction" | "compaction_summary" | "context_compaction" => {
            let mut draft = Draft::new(Role::System, name);
            draft.notice("compaction", &item.word("summary"));
            draft
        }
        "agent_message" => between_agents(name, item),
        "ghost_snapshot" | "additional_tools" => Draft::new(Role::Record, name),
        _ => return None,
    })
}

fn message(name: String, message: &Object<'_>) -> Option<Draft> {
    let role = match message.word("role").as_str() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "developer" | "system" => Role::System,
        _ => return None,
    };
    let mut draft = Draft::new(role, name);
    let content = message.raw("content")?;
    if let Some(text) = text(content) {
        draft.text(&text);
        return Some(draft);
    }
    let kinds = message
        .object("internal_chat_message_metadata_passthrough")
        .and_then(|passed| passed.list("content_item_kinds"));
    let mut added = kinds.map(|kinds| {
        let person = |kind: &&str| text(kind).is_some_and(|kind| kind.starts_with("user."));
        !kinds.iter().any(person)
    });
    for block in list(content)? {
        let parts = Object::parse(block).unwrap_or_default();
        match parts.text("text") {
            Some(text) => {
                added = added.or_else(|| Some(ADDED.iter().any(|mark| text.starts_with(mark))));
                draft.text(&text);
            }
            None => match media(&parts) {
                Some(name) => draft.attachment(&name),
                None => draft.raw(block),
            },
        }
    }
    if role == Role::User && added == Some(true) {
        draft.turn.role = Role::System;
    }
    Some(draft)
}

/// What one agent tells another. From one above (`/root` to `/root/sub`) it is a task, from any other a report.
fn between_agents(name: String, message: &Object<'_>) -> Draft {
    let (author, recipient) = (message.word("author"), message.word("recipient"));
    let above = recipient
        .strip_prefix(author.as_str())
        .is_some_and(|below| below.starts_with('/'));
    let mut draft = Draft::new(if above { Role::User } else { Role::Tool }, name);
    for block in message.list("content").unwrap_or_default() {
        let parts = Object::parse(block).unwrap_or_default();
        match parts.text("text") {
            Some(text) => draft.text(&text),
            None if parts.word("type") == "encrypted_content" => draft.notice("encrypted", ""),
            None => draft.raw(block),
        }
    }
    draft
}

/// A tool's result: a string, a list of blocks, or an object of both.
fn output(draft: &mut Draft, item: &Object<'_>) {
    let call = item.text("call_id");
    let mut failed = None;
    let flat = match item.object("output") {
        Some(output) => {
            failed = output.flag("success").map(|success| !success);
            output.raw("content").map(|content| draft.flat(content))
        }
        None => item.raw("output").map(|output| draft.flat(output)),
    };
    let flat = flat
        .or_else(|| item.raw("tools").map(str::to_owned))
        .unwrap_or_default();
    // Told in words only.
    if failed.is_none() && flat.starts_with("Script failed") {
        failed = Some(true);
    }
    if failed.is_none()
        && let Some((_, code)) = flat.split_once("Process exited with code ")
    {
        let code: String = code.chars().take_while(char::is_ascii_digit).collect();
        failed = code.parse::<u32>().ok().map(|code| code != 0);
    }
    let subagent = Object::parse(&flat).and_then(|spawned| spawned.text("agent_id"));
    draft.result(call, &flat, failed, subagent);
}

fn event(kind: &str, event: &Object<'_>, old: bool) -> Option<Draft> {
    let name = format!("event_msg/{kind}");
    let notice = |kind: &str, text: String| {
        let mut draft = Draft::new(Role::System, name.clone());
        draft.notice(kind, &text);
        draft
    };
    Some(match kind {
        "turn_aborted" => notice("interrupted", event.word("reason")),
        "error" | "stream_error" => notice("error", event.word("message")),
        "warning" => notice("warning", event.word("message")),
        "context_compacted" => notice("compaction", String::new()),
        "thread_rolled_back" => notice("rewind", format!("{} turns", event.number("num_turns"))),
        "item_completed" => {
            let item = event.object("item").unwrap_or_default();
            let thread = item
                .text("agent_thread_id")
                .filter(|_| item.word("type") == "SubAgentActivity");
            let Some(thread) = thread else {
                return Some(Draft::new(Role::Record, name));
            };
            let mut draft = Draft::new(Role::System, name);
            let state = item.word("kind");
            let call = item.text("id").filter(|_| state == "started");
            draft.subagent(thread, call, item.word("agent_path"), state);
            return Some(draft);
        }
        "token_count" if old => {
            let mut draft = Draft::new(Role::Assistant, name.clone());
            let info = event.object("info");
            let last = info.and_then(|info| info.object("last_token_usage"));
            match last {
                Some(last) => draft.turn.usage = Some(last.inclusive_usage(TOKENS)),
                None => draft.turn.role = Role::Record,
            }
            draft
        }
        _ if BOOKKEEPING.contains(&kind) => Draft::new(Role::Record, name.clone()),
        _ => return None,
    })
}
