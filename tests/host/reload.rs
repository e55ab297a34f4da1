//! Other layers for a task that runs.

use std::path::Path;

use serde_json::{Value, json};
use whim_kit::{Client, Root, Run, Upstream, Whim, proc, wait};

use crate::support::{
    PATIENCE, agent, custom, kill_supervisor, ready, repository, says, start, start_in, state,
    whim, word,
};

fn layer(text: &str) -> Value {
    json!({"layer": "user", "instructions": format!("Rule {text}."), "env": {"MARK": text},
        "env_files": {".env": format!("FROM_FILE={text}\n")}, "bashrc": format!("# rc {text}\n"),
        "init_script": format!("echo {text}\n"),
        "skills": [{"name": format!("skill-{text}"), "files": {
            "SKILL.md": format!("---\nname: skill-{text}\ndescription: does {text}\n---\nBody.\n"),
            "more/notes.md": "notes"}},
            {"name": "plain", "files": {"any.md": format!("# Plainly {text}\n\nBody.\n")}}],
        "mcp_servers": {format!("server-{text}"): {"command": "/bin/false", "args": ["x"]}},
        "settings": {"cleanupPeriodDays": 77, "permissions": {"allow": [format!("Bash(echo {text})")]}}})
}

fn with_layers(run: Run, layers: Value) -> Run {
    let spec = json!({"version": 1, "config": layers});
    run.args(["--spec", &spec.to_string()])
}

/// Claude Code without a prompt.
fn claude(upstream: &Upstream, repository: &Path, layers: Value) -> Run {
    let run = agent("claude", upstream, repository).args(["--permission-mode", "bypass"]);
    with_layers(run, layers)
}

fn put(client: &Client, path: &str, layers: &Value) -> (u16, Value) {
    let answer = client.put(path, layers).unwrap();
    (answer.status.as_u16(), answer.json().unwrap())
}

fn pointers(answer: &Value, member: &str) -> Vec<String> {
    let list = answer[member].as_array().unwrap();
    list.iter()
        .map(|one| one.as_str().unwrap().to_owned())
        .collect()
}

fn text(root: &Root, path: &str) -> String {
    std::fs::read_to_string(root.at(path)).unwrap_or_default()
}

fn object(root: &Root, path: &str) -> Value {
    serde_json::from_str(&text(root, path)).unwrap()
}

/// What a shell that is opened now has in its environment.
fn in_a_new_shell(client: &Client, whim: &Whim, script: &str) -> String {
    let file = whim.root().at("/app/repo/seen");
    drop(std::fs::remove_file(&file));
    let command = format!("{script} > seen.part; mv seen.part seen");
    let asked = json!({"command": ["/bin/sh", "-c", command]});
    // A supervisor that comes up says `ready` before it has taken up everything.
    wait::until("a shell", PATIENCE, || {
        let opened = client.post("/v1/terminals", &asked).ok()?;
        (opened.status == 201).then_some(())
    })
    .unwrap();
    wait::until("the shell's word", PATIENCE, || {
        std::fs::read_to_string(&file).ok()
    })
    .unwrap()
    .trim()
    .to_owned()
}

/// Asks, and waits for the model's answer and the prompt's end.
fn ask(client: &Client, upstream: &Upstream, text: &str) {
    let queued = client
        .post("/v1/sessions/main/prompts", &json!({ "text": text }))
        .unwrap();
    assert_eq!(queued.status, 202, "{}", queued.text());
    let asked = upstream.wait_for("the question", PATIENCE, |all| {
        all.iter()
            .any(|one| one.is_turn() && one.mentions(text))
            .then_some(())
    });
    asked.unwrap_or_else(|error| {
        panic!("{error}: {}", client.json("/v1/events?limit=1000").unwrap())
    });
    let id = queued.json().unwrap()["prompt_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/v1/sessions/main/prompts/{id}");
    wait::until("the prompt's end", PATIENCE, || {
        client
            .json(&path)
            .ok()
            .filter(|prompt| prompt["state"] == "done")
    })
    .unwrap();
}

