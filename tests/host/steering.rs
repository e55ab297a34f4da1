//! A person at the keyboard beside the API: interrupts by hand, a half-typed line, dialogs.

use std::time::Duration;

use serde_json::{Value, json};
use whim_kit::model::script::{Reply, Rule, Script};
use whim_kit::{Upstream, repo, wait};

use crate::person::Person;
use crate::support::{
    PATIENCE, agent, answer, bypassing, custom, first_turn, open_to_all, prompt, reached,
    repository, root, says, start, start_in, state, touches, whim, word,
};

#[test]
fn an_interrupt_by_hand_ends_copilots_turn() {
    let script = Script::of([
        Rule::prompt("first", [Reply::say("done")]),
        // No model call is open while it runs: only Copilot's own record tells of its end. An interrupt that comes while it
        // starts ends the tool alone; the model is asked on then, until the next one.
        Rule::prompt(
            "second",
            [
                Reply::shell("sleep 300"),
                Reply::say("slept").gated("never"),
            ],
        ),
        Rule::prompt("third", [Reply::say("done again")]),
    ]);
    let upstream = Upstream::start(script).unwrap();
    let repository = repository();
    let run = bypassing("copilot", &upstream, repository.path(), "first task");
    let (whim, client) = start(&run);
    first_turn(&client, &whim);
    let id = prompt(&client, "second task");
    state(&client, &whim, "the second turn", |state| {
        state["state"] == "working"
            && state["active_generations"] == 0
            && state["reason"]
                .as_str()
                .unwrap_or_default()
                .contains("sleep 300")
    });
    reached(&client, &whim, &id, &["working"]);
    let mut person = Person::at(&whim, "main");
    // Escape would have to come twice, neither too soon nor too late; one Ctrl-C does the same.
    person.types(b"\x03");
    let idle = wait::until("idle", PATIENCE, || {
        let state = client.json("/v1/state").ok()?;
        (state["state"] == "idle").then_some(state)
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
        "{idle}\n{}",
        client.json("/v1/events?limit=10000").unwrap()
    );
    let ended = reached(&client, &whim, &id, &["interrupted", "done", "failed"]);
    assert_eq!(ended["state"], "interrupted", "{ended}");
    // It takes the next one as if nothing had been.
    let id = prompt(&client, "third task");
    let ended = reached(&client, &whim, &id, &["interrupted", "done", "failed"]);
    assert_eq!(ended["state"], "done", "{ended}");
    word(&client, &whim, "idle");
}

#[test]
fn an_interrupted_response_on_codexs_websocket_is_over() {
    let script = Script::of([
        Rule::prompt("first", [Reply::say("done")]),
        Rule::prompt("second", [Reply::say("never said").gated("never")]),
        Rule::prompt("third", [Reply::say("done again")]),
    ]);
    let upstream = Upstream::start(Script {
        websocket: true,
        ..script
    })
    .unwrap();
    let repository = repository();
    let run = bypassing("codex", &upstream, repository.path(), "first task");
    let (whim, client) = start(&run.env("WHIM_UPSTREAM_WEBSOCKET", "1"));
    first_turn(&client, &whim);
    let id = prompt(&client, "second task");
    let calls = |state: &Value| state["active_generations"].as_u64();
    state(&client, &whim, "the call", |state| {
        state["state"] == "working" && calls(state) == Some(1)
    });
    reached(&client, &whim, &id, &["working"]);
    let mut person = Person::at(&whim, "main");
    person.types(b"\x1b");
    let idle = state(&client, &whim, "the end", |state| {
        state["state"] == "idle" && calls(state) == Some(0)
    });
    let ended = reached(&client, &whim, &id, &["interrupted", "done", "failed"]);
    assert_eq!(ended["state"], "interrupted", "{ended}\n{idle}");
    let id = prompt(&client, "third task");
    let ended = reached(&client, &whim, &id, &["interrupted", "done", "failed"]);
    assert_eq!(ended["state"], "done", "{ended}");
    let ledger = std::fs::read_to_string(whim.root().at("/whim/state/generations.jsonl")).unwrap();
    let left = |line: &str| line.contains("\"outcome\":\"client_left\"") && line.contains(":101");
    assert!(ledger.lines().any(left), "{ledger}");
}

#[test]
fn a_prompt_waits_for_the_line_that_a_person_is_typing() {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let run = bypassing("claude", &upstream, repository.path(), "first task");
    let (whim, client) = start(&run);
    first_turn(&client, &whim);
    let mut person = Person::at(&whim, "main");
    person.types(b"mine-by-");
    person.sees("mine-by-");
    let id = prompt(&client, "second task");
    // Longer than anybody is waited for who left nothing in the input box: that it waits can only be seen by waiting.
    let typed = wait::until("the prompt's delivery", Duration::from_secs(4), || {
        let state = client
            .json(&format!("/v1/sessions/main/prompts/{id}"))
            .ok()?;
        (state["state"] != "queued").then_some(state)
    });
    assert!(typed.is_err(), "typed into a person's line: {typed:?}");
    person.types(b"hand");
    person.sees("hand");
    person.types(b"\r");
    let ended = reached(&client, &whim, &id, &["interrupted", "done", "failed"]);
    assert_eq!(ended["state"], "done", "{ended}");
    let turns = upstream.turns();
    let first = |text: &str| {
        turns
            .iter()
            .position(|turn| turn.mentions(text))
            .unwrap_or_else(|| panic!("no turn about {text}"))
    };
    assert!(first("mine-by-hand") < first("second task"));
    assert!(
        !turns
            .iter()
            .any(|turn| turn.mentions("mine-by-handsecond") || turn.mentions("second taskmine")),
        "the two became one"
    );
}

/// Codex asks about a repository that is not trusted, and about hooks that a repository brings: nobody is there to
/// answer, the task's settings do.
fn codex_starts_with(trust: &str) -> bool {
    let evidence = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(evidence.path(), open).unwrap();
    let ran = evidence.path().join("ran");
    let hooks = json!({"hooks": {"UserPromptSubmit": [{"hooks": [
        {"type": "command", "command": format!("touch {}", ran.display())}
    ]}]}});
    let repository = tempfile::tempdir().unwrap();
    let files = [
        ("README.md", "hello\n"),
        (".codex/hooks.json", &hooks.to_string()),
    ];
    repo::with(repository.path(), &files).unwrap();
    open_to_all(repository.path());
    let upstream = Upstream::start(says("yes")).unwrap();
    let spec = json!({"version": 1, "repo": {"url": repository.path(), "trust": trust}});
    let run = agent("codex", &upstream, repository.path()).args([
        "--spec",
        &spec.to_string(),
        "--permission-mode",
        "bypass",
        "first task",
    ]);
    let (whim, client) = start(&run);
    first_turn(&client, &whim);
    let asked: Vec<Value> = client.json("/v1/events?limit=10000").unwrap()["events"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["state"] == "needs_input")
        .cloned()
        .collect();
    assert!(asked.is_empty(), "{trust}: nobody had to answer: {asked:?}");
    assert!(
        whim.output().contains("answered the agent's question"),
        "{trust}: Codex asks no more; the answers can go\n{}",
        whim.output()
    );
    ran.exists()
}

#[test]
fn codex_runs_a_trusted_repositorys_hooks() {
    assert!(codex_starts_with("full"));
}

#[test]
fn codex_does_not_run_an_untrusted_repositorys_hooks() {
    assert!(!codex_starts_with("untrusted"));
}

#[test]
fn copilots_permission_dialog_is_one_dialog_and_is_answered() {
    let upstream = Upstream::start(touches()).unwrap();
    let repository = repository();
    let run = agent("copilot", &upstream, repository.path()).args([
        "--permission-mode",
        "default",
        "touch a file",
    ]);
    let (whim, client) = start(&run);
    let asking = state(&client, &whim, "the dialog", |state| {
        state["state"] == "needs_input"
            && state["dialog"]["text"]
                .as_str()
                .unwrap_or_default()
                .contains("touch made-by-agent")
            && state["dialog"]["options"]
                .as_array()
                .is_some_and(|options| options.len() > 1)
    });
    let answered = answer(&client, asking["dialog"]["id"].as_str().unwrap(), 0);
    assert_eq!(answered.status, 202, "{}", answered.text());
    word(&client, &whim, "idle");
    assert!(
        whim.root().at("/app/repo/made-by-agent").exists(),
        "{}",
        whim.output()
    );
    let events = client.json("/v1/events?limit=10000").unwrap();
    let mut dialogs: Vec<&Value> = events["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| &event["dialog"]["id"])
        .filter(|id| id.is_string())
        .collect();
    dialogs.dedup();
    assert_eq!(dialogs.len(), 1, "{events}");
}

#[test]
fn a_prompt_that_waits_is_typed_after_the_container_came_back() {
    let root = root(&whim());
    let run = custom(whim(), "exec cat >> ~/got");
    let (mut whim, client) = start_in(&run, &root);
    word(&client, &whim, "idle");
    let mut person = Person::at(&whim, "main");
    person.types(b"half a line");
    person.sees("half a line");
    let id = prompt(&client, "what waited");
    let waiting = reached(&client, &whim, &id, &["queued"]);
    assert_eq!(waiting["state"], "queued");
    drop(person);
    whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    drop(whim);
    let (whim, client) = start_in(&run, &root);
    reached(&client, &whim, &id, &["done"]);
    let got = std::fs::read_to_string(root.at("/home/node/got")).unwrap();
    assert_eq!(got, "what waited\n", "{}", whim.output());
}
