//! Serves a router on a bound listener until told to stop.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::access::Door;

/// A request head that takes longer belongs to nobody who waits for an answer.
const HEAD: Duration = Duration::from_secs(15);
/// Connections at once on one listener; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 1024;
/// Descriptors ran out: accepting at once again would spin.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// After the shutdown, answers under way (event streams do not end by themselves) get this long.
const DRAIN: Duration = Duration::from_millis(500);

/// Serves 8081 or 7681.
pub async fn tcp(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let server = Server::new(router, shutdown);
    while let Some(permit) = server.admit().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                // Small answers must not wait for each other; a socket that refuses is already gone.
                drop(stream.set_nodelay(true));
                server.connection(stream, Door::Tcp, Some(peer), permit);
            }
            Err(error) => pause(&error).await,
        }
    }
    server.drain().await;
}

/// Serves the unix socket.
pub async fn unix(listener: UnixListener, router: Router, shutdown: CancellationToken) {
    let server = Server::new(router, shutdown);
    while let Some(permit) = server.admit().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(peer) => {
                    server.connection(stream, Door::Socket { uid: peer.uid() }, None, permit);
                }
                Err(error) => {
                    tracing::warn!(%error, "a caller without credentials was turned away")
                }
            },
            Err(error) => pause(&error).await,
        }
    }
    server.drain().await;
}

async fn pause(error: &std::io::Error) {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset};
    if matches!(error.kind(), ConnectionAborted | ConnectionReset) {
        return;
    }
    tracing::warn!(%error, "connections cannot be accepted");
    tokio::time::sleep(EXHAUSTED).await;
}

struct Server {
    router: Router,
    shutdown: CancellationToken,
    places: std::sync::Arc<tokio::sync::Semaphore>,
    connections: TaskTracker,
}

impl Server {
    fn new(router: Router, shutdown: CancellationToken) -> Self {
        let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        Self {
            router,
            shutdown,
            places,
            connections: TaskTracker::new(),
        }
    }

    async fn admit(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        tokio::select! {
            permit = self.places.clone().acquire_owned() => permit.ok(),
            () = self.shutdown.cancelled() => None,
        }
    }

    /// `peer`: the address that failed credentials are counted by.
    fn connection<S>(
        &self,
        stream: S,
        door: Door,
        peer: Option<SocketAddr>,
        permit: tokio::sync::OwnedSemaphorePermit,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(door);
            if let Some(peer) = peer {
                request.extensions_mut().insert(ConnectInfo(peer));
            }
            let mut router = router.clone();
            async move {
                Ok::<_, Infallible>(
                    router
                        .call(request.map(Body::new))
                        .await
                        .unwrap_or_else(|never| match never {}),
                )
            }
        });
        let shutdown = self.shutdown.clone();
        drop(self.connections.spawn(async move {
            let mut builder = hyper::server::conn::http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .half_close(true);
            let mut connection = std::pin::pin!(
                builder
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades()
            );
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = shutdown.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::debug!(%error, "connection ended");
            }
            drop(permit);
        }));
    }

    async fn drain(self) {
        self.connections.close();
        if tokio::time::timeout(DRAIN, self.connections.wait())
            .await
            .is_err()
        {
            tracing::debug!(open = self.connections.len(), "connections cut at the end");
        }
    }
}
