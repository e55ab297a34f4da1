//! Messages pass as they are, and a broken one is broken for the client too.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::kit::{Client, Kit, answering, eventually, head, ok, server};

#[tokio::test]
async fn what_the_server_says_is_what_the_client_reads() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
                  HTTP/1.1 207 Custom Reason\r\nX-CaSe: Kept\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                  4;ext=\"a\"\r\nWiki\r\n0\r\nX-Sum: 1\r\n\r\n";
    let kit = Kit::new().await;
    let (port, _) = answering(|_| answer.to_owned()).await;
    kit.table.up(port);
    let mut client = kit.open(port, "GET / HTTP/1.1", b"").await;
    assert_eq!(client.until("X-Sum: 1\r\n\r\n").await, answer);
    assert_eq!(*kit.table.observed.lock().unwrap(), [(port, true)]);
}

#[tokio::test]
async fn requests_of_one_connection_are_answered_in_order_also_when_sent_together() {
    let kit = Kit::new().await;
    let (port, connections) = answering(|head| ok(head.split(' ').nth(1).unwrap())).await;
    kit.table.up(port);
    let mut client = Client::connect(kit.address).await;
    let both = [head(port, "GET /a HTTP/1.1"), head(port, "GET /b HTTP/1.1")].concat();
    client.send(&both).await;
    client.until("\r\n\r\n/a").await;
    client.until("\r\n\r\n/b").await;
    client.send(&head(port, "GET /c HTTP/1.1")).await;
    client.until("\r\n\r\n/c").await;
    assert_eq!(connections.load(Ordering::SeqCst), 1, "one kept connection");
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let kit = Kit::new().await;
    let (port, _) = answering(|head| {
        if head.starts_with("HEAD") {
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n".into()
        } else if head.contains("/304") {
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".into()
        } else {
            "HTTP/1.1 204 No Content\r\n\r\n".into()
        }
    })
    .await;
    kit.table.up(port);
    let mut client = Client::connect(kit.address).await;
    for line in [
        "HEAD / HTTP/1.1",
        "GET /304 HTTP/1.1",
        "GET /204 HTTP/1.1",
        "HEAD / HTTP/1.1",
    ] {
        client.send(&head(port, line)).await;
        client.until("\r\n\r\n").await;
        assert!(client.read.is_empty());
    }
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_gets_an_end_that_can_be_told_from_a_break() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
        client.send(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nhello").await;
    })
    .await;
    kit.table.up(port);
    let answer = kit.ask(port, "GET / HTTP/1.1", b"").await;
    assert!(
        answer.contains("Transfer-Encoding: chunked\r\n"),
        "{answer}"
    );
    assert!(
        answer.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        "{answer}"
    );
    let old = kit.open(port, "GET / HTTP/1.0", b"").await.rest().await;
    assert!(
        old.ends_with("\r\n\r\nhello") && !old.contains("chunked"),
        "{old}"
    );
}

