//! What was said and typed is found again: by `whim search` and by `GET /v1/search`.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use whim_kit::model::script::{Reply, Rule, Script};
use whim_kit::{Client, Upstream, Whim, wait};

use crate::support::{
    KEY, PATIENCE, agent, custom, kill_supervisor, ready, repository, start, whim, word,
};

/// The provider's next key, which nobody knows for one yet.
const NEXT: &str = "sk-next-of-the-platform";

fn script() -> Script {
    Script::of([Rule::prompt(
        "quokka",
        [
            Reply::shell("echo printed-by-the-numbat"),
            Reply::say(format!(
                "the wombat answers, and {KEY} is not told; {NEXT} is"
            )),
        ],
    )])
}

/// The answer to a query.
fn search(client: &Client, query: &str) -> Value {
    let answer = client.get(&format!("/v1/search?{query}")).unwrap();
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json().unwrap()
}

/// The answer once all is read and it has as many results.
fn found(client: &Client, whim: &Whim, query: &str, total: u64) -> Value {
    let found = wait::until(query, PATIENCE, || {
        Some(search(client, query))
            .filter(|answer| answer["total"] == total && answer["complete"] == true)
    });
    found.unwrap_or_else(|error| panic!("{error}: {}\n{}", search(client, query), whim.output()))
}

fn command(whim: &Whim, arguments: &[&str]) -> (Option<i32>, String) {
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_whim"));
    let output = whim.whim(binary, arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text)
}

/// What a snippet's highlights name.
fn highlighted(hit: &Value) -> Vec<String> {
    let snippet: Vec<char> = hit["snippet"].as_str().unwrap().chars().collect();
    let places = hit["highlights"].as_array().unwrap().iter();
    let place = |place: &Value| usize::try_from(place.as_u64().unwrap()).unwrap();
    places
        .map(|both| {
            snippet[place(&both[0])..place(&both[1])]
                .iter()
                .collect::<String>()
        })
        .collect()
}

/// A real agent's turn: prompt, tool and answer, each once, and the provider's key nowhere.
fn a_turn_is_found(kind: &str) {
    let upstream = Upstream::start(script()).unwrap();
    let repository = repository();
    let run = agent(kind, &upstream, repository.path()).args([
        "--permission-mode",
        "bypass",
        "find the quokka",
    ]);
    let (whim, client) = start(&run);
    let said = found(&client, &whim, "q=wombat&agent=", 1);
    word(&client, &whim, "idle");
    let hit = &said["results"][0];
    assert_eq!(
        (&hit["kind"], &hit["session"], &hit["agent"], &hit["role"]),
        (
            &json!("conversation"),
            &json!("main"),
            &json!(kind),
            &json!("assistant")
        ),
        "{said}"
    );
    assert_eq!(hit["exit"], Value::Null);
    assert_eq!(highlighted(hit), ["wombat"]);
    let state = client.json("/v1/state").unwrap();
    assert_eq!(
        hit["agent_session_id"],
        state["sessions"][0]["agent_session_id"]
    );
    // The turn is the one that the conversation has.
    let page = client.json("/v1/sessions/main/conversation").unwrap();
    let turns = page["turns"].as_array().unwrap();
    let turn = turns.iter().find(|turn| turn["id"] == hit["turn"]).unwrap();
    assert!(turn.to_string().contains("wombat"));
    assert_eq!(turn["at"], hit["at"]);
    for (query, least) in [
        ("q=quokka", 1),
        ("q=numbat", 2),
        ("q=%22the+wombat%22", 1),
        ("q=wom*", 1),
        ("q=wombat&kind=conversation&session=main&since=1h", 1),
    ] {
        let total = search(&client, query)["total"].as_u64().unwrap();
        assert!(total >= least, "{query}: {total}");
    }
    for query in [
        "q=%22wombat+the%22",
        "q=wombat&kind=shell",
        "q=wombat&session=other",
        "q=wombat&until=1h",
    ] {
        assert_eq!(search(&client, query)["total"], 0, "{query}");
    }
    // The platform's port has it, too.
    let platform = whim.platform(PATIENCE).unwrap();
    assert_eq!(search(&platform, "q=wombat")["total"], 1);
    // The key stands in the transcript, where the model put it, and not in the store.
    assert_eq!(
        search(&client, &format!("q=%22{KEY}%22"))["total"],
        0,
        "the provider's key can be searched for"
    );
    assert!(!is_stored(&whim, KEY));
    // What turns out to be a secret is forgotten.
    let next = format!("q=%22{NEXT}%22");
    assert_eq!(search(&client, &next)["total"], 1);
    assert!(is_stored(&whim, NEXT));
    let kind_of_key = match kind {
        "claude" => "anthropic",
        _ => "openai",
    };
    let rotated = client
        .put(
            "/v1/credentials",
            &json!({"provider": {"kind": kind_of_key, "key": NEXT}}),
        )
        .unwrap();
    assert_eq!(rotated.status, 204, "{}", rotated.text());
    assert_eq!(search(&client, &next)["total"], 0);
    assert!(!is_stored(&whim, NEXT));
    found(&client, &whim, "q=wombat", 1);
    let (code, text) = command(&whim, &["search", "wombat", "answers"]);
    assert_eq!(code, Some(0));
    assert!(
        text.contains("main") && text.contains(&format!("{kind} assistant")),
        "{text}"
    );
    assert!(text.contains("the wombat answers"), "{text}");
    let (code, text) = command(&whim, &["search", "--json", "wom*"]);
    assert_eq!(code, Some(0));
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer["results"], search(&client, "q=wom*")["results"]);
    let (code, text) = command(&whim, &["search", "nothing-of-the-kind"]);
    assert_eq!((code, text.as_str()), (Some(1), "nothing found\n"));
    refusals(&client);
    agents_are_refused(&whim);
}

