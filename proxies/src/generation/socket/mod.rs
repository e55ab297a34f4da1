//! The WebSocket of the Responses API: messages pass as they are, and every response has an account of its own.
//!
//! An open socket means nothing: no call is in flight on it until a client asks for a response. Each request passes the
//! same admission as one over HTTP, with the token looked at anew, and what is refused is answered on the socket in the
//! provider's own form. Responses are told apart by [`lanes`].
//!
//! Bounds: messages as large as bodies, one at a time in each direction, and a reader that does not read stops its
//! writer; [`SOCKETS`] sockets; closing takes [`CLOSE_WITHIN`]. Pings are answered on each side. A close passes on with
//! its code; a side that is cut looks cut to the other.

mod event;
mod lanes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::HeaderMap;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whim_wire::generation::Outcome;
use whim_wire::time::Time;

use super::activity::Purpose;
use super::call::Asked;
use super::provider::{Upstream, shown};
use super::proxy::GenerationProxy;
use super::refuse::Refusal;
use super::request::Request;
use super::route::{Format, Operation};
use super::session::Session;
use super::watch;
use event::Asks;
use lanes::{Lanes, Stop};

/// Sockets at a time.
const SOCKETS: usize = 256;
/// How long a side may take to answer a close.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Kept for reading by each side of a socket.
const READ_BUFFER: usize = 16 << 10;

/// The sockets of one server.
#[derive(Clone, Debug)]
pub(super) struct Sockets {
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    ending: CancellationToken,
}

impl Default for Sockets {
    fn default() -> Self {
        Self {
            slots: Arc::new(Semaphore::new(SOCKETS)),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
        }
    }
}

impl Sockets {
    /// Room for one more, or none.
    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    /// From now on no socket takes a request, and each ends when nothing is under way on it.
    pub(super) fn end(&self) {
        self.ending.cancel();
        self.tasks.close();
    }

    /// Resolves when [`Self::end`] was called.
    pub(super) async fn ending(&self) {
        self.ending.cancelled().await;
    }

    /// Resolves when all have ended.
    pub(super) async fn ended(&self) {
        self.tasks.wait().await;
    }

    /// Runs a relay between two connections that have switched. `client` may still fail to.
    pub(super) fn relay(
        &self,
        slot: OwnedSemaphorePermit,
        relay: Relay,
        client: impl Future<Output = Result<Upgraded, hyper::Error>> + Send + 'static,
        upstream: Upgraded,
    ) {
        let ending = self.ending.clone();
        self.tasks.spawn(async move {
            match client.await {
                Ok(client) => relay.run(client, upstream, &ending).await,
                Err(error) => tracing::debug!(%error, "the client left during the upgrade"),
            }
            drop(slot);
        });
    }
}

/// What a relay knows of the socket's two sides.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) proxy: Arc<GenerationProxy>,
    /// Head of the client's handshake, with its token.
    pub(super) headers: HeaderMap,
    pub(super) upstream: Upstream,
    /// The key that the upstream was shown.
    pub(super) shown: HeaderMap,
    pub(super) path: String,
    pub(super) agent_session: Option<String>,
    pub(super) request_id: Option<String>,
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;
type Sink = SplitSink<Socket, Message>;
type Stream = SplitStream<Socket>;

/// How a socket ends.
#[derive(Debug)]
enum End {
    /// The client closed it.
    Client(Option<CloseFrame>),
    /// The client's connection broke.
    ClientGone,
    /// The client did what it must not.
    ClientBad(CloseCode, &'static str),
    /// The upstream closed it.
    Upstream(Option<CloseFrame>),
    /// The upstream's connection broke.
    UpstreamGone,
    /// For a reason of ours.
    Stop(Stop),
    /// This server ends.
    Ending,
}

fn client_error(error: &Error) -> End {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            End::ClientBad(CloseCode::Size, "the message is too large")
        }
        Error::Utf8(_) => End::ClientBad(CloseCode::Invalid, "the text is not UTF-8"),
        Error::Protocol(_) => End::ClientBad(CloseCode::Protocol, "not RFC 6455"),
        _ => End::ClientGone,
    }
}

