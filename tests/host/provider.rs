//! What is told about the provider before an agent calls it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use whim_kit::model::script::Script;
use whim_kit::{Client, Run, Upstream, wait};

use crate::support::{KEY, PATIENCE, custom, ready, root, says, start, state, token, whim};

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
    let (_taken, address) = nobody();
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

#[test]
fn the_way_to_the_provider_is_the_containers_proxy() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let run = custom(
        whim()
            .env("WHIM_UPSTREAM_URL", "https://model.example")
            .env("HTTPS_PROXY", format!("http://{address}"))
            .env("ANTHROPIC_API_KEY", KEY),
        "exec sleep 100000",
    );
    let (_whim, _client) = start(&run);
    let (mut asked, _) = proxy.accept().unwrap();
    asked.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut line = String::new();
    BufReader::new(&mut asked).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), "CONNECT model.example:443 HTTP/1.1");
}

#[test]
fn a_proxy_that_cannot_be_used_is_a_wrong_variable() {
    let run = custom(
        whim().env("HTTPS_PROXY", "socks5://somebody:hunter2@127.0.0.1:1"),
        "exec sleep 100000",
    );
    let mut whim = run.start(root(&run)).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 64, "{}", whim.output());
    let said = whim.stderr();
    assert!(
        said.contains("HTTPS_PROXY") && !said.contains("hunter2"),
        "{said}"
    );
}

/// A port where nobody listens and that nobody else gets: taken, but not listened on.
fn nobody() -> (Socket, SocketAddr) {
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    taken.bind(&any.into()).unwrap();
    let address = taken.local_addr().unwrap().as_socket().unwrap();
    (taken, address)
}

fn claude_at(address: SocketAddr) -> Run {
    whim()
        .path(&whim_kit::agents::installed().unwrap())
        .env("WHIM_UPSTREAM_URL", format!("http://{address}"))
        .env("ANTHROPIC_API_KEY", KEY)
        .args(["--agent", "claude"])
}

#[test]
fn an_agent_whose_provider_is_not_there_is_not_started() {
    let (_taken, address) = nobody();
    let run = claude_at(address);
    let root = root(&run);
    let mut whim = run.start(root.clone()).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 69, "{}", whim.output());
    let said = whim.stderr();
    let told = |line: &&str| line.starts_with("whim: ") && line.contains("cannot be reached");
    let told: Vec<&str> = said.lines().filter(told).collect();
    assert_eq!(told.len(), 1, "{said}");
    for part in ["anthropic", &address.to_string(), "WHIM_UPSTREAM_URL"] {
        assert!(told[0].contains(part), "{part}: {said}");
    }
    assert!(
        !root.at("/home/node/.claude/projects").exists(),
        "no agent ran"
    );
    assert!(!said.contains(KEY));
}

#[test]
fn a_provider_that_comes_up_a_moment_later_is_waited_for() {
    let (taken, address) = nobody();
    let (whim, client) = start(&claude_at(address));
    wait::until("the first try", PATIENCE, || {
        whim.stderr().contains("cannot be reached").then_some(())
    })
    .unwrap();
    taken.listen(16).unwrap();
    let provider = TcpListener::from(taken);
    std::thread::spawn(move || {
        for stream in provider.incoming() {
            let mut stream = stream.unwrap();
            let mut head = BufReader::new(&mut stream).lines();
            while head
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            // Who asks may have left.
            drop(stream.write_all(answer));
        }
    });
    let ready = ready(&client, &whim);
    assert!(ready["provider_error"].is_null(), "{ready}");
}

#[test]
fn a_provider_that_is_slow_to_answer_holds_no_agent_up() {
    // Takes connections, and says nothing on them.
    let provider = TcpListener::bind("127.0.0.1:0").unwrap();
    let run = claude_at(provider.local_addr().unwrap());
    let (whim, client) = start(&run);
    let state = ready(&client, &whim);
    assert!(state["sessions"][0]["pid"].is_i64(), "{state}");
}

#[test]
fn caps_of_the_command_line_reach_the_calls_and_the_figures_tell() {
    for (flag, refused) in [("--cap-tokens", 402), ("--cap-requests-per-minute", 429)] {
        let upstream = Upstream::start(says("done here")).unwrap();
        let run = custom(
            whim()
                .env("WHIM_UPSTREAM_URL", upstream.url())
                .env("ANTHROPIC_API_KEY", KEY)
                .args([flag, "1"]),
            "exec sleep 100000",
        );
        let (whim, client) = start(&run);
        ready(&client, &whim);
        let known = state(&client, &whim, "the agent", |state| {
            state["sessions"][0]["pid"].is_number()
        });
        let agent = i32::try_from(known["sessions"][0]["pid"].as_i64().unwrap()).unwrap();
        let token = token(agent, "whim-main-");
        let generation = whim.ready(PATIENCE).unwrap().generation;
        let calls = Client::tcp(generation)
            .unwrap()
            .limit(PATIENCE)
            .bearer(token);
        let turn = json!({"model": "claude-opus-4-8", "max_tokens": 100,
                          "messages": [{"role": "user", "content": "hi"}]});
        let statuses = [(); 2].map(|()| calls.post("/v1/messages", &turn).unwrap().status);
        assert_eq!(statuses, [200, refused], "{flag}\n{}", whim.output());
        let figures = client.get("/metrics").unwrap().text();
        for line in [
            "whim_generations_total{session=\"main\"} 1",
            "whim_generations_refused_total{session=\"main\"} 1",
            "whim_sessions 1",
        ] {
            assert!(figures.lines().any(|one| one == line), "{line}:\n{figures}");
        }
    }
}
