//! The cap, on the wire.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;
use whim_proxies::generation::{Provider, UnknownModel, What};
use whim_wire::generation::{CostSource, Outcome};
use whim_wire::money::NanoUsd;

use crate::kit::*;

#[tokio::test]
async fn a_reached_cap_refuses_in_each_format_and_a_raise_lets_go_on() {
    let mock = Mock::always(sse(anthropic_stream(1000))).await;
    // One call costs 0.0255; two reach the cap.
    let proxy = to(Provider::Compatible, &mock).budget("0.05").start().await;
    for _ in 0..2 {
        assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
    }
    let formats = [
        ("/v1/messages", 402, "/error/type", "billing_error"),
        ("/v1/responses", 400, "/error/code", "insufficient_quota"),
        (
            "/v1/chat/completions",
            402,
            "/error/code",
            "insufficient_quota",
        ),
    ];
    for (path, status, pointer, kind) in formats {
        let reply = proxy.post(path, TURN).await;
        assert_eq!(
            (
                reply.status,
                reply.json().pointer(pointer).unwrap().as_str()
            ),
            (status, Some(kind))
        );
        assert_eq!(reply.headers["x-should-retry"], "false");
        let message = reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        for part in ["$0.05", "$0.051", "PUT /v1/budget"] {
            assert!(message.contains(part), "{message}");
        }
        let line = proxy.line();
        assert_eq!(
            (line.outcome, line.cost_usd, line.status),
            (Outcome::Refused, NanoUsd::ZERO, Some(status))
        );
    }
    assert_eq!(mock.requests().len(), 2);
    proxy.proxy.set_budget(Some("1.00".parse().unwrap()));
    assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
}

#[tokio::test]
async fn what_was_spent_before_a_restore_counts_against_the_cap() {
    let mock = Mock::always(sse(anthropic_stream(1000))).await;
    let mut before = to(Provider::Anthropic, &mock).start().await;
    for _ in 0..2 {
        assert_eq!(before.post("/v1/messages", TURN).await.status, 200);
        before.finished().await;
    }
    let lines = before.proxy.generations(None, 9).unwrap();
    // Two calls cost 0.051.
    let proxy = to(Provider::Anthropic, &mock).budget("0.05").start().await;
    for taken in [2, 0] {
        let carried = proxy.proxy.carry_on(lines.clone()).await.unwrap();
        assert_eq!(carried, taken);
    }
    let reply = proxy.post("/v1/messages", TURN).await;
    assert_eq!(reply.status, 402);
    assert!(reply.text().contains("$0.051 is spent"), "{}", reply.text());
    assert_eq!(mock.requests().len(), 2);
}

