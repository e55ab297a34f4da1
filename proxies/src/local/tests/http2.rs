//! HTTP/2 from the router.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::kit::{Kit, SECRET, answering, ok, server};

type Body = BoxBody<Bytes, Infallible>;

async fn client(kit: &Kit) -> SendRequest<Body> {
    let stream = TcpStream::connect(kit.address).await.unwrap();
    let (sender, link) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(link);
    sender
}

fn request(method: &str, port: u16, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(format!("http://app.example{path}"))
        .header("x-whim-token", SECRET)
        .header("x-whim-port", port)
}

fn full(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).boxed()
}

async fn text(response: Response<Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn streams_go_to_http_1_servers_side_by_side() {
    let kit = Kit::new().await;
    let (port, _) = answering(ok).await;
    kit.table.up(port);
    let mut sender = client(&kit).await;
    let calls: Vec<_> = (0..20)
        .map(|n| {
            sender.send_request(
                request("GET", port, &format!("/{n}"))
                    .header("cookie", "a=1")
                    .header("cookie", "b=2")
                    .body(Empty::new().boxed())
                    .unwrap(),
            )
        })
        .collect();
    for (n, call) in calls.into_iter().enumerate() {
        let head = text(call.await.unwrap()).await;
        assert!(
            head.starts_with(&format!("GET /{n} HTTP/1.1\r\nHost: app.example\r\n")),
            "{head}"
        );
        assert!(
            head.to_ascii_lowercase().contains("cookie: a=1; b=2\r\n"),
            "{head}"
        );
        assert!(!head.contains(SECRET));
    }
    let denied = Request::get("http://app.example/")
        .body(Empty::new().boxed())
        .unwrap();
    assert_eq!(
        sender.send_request(denied).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let unknown = request("GET", 1, "/").body(Empty::new().boxed()).unwrap();
    assert_eq!(
        sender.send_request(unknown).await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn bodies_and_trailers_pass_and_a_broken_answer_is_a_broken_stream() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        let head = client.until("\r\n\r\n").await;
        if head.contains("/broken") {
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
            return;
        }
        client.until("hello").await;
        client.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 9\r\n\r\n").await;
        client.until("never").await;
    })
    .await;
    kit.table.up(port);
    let mut sender = client(&kit).await;
    let response = sender
        .send_request(request("POST", port, "/").body(full("hello")).unwrap())
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["x-sum"], "9");
    assert_eq!(body.to_bytes(), "abc");
    let broken = sender
        .send_request(
            request("GET", port, "/broken")
                .body(Empty::new().boxed())
                .unwrap(),
        )
        .await
        .unwrap();
    assert!(broken.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_websocket_by_extended_connect_is_an_upgrade_for_the_server() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        let head = client.until("\r\n\r\n").await.to_ascii_lowercase();
        assert!(head.starts_with("get /ws http/1.1\r\n") && head.contains("upgrade: websocket\r\n") && head.contains("sec-websocket-key: "), "{head}");
        client.send(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: y\r\n\r\n").await;
        client.until("ping").await;
        client.send(b"pong").await;
        client.until("never").await;
    })
    .await;
    kit.table.up(port);
    let mut sender = client(&kit).await;
    // The server's settings, which allow it, come with the first answer at the latest.
    let first = request("GET", 1, "/").body(Empty::new().boxed()).unwrap();
    sender.send_request(first).await.unwrap();
    let connect = request("CONNECT", port, "/ws")
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::new().boxed())
        .unwrap();
    assert_eq!(connect.method(), Method::CONNECT);
    let response = sender.send_request(connect).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    tunnel.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    tunnel.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"pong");
}

#[tokio::test]
async fn grpc_reaches_a_server_that_speaks_http_2_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
                assert_eq!(request.uri().path(), "/svc/Method");
                assert_eq!(request.headers()["te"], "trailers");
                assert!(!request.headers().contains_key("x-whim-token"));
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let frames =
                    [Frame::data(body), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
                let body = StreamBody::new(futures_util::stream::iter(frames));
                Ok::<_, Infallible>(
                    Response::builder()
                        .header("content-type", "application/grpc")
                        .body(body)
                        .unwrap(),
                )
            });
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    let kit = Kit::new().await;
    kit.table.up(port);
    let mut sender = client(&kit).await;
    let call = request("POST", port, "/svc/Method")
        .header("content-type", "application/grpc+proto")
        .header("te", "trailers")
        .body(full("message"))
        .unwrap();
    let response = sender.send_request(call).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "message");

    // With HTTP/1 there is no way to it, and the answer says why.
    let answer = kit.ask(port, "GET / HTTP/1.1", b"").await;
    assert!(
        answer.starts_with("HTTP/1.1 502 ") && answer.contains("HTTP/2 only"),
        "{answer}"
    );
    let other = request("GET", port, "/")
        .body(Empty::new().boxed())
        .unwrap();
    assert_eq!(
        sender.send_request(other).await.unwrap().status(),
        StatusCode::BAD_GATEWAY
    );
}
