//! What a message on the WebSocket says, as far as the relay must know it. Pure.
//!
//! <https://developers.openai.com/api/docs/guides/websocket-mode>: a message is one JSON object with a `type`. What a
//! client sends may carry a `stream_id`, the lane on which the response is made; what the server sends names the same
//! lane, or none for the lane without a name.

use super::super::json::{Path, Reader, Scalar, Visit};
use super::super::refuse::Refusal;
use super::super::request::{Request, RequestReader};
use http::StatusCode;

/// What clients send that makes no model generate: to stop a response, and to say that one was dealt with (the latter
/// two by Codex). All else is refused, for nobody knows what it would cost.
const FREE: [&str; 3] = [
    "response.cancel",
    "response.interrupt",
    "response.processed",
];

/// What a server's message says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) kind: String,
    pub(super) lane: Option<String>,
    /// Id of the response it is about, where it says so.
    pub(super) response: Option<String>,
    /// Status of an error.
    pub(super) status: Option<StatusCode>,
    /// The type was there more than once.
    doubled: bool,
}

impl Event {
    /// Reads a message.
    pub(super) fn read(data: &[u8]) -> Self {
        let mut event = Self::default();
        let mut reader = Reader::default();
        reader.feed(data, &mut event);
        reader.finish(&mut event);
        event
    }

    /// Whether it is part of a response, or of its refusal. Others tell the account's limits and the like.
    pub(super) fn is_of_a_response(&self) -> bool {
        self.kind == "error" || self.kind.starts_with("response.")
    }
}

impl Visit for Event {
    fn scalar(&mut self, path: &Path, value: Scalar<'_>) {
        match value {
            // Some servers read keys in any case.
            Scalar::Text(text, _)
                if path.len() == 1 && path.key(0).eq_ignore_ascii_case(b"type") =>
            {
                self.doubled |= !self.kind.is_empty();
                text.clone_into(&mut self.kind);
            }
            Scalar::Text(text, _) if path.is(&["stream_id"]) => self.lane = Some(text.to_owned()),
            Scalar::Text(text, _) if path.is(&["response", "id"]) || path.is(&["response_id"]) => {
                self.response = Some(text.to_owned());
            }
            Scalar::Number(text) if path.is(&["status"]) || path.is(&["status_code"]) => {
                self.status = text.parse().ok();
            }
            _ => {}
        }
    }
}

/// What a client's message asks for.
#[derive(Debug)]
pub(super) enum Asks {
    /// A response, on this lane.
    Response(Box<Request>, Option<String>),
    /// Something that costs nothing.
    Nothing,
    /// What does not pass, and why.
    Refused(Refusal, Option<String>),
}

/// Reads a client's message.
pub(super) fn asked(data: &[u8]) -> Asks {
    let Event {
        kind,
        lane,
        doubled,
        ..
    } = Event::read(data);
    let invalid = |message: String, lane| {
        Asks::Refused(Refusal::invalid(StatusCode::BAD_REQUEST, message), lane)
    };
    let mut reader = RequestReader::default();
    reader.feed(data);
    if !reader.complete() || doubled {
        return invalid(
            "a message must be one JSON object with one type".to_owned(),
            lane,
        );
    }
    match kind.as_str() {
        "response.create" => {
            let mut request = reader.request().clone();
            // Every response is streamed here; nobody says so.
            request.stream = true;
            Asks::Response(Box::new(request), lane)
        }
        kind if FREE.contains(&kind) => Asks::Nothing,
        kind => {
            let kind: String = kind.chars().filter(|c| !c.is_control()).take(60).collect();
            invalid(format!("messages of type {kind:?} are not relayed"), lane)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_apart_by_lane_and_response() {
        let event = Event::read(
            br#"{"type":"response.created","response":{"id":"r1","output":[{"id":"no"}]},"stream_id":"a"}"#,
        );
        assert_eq!(
            (
                event.kind.as_str(),
                event.lane.as_deref(),
                event.response.as_deref()
            ),
            ("response.created", Some("a"), Some("r1"))
        );
        assert!(event.is_of_a_response());
        let error = Event::read(br#"{"type":"error","status":429,"error":{"type":"x"}}"#);
        assert_eq!(error.status, Some(StatusCode::TOO_MANY_REQUESTS));
        assert!(error.is_of_a_response() && error.lane.is_none());
        assert!(!Event::read(br#"{"type":"codex.rate_limits"}"#).is_of_a_response());
    }

    #[test]
    fn a_request_is_read_and_what_is_free_passes() {
        let Asks::Response(request, lane) = asked(
            br#"{"type":"response.create","stream_id":"main","model":"gpt-5-codex","generate":false,
            "previous_response_id":"resp_1","input":[{"type":"response.steer"}]}"#,
        ) else {
            panic!("no request")
        };
        assert_eq!(lane.as_deref(), Some("main"));
        assert_eq!(request.model.as_deref(), Some("gpt-5-codex"));
        assert_eq!(request.previous.as_deref(), Some("resp_1"));
        assert!(request.stream && request.warm_up && request.is_side_call());
        for kind in FREE {
            let message = format!(r#"{{"type":"{kind}","response_id":"resp_1"}}"#);
            assert!(matches!(asked(message.as_bytes()), Asks::Nothing), "{kind}");
        }
    }

    #[test]
    fn what_could_make_a_model_generate_without_being_asked_for_is_refused() {
        for message in [
            r#"{"type":"response.steer","previous_response_id":"resp_1","input":"x"}"#,
            r#"{"type":"response.processed","type":"response.create"}"#,
            r#"{"type":"response.processed","Type":"response.create"}"#,
            r#"{"type":"response.processed","ty\u0070e":"response.create"}"#,
            r#"{"model":"gpt-5-codex"}"#,
            r#"[{"type":"response.create"}]"#,
            r#"{"type":"response.create""#,
            "hello",
            "",
        ] {
            let refused = asked(message.as_bytes());
            assert!(
                matches!(refused, Asks::Refused(..)),
                "{message}: {refused:?}"
            );
        }
    }
}
