//! Chat Completions, as OpenAI defined and many speak it: chunks and `[DONE]`; or one completion.
//!
//! <https://platform.openai.com/docs/api-reference/chat/streaming>. Usage comes in a last chunk without choices, but
//! some upstreams put it beside a choice.

use super::super::json::{Path, Scalar};
use super::Event;

pub(super) fn scalar(event: &mut Event, path: &Path, value: Scalar<'_>) {
    if path.key(0) == b"usage" && path.len() > 1 {
        event.reported.scalar(path, 1, value);
        return;
    }
    if path.is(&["error", "code"])
        && let Scalar::Number(code) = value
    {
        event.error_kind(code);
        return;
    }
    let Scalar::Text(text, written) = value else {
        return;
    };
    match (path.key(0), path.key(2), path.len()) {
        (b"id", _, 1) => text.clone_into(&mut event.id),
        (b"model", _, 1) => text.clone_into(&mut event.model),
        (b"service_tier", _, 1) => event.reported.set_tier(text),
        (b"choices", b"finish_reason", 3) => text.clone_into(&mut event.stop),
        (b"choices", b"delta", 4..) => {
            let key = path.key(3);
            event.tool_use |= key == b"tool_calls";
            // An encrypted or opaque part is no text whose length says anything.
            if matches!(
                key,
                b"content" | b"reasoning" | b"reasoning_content" | b"tool_calls" | b"refusal"
            ) {
                event.generate(written);
            }
        }
        (b"choices", b"message", 5..) => event.tool_use |= path.key(3) == b"tool_calls",
        (b"error", _, 2) if matches!(path.key(1), b"code" | b"type") => event.error_kind(text),
        (b"error", _, 2) if path.key(1) == b"message" => event.error_message(text),
        _ => {}
    }
}
