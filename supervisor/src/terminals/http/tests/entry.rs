//! Who gets in, and what everybody else is told.

use super::*;

#[tokio::test]
async fn nothing_happens_before_a_valid_first_message() {
    let server = Server::start("echo ready; read x; echo got $x").await;
    for first in [
        r#"{"AuthToken":"wrong","columns":80,"rows":24}"#,
        r#"{"columns":80,"rows":24}"#,
        r#"{"AuthToken":[],"columns":80}"#,
        r#"{"AuthToken":""}"#,
        "0evil\r",
        "{",
    ] {
        let mut client = server.connect("/t/main/ws", "tty").await.unwrap();
        client.send(Message::text(first)).await.unwrap();
        match next(&mut client).await {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1008, "{first}"),
            other => panic!("{other:?} after {first}"),
        }
    }
    assert!(
        !server
            .program
            .terminal
            .text()
            .await
            .unwrap()
            .text
            .contains("evil")
    );
}

#[tokio::test]
async fn a_silent_client_is_closed_after_five_seconds() {
    let server = Server::start("read x").await;
    let mut client = server.connect("/t/main/ws", "tty").await.unwrap();
    let began = std::time::Instant::now();
    assert_eq!(close_of(&mut client).await.0, 1008);
    let waited = began.elapsed();
    assert!((4.5..8.0).contains(&waited.as_secs_f64()), "{waited:?}");
}

#[tokio::test]
async fn upgrades_are_refused_with_real_statuses() {
    let server = Server::start("read x").await;
    let upgrade = "connection: upgrade\nupgrade: websocket\nsec-websocket-version: 13\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\nsec-websocket-protocol: tty";
    for (status, request) in [
        (426, "GET /t/main/ws".to_owned()),
        (
            426,
            format!(
                "GET /t/main/ws\n{}",
                upgrade.replace("version: 13", "version: 8")
            ),
        ),
        (
            400,
            format!(
                "GET /t/main/ws\n{}",
                upgrade.replace("protocol: tty", "protocol: chat")
            ),
        ),
        (
            400,
            format!(
                "GET /t/main/ws\n{}",
                upgrade.replace("sec-websocket-key", "x-key")
            ),
        ),
        (404, format!("GET /t/other/ws\n{upgrade}")),
        (404, format!("GET /t/cap-AAAA/ws\n{upgrade}")),
        (
            401,
            format!("GET /t/main/ws\n{upgrade}\nauthorization: Bearer wrong"),
        ),
        (
            403,
            format!("GET /t/main/ws\n{upgrade}\norigin: http://evil.example"),
        ),
        (403, format!("GET /t/main/ws\n{upgrade}\norigin: null")),
        (
            421,
            format!("GET /t/main/ws\nhost: evil.example\n{upgrade}"),
        ),
        (401, "GET /t/main/token".to_owned()),
        (
            404,
            format!("GET /t/other/token\nauthorization: Bearer {TOKEN}"),
        ),
        (401, "GET /v1/terminals".to_owned()),
        (
            403,
            format!(
                "GET /v1/terminals\nauthorization: Bearer {TOKEN}\norigin: http://evil.example"
            ),
        ),
        (421, "GET /\nhost: evil.example".to_owned()),
        (
            503,
            format!("POST /v1/terminals\nauthorization: Bearer {TOKEN}"),
        ),
    ] {
        let (got, answer) = server.http(&request).await;
        assert_eq!(got, status, "{request}\n---\n{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
}

#[tokio::test]
async fn failures_are_limited_but_a_valid_credential_always_passes() {
    let server = Server::start("echo ready; read x").await;
    let mut last = 0;
    for _ in 0..40 {
        last = server
            .http("GET /t/main/token\nauthorization: Bearer wrong")
            .await
            .0;
    }
    assert_eq!(last, 429);
    // Who guesses shuts out nobody else.
    let (other, _) = server
        .http_from(
            "127.0.0.2",
            "GET /t/main/token\nauthorization: Bearer wrong",
        )
        .await;
    assert_eq!(other, 401);
    let refused = server.connect("/t/main/ws", "tty").await;
    assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 429));
    let mut client = server.tty().await;
    output_until(&mut client, "ready").await;
}

#[tokio::test]
async fn a_bearer_in_the_upgrade_needs_no_token() {
    let server = Server::start("echo ready; read x").await;
    let bearer = format!("Bearer {TOKEN}");
    let mut client = server
        .connect_with("/t/main/ws", "tty", &[("authorization", &bearer)])
        .await
        .unwrap();
    say_hello(&mut client, "").await;
    output_until(&mut client, "ready").await;
}

#[tokio::test]
async fn a_link_opens_one_terminal_until_it_is_revoked() {
    let server = Server::start("echo ready; while read x; do echo got $x; done").await;
    let (status, answer) = server
        .http(&format!(
            "POST /v1/terminals/main/links\nauthorization: Bearer {TOKEN}"
        ))
        .await;
    assert_eq!(status, 201, "{answer}");
    let path = answer
        .split("\"path\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let location = answer
        .to_lowercase()
        .split("location: ")
        .nth(1)
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(server.http(&format!("GET {path}")).await.0, 200);
    assert!(
        server
            .http(&format!("GET {path}token"))
            .await
            .1
            .ends_with(r#"{"token":""}"#)
    );
    let mut client = server.connect(&format!("{path}ws"), "tty").await.unwrap();
    say_hello(&mut client, "").await;
    output_until(&mut client, "ready").await;
    // Links are read-only unless asked otherwise.
    client
        .send(Message::Binary(b"0evil\r".to_vec().into()))
        .await
        .unwrap();
    server
        .program
        .terminal
        .type_bytes(b"good\r".to_vec())
        .await
        .unwrap();
    let text = output_until(&mut client, "got good").await;
    assert!(!text.contains("evil"));
    let revoke = format!("DELETE {location}\nauthorization: Bearer {TOKEN}");
    assert_eq!(server.http(&revoke).await.0, 204);
    assert_eq!(close_of(&mut client).await.0, 1008);
    assert_eq!(server.http(&format!("GET {path}token")).await.0, 404);
    assert_eq!(server.http(&revoke).await.0, 404);
}
