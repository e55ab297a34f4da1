//! The provider's side of the wire: paths, heads, and which format answers.
//!
//! Takes connections without limit of number (a test decides how many it opens), request bodies up to [`MAX_BODY`], and
//! 30 s for a request's head.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::answer::Answer;
use super::conversation::{Agent, Conversation, Dialect, at};
use super::play::{Cut, Play};
use super::record::{Outcome, Recorded, describe};
use super::script::Fault;
use super::shared::Shared;
use super::{anthropic, chat, responses, tools};

/// As much as the proxies let through.
const MAX_BODY: usize = 64 << 20;

pub(super) type Answered = Response<BoxBody<Bytes, Cut>>;

/// Serves until the task is dropped.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        // An error here is of the one connection (it was reset while it queued), not of the listener.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let shared = Arc::clone(&shared);
        drop(tokio::spawn(connection(stream, shared)));
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // A write must leave when the script makes it, not when the kernel has enough for a segment.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let Ok(second) = stream.as_fd().try_clone_to_owned().map(Arc::new) else {
        return;
    };
    let service = service_fn(move |request| {
        let (shared, second) = (Arc::clone(&shared), Arc::clone(&second));
        async move { answer(request, shared, second).await }
    });
    // How a client's connection ends is the client's affair; what matters of it is in the record.
    drop(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(30))
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

/// What a path asks for.
enum Asked {
    Generation(Dialect),
    Other,
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    second: Arc<OwnedFd>,
) -> Result<Answered, Cut> {
    let (head, body) = request.into_parts();
    let target = head.uri.path().to_owned();
    let router = target.starts_with("/api/");
    let path = target.strip_prefix("/api").unwrap_or(&target).to_owned();
    let asked = match (&head.method, path.as_str()) {
        (&Method::POST, "/v1/messages") => Asked::Generation(Dialect::Anthropic),
        (&Method::POST, "/v1/responses") => Asked::Generation(Dialect::Responses),
        (&Method::POST, "/v1/chat/completions") => Asked::Generation(Dialect::Chat),
        _ => Asked::Other,
    };
    let mut recorded = shared.received(&head);
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            recorded.status = 413;
            recorded.outcome = Outcome::ClientLeft;
            shared.add(recorded);
            return Ok(json_response(
                413,
                &responses::error("invalid_request_error", "the body is too large or broken"),
            ));
        }
    };
    recorded.body = body.clone();
    let wanted = shared.required_key();
    if let Some(wanted) =
        wanted.filter(|wanted| head.method != Method::HEAD && recorded.key() != Some(wanted))
    {
        let message = format!("this upstream wants a key of {} characters", wanted.len());
        recorded.rule = "key".into();
        return Ok(whole(
            &shared,
            recorded,
            401,
            &error_body(&path, 401, &message),
        ));
    }
    match asked {
        Asked::Generation(dialect) => {
            Ok(generation(&shared, recorded, dialect, router, &path, second).await)
        }
        Asked::Other => {
            let (status, value) = other(&shared, &head, &path, &body);
            Ok(whole(&shared, recorded, status, &value))
        }
    }
}

/// Everything that is no generation.
fn other(shared: &Shared, head: &http::request::Parts, path: &str, body: &Bytes) -> (u16, Value) {
    match (&head.method, path) {
        (&Method::GET | &Method::HEAD, "/") => (200, json!({})),
        (&Method::POST, "/v1/messages/count_tokens") => {
            (200, json!({"input_tokens": body.len().div_ceil(4)}))
        }
        (&Method::GET, "/v1/models") => {
            let models = shared.models().into_iter();
            let models = models.map(
                |id| json!({"id": id, "type": "model", "object": "model", "display_name": id}),
            );
            (
                200,
                json!({"object": "list", "data": models.collect::<Vec<_>>(), "has_more": false}),
            )
        }
        (&Method::GET, "/v1/generation") => {
            let id = head
                .uri
                .query()
                .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("id=")));
            shared.generation(id.unwrap_or_default())
        }
        // Codex tries a websocket first; 426 sends it back to POST.
        (&Method::GET, "/v1/responses") => (
            426,
            responses::error("upgrade_required", "websockets are not served"),
        ),
        _ => (404, error_body(path, 404, &format!("no such path: {path}"))),
    }
}

async fn generation(
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

fn error_body(path: &str, status: u16, message: &str) -> Value {
    if path.starts_with("/v1/messages") {
        anthropic::error(anthropic::kind_of(status), message)
    } else {
        responses::error(responses::kind_of(status), message)
    }
}

/// An answer in one piece, recorded as complete.
fn whole(shared: &Shared, mut recorded: Recorded, status: u16, value: &Value) -> Answered {
    recorded.status = status;
    recorded.outcome = Outcome::Complete;
    recorded.sent = value.to_string().into_bytes();
    shared.add(recorded);
    json_response(status, value)
}

/// A JSON answer.
pub(super) fn json_response(status: u16, value: &Value) -> Answered {
    let body = Full::new(Bytes::from(value.to_string())).map_err(Cut::from);
    let mut response = Response::new(BoxBody::new(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
        .headers_mut()
        .insert("content-type", HeaderValue::from_static("application/json"));
    response
}

/// A record of a request whose body is still to come.
pub(super) fn begun(head: &http::request::Parts, at_ms: u64) -> Recorded {
    let header = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Recorded {
        seq: 0,
        at_ms,
        method: head.method.to_string(),
        path: head
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        headers: head
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), header(value)))
            .collect(),
        body: Bytes::new(),
        agent: Agent::of(
            head.headers
                .get("user-agent")
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default(),
        ),
        dialect: None,
        title: false,
        model: String::new(),
        prompt: String::new(),
        round: 0,
        rule: String::new(),
        status: 200,
        generation: String::new(),
        outcome: Outcome::Open,
        sent: Vec::new(),
    }
}
