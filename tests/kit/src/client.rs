//! A client for APIs and pages, over TCP or a unix socket.
//!
//! Synchronous: it runs on a thread of its own, so synchronous tests and those on any runtime can use it. A connection
//! per call; every call has a limit (10 s unless told otherwise); bodies up to 64 MiB.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::background::Background;
pub use crate::events::{Event, EventReader};

const MAX_BODY: usize = 64 << 20;
/// Events that wait to be taken; a stream that nobody takes from is not read on.
const MAX_EVENTS: usize = 256;

/// Why a call gave no answer. An answer with an error status is an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No thread for the client.
    #[error("cannot start the client: {0}")]
    Start(io::Error),
    /// Nobody listens, or not yet.
    #[error("cannot connect to {to}: {source}")]
    Connect { to: String, source: io::Error },
    /// The request cannot be built from these parts.
    #[error("no request: {0}")]
    Request(#[from] http::Error),
    /// The connection broke.
    #[error("{call}: {source}")]
    Http { call: String, source: hyper::Error },
    /// The body broke, or is too long.
    #[error("{call}: the body: {message}")]
    Body { call: String, message: String },
    /// No (complete) answer in time.
    #[error("{call}: no answer within {limit:?}")]
    TimedOut { call: String, limit: Duration },
    /// The body is not JSON.
    #[error("not JSON ({source}): {body}")]
    Json {
        body: String,
        source: serde_json::Error,
    },
    /// The stream has ended.
    #[error("the stream has ended")]
    Ended,
}

#[derive(Clone, Debug)]
enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Target {
    fn name(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(path) => path.display().to_string(),
        }
    }

    fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

/// An answer with its whole body.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value, ClientError> {
        serde_json::from_slice(&self.body).map_err(|source| ClientError::Json {
            body: self.text(),
            source,
        })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    target: Target,
    bearer: Option<String>,
    limit: Duration,
    background: Background,
}

impl Client {
    /// Of a TCP address.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn tcp(address: SocketAddr) -> Result<Self, ClientError> {
        Self::of(Target::Tcp(address))
    }

    /// Of a unix socket.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub fn unix(path: &Path) -> Result<Self, ClientError> {
        Self::of(Target::Unix(path.to_owned()))
    }

    fn of(target: Target) -> Result<Self, ClientError> {
        let background = Background::start("client").map_err(ClientError::Start)?;
        Ok(Self {
            target,
            bearer: None,
            limit: Duration::from_secs(10),
            background,
        })
    }

    /// Sends this token with every call.
    #[must_use]
    pub fn bearer(mut self, token: impl Into<String>) -> Self {
        self.bearer = Some(token.into());
        self
    }

    /// Waits this long for an answer.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// GET.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.call("GET", path, None)
    }

    /// GET, and the body as JSON.
    ///
    /// # Errors
    /// When there is no answer, or the body is no JSON.
    pub fn json(&self, path: &str) -> Result<Value, ClientError> {
        self.get(path)?.json()
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn post(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.call("POST", path, Some(body))
    }

    /// PUT with a JSON body.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn put(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.call("PUT", path, Some(body))
    }

    /// PATCH with a JSON body.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn patch(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        self.call("PATCH", path, Some(body))
    }

    /// DELETE.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn delete(&self, path: &str) -> Result<Answer, ClientError> {
        self.call("DELETE", path, None)
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer, ClientError> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        self.send(request.body(body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string())))?)
    }

    /// Any request; Host and the bearer token are added where it has none.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn send(&self, request: Request<Bytes>) -> Result<Answer, ClientError> {
        let (limit, call) = (self.limit, name(&request));
        let opening = open(self.target.clone(), self.complete(request)?, call.clone());
        let task = {
            let call = call.clone();
            async move {
                let (head, body) = opening.await?.into_parts();
                let body = Limited::new(body, MAX_BODY).collect().await;
                let body = body
                    .map_err(|error| ClientError::Body {
                        call,
                        message: error.to_string(),
                    })?
                    .to_bytes();
                Ok(Answer {
                    status: head.status,
                    headers: head.headers,
                    body,
                })
            }
        };
        let timed = async move { timeout(limit, task).await };
        self.background
            .run(timed)
            .ok_or(ClientError::Ended)?
            .map_err(|_| ClientError::TimedOut { call, limit })?
    }

    /// Opens an event stream (`text/event-stream`), after the event of this number if one is given.
    ///
    /// # Errors
    /// When there is no answer within the limit, or it is not 200.
    pub fn events(&self, path: &str, after: Option<u64>) -> Result<Events, ClientError> {
        let mut request = Request::builder()
            .uri(path)
            .header("accept", "text/event-stream");
        if let Some(after) = after {
            request = request.header("last-event-id", after.to_string());
        }
        let request = request.body(Bytes::new())?;
        let (limit, call) = (self.limit, name(&request));
        let opening = open(self.target.clone(), self.complete(request)?, call.clone());
        let background = Background::start("events").map_err(ClientError::Start)?;
        let timed = async move { timeout(limit, opening).await };
        let response = background.run(timed).ok_or(ClientError::Ended)?;
        let response = response.map_err(|_| ClientError::TimedOut {
            call: call.clone(),
            limit,
        })??;
        if response.status() != StatusCode::OK {
            return Err(ClientError::Body {
                call,
                message: format!("status {}", response.status()),
            });
        }
        let (sender, events) = mpsc::sync_channel(MAX_EVENTS);
        drop(
            background
                .handle()
                .spawn(read_events(response.into_body(), sender)),
        );
        Ok(Events {
            call,
            events,
            _background: background,
        })
    }

    fn complete(&self, mut request: Request<Bytes>) -> Result<Request<Bytes>, ClientError> {
        let headers = request.headers_mut();
        if !headers.contains_key("host") {
            headers.insert(
                "host",
                self.target.host().parse().map_err(http::Error::from)?,
            );
        }
        if let Some(token) = self
            .bearer
            .as_ref()
            .filter(|_| !headers.contains_key("authorization"))
        {
            headers.insert(
                "authorization",
                format!("Bearer {token}")
                    .parse()
                    .map_err(http::Error::from)?,
            );
        }
        Ok(request)
    }
}

