//! What other tasks said and typed is found, too, where their backups lie beside ours.

use std::path::Path;

use serde_json::{Value, json};
use whim_kit::{Backend, Client, Root, Run, Whim};

use crate::backup::{append, said, write};
use crate::support::{custom, open_to_all, ready, root, start_in, whim};

const TRANSCRIPT: &str = ".claude/projects/-app-repo/11111111-1111-4111-8111-111111111111.jsonl";
const TOKEN: &str = "internal-token-of-the-platform";
const COMMANDS: &str = ".local/state/whim/history/shell-1.commands";

/// A task whose backups go to the same place as others'.
fn task(id: &str, store: &Path) -> Run {
    let backup = json!({"interval_s": 3600, "url": format!("file://{}", store.display())});
    let spec = json!({"version": 1, "task": {"id": id}, "backup": backup});
    let run = whim().args(["--spec", &spec.to_string()]);
    custom(run, "exec sleep 100000")
}

fn started(run: &Run) -> (Root, Whim, Client) {
    let root = root(run);
    let (whim, client) = start_in(run, &root);
    ready(&client, &whim);
    (root, whim, client)
}

fn turn(n: usize, text: &str) -> String {
    let message = json!({"role": "user", "content": text});
    let line = json!({"type": "user", "uuid": format!("u{n}"), "timestamp": "2026-11-22T03:04:05.678Z", "message": message});
    format!("{line}\n")
}

/// Tasks, sessions and kinds of what is found.
fn found(client: &Client, query: &str) -> Vec<(Value, Value, Value)> {
    let answer = client.get(&format!("/v1/search?{query}")).unwrap();
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let answer = answer.json().unwrap();
    assert_eq!(answer["complete"], true, "{answer}");
    let results = answer["results"].as_array().unwrap();
    assert_eq!(answer["total"], results.len(), "{answer}");
    let one = |hit: &Value| {
        (
            hit["task"].clone(),
            hit["session"].clone(),
            hit["kind"].clone(),
        )
    };
    results.iter().map(one).collect()
}

/// A task whose backups the platform keeps.
fn kept(id: &str, platform: &Backend) -> Run {
    let backup = json!({"interval_s": 3600, "url": platform.url()});
    let spec = json!({"version": 1, "task": {"id": id}, "backup": backup});
    let run = whim()
        .args(["--spec", &spec.to_string()])
        .env("WHIM_BACKEND_URL", platform.url())
        .env("WHIM_INTERNAL_API_TOKEN", TOKEN);
    custom(run, "exec sleep 100000")
}

#[test]
fn the_platform_tells_of_the_workspaces_other_tasks() {
    let platforms = ["ww-1", "ww-2", "ww-3"].map(|task| Backend::start(task, TOKEN).unwrap());
    let [first, second, alone] = &platforms;
    let (their_root, theirs, _their_client) = started(&kept("ww-1", first));
    write(&their_root, TRANSCRIPT, &turn(1, "the quokka waits"));
    said(&theirs, &["backup", "now"]);
    let (_root, ours, client) = started(&kept("ww-2", second));
    said(&ours, &["backup", "now"]);
    // As long as tasks do not see each other, it is said that not all was searched.
    let answer = client.get("/v1/search?q=quokka&everywhere=true").unwrap();
    assert_eq!(answer.status, 503, "{}", answer.text());

    second.share(first);
    second.share(alone);
    let id = "11111111-1111-4111-8111-111111111111";
    let there = [(json!("ww-1"), json!(id), json!("conversation"))];
    assert_eq!(found(&client, "q=quokka&everywhere=true"), there);
    // What is new comes by the same way, and nothing of theirs was touched.
    append(&their_root, TRANSCRIPT, &turn(2, "and the wombat"));
    said(&theirs, &["backup", "now"]);
    assert_eq!(found(&client, "q=wombat&everywhere=true"), there);
    said(&theirs, &["backup", "verify"]);
    for platform in &platforms {
        assert_eq!(platform.violations(), Vec::<String>::new());
    }
}

#[test]
fn another_tasks_history_is_found_when_it_is_asked_for() {
    let store = tempfile::tempdir().unwrap();
    open_to_all(store.path());
    if whim().is_ordinary() {
        whim_kit::give(store.path(), whim_kit::agents_user().unwrap()).unwrap();
    }
    let (their_root, theirs, _their_client) = started(&task("ww-1", store.path()));
    write(&their_root, TRANSCRIPT, &turn(1, "the quokka waits"));
    write(
        &their_root,
        COMMANDS,
        "1\t1795000000000000\t\t0\t/app/repo\tls quokka\n",
    );
    said(&theirs, &["backup", "now"]);

    let (root, ours, client) = started(&task("ww-2", store.path()));
    let own = "1\t1795000001000000\t\t0\t/app/repo\techo quokka\n";
    write(&root, ".local/state/whim/history/shell-2.commands", own);
    // Not before it is asked for, and not after it either, unless it is asked for again.
    let shell = [(Value::Null, json!("shell-2"), json!("shell"))];
    assert_eq!(found(&client, "q=quokka"), shell);
    let mut all = found(&client, "q=quokka&everywhere=true");
    all.sort_by_key(|(_, session, _)| session.to_string());
    let id = "11111111-1111-4111-8111-111111111111";
    let expected = [
        (json!("ww-1"), json!(id), json!("conversation")),
        (json!("ww-1"), json!("shell-1"), json!("shell")),
        shell[0].clone(),
    ];
    assert_eq!(all, expected);
    assert_eq!(found(&client, "q=quokka"), shell);
    assert_eq!(
        found(&client, "q=quokka&everywhere=true&kind=conversation").len(),
        1
    );

    // What is new is found once, what was there stays, and what a rebuild forgot comes back.
    append(
        &their_root,
        TRANSCRIPT,
        &turn(2, "and the wombat and the quokka"),
    );
    said(&theirs, &["backup", "now"]);
    assert_eq!(found(&client, "q=wombat&everywhere=true").len(), 1);
    assert_eq!(found(&client, "q=quokka&everywhere=true").len(), 4);
    said(&ours, &["search", "--rebuild"]);
    let printed = said(&ours, &["search", "--everywhere", "wombat"]);
    assert!(printed.contains(&format!("ww-1/{id}")), "{printed}");
    assert_eq!(found(&client, "q=quokka&everywhere=true").len(), 4);

    // Another transcript under the name: the old words are gone with it.
    write(
        &their_root,
        TRANSCRIPT,
        &[turn(1, "numbat"), turn(2, "numbat"), turn(3, "numbat")].concat(),
    );
    said(&theirs, &["backup", "now"]);
    assert_eq!(found(&client, "q=numbat&everywhere=true").len(), 3);
    assert_eq!(found(&client, "q=wombat&everywhere=true"), []);

    // A task that took its backups away is forgotten.
    said(&theirs, &["purge", "--yes"]);
    assert_eq!(found(&client, "q=quokka&everywhere=true"), shell);
}
