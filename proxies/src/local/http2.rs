//! HTTP/2 from the router, with prior knowledge.
//!
//! Each stream becomes an HTTP/1.1 connection in memory to the same engine, so that access, waiting, hosts and limits
//! are the same; a WebSocket by extended CONNECT (RFC 8441) becomes an upgrade. gRPC, which servers speak over HTTP/2
//! only, goes to the server as HTTP/2, unchanged but for the heads. Bounds: [`STREAMS`] streams per connection; a pipe
//! holds [`PIPE`] bytes in each direction, then its writer waits. Interim answers other than 100 are not passed.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::connection::connection;
use super::decide::Decision;
use super::head::{Field, Fields, RequestHead, ResponseHead, Version};
use super::pages::Answer;
use super::rewrite::{self, Guise};
use super::{Lookup, Proxy};

const STREAMS: u32 = 256;
const PIPE: usize = 64 * 1024;

type Body = BoxBody<Bytes, hyper::Error>;

/// Serves a connection of which `read` was read already.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    stream: TcpStream,
    read: BytesMut,
    peer: SocketAddr,
    stop: CancellationToken,
) {
    let (reading, writing) = tokio::io::split(stream);
    let io = tokio::io::join(std::io::Cursor::new(read).chain(reading), writing);
    let limits = proxy.limits.clone();
    let service = {
        let stop = stop.clone();
        service_fn(move |request: Request<Incoming>| {
            let (proxy, stop) = (Arc::clone(&proxy), stop.clone());
            async move { Ok::<_, Infallible>(answer(proxy, request, peer, stop).await) }
        })
    };
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.idle);
    let serving = builder.serve_connection(TokioIo::new(io), service);
    tokio::pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "an HTTP/2 connection of the local proxy ended");
    }
}

async fn answer(
    proxy: Arc<Proxy>,
    request: Request<Incoming>,
    peer: SocketAddr,
    stop: CancellationToken,
) -> Response<Body> {
    let is_grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if is_grpc {
        return grpc(&proxy, request, peer).await;
    }
    match bridge(proxy, request, peer, stop).await {
        Ok(response) => response,
        Err(error) => {
            tracing::debug!(%error, "a stream could not be served");
            problem(&Answer::problem(
                502,
                "The answer broke off before it began.",
            ))
        }
    }
}

/// Why a stream was not served.
#[derive(Debug, thiserror::Error)]
enum BridgeError {
    #[error("the request cannot be written as HTTP/1.1")]
    Request(#[from] http::Error),
    #[error("the connection in memory failed")]
    Pipe(#[from] hyper::Error),
}

/// The stream as an HTTP/1.1 connection to the engine.
async fn bridge(
    proxy: Arc<Proxy>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
    stop: CancellationToken,
) -> Result<Response<Body>, BridgeError> {
    let protocol = request.extensions_mut().remove::<Protocol>();
    let (near, far) = tokio::io::duplex(PIPE);
    tokio::spawn(connection(proxy, far, BytesMut::new(), peer, stop));
    let (mut sender, link) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    // It ends with the request and the answer, whichever is dropped last.
    tokio::spawn(link.with_upgrades());

    let is_tunnel = request.method() == Method::CONNECT && protocol.is_some();
    let client_side = is_tunnel.then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let mut builder = Request::builder()
        .method(if is_tunnel { Method::GET } else { parts.method })
        .uri(path);
    if let Some(headers) = builder.headers_mut() {
        *headers = parts.headers;
        join_cookies(headers);
        if let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(header::HOST, host);
        }
        if let Some(protocol) = protocol
            && let Ok(name) = HeaderValue::from_str(protocol.as_str())
        {
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(header::UPGRADE, name);
            // HTTP/2 has none; the server must have one to answer (RFC 8441 §5.1).
            headers.insert(
                header::SEC_WEBSOCKET_KEY,
                HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA=="),
            );
        }
    }
    let body = if is_tunnel {
        Empty::new().map_err(|never| match never {}).boxed()
    } else {
        body.boxed()
    };
    let mut response = sender.send_request(builder.body(body)?).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS
        && let Some(client_side) = client_side
    {
        let server_side = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let (Ok(client), Ok(server)) = (client_side.await, server_side.await) else {
                return;
            };
            let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
            // However it ends, both sides see it end.
            tokio::io::copy_bidirectional(&mut client, &mut server)
                .await
                .ok();
        });
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().remove("sec-websocket-accept");
    }
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
    ] {
        response.headers_mut().remove(name);
    }
    Ok(response.map(BodyExt::boxed))
}

