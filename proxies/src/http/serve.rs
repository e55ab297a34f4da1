//! Serves HTTP/1.1 on bound listeners until told to stop.
//!
//! Owns the connections. At its bounds: beyond [`Limits::connections`] a new connection waits in the listener's
//! backlog; a head that is too large gets 431, as does one of more than 100 headers, which is what hyper reads without
//! allocating; one that is too slow loses its connection; after the shutdown future resolves, idle connections close at
//! once, busy ones have [`Limits::drain`] to finish.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::peer::{Accepted, Busy, Served};
use futures_util::future::{FutureExt, select_all};
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Bounds of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Bytes of a request's head, and of one read: the buffer stays with its connection while an answer streams.
    pub head_bytes: usize,
    /// Time for a head to arrive.
    pub head_time: Duration,
    /// Time for requests in flight after the shutdown began.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2048,
            // What Node takes, in which most agents are written.
            head_bytes: 16 * 1024,
            head_time: Duration::from_secs(30),
            drain: Duration::from_secs(5),
        }
    }
}

/// Serves until `shutdown` resolves and the connections have drained.
///
/// # Errors
/// Only without a listener: errors of single connections end those, and a failing accept (out of descriptors) is
/// tried again after a pause.
pub async fn serve<H, F, B>(
    listeners: Vec<TcpListener>,
    limits: Limits,
    handler: H,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if listeners.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "no listener to serve on",
        ));
    }
    let slots = Arc::new(Semaphore::new(limits.connections));
    let (ending, tasks) = (CancellationToken::new(), TaskTracker::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let slot = tokio::select! {
            biased;
            () = &mut shutdown => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let accepted = {
            let accepts = listeners.iter().map(|l| l.accept().boxed());
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                (accepted, _, _) = select_all(accepts) => accepted,
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                if needs_pause(&error) {
                    tracing::warn!(%error, "cannot accept a connection; trying again in 50 ms");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                continue;
            }
        };
        prepare(&stream);
        let handler = handler.clone();
        let busy = Busy::default();
        let accepted = Accepted::new(stream, busy.clone());
        let service = service_fn(move |request| {
            let serving = busy.begin();
            // On its own, so that its memory goes with it: the connection would keep it as long as the answer streams.
            let answer = Box::pin(handler(request));
            answer.map(|answer| Ok::<_, Infallible>(answer.map(|body| Served::new(body, serving))))
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head_time)
            .max_buf_size(limits.head_bytes.max(8192))
            .max_header_size(limits.head_bytes)
            .serve_connection(TokioIo::new(accepted), service)
            .with_upgrades();
        let ending = ending.clone();
        tasks.spawn(async move {
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = ending.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "connection ended");
            }
            drop(slot);
        });
    }
    drop(listeners);
    ending.cancel();
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            seconds = limits.drain.as_secs(),
            "requests still in flight were cut at the end of the drain"
        );
    }
    Ok(())
}

/// Events are small and each matters when it comes: nothing waits for a segment to fill.
fn prepare(stream: &TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
}

/// Whether the next accept would fail as well: descriptors or memory are gone. Other errors are of one connection.
fn needs_pause(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
