//! A person at the keyboard beside the API: interrupts by hand, a half-typed line, dialogs.

use serde_json::{Value, json};
use whim_kit::model::script::{Reply, Rule, Script};
use whim_kit::{Client, Upstream, Whim, wait};

use crate::person::Person;
use crate::support::{PATIENCE, agent, repository, start, state, word};

/// Queues a prompt; its id.
fn prompt(client: &Client, text: &str) -> String {
    let queued = client
        .post("/v1/sessions/main/prompts", &json!({ "text": text }))
        .unwrap();
    assert_eq!(queued.status, 202, "{}", queued.text());
    queued.json().unwrap()["prompt_id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Waits until a prompt is in one of these states.
fn reached(client: &Client, whim: &Whim, id: &str, states: &[&str]) -> Value {
    let path = format!("/v1/sessions/main/prompts/{id}");
    let found = wait::until("the prompt", PATIENCE, || {
        client
            .json(&path)
            .ok()
            .filter(|prompt| states.contains(&prompt["state"].as_str().unwrap_or_default()))
    });
    found.unwrap_or_else(|error| {
        panic!(
            "{error}: {:?}\n{:?}\n{}",
            client.json(&path).ok(),
            client.json("/v1/state").ok(),
            whim.output()
        )
    })
}

#[test]
fn an_interrupt_by_hand_ends_copilots_turn() {
    let script = Script::of([
        Rule::prompt("first", [Reply::say("done")]),
        Rule::prompt("second", [Reply::say("going on").gated("never")]),
        Rule::prompt("third", [Reply::say("done again")]),
    ]);
    let upstream = Upstream::start(script).unwrap();
    let repository = repository();
    let run = agent("copilot", &upstream, repository.path()).args([
        "--permission-mode",
        "bypass",
        "first task",
    ]);
    let (whim, client) = start(&run);
    state(&client, &whim, "the first turn's end", |state| {
        state["state"] == "idle" && state["sessions"][0]["spend"]["requests"].as_u64() > Some(0)
    });
    let id = prompt(&client, "second task");
    state(&client, &whim, "the second turn", |state| {
        state["state"] == "working" && state["active_generations"] == 1
    });
    reached(&client, &whim, &id, &["working"]);
    let mut person = Person::at(&whim, "main");
    // Copilot wants it twice, with a pause between: pressed until it is heard, as a person would.
    let idle = wait::until("idle", PATIENCE, || {
        person.types(b"\x1b");
        let heard = wait::until("its effect", std::time::Duration::from_secs(2), || {
            let state = client.json("/v1/state").ok()?;
            (state["state"] == "idle").then_some(state)
        });
        heard.ok()
    });
    let idle = idle.unwrap_or_else(|error| {
        panic!(
            "{error}: {:?}\n{}",
            client.json("/v1/state").ok(),
            whim.output()
        )
    });
    assert!(
        idle["reason"].as_str().unwrap().contains("interrupted"),
        "{idle}"
    );
    let ended = reached(&client, &whim, &id, &["interrupted", "done", "failed"]);
    assert_eq!(ended["state"], "interrupted", "{ended}");
    // It takes the next one as if nothing had been.
    let id = prompt(&client, "third task");
    let ended = reached(&client, &whim, &id, &["interrupted", "done", "failed"]);
    assert_eq!(ended["state"], "done", "{ended}");
    word(&client, &whim, "idle");
}
