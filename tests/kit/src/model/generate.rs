//! Answers a generation: chooses the reply, puts it into the wire format, and sets a task to send it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use serde_json::Value;

use super::answer::Answer;
use super::conversation::{Conversation, Dialect, at};
use super::play::Play;
use super::record::{Outcome, Recorded, describe};
use super::script::Fault;
use super::serve::{Answered, error_body, whole};
use super::shared::Shared;
use super::{anthropic, chat, responses, tools};

/// The answer's head; its body follows from a task of its own.
pub(super) async fn generation(
    shared: &Arc<Shared>,
    mut recorded: Recorded,
    dialect: Dialect,
    router: bool,
    path: &str,
    connection: Arc<OwnedFd>,
) -> Answered {
    let body = recorded.json();
    let conversation = Conversation::read(dialect, recorded.agent, &body);
    describe(&mut recorded, &conversation);
    let (rule, reply) = shared.choose(&conversation, path);
    recorded.rule = rule;
    let id = shared.next_id(router);
    let call = |(at, wish)| tools::resolve(wish, &conversation, format!("{id}_{at}"));
    let answer = Answer {
        calls: reply.tools.iter().enumerate().map(call).collect(),
        id,
        model: conversation.model.clone(),
        reply,
        router,
        created: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    };
    recorded.generation.clone_from(&answer.id);
    let reply = &answer.reply;
    tokio::time::sleep(Duration::from_millis(reply.pace.headers_ms)).await;
    if let Some(Fault::Status {
        code,
        body,
        retry_after,
    }) = &reply.fault
    {
        let message = format!("The scripted model was told to answer {code}.");
        let value = body
            .clone()
            .unwrap_or_else(|| error_body(path, *code, &message));
        let mut response = whole(shared, recorded, *code, &value);
        head_of(&mut response, &answer, dialect);
        if let Some(value) = retry_after
            .as_ref()
            .and_then(|value| HeaderValue::from_str(value).ok())
        {
            response.headers_mut().insert("retry-after", value);
        }
        return response;
    }
    let seq = shared.add(recorded);
    if reply.fault == Some(Fault::Hang) {
        // Dropped with its connection when the client leaves.
        let _left = shared.settles(seq, Outcome::ClientLeft);
        return std::future::pending().await;
    }
    let include_usage = at(&body, "/stream_options/include_usage")
        .as_bool()
        .unwrap_or(false);
    let streamed = conversation.stream;
    let error = match &reply.fault {
        Some(Fault::Error { kind, message, .. }) if streamed => Some(match dialect {
            Dialect::Anthropic => anthropic::error_event(kind, message),
            Dialect::Responses => responses::error_event(kind, message),
            Dialect::Chat => chat::error_event(&answer, kind, message),
        }),
        Some(Fault::Error { kind, message, .. }) => {
            Some(Bytes::from(error_of(dialect, kind, message).to_string()))
        }
        _ => None,
    };
    let mut writes = match (&reply.raw, dialect, streamed) {
        (Some(raw), ..) => raw
            .writes
            .iter()
            .map(|write| Bytes::from(write.clone()))
            .collect(),
        (None, Dialect::Anthropic, true) => anthropic::stream(&answer),
        (None, Dialect::Responses, true) => responses::stream(&answer),
        (None, Dialect::Chat, true) => chat::stream(&answer, include_usage),
        (None, _, false) if error.is_some() => Vec::new(),
        (None, Dialect::Anthropic, false) => {
            vec![Bytes::from(anthropic::json(&answer).to_string())]
        }
        (None, Dialect::Responses, false) => {
            vec![Bytes::from(responses::json(&answer).to_string())]
        }
        (None, Dialect::Chat, false) => vec![Bytes::from(chat::json(&answer).to_string())],
    };
    if streamed && reply.raw.is_none() {
        let comments = reply.comments.max(usize::from(router));
        writes.splice(
            0..0,
            std::iter::repeat_n(Bytes::from_static(b": OPENROUTER PROCESSING\n\n"), comments),
        );
    }
    if !streamed && let Some(error) = error.clone() {
        writes.push(error);
    }
    let (sender, played) = Play::body();
    let mut response = Response::new(BoxBody::new(played));
    if let Some(raw) = &reply.raw {
        *response.status_mut() = raw
            .status
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or_default();
        if let Some(value) = raw
            .content_type
            .as_ref()
            .and_then(|value| HeaderValue::from_str(value).ok())
        {
            response.headers_mut().insert("content-type", value);
        }
    } else {
        let kind = if streamed {
            "text/event-stream; charset=utf-8"
        } else {
            "application/json"
        };
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static(kind));
    }
    head_of(&mut response, &answer, dialect);
    let fault = reply
        .fault
        .clone()
        .filter(|fault| streamed || !matches!(fault, Fault::Error { .. }));
    let play = Play {
        writes,
        pace: reply.pace,
        fault,
        gate: reply.gate.clone(),
        error,
        connection,
    };
    let gates = shared.gates();
    let settles = shared.settles(seq, Outcome::ClientLeft);
    let shared = Arc::clone(shared);
    drop(tokio::spawn(async move {
        let mut settles = settles;
        settles.outcome = play
            .run(sender, gates, |write| shared.sent(seq, write))
            .await;
    }));
    response
}

/// The headers that tell a generation: ids as each provider names them, and the script's own.
fn head_of(response: &mut Answered, answer: &Answer, dialect: Dialect) {
    let Answer {
        id, router, reply, ..
    } = answer;
    let headers: &mut HeaderMap = response.headers_mut();
    let mut set = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    };
    match dialect {
        Dialect::Anthropic => set("request-id", &format!("req_{id}")),
        Dialect::Responses | Dialect::Chat => set("x-request-id", &format!("req_{id}")),
    }
    if *router {
        set("x-generation-id", id);
    }
    for (name, value) in &reply.headers {
        set(name, value);
    }
}

fn error_of(dialect: Dialect, kind: &str, message: &str) -> Value {
    match dialect {
        Dialect::Anthropic => anthropic::error(kind, message),
        Dialect::Responses | Dialect::Chat => responses::error(kind, message),
    }
}
