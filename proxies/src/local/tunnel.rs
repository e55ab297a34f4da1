//! Raw bytes both ways after an upgrade. Nothing is decoded or kept: extensions, subprotocols and frame sizes are
//! between the two ends.
//!
//! An idle tunnel holds no buffer: bytes are read into the thread's scratch space once there are some, and only what
//! the other side does not take at once is kept, until it does; meanwhile nothing more is read from its sender. A side
//! that ends is passed on as an end; [`HALF_OPEN`] later the rest is closed too.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio_util::either::Either;

use super::client::Client;
use super::frames::Frames;
use super::upstream::{Io, Upstream};

/// How long the second direction may stay silent after the first has ended.
const HALF_OPEN: Duration = Duration::from_secs(30);
const SCRATCH: usize = 64 * 1024;
/// At most one report per tunnel and direction in this time.
const REPORT_EVERY: Duration = Duration::from_secs(1);

thread_local! {
    static SPACE: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// Counts what passes in one direction.
struct Meter<'a> {
    frames: Frames,
    reported: Option<Instant>,
    report: &'a (dyn Fn() + Sync),
}

impl Meter<'_> {
    fn pass(&mut self, bytes: &[u8]) {
        if self.frames.feed(bytes) && self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
            self.reported = Some(Instant::now());
            (self.report)();
        }
    }
}

/// Runs until both directions have ended or one is broken. `early` is what the client sent behind its request.
pub(crate) async fn run(
    client: impl Client,
    early: BytesMut,
    upstream: Upstream,
    is_websocket: bool,
    report: &(dyn Fn() + Sync),
) -> io::Result<()> {
    let (io, first) = upstream.into_io();
    let meter = || Meter {
        frames: Frames::new(is_websocket),
        reported: None,
        report,
    };
    let (mut up, mut down) = (meter(), meter());
    match (io, client.into_tcp()) {
        (Io::Tcp(mut server), Ok(mut client)) => {
            write_first(&mut server, early, &mut up).await?;
            write_first(&mut client, first, &mut down).await?;
            let (mut client_read, client_write) = client.split();
            let (mut server_read, server_write) = server.split();
            both(
                pump(&mut client_read, &server_write, &mut up),
                pump(&mut server_read, &client_write, &mut down),
            )
            .await
        }
        (server, client) => {
            let (mut server_read, mut server_write) = tokio::io::split(server);
            let (mut client_read, mut client_write) = match client {
                Ok(tcp) => tokio::io::split(Either::Left(tcp)),
                Err(other) => tokio::io::split(Either::Right(other)),
            };
            write_first(&mut server_write, early, &mut up).await?;
            write_first(&mut client_write, first, &mut down).await?;
            both(
                copy(&mut client_read, &mut server_write, &mut up),
                copy(&mut server_read, &mut client_write, &mut down),
            )
            .await
        }
    }
}

async fn write_first(
    to: &mut (impl AsyncWriteExt + Unpin),
    bytes: BytesMut,
    meter: &mut Meter<'_>,
) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    meter.pass(&bytes);
    to.write_all(&bytes).await?;
    to.flush().await
}

async fn both(
    up: impl Future<Output = io::Result<()>>,
    down: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    tokio::pin!(up, down);
    // The first error ends both; after a first orderly end the other has a while.
    tokio::select! {
        result = &mut up => {
            result?;
            tokio::time::timeout(HALF_OPEN, down).await.unwrap_or(Ok(()))
        }
        result = &mut down => {
            result?;
            tokio::time::timeout(HALF_OPEN, up).await.unwrap_or(Ok(()))
        }
    }
}

/// One direction between two sockets.
async fn pump(
    from: &mut ReadHalf<'_>,
    to: &WriteHalf<'_>,
    meter: &mut Meter<'_>,
) -> io::Result<()> {
    loop {
        let (size, rest) = poll_fn(|context| {
            SPACE.with_borrow_mut(|space| {
                // By poll, because that knows without asking the kernel again that a short read took all there was.
                let mut buffer = ReadBuf::new(space);
                ready!(Pin::new(&mut *from).poll_read(context, &mut buffer))?;
                let bytes = buffer.filled();
                meter.pass(bytes);
                let written = match to.try_write(bytes) {
                    Ok(written) => written,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                    Err(error) => return Poll::Ready(Err(error)),
                };
                let rest = bytes.get(written..).unwrap_or_default().to_vec();
                Poll::Ready(Ok((bytes.len(), rest)))
            })
        })
        .await?;
        if size == 0 {
            // Its sending end only; what still comes the other way does.
            return socket2::SockRef::from(to.as_ref()).shutdown(std::net::Shutdown::Write);
        }
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            to.writable().await?;
            match to.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// One direction with TLS on a side, or a client that is no socket.
async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    meter: &mut Meter<'_>,
) -> io::Result<()> {
    let mut buffer = vec![0; 8 * 1024];
    loop {
        let size = from.read(&mut buffer).await?;
        if size == 0 {
            return to.shutdown().await;
        }
        let bytes = buffer.get(..size).unwrap_or_default();
        meter.pass(bytes);
        to.write_all(bytes).await?;
        to.flush().await?;
    }
}
