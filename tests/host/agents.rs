//! The real agents, end to end.

use serde_json::{Value, json};
use whim_kit::model::script::{Reply, Rule, Script};
use whim_kit::{Upstream, proc, wait};

use crate::support::{
    KEY, PATIENCE, agent, answer, bypassing, first_turn, prompt, reached, repository, root, says,
    start, state, touches, word,
};

/// One prompt, the agent's text on standard output, its exit code, its cost, and no key anywhere near it.
fn oneshot(kind: &str) {
    let upstream = Upstream::start(says("the work is done")).unwrap();
    let repository = repository();
    let run = agent(kind, &upstream, repository.path()).args([
        "--mode",
        "oneshot",
        "--permission-mode",
        "bypass",
        "go on",
    ]);
    let mut whim = run.start(root(&run)).unwrap();
    let code = whim.ended(PATIENCE).unwrap();
    assert_eq!(code, 0, "{kind}\n{}", whim.output());
    assert!(
        whim.stdout().contains("the work is done"),
        "{kind}\n{}",
        whim.output()
    );
    let turns = upstream.turns();
    assert!(!turns.is_empty(), "{kind}: no call came through");
    assert!(
        turns.iter().all(|turn| turn.key() == Some(KEY)),
        "{kind}: the provider's key is put in by the proxy"
    );
    let ledger = std::fs::read_to_string(whim.root().at("/whim/state/generations.jsonl")).unwrap();
    assert!(
        ledger
            .lines()
            .any(|line| line.contains("\"outcome\":\"complete\"")),
        "{kind}: {ledger}"
    );
    assert!(!whim.output().contains(KEY) && !ledger.contains(KEY));
    let last = std::fs::read_to_string(whim.root().at("/tmp/claude_state")).unwrap();
    assert_eq!(last, "stopped\n");
}

#[test]
fn claude_does_one_task() {
    oneshot("claude");
}

#[test]
fn codex_does_one_task() {
    oneshot("codex");
}

#[test]
fn the_router_does_one_task() {
    oneshot("ccr");
}

#[test]
fn copilot_does_one_task() {
    oneshot("copilot");
}

/// Two rounds of one turn over the WebSocket, each a call with a line of its own.
#[test]
fn codex_does_one_task_over_the_websocket() {
    let work = Rule::prompt(
        "go on",
        [
            Reply::shell("echo by socket > made.txt"),
            Reply::say("the work is done"),
        ],
    );
    let upstream = Upstream::start(Script {
        websocket: true,
        ..Script::of([work])
    })
    .unwrap();
    let repository = repository();
    let run = agent("codex", &upstream, repository.path())
        .env("WHIM_UPSTREAM_WEBSOCKET", "1")
        .args(["--mode", "oneshot", "--permission-mode", "bypass", "go on"]);
    let mut whim = run.start(root(&run)).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    assert!(
        whim.stdout().contains("the work is done"),
        "{}",
        whim.output()
    );
    let made = std::fs::read_to_string(whim.root().at("/app/repo/made.txt")).unwrap();
    assert_eq!(made, "by socket\n");
    let turns = upstream.turns();
    let rounds: Vec<usize> = turns.iter().map(|turn| turn.round).collect();
    assert_eq!(rounds, [0, 1], "nothing was asked twice");
    for turn in &turns {
        assert_eq!(turn.key(), Some(KEY));
        assert_eq!(turn.header("upgrade"), Some("websocket"));
    }
    let ledger = std::fs::read_to_string(whim.root().at("/whim/state/generations.jsonl")).unwrap();
    for turn in &turns {
        let id = format!("resp_{}", turn.generation);
        let line = ledger.lines().find(|line| line.contains(&id));
        let line: Value =
            serde_json::from_str(line.unwrap_or_else(|| panic!("{id}: {ledger}"))).unwrap();
        assert_eq!(
            (&line["outcome"], &line["status"]),
            (&json!("complete"), &json!(101))
        );
        assert!(line["usage"]["output_tokens"].as_u64() > Some(0), "{line}");
    }
    assert!(!whim.output().contains(KEY) && !ledger.contains(KEY));
}

