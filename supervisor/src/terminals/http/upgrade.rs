//! The opening handshake of a WebSocket (RFC 6455 §4.2), with real statuses on refusal.

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::problem::Problem;

/// Largest message from a client (CONTRACT §6c).
pub(super) const MAX_MESSAGE: usize = 1 << 20;
/// Idle connections keep this much for reading.
const READ_BUFFER: usize = 4 << 10;

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// ttyd's, byte for byte.
    Tty,
    /// With offsets, snapshots, size ownership and exit.
    TtyV2,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tty => "tty",
            Self::TtyV2 => "tty.v2",
        }
    }
}

pub(super) type Socket = WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// A request that may become a WebSocket.
#[derive(Debug)]
pub(super) struct Upgrade {
    protocol: Protocol,
    accept: HeaderValue,
    pending: OnUpgrade,
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|value| value.eq_ignore_ascii_case(token))
}

fn tokens(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let headers = &parts.headers;
        let required = || {
            Problem::new(
                StatusCode::UPGRADE_REQUIRED,
                "this address speaks WebSocket, version 13",
            )
            .with(header::UPGRADE, "websocket")
            .with(header::CONNECTION, "upgrade")
            .with(header::SEC_WEBSOCKET_VERSION, "13")
        };
        let asked = parts.method == Method::GET
            && has_token(headers, header::CONNECTION, "upgrade")
            && has_token(headers, header::UPGRADE, "websocket");
        let version = headers
            .get(header::SEC_WEBSOCKET_VERSION)
            .is_some_and(|value| value == "13");
        if !asked || !version {
            return Err(required());
        }
        let bad = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .filter(|key| key.len() == 24)
            .ok_or_else(|| bad("Sec-WebSocket-Key is missing or malformed"))?;
        let protocol = {
            let offered = |wanted: Protocol| {
                tokens(headers, header::SEC_WEBSOCKET_PROTOCOL).any(|name| name == wanted.name())
            };
            [Protocol::TtyV2, Protocol::Tty]
                .into_iter()
                .find(|protocol| offered(*protocol))
                .ok_or_else(|| bad("offer the subprotocol tty or tty.v2"))?
        };
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
            .map_err(|_| bad("Sec-WebSocket-Key is malformed"))?;
        let pending = parts
            .extensions
            .remove::<OnUpgrade>()
            .ok_or_else(required)?;
        Ok(Self {
            protocol,
            accept,
            pending,
        })
    }
}

impl Upgrade {
    /// Answers 101 and runs `serve` on the connection once it is a WebSocket.
    pub(super) fn accept<F>(
        self,
        serve: impl FnOnce(Socket, Protocol) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Self {
            protocol,
            accept,
            pending,
        } = self;
        tokio::spawn(async move {
            match pending.await {
                Ok(upgraded) => {
                    let config = WebSocketConfig::default()
                        .read_buffer_size(READ_BUFFER)
                        .write_buffer_size(0)
                        .max_message_size(Some(MAX_MESSAGE))
                        .max_frame_size(Some(MAX_MESSAGE));
                    let io = TokioIo::new(upgraded);
                    let socket =
                        WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
                    serve(socket, protocol).await;
                }
                Err(error) => tracing::debug!(%error, "the client left during the upgrade"),
            }
        });
        let headers = [
            (header::UPGRADE, HeaderValue::from_static("websocket")),
            (header::CONNECTION, HeaderValue::from_static("upgrade")),
            (header::SEC_WEBSOCKET_ACCEPT, accept),
            (
                header::SEC_WEBSOCKET_PROTOCOL,
                HeaderValue::from_static(protocol.name()),
            ),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    }
}
