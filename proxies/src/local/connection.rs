//! A client's connection: requests one after another, each decided, then answered by us or sent on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::decide::{Decision, Permit};
use super::forward::Forward;
use super::head::{RequestHead, Version};
use super::pages::Answer;
use super::upstream::Upstream;
use super::wire::{self, Framing};
use super::{Limits, Proxy, tunnel};

/// A client whose rest of a body nobody wants may send it this long, so that it reads the answer.
const LINGER: Duration = Duration::from_secs(5);
/// Room for one read of a head.
pub(super) const FIRST_READ: usize = 4096;

/// What follows a request.
pub(super) enum Next {
    Request,
    Close,
    /// Close once the client has read the answer, though it still sends.
    Linger,
    /// The client must see that what it has is not all.
    Reset,
    Tunnel(Upstream, bool, Permit, u16),
}

pub(super) async fn connection(
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
pub(super) async fn reply(
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
