//! Clients' connections: requests one after another, each decided, sent on (again, where that is safe and promises
//! more), and answered.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::decide::{Decision, Permit};
use super::exchange::{self, Asked, Failure, Outcome};
use super::head::{RequestHead, Version};
use super::memory::HostMode;
use super::pages::{self, Answer};
use super::refusal;
use super::rewrite::{Guise, Route, is_local};
use super::upstream::{self, DialError, Key, Upstream};
use super::wire::{self, Framing};
use super::{Limits, Lookup, Proxy, Server, http2, tunnel};

/// How long a server that is listed but refuses is given before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// A client whose rest of a body nobody wants may send it this long, so that it reads the answer.
const LINGER: Duration = Duration::from_secs(5);
/// After an error of accept (too many open files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Room for one read of a head.
const FIRST_READ: usize = 4096;
const SWEEP: Duration = Duration::from_secs(2);
/// Ways to ask a server differently before its answer is taken as it is: TLS, another name, a fresh connection.
const ATTEMPTS: u8 = 4;

/// Serves until `shutdown` is done; requests in progress then have [`Limits::drain`] left.
///
/// `listeners` are bound; each client is a task. Beyond [`Limits::connections`] a client is told 503 and closed.
pub async fn serve(
    listeners: Vec<TcpListener>,
    proxy: Arc<Proxy>,
    shutdown: impl Future<Output = ()>,
) {
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let open = Arc::new(AtomicUsize::new(0));
    for listener in listeners {
        tasks.spawn(accept(
            listener,
            Arc::clone(&proxy),
            stop.clone(),
            tasks.clone(),
            Arc::clone(&open),
        ));
    }
    let sweeping = {
        let (proxy, stop) = (Arc::clone(&proxy), stop.clone());
        async move {
            while timeout(SWEEP, stop.cancelled()).await.is_err() {
                proxy.pool.sweep();
            }
        }
    };
    tasks.spawn(sweeping);
    shutdown.await;
    stop.cancel();
    tasks.close();
    if timeout(proxy.limits.drain, tasks.wait()).await.is_err() {
        tracing::info!(
            connections = open.load(Ordering::Relaxed),
            "closing previews' connections that are still busy"
        );
    }
}

/// One of the places for clients; given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn accept(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    stop: CancellationToken,
    tasks: TaskTracker,
    open: Arc<AtomicUsize>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // A client that left is none of ours; without descriptors the next try fails as well.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tracing::warn!(%error, "cannot accept a preview's client");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                }
                continue;
            }
        };
        // Without it small writes are later, not lost.
        stream.set_nodelay(true).ok();
        let place = Place(Arc::clone(&open));
        if open.fetch_add(1, Ordering::Relaxed) >= proxy.limits.connections {
            let busy = Answer::problem(503, "Too many connections.").with("Retry-After", "1");
            // It fits into an empty socket; a client that is gone needs none.
            stream.try_write(&busy.encode(true, true)).ok();
            drop(place);
            continue;
        }
        let drain = proxy.limits.drain;
        let work = first(Arc::clone(&proxy), stream, peer, stop.clone());
        let stop = stop.clone();
        tasks.spawn(async move {
            let _place = place;
            tokio::select! {
                () = work => {}
                () = async { stop.cancelled().await; tokio::time::sleep(drain).await } => {}
            }
        });
    }
}

/// Tells HTTP/2 (by its preface, RFC 9113 §3.4) from HTTP/1.
async fn first(
    proxy: Arc<Proxy>,
    mut stream: TcpStream,
    peer: SocketAddr,
    stop: CancellationToken,
) {
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    let deadline = Instant::now() + proxy.limits.idle;
    while PREFACE.starts_with(&buffer) {
        let read = tokio::select! {
            read = timeout_at(deadline, stream.read_buf(&mut buffer)) => read,
            () = stop.cancelled() => return,
        };
        if !matches!(read, Ok(Ok(size)) if size > 0) {
            return;
        }
        if buffer.starts_with(PREFACE) {
            return http2::serve(proxy, stream, buffer, peer, stop).await;
        }
    }
    connection(proxy, stream, buffer, peer, stop).await;
}

/// What follows a request.
enum Next {
    Request,
    Close,
    /// Close once the client has read the answer, though it still sends.
    Linger,
    /// The client must see that what it has is not all.
    Reset,
    Tunnel(Upstream, bool, Permit, u16),
}

