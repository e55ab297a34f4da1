//! Asks a provider whether it is there and takes the key, by a question that costs nothing.
//!
//! `GET /v1/models`, on the same way out (resolver, outbound proxy, certificates) and with the same key as the agents'
//! calls. OpenRouter lists its models to everyone, but those of `/v1/models/user` only to the key's owner. Only what is
//! certain is told: 401 refuses the key; 403 may mean that a key may call models but not list them, and Anthropic's
//! subscription tokens are not made for this path at all. The answer's body is not read. Nothing of this reaches ledger,
//! budget or activity.

use std::time::Duration;

use http::header::{HOST, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use tokio::time::timeout;

use super::body::RequestBody;
use super::provider::{Provider, Upstream};
use super::proxy::GenerationProxy;
use super::route::Operation;

/// The version of the API without which Anthropic answers nothing but an error.
const ANTHROPIC_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("anthropic-version"),
    HeaderValue::from_static("2023-06-01"),
);

/// What is known of a provider before the first call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It is there, and nothing speaks against the key.
    Good,
    /// No key is set for it.
    NoKey,
    /// It is there and does not take the key.
    Refused,
    /// It is there and has trouble of its own.
    Trouble(StatusCode),
    /// It is there and did not answer in this time.
    Silent(Duration),
    /// It is not there, or the way to it is not; in words.
    Unreachable(String),
}

impl GenerationProxy {
    /// Whether a connection to `upstream` comes about, on the same way out; nothing is said on it.
    pub async fn connects(&self, upstream: &Upstream) -> bool {
        self.pool.dialer().dial(&upstream.target).await.is_ok()
    }

    /// Asks `upstream`; an answer that takes longer than `patience` is none.
    pub async fn probe(&self, upstream: &Upstream, patience: Duration) -> Probe {
        let mut request = Request::new(RequestBody::whole(&[]));
        *request.method_mut() = Method::GET;
        let path = match upstream.provider {
            Provider::OpenRouter => "/v1/models/user",
            Provider::Anthropic | Provider::OpenAi | Provider::Compatible => "/v1/models",
        };
        match upstream.path(path, None).parse() {
            Ok(uri) => *request.uri_mut() = uri,
            Err(error) => return Probe::Unreachable(format!("{}: {error}", upstream.target)),
        }
        let headers = request.headers_mut();
        headers.insert(HOST, upstream.host().clone());
        if upstream.provider == Provider::Anthropic {
            let (name, value) = ANTHROPIC_VERSION;
            headers.insert(name, value);
        }
        if !self
            .credentials
            .apply(upstream.provider, Operation::Models, headers)
        {
            return Probe::NoKey;
        }
        let subscription = upstream.provider == Provider::Anthropic
            && headers.contains_key(http::header::AUTHORIZATION);
        let call = self.pool.call(&upstream.target, request, true);
        match timeout(patience, call).await {
            Ok(Ok(answer)) => judge(answer.status(), subscription),
            Ok(Err(error)) => Probe::Unreachable(format!("{}: {}", upstream.target, chain(&error))),
            Err(_) => Probe::Silent(patience),
        }
    }
}

fn judge(status: StatusCode, subscription: bool) -> Probe {
    match status {
        StatusCode::UNAUTHORIZED if !subscription => Probe::Refused,
        status if status.is_server_error() => Probe::Trouble(status),
        _ => Probe::Good,
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_told() {
        for (status, subscription, wanted) in [
            (200, false, Probe::Good),
            (401, false, Probe::Refused),
            (401, true, Probe::Good),
            (403, false, Probe::Good),
            (404, false, Probe::Good),
            (429, false, Probe::Good),
            (503, false, Probe::Trouble(StatusCode::SERVICE_UNAVAILABLE)),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(judge(status, subscription), wanted, "{status}");
        }
    }
}
