//! What passes, and how: bytes, headers, keys, ids, accounts.

use whim_proxies::generation::{Provider, Purpose, What};
use whim_wire::generation::{CostSource, Outcome};

use crate::kit::*;

#[tokio::test]
async fn a_stream_passes_untouched_and_is_accounted() {
    let stream = anthropic_stream(57);
    let mock = Mock::always(sse(&stream)).await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    let reply = proxy.post("/v1/messages?beta=true", TURN).await;
    assert_eq!((reply.status, reply.whole), (200, true));
    assert_eq!(reply.text(), stream, "byte for byte");
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    let seen = mock.requests().remove(0);
    assert_eq!(seen.line, "POST /v1/messages?beta=true HTTP/1.1");
    assert_eq!(seen.body, TURN.as_bytes());
    assert_eq!(seen.header("x-api-key"), Some(KEY));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(seen.header("host"), Some(mock.address.to_string().as_str()));
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    let line = proxy.finished().await;
    assert_eq!(line.outcome, Outcome::Complete);
    assert_eq!(
        (
            line.session.as_str(),
            line.agent.as_str(),
            line.provider.as_str()
        ),
        ("main", "claude", "anthropic")
    );
    assert_eq!(
        (line.path.as_str(), line.model.as_deref()),
        ("/v1/messages", Some("claude-opus-4-8"))
    );
    assert_eq!(
        (
            line.generation_id.as_deref(),
            line.upstream_request_id.as_deref()
        ),
        (Some("msg_1"), Some("req_1"))
    );
    assert_eq!(
        (
            line.status,
            line.stream,
            line.stop_reason.as_deref(),
            line.attempts
        ),
        (Some(200), true, Some("end_turn"), 1)
    );
    assert_eq!(
        (line.usage.input_tokens, line.usage.output_tokens),
        (100, 57)
    );
    // 100 · 5 + 57 · 25 per million.
    assert_eq!(
        (line.cost_usd.0, line.cost_source),
        (1_925_000, CostSource::Table)
    );
    assert!(line.ttfb_ms.is_some());
    assert!(proxy.proxy.board().in_flight().is_empty());
    let spend = proxy.proxy.spend();
    assert_eq!(
        (
            spend.totals.usd.0,
            spend.totals.requests,
            spend.reserved_usd.0
        ),
        (1_925_000, 1, 0)
    );
}

#[tokio::test]
async fn events_pass_as_they_come() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let mock = Mock::new(move |_, _| {
        vec![
            send(SSE),
            send(chunk("data: {\"type\":\"message_start\"}\n\n")),
            Step::Wait(wait.clone()),
            send(chunk("data: {\"type\":\"message_stop\"}\n\n")),
            send("0\r\n\r\n"),
        ]
    })
    .await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    let mut client = proxy.connect().await;
    client
        .send(&proxy.request("/v1/messages", TURN.as_bytes()))
        .await;
    let (status, _) = client.head().await;
    assert_eq!(status, 200);
    let mut body = Vec::new();
    client.chunked(&mut body, b"message_start\"}\n\n").await;
    assert!(!proxy.proxy.board().in_flight().is_empty());
    proxy
        .event(|a| matches!(a.what, What::FirstByte).then_some(()))
        .await;
    go.notify_one();
    client.chunked(&mut body, b"message_stop\"}\n\n").await;
    assert_eq!(proxy.finished().await.outcome, Outcome::Complete);
}

#[tokio::test]
async fn each_event_split_at_every_byte() {
    let stream = anthropic_stream(9);
    let bytes = stream.clone().into_bytes();
    let mock = Mock::new(move |_, n| {
        let (a, b) = bytes.split_at(1 + n % (bytes.len() - 1));
        vec![send(SSE), send(chunk(a)), send(chunk(b)), send("0\r\n\r\n")]
    })
    .await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    let mut client = proxy.connect().await;
    for n in 0..stream.len() - 1 {
        client
            .send(&proxy.request("/v1/messages", TURN.as_bytes()))
            .await;
        let reply = client.reply().await;
        assert_eq!(reply.text(), stream, "split at {n}");
        assert_eq!(
            proxy.finished().await.usage.output_tokens,
            9,
            "split at {n}"
        );
    }
    assert_eq!(
        mock.requests().last().unwrap().connection,
        0,
        "one upstream connection served all"
    );
}

