//! The platform's side: what it gets, also over an outage of its own and a crash of ours, and what it gives.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use whim_kit::backend::{Books, Call, Trouble};
use whim_kit::{Backend, Client, Run, Upstream, Whim, wait};

use crate::backup::said;
use crate::support::{PATIENCE, custom, events, kill_supervisor, root, start, state, whim};

const TASK: &str = "ww-12";
const TOKEN: &str = "internal-token-of-the-platform";

fn backend() -> Backend {
    Backend::start(TASK, TOKEN).unwrap()
}

/// A run that knows the platform.
fn known_to(run: Run, backend: &Backend) -> Run {
    run.args(["--task-id", TASK])
        .env("WHIM_BACKEND_URL", backend.url())
        .env("WHIM_INTERNAL_API_TOKEN", TOKEN)
}

/// The journal as the API tells it.
fn journal(client: &Client) -> Vec<Value> {
    let listed = client.json("/v1/events?limit=1000").unwrap();
    listed["events"].as_array().unwrap().clone()
}

fn newest(client: &Client) -> u64 {
    client.json("/v1/state").unwrap()["seq"].as_u64().unwrap()
}

/// Waits until the platform has everything up to this number.
fn delivered(backend: &Backend, number: u64) {
    backend
        .wait_for("the events", PATIENCE, |books| {
            (books.stream().acknowledged >= number).then_some(())
        })
        .unwrap();
}

#[test]
fn events_are_complete_over_an_outage_and_a_crash() {
    let backend = backend();
    let (mut whim, client) = start(&known_to(custom(whim(), "exec sleep 100000"), &backend));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    delivered(&backend, newest(&client));

    // Its answer is lost: the same numbers come again.
    backend.trouble(Call::Events, Trouble::Unheard(502), 1);
    let opened = client
        .post("/v1/terminals", &json!({"command": ["/bin/true"]}))
        .unwrap();
    assert_eq!(opened.status, 201, "{}", opened.text());
    let budget = |usd: &str| {
        let set = client.put("/v1/budget", &json!({"usd": usd})).unwrap();
        assert_eq!(set.status, 200, "{}", set.text());
    };
    budget("5.00");
    backend.leave();
    // Something happens while it is away, and the supervisor dies.
    state(&client, &whim, "the outage", |state| {
        budget("4.00");
        state["backend"]["reachable"] == false && state["backend"]["owed_events"] != 0
    });
    kill_supervisor(&client, &whim, 1);
    state(&client, &whim, "the outage again", |state| {
        state["backend"]["reachable"] == false
    });
    backend.come_back().unwrap();
    let after = state(&client, &whim, "the platform", |state| {
        state["backend"]["reachable"] == true
    });
    assert_eq!(after["backend"]["error"], Value::Null);
    delivered(&backend, newest(&client));

    whim.signal(Signal::SIGTERM).unwrap();
    let known = journal(&client);
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    let (stream, streams) = backend.look(|books| (books.stream(), books.streams.len()));
    assert_eq!(streams, 1, "one numbering over the crash");
    assert_eq!(stream.missing, []);
    let numbers: Vec<u64> = stream.events.keys().copied().collect();
    let whole: Vec<u64> = (1..=stream.acknowledged).collect();
    assert_eq!(numbers, whole);
    for event in known {
        let seq = event["seq"].as_u64().unwrap();
        assert_eq!(stream.events.get(&seq), Some(&event));
    }
    let kinds: BTreeSet<&str> = stream
        .events
        .values()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    for kind in [
        "supervisor.started",
        "session.started",
        "session.exited",
        "backend.unreachable",
        "backend.reached",
        "phase.changed",
    ] {
        assert!(kinds.contains(kind), "{kind} in {kinds:?}");
    }
    // The last word is among them.
    assert!(
        stream
            .events
            .values()
            .any(|event| event["phase"] == "stopping"),
        "{stream:?}"
    );
    assert_eq!(backend.violations(), Vec::<String>::new());
}

#[test]
fn a_platform_that_lost_events_gets_them_again() {
    let backend = backend();
    let (whim, client) = start(&known_to(custom(whim(), "exec sleep 100000"), &backend));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    // The first backup is told of a moment later: nothing may be on its way when the platform loses what it has.
    wait::until("the first backup", PATIENCE, || {
        events(&client, "backup.finished").pop()
    })
    .unwrap();
    delivered(&backend, newest(&client));
    backend.rewind(2);
    // Something new makes the next batch, which does not follow on what the platform has.
    said(&whim, &["backup", "now"]);
    delivered(&backend, newest(&client));
    let stream = backend.look(Books::stream);
    assert_eq!(
        stream.events.keys().copied().collect::<Vec<u64>>(),
        (1..=stream.acknowledged).collect::<Vec<u64>>()
    );
    assert!(backend.look(|books| books.calls.iter().any(|call| call.status == 409)));
    assert_eq!(backend.violations(), Vec::<String>::new());
}