/// HTTP/2 may split cookies over several fields; HTTP/1.1 has one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, whole);
    }
}

/// To the server as HTTP/2. Nothing is repeated or waited for: a call may have effects, and gRPC clients retry by rules
/// of their own.
async fn grpc(proxy: &Proxy, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let head = head(&parts.method, &parts.uri, &parts.headers);
    let (route, permit) = match proxy.decide(&head, peer).await {
        Decision::Answer(answer) => return problem(&answer),
        Decision::Forward(route, permit) => (route, permit),
    };
    proxy.ports.traffic(route.port);
    let Lookup::Known(server) = proxy.ports.lookup(route.port) else {
        return problem(&Answer::problem(
            503,
            "Nothing listens there at the moment.",
        ));
    };
    let mut stream = None;
    for address in &server.addresses {
        match tokio::time::timeout(proxy.limits.connect, TcpStream::connect(address)).await {
            Ok(Ok(connected)) => {
                // Without it small messages are later, not lost.
                connected.set_nodelay(true).ok();
                stream = Some(connected);
                break;
            }
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "a preview's server cannot be reached")
            }
            Err(_) => tracing::debug!(%address, "connecting to a preview's server took too long"),
        }
    }
    let Some(stream) = stream else {
        return problem(
            &Answer::problem(503, "Nothing listens there at the moment.").with("Retry-After", "1"),
        );
    };
    let target = rewrite::target(&head, route.form);
    let authority = String::from_utf8_lossy(&head.authority).into_owned();
    let uri = Uri::builder()
        .scheme("http")
        .authority(authority)
        .path_and_query(target.as_slice())
        .build();
    let Ok(uri) = uri else {
        return problem(&Answer::problem(400, "The request's target is malformed."));
    };
    let mut builder = Request::builder().method(parts.method).uri(uri);
    if let Some(headers) = builder.headers_mut() {
        rewrite::request_fields(&head, &route, Guise::Public, |name, value| {
            put(headers, name, value);
        });
        // HTTP/2's authority says it, and it has no connection fields.
        headers.remove(header::HOST);
        headers.remove(header::CONNECTION);
    }
    let sent = async {
        let (mut sender, link) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await?;
        tokio::spawn(async move {
            let _permit = permit;
            // Its end is told to the call itself.
            link.await.ok();
        });
        let request = builder.body(body).map_err(BridgeError::Request)?;
        Ok::<_, BridgeError>(sender.send_request(request).await?)
    };
    let response = match tokio::time::timeout(proxy.limits.answer_within, sent).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::debug!(port = route.port, %error, "a gRPC call failed");
            return problem(&Answer::problem(
                502,
                "The server broke the call off, or speaks no HTTP/2 without TLS.",
            ));
        }
        Err(_) => return problem(&Answer::problem(504, "The server did not answer in time.")),
    };
    let (parts, body) = response.into_parts();
    let fields = Fields(parts.headers.iter().map(field).collect());
    let answer = ResponseHead {
        version: Version::Http11,
        status: parts.status.as_u16(),
        reason: Bytes::new(),
        fields,
    };
    let mut response = Response::new(body.boxed());
    *response.status_mut() = parts.status;
    rewrite::response_fields(&answer, &route, Guise::Public, false, |name, value| {
        put(response.headers_mut(), name, value);
    });
    response
}

fn put(headers: &mut HeaderMap, name: &[u8], value: &[u8]) {
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        headers.append(name, value);
    }
}

fn field((name, value): (&HeaderName, &HeaderValue)) -> Field {
    Field {
        name: Bytes::copy_from_slice(name.as_str().as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    }
}

fn head(method: &Method, uri: &Uri, headers: &HeaderMap) -> RequestHead {
    let target = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let authority = uri.authority().map_or_else(
        || {
            headers
                .get(header::HOST)
                .map(|host| host.as_bytes().to_vec())
        },
        |authority| Some(authority.as_str().as_bytes().to_vec()),
    );
    RequestHead {
        method: Bytes::copy_from_slice(method.as_str().as_bytes()),
        target: Bytes::copy_from_slice(target.as_bytes()),
        authority: authority.unwrap_or_default().into(),
        version: Version::Http11,
        fields: Fields(headers.iter().map(field).collect()),
    }
}

/// An answer of our own.
fn problem(answer: &Answer) -> Response<Body> {
    let body = Full::new(Bytes::from(answer.body.clone()))
        .map_err(|never| match never {})
        .boxed();
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in answer.all_fields() {
        put(response.headers_mut(), name.as_bytes(), value.as_bytes());
    }
    response
}