async fn open(upgraded: Upgraded, role: Role, limit: u64) -> Socket {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(limit))
        .max_frame_size(Some(limit));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), role, Some(config)).await
}

impl Relay {
    async fn run(self, client: Upgraded, upstream: Upgraded, ending: &CancellationToken) {
        let limit = self.proxy.limits.body;
        let (mut to_client, mut from_client) = open(client, Role::Server, limit).await.split();
        let (mut to_upstream, mut from_upstream) =
            open(upstream, Role::Client, limit).await.split();
        let lanes = Mutex::new(Lanes::new(Arc::clone(&self.proxy), self.request_id.clone()));
        let (refuse, refused) = mpsc::channel(1);
        let end = tokio::select! {
            end = self.up(&lanes, &mut from_client, &mut to_upstream, refuse, ending) => end,
            end = self.down(&lanes, &mut from_upstream, &mut to_client, refused, ending) => end,
        };
        tracing::debug!(?end, "a WebSocket ends");
        let last = {
            let mut lanes = locked(&lanes);
            match &end {
                End::Stop(Stop::Cap) => lanes.cut(),
                other => {
                    lanes.end(match other {
                        End::Client(_) | End::ClientGone | End::ClientBad(..) => {
                            Outcome::ClientLeft
                        }
                        _ => Outcome::UpstreamCut,
                    });
                    Vec::new()
                }
            }
        };
        match end {
            End::Client(frame) => close(&mut to_upstream, &mut from_upstream, frame).await,
            End::ClientBad(code, reason) => {
                drop((to_upstream, from_upstream));
                close(&mut to_client, &mut from_client, frame(code, reason)).await;
                if let Ok(socket) = to_client.reunite(from_client) {
                    linger(socket.into_inner()).await;
                }
            }
            End::Upstream(frame) => close(&mut to_client, &mut from_client, frame).await,
            End::Stop(Stop::Cap) => {
                // First, so that the provider stops.
                drop((to_upstream, from_upstream));
                for message in last {
                    if to_client.send(Message::text(message)).await.is_err() {
                        return;
                    }
                }
                let reason = frame(CloseCode::Policy, "the budget is reached");
                close(&mut to_client, &mut from_client, reason).await;
            }
            End::Ending => {
                let away = frame(CloseCode::Away, "the proxy ends");
                tokio::join!(
                    close(&mut to_upstream, &mut from_upstream, away.clone()),
                    close(&mut to_client, &mut from_client, away),
                );
            }
            // Both sides are dropped without a word.
            End::ClientGone | End::UpstreamGone | End::Stop(Stop::Silence(_)) => {}
        }
    }

