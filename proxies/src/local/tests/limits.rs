//! Every bound has its status.

use std::time::Duration;

use super::super::Limits;
use super::kit::{Client, Kit, SECRET, answering, ok, server};

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

#[tokio::test]
async fn what_always_passes_reaches_the_server_and_what_is_beyond_has_its_status() {
    let kit = Kit::new().await;
    let (port, _) = answering(|head| ok(&head.len().to_string())).await;
    kit.table.up(port);
    let limits = Limits::default();
    let cookie = "c".repeat(16 * 1024);
    let url = "u".repeat(8 * 1024 - 1);
    let fields = "X: y\n".repeat(95);
    let always = kit
        .ask(
            port,
            &format!("GET /{url} HTTP/1.1\n{fields}Cookie: a={cookie}"),
            b"",
        )
        .await;
    assert_eq!(status(&always), "200");
    for (lines, expected) in [
        (format!("GET /{} HTTP/1.1", "u".repeat(limits.url)), "414"),
        (
            format!("GET / HTTP/1.1\n{}X: y", "X: y\n".repeat(limits.fields)),
            "431",
        ),
        (
            format!("GET / HTTP/1.1\nCookie: a={}", "c".repeat(limits.head)),
            "431",
        ),
        (
            "GET / HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked".into(),
            "400",
        ),
        ("GET / HTTP/1.1\nTransfer-Encoding: gzip".into(), "501"),
    ] {
        let answer = kit.ask(port, &lines, b"").await;
        assert_eq!(status(&answer), expected);
    }
}

#[tokio::test]
async fn a_port_has_so_many_places_and_others_are_not_concerned() {
    let kit = Kit::with(
        Limits {
            per_port: 2,
            ..Limits::default()
        },
        None,
    )
    .await;
    let (slow, _) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
        client.until("never").await;
    })
    .await;
    let (other, _) = answering(|_| ok("fine")).await;
    kit.table.up(slow);
    kit.table.up(other);
    let _held = [
        kit.open(slow, "GET / HTTP/1.1", b"").await,
        kit.open(slow, "GET / HTTP/1.1", b"").await,
    ];
    super::kit::eventually("both places are taken", || kit.proxy.load.count(slow) == 2).await;
    let third = kit.ask(slow, "GET / HTTP/1.1", b"").await;
    assert_eq!(status(&third), "503");
    assert!(
        kit.ask(other, "GET / HTTP/1.1", b"")
            .await
            .ends_with("fine")
    );
}

#[tokio::test]
async fn too_many_connections_are_told_so() {
    let kit = Kit::with(
        Limits {
            connections: 2,
            ..Limits::default()
        },
        None,
    )
    .await;
    let (port, _) = answering(|_| ok("x")).await;
    kit.table.up(port);
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = kit.open(port, "GET / HTTP/1.1", b"").await;
        client.until("\r\n\r\nx").await;
        held.push(client);
    }
    let refused = Client::connect(kit.address).await.rest().await;
    assert_eq!(status(&refused), "503");
    held.pop();
    let begun = std::time::Instant::now();
    // The place is free once the proxy has seen the client go.
    loop {
        let mut client = Client::connect(kit.address).await;
        client
            .send(&super::kit::head(port, "GET / HTTP/1.1\nConnection: close"))
            .await;
        if client.read_to_end().await.is_ok() && client.read.ends_with(b"\r\n\r\nx") {
            break;
        }
        assert!(begun.elapsed() < super::kit::PATIENCE);
    }
}

#[tokio::test]
async fn slow_clients_and_slow_servers_have_their_time() {
    let limits = Limits {
        head_within: Duration::from_millis(80),
        idle: Duration::from_millis(80),
        answer_within: Duration::from_millis(80),
        ..Limits::default()
    };
    let kit = Kit::with(limits, None).await;
    let (port, _) = server(|mut client| async move {
        client.until("never").await;
    })
    .await;
    kit.table.up(port);
    let mut slow = Client::connect(kit.address).await;
    slow.send(b"GET / HTTP/1.1\r\nHost: x\r\n").await;
    assert_eq!(status(&slow.rest().await), "408");
    assert_eq!(
        Client::connect(kit.address).await.rest().await,
        "",
        "silent: closed without a word"
    );
    assert_eq!(status(&kit.ask(port, "GET / HTTP/1.1", b"").await), "504");
}

#[tokio::test]
async fn malformed_chunks_from_a_client_are_not_repaired() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        client.until("never").await;
    })
    .await;
    kit.table.up(port);
    let text = format!(
        "POST / HTTP/1.1\nHost: x\nX-Whim-Token: {SECRET}\nX-Whim-Port: {port}\nTransfer-Encoding: chunked\n\nzz\n"
    );
    assert_eq!(status(&kit.raw(&text).await), "400");
}
