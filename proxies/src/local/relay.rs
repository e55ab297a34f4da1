//! The answer to the client: its head put right, its body as it came.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::Limits;
use super::body::Progress;
use super::exchange::{Asked, LARGE, SMALL, Upload, UploadState};
use super::head::ResponseHead;
use super::rewrite;
use super::wire::Framing;

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
pub(super) enum BrokenOff {
    /// Its body is malformed from the start; nothing went out.
    Malformed,
    /// Something broke after its head went out.
    Midway,
}

/// Passes head and body; does the client's connection stay open?
pub(super) async fn relay_answer(
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
