//! The wire: connections, heads, and which rule answers.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::books::{Books, Call, Taken, Trouble};
use super::{PREFIX, Shared, objects, schema};

/// Largest body of the document's (a batch of events).
const MAX_BODY: usize = 1024 * 1024;

/// Serves until the task is dropped, and all connections with it.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                // An error here is of the one connection, not of the listener.
                Err(_) => continue,
            },
            Some(_) = connections.join_next() => continue,
        };
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, std::convert::Infallible>(answer(request, &shared).await) }
            });
            // How a connection ends is the client's affair.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_secs(60))
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
    }
}

struct Answer {
    status: u16,
    body: Value,
    retry_after: Option<u64>,
}

impl Answer {
    fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            body,
            retry_after: None,
        }
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if let Some(place) = objects::place(&head, shared) {
        return objects::answer(&head, body, &place, shared).await;
    }
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => {
            let path = head.uri.path().to_owned();
            shared
                .books()
                .violation(format!("{path}: a body over 1 MiB, or a broken one"));
            return response(&Answer::new(413, json!({"detail": "too large"})));
        }
    };
    let answer = match checked(&head, &body, shared) {
        Ok((call, body, token)) => {
            let trouble = {
                let mut books = shared.books();
                let queue = books.troubles.entry(call).or_default();
                queue.pop_front()
            };
            let answer = troubled(call, &body, trouble, shared).await;
            record(shared, call, body, token, answer.status);
            answer
        }
        Err(answer) => answer,
    };
    response(&answer)
}

/// The rules for every call; the call, its body and its token.
fn checked(
    head: &http::request::Parts,
    body: &Bytes,
    shared: &Shared,
) -> Result<(Call, Value, String), Answer> {
    let wrong = |status: u16, what: String| {
        let what = format!("{} {}: {what}", head.method, head.uri);
        shared.books().violation(what.clone());
        Answer::new(status, json!({"detail": what}))
    };
    let operation = operation(head, shared)
        .ok_or_else(|| wrong(404, "no such path or method in the document".into()))?;
    let name = operation.get("operationId").and_then(Value::as_str);
    let call = name.and_then(Call::of).ok_or_else(|| {
        wrong(
            500,
            "the document has an operation that is not served".into(),
        )
    })?;
    let text = |name: header::HeaderName| {
        let value = head.headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let token = text(header::AUTHORIZATION)
        .and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned))
        .ok_or_else(|| wrong(401, "no bearer token".into()))?;
    if text(header::HOST).is_none() {
        return Err(wrong(400, "no Host".into()));
    }
    let wanted = operation.pointer("/requestBody/content/application~1json/schema");
    let value = match wanted {
        None if body.is_empty() => Value::Null,
        None => return Err(wrong(422, "a body that the document does not have".into())),
        Some(wanted) => {
            if text(header::CONTENT_TYPE).as_deref() != Some("application/json") {
                return Err(wrong(415, "the body is not said to be JSON".into()));
            }
            let value: Value = serde_json::from_slice(body)
                .map_err(|error| wrong(400, format!("no JSON: {error}")))?;
            let misfits = schema::check(&shared.document, wanted, &value);
            if !misfits.is_empty() {
                return Err(wrong(422, misfits.join("; ")));
            }
            value
        }
    };
    // Last, so that what is sent with an old token is checked all the same.
    let good = token == shared.books().token;
    if !good {
        record(shared, call, value, token, 401);
        return Err(Answer::new(401, json!({"title": "Unknown token"})));
    }
    Ok((call, value, token))
}

/// The document's operation for this request.
fn operation<'a>(head: &http::request::Parts, shared: &'a Shared) -> Option<&'a Value> {
    if head.uri.query().is_some() {
        return None;
    }
    let path = head.uri.path().strip_prefix(PREFIX)?;
    let template = path.replacen(&format!("/tasks/{}/", shared.task), "/tasks/{id}/", 1);
    let operations = shared.document.get("paths")?.get(&template)?;
    operations.get(head.method.as_str().to_ascii_lowercase())
}

async fn troubled(call: Call, body: &Value, trouble: Option<Trouble>, shared: &Shared) -> Answer {
    match trouble {
        None => semantic(call, body, shared),
        Some(Trouble::Status(status)) => Answer::new(status, json!({"title": "As was asked for"})),
        Some(Trouble::Later(status, seconds)) => Answer {
            retry_after: Some(seconds),
            ..Answer::new(status, json!({"title": "Later"}))
        },
        Some(Trouble::Unheard(status)) => {
            let done = semantic(call, body, shared);
            Answer::new(
                if done.status < 400 {
                    status
                } else {
                    done.status
                },
                Value::Null,
            )
        }
        Some(Trouble::Slow(time)) => {
            tokio::time::sleep(time).await;
            semantic(call, body, shared)
        }
        Some(Trouble::Silence) => {
            record(shared, call, body.clone(), String::new(), 0);
            std::future::pending().await
        }
    }
}

/// What the call means.
fn semantic(call: Call, body: &Value, shared: &Shared) -> Answer {
    let mut books = shared.books();
    match call {
        Call::Spec => match &books.spec {
            Some(spec) => Answer::new(200, spec.clone()),
            None => Answer::new(404, json!({"title": "No spec"})),
        },
        Call::Events => {
            let (status, answer) = books.batch(body);
            Answer::new(status, answer)
        }
        Call::Ports => {
            books.ports = body.get("ports").and_then(Value::as_array).cloned();
            Answer::new(204, Value::Null)
        }
        // These have bodies of their own: see `objects`.
        Call::Workspace
        | Call::BackupList
        | Call::BackupGet
        | Call::BackupPut
        | Call::BackupDelete => Answer::new(500, Value::Null),
        Call::GitCredentials => {
            let Some((username, life)) = books.login.clone() else {
                return Answer::new(404, json!({"title": "No repository"}));
            };
            books.logins += 1;
            let password = Books::password(books.logins);
            let end = SystemTime::now() + life;
            Answer::new(
                200,
                json!({"username": username, "password": password, "expires_at": rfc3339(end)}),
            )
        }
    }
}

pub(super) fn record(shared: &Shared, call: Call, body: Value, token: String, status: u16) {
    let at_ms = u64::try_from(shared.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    shared.books().calls.push(Taken {
        call,
        status,
        body,
        token,
        at_ms,
    });
    shared.changed.notify_all();
}

fn response(answer: &Answer) -> Response<Full<Bytes>> {
    let text = match &answer.body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content = if answer.status < 400 {
        "application/json"
    } else {
        "application/problem+json"
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    if let Some(seconds) = answer.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// UTC with milliseconds (days to a date: <https://howardhinnant.github.io/date_algorithms.html>, `civil_from_days`).
pub(super) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let days = i64::try_from(seconds / 86_400).unwrap_or(0) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day() {
        let at = |seconds: u64| rfc3339(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7));
        assert_eq!(at(0), "1970-01-01T00:00:00.007Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_795_316_645), "2026-11-22T03:04:05.007Z");
    }
}
