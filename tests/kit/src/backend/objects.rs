//! The objects of backups: bytes under a name, put once; and those of the workspace's other tasks, to be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::books::{Call, Trouble};
use super::serve::{record, rfc3339};
use super::{PREFIX, Shared};

/// Largest object of the document's.
const MAX_OBJECT: usize = 16 * 1024 * 1024;
/// Objects of a page: few, so that a client that reads only the first one is found out.
const PAGE: usize = 3;

/// What is kept: content and time, by kind and name.
pub(super) type Objects = BTreeMap<String, (Bytes, String)>;

/// What a path means.
pub(super) struct Place {
    /// Whose it is; none: of the task that asks.
    owner: Option<Arc<Shared>>,
    /// The part after `backups/`, or [`WORKSPACE`].
    name: String,
}

/// The listing of tasks.
const WORKSPACE: &str = "workspace";

/// `None`: it is about something else, or of a task that this one may not see.
pub(super) fn place(head: &Parts, shared: &Shared) -> Option<Place> {
    let path = head.uri.path().strip_prefix(PREFIX)?;
    let (task, rest) = path.strip_prefix("/tasks/")?.split_once('/')?;
    let owner = if task == shared.task {
        None
    } else {
        let mut beside = shared.beside().into_iter();
        Some(beside.find(|other| other.task == task)?)
    };
    let name = match rest.strip_prefix("backups/") {
        Some(name) => name,
        None if rest == WORKSPACE && owner.is_none() => WORKSPACE,
        None => return None,
    };
    Some(Place {
        owner,
        name: name.to_owned(),
    })
}

pub(super) async fn answer(
    head: &Parts,
    body: Incoming,
    place: &Place,
    shared: &Shared,
) -> Response<Full<Bytes>> {
    let wrong = |status: u16, what: &str| {
        let what = format!("{} {}: {what}", head.method, head.uri);
        shared.books().violation(what.clone());
        respond(status, json!({"detail": what}).to_string().into())
    };
    let Ok(body) = Limited::new(body, MAX_OBJECT).collect().await else {
        return wrong(413, "an object over 16 MiB, or a broken one");
    };
    let body = body.to_bytes();
    let known = |kind: &str| matches!(kind, "segments" | "manifests");
    let plain = |name: &str| {
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=128).contains(&name.len()) && name.bytes().all(byte)
    };
    let own = place.owner.is_none();
    let call = match (place.name.split_once('/'), &head.method) {
        (None, &Method::GET) if place.name == WORKSPACE => Call::Workspace,
        (None, &Method::GET) if known(&place.name) => Call::BackupList,
        (Some((kind, name)), method) if known(kind) && plain(name) => match *method {
            Method::GET => Call::BackupGet,
            Method::PUT if own => Call::BackupPut,
            Method::DELETE if own => Call::BackupDelete,
            _ => return wrong(404, "no such method in the document"),
        },
        _ => return wrong(404, "no such path in the document"),
    };
    let text = |name: header::HeaderName| head.headers.get(name)?.to_str().ok();
    let token = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    let Some(token) = token else {
        return wrong(401, "no bearer token");
    };
    if call == Call::BackupPut && text(header::IF_NONE_MATCH) != Some("*") {
        return wrong(428, "a put that would replace");
    }
    if token != shared.books().token {
        record(shared, call, Value::Null, token.to_owned(), 401);
        return respond(401, Bytes::new());
    }
    let trouble = shared.books().troubles.entry(call).or_default().pop_front();
    let (status, content) = match trouble {
        Some(Trouble::Status(status) | Trouble::Later(status, _)) => (status, Bytes::new()),
        Some(Trouble::Silence) => return std::future::pending().await,
        Some(Trouble::Slow(time)) => {
            tokio::time::sleep(time).await;
            done(call, head, place, body, shared)
        }
        Some(Trouble::Unheard(status)) => {
            let (_, content) = done(call, head, place, body, shared);
            (status, content)
        }
        None => done(call, head, place, body, shared),
    };
    record(shared, call, Value::Null, token.to_owned(), status);
    respond(status, content)
}

fn done(call: Call, head: &Parts, place: &Place, body: Bytes, shared: &Shared) -> (u16, Bytes) {
    if call == Call::Workspace {
        return workspace(head, shared);
    }
    let owner = place.owner.as_deref().unwrap_or(shared);
    let place = place.name.as_str();
    let mut books = owner.books();
    match call {
        Call::BackupPut if books.objects.contains_key(place) => (412, Bytes::new()),
        Call::BackupPut => {
            let now = rfc3339(SystemTime::now());
            books.objects.insert(place.to_owned(), (body, now));
            (201, Bytes::new())
        }
        Call::BackupGet => match books.objects.get(place) {
            Some((content, _)) => (200, content.clone()),
            None => (404, Bytes::new()),
        },
        Call::BackupDelete => {
            books.objects.remove(place);
            (204, Bytes::new())
        }
        _ => {
            let after = format!("{place}/{}", after(head));
            let prefix = format!("{place}/");
            let above = books
                .objects
                .range(after.clone()..)
                .filter(|(name, _)| **name != after);
            let mut found = above.filter_map(|(name, (content, modified))| {
                let name = name.strip_prefix(&prefix)?;
                Some(json!({"name": name, "bytes": content.len(), "modified": modified}))
            });
            let page: Vec<Value> = found.by_ref().take(PAGE).collect();
            let more = found.next().is_some();
            (
                200,
                json!({"objects": page, "more": more}).to_string().into(),
            )
        }
    }
}

fn after(head: &Parts) -> &str {
    let query = head.uri.query();
    let after = query.and_then(|query| query.strip_prefix("after="));
    after.unwrap_or_default()
}

/// Tasks with backups, one a page: so that a client that reads only the first is found out.
fn workspace(head: &Parts, shared: &Shared) -> (u16, Bytes) {
    let beside = shared.beside();
    if beside.is_empty() {
        return (404, Bytes::new());
    }
    let all = beside.iter().map(AsRef::as_ref).chain([shared]);
    let all = all.filter(|one| !one.books().objects.is_empty());
    let mut above: Vec<&str> = all.map(|one| one.task.as_str()).collect();
    above.retain(|task| *task > after(head));
    above.sort_unstable();
    let more = above.len() > 1;
    above.truncate(1);
    (
        200,
        json!({"tasks": above, "more": more}).to_string().into(),
    )
}

fn respond(status: u16, content: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(content));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
