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
use super::body::Progress;
use super::client::Client;
use super::head::{RequestHead, ResponseHead, Version};
use super::refusal;
use super::rewrite::{self, Guise, Route};
use super::upstream::Upstream;
use super::wire::{self, BadAnswer, Framing};

/// One read of a head or a small body.
const SMALL: usize = 8 * 1024;
/// One read of a body that keeps filling the small one.
const LARGE: usize = 128 * 1024;
/// Most that is read ahead of a client while its answer is on the way.
const AHEAD: usize = 16 * 1024;
/// A client that has closed its sending side may only have finished sending, which looks the same as leaving: an answer
/// that comes within this still goes out, and a server works no longer than this for nobody.
pub(crate) const HALF_CLOSED: Duration = Duration::from_millis(500);
/// How long the beginning of a refusal may take to come.
const PREFIX_WITHIN: Duration = Duration::from_secs(1);

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
enum Upload {
    Running,
    Complete,
    /// The server takes no more; it may still answer.
    Refused,
}

/// Shared by the two directions, which run in one task.
#[derive(Debug)]
struct UploadState(AtomicU8);

impl UploadState {
    fn new(upload: Upload) -> Self {
        Self(AtomicU8::new(upload as u8))
    }

    fn set(&self, upload: Upload) {
        self.0.store(upload as u8, Ordering::Relaxed);
    }

