//! The bounds beside the money, on the wire.

use std::time::Duration;

use whim_proxies::generation::{Provider, What};

use crate::kit::*;

#[tokio::test]
async fn a_task_has_its_tokens_and_no_more() {
    let mock = Mock::always(sse(anthropic_stream(1000))).await;
    // A call is 1100 tokens.
    let setup = to(Provider::Anthropic, &mock).with(|c| c.caps.tokens = Some(1200));
    let mut proxy = setup.start().await;
    for _ in 0..2 {
        assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
        proxy.finished().await;
    }
    let reply = proxy.post("/v1/messages", TURN).await;
    assert_eq!(reply.status, 402);
    let text = reply.text();
    assert!(
        text.contains("2200 of 1200 tokens") && text.contains("--cap-tokens"),
        "{text}"
    );
    let directory = proxy.stop().await;
    let setup = to(Provider::Anthropic, &mock).with(|c| c.caps.tokens = Some(1200));
    let proxy = setup.start_in(directory).await;
    assert_eq!(proxy.post("/v1/messages", TURN).await.status, 402);
    assert_eq!(mock.requests().len(), 2);
}

#[tokio::test]
async fn calls_of_a_minute_are_counted_and_the_next_one_is_told_when() {
    let mock = Mock::always(sse(anthropic_stream(10))).await;
    let setup = to(Provider::Anthropic, &mock).with(|c| c.caps.requests_per_minute = Some(2));
    let mut proxy = setup.start().await;
    for _ in 0..2 {
        assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
    }
    let reply = proxy.post("/v1/messages", TURN).await;
    assert_eq!(reply.status, 429);
    let after: u64 = reply.headers["retry-after"].parse().unwrap();
    assert!((1..=60).contains(&after), "{after}");
    let again = proxy
        .event(|activity| match &activity.what {
            What::Refused { again, .. } => Some(*again),
            _ => None,
        })
        .await;
    assert!(again, "no refusal for good");
    assert_eq!(mock.requests().len(), 2);
}

#[tokio::test]
async fn the_time_of_a_task_begins_with_its_first_call_wherever_that_was() {
    let mock = Mock::always(sse(anthropic_stream(10))).await;
    let short = |setup: Setup| setup.with(|c| c.caps.wall = Some(Duration::from_nanos(1)));
    let mut proxy = short(to(Provider::Anthropic, &mock)).start().await;
    assert_eq!(proxy.post("/v1/messages", TURN).await.status, 200);
    proxy.finished().await;
    let reply = proxy.post("/v1/messages", TURN).await;
    assert_eq!(reply.status, 402);
    assert!(reply.text().contains("--cap-minutes"), "{}", reply.text());
    let lines = proxy.proxy.generations(None, 9).unwrap();
    let directory = proxy.stop().await;
    let again = short(to(Provider::Anthropic, &mock))
        .start_in(directory)
        .await;
    assert_eq!(again.post("/v1/messages", TURN).await.status, 402);
    let restored = short(to(Provider::Anthropic, &mock)).start().await;
    restored.proxy.carry_on(lines).await.unwrap();
    assert_eq!(restored.post("/v1/messages", TURN).await.status, 402);
    assert_eq!(mock.requests().len(), 1);
}
