//! The WebSocket of the Responses API, from both ends.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use whim_proxies::generation::{Activity, Provider, Purpose, Secret, Session, What};
use whim_wire::generation::{CostSource, LedgerLine, Outcome};
use whim_wire::money::NanoUsd;

use crate::kit::*;

/// Lines of the ledger by the provider's id.
fn line_of(proxy: &Proxy, id: &str) -> LedgerLine {
    let lines = proxy.proxy.generations(None, 100).unwrap();
    let line = lines
        .iter()
        .find(|line| line.generation_id.as_deref() == Some(id));
    line.unwrap_or_else(|| panic!("no line for {id}: {lines:?}"))
        .clone()
}

/// Passes a message from here to there and compares what comes with what left, byte for byte.
async fn pass(from: &mut Peer, to: &mut Peer, message: &Value) {
    let text = message.to_string();
    from.text(text.clone()).await;
    assert_eq!(to.hear_text().await, text);
}

fn started(activity: &Activity) -> Option<Purpose> {
    match &activity.what {
        What::Started { purpose, .. } => Some(*purpose),
        _ => None,
    }
}

#[tokio::test]
async fn two_responses_at_once_are_told_apart_and_priced_apart() {
    let speaker = Speaker::start().await;
    let mut proxy = speaker.setup().start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    assert!(
        proxy.proxy.board().in_flight().is_empty(),
        "an open socket is no call"
    );
    for lane in ["planner", "research"] {
        pass(&mut agent, &mut model, &create(Some(lane))).await;
        assert_eq!(proxy.event(started).await, Purpose::Turn);
    }
    assert_eq!(proxy.proxy.board().in_flight().len(), 2);
    let (a, b) = (Some("planner"), Some("research"));
    for event in [
        on(a, created("resp_a")),
        on(b, created("resp_b")),
        on(a, delta("one")),
        on(b, delta("two")),
        on(
            b,
            json!({"type": "response.output_item.done", "item": {"type": "function_call", "name": "x"}}),
        ),
        on(b, completed("resp_b", 1000, 10)),
    ] {
        pass(&mut model, &mut agent, &event).await;
    }
    let line = proxy.finished().await;
    assert_eq!(
        (
            line.generation_id.as_deref(),
            line.outcome,
            line.cost_usd,
            line.cost_source
        ),
        // 1000 × $1.25 and 10 × $10 a million.
        (
            Some("resp_b"),
            Outcome::Complete,
            NanoUsd(1_350_000),
            CostSource::Table
        )
    );
    assert_eq!(
        (line.path.as_str(), line.status, line.stream),
        ("/v1/responses", Some(101), true)
    );
    assert_eq!(line.upstream_request_id.as_deref(), Some("req_socket"));
    assert_eq!(line.stop_reason.as_deref(), Some("completed"));
    assert!(line.ttfb_ms.is_some());
    let in_flight = proxy.proxy.board().in_flight();
    assert_eq!(in_flight.len(), 1, "the other goes on");
    assert!(in_flight[0].1.first_byte.is_some());
    pass(&mut model, &mut agent, &on(a, completed("resp_a", 100, 1))).await;
    let tool_use = proxy
        .event(|activity| match &activity.what {
            What::Finished { tool_use, .. } => Some(*tool_use),
            _ => None,
        })
        .await;
    assert!(!tool_use, "the tool was the other's");
    let line = line_of(&proxy, "resp_a");
    assert_eq!(
        (line.outcome, line.cost_usd),
        (Outcome::Complete, NanoUsd(135_000))
    );
    assert_eq!(proxy.proxy.spend().totals.usd, NanoUsd(1_485_000));
    assert!(proxy.proxy.board().in_flight().is_empty());
}

