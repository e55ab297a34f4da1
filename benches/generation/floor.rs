//! What forwarding costs without any account: the floors that our own figures stand on.
//!
//! `relay` copies bytes between two connections and knows no HTTP: what tokio costs. `http` is the mechanism that the
//! generation proxy is built on, with bodies read whole and passed on: what hyper costs on top. The rest is ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::BoxBody;
use hyper::body::{Bytes, Incoming};
use tokio::net::{TcpListener, TcpStream};
use whim_proxies::http::dial::{Dialer, OutboundProxies, SystemResolver, Target};
use whim_proxies::http::pool::{BodyError, Pool, PooledBody};
use whim_proxies::http::serve::{Limits, serve};

/// Bytes of a relay's buffers: what our proxy reads at a time.
const BUFFER: usize = 64 << 10;

pub(crate) async fn relay(address: SocketAddr, upstream: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    loop {
        let (mut client, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut server = TcpStream::connect(upstream).await.unwrap();
            client.set_nodelay(true).unwrap();
            server.set_nodelay(true).unwrap();
            // Either side ends when its call is done.
            let _ended =
                tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER)
                    .await;
        });
    }
}

/// A body that was read whole, with the errors that the pool knows.
type Whole = BoxBody<Bytes, BodyError>;

pub(crate) async fn http(address: SocketAddr, upstream: SocketAddr) {
    let deadline = Duration::from_secs(10);
    let resolver = Arc::new(SystemResolver);
    let dialer = Dialer::new(resolver, OutboundProxies::default(), None, deadline).unwrap();
    let pool = Pool::new(dialer);
    let target = Target {
        tls: false,
        host: upstream.ip().to_string(),
        port: upstream.port(),
    };
    let handler = move |request| forward(Arc::clone(&pool), target.clone(), request);
    let listener = TcpListener::bind(address).await.unwrap();
    serve(
        vec![listener],
        Limits::default(),
        handler,
        std::future::pending(),
    )
    .await
    .unwrap();
}

async fn forward(
    pool: Arc<Pool<Whole>>,
    target: Target,
    request: Request<Incoming>,
) -> Response<PooledBody<Whole>> {
    let (mut head, incoming) = request.into_parts();
    let whole = incoming.collect().await.unwrap();
    head.headers.remove(CONTENT_LENGTH);
    let whole = whole.map_err(|never| match never {}).boxed();
    let request = Request::from_parts(head, whole);
    pool.call(&target, request, false).await.unwrap()
}
