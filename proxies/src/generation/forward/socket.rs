//! The handshakes of a WebSocket: the upstream's first, so that the client hears from it why there is none.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::super::body::RequestBody;
use super::super::metered::AnswerBody;
use super::super::provider::{Upstream, shown};
use super::super::refuse::Refusal;
use super::super::socket::{Relay, Sockets};
use super::head::answered;
use super::{Answered, Forward, own, refuse_early, unreachable};
use crate::http::switch::{Switched, switch};

const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADES: HeaderValue = HeaderValue::from_static("upgrade");
const VERSION: HeaderValue = HeaderValue::from_static("13");

impl Forward {
    /// Opens a WebSocket upstream, and then the client's.
    pub(super) async fn socket(mut self, sockets: &Sockets) -> Answered {
        let Some(upstream) = self.upstream(0).filter(|u| u.websocket()).cloned() else {
            return self.not_spoken();
        };
        let Some(accept) = accept_of(&self.parts.headers) else {
            let message = "the WebSocket's handshake is not that of RFC 6455, version 13";
            return self.refuse(&Refusal::invalid(
                StatusCode::BAD_REQUEST,
                message.to_owned(),
            ));
        };
        let pending = self.parts.extensions.remove::<OnUpgrade>();
        let (Some(pending), Some(slot)) = (pending, sockets.slot()) else {
            let message = "too many WebSockets are open; use HTTP".to_owned();
            return self.refuse(&Refusal::unavailable(message));
        };
        let mut request = match self.head(&upstream, RequestBody::whole(&[]), false) {
            Ok(request) => request,
            Err(refusal) => return self.refuse(&refusal),
        };
        let key = generate_key();
        let Ok(key_header) = HeaderValue::from_str(&key) else {
            return self.refuse(&Refusal::unavailable("no key can be made".to_owned()));
        };
        let shown = shown(request.headers());
        let headers = request.headers_mut();
        // The client's subprotocols among them, in which browsers carry credentials.
        remove_handshake(headers);
        headers.insert(CONNECTION, UPGRADES);
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
        headers.insert(SEC_WEBSOCKET_KEY, key_header);
        let asking = switch(self.proxy.pool.dialer(), &upstream.target, request);
        let (head, switched) = match timeout(self.proxy.limits.head, asking).await {
            Ok(Ok(Switched::Yes(head, switched))) => (head, switched),
            Ok(Ok(Switched::No(mut head, body))) => {
                head.headers.remove(TRANSFER_ENCODING);
                head.headers
                    .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                let body = (!body.is_empty()).then_some(body);
                return answered(head, AnswerBody::Own(body));
            }
            Ok(Err(error)) => return self.refuse(&unreachable(&upstream, &error)),
            Err(_) => {
                let message = format!("{} did not answer in time", upstream.target);
                return self.refuse(&Refusal::upstream(StatusCode::GATEWAY_TIMEOUT, message));
            }
        };
        let agreed = head
            .headers
            .get(SEC_WEBSOCKET_ACCEPT)
            .map(HeaderValue::as_bytes)
            == Some(derive_accept_key(key.as_bytes()).as_bytes());
        let unasked = [SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL];
        if !agreed || unasked.iter().any(|name| head.headers.contains_key(name)) {
            let message = format!("{} switched to another protocol", upstream.target);
            return self.refuse(&Refusal::upstream(StatusCode::BAD_GATEWAY, message));
        }
        let mut response = answered(head, AnswerBody::Own(None));
        let headers = response.headers_mut();
        remove_handshake(headers);
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONNECTION, UPGRADES);
        headers.insert(UPGRADE, WEBSOCKET);
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        let relay = self.into_relay(upstream, shown, response.headers());
        sockets.relay(slot, relay, pending, switched);
        response
    }

    fn into_relay(self, upstream: Upstream, shown: HeaderMap, answered: &HeaderMap) -> Relay {
        let request_id = answered
            .get("x-request-id")
            .and_then(|id| id.to_str().ok())
            .map(|id| id.chars().take(256).collect());
        Relay {
            agent_session: self.agent_session(),
            proxy: self.proxy,
            headers: self.parts.headers,
            upstream,
            shown,
            path: self.path,
            request_id,
        }
    }

    fn refuse(&self, refusal: &Refusal) -> Answered {
        refuse_early(refusal, self.format)
    }

    /// 426: Codex uses HTTP then, at once.
    fn not_spoken(&self) -> Answered {
        let message = format!(
            "no WebSocket is known to be spoken by {}; use HTTP",
            self.provider
        );
        let refusal = Refusal::invalid(StatusCode::UPGRADE_REQUIRED, message);
        let mut response: Response<Bytes> = refusal.response(self.format);
        response
            .headers_mut()
            .insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
        own(response)
    }
}

/// The answer to a client's key, if its handshake is one (RFC 6455 4.2.1).
fn accept_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let key = headers.get(SEC_WEBSOCKET_KEY)?;
    let version = headers.get(SEC_WEBSOCKET_VERSION)?;
    if version != VERSION || key.len() != 24 {
        return None;
    }
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

/// Removes what is about one connection's frames.
fn remove_handshake(headers: &mut HeaderMap) {
    for name in [
        SEC_WEBSOCKET_ACCEPT,
        SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION,
    ] {
        headers.remove(name);
    }
}