#[tokio::test]
async fn one_lane_is_answered_in_order() {
    let speaker = Speaker::start().await;
    let mut proxy = speaker.setup().start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    let mut warm_up = create(None);
    warm_up["generate"] = false.into();
    pass(&mut agent, &mut model, &warm_up).await;
    assert_eq!(
        proxy.event(started).await,
        Purpose::Side,
        "nobody has asked for anything"
    );
    pass(&mut agent, &mut model, &create(None)).await;
    assert_eq!(proxy.event(started).await, Purpose::Turn);
    for event in [
        json!({"type": "codex.rate_limits", "plan_type": "plus"}),
        created("resp_1"),
        completed("resp_1", 100, 0),
        created("resp_2"),
        delta("x"),
        completed("resp_2", 200, 2),
    ] {
        pass(&mut model, &mut agent, &event).await;
    }
    proxy.finished().await;
    proxy.finished().await;
    assert_eq!(line_of(&proxy, "resp_1").cost_usd, NanoUsd(125_000));
    assert_eq!(line_of(&proxy, "resp_2").cost_usd, NanoUsd(270_000));
    let processed = json!({"type": "response.processed", "response_id": "resp_2"});
    pass(&mut agent, &mut model, &processed).await;
    assert_eq!(proxy.proxy.spend().totals.requests, 2);
}

#[tokio::test]
async fn a_reached_cap_answers_on_the_socket_and_a_raise_lets_go_on() {
    let speaker = Speaker::start().await;
    let mut proxy = speaker.setup().budget("0.01").start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(None)).await;
    for event in [created("resp_1"), completed("resp_1", 8000, 1)] {
        pass(&mut model, &mut agent, &event).await;
    }
    assert_eq!(proxy.finished().await.cost_usd, NanoUsd(10_010_000));
    agent.say(&create(Some("main"))).await;
    let refused = agent.hear().await;
    assert_eq!(
        (
            &refused["type"],
            &refused["status"],
            &refused["stream_id"],
            &refused["error"]["code"]
        ),
        (
            &json!("error"),
            &json!(400),
            &json!("main"),
            &json!("insufficient_quota")
        )
    );
    let message = refused["error"]["message"].as_str().unwrap();
    for part in ["$0.01", "$0.01001", "PUT /v1/budget"] {
        assert!(message.contains(part), "{message}");
    }
    let line = proxy.line();
    assert_eq!(
        (line.outcome, line.cost_usd, line.status),
        (Outcome::Refused, NanoUsd::ZERO, Some(400))
    );
    proxy.proxy.set_budget(Some("1.00".parse().unwrap()));
    // What was refused was not sent: the next message upstream is this one.
    pass(&mut agent, &mut model, &create(Some("again"))).await;
}

#[tokio::test]
async fn a_response_that_passes_the_cap_is_cut_and_so_is_its_socket() {
    let speaker = Speaker::start().await;
    let mut proxy = speaker.setup().budget("0.05").start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(Some("a"))).await;
    pass(&mut model, &mut agent, &on(Some("a"), created("resp_1"))).await;
    let event = on(Some("a"), delta(&"x".repeat(150)));
    // 50 tokens, $0.0005: a hundred of them pass the cap.
    let mut cut = None;
    for _ in 0..100 {
        model.text(event.to_string()).await;
        let heard = agent.hear().await;
        if heard["type"] == "response.failed" {
            cut = Some(heard);
            break;
        }
        assert_eq!(heard, event);
    }
    let cut = cut.expect("a cut");
    assert_eq!(
        (
            &cut["stream_id"],
            &cut["response"]["id"],
            &cut["response"]["error"]["code"]
        ),
        (&json!("a"), &json!("resp_1"), &json!("insufficient_quota"))
    );
    assert_eq!(agent.closed().await.code, CloseCode::Policy);
    let line = proxy.finished().await;
    assert_eq!(line.outcome, Outcome::CutAtCap);
    let spend = proxy.proxy.spend();
    // The budget is looked at every 64 tokens.
    let spent = spend.totals.usd.0;
    assert!((40_000_000..=51_000_000).contains(&spent), "{spent}");
    assert_eq!(spend.reserved_usd, NanoUsd::ZERO);
    assert!(
        !matches!(model.next().await, Some(Ok(_))),
        "the provider is told to stop"
    );
}