#[tokio::test]
async fn nothing_of_the_agent_leaks_and_nothing_else_is_lost() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::OpenRouter, &mock).start().await;
    let token = proxy.token.clone();
    let headers = [
        ("x-api-key", token.as_str()),
        ("api-key", "a"),
        ("x-goog-api-key", "b"),
        ("Cookie", "c=d"),
        ("Proxy-Authorization", "Basic e"),
        ("Forwarded", "for=10.0.0.1"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-Host", "f"),
        ("X-Real-IP", "10.0.0.1"),
        ("Connection", "x-private, anthropic-version, content-type"),
        ("X-Private", "g"),
        ("TE", "trailers"),
        ("Keep-Alive", "timeout=5"),
        ("anthropic-beta", "one,two"),
        ("X-Claude-Code-Session-Id", "55dd44bd"),
        ("X-Stainless-Timeout", "600"),
    ];
    let reply = proxy
        .raw(&proxy.request_with("/api/v1/messages", &headers, TURN.as_bytes()))
        .await;
    assert_eq!(reply.status, 200);
    let seen = mock.requests().remove(0);
    assert_eq!(seen.line, "POST /v1/messages HTTP/1.1");
    for gone in [
        "x-api-key",
        "api-key",
        "x-goog-api-key",
        "cookie",
        "proxy-authorization",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "connection",
        "x-private",
        "te",
        "keep-alive",
    ] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    assert_eq!(
        seen.header("authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    assert_eq!(seen.header("anthropic-beta"), Some("one,two"));
    assert_eq!(seen.header("x-stainless-timeout"), Some("600"));
    assert_eq!(
        seen.header("x-session-id"),
        Some("55dd44bd"),
        "calls of a session stay together"
    );
    assert!(!format!("{seen:?}").contains(&token));
    let seen_by_agent = format!("{:?}{}", reply.headers, reply.text());
    assert!(!seen_by_agent.contains(KEY));
    assert!(!format!("{:?}", proxy.proxy).contains(KEY));
}

#[tokio::test]
async fn without_a_valid_token_nothing_passes() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    let host = proxy.address;
    let kinds = [
        ("/v1/messages", "/error/type", "authentication_error"),
        ("/v1/responses", "/error/code", "invalid_api_key"),
        ("/v1/chat/completions", "/error/code", "invalid_api_key"),
    ];
    for (path, pointer, kind) in kinds {
        for auth in [
            "",
            "Authorization: Bearer whim-main-0\r\n",
            "x-api-key: \r\n",
            "Authorization: Basic d2hpbQ==\r\n",
        ] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: {host}\r\n{auth}Content-Length: 2\r\n\r\n{{}}"
            );
            let reply = proxy.raw(request.as_bytes()).await;
            assert_eq!(reply.status, 401, "{path} {auth}");
            assert_eq!(reply.json().pointer(pointer).unwrap(), kind);
        }
    }
    assert!(mock.requests().is_empty());
    assert!(proxy.proxy.generations(None, 10).unwrap().is_empty());
}

