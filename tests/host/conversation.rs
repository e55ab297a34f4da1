//! Conversations of real agents, told in one shape.

use std::io::Write;

use serde_json::{Value, json};
use whim_kit::model::script::{Reply, Rule, Script, ToolCall};
use whim_kit::{Client, Upstream, Whim, wait};

use crate::support::{PATIENCE, bypassing, custom, prompt, repository, start, state, whim, word};

const CONVERSATION: &str = "/v1/sessions/main/conversation";

fn script() -> Script {
    Script::of([
        Rule::prompt(
            "first task",
            [
                Reply::shell("echo seen-by-the-tool"),
                Reply::say("the first answer"),
            ],
        ),
        Rule::prompt("second task", [Reply::say("the second answer")]),
    ])
}

/// The conversation once it holds a text.
fn page(client: &Client, whim: &Whim, query: &str, wanted: &str) -> Value {
    let path = format!("{CONVERSATION}{query}");
    let found = wait::until(wanted, PATIENCE, || {
        client
            .json(&path)
            .ok()
            .filter(|page| page.to_string().contains(wanted))
    });
    found.unwrap_or_else(|error| panic!("{error}: {:?}\n{}", client.json(&path), whim.output()))
}

/// Roles and parts that hold one of the texts, in the order of their times: Claude Code writes the records of one moment in
/// any order.
fn story(page: &Value, texts: &[&str]) -> Vec<(String, String, String)> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut story = Vec::new();
    let mut turns = page["turns"].as_array().unwrap().clone();
    turns.sort_by_key(|turn| word(&turn["at"]));
    for turn in turns {
        for part in turn["parts"].as_array().unwrap() {
            // The program's own words (a list of skills, an environment) are of no interest here.
            let said = turn["role"] != "system";
            let held = texts.iter().find(|text| part.to_string().contains(*text));
            if let Some(held) = held.filter(|_| said) {
                story.push((word(&turn["role"]), word(&part["type"]), (*held).to_owned()));
            }
        }
    }
    story
}

fn told(entries: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let own = |entry: &(&str, &str, &str)| (entry.0.into(), entry.1.into(), entry.2.into());
    entries.iter().map(own).collect()
}

/// Prompt, call, result and answer in order, each once; then only what is new.
fn is_told(kind: &str) {
    let upstream = Upstream::start(script()).unwrap();
    let repository = repository();
    let run = bypassing(kind, &upstream, repository.path(), "do the first task");
    let (whim, client) = start(&run);
    let first = page(&client, &whim, "", "the first answer");
    assert_eq!(
        (&first["session"], &first["agent"]),
        (&json!("main"), &json!(kind))
    );
    let texts = [
        "do the first task",
        "echo seen-by-the-tool",
        "seen-by-the-tool",
        "the first answer",
    ];
    assert_eq!(
        story(&first, &texts),
        told(&[
            ("user", "text", "do the first task"),
            ("assistant", "tool_call", "echo seen-by-the-tool"),
            ("tool", "tool_result", "seen-by-the-tool"),
            ("assistant", "text", "the first answer"),
        ]),
        "{first}"
    );
    let parts = |kind: &str| {
        let turns = first["turns"].as_array().unwrap().clone();
        let parts: Vec<Value> = turns
            .iter()
            .flat_map(|turn| turn["parts"].as_array().unwrap().clone())
            .collect();
        parts.into_iter().find(|part| part["type"] == kind).unwrap()
    };
    assert!(parts("tool_call")["call_id"].is_string());
    assert_eq!(
        parts("tool_call")["call_id"],
        parts("tool_result")["call_id"]
    );
    let turns = first["turns"].as_array().unwrap();
    let counted = |turn: &Value| turn["usage"]["output_tokens"].as_u64() > Some(0);
    assert!(turns.iter().any(counted), "{first}");

    // A page at a time comes to the same.
    let mut after = String::new();
    let mut ids = Vec::new();
    loop {
        let path = format!("{CONVERSATION}?limit=1{after}");
        let page = client.json(&path).unwrap();
        let turns = page["turns"].as_array().unwrap();
        assert!(turns.len() <= 1);
        ids.extend(turns.iter().map(|turn| turn["id"].clone()));
        after = format!("&after={}", page["next"].as_str().unwrap());
        if page["more"] == false {
            break;
        }
    }
    let all: Vec<Value> = turns.iter().map(|turn| turn["id"].clone()).collect();
    assert_eq!(ids.get(..all.len()), Some(&all[..]));

    let idle = word(&client, &whim, "idle");
    assert!(idle["sessions"][0]["agent_session_id"].is_string());
    let next = page(&client, &whim, "", "the first answer")["next"]
        .as_str()
        .unwrap()
        .to_owned();
    prompt(&client, "do the second task");
    let newer = page(
        &client,
        &whim,
        &format!("?after={next}"),
        "the second answer",
    );
    assert!(
        !newer.to_string().contains("the first answer"),
        "what was told is not told again: {newer}"
    );
    assert_eq!(newer["reset"], false);
    assert_eq!(
        story(&newer, &["do the second task", "the second answer"]),
        told(&[
            ("user", "text", "do the second task"),
            ("assistant", "text", "the second answer"),
        ]),
        "{newer}"
    );
    forms(&client, &whim);
    refusals(&client, &next);
}

