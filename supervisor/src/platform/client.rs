//! One call to the platform: its head, its deadline, its answer. Mechanism only; who calls decides what follows.
//!
//! The token is put in here and nowhere else; errors are made of names, addresses and statuses. Redirects are not
//! followed, because the token is for one place.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, SizeHint};
use jiff::Timestamp;
use tokio::sync::watch;
use whim_proxies::http::dial::{Dialer, Target, TargetError};
use whim_proxies::http::pool::{self, BodyError, Pool};

use super::retry::{self, Kind};
use crate::config::Secret;

/// For one call, from the connection to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Largest answer, but for that of `spec`.
const ANSWER: usize = 64 * 1024;
/// Largest spec: skills of all layers and their escapes.
const SPEC: usize = 16 * 1024 * 1024;
/// What of a refusal's own words is shown.
const DETAIL: usize = 200;

/// A request's body, whole.
#[derive(Debug)]
struct Whole(Bytes);

impl Body for Whole {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

/// A call under `/tasks/{id}/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    Spec,
    Events,
    Ports,
    GitCredentials,
}

impl Call {
    fn method(self) -> Method {
        match self {
            Self::Spec => Method::GET,
            Self::Events | Self::GitCredentials => Method::POST,
            Self::Ports => Method::PUT,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Events => "events",
            Self::Ports => "ports",
            Self::GitCredentials => "git-credentials",
        }
    }

    fn limit(self) -> usize {
        match self {
            Self::Spec => SPEC,
            Self::Events | Self::Ports | Self::GitCredentials => ANSWER,
        }
    }
}

/// Why a call was of no use.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    /// `Retry-After`.
    pub(super) after: Option<Duration>,
    /// None: there was no answer.
    pub(super) status: Option<StatusCode>,
    /// Body of an answer that says more than its status (409).
    pub(super) body: Bytes,
    message: String,
}

impl Trouble {
    fn silent(message: String) -> Self {
        Self {
            kind: Kind::Passing,
            after: None,
            status: None,
            body: Bytes::new(),
            message,
        }
    }

    /// The same, but worth another try soon.
    pub(super) fn passing(self) -> Self {
        Self {
            kind: Kind::Passing,
            ..self
        }
    }

    /// An answer that is not understood.
    pub(super) fn confused(what: &str) -> Self {
        Self::silent(format!("the answer is not understood: {what}"))
    }
}

/// Makes calls for one task.
#[derive(Debug)]
pub(super) struct Client {
    pool: Arc<Pool<Whole>>,
    target: Target,
    host: HeaderValue,
    /// Path of everything about the task.
    base: String,
    token: Mutex<Secret>,
    /// Rises with every new token: whoever waits after a refusal need not wait any longer.
    tokens: watch::Sender<u64>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("--backend is no URL")]
    Url,
    #[error("--backend: {0}")]
    Target(#[from] TargetError),
}