#[tokio::test]
async fn a_chunked_answer_is_unwrapped_for_a_client_that_cannot_read_it() {
    let kit = Kit::new().await;
    let (port, _) = answering(|_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".into()
    })
    .await;
    kit.table.up(port);
    let answer = kit.open(port, "GET / HTTP/1.0", b"").await.rest().await;
    assert!(
        answer.ends_with("\r\n\r\nabc") && !answer.contains("Transfer-Encoding"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_broken_answer_is_a_broken_transfer() {
    for begun in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        for version in ["1.1", "1.0"] {
            let kit = Kit::new().await;
            let (port, _) = server(move |mut client| async move {
                client.until("\r\n\r\n").await;
                client.send(begun.as_bytes()).await;
            })
            .await;
            kit.table.up(port);
            let mut client = kit.open(port, &format!("GET / HTTP/{version}"), b"").await;
            let end = client.read_to_end().await;
            let text = String::from_utf8_lossy(&client.read);
            assert!(!text.ends_with("0\r\n\r\n"), "{text}");
            // Where no length tells that something is missing, the connection must say so itself.
            if !text.contains("Content-Length") && !text.contains("chunked") {
                assert!(
                    end.is_err(),
                    "{version} {begun:?}: an orderly end of {text}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_is_malformed_from_the_start_is_no_answer() {
    let kit = Kit::new().await;
    let (port, _) =
        answering(|_| "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfX".into())
            .await;
    kit.table.up(port);
    let answer = kit.ask(port, "GET / HTTP/1.1", b"").await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn what_came_before_a_reset_arrives_and_the_reset_shows() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
        client
            .send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            .await;
        client.until("go").await;
        socket2::SockRef::from(&client.stream)
            .set_linger(Some(std::time::Duration::ZERO))
            .unwrap();
    })
    .await;
    kit.table.up(port);
    let mut client = kit
        .open(port, "POST / HTTP/1.1\nContent-Length: 2", b"")
        .await;
    client.until("half").await;
    client.send(b"go").await;
    client.read_to_end().await.ok();
    assert!(client.read.is_empty(), "nothing was made up");
}

#[tokio::test]
async fn a_client_that_only_finished_sending_still_gets_its_answer() {
    let kit = Kit::new().await;
    let (port, _) = answering(|_| ok("late")).await;
    kit.table.up(port);
    let mut client = kit.open(port, "GET / HTTP/1.1", b"").await;
    client.stream.shutdown().await.unwrap();
    assert!(client.rest().await.ends_with("late"));
}

#[tokio::test]
async fn no_answer_and_no_http_are_502() {
    let kit = Kit::new().await;
    let (silent, _) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
    })
    .await;
    let (other, _) = server(|mut client| async move {
        client.send(b"-ERR unknown command\r\n").await;
        client.until("\r\n\r\n").await;
    })
    .await;
    for port in [silent, other] {
        kit.table.up(port);
        let answer = kit
            .ask(port, "POST / HTTP/1.1\nContent-Length: 0", b"")
            .await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
    assert_eq!(*kit.table.observed.lock().unwrap(), [(other, false)]);
}

#[tokio::test]
async fn an_upload_passes_whole_in_either_framing() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        let head = client.until("\r\n\r\n").await;
        let size = if head.contains("chunked") {
            8 * 1024 * 1024 + 18
        } else {
            8 * 1024 * 1024
        };
        let mut sum = 0_u64;
        let mut buffer = std::mem::take(&mut client.read);
        let mut seen = 0;
        loop {
            seen += buffer.len();
            sum += buffer.iter().map(|byte| u64::from(*byte)).sum::<u64>();
            if seen >= size {
                break;
            }
            buffer.clear();
            if client.stream.read_buf(&mut buffer).await.unwrap() == 0 {
                break;
            }
        }
        client.send(ok(&format!("{seen} {sum}")).as_bytes()).await;
    })
    .await;
    kit.table.up(port);
    let body: Vec<u8> = (0..8 * 1024 * 1024_u32)
        .map(|n| u8::try_from(n % 251).unwrap())
        .collect();
    let sum: u64 = body.iter().map(|byte| u64::from(*byte)).sum();
    let plain = kit
        .ask(
            port,
            &format!("POST / HTTP/1.1\nContent-Length: {}", body.len()),
            &body,
        )
        .await;
    assert!(plain.ends_with(&format!("{} {sum}", body.len())), "{plain}");
    let (before, after) = (b"800000\r\n", b"\r\n0;a=b\r\n\r\n");
    let chunked = [&before[..], &body, &after[..]].concat();
    let sum: u64 = chunked.iter().map(|byte| u64::from(*byte)).sum();
    let answer = kit
        .ask(
            port,
            "POST / HTTP/1.1\nTransfer-Encoding: chunked",
            &chunked,
        )
        .await;
    assert!(
        answer.ends_with(&format!("{} {sum}", chunked.len() - 1))
            || answer.ends_with(&format!("{} {sum}", chunked.len())),
        "{answer}"
    );
}

