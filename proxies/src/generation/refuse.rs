//! Answers that come from the proxy itself, in the wire format of whoever asked.
//!
//! Which status makes which agent stop at once, and shows our sentence, was tried with the real ones: Claude Code
//! takes 402 with `x-should-retry: false`, Codex retries 402 but not 400, chat clients get 402.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::route::Format;

/// An answer of our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// Error type in Anthropic's words.
    anthropic: &'static str,
    /// Error type and code in OpenAI's words.
    openai: (&'static str, &'static str),
    /// What the person reads.
    pub message: String,
    again: Again,
}

/// Whether another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// No: the agent is told so.
    Never,
    /// As the agent thinks best.
    Perhaps,
    /// After so many seconds.
    After(u64),
}

impl Refusal {
    const fn new(
        status: StatusCode,
        anthropic: &'static str,
        openai: (&'static str, &'static str),
        message: String,
    ) -> Self {
        Self {
            status,
            anthropic,
            openai,
            message,
            again: Again::Never,
        }
    }

    /// A cap is reached: no further try helps until somebody raises it.
    #[must_use]
    pub const fn budget(format: Format, message: String) -> Self {
        let status = match format {
            Format::Anthropic | Format::Chat => StatusCode::PAYMENT_REQUIRED,
            Format::Responses => StatusCode::BAD_REQUEST,
        };
        Self::new(
            status,
            "billing_error",
            ("insufficient_quota", "insufficient_quota"),
            message,
        )
    }