#[tokio::test]
async fn an_upstream_that_is_cut_looks_cut_and_its_reservation_is_settled() {
    let speaker = Speaker::start().await;
    let mut proxy = speaker.setup().budget("5.00").start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(None)).await;
    for event in [created("resp_1"), delta("abc")] {
        pass(&mut model, &mut agent, &event).await;
    }
    assert!(proxy.proxy.spend().reserved_usd > NanoUsd::ZERO);
    drop(model);
    let end = agent.next().await;
    assert!(!matches!(end, Some(Ok(_))), "no close may come: {end:?}");
    let line = proxy.finished().await;
    assert_eq!(
        (
            line.outcome,
            line.cost_source,
            line.generation_id.as_deref()
        ),
        (Outcome::UpstreamCut, CostSource::Estimate, Some("resp_1"))
    );
    let spend = proxy.proxy.spend();
    assert_eq!(spend.reserved_usd, NanoUsd::ZERO);
    assert!(line.cost_usd > NanoUsd::ZERO && spend.totals.usd == line.cost_usd);
}

#[tokio::test]
async fn a_client_that_leaves_leaves_the_provider_too() {
    let speaker = Speaker::start().await;
    let mut proxy = speaker.setup().start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(None)).await;
    pass(&mut model, &mut agent, &created("resp_1")).await;
    drop(agent);
    assert!(!matches!(model.next().await, Some(Ok(_))));
    assert_eq!(proxy.finished().await.outcome, Outcome::ClientLeft);
}

#[tokio::test]
async fn closes_pass_with_their_codes() {
    let speaker = Speaker::start().await;
    let mut proxy = speaker.setup().start().await;
    let frame = |code: u16, reason: &'static str| CloseFrame {
        code: code.into(),
        reason: reason.into(),
    };
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(None)).await;
    model.close(frame(4001, "an hour is over")).await;
    assert_eq!(agent.closed().await, frame(4001, "an hour is over"));
    assert_eq!(proxy.finished().await.outcome, Outcome::UpstreamCut);
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    agent.close(frame(1000, "done")).await;
    assert_eq!(model.closed().await, frame(1000, "done"));
}