    fn is(&self, upload: Upload) -> bool {
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

enum Wait {
    Failed(Failure),
    Client,
}

/// The final answer's head; interim ones go to the client.
async fn await_answer(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    client: &mut (impl AsyncWrite + Unpin),
    asked: &Asked<'_>,
    upload: &UploadState,
) -> Result<(ResponseHead, Framing), Wait> {
    loop {
        while !buffer.is_empty() {
            match wire::response(buffer, asked.limits, asked.head.is_head()) {
                Ok(Some((head, _))) if head.is_interim() => {
                    interim(&head, client, asked)
                        .await
                        .map_err(|_| Wait::Client)?;
                }
                Ok(Some((head, framing))) => {
                    check_answer(&head, framing, from, buffer, asked).await?;
                    return Ok((head, framing));
                }
                Ok(None) => break,
                Err(error) => return Err(Wait::Failed(unreadable(buffer, error))),
            }
        }
        buffer.reserve(SMALL);
        match timeout(asked.limits.answer_within, from.read_buf(buffer)).await {
            Ok(Ok(0) | Err(_)) => {
                return Err(Wait::Failed(if buffer.is_empty() {
                    Failure::NoAnswer
                } else {
                    Failure::BadAnswer(BadAnswer::NotHttp)
                }));
            }
            Ok(Ok(_)) => {}
            // The time counts from the end of the request.
            Err(_) if upload.is(Upload::Running) => {}
            Err(_) => return Err(Wait::Failed(Failure::Timeout)),
        }
    }
}

fn unreadable(buffer: &[u8], error: BadAnswer) -> Failure {
    match (error, buffer) {
        // A TLS alert (RFC 8446 §5.1): the request was taken for a handshake.
        (BadAnswer::NotHttp, [0x15, 0x03, ..]) => Failure::WantsTls,
        // An HTTP/2 SETTINGS frame: length 0x00…, type 4 (RFC 9113 §4.1).
        (BadAnswer::NotHttp, [0, _, _, 4, ..]) => Failure::WantsHttp2,
        (BadAnswer::NotHttp, _) => Failure::NotHttp,
        _ => Failure::BadAnswer(error),
    }
}

/// Is this an answer for the client, or a reason to ask again in another way?
async fn check_answer(
    head: &ResponseHead,
    framing: Framing,
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    asked: &Asked<'_>,
) -> Result<(), Wait> {
    if head.status == 101 && asked.head.upgrade().is_none() {
        return Err(Wait::Failed(Failure::Unasked));
    }
    let may_want_tls = head.status == 400;
    if !(may_want_tls || asked.may_refuse && refusal::may_be(head)) {
        return Ok(());
    }
    let mut progress = Progress::new(framing);
    let mut seen = 0;
    let deadline = tokio::time::Instant::now() + PREFIX_WITHIN;
    while !progress.is_done() && buffer.len() < refusal::PREFIX {
        let fresh = buffer.get(seen..).unwrap_or_default();
        if progress.feed(fresh, |_| ()).is_err() || progress.is_done() {
            break;
        }
        seen = buffer.len();
        buffer.reserve(SMALL);
        // However this ends, what has come is all there is to look at; the relay meets the same end.
        match tokio::time::timeout_at(deadline, from.read_buf(buffer)).await {
            Ok(Ok(size)) if size > 0 => {}
            _ => break,
        }
    }
    let body = buffer
        .get(..buffer.len().min(refusal::PREFIX))
        .unwrap_or_default();
    if may_want_tls && wants_tls(body) {
        return Err(Wait::Failed(Failure::WantsTls));
    }
    if asked.may_refuse && refusal::is(asked.head, head, body) {
        return Err(Wait::Failed(Failure::Refused));
    }
    Ok(())
}

/// Go's and nginx's words for plain HTTP on a TLS port.
fn wants_tls(body: &[u8]) -> bool {
    [
        &b"HTTP request to an HTTPS server"[..],
        b"plain HTTP request was sent to HTTPS port",
    ]
    .iter()
    .any(|words| super::head::contains(body, words))
}

async fn interim(
    head: &ResponseHead,
    client: &mut (impl AsyncWrite + Unpin),
    asked: &Asked<'_>,
) -> io::Result<()> {
    if asked.head.version != Version::Http11 {
        return Ok(());
    }
    let mut out = Vec::with_capacity(256);
    rewrite::response(head, asked.route, asked.guise, false, &[], &mut out);
    out.extend_from_slice(b"\r\n");
    client.write_all(&out).await
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

/// How the answer's body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As it came.
    Same,
    /// Its end was the server's closing; the client gets chunks, so that it can tell the end from a break.
    Chunk,
    /// The client cannot read chunks: their content, and the end is ours to close.
    Unchunk,
}

/// Why an answer was not passed whole.
#[derive(Debug)]
enum BrokenOff {
    /// Its body is malformed from the start; nothing went out.
    Malformed,
    /// Something broke after its head went out.
    Midway,
}

/// Passes head and body; does the client's connection stay open?
async fn relay_answer(
    head: &ResponseHead,
    framing: Framing,
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
    client: &mut (impl AsyncWrite + Unpin),
    asked: &Asked<'_>,
    upload: &UploadState,
) -> Result<bool, BrokenOff> {
    let can_chunk = rewrite::can_chunk(asked.head.version);
    let form = match framing {
        Framing::Close if can_chunk => Form::Chunk,
        Framing::Chunked if !can_chunk => Form::Unchunk,
        _ => Form::Same,
    };
    let ends_by_closing =
        form == Form::Unchunk || (framing == Framing::Close && form == Form::Same);
    let keep_alive = can_chunk
        && !ends_by_closing
        && !asked.is_last
        && !asked.head.fields.has_token("connection", "close")
        && upload.is(Upload::Complete);
    let skip: &[&str] = match (form, framing) {
        (Form::Unchunk, _) => &["transfer-encoding", "trailer"],
        (Form::Chunk, _) => &["content-length"],
        // Both were there: the chunks are the truth (RFC 9112 §6.3).
        (Form::Same, Framing::Chunked) => &["content-length"],
        (Form::Same, _) => &[],
    };
    let mut out = Vec::with_capacity(1024);
    rewrite::response(head, asked.route, asked.guise, false, skip, &mut out);
    if form == Form::Chunk && !head.fields.has("transfer-encoding") {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if !keep_alive {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");

    let mut progress = Progress::new(framing);
    let mut size = SMALL;
    let mut is_begun = false;
    loop {
        let step = match form {
            Form::Same => progress.feed(buffer, |_| ()),
            Form::Chunk => progress.feed(buffer, |data| push_chunk(data, &mut out)),
            Form::Unchunk => progress.feed(buffer, |data| out.extend_from_slice(data)),
        }
        .map_err(|_| {
            if is_begun {
                BrokenOff::Midway
            } else {
                BrokenOff::Malformed
            }
        })?;
        let part = match form {
            Form::Same => buffer.get(..step.taken).unwrap_or_default(),
            Form::Chunk | Form::Unchunk => &[],
        };
        if !out.is_empty() && part.len() <= 2 * SMALL {
            // One packet instead of two.
            out.extend_from_slice(part);
            send(client, &out, asked.limits).await?;
        } else {
            if !out.is_empty() {
                send(client, &out, asked.limits).await?;
            }
            send(client, part, asked.limits).await?;
        }
        is_begun = true;
        out.clear();
        buffer.advance(step.taken);
        if step.done {
            return Ok(keep_alive);
        }
        buffer.reserve(size);
        match from.read_buf(buffer).await {
            Ok(0) if framing == Framing::Close => {
                if form == Form::Chunk {
                    send(client, b"0\r\n\r\n", asked.limits).await?;
                }
                return Ok(keep_alive);
            }
            Ok(0) | Err(_) => return Err(BrokenOff::Midway),
            Ok(read) if read >= size => size = LARGE,
            Ok(_) => {}
        }
    }
}

fn push_chunk(data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        // An empty chunk would be the end.
        return;
    }
    out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

async fn send(
    client: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    limits: &Limits,
) -> Result<(), BrokenOff> {
    if bytes.is_empty() {
        return Ok(());
    }
    match timeout(limits.stall, client.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(BrokenOff::Midway),
    }
}