/// Whether the store's files have it in them.
fn is_stored(whim: &Whim, text: &str) -> bool {
    ["", "-wal"].iter().any(|end| {
        let path = whim.root().at(&format!("/whim/state/store.db{end}"));
        let bytes = std::fs::read(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        memchr::memmem::find(&bytes, text.as_bytes()).is_some()
    })
}

fn refusals(client: &Client) {
    let answer = client
        .get("/v1/search?q=%22open&kind=mail&since=soon&limit=0")
        .unwrap();
    assert_eq!(answer.status, 422);
    let problem = answer.json().unwrap();
    let errors = problem["errors"].as_array().unwrap();
    let fields: Vec<&Value> = errors.iter().map(|error| &error["field"]).collect();
    assert_eq!(fields, ["q", "kind", "since", "limit"]);
    for error in errors {
        assert!(error["value"].is_string() && error["remedy"].is_string());
    }
    assert_eq!(client.get("/v1/search").unwrap().status, 422);
    // No word is an operator.
    for query in [
        "q=NOT",
        "q=a+NEAR+b",
        "q=text:x",
        "q=%5Ex",
        "q=(x",
        "q=x%27",
    ] {
        assert_eq!(
            client.get(&format!("/v1/search?{query}")).unwrap().status,
            200
        );
    }
}

/// The agents' user may not search, by the socket or by the command.
fn agents_are_refused(whim: &Whim) {
    let anonymous = Client::tcp(whim_kit::reachable(whim.ready(PATIENCE).unwrap().ui)).unwrap();
    assert_eq!(anonymous.get("/v1/search?q=wombat").unwrap().status, 401);
    let (user, group) = whim.root().agents();
    let output = std::process::Command::new("setpriv")
        .args([
            &format!("--reuid={user}"),
            &format!("--regid={group}"),
            "--clear-groups",
        ])
        .arg(env!("CARGO_BIN_EXE_whim"))
        .args(["search", "wombat", "--root"])
        .arg(whim.root().path())
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(output.stdout, b"");
}

#[test]
fn claudes_turn_is_found() {
    a_turn_is_found("claude");
}

#[test]
fn codexs_turn_is_found() {
    a_turn_is_found("codex");
}

#[test]
fn copilots_turn_is_found() {
    a_turn_is_found("copilot");
}

/// A shell that reads these lines from its terminal as if typed, to its end.
fn shell(client: &Client, lines: &str) -> String {
    typed(client, lines, "bash")
}

fn typed(client: &Client, lines: &str, shell: &str) -> String {
    let command = json!({"command": ["/bin/sh", "-c", format!("printf '{lines}' | {shell} -i")]});
    // A supervisor that comes up says `ready` from what it carries on a little before it opens shells.
    let opened = wait::until("a shell", PATIENCE, || {
        let opened = client.post("/v1/terminals", &command).ok()?;
        (opened.status != 503).then_some(opened)
    });
    let opened = opened.unwrap();
    assert_eq!(opened.status, 201, "{}", opened.text());
    let id = opened.json().unwrap()["id"].as_str().unwrap().to_owned();
    wait::until("the shell's end", PATIENCE, || {
        let all = client.json("/v1/terminals").ok()?;
        let all = all["terminals"].as_array()?;
        all.iter()
            .any(|one| one["id"] == id.as_str() && one["state"] == "exited")
            .then_some(())
    })
    .unwrap();
    id
}

#[test]
fn a_shells_commands_are_found_with_their_end_and_place() {
    let run = custom(whim(), "exec sleep 100000");
    let (whim, client) = start(&run.env("ANTHROPIC_API_KEY", KEY));
    ready(&client, &whim);
    let first = shell(
        &client,
        "cd /usr\\n(echo bandicoot; exit 7)\\n echo private-possum\\nexport TOKEN=sk-secret-of-the-platform\\n",
    );
    let answer = found(&client, &whim, "q=bandicoot&kind=shell", 1);
    let hit = &answer["results"][0];
    assert_eq!(
        (
            &hit["kind"],
            &hit["session"],
            &hit["exit"],
            &hit["directory"]
        ),
        (&json!("shell"), &json!(first), &json!(7), &json!("/usr")),
        "{answer}"
    );
    assert_eq!((&hit["agent"], &hit["role"]), (&Value::Null, &Value::Null));
    assert_eq!(highlighted(hit), ["bandicoot"]);
    assert!(hit["at"].is_string() && hit["duration_ms"].is_u64());
    let token = found(&client, &whim, "q=token", 1);
    assert_eq!(token["results"][0]["snippet"], "export TOKEN=***");
    // The same command again is another one; another terminal has its own.
    let second = typed(
        &client,
        "echo bandicoot\\necho bandicoot\\n",
        "HISTCONTROL=ignoreboth:erasedups bash",
    );
    found(&client, &whim, "q=bandicoot", 3);
    found(&client, &whim, &format!("q=bandicoot&session={second}"), 2);
    let (code, text) = command(&whim, &["search", "bandicoot", "--session", &first]);
    assert_eq!(code, Some(0));
    assert!(text.contains("exit 7  /usr"), "{text}");
    // A container's next supervisor goes on there.
    kill_supervisor(&client, &whim, 1);
    shell(&client, "echo bandicoot again\\n");
    found(&client, &whim, "q=bandicoot", 4);
    // What somebody else writes there is passed over.
    let path = whim
        .root()
        .at("/home/node/.local/state/whim/history")
        .join(format!("{first}.commands"));
    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"bandicoot\n\xff\xfe\t\n1\t2\n").unwrap();
    found(&client, &whim, "q=bandicoot", 4);
}