const AT_RESTART: [&str; 9] = [
    "/env/MARK",
    "/env_files/.env",
    "/instructions",
    "/mcp_servers/server-one",
    "/mcp_servers/server-two",
    "/settings/permissions",
    "/skills/plain",
    "/skills/skill-one",
    "/skills/skill-two",
];

#[test]
fn claude_knows_the_new_layers_once_it_is_resumed_and_what_is_others_stays() {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let run = claude(&upstream, repository.path(), json!([layer("one")]));
    let run = run.arg("the first question");
    let root = crate::support::root(&run);
    // The user's own, beside ours, partly of the same value.
    root.write_as_agent(
        "/home/node/.claude/settings.json",
        "{\"cleanupPeriodDays\": 77, \"permissions\": {\"allow\": [\"Bash(ls)\"]}}",
    )
    .unwrap();
    root.write_as_agent(
        "/home/node/.mcp.json",
        "{\"mcpServers\": {\"mine\": {\"command\": \"/bin/true\"}}}",
    )
    .unwrap();
    root.write_as_agent(
        "/home/node/.claude/skills/mine/SKILL.md",
        "---\nname: mine\ndescription: my own\n---\n",
    )
    .unwrap();
    let (whim, client) = start_in(&run, &root);
    let first = state(&client, &whim, "the first turn's end", |state| {
        state["state"] == "idle" && !upstream.turns().is_empty()
    });
    let turns = upstream.turns();
    assert!(
        turns
            .iter()
            .any(|turn| turn.mentions("Rule one.") && turn.mentions("Plainly one")),
        "{:?}\n{}",
        turns
            .iter()
            .map(|turn| turn.json().to_string())
            .collect::<Vec<_>>(),
        whim.output()
    );

    let (status, answer) = put(&client, "/v1/config", &json!([layer("two")]));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(pointers(&answer, "needs_restart"), AT_RESTART);
    assert_eq!(pointers(&answer, "applied"), ["/bashrc"]);
    assert_eq!(pointers(&answer, "next_boot"), ["/init_script"]);
    // In place already.
    assert!(text(&root, "/app/CLAUDE.md").contains("Rule two."));
    assert!(!text(&root, "/app/CLAUDE.md").contains("Rule one."));
    assert!(
        root.at("/home/node/.claude/skills/skill-two/more/notes.md")
            .exists()
    );
    assert!(!root.at("/home/node/.claude/skills/skill-one").exists());
    assert!(root.at("/home/node/.claude/skills/mine/SKILL.md").exists());
    let servers = object(&root, "/home/node/.mcp.json");
    let servers: Vec<&String> = servers["mcpServers"].as_object().unwrap().keys().collect();
    assert_eq!(servers, ["mine", "server-two"]);
    let settings = object(&root, "/home/node/.claude/settings.json");
    assert_eq!(
        settings["permissions"]["allow"],
        json!(["Bash(ls)", "Bash(echo two)"])
    );
    assert!(text(&root, "/whim/bashrc").contains("rc two"));
    assert!(text(&root, "/whim/env-files/.env").contains("two"));
    let shell = in_a_new_shell(&client, &whim, "echo $MARK $FROM_FILE");
    assert_eq!(shell, "two two");

    // The same again with a restart: nothing changes any more, but the agent learns it.
    let (status, answer) = put(&client, "/v1/config?restart=resume", &json!([layer("two")]));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(pointers(&answer, "restarted"), ["main"], "{answer}");
    assert!(pointers(&answer, "needs_restart").is_empty(), "{answer}");
    let again = word(&client, &whim, "idle");
    let of = |state: &Value, name: &str| state["sessions"][0][name].clone();
    assert_eq!(
        of(&again, "agent_session_id"),
        of(&first, "agent_session_id")
    );
    assert_ne!(of(&again, "pid"), of(&first, "pid"));
    upstream.forget();
    ask(&client, &upstream, "the second question");
    let turns = upstream.turns();
    let last = turns.last().unwrap();
    for part in [
        "Rule two.",
        "does two",
        "my own",
        "the first question",
        "the second question",
    ] {
        assert!(last.mentions(part), "{part}\n{}", whim.output());
    }
    // Which skills there were is told by the conversation itself, so only the rules can be gone.
    assert!(!last.mentions("Rule one."));

    // Without any layer nothing of ours is left, and all that was the user's is.
    let (status, answer) = put(&client, "/v1/config", &json!({"config": []}));
    assert_eq!(status, 200, "{answer}");
    let settings = object(&root, "/home/node/.claude/settings.json");
    assert_eq!(settings["cleanupPeriodDays"], 77);
    assert_eq!(settings["permissions"]["allow"], json!(["Bash(ls)"]));
    let servers = object(&root, "/home/node/.mcp.json");
    assert_eq!(
        servers["mcpServers"],
        json!({"mine": {"command": "/bin/true"}})
    );
    let skills = std::fs::read_dir(root.at("/home/node/.claude/skills")).unwrap();
    assert_eq!(skills.count(), 1);
    assert!(!root.at("/whim/env-files/.env").exists() && !root.at("/whim/bashrc").exists());
    let events = client.json("/v1/events?limit=1000").unwrap().to_string();
    assert!(events.contains("config.changed") && !events.contains("FROM_FILE=two"));
}

