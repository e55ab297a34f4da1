//! OpenAI's chat completions format, and OpenRouter's variant of it.
//!
//! `prompt_tokens` includes what came from the cache. Usage comes in a last chunk without choices, then `[DONE]`
//! (<https://platform.openai.com/docs/api-reference/chat-streaming>); OpenRouter puts its cost there
//! (<https://openrouter.ai/docs/use-cases/usage-accounting>) and may send comments before anything else.

#![expect(
    clippy::indexing_slicing,
    reason = "assigning to a field of a JSON object that was made an object here cannot panic"
)]

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, plain_event, portions};
use super::tools::Call;

/// The events of a streamed answer; `with_usage` as the request's `stream_options.include_usage` says.
pub(super) fn stream(answer: &Answer, with_usage: bool) -> Vec<Bytes> {
    let mut events = Vec::new();
    let mut send = |delta: Value, finish: Value| {
        let mut chunk = completion(answer, "chat.completion.chunk");
        chunk["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        events.push(plain_event(&chunk));
    };
    send(json!({"role": "assistant", "content": ""}), Value::Null);
    for portion in portions(answer.reply.thinking.as_deref().unwrap_or_default()) {
        send(json!({"reasoning": portion}), Value::Null);
    }
    for portion in portions(answer.reply.text.as_deref().unwrap_or_default()) {
        send(json!({"content": portion}), Value::Null);
    }
    for (index, call) in answer.calls.iter().enumerate() {
        let mut start = tool_call(call);
        let arguments = start["function"]["arguments"].take();
        start["index"] = index.into();
        start["function"]["arguments"] = "".into();
        send(json!({"tool_calls": [start]}), Value::Null);
        for portion in portions(arguments.as_str().unwrap_or_default()) {
            send(
                json!({"tool_calls": [{"index": index, "function": {"arguments": portion}}]}),
                Value::Null,
            );
        }
    }
    send(json!({}), answer.stop_reason("tool_calls", "stop").into());
    if (with_usage || answer.router) && !answer.reply.no_usage {
        let mut chunk = completion(answer, "chat.completion.chunk");
        chunk["choices"] = json!([]);
        chunk["usage"] = usage(answer);
        events.push(plain_event(&chunk));
    }
    events.push(Bytes::from_static(b"data: [DONE]\n\n"));
    events
}

/// The body of an answer that is not streamed.
pub(super) fn json(answer: &Answer) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.reply.text});
    if let Some(thinking) = &answer.reply.thinking {
        message["reasoning"] = thinking.as_str().into();
    }
    if !answer.calls.is_empty() {
        message["tool_calls"] = answer.calls.iter().map(tool_call).collect();
    }
    let mut body = completion(answer, "chat.completion");
    let finish = answer.stop_reason("tool_calls", "stop");
    body["choices"] = json!([{"index": 0, "message": message, "finish_reason": finish}]);
    if !answer.reply.no_usage {
        body["usage"] = usage(answer);
    }
    body
}

/// An error in a stream that had begun, as OpenRouter sends it
/// (<https://openrouter.ai/docs/api/reference/errors-and-debugging>).
pub(super) fn error_event(answer: &Answer, kind: &str, message: &str) -> Bytes {
    let mut chunk = completion(answer, "chat.completion.chunk");
    chunk["error"] = json!({"code": kind, "message": message});
    chunk["choices"] = json!([{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]);
    plain_event(&chunk)
}

fn completion(answer: &Answer, object: &str) -> Value {
    let id = if answer.router {
        answer.id.clone()
    } else {
        format!("chatcmpl-{}", answer.id)
    };
    let mut body =
        json!({"id": id, "object": object, "created": answer.created, "model": answer.model});
    if answer.router {
        body["provider"] = "Scripted".into();
    }
    body
}

fn tool_call(call: &Call) -> Value {
    let arguments = call
        .input
        .as_str()
        .map_or_else(|| call.input.to_string(), String::from);
    json!({
        "id": format!("call_{}", call.id), "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    })
}

fn usage(answer: &Answer) -> Value {
    let usage = answer.usage();
    let written = usage.cache_write_5m + usage.cache_write_1h;
    let prompt = usage.input + usage.cache_read + written;
    let mut value = json!({
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    });
    answer.add_cost(&mut value);
    value
}