    /// Too many calls for now.
    #[must_use]
    pub const fn rate(message: String, retry_after: u64) -> Self {
        let openai = ("rate_limit_error", "rate_limit_exceeded");
        let mut refusal = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limit_error",
            openai,
            message,
        );
        refusal.again = Again::After(retry_after);
        refusal
    }

    /// Whether the same may pass a little later.
    #[must_use]
    pub const fn is_for_now(&self) -> bool {
        matches!(self.again, Again::After(_))
    }

    /// No valid token, or no key to call with.
    #[must_use]
    pub const fn unauthorized(message: String) -> Self {
        let openai = ("authentication_error", "invalid_api_key");
        Self::new(
            StatusCode::UNAUTHORIZED,
            "authentication_error",
            openai,
            message,
        )
    }

    /// A web page asks, or somebody for another host.
    #[must_use]
    pub const fn forbidden(message: String) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "permission_error",
            ("permission_error", "forbidden"),
            message,
        )
    }

    /// The request cannot be forwarded as it is.
    #[must_use]
    pub const fn invalid(status: StatusCode, message: String) -> Self {
        Self::new(
            status,
            "invalid_request_error",
            ("invalid_request_error", "invalid_request"),
            message,
        )
    }

    /// No such path or method.
    #[must_use]
    pub const fn not_found(status: StatusCode, message: String) -> Self {
        Self::new(
            status,
            "not_found_error",
            ("invalid_request_error", "unknown_url"),
            message,
        )
    }

    /// The upstream cannot be reached, or did not answer.
    #[must_use]
    pub const fn upstream(status: StatusCode, message: String) -> Self {
        let openai = ("server_error", "upstream_unavailable");
        let mut refusal = Self::new(status, "api_error", openai, message);
        refusal.again = Again::Perhaps;
        refusal
    }

    /// This side is full or ending.
    #[must_use]
    pub const fn unavailable(message: String) -> Self {
        let openai = ("server_error", "overloaded");
        let mut refusal = Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded_error",
            openai,
            message,
        );
        refusal.again = Again::After(1);
        refusal
    }

    /// What is asked for needs another connection: this one can no longer be used for it. The code is the one with which
    /// OpenAI ends a WebSocket after an hour, upon which Codex opens a new one and asks again.
    #[must_use]
    pub const fn reconnect(message: String) -> Self {
        let openai = (
            "invalid_request_error",
            "websocket_connection_limit_reached",
        );
        Self::new(
            StatusCode::BAD_REQUEST,
            "invalid_request_error",
            openai,
            message,
        )
    }

    fn openai_error(&self) -> serde_json::Value {
        let (kind, code) = self.openai;
        json!({"message": self.message, "type": kind, "param": null, "code": code})
    }

    /// The body in a format.
    #[must_use]
    pub fn body(&self, format: Format) -> String {
        match format {
            Format::Anthropic => {
                json!({"type": "error", "error": {"type": self.anthropic, "message": self.message}})
                    .to_string()
            }
            Format::Responses | Format::Chat => json!({"error": self.openai_error()}).to_string(),
        }
    }

    /// The whole answer in a format.
    #[must_use]
    pub fn response(&self, format: Format) -> Response<Bytes> {
        let body = Bytes::from(self.body(format));
        let length = HeaderValue::from(body.len());
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, length);
        match self.again {
            Again::After(seconds) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            }
            Again::Never => {
                let name = HeaderName::from_static("x-should-retry");
                headers.insert(name, HeaderValue::from_static("false"));
            }
            Again::Perhaps => {}
        }
        response
    }

    /// The event that ends a stream with this error. `id` and `model` are those of the answer so far.
    #[must_use]
    pub fn event(&self, format: Format, id: Option<&str>, model: Option<&str>) -> Bytes {
        let text = match format {
            Format::Anthropic => format!("event: error\ndata: {}\n\n", self.body(format)),
            Format::Responses => {
                let failed = self.failed(id, model);
                format!("event: response.failed\ndata: {failed}\n\n")
            }
            Format::Chat => {
                let chunk = json!({"id": id, "object": "chat.completion.chunk", "model": model,
                    "error": self.openai_error(),
                    "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]});
                format!("data: {chunk}\n\ndata: [DONE]\n\n")
            }
        };
        Bytes::from(text)
    }

    fn failed(&self, id: Option<&str>, model: Option<&str>) -> Value {
        let (_, code) = self.openai;
        json!({"type": "response.failed", "sequence_number": 0, "response": {
            "id": id, "object": "response", "status": "failed", "model": model, "output": [],
            "error": {"code": code, "message": self.message}, "usage": null}})
    }

    /// The message that answers a request on a WebSocket of the Responses API; `lane` is the request's `stream_id`.
    #[must_use]
    pub fn message(&self, lane: Option<&str>) -> String {
        let mut event =
            json!({"type": "error", "status": self.status.as_u16(), "error": self.openai_error()});
        if let (Again::After(seconds), Some(event)) = (self.again, event.as_object_mut()) {
            let headers = json!({"retry-after": seconds.to_string()});
            event.insert("headers".to_owned(), headers);
        }
        on_lane(event, lane)
    }

    /// The message that ends a response on such a WebSocket. `id` and `model` are those of the answer so far.
    #[must_use]
    pub fn last_message(
        &self,
        lane: Option<&str>,
        id: Option<&str>,
        model: Option<&str>,
    ) -> String {
        on_lane(self.failed(id, model), lane)
    }
}

/// An event with the lane it belongs to, as OpenAI names it.
fn on_lane(mut event: Value, lane: Option<&str>) -> String {
    if let (Some(lane), Some(event)) = (lane, event.as_object_mut()) {
        event.insert("stream_id".to_owned(), lane.into());
    }
    event.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::tap::Tap;
    use super::*;

    #[test]
    fn the_status_that_stops_each_agent() {
        let of = |format| {
            let refusal = Refusal::budget(format, "cap".to_owned());
            let response = refusal.response(format);
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            (
                response.status().as_u16(),
                response.headers().contains_key("x-should-retry"),
                body,
            )
        };
        let (status, told, body) = of(Format::Anthropic);
        assert_eq!((status, told), (402, true));
        assert_eq!(
            body,
            json!({"type":"error","error":{"type":"billing_error","message":"cap"}})
        );
        let (status, _, body) = of(Format::Responses);
        assert_eq!(
            (status, &body["error"]["code"]),
            (400, &json!("insufficient_quota"))
        );
        let (status, _, body) = of(Format::Chat);
        assert_eq!(
            (status, &body["error"]["code"]),
            (402, &json!("insufficient_quota"))
        );
    }

    #[test]
    fn only_what_cannot_get_better_forbids_another_try() {
        let headers = |refusal: Refusal| refusal.response(Format::Anthropic).headers().clone();
        let down = headers(Refusal::upstream(StatusCode::BAD_GATEWAY, String::new()));
        assert!(!down.contains_key("x-should-retry") && !down.contains_key(RETRY_AFTER));
        let busy = headers(Refusal::rate(String::new(), 7));
        assert_eq!(
            (busy.get(RETRY_AFTER).unwrap(), busy.get("x-should-retry")),
            (&HeaderValue::from(7), None)
        );
        assert!(headers(Refusal::unauthorized(String::new())).contains_key("x-should-retry"));
    }

    #[test]
    fn messages_name_their_lane_and_are_errors_to_our_own_tap() {
        let refusal = Refusal::rate("wait".to_owned(), 7);
        let message: Value = serde_json::from_str(&refusal.message(Some("a"))).unwrap();
        assert_eq!(
            message,
            json!({"type": "error", "status": 429, "stream_id": "a", "headers": {"retry-after": "7"}, "error":
                {"type": "rate_limit_error", "code": "rate_limit_exceeded", "message": "wait", "param": null}})
        );
        let cap = Refusal::budget(Format::Responses, "cap".to_owned());
        for message in [cap.message(None), cap.last_message(None, Some("r"), None)] {
            assert!(!message.contains("stream_id"), "{message}");
            let mut tap = Tap::new(Format::Responses);
            tap.event(message.as_bytes());
            let error = tap.answer().error.clone().expect("error");
            assert_eq!(
                (error.message.as_str(), tap.answer().terminal),
                ("cap", true)
            );
        }
    }

    #[test]
    fn the_event_is_an_error_to_our_own_tap() {
        for format in [Format::Anthropic, Format::Responses, Format::Chat] {
            let mut tap = Tap::new(format);
            tap.feed(b": start\n\n");
            tap.feed(&Refusal::budget(format, "cap \"x\"\n".to_owned()).event(
                format,
                Some("id"),
                None,
            ));
            let error = tap.answer().error.clone().expect("error");
            assert_eq!(error.message, "cap \"x\"\n", "{format:?}");
            assert!(tap.between_events());
        }
    }
}
