//! Codex's `exec --json` (0.169.0). `turn.completed.usage` counts the whole thread, earlier runs included, and its input
//! includes cached tokens. `error` lines are mostly retries: only `turn.failed` is a failure.

use serde_json::Value;

use super::{Outcome, Usage, number, text};

pub(super) fn line(value: &Value, outcome: &mut Outcome) {
    match text(value, "/type") {
        Some("thread.started") => {
            outcome.agent_session = text(value, "/thread_id").map(str::to_owned);
        }
        Some("item.completed") if text(value, "/item/type") == Some("agent_message") => {
            if let Some(said) = text(value, "/item/text") {
                outcome.set_text(said);
            }
        }
        Some("turn.completed") => {
            outcome.finished = true;
            let cached = number(value, "/usage/cached_input_tokens");
            let written = number(value, "/usage/cache_write_input_tokens");
            outcome.usage = Usage {
                input_tokens: number(value, "/usage/input_tokens")
                    .saturating_sub(cached)
                    .saturating_sub(written),
                output_tokens: number(value, "/usage/output_tokens"),
                cache_read_tokens: cached,
                cache_write_tokens: written,
            };
        }
        Some("turn.failed") => {
            outcome.finished = true;
            let error = text(value, "/error/message");
            outcome.api_status = error.and_then(status_in);
            outcome.fail(error);
        }
        _ => {}
    }
}

/// `unexpected status 402 Payment Required: …`
fn status_in(error: &str) -> Option<u16> {
    let (_, rest) = error.split_once("status ")?;
    rest.split_whitespace()
        .next()?
        .parse()
        .ok()
        .filter(|status| (100..600).contains(status))
}
