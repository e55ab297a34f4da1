//! Bodies: large, encoded, lying; heads that try to smuggle.

use std::io::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use whim_proxies::generation::Provider;
use whim_wire::generation::Outcome;

use crate::kit::*;

/// A body of this many bytes that is JSON with its model at the end.
fn large(bytes: usize) -> Vec<u8> {
    let tail = r#""}],"stream":true,"model":"claude-opus-4-8"}"#;
    let mut body = br#"{"messages":[{"role":"user","content":""#.to_vec();
    body.resize(bytes - tail.len(), b'x');
    body.extend_from_slice(tail.as_bytes());
    body
}

fn private_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).unwrap();
    line.split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

/// Reads a request's body without keeping it, so that memory is the proxy's.
async fn swallowing() -> (
    std::net::SocketAddr,
    tokio::task::JoinHandle<(String, usize)>,
) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut buffer, mut total, mut head) = (vec![0; 64 << 10], 0, String::new());
        let mut wanted = usize::MAX;
        while total < wanted {
            let n = stream.read(&mut buffer).await.unwrap();
            if n == 0 {
                break;
            }
            if head.is_empty() {
                let end = buffer[..n]
                    .windows(4)
                    .position(|w| w == b"\r\n\r\n")
                    .unwrap()
                    + 4;
                head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
                let length = head
                    .split("content-length: ")
                    .nth(1)
                    .and_then(|v| v.lines().next());
                wanted = end + length.map_or(usize::MAX / 2, |v| v.parse().unwrap());
            }
            total += n;
        }
        stream.write_all(&sse(anthropic_stream(1))).await.unwrap();
        (head, total)
    });
    (address, task)
}

#[tokio::test]
async fn sixty_four_megabytes_pass_in_flat_memory() {
    let (address, upstream) = swallowing().await;
    let mock = Mock::always("").await;
    let mut setup = to(Provider::Anthropic, &mock);
    setup.bases = vec![format!("http://{address}")];
    let mut proxy = setup.start().await;
    let size = 64 << 20;
    let head = proxy.request("/v1/messages", b"").to_vec();
    let head = String::from_utf8(head)
        .unwrap()
        .replace("Content-Length: 0", &format!("Content-Length: {size}"));
    let mut client = proxy.connect().await;
    client.send(head.as_bytes()).await;
    let begin = br#"{"messages":[{"role":"user","content":""#;
    let tail = br#""}],"stream":true,"model":"claude-opus-4-8"}"#;
    client.send(begin).await;
    let piece = vec![b'x'; 1 << 16];
    let mut left = size - begin.len() - tail.len();
    let before = private_kb();
    let mut peak = 0;
    while left > 0 {
        let n = left.min(piece.len());
        client.send(&piece[..n]).await;
        left -= n;
        peak = peak.max(private_kb().saturating_sub(before));
    }
    client.send(tail).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.whole), (200, true));
    let (head, total) = within("the upload", upstream).await.unwrap();
    assert!(
        total >= size && head.contains(&format!("content-length: {size}")),
        "{total}"
    );
    // Other tests run beside this one; buffering the body would show as 64 MB and more.
    assert!(peak < 48_000, "{peak} kB more while 64 MiB passed");
    assert_eq!(
        proxy.finished().await.model.as_deref(),
        Some("claude-opus-4-8")
    );
}

#[tokio::test]
async fn a_large_body_is_held_back_until_it_is_admitted() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::Anthropic, &mock).budget("0.01").start().await;
    let reply = proxy.post("/v1/messages", large(3 << 20)).await;
    assert_eq!(reply.status, 402);
    assert!(
        mock.requests().is_empty(),
        "no provider saw a whole request"
    );
    assert_eq!(proxy.line().outcome, Outcome::Refused);
    let mut proxy = to(Provider::Anthropic, &mock).budget("50.00").start().await;
    assert_eq!(proxy.post("/v1/messages", large(3 << 20)).await.status, 200);
    assert_eq!(mock.requests()[0].body, large(3 << 20));
    assert_eq!(proxy.finished().await.outcome, Outcome::Complete);
}

