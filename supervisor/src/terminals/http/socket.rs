//! One WebSocket of one viewer.
//!
//! Reading and writing run side by side in one task, so that a client whose connection is stuck can still interrupt,
//! and a client that sends nothing still sees.
//!
//! Bounds: nothing is sent or done before a valid first message, which must come within [`HELLO_WITHIN`]. A client that is
//! neither stuck nor heard of for [`SILENCE`] is gone; one that takes no byte for [`STUCK`] as well. Closing takes at
//! most [`CLOSE_WITHIN`].

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::access::{Access, Grant};
use super::protocol::{self, Hello, Request};
use super::upgrade::{Protocol, Socket};
use crate::terminals::screen::MAX_LINES;
use crate::terminals::viewer::FRAME;
use crate::terminals::{Frame, Terminal, Viewer, ViewerInput, ViewerOptions};

const HELLO_WITHIN: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(15);
const STUCK: Duration = Duration::from_secs(600);
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How the viewer showed that it may watch.
#[derive(Debug)]
pub(super) enum Credential {
    /// With the upgrade: the bearer, or a link.
    Shown,
    /// With the first message, still to come.
    First,
}

/// All that one connection needs to know.
pub(super) struct Session {
    pub(super) terminal: Terminal,
    pub(super) access: Access,
    pub(super) grant: Grant,
    pub(super) credential: Credential,
    pub(super) source: Option<IpAddr>,
    pub(super) restarting: CancellationToken,
}

/// Why a connection ends.
#[derive(Debug)]
pub(super) enum End {
    /// The client's connection broke.
    Left,
    /// The client closed.
    Closed,
    Close(CloseCode, String),
}

impl End {
    fn policy(reason: &str) -> Self {
        Self::Close(CloseCode::Policy, reason.to_owned())
    }

    /// Tells the client, and waits a little for it to have heard.
    pub(super) async fn tell(self, sink: &mut Sink, stream: &mut Stream) {
        let close = async {
            match self {
                Self::Left => return Ok(()),
                // Its Close is answered by reading on.
                Self::Closed => {}
                Self::Close(code, reason) => {
                    let frame = CloseFrame {
                        code,
                        reason: reason.into(),
                    };
                    sink.send(Message::Close(Some(frame))).await?;
                }
            }
            // The client's own Close ends the stream.
            while let Some(message) = stream.next().await {
                drop(message?);
            }
            Ok::<(), Error>(())
        };
        if let Ok(Err(error)) = timeout(CLOSE_WITHIN, close).await {
            tracing::debug!(%error, "the client left before it was told why");
        }
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        let (code, reason) = match error {
            Error::Capacity(CapacityError::MessageTooLong { .. }) => {
                (CloseCode::Size, "messages may have 1 MiB")
            }
            Error::Protocol(_) => (CloseCode::Protocol, "not RFC 6455"),
            Error::Utf8(_) => (CloseCode::Invalid, "text that is not UTF-8"),
            _ => return Self::Left,
        };
        Self::Close(code, reason.to_owned())
    }
}

pub(super) type Sink = SplitSink<Socket, Message>;
pub(super) type Stream = SplitStream<Socket>;

impl Session {
    pub(super) async fn serve(self, socket: Socket, protocol: Protocol) {
        let (mut sink, mut stream) = socket.split();
        let end = self.run(&mut sink, &mut stream, protocol).await;
        end.tell(&mut sink, &mut stream).await;
    }

    async fn run(&self, sink: &mut Sink, stream: &mut Stream, protocol: Protocol) -> End {
        let hello = tokio::select! {
            hello = timeout(HELLO_WITHIN, self.hello(stream)) => match hello {
                Ok(Ok(hello)) => hello,
                Ok(Err(end)) => return end,
                Err(_) => return End::policy("no first message within 5 s"),
            },
            () = self.restarting.cancelled() => return restart(),
        };
        let size = self.terminal.status().size;
        let options = ViewerOptions {
            size: (hello.columns.is_some() || hello.rows.is_some())
                .then(|| size.asked(hello.columns, hello.rows)),
            read_only: self.grant.read_only,
            resume: hello.resume.filter(|_| protocol == Protocol::TtyV2),
            lines: hello.lines.unwrap_or(MAX_LINES),
            counted: true,
        };
        let viewer = match self.terminal.attach(options).await {
            Ok(viewer) => viewer,
            Err(error) => return End::Close(CloseCode::Again, error.to_string()),
        };
        let input = viewer.input();
        let pace = Pace::default();
        let mut writer = Writer {
            sink,
            viewer,
            protocol,
            deflate: hello.deflate,
            begun: false,
            pace: &pace,
            session: self,
        };
        tokio::select! {
            end = read(stream, &input, &pace) => end,
            end = writer.write() => end,
            end = pace.watch() => end,
            () = self.restarting.cancelled() => restart(),
            () = self.grant.revoked.cancelled() => End::policy("the link was revoked"),
            () = self.expiry() => End::policy("the link has expired"),
        }
    }