/// What a cap says on the WebSocket is what the person reads, and nothing is tried again.
#[test]
fn codex_shows_what_a_cap_says_on_the_websocket() {
    let upstream = Upstream::start(Script {
        websocket: true,
        ..says("never")
    })
    .unwrap();
    let repository = repository();
    let run = agent("codex", &upstream, repository.path())
        .env("WHIM_UPSTREAM_WEBSOCKET", "1")
        .env("WHIM_BUDGET_USD", "0.000001")
        .args(["--model", "gpt-5.1-codex", "--mode", "oneshot", "go on"])
        .args(["--permission-mode", "bypass"]);
    let mut whim = run.start(root(&run)).unwrap();
    assert_ne!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    assert!(
        whim.output().contains("Budget reached"),
        "{}",
        whim.output()
    );
    assert!(upstream.turns().is_empty());
    let ledger = std::fs::read_to_string(whim.root().at("/whim/state/generations.jsonl")).unwrap();
    let refused = ledger
        .lines()
        .filter(|line| line.contains("\"outcome\":\"refused\""));
    assert!((1..=2).contains(&refused.count()), "{ledger}");
}

/// A terminal's turns share a socket. One whose key was replaced takes no more of them, and the agent opens another.
#[test]
fn codex_connects_anew_when_the_key_of_its_websocket_is_replaced() {
    let upstream = Upstream::start(Script {
        websocket: true,
        ..says("yes")
    })
    .unwrap();
    let repository = repository();
    let run = bypassing("codex", &upstream, repository.path(), "first task");
    let (mut whim, client) = start(&run.env("WHIM_UPSTREAM_WEBSOCKET", "1"));
    first_turn(&client, &whim);
    let done = |text: &str| {
        let id = prompt(&client, text);
        let ended = reached(&client, &whim, &id, &["done", "failed", "interrupted"]);
        assert_eq!(ended["state"], "done", "{ended}");
    };
    done("second task");
    let other = "sk-another-secret-of-the-platform";
    let key = json!({"provider": {"kind": "openai", "key": other}});
    let put = client.put("/v1/credentials", &key).unwrap();
    assert!(put.status.is_success(), "{}", put.text());
    done("third task");
    for (text, key) in [
        ("first task", KEY),
        ("second task", KEY),
        ("third task", other),
    ] {
        let turns = upstream.turns();
        let mut asked = turns.iter().filter(|turn| turn.prompt.contains(text));
        assert!(
            asked.all(|turn| turn.key() == Some(key) && turn.header("upgrade").is_some()),
            "{text}: {turns:?}"
        );
        assert!(
            turns.iter().any(|turn| turn.prompt.contains(text)),
            "{text}"
        );
    }
    whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
}

/// Interactive: first prompt, a second one queued by the API, both done; then an ordered end in time.
fn two_turns(kind: &str) {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let run = bypassing(kind, &upstream, repository.path(), "first task");
    let (mut whim, client) = start(&run);
    first_turn(&client, &whim);
    let id = prompt(&client, "second\ntask, two lines");
    let ended = reached(&client, &whim, &id, &["done", "failed", "interrupted"]);
    assert_eq!(ended["state"], "done", "{kind}: {ended}");
    let asked = upstream.turns();
    assert!(
        asked.iter().any(|turn| turn.mentions("two lines")),
        "{kind}"
    );
    whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
}

#[test]
fn claude_takes_two_prompts_in_its_terminal() {
    two_turns("claude");
}

#[test]
fn codex_takes_two_prompts_in_its_terminal() {
    two_turns("codex");
}

