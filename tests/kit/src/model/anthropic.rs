//! Anthropic's messages format.
//!
//! Event order and usage as documented at <https://docs.anthropic.com/en/docs/build-with-claude/streaming>:
//! `message_start` carries the prompt's usage and a placeholder of one output token, `message_delta` the cumulative
//! output; `ping` may stand anywhere. OpenRouter serves the same format with `cost` in the last usage.

#![expect(
    clippy::indexing_slicing,
    reason = "assigning to a field of a JSON object that was made an object here cannot panic"
)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, named_event, portions};

/// The events of a streamed answer.
pub(super) fn stream(answer: &Answer) -> Vec<Bytes> {
    let mut events = Vec::new();
    let mut send = |name: &str, mut data: Value| {
        data["type"] = name.into();
        events.push(named_event(name, &data));
    };
    let mut head = message(answer, Vec::new());
    head["stop_reason"] = Value::Null;
    if !answer.reply.no_usage {
        head["usage"] = usage(answer, 1);
    }
    send("message_start", json!({"message": head}));
    send("ping", json!({}));
    for (index, block) in blocks(answer).into_iter().enumerate() {
        let (start, deltas) = opened(&block);
        send(
            "content_block_start",
            json!({"index": index, "content_block": start}),
        );
        for delta in deltas {
            send(
                "content_block_delta",
                json!({"index": index, "delta": delta}),
            );
        }
        send("content_block_stop", json!({"index": index}));
    }
    let mut end = json!({"delta": {"stop_reason": answer.stop_reason("tool_use", "end_turn"), "stop_sequence": null}});
    if !answer.reply.no_usage {
        end["usage"] = usage(answer, answer.usage().output);
        answer.add_cost(&mut end["usage"]);
    }
    send("message_delta", end);
    send("message_stop", json!({}));
    events
}

/// The body of an answer that is not streamed.
pub(super) fn json(answer: &Answer) -> Value {
    let mut message = message(answer, blocks(answer));
    if !answer.reply.no_usage {
        message["usage"] = usage(answer, answer.usage().output);
        answer.add_cost(&mut message["usage"]);
    }
    message
}

/// The body of an error (<https://docs.anthropic.com/en/api/errors>).
pub(super) fn error(kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

/// An error in a stream that had begun.
pub(super) fn error_event(kind: &str, message: &str) -> Bytes {
    named_event("error", &error(kind, message))
}

/// The error type that goes with a status.
pub(super) fn kind_of(status: u16) -> &'static str {
    match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}

fn message(answer: &Answer, content: Vec<Value>) -> Value {
    json!({
        "id": format!("msg_{}", answer.id), "type": "message", "role": "assistant", "model": answer.model,
        "content": content, "stop_reason": answer.stop_reason("tool_use", "end_turn"), "stop_sequence": null,
    })
}

fn blocks(answer: &Answer) -> Vec<Value> {
    let mut blocks = Vec::new();
    if let Some(thinking) = &answer.reply.thinking {
        blocks.push(json!({"type": "thinking", "thinking": thinking, "signature": format!("sig-{}", answer.id)}));
    }
    if let Some(text) = &answer.reply.text {
        blocks.push(json!({"type": "text", "text": text}));
    }
    for call in &answer.calls {
        let input = if call.input.is_object() {
            call.input.clone()
        } else {
            json!({"input": call.input})
        };
        blocks.push(json!({"type": "tool_use", "id": format!("toolu_{}", call.id), "name": call.name, "input": input}));
    }
    blocks
}

/// A block as its start shows it, empty, and the deltas that fill it.
fn opened(block: &Value) -> (Value, Vec<Value>) {
    let whole = |field: &str| block[field].as_str().unwrap_or_default().to_owned();
    match block["type"].as_str() {
        Some("thinking") => {
            let text = whole("thinking");
            let mut deltas: Vec<_> = portions(&text)
                .into_iter()
                .map(|part| json!({"type": "thinking_delta", "thinking": part}))
                .collect();
            deltas.push(json!({"type": "signature_delta", "signature": block["signature"]}));
            (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                deltas,
            )
        }
        Some("tool_use") => {
            let mut start = block.clone();
            start["input"] = json!({});
            let input = block["input"].to_string();
            let parts = std::iter::once("").chain(portions(&input));
            (
                start,
                parts
                    .map(|part| json!({"type": "input_json_delta", "partial_json": part}))
                    .collect(),
            )
        }
        _ => {
            let text = whole("text");
            let deltas = portions(&text)
                .into_iter()
                .map(|part| json!({"type": "text_delta", "text": part}))
                .collect();
            (json!({"type": "text", "text": ""}), deltas)
        }
    }
}

fn usage(answer: &Answer, output: u64) -> Value {
    let usage = answer.usage();
    json!({
        "input_tokens": usage.input,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m, "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": output,
        "service_tier": "standard",
    })
}