    async fn expiry(&self) {
        match self.grant.expires {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Waits for the first message and checks it.
    async fn hello(&self, stream: &mut Stream) -> Result<Hello, End> {
        let bytes = loop {
            match stream.next().await {
                Some(Ok(Message::Text(text))) => break text.as_bytes().to_vec(),
                Some(Ok(Message::Binary(bytes))) => break bytes.to_vec(),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Close(_))) => return Err(End::Closed),
                None => return Err(End::Left),
                Some(Err(error)) => return Err(error.into()),
            }
        };
        let bad = || {
            self.access.failed(self.source);
            End::policy("the first message must carry a valid AuthToken")
        };
        let hello = protocol::hello(&bytes).map_err(|_| bad())?;
        let token = hello.token.as_deref();
        let valid = match self.credential {
            Credential::Shown => true,
            Credential::First => {
                token.is_some_and(|token| self.access.redeem(token, &self.grant.terminal))
            }
        };
        if valid { Ok(hello) } else { Err(bad()) }
    }
}

fn restart() -> End {
    End::Close(CloseCode::Restart, "the supervisor restarts".to_owned())
}

/// What reader, writer and watchdog know of each other. Times are milliseconds since the connection began.
struct Pace {
    paused: watch::Sender<bool>,
    began: Instant,
    heard: AtomicU64,
    /// Since when a message has been on its way, [`NOT_SENDING`] when none is.
    sending_since: AtomicU64,
}

const NOT_SENDING: u64 = u64::MAX;

impl Default for Pace {
    fn default() -> Self {
        Self {
            paused: watch::Sender::new(false),
            began: Instant::now(),
            heard: AtomicU64::new(0),
            sending_since: AtomicU64::new(NOT_SENDING),
        }
    }
}

impl Pace {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NOT_SENDING - 1)
    }

    fn hear(&self) {
        self.heard.store(self.now(), Ordering::Relaxed);
    }

    /// Ends a connection that is dead without saying so.
    async fn watch(&self) -> End {
        loop {
            sleep(PING_EVERY).await;
            let now = self.now();
            let since = |mark: u64| Duration::from_millis(now.saturating_sub(mark));
            let sending = self.sending_since.load(Ordering::Relaxed);
            let stuck = sending != NOT_SENDING && since(sending) > PING_EVERY;
            let allowed = if stuck { STUCK } else { SILENCE };
            if since(self.heard.load(Ordering::Relaxed)) > allowed {
                return End::Left;
            }
        }
    }
}

/// Does what the client asks until it leaves.
async fn read(stream: &mut Stream, input: &ViewerInput, pace: &Pace) -> End {
    loop {
        let message = match stream.next().await {
            Some(Ok(message)) => message,
            Some(Err(error)) => return error.into(),
            None => return End::Left,
        };
        pace.hear();
        let bytes = match &message {
            Message::Binary(bytes) => bytes.as_ref(),
            Message::Text(text) => text.as_bytes(),
            Message::Close(_) => return End::Closed,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
        };
        match protocol::request(bytes) {
            Request::Input(bytes) => input.send(bytes).await,
            Request::Resize { columns, rows } => {
                let size = input.size().asked(columns, rows);
                input.resize(size).await;
            }
            // Clients repeat themselves: only a change goes further.
            Request::Pause => pause(input, pace, true).await,
            Request::Resume => pause(input, pace, false).await,
            Request::TakeOver => input.take_over().await,
            Request::Unknown => {}
        }
        // Waiting for room to type is not the client's silence.
        pace.hear();
    }
}

