//! Several agents in one container: each in a worktree of its own, each with an end of its own.

use serde_json::{Value, json};
use whim_kit::{Client, Upstream, Whim, proc, wait};

use crate::support::{
    KEY, PATIENCE, agent, agents_word, custom, kill_supervisor, ready, repository, root, says,
    start_in, state, token, whim,
};

fn session(state: &Value, id: &str) -> Value {
    let sessions = state["sessions"].as_array().unwrap();
    let found = sessions.iter().find(|session| session["id"] == id);
    found.cloned().unwrap_or(Value::Null)
}

/// Waits until a session is as wanted; returns it.
fn until(
    client: &Client,
    whim: &Whim,
    id: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let found = state(client, whim, what, |state| wanted(&session(state, id)));
    session(&found, id)
}

fn begin(client: &Client, new: &Value) -> Value {
    let begun = client.post("/v1/sessions", new).unwrap();
    assert_eq!(begun.status, 201, "{}", begun.text());
    begun.json().unwrap()
}

fn pid(session: &Value) -> i32 {
    i32::try_from(session["pid"].as_i64().unwrap()).unwrap()
}

#[test]
fn two_agents_work_side_by_side_and_end_one_by_one() {
    let upstream = Upstream::start(says("done here")).unwrap();
    let repository = repository();
    let root = root(&whim());
    let run = agent("claude", &upstream, repository.path()).args([
        "--branch",
        "whim-ww-12",
        "--permission-mode",
        "bypass",
        "the first agent's task",
    ]);
    let (mut whim, client) = start_in(&run, &root);
    ready(&client, &whim);
    let begun = begin(&client, &json!({"prompt": "the second agent's task"}));
    assert_eq!(begun["id"], "s2");
    let idle = |session: &Value| session["state"] == "idle" && session["spend"]["requests"] != 0;
    let second = until(&client, &whim, "s2", "the second's turn", idle);
    let first = until(&client, &whim, "main", "the first's turn", idle);
    assert_ne!(first["pid"], second["pid"]);
    assert_ne!(first["agent_session_id"], second["agent_session_id"]);
    assert_eq!(
        (&first["terminal"], &second["terminal"]),
        (&json!("main"), &json!("s2"))
    );
    for task in ["the first agent's task", "the second agent's task"] {
        let turns = upstream.turns();
        assert!(turns.iter().any(|turn| turn.mentions(task)), "{task}");
    }

    // Its own worktree, on a branch of its own that begins where the main one stands.
    let directory = root.at("/app/worktrees/s2");
    let working = std::fs::read_link(format!("/proc/{}/cwd", pid(&second))).unwrap();
    assert_eq!(working, directory.canonicalize().unwrap());
    let in_second = |script: &str| agents_word(&root, &format!("cd ../worktrees/s2 && {script}"));
    assert_eq!(in_second("git branch --show-current"), "whim-ww-12-s2");
    assert_eq!(
        in_second("git rev-parse HEAD"),
        agents_word(&root, "git rev-parse HEAD")
    );
    in_second("echo 2 > second.txt && git add . && git commit -q -m Second");
    assert!(!root.at("/app/repo/second.txt").exists());

    // A crash of the supervisor keeps both, and what is known of both.
    kill_supervisor(&client, &whim, 1);
    for before in [&first, &second] {
        let id = before["id"].as_str().unwrap();
        let after = until(&client, &whim, id, "the same agent", |session| {
            session["state"] == "idle"
        });
        for same in ["pid", "agent_session_id", "spend", "terminal"] {
            assert_eq!(after[same], before[same], "{id}: {same}\n{}", whim.output());
        }
    }
    // Both still take prompts.
    for id in ["main", "s2"] {
        let text = format!("more for {id}");
        let path = format!("/v1/sessions/{id}/prompts");
        let queued = client.post(&path, &json!({"text": text})).unwrap();
        assert_eq!(queued.status, 202, "{}", queued.text());
        let came = upstream.wait_for("the prompt", PATIENCE, |asked| {
            asked
                .iter()
                .any(|one| one.is_turn() && one.mentions(&text))
                .then_some(())
        });
        came.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    }

    let stopped = client.post("/v1/sessions/s2/stop", &json!({})).unwrap();
    assert_eq!(stopped.status, 202, "{}", stopped.text());
    until(&client, &whim, "s2", "the second's end", |session| {
        session["state"] == "stopped"
    });
    assert!(!proc::alive(pid(&second)) && proc::alive(pid(&first)));
    assert_eq!(
        in_second("git log -1 --format=%s"),
        "Second",
        "the work stays"
    );
    // Also the next supervisor says so.
    kill_supervisor(&client, &whim, 2);
    let ended = until(&client, &whim, "s2", "still ended", |session| {
        session["state"] == "stopped"
    });
    assert_eq!(ended["pid"], Value::Null);
    until(&client, &whim, "main", "the first", |session| {
        session["pid"] == first["pid"]
    });

    let stopped = client.post("/v1/sessions/main/stop", &json!({})).unwrap();
    assert_eq!(stopped.status, 202, "{}", stopped.text());
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
}

