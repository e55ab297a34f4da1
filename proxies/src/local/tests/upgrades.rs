//! Tunnels.

use std::sync::atomic::Ordering;

use tokio::io::AsyncWriteExt;

use super::super::Limits;
use super::kit::{Kit, SECRET, eventually, server};

const UPGRADE: &str = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\
                       Sec-WebSocket-Protocol: a, b\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";

#[tokio::test]
async fn after_101_every_byte_passes_and_what_was_negotiated_is_between_the_two() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        let head = client.until("\r\n\r\n").await;
        for line in UPGRADE.split('\n') {
            assert!(head.contains(&format!("{line}\r\n")), "{line} in {head}");
        }
        // The first bytes of the new protocol come with the answer.
        client.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\nfirst").await;
        client.until("early").await;
        loop {
            let line = client.until("\n").await;
            if line == "end\n" {
                return;
            }
            client.send(line.as_bytes()).await;
        }
    })
    .await;
    kit.table.up(port);
    let mut client = kit
        .open(port, &format!("GET /ws HTTP/1.1\n{UPGRADE}"), b"early")
        .await;
    let answer = client.until("\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{answer}"
    );
    for line in [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: x",
        "Sec-WebSocket-Extensions: permessage-deflate",
    ] {
        assert!(
            answer.contains(&format!("{line}\r\n")),
            "{line} in {answer}"
        );
    }
    client.until("first").await;
    for n in 0..100 {
        client.send(format!("line {n}\n").as_bytes()).await;
        client.until(&format!("line {n}\n")).await;
    }
    client.send(b"end\n").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_large_transfer_through_a_tunnel_is_whole_both_ways() {
    const SIZE: usize = 8 * 1024 * 1024;
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
        client
            .send(b"HTTP/1.1 101 x\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n")
            .await;
        let (mut read, mut write) = client.stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
    })
    .await;
    kit.table.up(port);
    let mut client = kit
        .open(
            port,
            "GET / HTTP/1.1\nConnection: upgrade\nUpgrade: foo",
            b"",
        )
        .await;
    client.until("\r\n\r\n").await;
    let sent: Vec<u8> = (0..SIZE).map(|n| u8::try_from(n % 253).unwrap()).collect();
    let (mut read, mut write) = client.stream.into_split();
    let copy = sent.clone();
    let sending = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        // An end in one direction leaves the other open.
        write.shutdown().await.unwrap();
        write
    });
    let mut received = client.read;
    tokio::time::timeout(
        super::kit::PATIENCE,
        tokio::io::AsyncReadExt::read_to_end(&mut read, &mut received),
    )
    .await
    .unwrap()
    .unwrap();
    assert!(received == sent);
    sending.await.unwrap();
}

#[tokio::test]
async fn a_refused_upgrade_is_an_answer_like_any_other() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
        client
            .send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            .await;
    })
    .await;
    kit.table.up(port);
    let mut client = kit
        .open(port, &format!("GET / HTTP/1.1\n{UPGRADE}"), b"")
        .await;
    assert!(
        client
            .until("no")
            .await
            .starts_with("HTTP/1.1 403 Forbidden\r\n")
    );
}

#[tokio::test]
async fn pages_from_elsewhere_open_no_private_socket() {
    let kit = Kit::with(Limits::default(), Some("https://{port}-x.example/")).await;
    let (port, count) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
        client
            .send(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            .await;
        client.until("never").await;
    })
    .await;
    kit.table.up(port);
    let sibling = "https://4000-x.example";
    let own = format!("https://{port}-x.example");
    for (origin, expected) in [
        (own.as_str(), "101"),
        (sibling, "101"),
        ("", "101"),
        ("https://evil.example", "403"),
        ("https://4000-x.example.evil", "403"),
        ("http://4000-x.example", "403"),
        ("null", "403"),
    ] {
        let before = count.load(Ordering::SeqCst);
        let origin_line = if origin.is_empty() {
            String::new()
        } else {
            format!("\nOrigin: {origin}")
        };
        let mut client = super::kit::Client::connect(kit.address).await;
        let text = format!(
            "GET / HTTP/1.1\nHost: {port}-x.example\nX-Whim-Token: {SECRET}\n{UPGRADE}{origin_line}\n\n"
        );
        client.send(text.replace('\n', "\r\n").as_bytes()).await;
        let answer = client.until("\r\n\r\n").await;
        assert_eq!(answer.split(' ').nth(1), Some(expected), "{origin}");
        assert_eq!(
            count.load(Ordering::SeqCst) - before,
            usize::from(expected == "101")
        );
    }
}

#[tokio::test]
async fn bare_pings_are_no_traffic() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
        client
            .send(b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            .await;
        // A ping, and an answer that shows that it was passed.
        client.until("\u{9}").await;
        client.send(b"\x8a\x00").await;
        client.until("hello").await;
    })
    .await;
    kit.table.up(port);
    let mut client = kit
        .open(port, &format!("GET / HTTP/1.1\n{UPGRADE}"), b"")
        .await;
    client.until("\r\n\r\n").await;
    let opened = kit.table.traffic.load(Ordering::SeqCst);
    assert_eq!(opened, 1, "opening it is traffic");
    client.send(b"\x89\x01\x09").await;
    let mut pong = [0; 2];
    tokio::io::AsyncReadExt::read_exact(&mut client.stream, &mut pong)
        .await
        .unwrap();
    assert_eq!(kit.table.traffic.load(Ordering::SeqCst), opened);
    client.send(b"\x81\x05hello").await;
    eventually("a message counts", || {
        kit.table.traffic.load(Ordering::SeqCst) == opened + 1
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_to_a_neighbours_protocol_is_an_ordinary_request() {
    let kit = Kit::new().await;
    let (port, _) =
        super::kit::answering(|head| super::kit::ok(&head.contains("pgrade").to_string())).await;
    kit.table.up(port);
    let answer = kit.ask(port, "GET / HTTP/1.1\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\nConnection: HTTP2-Settings, Upgrade", b"").await;
    assert!(answer.ends_with("false"), "{answer}");
}