#[test]
fn a_platform_says_when_it_is_to_be_asked_again_and_a_new_token_is_taken_at_once() {
    let backend = backend();
    backend.trouble(Call::Events, Trouble::Later(503, 2), 1);
    let (whim, client) = start(&known_to(custom(whim(), "exec sleep 100000"), &backend));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    delivered(&backend, 1);
    let times: Vec<u64> = backend.look(|books| {
        let events = books.of(Call::Events);
        events.iter().take(2).map(|call| call.at_ms).collect()
    });
    assert!(times[1] - times[0] >= 2000, "{times:?}");

    backend.set_token("a-new-token");
    kill_supervisor(&client, &whim, 1);
    let refused = state(&client, &whim, "the refusal", |state| {
        state["backend"]["reachable"] == false
    });
    let error = refused["backend"]["error"].as_str().unwrap();
    assert!(error.contains("401"), "{error}");
    let platform = whim.platform(PATIENCE).unwrap();
    let put = platform
        .put(
            "/v1/credentials",
            &json!({"platform": {"token": "a-new-token"}}),
        )
        .unwrap();
    assert_eq!(put.status, 204, "{}", put.text());
    delivered(&backend, newest(&client));
    // What the keeper is told before it starts a shell, it has once the shell runs.
    let opened = client
        .post("/v1/terminals", &json!({"command": ["/bin/true"]}))
        .unwrap();
    assert_eq!(opened.status, 201, "{}", opened.text());
    // The next supervisor has it as well.
    kill_supervisor(&client, &whim, 2);
    delivered(&backend, newest(&client));
    for secret in [TOKEN, "a-new-token"] {
        assert!(!whim.output().contains(secret), "{}", whim.output());
        assert!(!refused.to_string().contains(secret));
    }
    assert_eq!(backend.violations(), Vec::<String>::new());
}

