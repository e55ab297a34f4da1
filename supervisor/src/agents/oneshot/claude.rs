//! Claude Code's `stream-json` (2.1.197). A failed API call is `subtype: success` with `is_error: true` and
//! `api_error_status`; `usage` of the result leaves the title call out.

use serde_json::Value;

use super::{Outcome, Usage, number, text};

pub(super) fn line(value: &Value, outcome: &mut Outcome) {
    if let Some(id) = text(value, "/session_id") {
        outcome.agent_session = Some(id.to_owned());
    }
    match text(value, "/type") {
        Some("assistant") if value.get("parent_tool_use_id").is_none_or(Value::is_null) => {
            // Kept in case the run is cut before its result.
            let said: String = value
                .pointer("/message/content")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(|block| text(block, "/text"))
                .collect();
            if !said.is_empty() {
                outcome.set_text(&said);
            }
        }
        Some("result") => result(value, outcome),
        _ => {}
    }
}

fn result(value: &Value, outcome: &mut Outcome) {
    outcome.finished = true;
    let said = text(value, "/result");
    if let Some(said) = said {
        outcome.set_text(said);
    }
    outcome.usage = Usage {
        input_tokens: number(value, "/usage/input_tokens"),
        output_tokens: number(value, "/usage/output_tokens"),
        cache_read_tokens: number(value, "/usage/cache_read_input_tokens"),
        cache_write_tokens: number(value, "/usage/cache_creation_input_tokens"),
    };
    outcome.api_status = value
        .get("api_error_status")
        .and_then(Value::as_u64)
        .and_then(|status| status.try_into().ok());
    if value.get("is_error") == Some(&Value::Bool(true)) {
        let subtype = text(value, "/subtype").filter(|&subtype| subtype != "success");
        let first = text(value, "/errors/0");
        outcome.fail(said.or(first).or(subtype));
    }
}
