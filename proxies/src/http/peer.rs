//! Tells a client that left from one that only finished sending.
//!
//! Both look alike on the wire: a FIN. But the client of a loopback service is a socket of this machine, and the kernel
//! knows whether a process still holds it (see [`super::held`]). So a call is cancelled at once when its client is gone,
//! and a client that merely shut its sending side down (as `nc -N` and some scripts do) still gets its answer. Where
//! the kernel does not tell, a FIN means gone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::held::is_held;

/// The first look comes right after the FIN, which the kernel sends before it lets go of the socket.
const FIRST: Duration = Duration::from_millis(5);
const LAST: Duration = Duration::from_millis(200);

/// Whether a request is being served on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy(Arc<AtomicBool>);

impl Busy {
    /// A request began; it ends when what this returns is dropped.
    pub(super) fn begin(&self) -> Serving {
        self.0.store(true, Ordering::Release);
        Serving(self.clone())
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(super) struct Serving(Busy);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::Release);
    }
}

/// A connection whose reading side ends when its client is gone.
#[derive(Debug)]
pub(super) struct Accepted {
    stream: TcpStream,
    busy: Busy,
    half: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl Accepted {
    pub(super) const fn new(stream: TcpStream, busy: Busy) -> Self {
        Self {
            stream,
            busy,
            half: None,
        }
    }

    fn gone(&self) -> bool {
        match (self.stream.local_addr(), self.stream.peer_addr()) {
            (Ok(local), Ok(peer)) => !is_held(peer, local),
            _ => true,
        }
    }

    /// Ready when the FIN is to be told.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if !self.busy.is() {
                return Poll::Ready(());
            }
            let Some((timer, wait)) = &mut self.half else {
                if self.gone() {
                    return Poll::Ready(());
                }
                self.half = Some((Box::pin(tokio::time::sleep(FIRST)), FIRST));
                continue;
            };
            ready!(timer.as_mut().poll(cx));
            *wait = (*wait * 2).min(LAST);
            timer.as_mut().reset(tokio::time::Instant::now() + *wait);
            if self.gone() {
                return Poll::Ready(());
            }
        }
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.half.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            if buf.filled().len() > before || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        self.poll_gone(cx).map(Ok)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A body that keeps its request marked as being served.
#[derive(Debug)]
pub(super) struct Served<B> {
    body: B,
    _serving: Serving,
}

impl<B> Served<B> {
    pub(super) const fn new(body: B, serving: Serving) -> Self {
        Self {
            body,
            _serving: serving,
        }
    }
}

impl<B: Body + Unpin> Body for Served<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
