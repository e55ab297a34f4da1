//! A server that is restarting.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::super::Limits;
use super::kit::{Kit, eventually, ok, run_server};

/// A port that listened and does not at the moment, kept from others by a bound socket that does not listen.
fn restarting(kit: &Kit) -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    kit.table.down(port);
    (socket, port)
}

fn listen(
    kit: &Kit,
    socket: socket2::Socket,
    port: u16,
) -> std::sync::Arc<std::sync::atomic::AtomicUsize> {
    socket.listen(16).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    let count = run_server(listener, |mut client| async move {
        client.until("\r\n\r\n").await;
        client.send(ok("back").as_bytes()).await;
    });
    kit.table.up(port);
    count
}

#[tokio::test]
async fn a_navigation_gets_the_waiting_page_at_once_and_the_page_hears_when_the_port_is_back() {
    let kit = Kit::new().await;
    let (socket, port) = restarting(&kit);
    for lines in [
        "GET / HTTP/1.1\nAccept: text/html",
        "GET / HTTP/1.1\nSec-Fetch-Mode: navigate",
    ] {
        let begun = Instant::now();
        let page = kit.ask(port, lines, b"").await;
        assert!(
            page.starts_with("HTTP/1.1 503 ")
                && page.contains("<script>")
                && page.contains("Retry-After: 1"),
            "{page}"
        );
        assert!(begun.elapsed() < Duration::from_secs(2), "it did not wait");
    }
    let mut waiting = kit.open(port, "GET / HTTP/1.1\nX-Whim-Wait: 1", b"").await;
    let count = listen(&kit, socket, port);
    assert!(waiting.until("\r\n\r\n").await.starts_with("HTTP/1.1 204 "));
    assert_eq!(count.load(Ordering::SeqCst), 0, "asking is not visiting");
}

#[tokio::test]
async fn what_may_be_repeated_waits_and_is_served_when_the_port_is_back() {
    let kit = Kit::new().await;
    let (socket, port) = restarting(&kit);
    let mut get = kit.open(port, "GET /api HTTP/1.1", b"").await;
    let mut head = kit.open(port, "HEAD / HTTP/1.1", b"").await;
    let post = kit
        .ask(port, "POST / HTTP/1.1\nContent-Length: 2", b"hi")
        .await;
    assert!(
        post.starts_with("HTTP/1.1 503 ") && post.contains("Retry-After"),
        "{post}"
    );
    assert!(post.contains("application/problem+json"));
    let count = listen(&kit, socket, port);
    get.until("back").await;
    head.until("\r\n\r\n").await;
    assert_eq!(
        count.load(Ordering::SeqCst),
        2,
        "the POST was never delivered"
    );
}

#[tokio::test]
async fn waiting_has_an_end_and_one_who_leaves_waits_no_more() {
    let limits = Limits {
        hold: Duration::from_millis(100),
        ..Limits::default()
    };
    let kit = Kit::with(limits, None).await;
    let (_socket, port) = restarting(&kit);
    let answer = kit.ask(port, "GET / HTTP/1.1", b"").await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After"),
        "{answer}"
    );
    let waited = kit.ask(port, "GET / HTTP/1.1\nX-Whim-Wait: 1", b"").await;
    assert!(waited.starts_with("HTTP/1.1 503 "), "{waited}");

    let patient = Kit::with(
        Limits {
            per_port: 1,
            ..Limits::default()
        },
        None,
    )
    .await;
    let (_socket, port) = restarting(&patient);
    let held = patient.open(port, "GET / HTTP/1.1", b"").await;
    // The one place is taken while it waits, and free once it has left.
    let busy = || patient.proxy.load.count(port) == 1;
    eventually("the request is held", busy).await;
    drop(held);
    eventually("its place is free", || !busy()).await;
}

#[tokio::test]
async fn a_server_that_goes_down_over_a_request_is_waited_for() {
    for accept in ["*/*", "text/html"] {
        let kit = Kit::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        kit.table.up(address.port());
        let lines = format!("GET / HTTP/1.1\nAccept: {accept}");
        let mut client = kit.open(address.port(), &lines, b"").await;
        let (mut server, _) = listener.accept().await.unwrap();
        let mut head = [0; 16];
        tokio::io::AsyncReadExt::read_exact(&mut server, &mut head)
            .await
            .unwrap();
        drop(listener);
        kit.table.down(address.port());
        drop(server);
        if accept == "text/html" {
            assert!(
                client
                    .until("</html>")
                    .await
                    .contains("Waiting for the server")
            );
            continue;
        }
        run_server(
            TcpListener::bind(address).await.unwrap(),
            |mut client| async move {
                client.until("\r\n\r\n").await;
                client.send(ok("back").as_bytes()).await;
            },
        );
        kit.table.up(address.port());
        client.until("back").await;
    }
}

#[tokio::test]
async fn a_table_that_is_behind_does_no_harm() {
    let kit = Kit::new().await;
    let (socket, port) = restarting(&kit);
    // Listed, but refusing: the server went a moment ago.
    kit.table.up(port);
    let mut get = kit.open(port, "GET / HTTP/1.1", b"").await;
    let post = kit
        .ask(port, "POST / HTTP/1.1\nContent-Length: 2", b"hi")
        .await;
    assert!(post.starts_with("HTTP/1.1 503 "), "{post}");
    socket.listen(16).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    run_server(listener, |mut client| async move {
        client.until("\r\n\r\n").await;
        client.send(ok("back").as_bytes()).await;
    });
    get.until("back").await;
}

#[tokio::test]
async fn the_end_of_the_proxy_waits_for_what_is_in_progress_and_for_nothing_else() {
    let kit = Kit::new().await;
    let (socket, port) = restarting(&kit);
    listen(&kit, socket, port);
    let mut idle = kit.open(port, "GET / HTTP/1.1", b"").await;
    idle.until("back").await;
    let begun = Instant::now();
    kit.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "an idle client held it up"
    );
    assert!(idle.read_to_end().await.is_ok());
}