pub(crate) async fn connection(
    proxy: Arc<Proxy>,
    mut stream: impl Client,
    mut buffer: BytesMut,
    peer: SocketAddr,
    stop: CancellationToken,
) {
    loop {
        let (head, framing) = match read_head(&mut stream, &mut buffer, &proxy.limits, &stop).await
        {
            Read::Head(head, framing) => (head, framing),
            Read::Refused(answer) => {
                if stream.write_all(&answer.encode(true, true)).await.is_ok() {
                    linger(&mut stream).await;
                }
                return;
            }
            Read::End => return,
        };
        match request(&proxy, &mut stream, &mut buffer, head, framing, peer, &stop).await {
            Next::Request => {}
            Next::Close => return,
            Next::Linger => return linger(&mut stream).await,
            Next::Reset => {
                stream.reset();
                return;
            }
            Next::Tunnel(upstream, is_websocket, permit, port) => {
                let report = || proxy.ports.traffic(port);
                tokio::select! {
                    // However it ends, both sides have seen it end.
                    _ = tunnel::run(stream, buffer, upstream, is_websocket, &report) => {}
                    () = stop.cancelled() => {}
                }
                drop(permit);
                return;
            }
        }
    }
}

enum Read {
    Head(RequestHead, Framing),
    Refused(Answer),
    End,
}

async fn read_head(
    stream: &mut impl Client,
    buffer: &mut BytesMut,
    limits: &Limits,
    stop: &CancellationToken,
) -> Read {
    if buffer.is_empty() {
        if buffer.capacity() > 64 * 1024 {
            *buffer = BytesMut::new();
        }
        buffer.reserve(FIRST_READ);
        // Nothing is owed to a client that has not asked.
        let waited = tokio::select! {
            waited = timeout(limits.idle, stream.read_buf(buffer)) => waited,
            () = stop.cancelled() => return Read::End,
        };
        if !matches!(waited, Ok(Ok(size)) if size > 0) {
            return Read::End;
        }
    }
    let deadline = Instant::now() + limits.head_within;
    loop {
        if !buffer.is_empty() {
            match wire::request(buffer, limits) {
                Ok(Some((head, framing))) => return Read::Head(head, framing),
                Ok(None) => {}
                Err(refusal) => {
                    return Read::Refused(Answer::problem(refusal.status, refusal.reason));
                }
            }
        }
        buffer.reserve(FIRST_READ);
        match timeout_at(deadline, stream.read_buf(buffer)).await {
            Ok(Ok(0) | Err(_)) => return Read::End,
            Ok(Ok(_)) => {}
            Err(_) if buffer.is_empty() => return Read::End,
            Err(_) => {
                return Read::Refused(Answer::problem(408, "The request did not come in time."));
            }
        }
    }
}

/// Lets the client read the answer although it still sends: closing now would make its kernel drop it (RFC 9112 §9.6).
async fn linger(stream: &mut impl Client) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut waste = [0; 4096];
    let drain = async { while matches!(stream.read(&mut waste).await, Ok(size) if size > 0) {} };
    // In time or not, the connection closes now.
    timeout(LINGER, drain).await.ok();
}

async fn request(
    proxy: &Proxy,
    stream: &mut impl Client,
    buffer: &mut BytesMut,
    head: RequestHead,
    framing: Framing,
    peer: SocketAddr,
    stop: &CancellationToken,
) -> Next {
    match proxy.decide(&head, peer).await {
        Decision::Answer(answer) => reply(stream, &head, framing, &answer).await,
        Decision::Forward(route, permit) => {
            // A body on an upgrade would stand where the new protocol begins.
            if head.upgrade().is_some() && !matches!(framing, Framing::None | Framing::Length(0)) {
                let answer = Answer::problem(400, "An upgrade has no body.");
                return reply(stream, &head, framing, &answer).await;
            }
            proxy.ports.traffic(route.port);
            let forward = Forward {
                proxy,
                head: &head,
                framing,
                route: &route,
                is_last: stop.is_cancelled(),
            };
            forward.run(stream, buffer, permit).await
        }
    }
}

/// Sends an answer of our own.
async fn reply(
    stream: &mut impl Client,
    head: &RequestHead,
    framing: Framing,
    answer: &Answer,
) -> Next {
    let is_unread = !matches!(framing, Framing::None | Framing::Length(0));
    let close = is_unread
        || head.version == Version::Http10
        || head.fields.has_token("connection", "close");
    let bytes = answer.encode(!head.is_head(), close);
    match stream.write_all(&bytes).await {
        Ok(()) if is_unread => Next::Linger,
        Ok(()) if close => Next::Close,
        Ok(()) => Next::Request,
        Err(_) => Next::Close,
    }
}

struct Forward<'a> {
    proxy: &'a Proxy,
    head: &'a RequestHead,
    framing: Framing,
    route: &'a Route,
    is_last: bool,
}

/// Why no server could be asked.
enum NoServer {
    Down,
    Unreachable(DialError),
    ClientGone,
}

