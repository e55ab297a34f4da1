//! The provider's side of the wire: paths, heads, and which format answers.
//!
//! Takes connections without limit of number (a test decides how many it opens), request bodies up to [`MAX_BODY`], and
//! 30 s for a request's head.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::conversation::{Agent, Dialect};
use super::generate::generation;
use super::play::Cut;
use super::record::{Outcome, Recorded};
use super::shared::Shared;
use super::{anthropic, responses, socket};

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
            .with_upgrades()
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
    let socket = head.method == Method::GET && path == "/v1/responses" && shared.websocket();
    if socket && let Some(switching) = socket::switch(&shared, head.clone(), Arc::clone(&second)) {
        return Ok(switching);
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
        // Codex tries a WebSocket first; 426 sends it back to POST.
        (&Method::GET, "/v1/responses") => (
            426,
            responses::error("upgrade_required", "WebSockets are not served"),
        ),
        _ => (404, error_body(path, 404, &format!("no such path: {path}"))),
    }
}

/// The body of an error, in the shape of the path's provider.
pub(super) fn error_body(path: &str, status: u16, message: &str) -> Value {
    if path.starts_with("/v1/messages") {
        anthropic::error(anthropic::kind_of(status), message)
    } else {
        responses::error(responses::kind_of(status), message)
    }
}

/// An answer in one piece, recorded as complete.
pub(super) fn whole(
    shared: &Shared,
    mut recorded: Recorded,
    status: u16,
    value: &Value,
) -> Answered {
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
