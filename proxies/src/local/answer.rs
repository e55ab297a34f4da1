//! The head of an answer: interim ones passed on, the final one looked at.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::body::Progress;
use super::exchange::{Asked, Failure, SMALL, Upload, UploadState};
use super::head::{ResponseHead, Version};
use super::refusal;
use super::rewrite;
use super::wire::{self, BadAnswer, Framing};

/// How long the beginning of a refusal may take to come.
const PREFIX_WITHIN: Duration = Duration::from_secs(1);

/// Why there is no final head.
pub(super) enum Wait {
    Failed(Failure),
    Client,
}

/// The final answer's head; interim ones go to the client.
pub(super) async fn await_answer(
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