    /// Passes what the client sends, if it may pass.
    async fn up(
        &self,
        lanes: &Mutex<Lanes>,
        client: &mut Stream,
        upstream: &mut Sink,
        refuse: mpsc::Sender<String>,
        ending: &CancellationToken,
    ) -> End {
        loop {
            let message = match client.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => return client_error(&error),
                None => return End::ClientGone,
            };
            let data = match &message {
                Message::Text(text) => text.as_bytes(),
                Message::Binary(bytes) => bytes,
                Message::Close(frame) => return End::Client(frame.clone()),
                // Answered already.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            let passed = match self.judge(lanes, data, ending) {
                Ok(()) => upstream.send(message).await.is_ok(),
                Err(refusal) => refuse.send(refusal).await.is_ok(),
            };
            if !passed {
                // How the upstream ended is read on its other half, perhaps with a reason.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether a client's message may pass.
    ///
    /// # Errors
    /// The message that answers it.
    fn judge(
        &self,
        lanes: &Mutex<Lanes>,
        data: &[u8],
        ending: &CancellationToken,
    ) -> Result<(), String> {
        let (request, lane) = match event::asked(data) {
            Asks::Nothing => return Ok(()),
            Asks::Refused(refusal, lane) => return Err(refusal.message(lane.as_deref())),
            Asks::Response(request, lane) => (request, lane),
        };
        let admitted = self.session(ending).and_then(|session| {
            let asked = self.asked(session, &request);
            locked(lanes).admit(asked, *request, lane.clone())
        });
        admitted.map_err(|refusal| refusal.message(lane.as_deref()))
    }

    /// The session whose token this is now, if this socket is still the right one for it.
    fn session(&self, ending: &CancellationToken) -> Result<Arc<Session>, Refusal> {
        let Some(session) = self.proxy.tokens.find(&self.headers) else {
            let message = "the token of this connection is no longer valid".to_owned();
            return Err(Refusal::unauthorized(message));
        };
        let mut now = HeaderMap::new();
        let operation = Operation::ResponsesSocket;
        let credentials = &self.proxy.credentials;
        let same = session.upstreams.first() == Some(&self.upstream)
            && credentials.apply(self.upstream.provider, operation, &mut now)
            && shown(&now) == self.shown;
        if ending.is_cancelled() || !same {
            let message = "the provider's settings have changed; connect again".to_owned();
            return Err(Refusal::reconnect(message));
        }
        Ok(session)
    }

    fn asked(&self, session: Arc<Session>, request: &Request) -> Asked {
        Asked {
            session,
            provider: self.upstream.provider,
            format: Format::Responses,
            path: self.path.clone(),
            purpose: if request.is_side_call() {
                Purpose::Side
            } else {
                Purpose::Turn
            },
            agent_session: self.agent_session.clone(),
            started: Instant::now(),
            at: Time::from(Timestamp::now()),
        }
    }

    /// Passes what the upstream sends, and our refusals.
    async fn down(
        &self,
        lanes: &Mutex<Lanes>,
        upstream: &mut Stream,
        client: &mut Sink,
        mut refused: mpsc::Receiver<String>,
        ending: &CancellationToken,
    ) -> End {
        let mut clock = tokio::time::interval(watch::tick(&self.proxy.limits));
        loop {
            let idle = locked(lanes).idle();
            let message = tokio::select! {
                () = ending.cancelled(), if idle => {
                    // Something may have been asked for since.
                    if locked(lanes).idle() {
                        return End::Ending;
                    }
                    continue;
                }
                _ = clock.tick() => match locked(lanes).check() {
                    Ok(()) => continue,
                    Err(stop) => return End::Stop(stop),
                },
                Some(refusal) = refused.recv() => {
                    if client.send(Message::text(refusal)).await.is_err() {
                        return End::ClientGone;
                    }
                    continue;
                }
                message = upstream.next() => match message {
                    Some(Ok(message)) => message,
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a WebSocket's upstream broke");
                        return End::UpstreamGone;
                    }
                    None => return End::UpstreamGone,
                },
            };
            let taken = match &message {
                Message::Text(text) => locked(lanes).take(text.as_bytes()),
                Message::Binary(bytes) => locked(lanes).take(bytes),
                Message::Close(frame) => return End::Upstream(frame.clone()),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if let Err(stop) = taken {
                return End::Stop(stop);
            }
            if client.send(message).await.is_err() {
                return End::ClientGone;
            }
        }
    }
}

fn locked(lanes: &Mutex<Lanes>) -> MutexGuard<'_, Lanes> {
    lanes.lock().unwrap_or_else(PoisonError::into_inner)
}

fn frame(code: CloseCode, reason: &'static str) -> Option<CloseFrame> {
    Some(CloseFrame {
        code,
        reason: reason.into(),
    })
}

/// Closes a side and waits, not for long, until it has closed as well: a connection that is dropped with something
/// unread would take the close with it.
async fn close(sink: &mut Sink, stream: &mut Stream, frame: Option<CloseFrame>) {
    let closing = async {
        if sink.send(Message::Close(frame)).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    if timeout(CLOSE_WITHIN, closing).await.is_err() {
        tracing::debug!("a side of a WebSocket did not answer the close");
    }
}

/// Reads what a client still sends, not for long: dropped with something unread, the connection would be reset, and the
/// close be lost with it.
async fn linger(mut io: TokioIo<Upgraded>) {
    let mut nowhere = tokio::io::sink();
    let reading = tokio::io::copy(&mut io, &mut nowhere);
    // Either way the connection ends now.
    let _ended = timeout(CLOSE_WITHIN, reading).await;
}
