//! OpenAI's responses format (<https://platform.openai.com/docs/api-reference/responses-streaming>).
//!
//! `input_tokens` includes what came from the cache, `output_tokens` includes reasoning. The stream ends with
//! `response.completed`, which carries the usage; there is no `[DONE]`. Free-form ("custom") tools have items and events
//! of their own.

#![expect(
    clippy::indexing_slicing,
    reason = "assigning to a field of a JSON object that was made an object here cannot panic"
)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, named_event, portions};
use super::tools::Call;

/// Numbers the events, as `sequence_number` wants it.
struct Events(Vec<Bytes>);

impl Events {
    fn send(&mut self, name: &str, mut data: Value) {
        data["type"] = name.into();
        data["sequence_number"] = self.0.len().into();
        self.0.push(named_event(name, &data));
    }
}

/// The events of a streamed answer.
pub(super) fn stream(answer: &Answer) -> Vec<Bytes> {
    let mut events = Events(Vec::new());
    let open = response(answer, "in_progress", Vec::new());
    events.send("response.created", json!({"response": open}));
    events.send("response.in_progress", json!({"response": open}));
    let items = items(answer);
    for (index, item) in items.iter().enumerate() {
        let mut empty = item.clone();
        empty["status"] = "in_progress".into();
        for field in ["content", "summary"] {
            if item[field].is_array() {
                empty[field] = json!([]);
            }
        }
        for field in ["arguments", "input"] {
            if item[field].is_string() {
                empty[field] = "".into();
            }
        }
        events.send(
            "response.output_item.added",
            json!({"output_index": index, "item": empty}),
        );
        fill(&mut events, index, item);
        events.send(
            "response.output_item.done",
            json!({"output_index": index, "item": item}),
        );
    }
    events.send(
        "response.completed",
        json!({"response": closed(answer, items)}),
    );
    events.0
}

/// The events of a response without output.
pub(super) fn nothing(id: &str, model: &Value) -> [Value; 2] {
    let response = |status: &str, usage: Value| {
        json!({
            "id": id, "object": "response", "status": status, "model": model, "output": [], "error": null,
            "usage": usage,
        })
    };
    let usage = json!({
        "input_tokens": 0, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0,
    });
    [
        json!({"type": "response.created", "sequence_number": 0, "response": response("in_progress", Value::Null)}),
        json!({"type": "response.completed", "sequence_number": 1, "response": response("completed", usage)}),
    ]
}

/// The body of an answer that is not streamed.
pub(super) fn json(answer: &Answer) -> Value {
    closed(answer, items(answer))
}

/// The body of an error (<https://platform.openai.com/docs/guides/error-codes>); chat has the same.
pub(super) fn error(kind: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": kind}})
}

/// An error in a stream that had begun.
pub(super) fn error_event(kind: &str, message: &str) -> Bytes {
    let failed = json!({"status": "failed", "error": {"code": kind, "message": message}});
    named_event(
        "response.failed",
        &json!({"type": "response.failed", "response": failed}),
    )
}

/// The error code that goes with a status.
pub(super) fn kind_of(status: u16) -> &'static str {
    match status {
        400 | 413 => "invalid_request_error",
        401 => "invalid_api_key",
        402 => "insufficient_quota",
        404 => "model_not_found",
        429 => "rate_limit_exceeded",
        503 => "server_is_overloaded",
        _ => "server_error",
    }
}

fn fill(events: &mut Events, index: usize, item: &Value) {
    let id = &item["id"];
    match item["type"].as_str() {
        Some("reasoning") => {
            let text = item["summary"][0]["text"].as_str().unwrap_or_default();
            let at = json!({"item_id": id, "output_index": index, "summary_index": 0});
            let with = |field: &str, value: Value| with(&at, field, value);
            let part = |text: &str| with("part", json!({"type": "summary_text", "text": text}));
            events.send("response.reasoning_summary_part.added", part(""));
            for portion in portions(text) {
                events.send(
                    "response.reasoning_summary_text.delta",
                    with("delta", portion.into()),
                );
            }
            events.send(
                "response.reasoning_summary_text.done",
                with("text", text.into()),
            );
            events.send("response.reasoning_summary_part.done", part(text));
        }
        Some("message") => {
            let text = item["content"][0]["text"].as_str().unwrap_or_default();
            let at = json!({"item_id": id, "output_index": index, "content_index": 0});
            let with = |field: &str, value: Value| with(&at, field, value);
            let part = |text: &str| {
                with(
                    "part",
                    json!({"type": "output_text", "text": text, "annotations": []}),
                )
            };
            events.send("response.content_part.added", part(""));
            for portion in portions(text) {
                events.send("response.output_text.delta", with("delta", portion.into()));
            }
            events.send("response.output_text.done", with("text", text.into()));
            events.send("response.content_part.done", part(text));
        }
        Some(kind) => {
            let (field, name) = match kind {
                "custom_tool_call" => ("input", "response.custom_tool_call_input"),
                _ => ("arguments", "response.function_call_arguments"),
            };
            let at = json!({"item_id": id, "output_index": index});
            let whole = item[field].as_str().unwrap_or_default();
            for portion in portions(whole) {
                events.send(&format!("{name}.delta"), with(&at, "delta", portion.into()));
            }
            events.send(&format!("{name}.done"), with(&at, field, whole.into()));
        }
        None => {}
    }
}

fn with(at: &Value, field: &str, value: Value) -> Value {
    let mut data = at.clone();
    data[field] = value;
    data
}

fn response(answer: &Answer, status: &str, output: Vec<Value>) -> Value {
    json!({
        "id": format!("resp_{}", answer.id), "object": "response", "created_at": answer.created, "status": status,
        "model": answer.model, "output": output, "parallel_tool_calls": true, "error": null,
        "incomplete_details": null, "usage": null,
    })
}

fn closed(answer: &Answer, output: Vec<Value>) -> Value {
    let mut response = response(answer, answer.stop_reason("completed", "completed"), output);
    if !answer.reply.no_usage {
        response["usage"] = usage(answer);
        answer.add_cost(&mut response["usage"]);
    }
    response
}

fn items(answer: &Answer) -> Vec<Value> {
    let mut items = Vec::new();
    if let Some(thinking) = &answer.reply.thinking {
        items.push(json!({
            "type": "reasoning", "id": format!("rs_{}", answer.id),
            "summary": [{"type": "summary_text", "text": thinking}], "encrypted_content": format!("sealed-{}", answer.id),
        }));
    }
    if let Some(text) = &answer.reply.text {
        items.push(json!({
            "type": "message", "id": format!("msg_{}", answer.id), "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }));
    }
    items.extend(answer.calls.iter().map(call));
    items
}

fn call(call: &Call) -> Value {
    let (id, call_id) = (format!("fc_{}", call.id), format!("call_{}", call.id));
    if let Some(input) = call.input.as_str() {
        json!({"type": "custom_tool_call", "id": id, "call_id": call_id, "name": call.name, "input": input, "status": "completed"})
    } else {
        let arguments = call.input.to_string();
        json!({"type": "function_call", "id": id, "call_id": call_id, "name": call.name, "arguments": arguments, "status": "completed"})
    }
}

fn usage(answer: &Answer) -> Value {
    let usage = answer.usage();
    let written = usage.cache_write_5m + usage.cache_write_1h;
    let input = usage.input + usage.cache_read + written;
    json!({
        "input_tokens": input,
        "input_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": written},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": input + usage.output,
    })
}