#[tokio::test]
async fn keys_and_handshakes_stay_on_their_side() {
    let speaker = Speaker::start().await;
    let proxy = speaker.setup().start().await;
    let ((answered, mut agent), (asked, mut model)) =
        tokio::join!(proxy.switch(), speaker.accept());
    let header = |name: &str| {
        asked
            .headers()
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
    };
    assert_eq!(header("authorization"), Some(format!("Bearer {KEY}")));
    assert_eq!(asked.headers().get_all("authorization").iter().count(), 1);
    assert_eq!(header("host"), Some(speaker.address.to_string()));
    assert_eq!(
        header("openai-beta").as_deref(),
        Some("responses_websockets=2026-02-06")
    );
    assert_ne!(
        header("sec-websocket-key").as_deref(),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    assert_eq!(
        header("sec-websocket-extensions"),
        None,
        "frames are read here"
    );
    assert!(!format!("{asked:?}").contains(&proxy.token));
    assert_eq!(answered["x-codex-turn-state"], "sticky");
    assert_eq!(
        answered["sec-websocket-accept"],
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    assert!(!format!("{answered:?}").contains(KEY));
    // The provider may say it in an error; that is the one place where it would pass.
    pass(&mut agent, &mut model, &create(None)).await;
    let unknown = json!({"type": "error", "status": 401, "error": {"code": "invalid_api_key", "message": "no"}});
    pass(&mut model, &mut agent, &unknown).await;
    let line = proxy.line();
    assert_eq!(
        (line.outcome, line.status),
        (Outcome::UpstreamError, Some(401))
    );
    assert_eq!(line.cost_usd, NanoUsd::ZERO);
}

#[tokio::test]
async fn who_does_not_speak_it_is_not_asked() {
    let mock = Mock::always("").await;
    for provider in [
        Provider::OpenAi,
        Provider::OpenRouter,
        Provider::Compatible,
        Provider::Anthropic,
    ] {
        let proxy = to(provider, &mock).start().await;
        let reply = proxy.switch_refused(&[]).await;
        assert_eq!(
            (reply.status, reply.headers["upgrade"].as_str()),
            (426, "HTTP/1.1")
        );
        assert!(!reply.text().contains(KEY));
    }
    assert!(mock.requests().is_empty());
}

#[tokio::test]
async fn who_says_no_is_heard() {
    let body = r#"{"error":{"message":"not here"}}"#;
    let mock = Mock::always(json("426 Upgrade Required", body)).await;
    let mut setup = to(Provider::OpenAi, &mock);
    setup.websocket = true;
    let proxy = setup.start().await;
    let reply = proxy.switch_refused(&[]).await;
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.whole),
        (426, body, true)
    );
    let seen = mock.requests();
    assert_eq!(seen[0].line, "GET /v1/responses HTTP/1.1");
    assert_eq!(
        seen[0].header("authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );

    let refused = proxy
        .switch_refused(&[("x-api-key", "whim-main-wrong")])
        .await;
    assert_eq!(refused.status, 401, "two tokens that are not the same");
    assert_eq!(mock.requests().len(), 1);
}

#[tokio::test]
async fn a_socket_whose_token_or_key_has_changed_takes_no_request() {
    let speaker = Speaker::start().await;
    let proxy = speaker.setup().start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    proxy
        .proxy
        .credentials()
        .set(Provider::OpenAi, Some(Secret::new("sk-another".to_owned())));
    agent.say(&create(None)).await;
    let refused = agent.hear().await;
    assert_eq!(
        refused["error"]["code"], "websocket_connection_limit_reached",
        "{refused}"
    );
    proxy
        .proxy
        .credentials()
        .set(Provider::OpenAi, Some(Secret::new(KEY.to_owned())));
    pass(&mut agent, &mut model, &create(None)).await;
    pass(&mut model, &mut agent, &completed("resp_1", 1, 1)).await;
    proxy.proxy.tokens().revoke("main");
    agent.say(&create(None)).await;
    assert_eq!(agent.hear().await["status"], 401);
}

#[tokio::test]
async fn what_is_not_known_does_not_pass() {
    let speaker = Speaker::start().await;
    let proxy = speaker.setup().start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    for message in [
        json!({"type": "response.steer", "previous_response_id": "resp_1", "input": "x"}),
        json!({"input": "x"}),
    ] {
        agent.say(&message).await;
        let refused = agent.hear().await;
        assert_eq!(
            (&refused["type"], &refused["status"]),
            (&json!("error"), &json!(400))
        );
    }
    // A request in a binary message is one all the same.
    let text = create(None).to_string();
    let binary = Message::binary(text.clone().into_bytes());
    futures_util::SinkExt::send(&mut agent.0, binary.clone())
        .await
        .unwrap();
    assert_eq!(model.next().await.unwrap().unwrap(), binary);
    assert_eq!(proxy.proxy.board().in_flight().len(), 1);
}

#[tokio::test]
async fn a_message_may_be_as_large_as_a_body_and_no_larger() {
    let speaker = Speaker::start().await;
    let setup = speaker.setup().with(|config| config.limits.body = 1 << 20);
    let proxy = setup.start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    let mut large = create(None);
    large["instructions"] = "x".repeat((1 << 20) - 1000).into();
    pass(&mut agent, &mut model, &large).await;
    pass(&mut model, &mut agent, &completed("resp_1", 1, 1)).await;
    large["instructions"] = "x".repeat(1 << 20).into();
    agent.text(large.to_string()).await;
    assert_eq!(agent.closed().await.code, CloseCode::Size);
}

#[tokio::test]
async fn a_continued_conversation_is_held_for_whole() {
    let speaker = Speaker::start().await;
    let mut proxy = speaker.setup().budget("100.00").start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(None)).await;
    let first = proxy.proxy.spend().reserved_usd;
    pass(&mut model, &mut agent, &completed("resp_1", 200_000, 1)).await;
    proxy.finished().await;
    let mut next = create(None);
    next["previous_response_id"] = "resp_1".into();
    pass(&mut agent, &mut model, &next).await;
    // 200,001 tokens at $1.25 a million.
    let more = proxy.proxy.spend().reserved_usd.0 - first.0;
    assert!(more >= 250_000_000, "{more}");
}

#[tokio::test]
async fn a_response_that_nobody_asked_for_costs_all_the_same() {
    let speaker = Speaker::start().await;
    let mut proxy = speaker.setup().budget("0.05").start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(None)).await;
    for event in [
        created("resp_1"),
        completed("resp_1", 100, 1),
        created("resp_2"),
        completed("resp_2", 39_000, 0),
    ] {
        pass(&mut model, &mut agent, &event).await;
    }
    proxy.finished().await;
    proxy.finished().await;
    assert_eq!(line_of(&proxy, "resp_2").cost_usd, NanoUsd(48_750_000));
    // The next one finds too little money; as nothing can be refused any more, the socket ends.
    proxy.proxy.set_budget(Some("0.01".parse().unwrap()));
    model.say(&created("resp_3")).await;
    assert_eq!(agent.closed().await.code, CloseCode::Policy);
}

