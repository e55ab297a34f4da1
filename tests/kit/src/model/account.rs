//! OpenRouter's account of an earlier answer (<https://openrouter.ai/docs/api-reference/get-a-generation>).

use serde_json::{Value, json};

use super::conversation::at;
use super::record::{Outcome, Recorded};

/// The body of `GET /api/v1/generation`, from what was sent.
pub(super) fn of(recorded: &Recorded) -> Value {
    let (usage, streamed) = usage_sent(&recorded.sent);
    let used = |pointer: &str| at(&usage, pointer).clone();
    json!({"data": {
        "id": recorded.generation, "model": recorded.model, "streamed": streamed, "provider_name": "Scripted",
        "cancelled": recorded.outcome == Outcome::ClientLeft, "total_cost": used("/cost"),
        "upstream_inference_cost": used("/cost_details/upstream_inference_cost"), "is_byok": used("/is_byok"),
        "native_tokens_prompt": used("/prompt_tokens"), "native_tokens_completion": used("/completion_tokens"),
        "native_tokens_cached": used("/prompt_tokens_details/cached_tokens"),
    }})
}

/// The last usage in a body, and whether the body is a stream.
fn usage_sent(sent: &[u8]) -> (Value, bool) {
    let text = String::from_utf8_lossy(sent);
    if let Ok(body) = serde_json::from_str::<Value>(&text) {
        return (at(&body, "/usage").clone(), false);
    }
    let events = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let mut usages = events.filter_map(|event| {
        let found = ["/usage", "/response/usage"]
            .into_iter()
            .map(|pointer| at(&event, pointer));
        found.into_iter().find(|usage| usage.is_object()).cloned()
    });
    (usages.next().unwrap_or(Value::Null), true)
}