#[test]
fn a_running_tool_is_work_and_is_named() {
    let script = Script::of([Rule::prompt(
        "build",
        [Reply::shell("sleep 20"), Reply::say("built")],
    )]);
    let upstream = Upstream::start(script).unwrap();
    let repository = repository();
    let run = bypassing("claude", &upstream, repository.path(), "build it");
    let (whim, client) = start(&run);
    let working = state(&client, &whim, "the tool", |state| {
        state["state"] == "working"
            && state["reason"]
                .as_str()
                .unwrap_or_default()
                .contains("sleep 20")
    });
    assert_eq!(
        working["active_generations"], 0,
        "no model call is open while the tool runs: {working}"
    );
    assert!(
        working["reason"].as_str().unwrap().contains("Bash"),
        "{working}"
    );
    // Esc ends the turn.
    let interrupted = client
        .post("/v1/sessions/main/interrupt", &json!({}))
        .unwrap();
    assert_eq!(interrupted.status, 202);
    word(&client, &whim, "idle");
}

#[test]
fn a_permission_dialog_is_seen_and_answered() {
    let upstream = Upstream::start(touches()).unwrap();
    let repository = repository();
    let run = agent("claude", &upstream, repository.path()).args([
        "--permission-mode",
        "default",
        "touch a file",
    ]);
    let (whim, client) = start(&run);
    let asking = state(&client, &whim, "the dialog", |state| {
        state["state"] == "needs_input"
            && state["dialog"]["options"]
                .as_array()
                .is_some_and(|options| options.len() > 1)
    });
    let dialog = asking["dialog"]["id"].as_str().unwrap();
    let stale = answer(&client, "none", 0);
    assert_eq!(stale.status, 409);
    let answered = answer(&client, dialog, 0);
    assert_eq!(answered.status, 202, "{}", answered.text());
    word(&client, &whim, "idle");
    assert!(
        whim.root().at("/app/repo/made-by-agent").exists(),
        "{}",
        whim.output()
    );
}

#[test]
fn the_agent_outlives_its_supervisor_and_comes_back_from_a_crash() {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let run = bypassing("claude", &upstream, repository.path(), "first");
    let (whim, client) = start(&run);
    let before = word(&client, &whim, "idle");
    let pid = before["sessions"][0]["pid"].as_i64().unwrap();
    for round in 1..=5 {
        let supervisor = whim.supervisor().unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(supervisor),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        let after = state(&client, &whim, "the next supervisor", |state| {
            state["supervisor"]["restarts"] == round
        });
        assert_eq!(
            after["sessions"][0]["pid"].as_i64(),
            Some(pid),
            "the agent is another one: {after}"
        );
        assert_ne!(after["state"], "starting", "{after}");
    }
    let idle = word(&client, &whim, "idle");
    assert_eq!(idle["sessions"][0]["pid"].as_i64(), Some(pid));
    // The agent itself dies: it resumes its own conversation, as far as that is on disk.
    let transcripts = whim.root().at("/home/node/.claude/projects");
    wait::until("the transcript", PATIENCE, || {
        written(&transcripts).then_some(())
    })
    .unwrap();
    let id = idle["sessions"][0]["agent_session_id"].clone();
    let pid = i32::try_from(pid).unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    let again = state(&client, &whim, "the agent's return", |state| {
        state["state"] == "idle"
            && state["sessions"][0]["pid"]
                .as_i64()
                .is_some_and(|now| now != i64::from(pid))
    });
    assert_eq!(
        again["sessions"][0]["agent_session_id"],
        id,
        "{}\n{}",
        client.json("/v1/events").unwrap(),
        whim.output()
    );
    assert!(!proc::alive(pid));
}

/// Whether a transcript holds the agent's answer.
fn written(projects: &std::path::Path) -> bool {
    let files = |directory: &std::path::Path| {
        let entries = std::fs::read_dir(directory)
            .into_iter()
            .flatten()
            .filter_map(Result::ok);
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let holds = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path).is_ok_and(|text| text.contains("\"assistant\""))
    };
    files(projects)
        .iter()
        .flat_map(|project| files(project))
        .any(|path| holds(&path))
}
