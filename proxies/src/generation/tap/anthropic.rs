//! Anthropic's Messages API: `message_start` … `message_delta`, `message_stop`, `ping`, `error`; or one message.
//!
//! <https://docs.claude.com/en/docs/build-with-claude/streaming>. Usage in `message_delta` is cumulative.

use super::super::json::{Path, Scalar};
use super::Event;

pub(super) fn scalar(event: &mut Event, path: &Path, value: Scalar<'_>) {
    // A message stands at the root of a document and under `message` in `message_start`.
    let base = usize::from(path.key(0) == b"message" && path.len() > 1);
    if path.key(base) == b"usage" && path.len() > base + 1 {
        event.reported.scalar(path, base + 1, value);
        return;
    }
    let Scalar::Text(text, written) = value else {
        return;
    };
    match (path.key(0), path.key(1), path.len()) {
        (b"type", _, 1) => text.clone_into(&mut event.kind),
        (b"id", _, 1) | (b"message", b"id", 2) => text.clone_into(&mut event.id),
        (b"model", _, 1) | (b"message", b"model", 2) => text.clone_into(&mut event.model),
        (b"stop_reason", _, 1) | (b"message" | b"delta", b"stop_reason", 2) => {
            text.clone_into(&mut event.stop);
        }
        (b"delta", b"text" | b"thinking" | b"partial_json", 2) => event.generate(written),
        (b"content_block", b"type", 2) => event.tool_use |= text == "tool_use",
        (b"content", b"", 3) if path.key(2) == b"type" => event.tool_use |= text == "tool_use",
        (b"error", b"type", 2) => event.error_kind(text),
        (b"error", b"message", 2) => event.error_message(text),
        _ => {}
    }
}