#[tokio::test]
async fn web_pages_and_other_hosts_are_refused() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    let reply = proxy
        .raw(&proxy.request_with(
            "/v1/messages",
            &[("Origin", "http://localhost:3000")],
            b"{}",
        ))
        .await;
    assert_eq!(reply.status, 403);
    assert!(
        !reply
            .headers
            .keys()
            .any(|name| name.starts_with("access-control"))
    );
    let request = String::from_utf8(proxy.request("/v1/messages", b"{}")).unwrap();
    let rebound = request.replace(
        &format!("Host: {}", proxy.address),
        "Host: evil.example:3001",
    );
    assert_eq!(proxy.raw(rebound.as_bytes()).await.status, 403);
    let absolute = request.replace("POST /v1", "POST http://evil.example/v1");
    assert_eq!(proxy.raw(absolute.as_bytes()).await.status, 403);
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn probes_and_unknown_paths() {
    let mock = Mock::always(json("200 OK", "{\"data\":[]}")).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    let get = |method: &str, path: &str, auth: bool| {
        let token = if auth {
            format!("x-api-key: {}\r\n", proxy.token)
        } else {
            String::new()
        };
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}Connection: close\r\n\r\n")
    };
    let mut client = proxy.connect().await;
    client.send(get("HEAD", "/", false).as_bytes()).await;
    assert_eq!(client.head().await.0, 200);
    assert_eq!(
        proxy.raw(get("GET", "/", false).as_bytes()).await.status,
        200
    );
    assert_eq!(
        proxy
            .raw(get("GET", "/v1/files", true).as_bytes())
            .await
            .status,
        404
    );
    assert_eq!(
        proxy
            .raw(get("GET", "/v1/messages/../models", true).as_bytes())
            .await
            .status,
        404
    );
    assert_eq!(
        proxy
            .raw(get("GET", "/v1/messages", true).as_bytes())
            .await
            .status,
        405
    );
    assert!(mock.requests().is_empty());
    let models = proxy
        .raw(get("GET", "/v1/models?limit=5", true).as_bytes())
        .await;
    assert_eq!(
        (models.status, models.text().as_str()),
        (200, "{\"data\":[]}")
    );
    let seen = mock.requests().remove(0);
    assert_eq!(seen.line, "GET /v1/models?limit=5 HTTP/1.1");
    assert_eq!(seen.header("x-api-key"), Some(KEY));
    assert!(
        proxy.proxy.generations(None, 10).unwrap().is_empty(),
        "no model call"
    );
}

#[tokio::test]
async fn titles_are_no_turns() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    let title = r#"{"model":"claude-opus-4-8","tools":[],"output_config":{"format":{"type":"json_schema"}},"stream":true}"#;
    for (body, expected) in [(TURN, Purpose::Turn), (title, Purpose::Side)] {
        let request = proxy.request_with(
            "/v1/messages",
            &[("X-Claude-Code-Session-Id", "s-1")],
            body.as_bytes(),
        );
        proxy.raw(&request).await;
        let (purpose, session) = proxy
            .event(|a| match &a.what {
                What::Started {
                    purpose,
                    agent_session,
                    ..
                } => Some((*purpose, agent_session.clone())),
                _ => None,
            })
            .await;
        assert_eq!((purpose, session.as_deref()), (expected, Some("s-1")));
    }
}

#[tokio::test]
async fn tokens_are_counted_here_where_the_provider_cannot() {
    let mock = Mock::always(json("200 OK", "{\"input_tokens\":7}")).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    assert_eq!(
        proxy
            .post("/v1/messages/count_tokens?beta=true", TURN)
            .await
            .json()["input_tokens"],
        7
    );
    let proxy = to(Provider::OpenRouter, &mock).start().await;
    let counted = proxy.post("/v1/messages/count_tokens", TURN).await.json()["input_tokens"]
        .as_u64()
        .unwrap();
    assert!((20..100).contains(&counted), "{counted}");
    assert_eq!(mock.requests().len(), 1);
    let absent = Mock::always(json("404 Not Found", "{}")).await;
    let proxy = to(Provider::Compatible, &absent).start().await;
    assert_eq!(
        proxy.post("/v1/messages/count_tokens", TURN).await.json()["input_tokens"],
        counted
    );
}

#[tokio::test]
async fn keys_can_be_replaced_while_running_and_missed() {
    let mock = Mock::always(sse(anthropic_stream(1))).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    proxy.proxy.credentials().set(
        Provider::Anthropic,
        Some(whim_proxies::generation::Secret::new("new-key".into())),
    );
    assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
    assert_eq!(mock.requests()[0].header("x-api-key"), Some("new-key"));
    proxy.proxy.credentials().set(Provider::Anthropic, None);
    let reply = proxy.post("/v1/messages", TURN).await;
    assert_eq!(reply.status, 401);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("PUT /v1/credentials")
    );
    assert_eq!(mock.requests().len(), 1);
}

#[tokio::test]
async fn redirects_are_passed_and_not_followed() {
    let elsewhere = Mock::always(sse(anthropic_stream(1))).await;
    let answer = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {}/v1/messages\r\nContent-Length: 0\r\n\r\n",
        elsewhere.url()
    );
    let mock = Mock::always(answer).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    assert_eq!(proxy.post("/v1/messages", TURN).await.status, 307);
    assert!(elsewhere.requests().is_empty());
}