#[test]
fn zshs_commands_are_found_too() {
    let there = |zsh: &&str| std::path::Path::new(zsh).is_file();
    if !["/bin/zsh", "/usr/bin/zsh", "/usr/local/bin/zsh"]
        .iter()
        .any(there)
    {
        println!("left out: zsh is not installed");
        return;
    }
    let (whim, client) = start(&custom(whim(), "exec sleep 100000"));
    ready(&client, &whim);
    let id = typed(
        &client,
        "cd /usr\\n(echo dunnart; exit 3)\\necho dunnart again\\n",
        // Without its line editor, which would read from the terminal's keyboard.
        "zsh +Z",
    );
    let answer = found(&client, &whim, "q=dunnart", 2);
    let failed = answer["results"].as_array().unwrap();
    let failed = failed.iter().find(|hit| hit["exit"] == 3).unwrap();
    assert_eq!(
        (&failed["session"], &failed["directory"]),
        (&json!(id), &json!("/usr"))
    );
    assert!(failed["duration_ms"].is_u64());
}

/// Lines of a transcript, as Claude Code writes them.
fn said(number: usize) -> String {
    let at = "2026-11-22T03:04:05.678Z";
    let content = format!("echidna number{number}");
    json!({"type": "user", "uuid": format!("u{number}"), "timestamp": at, "message": {"role": "user", "content": content}})
        .to_string()
}