impl Client {
    /// `url`: the API's base, without a slash at its end.
    pub(super) fn new(
        url: &str,
        task: &str,
        token: Secret,
        dialer: Dialer,
    ) -> Result<Self, SetupError> {
        let url: Uri = url.parse().map_err(|_| SetupError::Url)?;
        let target = Target::try_from(&url)?;
        let authority = url.authority().ok_or(SetupError::Url)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| SetupError::Url)?;
        Ok(Self {
            pool: Pool::new(dialer),
            target,
            host,
            base: format!("{}/tasks/{task}", url.path().trim_end_matches('/')),
            token: Mutex::new(token),
            tokens: watch::Sender::new(0),
        })
    }

    pub(super) fn rotate(&self, token: Secret) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
        self.tokens.send_modify(|count| *count += 1);
    }

    /// Changes when there is a new token.
    pub(super) fn tokens(&self) -> watch::Receiver<u64> {
        self.tokens.subscribe()
    }

    /// Makes the call; the body of a good answer.
    pub(super) async fn call(&self, call: Call, body: Bytes) -> Result<Bytes, Trouble> {
        match tokio::time::timeout(DEADLINE, self.exchange(call, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(Trouble::silent(format!(
                "{} did not answer within {} s",
                self.target,
                DEADLINE.as_secs()
            ))),
        }
    }

    async fn exchange(&self, call: Call, body: Bytes) -> Result<Bytes, Trouble> {
        let first = self
            .pool
            .call(&self.target, self.request(call, body.clone())?, false)
            .await;
        let answer = match first {
            // The connection's end was on its way already; all calls may be repeated.
            Err(pool::CallError::Ended { reused: true, .. }) => {
                let again = self.request(call, body)?;
                self.pool.call(&self.target, again, true).await
            }
            answer => answer,
        };
        let answer = answer.map_err(|error| Trouble::silent(chain(&error)))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, call.limit()).collect().await;
        let body = body
            .map_err(|error| Trouble::silent(format!("the answer broke off: {}", chain(&*error))))?
            .to_bytes();
        if head.status.is_success() {
            return Ok(body);
        }
        let after = head.headers.get(header::RETRY_AFTER);
        let after = after.and_then(|value| value.to_str().ok());
        let status = head.status;
        Err(Trouble {
            kind: kind(status),
            after: after.and_then(|value| retry::retry_after(value, Timestamp::now())),
            status: Some(status),
            message: format!("{} answered {status}{}", self.target, detail(&body)),
            body,
        })
    }

    fn request(&self, call: Call, body: Bytes) -> Result<Request<Whole>, Trouble> {
        let token = self
            .token
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let unusable = |_| Trouble::silent("the token cannot stand in a header".into());
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {}", token.expose())).map_err(unusable)?;
        authorization.set_sensitive(true);
        let mut request = Request::builder()
            .method(call.method())
            .uri(format!("{}/{}", self.base, call.path()))
            .header(header::HOST, self.host.clone())
            .header(header::AUTHORIZATION, authorization)
            .header(header::ACCEPT, "application/json")
            .header(
                header::USER_AGENT,
                concat!("whim/", env!("CARGO_PKG_VERSION")),
            );
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Whole(body))
            .map_err(|error| Trouble::silent(error.to_string()))
    }
}

/// What stays as it is until somebody changes something, and what passes.
fn kind(status: StatusCode) -> Kind {
    let passing = status.is_server_error()
        || matches!(
            status,
            StatusCode::REQUEST_TIMEOUT
                | StatusCode::CONFLICT
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS
        );
    if passing {
        Kind::Passing
    } else {
        Kind::Refused
    }
}

/// The platform's own words about a refusal, if it has any: for people, so cut and without control characters.
fn detail(body: &[u8]) -> String {
    let problem: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let words = ["detail", "title"]
        .iter()
        .find_map(|name| problem.get(name)?.as_str());
    words.map_or_else(String::new, |words| {
        let words: String = words
            .chars()
            .filter(|letter| !letter.is_control())
            .take(DETAIL)
            .collect();
        format!(": {words}")
    })
}

/// An error with its causes: the last of them is the one that helps.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_and_what_stays() {
        for status in [408, 409, 429, 500, 502, 503, 504] {
            assert_eq!(kind(StatusCode::from_u16(status).unwrap()), Kind::Passing);
        }
        for status in [301, 307, 400, 401, 403, 404, 410, 422] {
            assert_eq!(kind(StatusCode::from_u16(status).unwrap()), Kind::Refused);
        }
    }

    #[test]
    fn a_refusals_words_are_cut_and_cleaned() {
        let long = serde_json::json!({"detail": format!("a\u{1b}[31m{}", "b".repeat(900))});
        let shown = detail(long.to_string().as_bytes());
        assert!(
            shown.starts_with(": a[31mb") && shown.len() < 210,
            "{shown}"
        );
        assert_eq!(detail(b"<html>"), "");
        assert_eq!(detail(br#"{"title":"No such task"}"#), ": No such task");
    }
}