#[tokio::test]
async fn the_hundred_comes_from_the_server_and_the_body_only_after_it() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        let head = client.until("\r\n\r\n").await;
        assert!(head.contains("Expect: 100-continue\r\n"));
        assert!(client.read.is_empty(), "no body before the 100");
        if head.contains("/refuse") {
            client
                .send(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
                .await;
            return;
        }
        client.send(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        client.until("hello").await;
        client.send(ok("thanks").as_bytes()).await;
    })
    .await;
    kit.table.up(port);
    let lines = "POST /x HTTP/1.1\nContent-Length: 5\nExpect: 100-continue";
    let mut client = kit.open(port, lines, b"").await;
    assert_eq!(
        client.until("\r\n\r\n").await,
        "HTTP/1.1 100 Continue\r\n\r\n"
    );
    client.send(b"hello").await;
    client.until("thanks").await;
    let mut refused = kit.open(port, &lines.replace("/x", "/refuse"), b"").await;
    assert!(
        refused
            .until("\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 417 No\r\n")
    );
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_still_sends() {
    let kit = Kit::new().await;
    let (port, _) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
        client
            .send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
            .await;
    })
    .await;
    kit.table.up(port);
    let mut client = kit
        .open(port, "POST / HTTP/1.1\nContent-Length: 100000000", b"")
        .await;
    let block = vec![0; 64 * 1024];
    // It sends on and on, as a browser does that has not looked yet.
    for _ in 0..64 {
        if client.stream.write_all(&block).await.is_err() {
            break;
        }
    }
    let answer = client.until("big").await;
    assert!(
        answer.starts_with("HTTP/1.1 413 Too Large\r\n")
            && answer.contains("Connection: close\r\n"),
        "{answer}"
    );
}

#[tokio::test]
async fn events_come_one_by_one_and_a_client_that_leaves_ends_the_servers_work() {
    let kit = Kit::new().await;
    let (ended, is_ended) = tokio::sync::watch::channel(false);
    let (arrived, arrivals) = tokio::sync::watch::channel(0);
    let (port, _) = server(move |mut client| {
        let (ended, mut arrivals) = (ended.clone(), arrivals.clone());
        async move {
            client.until("\r\n\r\n").await;
            client
                .send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
                .await;
            for n in 0..3 {
                client.send(format!("data: {n}\n\n").as_bytes()).await;
                // The next only once this one has arrived: nothing may be held back.
                arrivals.wait_for(|count| *count > n).await.unwrap();
            }
            let mut rest = [0; 16];
            assert!(!matches!(client.stream.read(&mut rest).await, Ok(size) if size > 0));
            ended.send_replace(true);
        }
    })
    .await;
    kit.table.up(port);
    let mut client = kit.open(port, "GET / HTTP/1.1", b"").await;
    for n in 0..3 {
        client.until(&format!("data: {n}\n\n")).await;
        arrived.send_replace(n + 1);
    }
    drop(client);
    eventually("the server saw the client leave", || *is_ended.borrow()).await;
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closes_costs_a_second_try_and_no_request() {
    let kit = Kit::new().await;
    // Each connection answers one request, says it keeps, and closes once the next one arrives.
    let (port, connections) = server(|mut client| async move {
        client.until("\r\n\r\n").await;
        client.send(ok("one").as_bytes()).await;
        client.until("\r\n\r\n").await;
    })
    .await;
    kit.table.up(port);
    let mut client = Client::connect(kit.address).await;
    for _ in 0..3 {
        client.send(&head(port, "GET / HTTP/1.1")).await;
        client.until("one").await;
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
    // A request with a body is never on a kept connection, so it cannot be lost with one.
    client
        .send(&head(port, "POST / HTTP/1.1\nContent-Length: 2"))
        .await;
    client.send(b"hi").await;
    client.until("one").await;
    assert_eq!(connections.load(Ordering::SeqCst), 4);
}