#[test]
fn nothing_is_lost_or_doubled_by_a_kill_or_a_destroyed_store() {
    const EACH: usize = 2000;
    const KILLS: usize = 6;
    let upstream = Upstream::start(script()).unwrap();
    let repository = repository();
    let run = agent("claude", &upstream, repository.path()).args([
        "--permission-mode",
        "bypass",
        "find the quokka",
    ]);
    let (whim, client) = start(&run);
    found(&client, &whim, "q=wombat", 1);
    word(&client, &whim, "idle");
    let page = client.json("/v1/sessions/main/conversation").unwrap();
    let name = format!("{}.jsonl", page["agent_session_id"].as_str().unwrap());
    let projects = std::fs::read_dir(whim.root().at("/home/node/.claude/projects")).unwrap();
    let transcript = projects
        .map(|project| project.unwrap().path().join(&name))
        .find(|path| path.exists())
        .unwrap();
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&transcript)
        .unwrap();
    for kill in 0..KILLS {
        for number in kill * EACH..(kill + 1) * EACH {
            writeln!(file, "{}", said(number)).unwrap();
        }
        // The next search begins to read; the kill comes somewhere in the middle of it.
        let asking = std::thread::spawn({
            let client = whim.client(PATIENCE).unwrap();
            move || drop(client.get("/v1/search?q=echidna"))
        });
        kill_supervisor(&client, &whim, kill as u64 + 1);
        asking.join().unwrap();
    }
    let total = (KILLS * EACH) as u64;
    found(&client, &whim, "q=echidna", total);
    for number in [0, EACH, KILLS * EACH - 1] {
        found(&client, &whim, &format!("q=number{number}"), 1);
    }
    // A line in two parts is found once it is whole.
    let line = said(KILLS * EACH);
    let (one, two) = line.split_at(40);
    write!(file, "{one}").unwrap();
    found(&client, &whim, "q=echidna", total);
    writeln!(file, "{two}").unwrap();
    found(&client, &whim, "q=echidna", total + 1);

    let store = whim.root().at("/whim/state/store.db");
    std::fs::remove_file(&store).unwrap();
    found(&client, &whim, "q=echidna", total + 1);
    // Rubbish in its place; at once, because the store may be looked at any time.
    let rubbish = store.with_extension("rubbish");
    std::fs::write(&rubbish, "rubbish ".repeat(10_000)).unwrap();
    if crate::support::whim().is_ordinary() {
        whim.root().give_to_agent(&rubbish).unwrap();
    }
    std::fs::rename(&rubbish, &store).unwrap();
    found(&client, &whim, "q=echidna", total + 1);
    let told = whim.output().matches("set aside").count();
    assert_eq!(told, 1, "{}", whim.output());
    let (code, text) = command(&whim, &["search", "--rebuild"]);
    assert_eq!(code, Some(0), "{text}");
    found(&client, &whim, "q=echidna", total + 1);

    // A transcript that was rewritten is what it says now.
    std::fs::write(&transcript, format!("{}\n", said(7))).unwrap();
    found(&client, &whim, "q=echidna", 1);
    found(&client, &whim, "q=wombat", 0);
}

#[test]
fn a_subagents_words_are_found_once() {
    use whim_kit::model::script::ToolCall;
    let input = json!({"description": "look around", "prompt": "the inner quoll", "subagent_type": "general-purpose"});
    let script = Script::of([
        Rule::prompt("the inner quoll", [Reply::say("a bilby inside")]),
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
    let run = agent("claude", &upstream, repository.path()).args([
        "--permission-mode",
        "bypass",
        "delegate it",
    ]);
    let (whim, client) = start(&run);
    let answer = found(&client, &whim, "q=delegated", 1);
    assert_eq!(answer["results"][0].get("subagent"), None);
    let answer = search(&client, "q=bilby&limit=100");
    let inside: Vec<&Value> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|hit| hit["subagent"].is_string())
        .collect();
    assert_eq!(inside.len(), 1, "{answer}");
    assert_eq!(inside[0]["role"], "assistant");
}