/// One turn, other instructions, a restart: the next turn knows them and what was said before.
fn resumed_with_the_new_rules(kind: &str) {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let rule = |text: &str| json!([{"layer": "team", "instructions": format!("Rule {text}.")}]);
    let run = agent(kind, &upstream, repository.path()).args(["--permission-mode", "bypass"]);
    let (whim, client) = start(&with_layers(run, rule("one")).arg("the first question"));
    let state = state(&client, &whim, "the first turn's end", |state| {
        state["state"] == "idle" && !upstream.turns().is_empty()
    });
    let (status, answer) = put(&client, "/v1/config?restart=resume", &rule("two"));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(pointers(&answer, "restarted"), ["main"], "{answer}");
    assert_eq!(pointers(&answer, "applied"), ["/instructions"]);
    upstream.forget();
    word(&client, &whim, "idle");
    ask(&client, &upstream, "the second question");
    let turns = upstream.turns();
    let last = turns
        .iter()
        .find(|turn| turn.mentions("the second question"))
        .unwrap();
    for part in ["Rule two.", "the first question"] {
        assert!(last.mentions(part), "{kind}: {part}\n{}", whim.output());
    }
    let after = word(&client, &whim, "idle");
    let id = |state: &Value| state["sessions"][0]["agent_session_id"].clone();
    assert_eq!(id(&after), id(&state), "{kind}");
}

#[test]
fn codex_is_resumed_with_the_new_rules() {
    resumed_with_the_new_rules("codex");
}

#[test]
fn the_router_is_resumed_with_the_new_rules() {
    resumed_with_the_new_rules("ccr");
}

#[test]
fn copilot_is_resumed_with_the_new_rules() {
    resumed_with_the_new_rules("copilot");
}

