//! One request to one server and its answer back, both ways at once.
//!
//! Interim answers pass; a final answer that comes before the request's body is complete reaches the client, whose rest
//! is then read and dropped. Nothing is repeated here: the caller may, when this says that nothing reached the client
//! and the request has no body. An answer that breaks off is a broken transfer for the client too.

use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::Limits;
use super::answer::{Wait, await_answer};
use super::body::Progress;
use super::client::Client;
use super::head::{RequestHead, ResponseHead, Version};
use super::relay::{BrokenOff, relay_answer};
use super::rewrite::{self, Guise, Route};
use super::upstream::Upstream;
use super::wire::{BadAnswer, Framing};

/// One read of a head or a small body.
pub(super) const SMALL: usize = 8 * 1024;
/// One read of a body that keeps filling the small one.
pub(super) const LARGE: usize = 128 * 1024;
/// Most that is read ahead of a client while its answer is on the way.
const AHEAD: usize = 16 * 1024;
/// A client that has closed its sending side may only have finished sending, which looks the same as leaving: an answer
/// that comes within this still goes out, and a server works no longer than this for nobody.
pub(crate) const HALF_CLOSED: Duration = Duration::from_millis(500);

/// What was sent, for the answer's sake.
pub(crate) struct Asked<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) framing: Framing,
    pub(crate) route: &'a Route,
    pub(crate) guise: Guise,
    pub(crate) limits: &'a Limits,
    /// Look whether the answer refuses the public name.
    pub(crate) may_refuse: bool,
    /// Close after this request whatever the client wants.
    pub(crate) is_last: bool,
}

/// How it ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Complete. The server's connection may be kept.
    Complete {
        upstream: Option<Upstream>,
        keep_alive: bool,
        /// The client still sends a body that nobody wants.
        is_unread: bool,
        status: u16,
    },
    /// The client was told 101: from here on bytes only.
    Switched(Upstream),
    /// Nothing reached the client.
    Failed(Failure),
    /// Part of the answer reached the client, the rest never will. `is_silent`: nothing but the connection's way to end
    /// can tell the client so.
    Broken { is_silent: bool },
    /// The client has gone, or does not speak HTTP any more.
    ClientGone,
}

#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection ended or broke before an answer.
    NoAnswer,
    /// The server wants TLS.
    WantsTls,
    /// The server does not serve this name; its answer, should it be the best there is.
    Refused,
    /// It speaks HTTP/2 only.
    WantsHttp2,
    NotHttp,
    BadAnswer(BadAnswer),
    /// Switched to a protocol nobody asked for.
    Unasked,
    Timeout,
    /// The request's body is malformed.
    BadBody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    Running,
    Complete,
    /// The server takes no more; it may still answer.
    Refused,
}

/// Shared by the two directions, which run in one task.
#[derive(Debug)]
pub(super) struct UploadState(AtomicU8);

impl UploadState {
    fn new(upload: Upload) -> Self {
        Self(AtomicU8::new(upload as u8))
    }

    fn set(&self, upload: Upload) {
        self.0.store(upload as u8, Ordering::Relaxed);
    }

    pub(super) fn is(&self, upload: Upload) -> bool {
        self.0.load(Ordering::Relaxed) == upload as u8
    }
}

/// How the client's side ended.
enum ClientEnd {
    Gone,
    Malformed,
}

/// Sends the request and passes the answer on.
pub(crate) async fn run(
    client: &mut impl Client,
    buffer: &mut BytesMut,
    mut upstream: Upstream,
    asked: &Asked<'_>,
) -> Outcome {
    let mut out = Vec::with_capacity(1024);
    rewrite::request(asked.head, asked.route, asked.guise, &mut out);
    let mut progress = Progress::new(asked.framing);
    let mut is_complete = progress.is_done();
    if !is_complete && !buffer.is_empty() && buffer.len() <= SMALL {
        match progress.feed(buffer, |_| ()) {
            Ok(step) => {
                out.extend_from_slice(buffer.get(..step.taken).unwrap_or_default());
                buffer.advance(step.taken);
                is_complete = step.done;
            }
            Err(_) => return Outcome::Failed(Failure::BadBody),
        }
    }
    let first = timeout(asked.limits.stall, write(&mut upstream.write, &out)).await;
    drop(out);
    let upload = UploadState::new(match (first, is_complete) {
        (Ok(Ok(())), true) => Upload::Complete,
        (Ok(Ok(())), false) => Upload::Running,
        // The server may have answered (413) and closed.
        _ => Upload::Refused,
    });
    let ended = both_ways(client, buffer, &mut upstream, &mut progress, asked, &upload).await;
    match ended {
        Ended::Early(outcome) => outcome,
        Ended::Switched => Outcome::Switched(upstream),
        Ended::Relayed {
            framing,
            version,
            closes,
            status,
            keep_alive,
        } => {
            let is_unread = !upload.is(Upload::Complete);
            let is_reusable = !is_unread
                && framing != Framing::Close
                && version != Version::Http10
                && !closes
                && upstream.buffer.is_empty();
            Outcome::Complete {
                upstream: is_reusable.then_some(upstream),
                keep_alive: keep_alive && !is_unread,
                is_unread,
                status,
            }
        }
    }
}