#[tokio::test]
async fn too_large_is_413_stated_or_not() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::Anthropic, &mock)
        .with(|c| c.limits.body = 2 << 20)
        .start()
        .await;
    let stated = proxy.post("/v1/messages", large(3 << 20)).await;
    assert_eq!(
        (stated.status, stated.json()["error"]["type"].as_str()),
        (413, Some("invalid_request_error"))
    );
    let head = String::from_utf8(proxy.request("/v1/messages", b"")).unwrap();
    let head = head.replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let request = [head.as_bytes(), &chunk(large(3 << 20)), b"0\r\n\r\n"].concat();
    assert_eq!(proxy.raw(&request).await.status, 413);
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn chunked_requests_pass() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    let head = String::from_utf8(proxy.request("/v1/messages", b"")).unwrap();
    let head = head.replace(
        "Content-Length: 0",
        "Transfer-Encoding: chunked\r\nExpect: 100-continue",
    );
    let (a, b) = TURN.as_bytes().split_at(20);
    let request = [head.as_bytes(), &chunk(a), &chunk(b), b"0\r\n\r\n"].concat();
    assert_eq!(proxy.raw(&request).await.status, 200);
    assert_eq!(mock.requests()[0].body, TURN.as_bytes());
    assert_eq!(mock.requests()[0].header("expect"), None);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A small body that inflates to this many bytes.
fn bomb(bytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder
        .write_all(br#"{"stream":true,"model":"claude-opus-4-8","messages":""#)
        .unwrap();
    let piece = [b'x'; 1 << 16];
    for _ in 0..bytes / piece.len() {
        encoder.write_all(&piece).unwrap();
    }
    encoder.write_all(b"\"}").unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn encoded_answers_pass_as_they_are_and_are_read() {
    let stream = anthropic_stream(77);
    let zstd = zstd::stream::encode_all(stream.as_bytes(), 1).unwrap();
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(stream.as_bytes()).unwrap();
    for (name, bytes) in [
        ("gzip", gzip(stream.as_bytes())),
        ("zstd", zstd),
        ("deflate", zlib.finish().unwrap()),
    ] {
        let head = SSE.replace(
            "request-id",
            &format!("Content-Encoding: {name}\r\nrequest-id"),
        );
        let sent = bytes.clone();
        let mock = Mock::new(move |_, _| {
            let mut steps = vec![send(head.clone())];
            steps.extend(sent.chunks(7).map(|part| send(chunk(part))));
            steps.push(send("0\r\n\r\n"));
            steps
        })
        .await;
        let mut proxy = to(Provider::Anthropic, &mock).start().await;
        let reply = proxy.post("/v1/messages", TURN).await;
        assert_eq!(
            (reply.body, reply.headers["content-encoding"].as_str()),
            (bytes, name)
        );
        let line = proxy.finished().await;
        assert_eq!(
            (line.usage.output_tokens, line.outcome),
            (77, Outcome::Complete),
            "{name}"
        );
    }
}

#[tokio::test]
async fn encoded_requests_are_read_and_bombs_are_not_kept() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::Compatible, &mock).budget("5.00").start().await;
    let body = gzip(TURN.as_bytes());
    let reply = proxy
        .raw(&proxy.request_with("/v1/messages", &[("Content-Encoding", "gzip")], &body))
        .await;
    assert_eq!(reply.status, 200);
    assert_eq!(mock.requests()[0].body, body);
    assert_eq!(mock.requests()[0].header("content-encoding"), Some("gzip"));
    let before = private_kb();
    let bomb = bomb(200 << 20);
    let allowed = private_kb().max(before) + 64_000;
    let reply = proxy
        .raw(&proxy.request_with("/v1/messages", &[("Content-Encoding", "gzip")], &bomb))
        .await;
    assert_eq!(reply.status, 402, "its prompt cannot be paid");
    assert!(private_kb() < allowed);
    let unknown = proxy
        .raw(&proxy.request_with(
            "/v1/messages",
            &[("Content-Encoding", "rot13")],
            TURN.as_bytes(),
        ))
        .await;
    assert_eq!(unknown.status, 415);
}