#[test]
fn a_restart_before_the_first_prompt_begins_anew() {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let (whim, client) = start(&claude(&upstream, repository.path(), json!([layer("one")])));
    word(&client, &whim, "idle");
    let (status, answer) = put(&client, "/v1/config?restart=resume", &json!([layer("two")]));
    assert_eq!(
        (status, pointers(&answer, "restarted")),
        (200, vec!["main".to_owned()]),
        "{answer}"
    );
    word(&client, &whim, "idle");
    // Its input box is hardly there: what it forgets is typed once more.
    ask(&client, &upstream, "a question");
    let turns = upstream.turns();
    assert!(turns.iter().any(|turn| turn.mentions("Rule two.")));
    let events = client.json("/v1/events?limit=1000").unwrap();
    let starts = events["events"].as_array().unwrap().iter();
    let starts = starts.filter(|event| event["type"] == "session.started");
    // There is no conversation yet: an agent that is told to resume it ends with an error.
    let resumed: Vec<&Value> = starts.map(|event| &event["resumed"]).collect();
    assert_eq!(resumed, [false, false], "{events}");
}

#[test]
fn all_mistakes_are_told_at_once_and_nothing_changes() {
    let run = with_layers(custom(whim(), "exec sleep 100000"), json!([layer("one")]));
    let (whim, client) = start(&run);
    ready(&client, &whim);
    let root = whim.root();
    let before = (
        text(root, "/whim/env-files/.env"),
        text(root, "/whim/bashrc"),
    );
    let bad = json!([{"layer": "user", "bashrc": "# new\n", "env": {"WHIM_X": "1", "LD_PRELOAD": "2"}},
        {"layer": "user"}, {"layer": "nobody"}]);
    let (status, answer) = put(&client, "/v1/config", &bad);
    assert_eq!(status, 422, "{answer}");
    let told = answer.to_string();
    for part in ["/config/2/layer", "remedy"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let bad = json!([{"layer": "user", "bashrc": "# new\n", "env": {"WHIM_X": "1", "LD_PRELOAD": "2"}}, {"layer": "user"}]);
    let (status, answer) = put(&client, "/v1/config", &bad);
    assert_eq!(status, 422, "{answer}");
    let told = answer.to_string();
    for part in [
        "/config/0/env/WHIM_X",
        "/config/0/env/LD_PRELOAD",
        "/config/1",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let after = (
        text(root, "/whim/env-files/.env"),
        text(root, "/whim/bashrc"),
    );
    assert_eq!(before, after);
    assert_eq!(in_a_new_shell(&client, &whim, "echo $MARK"), "one");
    let nobody = Client::tcp(whim_kit::reachable(whim.ready(PATIENCE).unwrap().backup)).unwrap();
    assert_eq!(nobody.put("/v1/config", &json!([])).unwrap().status, 401);
}

#[test]
fn a_step_that_fails_undoes_those_before_it() {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let (whim, client) = start(&claude(&upstream, repository.path(), json!([layer("one")])));
    word(&client, &whim, "idle");
    let root = whim.root();
    let files = [
        "/whim/env-files/.env",
        "/whim/bashrc",
        "/app/CLAUDE.md",
        "/home/node/.claude/settings.json",
        "/home/node/.claude/skills/skill-one/SKILL.md",
    ];
    let all = || files.map(|file| text(root, file));
    let before = all();
    // Somebody is in the middle of writing it.
    let good = text(root, "/home/node/.mcp.json");
    root.write_as_agent("/home/node/.mcp.json", "{\"mcpServers\": {")
        .unwrap();
    let (status, answer) = put(&client, "/v1/config", &json!([layer("two")]));
    assert_eq!(status, 409, "{answer}");
    assert!(
        answer["detail"].as_str().unwrap().contains(".mcp.json"),
        "{answer}"
    );
    assert_eq!(all(), before);
    assert!(
        !root
            .at("/home/node/.claude/skills/skill-two/SKILL.md")
            .exists()
    );
    assert_eq!(text(root, "/home/node/.mcp.json"), "{\"mcpServers\": {");
    assert_eq!(in_a_new_shell(&client, &whim, "echo $MARK"), "one");
    // Also for the next supervisor.
    kill_supervisor(&client, &whim, 1);
    assert_eq!(in_a_new_shell(&client, &whim, "echo $MARK"), "one");
    root.write_as_agent("/home/node/.mcp.json", &good).unwrap();
    let (status, answer) = put(&client, "/v1/config", &json!([layer("two")]));
    assert_eq!(
        (status, pointers(&answer, "needs_restart")),
        (200, AT_RESTART.map(str::to_owned).to_vec())
    );
}

#[test]
fn a_reload_outlives_its_supervisor_also_in_the_middle() {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let (whim, client) = start(&claude(&upstream, repository.path(), json!([layer("one")])));
    let first = word(&client, &whim, "idle");
    let root = whim.root();
    // The helper stands still: the reload gets no further than our own files.
    let helper = proc::children(whim.keeper().unwrap())
        .into_iter()
        .find(|child| {
            proc::arguments(child.pid)
                .get(1)
                .is_some_and(|own| own == "helper")
        })
        .unwrap();
    let helper = nix::unistd::Pid::from_raw(helper.pid);
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let platform = whim.platform(PATIENCE).unwrap();
    let caller = std::thread::spawn(move || platform.put("/v1/config", &json!([layer("two")])));
    wait::until("the reload's first step", PATIENCE, || {
        text(root, "/whim/bashrc").contains("rc two").then_some(())
    })
    .unwrap();
    assert!(text(root, "/app/CLAUDE.md").contains("Rule one."));
    let after = kill_supervisor(&client, &whim, 1);
    assert!(caller.join().unwrap().is_err(), "it was answered");
    assert_eq!(
        after["sessions"][0]["pid"], first["sessions"][0]["pid"],
        "the agent is another"
    );
    wait::until("the rest of the reload", PATIENCE, || {
        let gone = !root.at("/home/node/.claude/skills/skill-one").exists();
        (gone && text(root, "/app/CLAUDE.md").contains("Rule two.")).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    assert_eq!(in_a_new_shell(&client, &whim, "echo $MARK"), "two");
    // What the agent was started with is still known.
    let (status, answer) = put(&client, "/v1/config", &json!([layer("two")]));
    assert_eq!(
        (status, pointers(&answer, "needs_restart")),
        (200, AT_RESTART.map(str::to_owned).to_vec())
    );
    kill_supervisor(&client, &whim, 2);
    assert_eq!(in_a_new_shell(&client, &whim, "echo $MARK"), "two");
}

#[test]
fn what_a_reload_brought_does_not_outlive_the_containers_life() {
    let upstream = Upstream::start(says("yes")).unwrap();
    let repository = repository();
    let run = claude(&upstream, repository.path(), json!([]));
    let root = crate::support::root(&run);
    root.write_as_agent(
        "/home/node/.mcp.json",
        "{\"mcpServers\": {\"mine\": {\"command\": \"/bin/true\"}}}",
    )
    .unwrap();
    let (mut whim, client) = start_in(&run, &root);
    word(&client, &whim, "idle");
    let (status, answer) = put(&client, "/v1/config", &json!([layer("two")]));
    assert_eq!(status, 200, "{answer}");
    assert!(text(&root, "/home/node/.mcp.json").contains("server-two"));
    assert!(text(&root, "/whim/bashrc").contains("rc two"));
    whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());

    let (whim, client) = start_in(&run, &root);
    word(&client, &whim, "idle");
    let servers = object(&root, "/home/node/.mcp.json");
    assert_eq!(
        servers["mcpServers"],
        json!({"mine": {"command": "/bin/true"}})
    );
    let settings = object(&root, "/home/node/.claude/settings.json");
    assert_eq!(settings["cleanupPeriodDays"], Value::Null, "{settings}");
    assert_eq!(settings["permissions"]["allow"], Value::Null, "{settings}");
    assert!(!text(&root, "/app/CLAUDE.md").contains("Rule two."));
    for gone in [
        "/home/node/.claude/skills/skill-two",
        "/whim/env-files/.env",
        "/whim/bashrc",
    ] {
        assert!(!root.at(gone).exists(), "{gone}");
    }
}