enum Ended {
    Early(Outcome),
    Switched,
    Relayed {
        framing: Framing,
        version: Version,
        closes: bool,
        status: u16,
        keep_alive: bool,
    },
}

/// The rest of the request and the whole answer, at once.
async fn both_ways(
    client: &mut impl Client,
    buffer: &mut BytesMut,
    upstream: &mut Upstream,
    progress: &mut Progress,
    asked: &Asked<'_>,
    upload: &UploadState,
) -> Ended {
    let (mut client_read, mut client_write) = tokio::io::split(client);
    let client_side = async {
        if upload.is(Upload::Running) {
            let sent = send_body(
                &mut client_read,
                buffer,
                &mut upstream.write,
                progress,
                asked.limits,
            );
            match sent.await {
                Ok(()) => upload.set(Upload::Complete),
                Err(SendError::Server) => upload.set(Upload::Refused),
                Err(SendError::Client) => return ClientEnd::Gone,
                Err(SendError::Malformed) => return ClientEnd::Malformed,
            }
        }
        if upload.is(Upload::Refused) {
            // What the client sends now is body; only writing to it tells whether it is there.
            return pending().await;
        }
        gone(&mut client_read, buffer).await
    };
    tokio::pin!(client_side);

    let awaited = tokio::select! {
        biased;
        answer = await_answer(&mut upstream.read, &mut upstream.buffer, &mut client_write, asked, upload) => answer,
        end = &mut client_side => return Ended::Early(match end {
            ClientEnd::Gone => Outcome::ClientGone,
            ClientEnd::Malformed => Outcome::Failed(Failure::BadBody),
        }),
    };
    let (head, framing) = match awaited {
        Ok(answer) => answer,
        Err(Wait::Failed(failure)) => return Ended::Early(Outcome::Failed(failure)),
        Err(Wait::Client) => return Ended::Early(Outcome::ClientGone),
    };
    if head.status == 101 {
        return switch(&head, &mut client_write, asked).await;
    }
    let relay = relay_answer(
        &head,
        framing,
        &mut upstream.read,
        &mut upstream.buffer,
        &mut client_write,
        asked,
        upload,
    );
    let relayed = tokio::select! {
        biased;
        relayed = relay => relayed,
        _ = &mut client_side => return Ended::Early(Outcome::ClientGone),
    };
    match relayed {
        Ok(keep_alive) => Ended::Relayed {
            framing,
            version: head.version,
            closes: head.fields.has_token("connection", "close"),
            status: head.status,
            keep_alive,
        },
        Err(BrokenOff::Malformed) => {
            Ended::Early(Outcome::Failed(Failure::BadAnswer(BadAnswer::Framing)))
        }
        Err(BrokenOff::Midway) => Ended::Early(Outcome::Broken {
            is_silent: !rewrite::can_chunk(asked.head.version)
                && matches!(framing, Framing::Chunked | Framing::Close),
        }),
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

enum SendError {
    Client,
    Server,
    Malformed,
}

/// The rest of the request's body. Read once, never kept.
async fn send_body(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    to: &mut (impl AsyncWrite + Unpin),
    progress: &mut Progress,
    limits: &Limits,
) -> Result<(), SendError> {
    let mut size = SMALL;
    loop {
        let step = progress
            .feed(buffer, |_| ())
            .map_err(|_| SendError::Malformed)?;
        if step.taken > 0 {
            let part = buffer.get(..step.taken).unwrap_or_default();
            match timeout(limits.stall, write(to, part)).await {
                Ok(Ok(())) => buffer.advance(step.taken),
                Ok(Err(_)) | Err(_) => return Err(SendError::Server),
            }
        }
        if step.done {
            return Ok(());
        }
        buffer.reserve(size);
        match timeout(limits.stall, from.read_buf(buffer)).await {
            Ok(Ok(0) | Err(_)) | Err(_) => return Err(SendError::Client),
            Ok(Ok(read)) if read >= size => size = LARGE,
            Ok(Ok(_)) => {}
        }
    }
}

/// Returns when the client has closed. What it sends meanwhile is its next request.
async fn gone(from: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> ClientEnd {
    loop {
        if buffer.len() >= AHEAD {
            return pending().await;
        }
        match from.read_buf(buffer).await {
            Ok(0) => {
                sleep(HALF_CLOSED).await;
                return ClientEnd::Gone;
            }
            Err(_) => return ClientEnd::Gone,
            Ok(_) => {}
        }
    }
}
async fn switch(
    head: &ResponseHead,
    client: &mut (impl AsyncWrite + Unpin),
    asked: &Asked<'_>,
) -> Ended {
    let mut out = Vec::with_capacity(512);
    rewrite::response(head, asked.route, asked.guise, true, &[], &mut out);
    out.extend_from_slice(b"\r\n");
    match client.write_all(&out).await {
        Ok(()) => Ended::Switched,
        Err(_) => Ended::Early(Outcome::ClientGone),
    }
}
