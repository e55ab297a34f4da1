//! The WebSocket of the Responses API (<https://developers.openai.com/api/docs/guides/websocket-mode>).
//!
//! Every `response.create` is answered as `POST /v1/responses` would be, faults, gates and pace included, its events as
//! messages: requests of one lane (`stream_id`) in order, those of different lanes at the same time. What a request
//! continues (`previous_response_id`) is put before its input, so that the script sees the whole conversation and the
//! record holds it. A warm-up (`generate: false`) is answered with nothing, and is no turn. The events of Codex that ask
//! for nothing are taken; all others are errors.

#![expect(
    clippy::indexing_slicing,
    reason = "assigning to a field of a JSON object that was made an object here cannot panic"
)]

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::conversation::Dialect;
use super::generate::generation;
use super::record::Outcome;
use super::responses;
use super::serve::Answered;
use super::shared::{Shared, locked};

const PATH: &str = "/v1/responses";
/// As much as the proxies let through.
const MAX_MESSAGE: usize = 64 << 20;

/// Requests that wait on a lane; then nothing more is read.
const QUEUE: usize = 64;

/// What goes out on a socket.
enum Out {
    Event(Value),
    /// The script cuts the connection here.
    Cut,
}

/// One connection, as its lanes see it.
struct Socket {
    shared: Arc<Shared>,
    head: Parts,
    connection: Arc<OwnedFd>,
    out: mpsc::Sender<Out>,
    /// Whole conversations, by the response that ended them.
    known: Mutex<HashMap<String, Vec<Value>>>,
}

/// Switches, and serves the socket on a task of its own; none if the request asks for no WebSocket.
pub(super) fn switch(
    shared: &Arc<Shared>,
    mut head: Parts,
    connection: Arc<OwnedFd>,
) -> Option<Answered> {
    let pending = head.extensions.remove::<OnUpgrade>()?;
    let key = head.headers.get(SEC_WEBSOCKET_KEY)?;
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()?;
    let shared = Arc::clone(shared);
    drop(tokio::spawn(async move {
        // A client that left before the switch is nobody's loss.
        if let Ok(upgraded) = pending.await {
            let config = WebSocketConfig::default()
                .max_message_size(Some(MAX_MESSAGE))
                .max_frame_size(Some(MAX_MESSAGE));
            let io = TokioIo::new(upgraded);
            let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
            serve(socket, shared, head, connection).await;
        }
    }));
    let nothing = Empty::<Bytes>::new().map_err(Into::into);
    let mut response = Response::new(BoxBody::new(nothing));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Some(response)
}

async fn serve(
    stream: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    shared: Arc<Shared>,
    head: Parts,
    connection: Arc<OwnedFd>,
) {
    let (mut sink, mut stream) = stream.split();
    let (out, mut outs) = mpsc::channel(1);
    let socket = Arc::new(Socket {
        shared,
        head,
        connection,
        out,
        known: Mutex::default(),
    });
    let reading = async {
        let mut lanes: HashMap<Option<String>, mpsc::Sender<Value>> = HashMap::new();
        // Dropped with the connection, and with it every answer under way.
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(Ok(message)) = stream.next().await {
            let message: Value = match &message {
                Message::Text(text) => serde_json::from_str(text).unwrap_or_default(),
                Message::Close(_) => break,
                _ => continue,
            };
            let lane = message["stream_id"].as_str().map(str::to_owned);
            let queue = lanes.entry(lane.clone()).or_insert_with(|| {
                let (queue, mut requests) = mpsc::channel(QUEUE);
                let socket = Arc::clone(&socket);
                tasks.spawn(async move {
                    while let Some(request) = requests.recv().await {
                        let _gone = socket.answer(request, lane.as_deref()).await;
                    }
                });
                queue
            });
            // The lane's task ends with this.
            let _gone = queue.send(message).await;
        }
    };
    let writing = async {
        while let Some(Out::Event(event)) = outs.recv().await {
            if sink.send(Message::text(event.to_string())).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = reading => {}, () = writing => {} }
}

/// The connection is gone.
struct Gone;

impl Socket {
    async fn say(&self, mut event: Value, lane: Option<&str>) -> Result<(), Gone> {
        if let Some(lane) = lane {
            event["stream_id"] = lane.into();
        }
        self.out.send(Out::Event(event)).await.map_err(|_| Gone)
    }

    async fn refuse(&self, code: &str, message: &str, lane: Option<&str>) -> Result<(), Gone> {
        let error = json!({"type": "invalid_request_error", "code": code, "message": message});
        let event = json!({"type": "error", "status": 400, "error": error});
        self.say(event, lane).await
    }

    async fn answer(&self, mut request: Value, lane: Option<&str>) -> Result<(), Gone> {
        match request["type"].as_str() {
            Some("response.create") => {}
            Some("response.processed" | "response.interrupt") => return Ok(()),
            other => {
                let message = format!("no such event: {other:?}");
                return self.refuse("invalid_event", &message, lane).await;
            }
        }
        let mut input = Vec::new();
        if let Some(previous) = request["previous_response_id"].as_str() {
            let Some(known) = locked(&self.known).get(previous).cloned() else {
                let message = format!("Previous response with id '{previous}' not found.");
                return self
                    .refuse("previous_response_not_found", &message, lane)
                    .await;
            };
            input = known;
        }
        match request["input"].take() {
            Value::Array(items) => input.extend(items),
            Value::String(text) => input.push(json!({"role": "user", "content": text})),
            _ => {}
        }
        request["input"] = input.clone().into();
        request["stream"] = true.into();
        let mut recorded = self.shared.received(&self.head);
        recorded.body = request.to_string().into();
        if request["generate"] == false {
            recorded.rule = "warm-up".into();
            recorded.outcome = Outcome::Complete;
            self.shared.add(recorded);
            let id = format!("resp_{}", self.shared.next_id(false));
            locked(&self.known).insert(id.clone(), input);
            for event in responses::nothing(&id, &request["model"]) {
                self.say(event, lane).await?;
            }
            return Ok(());
        }
        let connection = Arc::clone(&self.connection);
        let dialect = Dialect::Responses;
        let answered = generation(&self.shared, recorded, dialect, false, PATH, connection).await;
        self.pass(answered, input, lane).await
    }

    /// The events of an answer as messages.
    async fn pass(
        &self,
        answered: Answered,
        input: Vec<Value>,
        lane: Option<&str>,
    ) -> Result<(), Gone> {
        let status = answered.status();
        let mut body = answered.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return self.out.send(Out::Cut).await.map_err(|_| Gone);
            };
            text.extend(frame.into_data().unwrap_or_default());
            if status != StatusCode::OK {
                continue;
            }
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = text.drain(..end + 2).collect();
                let event = String::from_utf8_lossy(&event);
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let Some(event) = data.and_then(|data| serde_json::from_str::<Value>(data).ok())
                else {
                    continue;
                };
                let response = &event["response"];
                if let (Some(id), Some(output)) =
                    (response["id"].as_str(), response["output"].as_array())
                {
                    let whole = [input.as_slice(), output].concat();
                    locked(&self.known).insert(id.to_owned(), whole);
                }
                self.say(event, lane).await?;
            }
        }
        if status == StatusCode::OK {
            return Ok(());
        }
        let refused: Value = serde_json::from_slice(&text).unwrap_or_default();
        let error = refused["error"].clone();
        let event = json!({"type": "error", "status": status.as_u16(), "error": error});
        self.say(event, lane).await
    }
}