#[tokio::test]
async fn pings_are_answered_on_each_side() {
    let speaker = Speaker::start().await;
    let proxy = speaker.setup().start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    for peer in [&mut agent, &mut model] {
        let ping = Message::Ping("are you there".into());
        futures_util::SinkExt::send(&mut peer.0, ping)
            .await
            .unwrap();
        let answer = within("a pong", futures_util::StreamExt::next(&mut peer.0)).await;
        assert_eq!(
            answer.unwrap().unwrap(),
            Message::Pong("are you there".into())
        );
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_its_writer() {
    let speaker = Speaker::start().await;
    let proxy = speaker.setup().start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(None)).await;
    pass(&mut model, &mut agent, &created("resp_1")).await;
    let event = delta(&"x".repeat(1 << 20)).to_string();
    let mut sent = 0;
    // More than all buffers on the way hold. That nothing moves can only be seen for a while; a slow machine makes this
    // pass too early, and never fail.
    while sent < 64 {
        let sending = futures_util::SinkExt::send(&mut model.0, Message::text(event.clone()));
        if tokio::time::timeout(Duration::from_millis(500), sending)
            .await
            .is_err()
        {
            break;
        }
        sent += 1;
    }
    assert!(sent < 64, "{sent} MiB went nowhere");
    for _ in 0..sent {
        assert_eq!(agent.hear_text().await.len(), event.len());
    }
}

#[tokio::test]
async fn a_silent_provider_is_given_up() {
    let speaker = Speaker::start().await;
    let setup = speaker.setup().with(|config| {
        config.limits.silence = Duration::from_millis(300);
        config.limits.stall = Duration::from_millis(100);
    });
    let mut proxy = setup.start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(None)).await;
    pass(&mut model, &mut agent, &created("resp_1")).await;
    proxy
        .event(|activity| matches!(activity.what, What::Stalled { .. }).then_some(()))
        .await;
    assert!(!matches!(agent.next().await, Some(Ok(_))));
    assert_eq!(proxy.finished().await.outcome, Outcome::UpstreamCut);
}

#[tokio::test]
async fn an_end_in_order_lets_a_response_finish() {
    let speaker = Speaker::start().await;
    let proxy = speaker.setup().start().await;
    let (mut agent, mut model) = joined(&proxy, &speaker).await;
    let (mut idle, _idle_model) = joined(&proxy, &speaker).await;
    pass(&mut agent, &mut model, &create(None)).await;
    let held = std::sync::Arc::clone(&proxy.proxy);
    let stopping = tokio::spawn(proxy.stop());
    assert_eq!(idle.closed().await.code, CloseCode::Away);
    agent.say(&create(Some("late"))).await;
    assert_eq!(
        agent.hear().await["error"]["code"],
        "websocket_connection_limit_reached"
    );
    pass(&mut model, &mut agent, &completed("resp_1", 10, 1)).await;
    assert_eq!(agent.closed().await.code, CloseCode::Away);
    stopping.await.unwrap();
    assert_eq!(
        held.generations(None, 1).unwrap()[0].outcome,
        Outcome::Complete
    );
}

#[tokio::test]
async fn another_provider_of_the_session_needs_another_socket() {
    let speaker = Speaker::start().await;
    let proxy = speaker.setup().start().await;
    let (mut agent, _model) = joined(&proxy, &speaker).await;
    let session = Session {
        id: "main".to_owned(),
        agent: "codex".to_owned(),
        upstreams: Vec::new(),
    };
    proxy
        .proxy
        .tokens()
        .adopt(Secret::new(proxy.token.clone()), session);
    agent.say(&create(None)).await;
    assert_eq!(
        agent.hear().await["error"]["code"],
        "websocket_connection_limit_reached"
    );
}
