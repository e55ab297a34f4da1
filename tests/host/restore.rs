//! A task that ended in one root goes on in another: resumed, forked, or told to another agent.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use whim_kit::{Client, Root, Run, Upstream, Whim};

use crate::support::{
    PATIENCE, agent, agents_word, repository, root, says, start, start_in, state, whim,
};

/// The store of a root whose container ended: what was saved before its end.
fn store(root: &Root) -> PathBuf {
    root.at("/whim/state/backup")
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    let entries = entries.map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| {
        if path.is_dir() {
            walk(&path)
        } else {
            vec![path]
        }
    };
    entries.flat_map(below).collect()
}

/// Runs `whim restore` in a new root; what it printed.
fn restore(root: &Root, arguments: &[&str], code: i32) -> String {
    let run = whim().command("restore").args(arguments.iter().copied());
    let mut whim = run.start(root.clone()).unwrap();
    let ended = whim.ended(PATIENCE).unwrap();
    assert_eq!(ended, code, "{}", whim.output());
    whim.output()
}

/// Work that is nowhere else: a commit, a staged, a changed, a deleted and a new file, and an ignored one.
const WORK: &str = "git config user.email a@b.c && git config user.name a && echo one > one && git add one \
    && git commit -qm One && echo two > two && git add two && echo changed > one && rm README.md && echo new > 'n e w' \
    && echo ignored > .gitignore && echo secret > ignored";
/// All of it that git can tell.
const TOLD: &str = "git status --porcelain=v2 --branch --untracked-files=all | grep -v '^# branch.head' && git log --format='%H %s' \
    && git diff && git diff --cached && cat 'n e w'";

/// A first turn that tells the agent a word, and the session as it was at its end.
fn first_turn(kind: &str, upstream: &Upstream, repository: &Path) -> (Whim, Value) {
    first_turn_of(agent(kind, upstream, repository))
}

fn first_turn_of(run: Run) -> (Whim, Value) {
    let run = run.args(["--permission-mode", "bypass", "remember the word ORCHIDEE"]);
    let (mut whim, client) = start(&run);
    let idle = answered(&client, &whim);
    agents_word(whim.root(), WORK);
    whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    (whim, idle["sessions"][0].clone())
}

fn answered(client: &Client, whim: &Whim) -> Value {
    state(client, whim, "the turn's end", |state| {
        state["state"] == "idle"
            && state["sessions"][0]["spend"]["requests"].as_u64() > Some(0)
            && state["sessions"][0]["agent_session_id"].is_string()
    })
}

/// Starts the agent in a restored root with another prompt; the session after its turn.
fn second_turn(kind: &str, upstream: &Upstream, repository: &Path, root: &Root) -> Value {
    let before = upstream.turns().len();
    let run = agent(kind, upstream, repository).args([
        "--permission-mode",
        "bypass",
        "say the word again",
    ]);
    let (whim, client) = start_in(&run, root);
    let idle = state(&client, &whim, "the second turn", |state| {
        let asked = upstream
            .turns()
            .iter()
            .skip(before)
            .any(|turn| turn.mentions("say the word again"));
        asked && state["state"] == "idle" && state["sessions"][0]["agent_session_id"].is_string()
    });
    let knows = upstream
        .turns()
        .iter()
        .skip(before)
        .any(|turn| turn.mentions("say the word again") && turn.mentions("ORCHIDEE"));
    assert!(
        knows,
        "{kind} does not know what was said before\n{}",
        whim.output()
    );
    idle["sessions"][0].clone()
}

fn goes_on_elsewhere(kind: &str) {
    let upstream = Upstream::start(says("noted")).unwrap();
    let repository = repository();
    let (first, session) = first_turn(kind, &upstream, repository.path());
    let work = agents_word(first.root(), TOLD);
    let branch = agents_word(first.root(), "git symbolic-ref --short HEAD");
    let store = store(first.root());
    let store = store.to_str().unwrap();
    let before = walk(Path::new(store)).len();
    let run = whim();

    let resumed = root(&run);
    let said = restore(&resumed, &[store], 0);
    let id = session["agent_session_id"].as_str().unwrap();
    assert!(said.contains(id), "{said}");
    let after = second_turn(kind, &upstream, repository.path(), &resumed);
    assert_eq!(
        after["agent_session_id"], id,
        "{kind}: another session went on"
    );
    assert_eq!(agents_word(&resumed, TOLD), work, "{kind}: the work tree");
    assert_eq!(
        agents_word(&resumed, "git symbolic-ref --short HEAD"),
        branch
    );
    assert!(!resumed.at("/app/repo/ignored").exists());

    let forked = root(&run);
    restore(&forked, &["--mode", "fork", store], 0);
    let after = second_turn(kind, &upstream, repository.path(), &forked);
    assert_ne!(
        after["agent_session_id"], id,
        "{kind}: the fork has the id of its source"
    );
    assert_eq!(
        agents_word(&forked, TOLD),
        work,
        "{kind}: the fork's work tree"
    );
    assert_ne!(
        agents_word(&forked, "git symbolic-ref --short HEAD"),
        branch
    );
    assert_eq!(
        walk(Path::new(store)).len(),
        before,
        "the source was touched"
    );
}