#[tokio::test]
async fn streams_without_a_content_type_and_with_an_odd_one() {
    for head in ["", "content-TYPE: Text/Event-Stream; Charset=UTF-8\r\n"] {
        let head = format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n");
        let answer = [head.as_bytes(), &chunk(anthropic_stream(8)), b"0\r\n\r\n"].concat();
        let mock = Mock::always(answer).await;
        let mut proxy = to(Provider::Anthropic, &mock).start().await;
        assert_eq!(
            proxy.post("/v1/messages", TURN).await.text(),
            anthropic_stream(8)
        );
        assert_eq!(proxy.finished().await.usage.output_tokens, 8);
    }
}

#[tokio::test]
async fn smuggling_is_refused() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    let auth = format!("Host: localhost\r\nx-api-key: {}\r\n", proxy.token);
    let cases = [
        (
            "two lengths",
            format!(
                "POST /v1/messages HTTP/1.1\r\n{auth}Content-Length: 2\r\nContent-Length: 30\r\n\r\n{{}}"
            ),
        ),
        (
            "a list of lengths",
            format!("POST /v1/messages HTTP/1.1\r\n{auth}Content-Length: 2, 30\r\n\r\n{{}}"),
        ),
        (
            "no number",
            format!("POST /v1/messages HTTP/1.1\r\n{auth}Content-Length: +2\r\n\r\n{{}}"),
        ),
        (
            "a folded header",
            format!(
                "POST /v1/messages HTTP/1.1\r\n{auth}X-A: b\r\n c: d\r\nContent-Length: 2\r\n\r\n{{}}"
            ),
        ),
        (
            "a space before the colon",
            format!("POST /v1/messages HTTP/1.1\r\n{auth}Content-Length : 2\r\n\r\n{{}}"),
        ),
        (
            "an unknown coding",
            format!(
                "POST /v1/messages HTTP/1.1\r\n{auth}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "a bad chunk",
            format!(
                "POST /v1/messages HTTP/1.1\r\n{auth}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n"
            ),
        ),
        (
            "a bare line end in a target",
            format!("POST /v1/messages\nX: y HTTP/1.1\r\n{auth}Content-Length: 2\r\n\r\n{{}}"),
        ),
    ];
    for (name, request) in cases {
        let mut client = proxy.connect().await;
        client.send(request.as_bytes()).await;
        let mut answer = Vec::new();
        // A refusal, or the end without one.
        within(name, client.stream.read_to_end(&mut answer))
            .await
            .ok();
        let text = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || text.starts_with("HTTP/1.1 400"),
            "{name}: {text}"
        );
    }
    // Both lengths: the coding wins and the length does not travel (RFC 9112 6.1), so no two readers differ.
    let both = format!(
        "POST /v1/messages HTTP/1.1\r\n{auth}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
    );
    let mut client = proxy.connect().await;
    client.send(both.as_bytes()).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let n = within("an answer", client.stream.read(&mut buffer))
        .await
        .unwrap_or(0);
    answer.extend_from_slice(&buffer[..n]);
    for seen in mock.requests() {
        assert_eq!(seen.body, b"{}");
        assert_eq!(
            (
                seen.header("content-length"),
                seen.header("transfer-encoding")
            ),
            (Some("2"), None)
        );
    }
}

#[tokio::test]
async fn heads_are_bounded() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    let many: Vec<(String, String)> = (0..200)
        .map(|n| (format!("x-{n}"), "1".to_owned()))
        .collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    assert_eq!(
        proxy
            .raw(&proxy.request_with("/v1/messages", &many, b"{}"))
            .await
            .status,
        431
    );
    let long = "x".repeat(100_000);
    assert_eq!(
        proxy
            .raw(&proxy.request_with("/v1/messages", &[("x-long", &long)], b"{}"))
            .await
            .status,
        431
    );
    assert!(mock.requests().is_empty());
    let fits = &long[..15_000];
    assert_eq!(
        proxy
            .raw(&proxy.request_with("/v1/messages", &[("x-long", fits)], b"{}"))
            .await
            .status,
        200
    );
}
