//! Listeners, places, and the end of it all.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{FIRST_READ, connection};
use super::pages::Answer;
use super::{Proxy, http2};

/// After an error of accept (too many open files).
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);
/// How often kept connections to servers are looked through.
const SWEEP: Duration = Duration::from_secs(2);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