#[tokio::test]
async fn what_no_count_would_come_for_is_refused_while_capped() {
    let mock = Mock::always(json("200 OK", r#"{"id":"resp_1","status":"queued"}"#)).await;
    let body = r#"{"model":"gpt-5.5","background":true,"input":"hi"}"#;
    let capped = to(Provider::OpenAi, &mock).budget("5.00").start().await;
    let reply = capped.post("/v1/responses", body).await;
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (400, Some("insufficient_quota"))
    );
    assert!(reply.text().contains("background"), "{}", reply.text());
    assert!(mock.requests().is_empty());
    let open = to(Provider::OpenAi, &mock).start().await;
    assert_eq!(open.post("/v1/responses", body).await.status, 200);
}

#[tokio::test]
async fn each_of_several_answers_is_held_for() {
    let mock = Mock::always(json("200 OK", "{}")).await;
    let proxy = to(Provider::OpenAi, &mock).budget("0.10").start().await;
    let body = |n| format!(r#"{{"model":"gpt-5.5","n":{n},"max_tokens":1000,"messages":[]}}"#);
    // 0.03 an answer.
    assert_eq!(
        proxy.post("/v1/chat/completions", body(8)).await.status,
        402
    );
    assert!(mock.requests().is_empty());
    assert_eq!(
        proxy.post("/v1/chat/completions", body(2)).await.status,
        200
    );
}

#[tokio::test]
async fn output_is_held_at_the_rate_it_will_be_priced_at() {
    let mock = Mock::new(|_, _| vec![Step::Gone]).await;
    let small = "hi".to_owned();
    let large = "words ".repeat(200_000);
    // 4096 tokens of output: 30 $ a million, 75 of the priority tier, 45 behind a prompt above 272,000 tokens.
    let cases = [
        ("default", &small, 122_880_000..123_100_000),
        ("priority", &small, 307_200_000..307_700_000),
        // And 300,000 tokens of prompt at 10.
        ("default", &large, 3_184_000_000..3_186_000_000),
    ];
    for (tier, text, expected) in cases {
        let proxy = to(Provider::OpenAi, &mock).budget("9.00").start().await;
        let body = format!(
            r#"{{"model":"gpt-5.5","stream":true,"service_tier":"{tier}","input":"{text}"}}"#
        );
        let mut client = proxy.connect().await;
        client
            .send(&proxy.request("/v1/responses", body.as_bytes()))
            .await;
        let held = within("a hold", async {
            loop {
                let held = proxy.proxy.spend().reserved_usd.0;
                if held > 0 {
                    break held;
                }
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(expected.contains(&held), "{tier}: {held}");
    }
}

#[tokio::test]
async fn one_dollar_admits_the_first_call_of_a_coding_agent() {
    let mock = Mock::always(sse(anthropic_stream(10))).await;
    let proxy = to(Provider::Anthropic, &mock).budget("1.00").start().await;
    let padding = "words of a system prompt ".repeat(4200);
    let body = TURN.replace("\"hi\"", &format!("\"{padding}\""));
    assert!(body.len() > 100_000);
    assert_eq!(proxy.post("/v1/messages", body).await.status, 200);
}

#[tokio::test]
async fn two_hundred_calls_at_once_with_money_for_three() {
    let go = std::sync::Arc::new(tokio::sync::Notify::new());
    let wait = go.clone();
    let mock =
        Mock::new(move |_, _| vec![Step::Wait(wait.clone()), send(sse(anthropic_stream(4096)))])
            .await;
    // A call costs at most 4096 output tokens, 0.1024, and its prompt.
    let proxy = to(Provider::Anthropic, &mock).budget("0.312").start().await;
    let body = TURN.replace("64000", "4096");
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let request = proxy.request("/v1/messages", body.as_bytes());
            let address = proxy.address;
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                client.send(&request).await;
                client.reply().await.status
            })
        })
        .collect();
    within("197 refusals", async {
        while proxy.proxy.spend().totals.refused < 197 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..3 {
        go.notify_one();
        tokio::task::yield_now().await;
    }
    let mut statuses = Vec::new();
    for call in calls {
        go.notify_waiters();
        statuses.push(within("a call", call).await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 3);
    assert_eq!(mock.requests().len(), 3);
    let spend = proxy.proxy.spend();
    assert!(spend.totals.usd <= spend.budget_usd.unwrap(), "{spend:?}");
}

fn endless(format: &str) -> (Vec<u8>, Vec<u8>) {
    let text = "x".repeat(300);
    match format {
        "messages" => (
            b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_9\",\"model\":\"claude-opus-4-8\",\"usage\":{\"input_tokens\":10,\"output_tokens\":1}}}\n\n".to_vec(),
            format!("event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"delta\":{{\"type\":\"text_delta\",\"text\":\"{text}\"}}}}\n\n").into_bytes(),
        ),
        "responses" => (
            b"data: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_9\",\"model\":\"gpt-5.5\",\"status\":\"in_progress\"}}\n\n".to_vec(),
            format!("data: {{\"type\":\"response.output_text.delta\",\"delta\":\"{text}\"}}\n\n").into_bytes(),
        ),
        _ => (
            b": PROCESSING\n\n".to_vec(),
            format!("data: {{\"id\":\"gen-9\",\"model\":\"gpt-5.5\",\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n").into_bytes(),
        ),
    }
}

#[tokio::test]
async fn a_stream_that_would_pass_the_cap_ends_with_an_error_of_its_format() {
    let cases = [
        (
            "/v1/messages",
            "messages",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"billing_error\"",
        ),
        (
            "/v1/responses",
            "responses",
            "event: response.failed\ndata: {\"type\":\"response.failed\"",
        ),
        (
            "/v1/chat/completions",
            "chat",
            "\"code\":\"insufficient_quota\"",
        ),
    ];
    for (path, format, mark) in cases {
        for split in [false, true] {
            let (begin, event) = endless(format);
            let sent = [begin.clone(), event.repeat(400)].concat();
            let (first, second) = event.split_at(event.len() / 2);
            let mut steps = vec![send(SSE), send(chunk(&begin))];
            for _ in 0..400 {
                if split {
                    steps.extend([send(chunk(first)), send(chunk(second))]);
                } else {
                    steps.push(send(chunk(&event)));
                }
            }
            steps.push(Step::Gone);
            let mock = Mock::new(move |_, _| steps.clone()).await;
            let mut proxy = to(Provider::Compatible, &mock).budget("0.20").start().await;
            let model = if format == "messages" {
                "claude-opus-4-8"
            } else {
                "gpt-5.5"
            };
            let reply = proxy
                .post(path, TURN.replace("claude-opus-4-8", model))
                .await;
            assert_eq!((reply.status, reply.whole), (200, true), "{format}");
            let text = reply.text();
            let at = text
                .find(mark)
                .unwrap_or_else(|| panic!("{format}: {}", &text[text.len() - 500..]));
            assert!(text.contains("$0.20"), "{format}");
            let before = &reply.body[..at];
            let whole_events = before
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(&before[..0], |end| &before[..=end]);
            assert!(
                sent.starts_with(whole_events),
                "{format}: nothing else is altered"
            );
            assert!(
                (whole_events.len() - begin.len()).is_multiple_of(event.len()),
                "{format}: between two events"
            );
            let line = proxy.finished().await;
            assert_eq!(
                (line.outcome, line.cost_source),
                (Outcome::CutAtCap, CostSource::Estimate),
                "{format}"
            );
            let spent = line.cost_usd.0;
            assert!(
                (150_000_000..=203_000_000).contains(&spent),
                "{format}: {spent}"
            );
            mock.gone(0).await;
        }
    }
}

/// A stream whose second half comes when told, and then `last`.
async fn in_two_halves(last: fn() -> Vec<Step>) -> (Mock, Arc<Notify>) {
    let (begin, event) = endless("messages");
    let (half, rest) = (event.repeat(60), event.repeat(100));
    let go = Arc::new(Notify::new());
    let wait = go.clone();
    let mock = Mock::new(move |_, _| {
        let mut steps = vec![
            send(SSE),
            send(chunk(&begin)),
            send(chunk(&half)),
            Step::Wait(wait.clone()),
            send(chunk(&rest)),
        ];
        steps.extend(last());
        steps
    })
    .await;
    (mock, go)
}

/// A client that has read the beginning of its stream, the answer's headers, and what it has read.
async fn under_way(proxy: &Proxy) -> (Client, HashMap<String, String>, Vec<u8>) {
    let mut client = proxy.connect().await;
    client
        .send(&proxy.request("/v1/messages", TURN.as_bytes()))
        .await;
    let (_, headers) = client.head().await;
    let mut body = Vec::new();
    client.chunked(&mut body, b"content_block_delta").await;
    (client, headers, body)
}

#[tokio::test]
async fn raising_the_cap_reaches_a_stream_under_way() {
    let (mock, go) = in_two_halves(|| {
        let stop = "data: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":16000}}\n\ndata: {\"type\":\"message_stop\"}\n\n";
        vec![send(chunk(stop)), send("0\r\n\r\n")]
    })
    .await;
    let mut proxy = to(Provider::Anthropic, &mock).budget("0.20").start().await;
    let (mut client, headers, mut body) = under_way(&proxy).await;
    proxy.proxy.set_budget(Some("2.00".parse().unwrap()));
    go.notify_one();
    assert!(client.body(&headers, &mut body).await);
    let line = proxy.finished().await;
    assert_eq!(
        (line.outcome, line.usage.output_tokens),
        (Outcome::Complete, 16000)
    );
}

#[tokio::test]
async fn a_first_cap_reaches_a_stream_under_way() {
    let (mock, go) = in_two_halves(|| vec![Step::Gone]).await;
    let mut proxy = to(Provider::Anthropic, &mock).start().await;
    let (mut client, headers, mut body) = under_way(&proxy).await;
    proxy.proxy.set_budget(Some("0.15".parse().unwrap()));
    go.notify_one();
    assert!(client.body(&headers, &mut body).await);
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains("billing_error") && text.contains("$0.15"));
    assert_eq!(proxy.finished().await.outcome, Outcome::CutAtCap);
    mock.gone(0).await;
}

#[tokio::test]
async fn a_model_without_a_price_is_refused_by_name_or_priced_as_the_dearest() {
    let mock = Mock::always(sse(
        anthropic_stream(10).replace("claude-opus-4-8", "mystery-1")
    ))
    .await;
    let body = TURN.replace("claude-opus-4-8", "mystery-1");
    let proxy = to(Provider::Compatible, &mock).budget("5.00").start().await;
    let reply = proxy.post("/v1/messages", &body).await;
    assert_eq!(reply.status, 402);
    assert!(
        reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("mystery-1")
    );
    assert!(mock.requests().is_empty());

    let setup = to(Provider::Compatible, &mock)
        .budget("5.00")
        .with(|c| c.unknown_model = UnknownModel::Dearest);
    let mut proxy = setup.start().await;
    assert_eq!(proxy.post("/v1/messages", &body).await.status, 200);
    assert!(
        proxy.finished().await.cost_usd.0 > 1_000_000,
        "dearer than opus"
    );

    let mut proxy = to(Provider::Compatible, &mock).start().await;
    assert_eq!(
        proxy.post("/v1/messages", &body).await.status,
        200,
        "without a cap nobody needs a price"
    );
    let line = proxy.finished().await;
    assert_eq!((line.cost_usd.0, line.cost_source), (0, CostSource::None));
}

#[tokio::test]
async fn each_share_of_the_cap_that_is_passed_is_told_once() {
    let mock = Mock::always(sse(anthropic_stream(1000))).await;
    let mut proxy = to(Provider::Anthropic, &mock).budget("0.09").start().await;
    // 0.0255 each: 28 %, 57 %, 85 %.
    for told in [None, Some(50), Some(80)] {
        assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
        let mut finished = false;
        let warned = proxy
            .event(|activity| match &activity.what {
                What::Finished { .. } if told.is_none() => Some(None),
                What::Finished { .. } => {
                    finished = true;
                    None
                }
                What::Budget(warning) => Some(Some(warning.percent)),
                _ => None,
            })
            .await;
        assert_eq!((warned, finished), (told, told.is_some()));
    }
}

#[tokio::test]
async fn costs_in_answers_count_for_openrouter_and_never_below_the_table_elsewhere() {
    let stream = |cost: &str| {
        format!(
            "data: {{\"id\":\"gen-1\",\"model\":\"anthropic/claude-opus-4.8\",\"choices\":[{{\"delta\":{{}},\"finish_reason\":\"stop\"}}],\
             \"usage\":{{\"prompt_tokens\":100,\"completion_tokens\":100,\"cost\":{cost}}}}}\n\ndata: [DONE]\n\n"
        )
    };
    // By the table: 100 · 5 + 100 · 25 per million.
    let table = 3_000_000;
    let cases = [
        (
            Provider::OpenRouter,
            "0.001",
            1_000_000,
            CostSource::Provider,
        ),
        (Provider::OpenRouter, "-0.001", table, CostSource::Table),
        (Provider::OpenRouter, "1e308", table, CostSource::Table),
        (Provider::OpenRouter, "\"0.001\"", table, CostSource::Table),
        (Provider::OpenRouter, "0", 0, CostSource::Provider),
        (Provider::Compatible, "0.001", table, CostSource::Table),
        (
            Provider::Compatible,
            "0.01",
            10_000_000,
            CostSource::Provider,
        ),
        (Provider::OpenAi, "0.01", table, CostSource::Table),
    ];
    for (provider, cost, expected, source) in cases {
        let mock = Mock::always(sse(stream(cost))).await;
        let mut proxy = to(provider, &mock).start().await;
        let body = r#"{"model":"anthropic/claude-opus-4.8","stream":true,"messages":[]}"#;
        proxy.post("/api/v1/chat/completions", body).await;
        let line = proxy.finished().await;
        assert_eq!(
            (line.cost_usd.0, line.cost_source),
            (expected, source),
            "{provider} {cost}"
        );
        assert_eq!(line.generation_id.as_deref(), Some("gen-1"));
    }
}

#[tokio::test]
async fn a_cancelled_call_is_settled_when_openrouter_knows_its_cost() {
    let head = SSE.replace("request-id: req_1", "X-Generation-Id: gen-77");
    let chunk_one = "data: {\"id\":\"gen-77\",\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let mock = Mock::new(move |seen, _| {
        if !seen.line.starts_with("GET /v1/generation?id=gen-77 ") {
            return vec![send(head.clone()), send(chunk(chunk_one)), Step::Gone];
        }
        match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => vec![send(json("404 Not Found", "{}"))],
            1 => vec![send(json("429 Slow", "{}"))],
            _ => vec![send(json(
                "200 OK",
                r#"{"data":{"total_cost":0.00042,"native_tokens_prompt":30,"native_tokens_completion":4,"native_tokens_cached":10,"is_byok":false}}"#,
            ))],
        }
    })
    .await;
    let setup = to(Provider::OpenRouter, &mock).budget("5.00");
    let mut proxy = setup
        .with(|c| c.limits.reconcile = std::time::Duration::from_millis(10))
        .start()
        .await;
    let mut client = proxy.connect().await;
    let body = r#"{"model":"anthropic/claude-opus-4.8","stream":true,"messages":[]}"#;
    client
        .send(&proxy.request("/v1/chat/completions", body.as_bytes()))
        .await;
    client.head().await;
    drop(client);
    let provisional = proxy.finished().await;
    assert_eq!(
        (provisional.outcome, provisional.cost_source),
        (Outcome::ClientLeft, CostSource::Estimate)
    );
    within("the final cost", async {
        while proxy.line().cost_source != CostSource::Provider {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let line = proxy.line();
    assert_eq!(
        (
            line.cost_usd.0,
            line.usage.input_tokens,
            line.usage.output_tokens
        ),
        (420_000, 20, 4)
    );
    assert_eq!(proxy.proxy.spend().totals.usd.0, 420_000);
    assert_eq!(proxy.proxy.spend().totals.requests, 1);
    proxy.proxy.flush().await.unwrap();
    let text =
        std::fs::read_to_string(proxy.directory.path().join("state/generations.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 1, "one line per call");
}