/// A session that was started beside `main`, with the agent that it had and in a worktree of its own.
#[test]
fn a_session_beside_main_goes_on_elsewhere_when_it_is_asked_for() {
    let upstream = Upstream::start(says("noted")).unwrap();
    let repository = repository();
    let run = agent("claude", &upstream, repository.path()).args(["--permission-mode", "bypass"]);
    let (mut first, client) = start(&run);
    crate::support::ready(&client, &first);
    let beside = |client: &Client, whim: &Whim, prompt: &str| -> Value {
        let before = upstream.turns().len();
        let begun = client.post("/v1/sessions", &json!({"id": "s2", "prompt": prompt}));
        let begun = begun.unwrap();
        assert_eq!(begun.status, 201, "{}", begun.text());
        let idle = state(client, whim, "its turn", |state| {
            let asked = upstream
                .turns()
                .iter()
                .skip(before)
                .any(|turn| turn.mentions(prompt));
            asked && state["sessions"][1]["state"] == "idle"
        });
        idle["sessions"][1].clone()
    };
    let session = beside(&client, &first, "remember the word AUBERGINE");
    let commit = "cd ../worktrees/s2 && git config user.email a@b.c && git config user.name a && echo x > of-s2 \
        && git add of-s2 && git commit -qm S2";
    agents_word(first.root(), commit);
    first.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(first.ended(PATIENCE).unwrap(), 0, "{}", first.output());

    let store = store(first.root());
    for (mode, same) in [("resume", true), ("fork", false)] {
        let there = root(&whim());
        let said = restore(&there, &["--mode", mode, store.to_str().unwrap()], 0);
        assert!(said.contains("POST /v1/sessions"), "{said}");
        let (whim, client) = start_in(&run, &there);
        crate::support::ready(&client, &whim);
        let asked = upstream.turns().len();
        let after = beside(&client, &whim, "say the word again");
        let turns = upstream.turns();
        let knows = turns
            .iter()
            .skip(asked)
            .any(|turn| turn.mentions("say the word again") && turn.mentions("AUBERGINE"));
        assert!(
            knows,
            "{mode}: it does not know what was said\n{}",
            whim.output()
        );
        assert_eq!(
            after["agent_session_id"] == session["agent_session_id"],
            same
        );
        if same {
            assert_eq!(agents_word(&there, "cat ../worktrees/s2/of-s2"), "x");
        }
    }
}

#[test]
fn claude_goes_on_elsewhere() {
    goes_on_elsewhere("claude");
}

#[test]
fn codex_goes_on_elsewhere() {
    goes_on_elsewhere("codex");
}

#[test]
fn copilot_goes_on_elsewhere() {
    goes_on_elsewhere("copilot");
}

#[test]
fn another_agent_is_told_of_the_conversation() {
    let upstream = Upstream::start(says("noted")).unwrap();
    let repository = repository();
    let (first, session) = first_turn("claude", &upstream, repository.path());
    let store = store(first.root());
    let told = root(&whim());
    let said = restore(&told, &["--agent", "codex", store.to_str().unwrap()], 0);
    assert!(said.contains("is told of the one before"), "{said}");
    let after = second_turn("codex", &upstream, repository.path(), &told);
    assert_ne!(after["agent_session_id"], session["agent_session_id"]);
    let turns = upstream.turns();
    let brief = turns
        .iter()
        .find(|turn| turn.mentions("say the word again"))
        .unwrap();
    assert!(brief.mentions("What is not here") && brief.mentions("Claude Code"));
}

