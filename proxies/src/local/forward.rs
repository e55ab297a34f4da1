//! A request's way to a server: waiting for one, and asking again where that is safe and promises more.
//!
//! Only requests without a body are sent twice: on a fresh connection when a kept one had just closed, over TLS when the
//! server wants that, as `localhost` when the framework refused the public name. Bounds: [`ATTEMPTS`] in all.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::client::Client;
use super::connection::{Next, reply};
use super::decide::Permit;
use super::exchange::{self, Asked, Failure, Outcome};
use super::head::RequestHead;
use super::pages::{self, Answer};
use super::refusal;
use super::rewrite::{Guise, Route, is_local};
use super::upstream::{self, DialError, Key, Upstream};
use super::wire::Framing;
use super::{Lookup, Proxy, Server};
use whim_wire::port::HostMode;

/// How long a server that is listed but refuses is given before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Ways to ask a server differently before its answer is taken as it is.
const ATTEMPTS: u8 = 4;

/// A decided request.
pub(super) struct Forward<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) head: &'a RequestHead,
    pub(super) framing: Framing,
    pub(super) route: &'a Route,
    pub(super) is_last: bool,
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

    pub(super) async fn run(
        &self,
        stream: &mut impl Client,
        buffer: &mut BytesMut,
        permit: Permit,
    ) -> Next {
        let proxy = self.proxy;
        let port = self.route.port;
        let is_upgrade = self.head.upgrade().is_some();
        let is_internal = is_upgrade || refusal::is_development_resource(self.head);
        let mut guise_override = None;
        let mut fresh_only = !self.is_repeatable() || is_upgrade;
        let mut probing_upgrade = false;
        let mut is_second = false;
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
            let mode = proxy.settings.of(port).host;
            let guise = guise_override
                .unwrap_or_else(|| proxy.memory.guise(mode, port, program, is_internal));
            let may_refuse =
                guise == Guise::Public && mode == HostMode::Auto && !is_local(&self.head.authority);
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
                // It may have gone down over this request, as a server does that restarts itself: ask once more, and wait
                // if there is nobody to ask.
                Failure::NoAnswer if may_repeat && !is_upgrade && !is_second => {
                    is_second = true;
                    fresh_only = true;
                }
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
