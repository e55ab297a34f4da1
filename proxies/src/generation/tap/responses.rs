//! OpenAI's Responses API: `response.created` … `response.completed`, `error`; or one response object.
//!
//! <https://platform.openai.com/docs/api-reference/responses-streaming>. Usage stands in the last event's response.

use super::super::json::{Path, Scalar};
use super::Event;

pub(super) fn is_terminal(kind: &str) -> bool {
    matches!(
        kind,
        "response.completed"
            | "response.incomplete"
            | "response.failed"
            | "response.cancelled"
            | "error"
    )
}

pub(super) fn scalar(event: &mut Event, path: &Path, value: Scalar<'_>) {
    let base = usize::from(path.key(0) == b"response" && path.len() > 1);
    if path.key(base) == b"usage" && path.len() > base + 1 {
        event.reported.scalar(path, base + 1, value);
        return;
    }
    if path.key(base) == b"error" && path.len() == base + 1 && value == Scalar::Null {
        return;
    }
    let Scalar::Text(text, written) = value else {
        return;
    };
    let (key, rest) = (path.key(base), path.len() - base);
    match (key, path.key(base + 1), rest) {
        (b"type", _, 1) if base == 0 => {
            text.clone_into(&mut event.kind);
            if text == "error" {
                event.error.get_or_insert_default();
            }
        }
        (b"id", _, 1) => text.clone_into(&mut event.id),
        (b"model", _, 1) => text.clone_into(&mut event.model),
        (b"status", _, 1) if text != "in_progress" && text != "queued" => {
            text.clone_into(&mut event.stop)
        }
        (b"service_tier", _, 1) => event.reported.set_tier(text),
        (b"delta", _, 1) if base == 0 => event.generate(written),
        (b"item", b"type", 2) => event.tool_use |= is_call(text),
        (b"output", b"", 3) if path.key(base + 2) == b"type" => event.tool_use |= is_call(text),
        (b"error", b"code" | b"type", 2) => event.error_kind(text),
        (b"error", b"message", 2) => event.error_message(text),
        // `{"type":"error","code":…,"message":…}` carries them at the root.
        (b"code", _, 1) if base == 0 => event.error_kind(text),
        (b"message", _, 1) if base == 0 => event.error_message(text),
        _ => {}
    }
}

/// Calls that the agent answers; searches and the like run at the provider.
fn is_call(item: &str) -> bool {
    matches!(
        item,
        "function_call"
            | "custom_tool_call"
            | "local_shell_call"
            | "shell_call"
            | "apply_patch_call"
    )
}