fn name<T>(request: &Request<T>) -> String {
    format!("{} {}", request.method(), request.uri())
}

async fn open(
    target: Target,
    request: Request<Bytes>,
    call: String,
) -> Result<Response<Incoming>, ClientError> {
    let to = target.name();
    let failed = |source| ClientError::Connect { to, source };
    match target {
        Target::Tcp(address) => {
            over(
                TcpStream::connect(address).await.map_err(failed)?,
                request,
                call,
            )
            .await
        }
        Target::Unix(path) => {
            over(
                UnixStream::connect(path).await.map_err(failed)?,
                request,
                call,
            )
            .await
        }
    }
}

async fn over<S>(
    stream: S,
    request: Request<Bytes>,
    call: String,
) -> Result<Response<Incoming>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |source| ClientError::Http {
        call: call.clone(),
        source,
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Its error is also that of the request or of the body.
    drop(tokio::spawn(async move { drop(connection.await) }));
    sender
        .send_request(request.map(Full::new))
        .await
        .map_err(failed)
}

/// An open stream of events.
#[derive(Debug)]
pub struct Events {
    call: String,
    // Dropped before the thread that may be waiting to fill it, which ends that wait.
    events: mpsc::Receiver<Event>,
    _background: Background,
}

impl Events {
    /// The next event.
    ///
    /// # Errors
    /// When none comes within the limit, or the stream has ended.
    pub fn next(&mut self, limit: Duration) -> Result<Event, ClientError> {
        self.events
            .recv_timeout(limit)
            .map_err(|error| match error {
                mpsc::RecvTimeoutError::Timeout => ClientError::TimedOut {
                    call: self.call.clone(),
                    limit,
                },
                mpsc::RecvTimeoutError::Disconnected => ClientError::Ended,
            })
    }

    /// The next event that `wanted` accepts; others before it are passed over.
    ///
    /// # Errors
    /// As [`Self::next`], for all together.
    pub fn find(
        &mut self,
        limit: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Event, ClientError> {
        let deadline = Instant::now() + limit;
        loop {
            let event = self.next(deadline.saturating_duration_since(Instant::now()))?;
            if wanted(&event) {
                return Ok(event);
            }
        }
    }
}

/// Reads a stream on a thread of its own: when `sender` is full the whole thread waits, and with it the connection.
async fn read_events(mut body: Incoming, sender: mpsc::SyncSender<Event>) {
    let mut reader = EventReader::default();
    while let Some(Ok(frame)) = body.frame().await {
        for event in reader.take(frame.data_ref().map_or(&[][..], |data| data)) {
            if sender.send(event).is_err() {
                return;
            }
        }
    }
}
