//! Copilot's `--output-format json` (1.0.102). The last line is `result` with the exit code; why it failed stands in
//! `session.error`. Usage comes per call in `assistant.usage` or `session.usage_record`, where a version prints it.

use serde_json::Value;

use super::{Outcome, number, text};

pub(super) fn line(value: &Value, outcome: &mut Outcome) {
    match text(value, "/type") {
        Some("assistant.message") => {
            if let Some(said) = text(value, "/data/content").filter(|said| !said.is_empty()) {
                outcome.set_text(said);
            }
        }
        Some("session.usage_record") => {
            let cached = number(value, "/data/usage/cacheReadTokens");
            let written = number(value, "/data/usage/cacheWriteTokens");
            outcome.usage.input_tokens += number(value, "/data/usage/inputTokens")
                .saturating_sub(cached)
                .saturating_sub(written);
            outcome.usage.output_tokens += number(value, "/data/usage/outputTokens");
            outcome.usage.cache_read_tokens += cached;
            outcome.usage.cache_write_tokens += written;
        }
        Some("session.error") => {
            outcome.api_status = value
                .pointer("/data/statusCode")
                .and_then(Value::as_u64)
                .and_then(|status| status.try_into().ok());
            outcome.error = text(value, "/data/message")
                .map(|error| error.chars().take(super::MAX_ERROR).collect());
        }
        Some("result") => {
            outcome.finished = true;
            outcome.agent_session = text(value, "/sessionId").map(str::to_owned);
            if number(value, "/exitCode") != 0 {
                outcome.fail(None);
            }
        }
        _ => {}
    }
}
