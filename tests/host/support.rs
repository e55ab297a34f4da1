//! What the tests of this binary share.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use whim_kit::model::script::{Reply, Rule, Script};
use whim_kit::{Answer, Client, Root, Run, Upstream, Whim, proc, repo, wait};

/// For things that a busy machine does slowly; nothing is asserted about how long they take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// The provider's key, which no agent may see.
pub(crate) const KEY: &str = "sk-secret-of-the-platform";

/// The program under test, as whoever `WHIM_TEST_AS` names: root if it is not set, root with the capabilities of a
/// `docker` container, or an `ordinary` user.
pub(crate) fn whim() -> Run {
    let run = Run::new(env!("CARGO_BIN_EXE_whim"));
    match std::env::var("WHIM_TEST_AS").as_deref() {
        Err(_) | Ok("" | "root") => run,
        Ok("docker") => run.with_docker_capabilities(),
        Ok("ordinary") => run.ordinary(),
        Ok(other) => panic!("WHIM_TEST_AS={other}: must be root, docker or ordinary"),
    }
}

/// A directory to run in that belongs to whom it should.
pub(crate) fn root(run: &Run) -> Root {
    if run.is_ordinary() {
        Root::ordinary().unwrap()
    } else {
        Root::new().unwrap()
    }
}

/// A repository with one commit, readable by the agents' user.
pub(crate) fn repository() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    repo::with(directory.path(), &[("README.md", "hello\n")]).unwrap();
    open_to_all(directory.path());
    directory
}

pub(crate) fn open_to_all(directory: &Path) {
    let status = std::process::Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(directory)
        .status()
        .unwrap();
    assert!(status.success());
}

/// Answers every prompt with one sentence.
pub(crate) fn says(text: &str) -> Script {
    Script::of([Rule::always(Reply::say(text))])
}

/// A `custom` agent that is a shell script.
pub(crate) fn custom(run: Run, script: &str) -> Run {
    let command = serde_json::json!(["/bin/sh", "-c", script]).to_string();
    run.args(["--agent", "custom", "--agent-command", &command])
}

/// An agent of npm's in front of the scripted model.
pub(crate) fn agent(kind: &str, upstream: &Upstream, repository: &Path) -> Run {
    let clis = whim_kit::agents::installed().unwrap();
    let (url, variable) = match kind {
        "ccr" => (upstream.router_url(), "OPENROUTER_API_KEY"),
        "codex" | "copilot" => (upstream.url(), "OPENAI_API_KEY"),
        _ => (upstream.url(), "ANTHROPIC_API_KEY"),
    };
    let run = whim()
        .path(&clis)
        .env("WHIM_UPSTREAM_URL", url)
        .env(variable, KEY)
        .arg("--repo");
    let run = run.arg(repository).args(["--agent", kind]);
    if matches!(kind, "copilot" | "ccr") {
        run.args(["--model", "test-model"])
    } else {
        run
    }
}

pub(crate) fn start(run: &Run) -> (Whim, Client) {
    let whim = run.start(root(run)).unwrap();
    let client = whim.client(PATIENCE).unwrap();
    (whim, client)
}

/// Waits until the state object is as wanted.
pub(crate) fn state(
    client: &Client,
    whim: &Whim,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let found = wait::until(what, PATIENCE, || {
        client.json("/v1/state").ok().filter(&wanted)
    });
    found.unwrap_or_else(|error| {
        let last = client.json("/v1/state").ok();
        panic!("{error}; last state {last:?}\n{}", whim.output())
    })
}

/// Waits for a state's word.
pub(crate) fn word(client: &Client, whim: &Whim, word: &str) -> Value {
    state(client, whim, word, |state| state["state"] == word)
}

/// The token in an agent's environment that begins like this.
pub(crate) fn token(agent: i32, beginning: &str) -> String {
    // Between fork and exec it still has the keeper's environment.
    let found = wait::until("the agent's environment", PATIENCE, || {
        proc::environment(agent).into_iter().find_map(|variable| {
            let (_, value) = variable.split_once('=')?;
            value.starts_with(beginning).then(|| value.to_owned())
        })
    });
    found.unwrap()
}

/// As [`start`], in a root that goes on to exist.
pub(crate) fn start_in(run: &Run, root: &Root) -> (Whim, Client) {
    let whim = run.start(root.clone()).unwrap();
    let client = whim.client(PATIENCE).unwrap();
    (whim, client)
}

/// Waits until the boot is done.
pub(crate) fn ready(client: &Client, whim: &Whim) -> Value {
    state(client, whim, "ready", |state| state["phase"] == "ready")
}

/// Runs a shell script as the agents' user in the checkout, with the home that agents have.
pub(crate) fn as_agent(root: &Root, script: &str) -> std::process::Output {
    let (user, group) = root.agents();
    std::process::Command::new("setpriv")
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={group}"))
        .args(["--clear-groups", "/bin/sh", "-c", script])
        .current_dir(root.at("/app/repo"))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", root.at("/home/node"))
        .env("GIT_TERMINAL_PROMPT", "0")
        .output()
        .unwrap()
}

/// As [`as_agent`]; what it printed, trimmed. Panics when it fails.
pub(crate) fn agents_word(root: &Root, script: &str) -> String {
    let output = as_agent(root, script);
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Kills the supervisor and waits until the next one, number `restarts`, answers.
pub(crate) fn kill_supervisor(client: &Client, whim: &Whim, restarts: u64) -> Value {
    let supervisor = nix::unistd::Pid::from_raw(whim.supervisor().unwrap());
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    state(client, whim, "the next supervisor", |state| {
        state["supervisor"]["restarts"] == restarts && state["phase"] == "ready"
    })
}

/// Waits until the agent has done its first turn.
pub(crate) fn first_turn(client: &Client, whim: &Whim) -> Value {
    state(client, whim, "the first turn's end", |state| {
        state["state"] == "idle" && state["sessions"][0]["spend"]["requests"].as_u64() > Some(0)
    })
}

/// As [`agent`], allowed to do everything.
pub(crate) fn bypassing(kind: &str, upstream: &Upstream, repository: &Path, prompt: &str) -> Run {
    agent(kind, upstream, repository).args(["--permission-mode", "bypass", prompt])
}

/// A model that has a file made by a shell when it is asked to `touch` one.
pub(crate) fn touches() -> Script {
    let replies = [Reply::shell("touch made-by-agent"), Reply::say("made")];
    Script::of([Rule::prompt("touch", replies)])
}

/// Queues a prompt for the main session; its id.
pub(crate) fn prompt(client: &Client, text: &str) -> String {
    let queued = client
        .post("/v1/sessions/main/prompts", &json!({ "text": text }))
        .unwrap();
    assert_eq!(queued.status, 202, "{}", queued.text());
    queued.json().unwrap()["prompt_id"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// Waits until a prompt of the main session is in one of these states.
pub(crate) fn reached(client: &Client, whim: &Whim, id: &str, states: &[&str]) -> Value {
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

/// Answers a dialog of the main session.
pub(crate) fn answer(client: &Client, dialog: &str, option: usize) -> Answer {
    let answer = json!({"dialog": dialog, "option": option});
    client.post("/v1/sessions/main/answers", &answer).unwrap()
}

/// Events of a type so far.
pub(crate) fn events(client: &Client, kind: &str) -> Vec<Value> {
    let listed = client.json("/v1/events?limit=10000").unwrap_or_default();
    let all = listed["events"].as_array().into_iter().flatten();
    all.filter(|event| event["type"] == kind).cloned().collect()
}
