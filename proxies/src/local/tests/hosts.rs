//! Servers that check who they are called, and servers that want TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use whim_wire::port::HostMode;

use super::super::Change;
use super::kit::{Kit, answering, ok, server};

const NAMED: &str = "\nHost: preview.example";

#[tokio::test]
async fn a_framework_that_refuses_the_name_is_asked_as_localhost_and_remembered() {
    let kit = Kit::new().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&refused);
    let (port, _) = answering(move |head| {
        if head.contains("Host: localhost:") {
            return ok(&format!("page {}", head.contains("X-Forwarded-Host")));
        }
        counted.fetch_add(1, Ordering::SeqCst);
        let body = "Blocked request. This host (\"preview.example\") is not allowed.";
        format!(
            "HTTP/1.1 403 Forbidden\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    })
    .await;
    kit.table.up(port);
    for _ in 0..3 {
        let answer = kit.ask(port, &format!("GET / HTTP/1.1{NAMED}"), b"").await;
        assert!(answer.ends_with("page false"), "{answer}");
    }
    assert_eq!(
        refused.load(Ordering::SeqCst),
        1,
        "asked under the public name once"
    );
    let preserve = Change {
        host: Some(HostMode::Preserve),
        ..Change::default()
    };
    kit.proxy.change(port, preserve);
    let answer = kit.ask(port, &format!("GET / HTTP/1.1{NAMED}"), b"").await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn a_403_of_the_application_itself_is_passed_on_whole() {
    let kit = Kit::new().await;
    let (port, connections) = answering(|_| {
        "HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlogin\r\n0\r\n\r\n".into()
    })
    .await;
    kit.table.up(port);
    let answer = kit.ask(port, &format!("GET / HTTP/1.1{NAMED}"), b"").await;
    assert!(answer.ends_with("5\r\nlogin\r\n0\r\n\r\n"), "{answer}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn upgrades_alone_may_be_refused_and_pages_keep_the_public_name() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        let head = client.until("\r\n\r\n").await;
        if !head.contains("Upgrade: websocket") {
            client
                .send(
                    ok(&format!(
                        "public {}",
                        head.contains("Host: preview.example")
                    ))
                    .as_bytes(),
                )
                .await;
        } else if head.contains("Origin: http://localhost:") && head.contains("Host: localhost:") {
            client
                .send(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhmr")
                .await;
        }
        // Otherwise Next.js just hangs up.
    })
    .await;
    kit.table.up(port);
    let socket = format!(
        "GET /_next/webpack-hmr HTTP/1.1{NAMED}\nOrigin: http://preview.example\nConnection: Upgrade\nUpgrade: websocket"
    );
    for _ in 0..2 {
        kit.open(port, &socket, b"").await.until("hmr").await;
        let page = kit.ask(port, &format!("GET / HTTP/1.1{NAMED}"), b"").await;
        assert!(page.ends_with("public true"), "{page}");
    }
}

#[tokio::test]
async fn a_server_that_wants_tls_gets_it_however_it_says_so() {
    for is_silent in [false, true] {
        let kit = Kit::new().await;
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![key.cert.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap(),
        )
        .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut first = [0];
                    stream.peek(&mut first).await.unwrap();
                    if is_silent && first[0] != 0x16 {
                        return;
                    }
                    let Ok(mut tls) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(tokio::io::AsyncReadExt::read_u8(&mut tls).await.unwrap());
                    }
                    tls.write_all(ok("over TLS").as_bytes()).await.unwrap();
                    tls.shutdown().await.ok();
                });
            }
        });
        kit.table.up(port);
        for _ in 0..2 {
            let answer = kit.ask(port, "GET / HTTP/1.1", b"").await;
            assert!(answer.ends_with("over TLS"), "{answer}");
        }
    }
}

#[tokio::test]
async fn redis_is_never_written_to_once_it_is_known_and_harmed_by_no_get() {
    let Ok(mut redis) = std::process::Command::new("redis-server")
        .args(["--port", "0", "--version"])
        .stdout(std::process::Stdio::null())
        .spawn()
    else {
        // Not installed: the same is tested with a scripted server in `bodies`.
        return;
    };
    redis.wait().unwrap();
    let port = {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let mut redis = std::process::Command::new("redis-server")
        .args([
            "--port",
            &port.to_string(),
            "--save",
            "",
            "--bind",
            "127.0.0.1",
        ])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    super::kit::eventually("redis listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
    let kit = Kit::new().await;
    kit.table.up(port);
    let answer = kit.ask(port, "GET /x HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    let mut client = super::kit::Client::connect(([127, 0, 0, 1], port).into()).await;
    client.send(b"DBSIZE\r\n").await;
    assert_eq!(client.until("\r\n").await, ":0\r\n");
    redis.kill().unwrap();
    redis.wait().unwrap();
}
