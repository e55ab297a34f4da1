//! `GET /v1/events`: the journal as a list, as lines, or as an event stream that goes on.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Shared;
use super::access::Reader;
use super::problem::Problem;
use crate::journal::{Delivery, Entry, Subscription};

/// Events of a list when no limit is given.
const DEFAULT: usize = 100;
/// Most events of one list.
const MOST: usize = 10_000;
/// A comment keeps connections alive through proxies that cut silent ones.
const BEAT: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    after: Option<u64>,
    limit: Option<usize>,
    /// With lines: go on as events come.
    #[serde(default)]
    follow: bool,
}

/// How events are written.
#[derive(Clone, Copy)]
enum Form {
    /// `text/event-stream`.
    Stream,
    /// `application/x-ndjson`.
    Lines,
}

pub(super) async fn get(
    _: Reader,
    State(api): Shared,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let accepts = |kind: &str| {
        let accept = headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        accept.contains(kind)
    };
    let journal = api.board.journal();
    if accepts("text/event-stream") {
        let resumed = headers
            .get("last-event-id")
            .and_then(|id| id.to_str().ok()?.trim().parse().ok());
        return Ok(follow(
            journal.subscribe(resumed.or(wanted.after)),
            Form::Stream,
        ));
    }
    if accepts("application/x-ndjson") && wanted.follow {
        return Ok(follow(journal.subscribe(wanted.after), Form::Lines));
    }
    let limit = wanted.limit.unwrap_or(DEFAULT).min(MOST);
    let after = match wanted.after {
        Some(after) => after,
        // Without a number the newest are meant.
        None => journal.position().saturating_sub(limit as u64),
    };
    let journal = journal.clone();
    let page = tokio::task::spawn_blocking(move || journal.page(after, limit))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| Problem::internal(&error))?;
    if accepts("application/x-ndjson") {
        let mut lines = String::new();
        for entry in &page.entries {
            lines.push_str(&entry.json);
            lines.push('\n');
        }
        return Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response());
    }
    let events: Vec<Value> = page
        .entries
        .iter()
        .filter_map(|entry| serde_json::from_str(&entry.json).ok())
        .collect();
    Ok(Json(json!({ "events": events })).into_response())
}

fn follow(subscription: Subscription, form: Form) -> Response {
    let kind = match form {
        Form::Stream => "text/event-stream",
        Form::Lines => "application/x-ndjson",
    };
    let body = stream::unfold(subscription, move |mut subscription| async move {
        let piece = match tokio::time::timeout(BEAT, subscription.next()).await {
            Ok(Some(Ok(delivery))) => written(&delivery, form),
            Ok(Some(Err(error))) => {
                tracing::error!(%error, "the journal's past cannot be read");
                return None;
            }
            Ok(None) => return None,
            Err(_) => beat(form).to_owned(),
        };
        Some((Ok::<_, Infallible>(Bytes::from(piece)), subscription))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx in between would collect events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

fn written(delivery: &Delivery, form: Form) -> String {
    match (delivery, form) {
        (Delivery::Event(entry), Form::Stream) => {
            let Entry { seq, json, .. } = entry.as_ref();
            let kind = serde_json::from_str::<Value>(json).ok();
            let kind = kind
                .as_ref()
                .and_then(|event| event.get("type")?.as_str())
                .unwrap_or("event");
            format!("id: {seq}\nevent: {kind}\ndata: {json}\n\n")
        }
        (Delivery::Event(entry), Form::Lines) => format!("{}\n", entry.json),
        (Delivery::Missing { first, last }, Form::Stream) => {
            let data = json!({"type": "events.missing", "first": first, "last": last});
            format!("id: {last}\nevent: events.missing\ndata: {data}\n\n")
        }
        (Delivery::Missing { first, last }, Form::Lines) => {
            format!(
                "{}\n",
                json!({"type": "events.missing", "first": first, "last": last})
            )
        }
    }
}

fn beat(form: Form) -> &'static str {
    match form {
        Form::Stream => ": alive\n\n",
        // An empty line is no JSON document and is skipped by readers of lines.
        Form::Lines => "\n",
    }
}
