//! Copilot CLI's `events.jsonl`. Seen with 1.0.102.
//!
//! - An event a line: `type`, `data`, `id`, `timestamp`, `parentId`.
//! - A tool is asked for in `assistant.message`, again in `tool.execution_start`, and answered in
//!   `tool.execution_complete`. Tokens of a model call are `session.usage_record`, before the message.
//! - A sub-agent's events stand in the same file, beside `data` with its `agentId`; some name the tool call that started it
//!   as `parentToolCallId`.

use whim_wire::conversation::Role;

use super::draft::Draft;
use super::object::Object;

/// Events that say nothing new about the conversation.
const BOOKKEEPING: &[&str] = &[
    "assistant.intent",
    "assistant.turn_end",
    "assistant.turn_start",
    "hook.end",
    "hook.start",
    "permission.completed",
    "permission.requested",
    "session.binary_asset",
    "session.compaction_start",
    "session.context_changed",
    "session.handoff",
    "session.idle",
    "session.mode_changed",
    "session.model_change",
    "session.permissions_changed",
    "session.plan_changed",
    "session.resume",
    "session.shutdown",
    "session.start",
    "session.task_complete",
    "session.title_changed",
    "session.usage_info",
    "session.workspace_file_changed",
    "skill.invoked",
    "subagent.configured",
    "subagent.deselected",
    "subagent.selected",
    "tool.execution_start",
    "user_input.completed",
    "user_input.requested",
];

pub(super) fn read(record: &Object<'_>) -> Option<Draft> {
    let kind = record.text("type")?;
    let data = record.object("data").unwrap_or_default();
    let mut draft = event(kind, &data)?;
    let turn = &mut draft.turn;
    turn.at = record.time("timestamp");
    turn.record_id = record.text("id");
    turn.parent_id = record.text("parentId");
    turn.subagent = record
        .text("agentId")
        .or_else(|| data.text("agentId"))
        .or_else(|| data.text("parentToolCallId"));
    Some(draft)
}

fn event(kind: String, data: &Object<'_>) -> Option<Draft> {
    let notice = |word: &str, text: String| {
        let mut draft = Draft::new(Role::System, kind.clone());
        draft.notice(word, &text);
        draft
    };
    Some(match kind.as_str() {
        "user.message" => {
            let mut draft = Draft::new(Role::User, kind.clone());
            draft.text(&data.word("content"));
            for attachment in data.list("attachments").unwrap_or_default() {
                match Object::parse(attachment) {
                    Some(file) => {
                        let name = file.text("displayName").or_else(|| file.text("path"));
                        draft.attachment(&name.unwrap_or_else(|| file.word("type")));
                    }
                    None => draft.raw(attachment),
                }
            }
            draft
        }
        "system.message" => {
            let mut draft = Draft::new(Role::System, kind.clone());
            draft.text(&data.word("content"));
            draft
        }
        "assistant.message" => message(kind, data),
        "assistant.reasoning" => {
            let mut draft = Draft::new(Role::Assistant, kind.clone());
            draft.thinking(&data.word("content"));
            draft
        }
        "tool.user_requested" => {
            let mut draft = Draft::new(Role::User, kind.clone());
            call(&mut draft, data, "toolName");
            draft
        }
        "tool.execution_complete" => {
            let mut draft = Draft::new(Role::Tool, kind.clone());
            let part = |name: &str, member: &str| data.object(name)?.text(member);
            let text = part("result", "content").or_else(|| part("error", "message"));
            // A command that ran is a success, whatever its exit code.
            let exit = data.object("shellExecution").map(|run| run.raw("exitCode"));
            let failed = match exit.flatten() {
                Some(code) => Some(code != "0"),
                None => data.flag("success").map(|success| !success),
            };
            draft.result(
                data.text("toolCallId"),
                &text.unwrap_or_default(),
                failed,
                None,
            );
            draft
        }
        "session.usage_record" => {
            let mut draft = Draft::new(Role::Assistant, kind.clone());
            let usage = data.object("usage")?;
            draft.turn.model = usage.text("model");
            draft.turn.generation = usage.text("apiCallId");
            draft.turn.usage = Some(usage.inclusive_usage([
                "inputTokens",
                "cacheReadTokens",
                "cacheWriteTokens",
                "outputTokens",
                "reasoningTokens",
            ]));
            draft
        }
        "abort" => notice("interrupted", data.word("reason")),
        "session.error" => notice("error", data.word("message")),
        "session.warning" => notice("warning", data.word("message")),
        "session.info" => notice("note", data.word("message")),
        "session.compaction_complete" => notice("compaction", data.word("summaryContent")),
        "session.truncation" => notice("compaction", String::new()),
        "session.snapshot_rewind" => notice("rewind", String::new()),
        "subagent.started" | "subagent.completed" | "subagent.failed" => {
            let name = data.text("agentDisplayName");
            let name = name.unwrap_or_else(|| data.word("agentName"));
            let what = kind.strip_prefix("subagent.").unwrap_or_default();
            let error = data.text("error").map(|error| format!(": {error}"));
            notice(
                "subagent",
                format!("{name} {what}{}", error.unwrap_or_default()),
            )
        }
        other if BOOKKEEPING.contains(&other) => Draft::new(Role::Record, kind.clone()),
        _ => return None,
    })
}

fn message(kind: String, data: &Object<'_>) -> Draft {
    let mut draft = Draft::new(Role::Assistant, kind);
    if let Some(reasoning) = data.text("reasoningText") {
        draft.thinking(&reasoning);
    }
    draft.text(&data.word("content"));
    for request in data.list("toolRequests").unwrap_or_default() {
        match Object::parse(request) {
            Some(request) => call(&mut draft, &request, "name"),
            None => draft.raw(request),
        }
    }
    draft.turn.model = data.text("model");
    draft.turn.generation = data.text("apiCallId");
    draft
}

fn call(draft: &mut Draft, call: &Object<'_>, name: &str) {
    let input = call.raw("arguments").unwrap_or("null");
    draft.call(call.text("toolCallId"), call.word(name), input);
}