#[test]
fn ports_are_registered_and_unregistered() {
    let backend = backend();
    // Serves until a file appears.
    let serve = "python3 -m http.server --bind 127.0.0.1 23471 & server=$!; \
                 until [ -e enough ]; do sleep 0.1; done; kill $server; exec sleep 100000";
    let (mut whim, client) = start(&known_to(custom(whim(), serve), &backend));
    // Others may listen on this machine, too.
    let registered = |what: &str, wanted: bool| {
        backend
            .wait_for(what, PATIENCE, |books| {
                (books.port_numbers()?.contains(&23471) == wanted).then_some(())
            })
            .unwrap();
    };
    registered("the port", true);
    // A platform that was away may have forgotten everything.
    backend.leave();
    state(&client, &whim, "the outage", |state| {
        drop(client.put("/v1/budget", &json!({"usd": "5.00"})));
        state["backend"]["reachable"] == false
    });
    let before = backend.look(|books| books.of(Call::Ports).len());
    backend.come_back().unwrap();
    backend
        .wait_for("the list after the outage", PATIENCE, |books| {
            (books.of(Call::Ports).len() > before).then_some(())
        })
        .unwrap();
    registered("the same list", true);
    std::fs::write(whim.root().at("/app/repo/enough"), "").unwrap();
    registered("no port", false);
    whim.signal(Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    assert_eq!(backend.look(Books::port_numbers), Some(Vec::new()));
    assert_eq!(backend.violations(), Vec::<String>::new());
}

#[test]
fn an_absent_platform_stops_nothing() {
    let backend = backend();
    let run = known_to(custom(whim(), "exec sleep 100000"), &backend);
    // The spec is asked for first; what it says is known from the flags here.
    backend.trouble(Call::Events, Trouble::Silence, 100);
    backend.trouble(Call::Ports, Trouble::Silence, 100);
    let (mut whim, client) = start(&run);
    state(&client, &whim, "ready", |state| {
        state["phase"] == "ready" && state["sessions"][0]["state"] != "starting"
    });
    backend
        .wait_for("a call", PATIENCE, |books| {
            (!books.of(Call::Events).is_empty()).then_some(())
        })
        .unwrap();
    // The ordered end waits for it no longer than the grace.
    whim.signal(Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    assert!(whim.output().contains("before the platform had everything"));
}

#[test]
fn the_task_comes_from_the_platform() {
    let backend = backend();
    backend.trouble(Call::Spec, Trouble::Status(503), 1);
    backend.set_spec(json!({
        "version": 1, "task": {"id": TASK},
        "agent": {"kind": "custom", "command": ["/bin/sh", "-c", "echo from-the-spec > said; exec sleep 100000"]},
    }));
    let (whim, client) = start(&known_to(whim(), &backend));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let said = whim.root().at("/app/repo/said");
    let said = wait::until("the agent", PATIENCE, || {
        std::fs::read_to_string(&said)
            .ok()
            .filter(|text| !text.is_empty())
    });
    assert_eq!(said.unwrap(), "from-the-spec\n");
    // A supervisor that comes later has it already.
    let asked = backend.look(|books| books.of(Call::Spec).len());
    kill_supervisor(&client, &whim, 1);
    assert_eq!(backend.look(|books| books.of(Call::Spec).len()), asked);
    assert_eq!(backend.violations(), Vec::<String>::new());
}

#[test]
fn a_spec_that_is_wrong_or_refused_ends_the_boot_and_the_platform_is_told() {
    for (spec, trouble, code, word) in [
        (
            json!({"version": 1, "agent": {"kind": "nonsense"}}),
            None,
            65,
            "/agent/kind",
        ),
        (json!({}), Some(Trouble::Status(403)), 69, "403"),
    ] {
        let backend = backend();
        backend.set_spec(spec);
        if let Some(trouble) = trouble {
            backend.trouble(Call::Spec, trouble, 1);
        }
        let run = known_to(whim(), &backend);
        let mut whim = run.start(root(&run)).unwrap();
        assert_eq!(whim.ended(PATIENCE).unwrap(), code, "{}", whim.output());
        assert!(whim.output().contains(word), "{}", whim.output());
        let events = backend.look(Books::events);
        assert!(
            events.iter().any(|event| event["phase"] == "failed"),
            "{events:?}"
        );
        assert_eq!(backend.violations(), Vec::<String>::new());
    }
}

/// Runs the credential helper as git does, as the agents' user; the password that it gives.
fn git(whim: &Whim, operation: &str, password: &str) -> Option<String> {
    use std::io::Write as _;
    let mut asking = std::process::Command::new("setpriv")
        .args(["--reuid", "node", "--regid", "node", "--clear-groups"])
        .arg(env!("CARGO_BIN_EXE_whim"))
        .args(["git-credential", operation, "--root"])
        .arg(whim.root().path())
        .env_clear()
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let question = format!(
        "protocol=http\nhost=127.0.0.1:1\npath=acme/shop.git\nusername=x-access-token\npassword={password}\n\n"
    );
    let mut input = asking.stdin.take().unwrap();
    input.write_all(question.as_bytes()).unwrap();
    drop(input);
    let answer = asking.wait_with_output().unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    let password = text.lines().find_map(|line| line.strip_prefix("password="));
    password.map(str::to_owned)
}

#[test]
fn the_login_for_git_is_renewed_before_it_ends_and_when_git_asks() {
    let repository = crate::support::repository();
    let backend = backend();
    backend.give_logins("x-access-token", Duration::from_secs(5));
    // Its own address cannot be reached, so it is cloned from the mirror.
    let spec = json!({
        "version": 1,
        "repo": {"url": "http://127.0.0.1:1/acme/shop.git", "mirror": repository.path()},
    });
    let run = known_to(custom(whim(), "exec sleep 100000"), &backend);
    let (whim, client) = start(&run.env("WHIM_SPEC", spec.to_string()));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let given = |number: u32| {
        backend
            .wait_for("a login", PATIENCE, |books| {
                (books.logins >= number).then_some(())
            })
            .unwrap();
    };
    given(1);
    // Renewed by itself, before its end.
    given(3);
    let newest = || backend.look(|books| Books::password(books.logins));
    wait::until("the newest login", PATIENCE, || {
        (git(&whim, "get", "")? == newest()).then_some(())
    })
    .unwrap();
    // After a crash as well, for which the checkout is not made again.
    kill_supervisor(&client, &whim, 1);
    wait::until("a login after the crash", PATIENCE, || {
        (git(&whim, "get", "")? == newest()).then_some(())
    })
    .unwrap();
    // While the platform cannot give one, git gets what there is.
    backend.leave();
    assert!(git(&whim, "get", "").is_some());
    backend.come_back().unwrap();
    let before = backend.look(|books| books.logins);
    given(before + 1);
    // A server refused one long before its end.
    backend.give_logins("x-access-token", Duration::from_secs(3600));
    let before = backend.look(|books| books.logins);
    given(before + 1);
    let refused = wait::until("the long login", PATIENCE, || {
        git(&whim, "get", "").filter(|password| *password == newest())
    })
    .unwrap();
    assert_eq!(git(&whim, "erase", "another"), None);
    wait::until("another login", PATIENCE, || {
        assert_eq!(git(&whim, "erase", &refused), None);
        (newest() != refused).then_some(())
    })
    .unwrap();
    assert_eq!(git(&whim, "get", ""), Some(newest()));
    assert!(!whim.output().contains("password-"), "{}", whim.output());
    assert_eq!(backend.violations(), Vec::<String>::new());
}

#[test]
fn the_platforms_token_is_nowhere_the_agent_can_look() {
    let backend = backend();
    // The word is put together where it is looked for, so that the look does not find itself.
    let look = "word=internal-token; word=$word-of-the-platform; \
        for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline /proc/[0-9]*/mem; do head -c 1000000 $f 2>/dev/null; done > found; \
        env >> found; cat \"$HOME\"/../../whim/state/* \"$HOME\"/../../run/whim/* >> found 2>/dev/null; \
        grep -ac \"$word\" found > count; mv count seen; exec sleep 100000";
    let (whim, client) = start(&known_to(custom(whim().as_pid_1(), look), &backend));
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let seen = whim.root().at("/app/repo/seen");
    let count = wait::until("the agent's look", PATIENCE, || {
        std::fs::read_to_string(&seen).ok()
    });
    assert_eq!(count.unwrap().trim(), "0", "{}", whim.output());
    let found = std::fs::read(whim.root().at("/app/repo/found")).unwrap();
    let found = String::from_utf8_lossy(&found);
    assert!(
        found.contains("ANTHROPIC_BASE_URL="),
        "the look saw nothing"
    );
    let state = client.get("/v1/state").unwrap().text();
    let events = client.get("/v1/events?limit=1000").unwrap().text();
    assert!(!state.contains(TOKEN) && !events.contains(TOKEN));
    assert!(backend.look(|books| books.calls.iter().all(|call| call.token == TOKEN)));
}

#[test]
fn a_providers_new_key_is_used_at_once_and_after_a_crash() {
    let upstream = Upstream::start(crate::support::says("hello")).unwrap();
    let request = r#"{"model":"claude-sonnet-4-5","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    let asks = format!(
        "while :; do curl -s -o /dev/null -H \"authorization: Bearer $ANTHROPIC_AUTH_TOKEN\" \
         -H 'content-type: application/json' -d '{request}' $ANTHROPIC_BASE_URL/v1/messages; sleep 0.2; done"
    );
    let run = custom(whim(), &asks)
        .env("WHIM_UPSTREAM_URL", upstream.url())
        .env("ANTHROPIC_API_KEY", crate::support::KEY);
    let (whim, client) = start(&run);
    let asked_with = |what: &str, key: &str, after: usize| {
        upstream
            .wait_for(what, PATIENCE, |requests| {
                let mut later = requests.iter().skip(after);
                later
                    .any(|request| request.key() == Some(key))
                    .then_some(())
            })
            .unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    };
    asked_with("the first key", crate::support::KEY, 0);
    let platform = whim.platform(PATIENCE).unwrap();
    let put = platform
        .put(
            "/v1/credentials",
            &json!({"provider": {"kind": "anthropic", "key": "sk-rotated"}}),
        )
        .unwrap();
    assert_eq!(put.status, 204, "{}", put.text());
    asked_with("the new key", "sk-rotated", 0);
    // The agent asks as soon as it runs, the boot's last words come after that.
    state(&client, &whim, "ready", |state| state["phase"] == "ready");
    let opened = client
        .post("/v1/terminals", &json!({"command": ["/bin/true"]}))
        .unwrap();
    assert_eq!(opened.status, 201, "{}", opened.text());
    kill_supervisor(&client, &whim, 1);
    let before = upstream.requests().len();
    asked_with("the new key after the crash", "sk-rotated", before);
    assert!(
        upstream.requests()[before..]
            .iter()
            .all(|request| request.key() == Some("sk-rotated"))
    );
}
