//! The container's life: what is left behind, how it ends, who may ask what.

use std::net::TcpListener;

use serde_json::json;
use whim_kit::{proc, wait};

use crate::support::{PATIENCE, custom, kill_supervisor, repository, start, state, whim};

#[test]
fn nothing_of_a_session_outlives_it() {
    // A daemon with a session of its own, an empty environment and no parent.
    let mark = format!("sleep 9{}", std::process::id());
    let leave =
        format!("setsid -f env -i /bin/sh -c 'while :; do {mark}; done' ; exec sleep 100000");
    let (mut whim, client) = start(&custom(whim().as_pid_1(), &leave));
    let daemons = || proc::with_argument(&mark).len();
    wait::until("the daemon", PATIENCE, || (daemons() > 0).then_some(())).unwrap();
    let stopped = client.post("/v1/sessions/main/stop", &json!({})).unwrap();
    assert_eq!(stopped.status, 202, "{}", stopped.text());
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    assert_eq!(daemons(), 0);
}

#[test]
fn the_end_is_ordered_also_for_an_agent_that_ignores_it() {
    let (mut whim, client) = start(&custom(
        whim().args(["--grace", "3"]),
        "trap '' TERM; while :; do sleep 1; done",
    ));
    state(&client, &whim, "the agent", |state| {
        state["phase"] == "ready"
    });
    whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    let last = std::fs::read_to_string(whim.root().at("/tmp/claude_state")).unwrap();
    assert_eq!(last, "stopped\n");
}

#[test]
fn the_agent_runs_as_its_own_user() {
    let script = "printf 'uid %s' \"$(id -u)\" > uid; exec sleep 100000";
    let repository = repository();
    let run = custom(
        whim().as_pid_1().arg("--repo").arg(repository.path()),
        script,
    );
    let (whim, client) = start(&run);
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let path = whim.root().at("/app/repo/uid");
    let uid = wait::until("the agent", PATIENCE, || {
        std::fs::read_to_string(&path)
            .ok()
            .filter(|text| !text.is_empty())
    });
    let agents = whim.root().agents().0;
    assert_eq!(uid.unwrap(), format!("uid {agents}"), "{}", whim.output());
}

#[test]
fn a_shell_is_opened_used_and_closed() {
    let (whim, client) = start(&custom(whim(), "exec sleep 100000"));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let opened = client.post(
        "/v1/terminals",
        &json!({"command": ["/bin/sh", "-c", "id -u > shell-uid; exec sleep 1000"]}),
    );
    let opened = opened.unwrap();
    assert_eq!(opened.status, 201, "{}", opened.text());
    let id = opened.json().unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(id, "shell-1");
    let listed = client.json("/v1/terminals").unwrap();
    let ids: Vec<&str> = listed["terminals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["id"].as_str().unwrap())
        .collect();
    assert!(
        ids.contains(&"main") && ids.contains(&"shell-1"),
        "{listed}"
    );
    let closed = client.delete("/v1/terminals/shell-1").unwrap();
    assert!(closed.status.is_success(), "{}", closed.text());
}

#[test]
fn what_was_given_for_a_shell_never_opens_the_next_one() {
    let (whim, client) = start(&custom(whim(), "exec sleep 100000"));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let open = || {
        let sleeping = json!({"command": ["/bin/sleep", "1000"]});
        // A supervisor that comes up says `ready` before it has taken up everything.
        wait::until("a shell", PATIENCE, || {
            let opened = client.post("/v1/terminals", &sleeping).ok()?;
            (opened.status == 201).then(|| opened.json().unwrap()["id"].clone())
        })
        .unwrap()
    };
    assert_eq!(open(), "shell-1");
    let link = client
        .post("/v1/terminals/shell-1/links", &json!({"read_only": false}))
        .unwrap();
    let link = link.json().unwrap()["path"].as_str().unwrap().to_owned();
    assert_eq!(client.get(&link).unwrap().status, 200);
    let closed = client.delete("/v1/terminals/shell-1").unwrap();
    assert!(closed.status.is_success(), "{}", closed.text());
    assert_eq!(client.get(&link).unwrap().status, 404);
    assert_eq!(open(), "shell-2");
    assert_eq!(client.get(&link).unwrap().status, 404);
    let closed = client.delete("/v1/terminals/shell-2").unwrap();
    assert!(closed.status.is_success(), "{}", closed.text());
    // Nobody who is left knows of it but the keeper.
    kill_supervisor(&client, &whim, 1);
    assert_eq!(open(), "shell-3");
}

#[test]
fn the_socket_tells_owner_and_agents_user_apart() {
    let (whim, client) = start(&custom(whim(), "exec sleep 100000"));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let socket = whim.root().at("/run/whim/whim.sock");
    let as_user = |arguments: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args([
            "--reuid",
            "node",
            "--regid",
            "node",
            "--clear-groups",
            env!("CARGO_BIN_EXE_whim"),
        ]);
        command
            .args(arguments)
            .arg("--root")
            .arg(whim.root().path())
            .env_clear()
            .output()
            .unwrap()
    };
    assert!(socket.exists());
    assert!(as_user(&["status"]).status.success());
    let refused = as_user(&["stop"]);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("may not"),
        "{refused:?}"
    );
    // Without a token nobody gets past the TCP door.
    let ready = whim.ready(PATIENCE).unwrap();
    let stranger = whim_kit::Client::tcp(whim_kit::reachable(ready.ui)).unwrap();
    assert_eq!(stranger.get("/v1/state").unwrap().status, 401);
    assert_eq!(stranger.get("/healthz").unwrap().status, 200);
}

#[test]
fn a_dev_server_is_listed_and_reached() {
    // One that the kernel gives to nobody by itself: those count as noise until a terminal prints them.
    let port = (23_461..32_768)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap();
    let served = &format!(
        "mkdir -p served && cd served && echo 'from the agent' > index.html \
         && exec python3 -m http.server --bind 127.0.0.1 {port}"
    );
    let run = custom(
        whim().env("WHIM_PREVIEW_SECRET", "the-secret-of-the-router"),
        served,
    );
    let (whim, client) = start(&run);
    state(&client, &whim, "the port", |state| {
        state["ports"]
            .as_array()
            .is_some_and(|ports| ports.contains(&json!(port)))
    });
    let ports = client.json("/v1/ports").unwrap();
    let listed = ports
        .as_array()
        .unwrap()
        .iter()
        .find(|listed| listed["port"] == port)
        .unwrap();
    assert_eq!(listed["address"], "127.0.0.1", "{listed}");
    let ready = whim.ready(PATIENCE).unwrap();
    let visitor = whim_kit::Client::tcp(whim_kit::reachable(ready.local)).unwrap();
    assert_eq!(visitor.get(&format!("/proxy/{port}/")).unwrap().status, 401);
    let link = client
        .post(
            &format!("/v1/ports/{port}/links"),
            &json!({"expires_s": 60}),
        )
        .unwrap();
    assert_eq!(link.status, 201, "{}", link.text());
    let request = http::Request::get(format!("/proxy/{port}/index.html"))
        .header("x-whim-token", "the-secret-of-the-router")
        .body(bytes::Bytes::new())
        .unwrap();
    let page = visitor.send(request).unwrap();
    assert_eq!(
        (page.status.as_u16(), page.text().trim()),
        (200, "from the agent")
    );
}
