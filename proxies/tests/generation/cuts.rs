//! Ends: of the agent, of the upstream, of the proxy.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use whim_proxies::generation::Provider;
use whim_wire::generation::{CostSource, Outcome};

use crate::kit::*;

#[tokio::test]
async fn an_agent_that_leaves_cancels_the_call_upstream() {
    let early = Mock::new(|_, _| vec![Step::Gone]).await;
    let streaming = Mock::new(|_, _| {
        vec![
            send(SSE),
            send(chunk("data: {\"type\":\"ping\"}\n\n")),
            Step::Gone,
        ]
    })
    .await;
    for (mock, head) in [(&early, false), (&streaming, true)] {
        let mut proxy = to(Provider::Anthropic, mock).start().await;
        let mut client = proxy.connect().await;
        client
            .send(&proxy.request("/v1/messages", TURN.as_bytes()))
            .await;
        if head {
            client.head().await;
        } else {
            within("the request to arrive", async {
                while mock.requests().is_empty() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        let left = Instant::now();
        drop(client);
        let cancelled = mock.gone(0).await.saturating_duration_since(left);
        // 50 ms is the aim on a quiet machine; a busy one only must not wait for a timer of the proxy's.
        assert!(cancelled < Duration::from_secs(2), "{cancelled:?}");
        let line = proxy.finished().await;
        assert_eq!(
            (line.outcome, line.cost_source),
            (Outcome::ClientLeft, CostSource::Estimate)
        );
        assert!(line.cost_usd.0 > 0, "a cancelled call is not free");
        assert!(proxy.proxy.board().in_flight().is_empty());
        assert_eq!(proxy.proxy.spend().reserved_usd.0, 0);
    }
}

#[tokio::test]
async fn leaving_after_the_last_event_is_a_complete_call() {
    let mock =
        Mock::new(|_, _| vec![send(SSE), send(chunk(anthropic_stream(5))), Step::Gone]).await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    let mut client = proxy.connect().await;
    client
        .send(&proxy.request("/v1/messages", TURN.as_bytes()))
        .await;
    client.head().await;
    let mut body = Vec::new();
    client.chunked(&mut body, b"message_stop\"}\n\n").await;
    drop(client);
    let line = proxy.finished().await;
    assert_eq!(
        (line.outcome, line.cost_source, line.usage.output_tokens),
        (Outcome::Complete, CostSource::Table, 5)
    );
}

#[tokio::test]
async fn a_cut_upstream_looks_cut() {
    let begin = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":100,\"output_tokens\":1}}}\n\n";
    let cuts: [(&str, Vec<Step>); 4] = [
        ("fin", vec![Step::Close]),
        ("rst", vec![Step::Reset]),
        ("mid-chunk", vec![send("ff\r\ndata: {"), Step::Close]),
        ("bad chunk size", vec![send("zz\r\n"), Step::Gone]),
    ];
    for (name, cut) in cuts {
        let mock =
            Mock::new(move |_, _| [vec![send(SSE), send(chunk(begin))], cut.clone()].concat())
                .await;
        let mut proxy = to(Provider::Anthropic, &mock).start().await;
        let reply = proxy.post("/v1/messages", TURN).await;
        assert_eq!((reply.status, reply.whole), (200, false), "{name}");
        assert!(reply.text().starts_with(begin), "{name}");
        let line = proxy.finished().await;
        assert_eq!(
            (line.outcome, line.attempts),
            (Outcome::UpstreamCut, 1),
            "{name}: not tried again"
        );
        assert!(line.cost_usd.0 >= 500_000, "{name}: the prompt is paid for");
        assert_eq!(mock.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_stream_that_just_ends_is_passed_as_it_is_and_known_as_cut() {
    let begin =
        "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":100}}}\n\n";
    let mock = Mock::always(sse(begin)).await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    let reply = proxy.post("/v1/messages", TURN).await;
    assert_eq!((reply.whole, reply.text().as_str()), (true, begin));
    assert_eq!(proxy.finished().await.outcome, Outcome::UpstreamCut);
}

#[tokio::test]
async fn an_error_mid_stream_passes_and_is_paid_for() {
    let stream = "data: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":100,\"output_tokens\":1}}}\n\n\
        data: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"abc\"}}\n\n\
        event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n";
    let mock = Mock::always(sse(stream)).await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    let reply = proxy.post("/v1/messages", TURN).await;
    assert_eq!(reply.text(), stream);
    let line = proxy.finished().await;
    assert_eq!(
        (line.outcome, line.attempts, mock.requests().len()),
        (Outcome::UpstreamError, 1, 1)
    );
    assert_eq!(
        (line.cost_usd.0, line.cost_source),
        (525_000, CostSource::Estimate)
    );
}

#[tokio::test]
async fn an_early_error_in_a_200_is_tried_again() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n";
    let good = anthropic_stream(3);
    let answers = [sse(error), sse(&good)];
    let mock = Mock::new(move |_, n| vec![send(answers[n].clone())]).await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    let reply = proxy.post("/v1/messages", TURN).await;
    assert_eq!(reply.text(), good);
    let line = proxy.finished().await;
    assert_eq!((line.outcome, line.attempts), (Outcome::Complete, 2));

    let always = Mock::always(sse(error)).await;
    let mut proxy = to(Provider::Anthropic, &always).start().await;
    assert_eq!(
        proxy.post("/v1/messages", TURN).await.text(),
        error,
        "passed when it does not get better"
    );
    let line = proxy.finished().await;
    assert_eq!(
        (line.outcome, line.attempts, line.cost_usd.0),
        (Outcome::UpstreamError, 2, 0)
    );
    assert_eq!(always.requests().len(), 2);
}

#[tokio::test]
async fn failover_before_the_first_byte_only() {
    let down = Mock::always(json("529 Overloaded", "{}")).await;
    let good = Mock::always(sse(anthropic_stream(3))).await;
    let mut proxy = to(Provider::Anthropic, &down).then(&good).start().await;
    assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
    let line = proxy.finished().await;
    assert_eq!(
        (line.attempts, down.requests().len(), good.requests().len()),
        (2, 1, 1)
    );

    let cut = Mock::new(|_, _| {
        vec![
            send(SSE),
            send(chunk("data: {\"type\":\"message_start\"}\n\n")),
            Step::Close,
        ]
    })
    .await;
    let proxy = to(Provider::Anthropic, &cut).then(&good).start().await;
    assert!(!proxy.post("/v1/messages", TURN).await.whole);
    assert_eq!(good.requests().len(), 1);
}

#[tokio::test]
async fn errors_pass_with_their_status_and_cost_nothing() {
    for status in [
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "413 Too Large",
        "429 Too Many",
    ] {
        let body = "{\"type\":\"error\",\"error\":{\"type\":\"x\",\"message\":\"y\"}}";
        let mock = Mock::always(json(status, body)).await;
        let mut proxy = to(Provider::Anthropic, &mock).start().await;
        let reply = proxy.post("/v1/messages", TURN).await;
        assert_eq!(
            (reply.status.to_string(), reply.text().as_str()),
            (status[..3].to_owned(), body)
        );
        let line = proxy.finished().await;
        assert_eq!(
            (line.outcome, line.cost_usd.0, line.attempts),
            (Outcome::UpstreamError, 0, 1),
            "{status}"
        );
        assert_eq!(mock.requests().len(), 1);
    }
}

#[tokio::test]
async fn retry_after_is_honoured() {
    for (header, calls) in [
        ("1", 2),
        ("60", 1),
        ("99999999999999999999", 1),
        ("-5", 2),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 2),
    ] {
        let answer =
            format!("HTTP/1.1 503 Busy\r\nRetry-After: {header}\r\nContent-Length: 0\r\n\r\n");
        let mock = Mock::always(answer).await;
        let proxy = to(Provider::Anthropic, &mock).start().await;
        let before = Instant::now();
        let reply = proxy.post("/v1/messages", TURN).await;
        assert_eq!(
            (reply.status, reply.headers["retry-after"].as_str()),
            (503, header)
        );
        assert_eq!(mock.requests().len(), calls, "{header}");
        if header == "1" {
            assert!(before.elapsed() >= Duration::from_secs(1));
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502_in_the_agents_format() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mock = Mock::always("").await;
    let mut setup = to(Provider::OpenAi, &mock);
    setup.bases = vec![format!("http://{}", listener.local_addr().unwrap())];
    drop(listener);
    let mut proxy = setup.start().await;
    let reply = proxy
        .post("/v1/responses", r#"{"model":"gpt-5-codex","stream":true}"#)
        .await;
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (502, Some("upstream_unavailable"))
    );
    let line = proxy.finished().await;
    assert_eq!(
        (line.outcome, line.cost_usd.0, line.status),
        (Outcome::UpstreamError, 0, Some(502))
    );
}

#[tokio::test]
async fn a_connection_that_died_in_the_pool_is_replaced_unseen() {
    let mock = Mock::new(|_, n| match n {
        0 => vec![send(sse(anthropic_stream(1))), Step::Close],
        _ => vec![send(sse(anthropic_stream(2)))],
    })
    .await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
    proxy.finished().await;
    mock.closed().await;
    assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
    assert_eq!(proxy.finished().await.attempts, 1);
    assert_eq!(mock.requests().len(), 2);
}

#[tokio::test]
async fn a_silent_upstream_is_given_up() {
    let mock = Mock::new(|_, _| {
        vec![
            send(SSE),
            send(chunk("data: {\"type\":\"message_start\"}\n\n")),
            Step::Gone,
        ]
    })
    .await;
    let setup = to(Provider::Anthropic, &mock).with(|config| {
        config.limits.silence = Duration::from_millis(300);
        config.limits.stall = Duration::from_millis(100);
    });
    let mut proxy = setup.start().await;
    let reply = proxy.post("/v1/messages", TURN).await;
    assert!(!reply.whole);
    let stalled = |a: &whim_proxies::generation::Activity| {
        matches!(a.what, whim_proxies::generation::What::Stalled { .. }).then_some(())
    };
    proxy.event(stalled).await;
    assert_eq!(proxy.finished().await.outcome, Outcome::UpstreamCut);
    mock.gone(0).await;
}

#[tokio::test]
async fn no_answer_in_time_is_a_504() {
    let mock = Mock::new(|_, _| vec![Step::Gone]).await;
    let setup = to(Provider::Anthropic, &mock)
        .with(|config| config.limits.head = Duration::from_millis(200));
    let mut proxy = setup.start().await;
    assert_eq!(proxy.post("/v1/messages", TURN).await.status, 504);
    mock.gone(0).await;
    let line = proxy.finished().await;
    assert_eq!(
        (line.outcome, line.cost_source),
        (Outcome::UpstreamError, CostSource::Estimate)
    );
    // It may have answered in full: 4096 tokens of output at 25 $ a million, and the prompt.
    assert!(
        (102_400_000..103_000_000).contains(&line.cost_usd.0),
        "{}",
        line.cost_usd
    );
}

#[tokio::test]
async fn a_stream_that_does_not_begin_is_a_504_as_well() {
    let mock = Mock::new(|_, _| vec![send(SSE), Step::Gone]).await;
    let setup = to(Provider::Anthropic, &mock)
        .with(|config| config.limits.silence = Duration::from_millis(200));
    let mut proxy = setup.start().await;
    let reply = within("an answer", proxy.post("/v1/messages", TURN)).await;
    assert_eq!(reply.status, 504);
    mock.gone(0).await;
    let line = proxy.finished().await;
    assert_eq!(line.cost_source, CostSource::Estimate);
    assert!(line.cost_usd.0 >= 102_400_000, "{}", line.cost_usd);
    assert!(proxy.proxy.board().in_flight().is_empty());
    assert_eq!(proxy.proxy.spend().reserved_usd.0, 0);
}

#[tokio::test]
async fn an_end_in_order_lets_streams_finish() {
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
    let proxy = to(Provider::Anthropic, &mock).start().await;
    let mut client = proxy.connect().await;
    client
        .send(&proxy.request("/v1/messages", TURN.as_bytes()))
        .await;
    client.head().await;
    let address = proxy.address;
    let stopping = tokio::spawn(proxy.stop());
    within("the listener to close", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    go.notify_one();
    let mut body = Vec::new();
    client.chunked(&mut body, b"message_stop\"}\n\n").await;
    stopping.await.unwrap();
}

#[tokio::test]
async fn what_a_dead_process_left_open_is_charged_at_the_next_start() {
    let mock = Mock::new(|_, _| {
        vec![
            send(SSE),
            send(chunk("data: {\"type\":\"message_start\"}\n\n")),
            Step::Gone,
        ]
    })
    .await;
    let proxy = to(Provider::Anthropic, &mock).budget("5.00").start().await;
    let mut client = proxy.connect().await;
    client
        .send(&proxy.request("/v1/messages", TURN.as_bytes()))
        .await;
    client.head().await;
    let held = proxy.proxy.spend().reserved_usd;
    assert!(held.0 > 0);
    // What is on file now is what a kill would leave.
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("state")).unwrap();
    for entry in std::fs::read_dir(proxy.directory.path().join("state")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(
            entry.path(),
            copy.path().join("state").join(entry.file_name()),
        )
        .unwrap();
    }
    let next = to(Provider::Anthropic, &mock)
        .budget("5.00")
        .start_in(copy)
        .await;
    assert_eq!(next.proxy.spend().totals.usd, held);
    assert_eq!(next.line().outcome, Outcome::UpstreamCut);
}

#[tokio::test]
async fn a_client_that_only_stops_sending_gets_its_answer() {
    let mock = Mock::always(sse(anthropic_stream(4))).await;
    let proxy = to(Provider::Anthropic, &mock).start().await;
    let mut client = proxy.connect().await;
    client
        .send(&proxy.request("/v1/messages", TURN.as_bytes()))
        .await;
    client.stream.shutdown().await.unwrap();
    let reply = client.reply().await;
    assert_eq!((reply.status, reply.text()), (200, anthropic_stream(4)));
}
