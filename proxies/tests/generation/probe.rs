//! The question that is asked before the first call.

use std::time::Duration;

use http::StatusCode;
use whim_proxies::generation::{Probe, Provider, Upstream};

use crate::kit::*;

#[tokio::test]
async fn a_provider_is_asked_with_the_key_and_without_cost() {
    for (provider, path, header, status, wanted) in [
        (
            Provider::Anthropic,
            "/v1/models",
            "x-api-key",
            "200 OK",
            Probe::Good,
        ),
        (
            Provider::OpenAi,
            "/v1/models",
            "authorization",
            "401 Unauthorized",
            Probe::Refused,
        ),
        (
            Provider::OpenRouter,
            "/v1/models/user",
            "authorization",
            "503 Service Unavailable",
            Probe::Trouble(StatusCode::SERVICE_UNAVAILABLE),
        ),
    ] {
        let mock = Mock::always(json(status, "{}")).await;
        let proxy = to(provider, &mock).budget("0.000000001").start().await;
        let upstream = Upstream::new(provider, Some(&mock.url())).unwrap();
        let found = proxy.proxy.probe(&upstream, PATIENCE).await;
        assert_eq!(found, wanted, "{provider}");
        let asked = mock.requests();
        assert_eq!(asked.len(), 1, "{provider}");
        assert!(
            asked[0].line.starts_with(&format!("GET {path} ")),
            "{}",
            asked[0].line
        );
        assert!(
            asked[0].header(header).unwrap().ends_with(KEY),
            "{provider}"
        );
        assert!(asked[0].body.is_empty());
        assert_eq!(proxy.proxy.spend().totals.requests, 0);
        assert!(proxy.proxy.board().in_flight().is_empty());
    }
}

#[tokio::test]
async fn who_does_not_answer_is_told_from_who_is_not_there() {
    let silent = Mock::new(|_, _| vec![Step::Gone]).await;
    let proxy = to(Provider::Anthropic, &silent).start().await;
    let upstream = Upstream::new(Provider::Anthropic, Some(&silent.url())).unwrap();
    let found = proxy.proxy.probe(&upstream, Duration::from_secs(1)).await;
    assert_eq!(found, Probe::Silent(Duration::from_secs(1)));
    let nobody = Upstream::new(Provider::Anthropic, Some("http://127.0.0.1:9")).unwrap();
    let found = proxy.proxy.probe(&nobody, PATIENCE).await;
    let Probe::Unreachable(why) = found else {
        panic!("{found:?}")
    };
    assert!(why.contains("127.0.0.1:9"), "{why}");
    let keyless = Upstream::new(Provider::OpenAi, Some(&silent.url())).unwrap();
    let found = proxy.proxy.probe(&keyless, PATIENCE).await;
    assert_eq!(found, Probe::NoKey);
}
