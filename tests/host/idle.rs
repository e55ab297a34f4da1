//! What happens when nobody and nothing has been at work for the idle time.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::{Value, json};
use whim_kit::wait;

use crate::support::{PATIENCE, custom, events, root, start, state, whim};

/// Idle from its start on.
const SLEEPS: &str = "exec sleep 100000";

#[test]
fn exit_ends_the_container_in_order_with_0() {
    let run = custom(
        whim().args(["--idle-after", "1", "--idle-action", "exit"]),
        "trap 'echo ended > ended; exit 7' TERM; while :; do sleep 1; done",
    );
    let mut whim = run.start(root(&run)).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    let word = std::fs::read_to_string(whim.root().at("/tmp/claude_state")).unwrap();
    assert_eq!(word, "stopped\n");
    // The agent had its chance to end by itself.
    assert!(whim.root().at("/app/repo/ended").exists());
    let journal = whim.root().at("/whim/state/journal");
    let journal: String = std::fs::read_dir(journal)
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    assert!(journal.contains(r#""type":"idle.reached""#), "{journal}");
}

#[test]
fn a_program_is_run_as_the_agents_user_once() {
    let root = root(&whim());
    let agents = root.agents().0;
    let program = root
        .write_as_agent(
            "/home/node/on-idle",
            "#!/bin/sh\necho \"$(id -u) $WHIM_IDLE_S $PWD\" >> idled\n",
        )
        .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let action = format!("exec:{}", program.display());
    let run = custom(
        whim().args(["--idle-after", "1", "--idle-action", &action]),
        SLEEPS,
    );
    let whim = run.start(root).unwrap();
    let client = whim.client(PATIENCE).unwrap();
    let ended = wait::until("the program's end", PATIENCE, || {
        events(&client, "idle.action").pop()
    });
    let ended = ended.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    assert_eq!(ended["exit"], 0, "{ended}");
    let saved = events(&client, "backup.finished");
    let before =
        |saved: &Value| saved["reason"] == "idle" && saved["seq"].as_u64() < ended["seq"].as_u64();
    assert!(saved.iter().any(before), "{saved:?}");
    let idled = whim.root().at("/app/repo/idled");
    assert_eq!(idled.metadata().unwrap().uid(), agents);
    let text = std::fs::read_to_string(&idled).unwrap();
    let place = whim.root().at("/app/repo");
    assert_eq!(text, format!("{agents} 1 {}\n", place.display()));
    assert_eq!(events(&client, "idle.reached").len(), 1);
    state(&client, &whim, "the container goes on", |state| {
        state["idle_s"].as_u64().is_some_and(|idle| idle >= 3)
    });
    assert_eq!(events(&client, "idle.reached").len(), 1);
}

#[test]
fn a_program_is_run_with_the_layers_that_are_in_force() {
    let root = root(&whim());
    let program = root
        .write_as_agent("/home/node/on-idle", "#!/bin/sh\necho \"$MARK\" > idled\n")
        .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let action = format!("exec:{}", program.display());
    let layers = |mark: &str| json!([{"layer": "user", "env": {"MARK": mark}}]);
    let spec = json!({"version": 1, "config": layers("old")}).to_string();
    let run = custom(
        whim().args([
            "--idle-after",
            "1",
            "--idle-action",
            &action,
            "--spec",
            &spec,
        ]),
        "until [ -e enough ]; do echo working; sleep 0.2; done; exec sleep 100000",
    );
    let whim = run.start(root).unwrap();
    let client = whim.client(PATIENCE).unwrap();
    state(&client, &whim, "some work", |state| {
        state["phase"] == "ready" && state["state"] == "working"
    });
    let changed = client.put("/v1/config", &layers("new")).unwrap();
    assert_eq!(changed.status, 200, "{}", changed.text());
    std::fs::write(whim.root().at("/app/repo/enough"), "").unwrap();
    let ended = wait::until("the program's end", PATIENCE, || {
        events(&client, "idle.action").pop()
    });
    ended.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    let idled = std::fs::read_to_string(whim.root().at("/app/repo/idled")).unwrap();
    assert_eq!(idled, "new\n");
}

#[test]
fn a_program_that_cannot_be_run_is_told() {
    let run = custom(
        whim().args(["--idle-after", "1", "--idle-action", "exec:/nowhere"]),
        SLEEPS,
    );
    let (whim, client) = start(&run);
    let told = wait::until("the error", PATIENCE, || {
        events(&client, "idle.action").pop()
    });
    let told = told.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    assert!(told["error"].is_string(), "{told}");
    assert_eq!(client.json("/v1/state").unwrap()["phase"], "ready");
}

#[test]
fn an_agent_at_work_and_a_visited_preview_are_not_idle() {
    // Prints without end: a custom agent that does is working.
    let run = custom(
        whim()
            .args(["--idle-after", "1", "--idle-action", "exit"])
            .env("WHIM_PREVIEW_SECRET", "the-secret-of-the-router"),
        "python3 -m http.server --bind 127.0.0.1 23481 & \
         until [ -e enough ]; do echo working; sleep 0.2; done; exec sleep 100000",
    );
    let (whim, client) = start(&run);
    let working = state(&client, &whim, "some work", |state| {
        let ports = state["ports"].as_array();
        state["state"] == "working" && ports.is_some_and(|ports| ports.contains(&json!(23481)))
    });
    assert_eq!(working["idle_s"], 0);
    let ready = whim.ready(PATIENCE).unwrap();
    let visitor = whim_kit::Client::tcp(whim_kit::reachable(ready.local)).unwrap();
    let request = http::Request::get("/proxy/23481/")
        .header("x-whim-token", "the-secret-of-the-router")
        .body(bytes::Bytes::new())
        .unwrap();
    assert_eq!(visitor.send(request).unwrap().status, 200);
    state(&client, &whim, "the reason", |state| {
        state["keep_awake"][0]
            .as_str()
            .is_some_and(|reason| reason.contains("23481"))
    });
    std::fs::write(whim.root().at("/app/repo/enough"), "").unwrap();
    // Idle for longer than the idle time, and still there: the visit counts for a minute.
    let idle = state(&client, &whim, "idle", |state| {
        state["idle_s"].as_u64().is_some_and(|idle| idle >= 3)
    });
    assert_ne!(idle["keep_awake"], json!([]));
    assert_eq!(events(&client, "idle.reached"), Vec::<Value>::new());
}

#[test]
fn a_person_who_types_keeps_the_machine_awake() {
    use portable_pty::{CommandBuilder, PtySize, native_pty_system};
    let run = custom(
        whim().args(["--idle-after", "3", "--idle-action", "exit"]),
        "until [ -e enough ]; do echo working; sleep 0.2; done; exec sleep 100000",
    );
    let (whim, client) = start(&run);
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let pty = native_pty_system().openpty(PtySize::default()).unwrap();
    let mut attach = CommandBuilder::new(env!("CARGO_BIN_EXE_whim"));
    attach.args(["attach", "main"]);
    attach.env("WHIM_ROOT", whim.root().path());
    attach.env("WHIM_CONTROL_TOKEN", whim.token());
    let mut attached = pty.slave.spawn_command(attach).unwrap();
    let mut keys = pty.master.take_writer().unwrap();
    let typing = wait::until("the person", PATIENCE, || {
        keys.write_all(b"x").unwrap();
        let state = client.json("/v1/state").ok()?;
        let reason = state["keep_awake"][0].as_str()?;
        reason
            .starts_with("a person typed in main, ")
            .then_some(state)
    });
    let typing = typing.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    assert_eq!(typing["phase"], "ready");
    std::fs::write(whim.root().at("/app/repo/enough"), "").unwrap();
    // Far beyond the idle time without an agent at work.
    state(&client, &whim, "idle", |state| {
        state["idle_s"].as_u64().is_some_and(|idle| idle >= 8)
    });
    assert_eq!(events(&client, "idle.reached"), Vec::<Value>::new());
    attached.kill().unwrap();
    attached.wait().unwrap();
}
