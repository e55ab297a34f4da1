//! Both ends of a relayed WebSocket, each in the test's hands.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

/// A provider that speaks WebSocket.
pub(crate) struct Speaker {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Speaker {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    /// A proxy whose session has this provider.
    pub(crate) fn setup(&self) -> Setup {
        Setup {
            provider: Provider::OpenAi,
            bases: vec![format!("http://{}", self.address)],
            budget: None,
            websocket: true,
            configure: Box::new(|_| {}),
        }
    }

    /// Takes a connection to its handshake's end: the head that came, and the socket.
    pub(crate) async fn accept(&self) -> (Request, Peer) {
        let (stream, _) = within("a connection upstream", self.listener.accept())
            .await
            .unwrap();
        stream.set_nodelay(true).unwrap();
        let mut head = None;
        #[expect(clippy::result_large_err, reason = "the library's signature")]
        let look = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            head = Some(request.clone());
            let headers = response.headers_mut();
            headers.insert("x-request-id", "req_socket".parse().unwrap());
            headers.insert("x-codex-turn-state", "sticky".parse().unwrap());
            Ok(response)
        };
        let config = Some(WebSocketConfig::default().max_frame_size(Some(64 << 20)));
        let accepting = tokio_tungstenite::accept_hdr_async_with_config(stream, look, config);
        let socket = within("a handshake", accepting).await.unwrap();
        (head.unwrap(), Peer(socket))
    }
}

/// One end.
pub(crate) struct Peer(pub(crate) WebSocketStream<TcpStream>);

impl Peer {
    pub(crate) async fn say(&mut self, message: &Value) {
        self.text(message.to_string()).await;
    }

    pub(crate) async fn text(&mut self, text: String) {
        within("a message to leave", self.0.send(Message::text(text)))
            .await
            .unwrap();
    }

    pub(crate) async fn close(&mut self, frame: CloseFrame) {
        within("a close to leave", self.0.send(Message::Close(Some(frame))))
            .await
            .unwrap();
    }

    /// The next message but pings, or how the connection ended.
    pub(crate) async fn next(&mut self) -> Option<Result<Message, Error>> {
        within("a message", async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    next => return next,
                }
            }
        })
        .await
    }

    pub(crate) async fn hear_text(&mut self) -> String {
        match self.next().await {
            Some(Ok(Message::Text(text))) => text.to_string(),
            other => panic!("no text: {other:?}"),
        }
    }

    pub(crate) async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.hear_text().await).unwrap()
    }

    /// The close that comes next.
    pub(crate) async fn closed(&mut self) -> CloseFrame {
        match self.next().await {
            Some(Ok(Message::Close(Some(frame)))) => frame,
            other => panic!("no close: {other:?}"),
        }
    }
}

impl Proxy {
    /// A request to switch, as Codex makes it.
    pub(crate) fn handshake(&self, headers: &[(&str, &str)]) -> Request {
        let mut request = http::Request::builder()
            .uri(format!("ws://{}/v1/responses", self.address))
            .header("host", self.address.to_string())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header(
                "sec-websocket-extensions",
                "permessage-deflate; client_max_window_bits",
            )
            .header("openai-beta", "responses_websockets=2026-02-06")
            .header("authorization", format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    /// Switches; the answer's head, and the socket.
    pub(crate) async fn switch(&self) -> (http::HeaderMap, Peer) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let config = Some(WebSocketConfig::default().max_frame_size(Some(64 << 20)));
        let switching =
            tokio_tungstenite::client_async_with_config(self.handshake(&[]), stream, config);
        let (socket, response) = within("the switch", switching).await.unwrap();
        (response.headers().clone(), Peer(socket))
    }

    /// The status with which a switch is refused, and the answer's body.
    pub(crate) async fn switch_refused(&self, headers: &[(&str, &str)]) -> Reply {
        let request = self.handshake(headers);
        let mut text = format!("GET {} HTTP/1.1\r\n", request.uri().path());
        for (name, value) in request.headers() {
            text += &format!("{name}: {}\r\n", value.to_str().unwrap());
        }
        self.raw(format!("{text}\r\n").as_bytes()).await
    }
}

/// A socket from end to end: the client's, the provider's.
pub(crate) async fn joined(proxy: &Proxy, speaker: &Speaker) -> (Peer, Peer) {
    let ((_, client), (_, upstream)) = tokio::join!(proxy.switch(), speaker.accept());
    (client, upstream)
}

/// What Codex sends for a turn.
pub(crate) fn create(lane: Option<&str>) -> Value {
    let mut message = json!({"type": "response.create", "model": "gpt-5-codex", "store": false,
        "tools": [{"type": "function", "name": "exec_command"}],
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}]});
    if let Some(lane) = lane {
        message["stream_id"] = lane.into();
    }
    message
}

/// An event of a response, on its lane.
pub(crate) fn on(lane: Option<&str>, mut event: Value) -> Value {
    if let Some(lane) = lane {
        event["stream_id"] = lane.into();
    }
    event
}

pub(crate) fn created(id: &str) -> Value {
    json!({"type": "response.created", "response": {"id": id, "model": "gpt-5-codex", "status": "in_progress"}})
}

pub(crate) fn delta(text: &str) -> Value {
    json!({"type": "response.output_text.delta", "item_id": "msg_1", "delta": text})
}

pub(crate) fn completed(id: &str, input: u64, output: u64) -> Value {
    json!({"type": "response.completed", "response": {"id": id, "model": "gpt-5-codex", "status": "completed",
        "output": [], "usage": {"input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output, "total_tokens": input + output}}})
}