/// Markdown and lines, by the API and by the command.
fn forms(client: &Client, whim: &Whim) {
    let markdown = client
        .get(&format!("{CONVERSATION}?format=markdown"))
        .unwrap();
    assert_eq!(
        markdown.headers["content-type"],
        "text/markdown; charset=utf-8"
    );
    let markdown = markdown.text();
    let place = |text: &str| {
        markdown
            .find(text)
            .unwrap_or_else(|| panic!("no {text:?} in {markdown}"))
    };
    assert!(place("do the first task") < place("the first answer"));
    assert!(place("the first answer") < place("the second answer"));
    let output = command(whim, &["conversation"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("the second answer"));
    let output = command(whim, &["conversation", "--format", "jsonl"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let page = client.json(CONVERSATION).unwrap();
    assert_eq!(
        lines.first().unwrap()["id"],
        page["turns"][0]["id"],
        "the same turns in both"
    );
    assert!(text.contains("the second answer"));
    let unknown = command(whim, &["conversation", "--session", "none"]);
    assert_eq!(unknown.status.code(), Some(1));
}

fn command(whim: &Whim, arguments: &[&str]) -> std::process::Output {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_whim"));
    whim.whim(binary, arguments).output().unwrap()
}

fn refusals(client: &Client, next: &str) {
    let status = |path: &str| client.get(path).unwrap().status.as_u16();
    assert_eq!(status("/v1/sessions/none/conversation"), 404);
    assert_eq!(status("/v1/sessions/..%2Fmain/conversation"), 404);
    assert_eq!(status(&format!("{CONVERSATION}?after=nonsense")), 422);
    assert_eq!(status(&format!("{CONVERSATION}?subagent=none")), 404);
    // A place in another conversation begins this one again, and says so.
    let foreign = format!("{}x", next);
    let page = client
        .json(&format!("{CONVERSATION}?after={foreign}"))
        .unwrap();
    assert_eq!(page["reset"], true);
    assert!(page.to_string().contains("do the first task"));
    // So does one after which something else was written.
    let (_, rest) = next.split_once('-').unwrap();
    let page = client
        .json(&format!("{CONVERSATION}?after=7-{rest}"))
        .unwrap();
    assert_eq!(page["reset"], true);
}

#[test]
fn claudes_conversation_is_told() {
    is_told("claude");
}

#[test]
fn codexs_conversation_is_told() {
    is_told("codex");
}

#[test]
fn copilots_conversation_is_told() {
    is_told("copilot");
}

#[test]
fn a_subagents_conversation_is_told_beside_its_parents() {
    let input = json!({"description": "look around", "prompt": "the inner task", "subagent_type": "general-purpose"});
    let script = Script::of([
        Rule::prompt(
            "the inner task",
            [
                Reply::shell("echo seen-inside"),
                Reply::say("the inner answer"),
            ],
        ),
        Rule::prompt(
            "delegate",
            [
                Reply::call(ToolCall::Named {
                    name: "Agent".into(),
                    input,
                }),
                Reply::say("all delegated"),
            ],
        ),
    ]);
    let upstream = Upstream::start(script).unwrap();
    let repository = repository();
    let run = bypassing("claude", &upstream, repository.path(), "delegate it");
    let (whim, client) = start(&run);
    let page = page(&client, &whim, "", "all delegated");
    let subagent = &page["subagents"][0];
    assert_eq!(subagent["description"], "look around", "{page}");
    assert!(!page.to_string().contains("seen-inside"));
    let id = subagent["id"].as_str().unwrap();
    let inside = client
        .json(&format!("{CONVERSATION}?subagent={id}"))
        .unwrap();
    let texts = ["the inner task", "echo seen-inside", "the inner answer"];
    assert_eq!(
        story(&inside, &texts),
        told(&[
            ("user", "text", "the inner task"),
            ("assistant", "tool_call", "echo seen-inside"),
            ("assistant", "text", "the inner answer"),
        ]),
        "{inside}"
    );
    let whole = client
        .get(&format!("{CONVERSATION}?format=jsonl"))
        .unwrap()
        .text();
    assert!(whole.contains("all delegated") && whole.contains("the inner answer"));

    // Another supervisor goes on where the one before was.
    word(&client, &whim, "idle");
    let place = client.json(CONVERSATION).unwrap()["next"].clone();
    let supervisor = nix::unistd::Pid::from_raw(whim.supervisor().unwrap());
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    state(&client, &whim, "the next supervisor", |state| {
        state["supervisor"]["restarts"] == 1
    });
    let newer = format!("{CONVERSATION}?after={}", place.as_str().unwrap());
    let newer = client.json(&newer).unwrap();
    assert_eq!(
        (&newer["turns"], &newer["reset"]),
        (&json!([]), &json!(false))
    );
}

/// The most memory that a process had at once, in bytes.
fn peak(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib * 1024
}

/// Every id from a place on, and where it ended. Pages are bounded, and none stands still.
fn walk(client: &Client, start: &str) -> (Vec<Value>, String) {
    let mut place = start.to_owned();
    let mut ids = Vec::new();
    loop {
        let answer = client
            .get(&format!("{CONVERSATION}?limit=2000&after={place}"))
            .unwrap();
        assert!(answer.body.len() < 8 << 20, "{}", answer.body.len());
        let page = answer.json().unwrap();
        assert_eq!(page["reset"], false);
        ids.extend(
            page["turns"]
                .as_array()
                .unwrap()
                .iter()
                .map(|turn| turn["id"].clone()),
        );
        let next = page["next"].as_str().unwrap().to_owned();
        if page["more"] == false {
            return (ids, next);
        }
        assert_ne!(next, place);
        place = next;
    }
}

#[test]
fn a_long_transcript_is_told_in_pieces() {
    let upstream = Upstream::start(script()).unwrap();
    let repository = repository();
    let run = bypassing("claude", &upstream, repository.path(), "do the second task");
    // What the backup takes is its own; it would read the same file meanwhile.
    let later = json!({"version": 1, "backup": {"interval_s": 86_400}}).to_string();
    let (whim, client) = start(&run.env("WHIM_SPEC", later));
    let client = client.limit(PATIENCE);
    page(&client, &whim, "", "the second answer");
    word(&client, &whim, "idle");
    // That of the turn's end is over.
    let saved = client.post("/v1/backups", &json!({})).unwrap();
    assert!(saved.status.is_success(), "{}", saved.text());
    let first = client.json(CONVERSATION).unwrap();
    let start = first["next"].as_str().unwrap();
    let name = format!("{}.jsonl", first["agent_session_id"].as_str().unwrap());
    let projects = std::fs::read_dir(whim.root().at("/home/node/.claude/projects")).unwrap();
    let transcript = projects
        .map(|project| project.unwrap().path().join(&name))
        .find(|path| path.exists())
        .unwrap();
    let before = peak(whim.supervisor().unwrap());

    // 100 MB of bookkeeping, 20 MB of words, and a record that is longer than any line may be.
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&transcript)
        .unwrap();
    let said = json!({"type": "user", "message": {"role": "user", "content": "w".repeat(200_000)}});
    let silent = json!({"type": "last-prompt", "lastPrompt": "s".repeat(1_000_000)}).to_string();
    for _ in 0..100 {
        writeln!(file, "{silent}\n{said}").unwrap();
    }
    let endless = json!({"type": "user", "message": {"content": "e".repeat(9 << 20)}});
    writeln!(file, "{endless}").unwrap();
    let (ids, end) = walk(&client, start);
    // The agent may write its own bookkeeping in between, which is none of these.
    assert_eq!(ids.len(), 102, "a hundred turns and two pieces");
    let distinct: std::collections::BTreeSet<String> = ids.iter().map(Value::to_string).collect();
    assert_eq!(distinct.len(), ids.len());
    let exported = client
        .get(&format!("{CONVERSATION}?format=jsonl"))
        .unwrap()
        .text();
    let exported: Vec<Value> = exported
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let tail: Vec<Value> = exported.iter().map(|turn| turn["id"].clone()).collect();
    assert!(tail.ends_with(&ids));
    let grown = peak(whim.supervisor().unwrap()) - before;
    // 129 MB went through: pages, and the search's index that takes them in meanwhile.
    assert!(grown < 96 << 20, "{} MiB for a page", grown >> 20);

    // A line that is being written is told once it is whole.
    let line = json!({"type": "user", "message": {"content": "in two parts"}}).to_string();
    let (one, two) = line.split_at(30);
    write!(file, "{one}").unwrap();
    let path = format!("{CONVERSATION}?after={end}");
    assert_eq!(client.json(&path).unwrap()["turns"], json!([]));
    writeln!(file, "{two}").unwrap();
    let told = client.json(&path).unwrap();
    assert_eq!(told["turns"][0]["parts"][0]["text"], "in two parts");

    // A page that shows only the end of it.
    let recent = client.json(&format!("{CONVERSATION}?recent=true")).unwrap();
    assert!(
        recent["skipped_bytes"].as_u64() > Some(100_000_000),
        "{}",
        recent["skipped_bytes"]
    );
    let turns = recent["turns"].as_array().unwrap();
    assert_eq!(turns.last(), told["turns"].as_array().unwrap().last());
    assert_eq!(
        walk(&client, recent["next"].as_str().unwrap()).0,
        [json!(null); 0]
    );

    // A transcript that was replaced by another one is told from its beginning.
    std::fs::write(&transcript, format!("{line}\n")).unwrap();
    let replaced = client.json(&path).unwrap();
    assert_eq!(replaced["reset"], true);
    assert_eq!(replaced["turns"].as_array().unwrap().len(), 1);
}

#[test]
fn an_agent_without_a_transcript_has_an_empty_conversation() {
    let (_whim, client) = start(&custom(whim(), "sleep 60"));
    // Until the boot has a session there is none to ask about.
    let page = wait::until("the session", PATIENCE, || {
        let answer = client.get(CONVERSATION).ok()?;
        (answer.status == 200).then_some(answer)
    });
    let page = page.unwrap().json().unwrap();
    assert_eq!(page["turns"], json!([]));
    assert_eq!(
        (&page["next"], &page["more"]),
        (&Value::Null, &Value::Bool(false))
    );
    let markdown = client
        .get(&format!("{CONVERSATION}?format=markdown"))
        .unwrap();
    assert_eq!(markdown.status.as_u16(), 200);
}