impl Forward<'_> {
    fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }

    /// May be sent twice without harm.
    fn is_repeatable(&self) -> bool {
        !self.has_body() && self.head.is_safe()
    }

    async fn run(&self, stream: &mut impl Client, buffer: &mut BytesMut, permit: Permit) -> Next {
        let proxy = self.proxy;
        let port = self.route.port;
        let is_upgrade = self.head.upgrade().is_some();
        let is_internal = is_upgrade || refusal::is_development_resource(self.head);
        let mut guise_override = None;
        let mut fresh_only = !self.is_repeatable() || is_upgrade;
        let mut probing_upgrade = false;
        for attempt in 1..=ATTEMPTS {
            let is_final = attempt == ATTEMPTS;
            let (server, upstream) = match self.connect(stream, buffer, fresh_only).await {
                Ok(found) => found,
                Err(NoServer::ClientGone) => return Next::Close,
                Err(NoServer::Down) => {
                    return reply(stream, self.head, self.framing, &self.down()).await;
                }
                Err(NoServer::Unreachable(error)) => {
                    tracing::debug!(port, %error, "a preview's server cannot be reached");
                    return self
                        .fail(
                            stream,
                            502,
                            "The server listens but cannot be connected to.",
                        )
                        .await;
                }
            };
            let program = server.program;
            let guise =
                guise_override.unwrap_or_else(|| proxy.memory.guise(port, program, is_internal));
            let may_refuse = guise == Guise::Public
                && proxy.memory.mode(port) == HostMode::Auto
                && !is_local(&self.head.authority);
            let was_used = upstream.is_used;
            let tls = upstream.key.tls;
            let asked = Asked {
                head: self.head,
                framing: self.framing,
                route: self.route,
                guise,
                limits: &proxy.limits,
                may_refuse: may_refuse && !self.has_body() && !is_final,
                is_last: self.is_last,
            };
            let outcome = exchange::run(stream, buffer, upstream, &asked).await;
            let failure = match outcome {
                Outcome::Complete {
                    upstream,
                    keep_alive,
                    is_unread,
                    status,
                } => {
                    self.learned(&server, tls);
                    if let Some(upstream) = upstream {
                        proxy.pool.put(upstream);
                    }
                    if self.has_body() && status == 403 && may_refuse {
                        tracing::debug!(
                            port,
                            "a request with a body was refused under the public name"
                        );
                    }
                    return match (is_unread, keep_alive) {
                        (true, _) => Next::Linger,
                        (false, true) => Next::Request,
                        (false, false) => Next::Close,
                    };
                }
                Outcome::Switched(upstream) => {
                    self.learned(&server, tls);
                    if probing_upgrade {
                        proxy
                            .memory
                            .learn(port, program, |known| known.internals_as_localhost = true);
                    }
                    return Next::Tunnel(upstream, self.head.is_websocket(), permit, port);
                }
                Outcome::Broken { is_silent: true } => return Next::Reset,
                Outcome::Broken { is_silent: false } => return Next::Close,
                Outcome::ClientGone => return Next::Close,
                Outcome::Failed(failure) => failure,
            };
            let may_repeat = self.is_repeatable() && !is_final;
            match failure {
                Failure::NoAnswer if was_used && may_repeat => fresh_only = true,
                Failure::WantsTls if !tls && may_repeat => {
                    proxy
                        .memory
                        .learn(port, program, |known| known.tls = Some(true));
                    fresh_only = true;
                }
                // Servers that want TLS often just hang up.
                Failure::NoAnswer
                    if !tls
                        && may_repeat
                        && proxy.memory.of(port, program).tls.is_none()
                        && self.speaks_tls(&server).await =>
                {
                    proxy
                        .memory
                        .learn(port, program, |known| known.tls = Some(true));
                    fresh_only = true;
                }
                Failure::Refused => {
                    guise_override = Some(Guise::Localhost);
                    if is_upgrade {
                        probing_upgrade = true;
                    } else if is_internal {
                        proxy
                            .memory
                            .learn(port, program, |known| known.internals_as_localhost = true);
                    } else {
                        proxy
                            .memory
                            .learn(port, program, |known| known.pages_as_localhost = true);
                    }
                }
                Failure::NoAnswer
                    if is_upgrade && may_refuse && may_repeat && guise_override.is_none() =>
                {
                    guise_override = Some(Guise::Localhost);
                    probing_upgrade = true;
                }
                other => return self.report(stream, &server, other).await,
            }
        }
        self.fail(stream, 502, "The server gave no usable answer.")
            .await
    }

    /// A connection to the server, waited for if the request may wait.
    async fn connect(
        &self,
        stream: &mut impl Client,
        buffer: &mut BytesMut,
        fresh_only: bool,
    ) -> Result<(Arc<Server>, Upstream), NoServer> {
        let may_wait = self.is_repeatable() && !self.head.is_navigation();
        let deadline = Instant::now()
            + if may_wait {
                self.proxy.limits.hold
            } else {
                Duration::ZERO
            };
        let mut looked = false;
        loop {
            let changed = self.proxy.ports.changed();
            let Lookup::Known(server) = self.proxy.ports.lookup(self.route.port) else {
                return Err(NoServer::Down);
            };
            let tls = self.proxy.memory.of(self.route.port, server.program).tls == Some(true);
            let mut refused = false;
            for address in &server.addresses {
                let key = Key {
                    address: *address,
                    tls,
                };
                if !fresh_only && let Some(upstream) = self.proxy.pool.take(key).await {
                    return Ok((server, upstream));
                }
                match upstream::dial(key, &self.proxy.tls, self.proxy.limits.connect).await {
                    Ok(upstream) => return Ok((server, upstream)),
                    Err(DialError::Connect { source, .. })
                        if source.kind() == io::ErrorKind::ConnectionRefused =>
                    {
                        refused = true;
                    }
                    Err(error) if *address == *server.addresses.last().unwrap_or(address) => {
                        return Err(NoServer::Unreachable(error));
                    }
                    Err(_) => {}
                }
            }
            if !looked {
                // The list may be behind: the server has just gone, or has just come.
                looked = true;
                self.proxy.ports.rescan().await;
                if let Lookup::Known(now) = self.proxy.ports.lookup(self.route.port)
                    && now.addresses != server.addresses
                {
                    continue;
                }
            }
            if Instant::now() >= deadline {
                return Err(NoServer::Down);
            }
            let again = if refused {
                deadline.min(Instant::now() + ASK_AGAIN)
            } else {
                deadline
            };
            tokio::select! {
                // In time or not: look again.
                _ = timeout_at(again, changed) => {}
                () = left(stream, buffer) => return Err(NoServer::ClientGone),
            }
        }
    }

    async fn speaks_tls(&self, server: &Server) -> bool {
        let Some(address) = server.addresses.first() else {
            return false;
        };
        let key = Key {
            address: *address,
            tls: true,
        };
        upstream::dial(key, &self.proxy.tls, self.proxy.limits.connect)
            .await
            .is_ok()
    }

    fn learned(&self, server: &Server, tls: bool) {
        if server.http != Some(true) {
            self.proxy.ports.observed(self.route.port, true);
        }
        if self.proxy.memory.of(self.route.port, server.program).tls != Some(tls) {
            self.proxy
                .memory
                .learn(self.route.port, server.program, |known| {
                    known.tls = Some(tls)
                });
        }
    }

    fn down(&self) -> Answer {
        if self.head.is_navigation() {
            return pages::waiting(self.route.port);
        }
        Answer::problem(
            503,
            &format!("Nothing listens on port {} at the moment.", self.route.port),
        )
        .with("Retry-After", "1")
    }

    async fn report(&self, stream: &mut impl Client, server: &Server, failure: Failure) -> Next {
        let (status, detail) = match failure {
            Failure::NoAnswer => (502, "The server closed the connection without an answer."),
            Failure::WantsTls => (502, "The server wants TLS; the next request will use it."),
            Failure::Refused => (502, "The server refuses this name and localhost as well."),
            Failure::WantsHttp2 => (
                502,
                "The server speaks HTTP/2 only, and the request came with HTTP/1.",
            ),
            Failure::NotHttp => {
                if server.http.is_none() {
                    self.proxy.ports.observed(self.route.port, false);
                }
                (502, "The server does not speak HTTP.")
            }
            Failure::BadAnswer(error) => {
                tracing::debug!(port = self.route.port, %error, "a preview's answer cannot be passed on");
                (502, "The server's answer is malformed.")
            }
            Failure::Unasked => (
                502,
                "The server switched to a protocol that was not asked for.",
            ),
            Failure::Timeout => (504, "The server did not answer in time."),
            Failure::BadBody => (400, "The request's body is malformed."),
        };
        if matches!(failure, Failure::WantsTls) {
            self.proxy
                .memory
                .learn(self.route.port, server.program, |known| {
                    known.tls = Some(true)
                });
        }
        self.fail(stream, status, detail).await
    }

    async fn fail(&self, stream: &mut impl Client, status: u16, detail: &str) -> Next {
        let answer = Answer::explain(self.head.is_navigation(), status, detail);
        reply(stream, self.head, self.framing, &answer).await
    }
}

/// Done when the client has gone; never while it may still be there.
async fn left(stream: &mut impl Client, buffer: &mut BytesMut) {
    loop {
        if buffer.len() >= 16 * 1024 {
            return std::future::pending().await;
        }
        match stream.read_buf(buffer).await {
            Ok(0) => return tokio::time::sleep(exchange::HALF_CLOSED).await,
            Err(_) => return,
            Ok(_) => {}
        }
    }
}