#[test]
fn an_ended_sessions_token_pays_for_nothing() {
    let upstream = Upstream::start(says("done here")).unwrap();
    let repository = repository();
    let run = custom(
        whim()
            .env("WHIM_UPSTREAM_URL", upstream.url())
            .env("ANTHROPIC_API_KEY", KEY)
            .arg("--repo")
            .arg(repository.path()),
        "exec sleep 100000",
    );
    let root = root(&whim());
    let (whim, client) = start_in(&run, &root);
    ready(&client, &whim);
    let command = json!(["/bin/sh", "-c", "exec sleep 100000"]);
    begin(&client, &json!({"id": "helper", "command": command}));
    let begun = until(&client, &whim, "helper", "its agent", |session| {
        session["pid"].is_number()
    });
    let token = token(pid(&begun), "whim-helper-");
    let calls = || {
        let generation = whim.ready(PATIENCE).unwrap().generation;
        let client = Client::tcp(generation).unwrap().limit(PATIENCE);
        client.bearer(&token).get("/v1/models").unwrap().status
    };
    assert_ne!(calls(), 401, "{}", whim.output());
    let stopped = client.post("/v1/sessions/helper/stop", &json!({})).unwrap();
    assert_eq!(stopped.status, 202, "{}", stopped.text());
    let ended = |session: &Value| session["state"] == "stopped";
    until(&client, &whim, "helper", "its end", ended);
    assert_eq!(calls(), 401);
    kill_supervisor(&client, &whim, 1);
    until(&client, &whim, "helper", "its end, again", ended);
    assert_eq!(calls(), 401, "nor does the next supervisor let it");
}

#[test]
fn what_a_session_was_started_with_outlives_the_supervisor() {
    let repository = repository();
    let root = root(&whim());
    let run = custom(
        whim().arg("--repo").arg(repository.path()),
        "echo main >> runs; exec sleep 100000",
    );
    let (whim, client) = start_in(&run, &root);
    ready(&client, &whim);
    let command = json!(["/bin/sh", "-c", "echo mine >> runs; exec sleep 100000"]);
    let begun = begin(&client, &json!({"id": "helper", "command": command}));
    let runs = root.at("/app/worktrees/helper/runs");
    let ran = |times: usize| {
        let wanted = "mine\n".repeat(times);
        wait::file(&runs, PATIENCE, |text| (text == wanted).then_some(()))
            .unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    };
    ran(1);
    kill_supervisor(&client, &whim, 1);
    // It crashes: its own command runs again, not the task's.
    let agent = nix::unistd::Pid::from_raw(pid(&begun));
    nix::sys::signal::kill(agent, nix::sys::signal::Signal::SIGKILL).unwrap();
    ran(2);
    let again = until(&client, &whim, "helper", "its return", |session| {
        session["pid"].is_i64()
    });
    assert_ne!(again["pid"], begun["pid"]);
}

#[test]
fn a_sessions_branch_goes_on_where_an_earlier_one_left_it() {
    let repository = repository();
    let root = root(&whim());
    let run = custom(
        whim().arg("--repo").arg(repository.path()),
        "exec sleep 100000",
    )
    .args(["--branch", "work"]);
    let (mut whim, client) = start_in(&run, &root);
    ready(&client, &whim);
    begin(&client, &json!({}));
    let work = "cd ../worktrees/s2 && echo 2 > second.txt && git add . && git commit -q -m Second";
    agents_word(&root, work);
    whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    drop(whim);
    // The worktrees were on a disk that is gone.
    std::fs::remove_dir_all(root.at("/app/worktrees")).unwrap();
    let (whim, client) = start_in(&run, &root);
    ready(&client, &whim);
    let begun = begin(&client, &json!({}));
    assert_eq!(begun["id"], "s2", "sessions beside main are asked for anew");
    let last = agents_word(&root, "cd ../worktrees/s2 && git log -1 --format=%s");
    assert_eq!(last, "Second", "{}", whim.output());
}

#[test]
fn a_second_task_in_the_same_place_runs() {
    let root = root(&whim());
    for task in ["one", "two"] {
        let run = whim().args(["--mode", "oneshot", task]);
        let run = custom(run, "echo ran >> ~/runs; echo result");
        let mut whim = run.start(root.clone()).unwrap();
        assert_eq!(
            whim.ended(PATIENCE).unwrap(),
            0,
            "{task}: {}",
            whim.output()
        );
        assert!(whim.stdout().contains("result"), "{}", whim.output());
    }
    let runs = std::fs::read_to_string(root.at("/home/node/runs")).unwrap();
    assert_eq!(runs, "ran\nran\n");
}