async fn pause(input: &ViewerInput, pace: &Pace, paused: bool) {
    if pace
        .paused
        .send_if_modified(|now| std::mem::replace(now, paused) != paused)
    {
        input.paused(paused).await;
    }
}

struct Writer<'a> {
    sink: &'a mut Sink,
    viewer: Viewer,
    protocol: Protocol,
    deflate: bool,
    /// Whether the client has been sent its first frames.
    begun: bool,
    pace: &'a Pace,
    session: &'a Session,
}

impl Writer<'_> {
    /// Sends what is to be shown until the terminal is over.
    async fn write(&mut self) -> End {
        let mut pings = interval_at(Instant::now() + PING_EVERY, PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut paused = self.pace.paused.subscribe();
        if self.protocol == Protocol::TtyV2 {
            let session = self.session;
            let hello = protocol::hello_v2(
                session.terminal.id(),
                session.terminal.kind(),
                session.grant.read_only,
                self.viewer.live_from(),
                self.viewer.live_from(),
            );
            if let Err(error) = self.send(hello).await {
                return error.into();
            }
        }
        loop {
            let pausing = *paused.borrow_and_update();
            let sent = tokio::select! {
                biased;
                changed = paused.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return End::Left,
                },
                _ = pings.tick() => self.sink.send(Message::Ping(Vec::new().into())).await,
                frame = self.viewer.next(), if !pausing => match frame {
                    Some(Frame::Exit(exit)) => {
                        if self.protocol == Protocol::TtyV2
                            && let Err(error) = self.send(protocol::exit_v2(exit)).await
                        {
                            return error.into();
                        }
                        return End::Close(CloseCode::Normal, exit.to_string());
                    }
                    Some(frame) => match self.protocol {
                        Protocol::Tty => self.tty(frame).await,
                        Protocol::TtyV2 => self.tty_v2(frame).await,
                    },
                    None => return End::Close(CloseCode::Away, "the terminal is gone".to_owned()),
                },
            };
            if let Err(error) = sent {
                return error.into();
            }
        }
    }

    async fn send(&mut self, message: Vec<u8>) -> Result<(), Error> {
        self.pace
            .sending_since
            .store(self.pace.now(), Ordering::Relaxed);
        let sent = self.sink.send(Message::Binary(message.into())).await;
        self.pace
            .sending_since
            .store(NOT_SENDING, Ordering::Relaxed);
        sent
    }

    /// ttyd's frames: title, preferences, then output. A snapshot is output.
    async fn tty(&mut self, frame: Frame) -> Result<(), Error> {
        match frame {
            Frame::Title(title) => {
                let title = if title.is_empty() {
                    self.session.terminal.id().to_string()
                } else {
                    title
                };
                self.send(protocol::message(b'1', title.as_bytes())).await?;
                if !self.begun {
                    self.begun = true;
                    let preferences = format!("{{\"scrollback\":{MAX_LINES}}}");
                    self.send(protocol::message(b'2', preferences.as_bytes()))
                        .await?;
                }
                Ok(())
            }
            Frame::Output { bytes, .. } => self.send(protocol::message(b'0', &bytes)).await,
            Frame::Snapshot { bytes, skipped, .. } => {
                if skipped > 0 {
                    // The client still shows what it had: full reset first (RIS).
                    self.send(b"0\x1bc".to_vec()).await?;
                }
                for part in bytes.chunks(FRAME) {
                    self.send(protocol::message(b'0', part)).await?;
                }
                Ok(())
            }
            // ttyd's clients keep their own size.
            Frame::Size { .. } | Frame::Exit(_) => Ok(()),
        }
    }

    async fn tty_v2(&mut self, frame: Frame) -> Result<(), Error> {
        let message = match frame {
            Frame::Title(title) => protocol::message(b'1', title.as_bytes()),
            Frame::Size { size, own } => protocol::size_v2(size, own),
            Frame::Output { offset, bytes } => protocol::output_v2(offset, &bytes),
            Frame::Snapshot {
                offset,
                bytes,
                skipped,
            } => protocol::snapshot_v2(offset, skipped, &bytes, self.deflate),
            Frame::Exit(exit) => protocol::exit_v2(exit),
        };
        self.send(message).await
    }
}
