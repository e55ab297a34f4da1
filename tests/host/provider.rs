//! What is told about the provider before an agent calls it.

use serde_json::{Value, json};
use whim_kit::model::script::Script;
use whim_kit::{Upstream, wait};

use crate::support::{KEY, PATIENCE, custom, start, state, whim};

#[test]
fn a_wrong_key_is_told_before_the_first_call_and_costs_nothing() {
    let script = Script {
        require_key: Some("sk-the-right-key".into()),
        ..Script::default()
    };
    let upstream = Upstream::start(script).unwrap();
    let run = custom(
        whim()
            .env("WHIM_UPSTREAM_URL", upstream.url())
            .env("ANTHROPIC_API_KEY", KEY),
        "exec sleep 100000",
    );
    let (whim, client) = start(&run);
    let told = state(&client, &whim, "the refused key", |state| {
        state["phase"] == "ready" && state["provider_error"].is_string()
    });
    let error = told["provider_error"].as_str().unwrap();
    assert!(error.contains("does not take the key"), "{told}");
    assert!(told["reason"].as_str().unwrap().contains(error), "{told}");
    assert!(!told.to_string().contains(KEY));
    let status = whim
        .whim(env!("CARGO_BIN_EXE_whim").as_ref(), &["status"])
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&status.stdout).contains("does not take the key"),
        "{status:?}"
    );
    let put = client
        .put(
            "/v1/credentials",
            &json!({"provider": {"kind": "anthropic", "key": "sk-the-right-key"}}),
        )
        .unwrap();
    assert!(put.status.is_success(), "{}", put.text());
    state(&client, &whim, "the good key", |state| {
        state["provider_error"].is_null()
    });
    let events = client.json("/v1/events?limit=10000").unwrap();
    let events = events["events"].as_array().or(events.as_array()).unwrap();
    let told: Vec<&Value> = events
        .iter()
        .filter(|event| event["type"] == "provider.changed")
        .map(|event| &event["ok"])
        .collect();
    assert_eq!(told, [false, true], "{events:?}");
    assert_eq!(upstream.turns().len(), 0, "nothing was generated");
}

#[test]
fn an_upstream_that_cannot_be_reached_is_told_and_ends_nothing() {
    // Free a moment ago, and nobody else here takes ports of this range by number.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let run = custom(
        whim()
            .env("WHIM_UPSTREAM_URL", format!("http://{address}"))
            .env("ANTHROPIC_API_KEY", KEY),
        "exec sleep 100000",
    );
    let (whim, client) = start(&run);
    let told = state(&client, &whim, "the unreachable provider", |state| {
        state["phase"] == "ready"
            && state["provider_error"]
                .as_str()
                .unwrap_or_default()
                .contains("cannot be reached")
    });
    assert_ne!(told["state"], "stopped", "{told}");
    let alive = wait::until("the agent", PATIENCE, || {
        client.json("/v1/state").ok()?["sessions"][0]["pid"].as_i64()
    });
    assert!(alive.is_ok(), "{}", whim.output());
}