/// By the spec, as a platform starts a task again: the prompt that the conversation holds is not given twice, what was
/// spent counts, and events go on with higher numbers.
#[test]
fn a_boot_restores_by_its_spec_and_carries_on_what_was_spent() {
    let upstream = Upstream::start(says("noted")).unwrap();
    let repository = repository();
    let run = agent("claude", &upstream, repository.path());
    let (first, session) = first_turn_of(run.env("WHIM_BACKUP_CODE", "0"));
    let spent = &session["spend"];
    let store = store(first.root());
    let events = std::fs::read_dir(first.root().at("/whim/state/journal")).unwrap();
    let newest = events
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.lines()
                .map(|line| {
                    serde_json::from_str::<Value>(line).unwrap()["seq"]
                        .as_u64()
                        .unwrap()
                })
                .collect::<Vec<_>>()
        })
        .max()
        .unwrap();
    let from = format!("file://{}", store.display());
    let spec = json!({"version": 1, "restore": {"from": from, "mode": "resume"},
        "agent": {"kind": "claude", "permission_mode": "bypass", "prompt": "remember the word ORCHIDEE"}});
    let asked = upstream.turns().len();
    let run = agent("claude", &upstream, repository.path()).args(["--spec", &spec.to_string()]);
    let (whim, client) = start(&run);
    let idle = state(&client, &whim, "the resumed session", |state| {
        state["phase"] == "ready" && state["state"] == "idle"
    });
    assert_eq!(
        idle["sessions"][0]["agent_session_id"],
        session["agent_session_id"]
    );
    assert_eq!(
        idle["sessions"][0]["spend"], *spent,
        "what was spent counts, once"
    );
    assert!(idle["seq"].as_u64().unwrap() > newest, "{idle}");
    assert_eq!(upstream.turns().len(), asked, "the prompt was given twice");
    // A spec with another prompt asks it, of the agent that knows what was said.
    let mut spec = spec;
    spec["agent"]["prompt"] = json!("say the word again");
    let again = agent("claude", &upstream, repository.path());
    let (again, client) = start(&again.args(["--spec", &spec.to_string()]));
    state(&client, &again, "an answer that knows", |_| {
        let turns = upstream.turns();
        let mut new = turns.iter().skip(asked);
        new.any(|turn| turn.mentions("say the word again") && turn.mentions("ORCHIDEE"))
    });
}

#[test]
fn what_cannot_be_restored_is_said_and_nothing_is_touched() {
    let upstream = Upstream::start(says("noted")).unwrap();
    let repository = repository();
    let (first, session) = first_turn("claude", &upstream, repository.path());
    let store = store(first.root());
    let store = store.to_str().unwrap();
    let run = whim();
    let fresh = root(&run);
    for (arguments, code, words) in [
        (
            vec!["--task", "other", store],
            69,
            "no complete snapshot of task other",
        ),
        (
            vec!["--at", "2020", store],
            69,
            "has no snapshot 2020; the newest are: 2",
        ),
        (vec!["/nowhere"], 69, "/nowhere is no directory"),
        (vec![], 64, "say what is to be restored"),
        (vec!["--branch", "x", store], 64, "only a fork"),
        (vec!["--mode", "copy", store], 64, "copy"),
    ] {
        let said = restore(&fresh, &arguments, code);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    let id = session["agent_session_id"].as_str().unwrap();
    let project: String = fresh
        .at("/app/repo")
        .to_str()
        .unwrap()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let mine = fresh
        .write_as_agent(
            &format!("/home/node/.claude/projects/{project}/{id}.jsonl"),
            "mine\n",
        )
        .unwrap();
    let said = restore(&fresh, &[store], 73);
    assert!(said.contains(mine.to_str().unwrap()), "{said}");
    assert_eq!(std::fs::read_to_string(&mine).unwrap(), "mine\n");
    std::fs::remove_file(&mine).unwrap();
    restore(&fresh, &[store], 0);
    // Once more: that checkout is somebody's work by now.
    let said = restore(&fresh, &[store], 73);
    assert!(said.contains("/app/repo is not empty"), "{said}");

    let (running, _client) = start(&agent("claude", &upstream, repository.path()));
    let said = restore(running.root(), &[store], 73);
    assert!(said.contains("whim runs in"), "{said}");
}

#[test]
fn what_was_interrupted_is_not_called_restored() {
    // A store that takes the question and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    for signal in [
        nix::sys::signal::Signal::SIGINT,
        nix::sys::signal::Signal::SIGTERM,
    ] {
        let run = whim()
            .command("restore")
            .env("AWS_ENDPOINT_URL", format!("http://{address}"))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_ACCESS_KEY_ID", "whim")
            .env("AWS_SECRET_ACCESS_KEY", "whim")
            .env("AWS_REGION", "us-east-1")
            .arg("s3://history/team");
        let mut whim = run.start(root(&run)).unwrap();
        let (_asked, _) = silent.accept().unwrap();
        whim.signal(signal).unwrap();
        assert_eq!(whim.ended(PATIENCE).unwrap(), 73, "{}", whim.output());
        assert!(whim.output().contains("interrupted"), "{}", whim.output());
    }
}
