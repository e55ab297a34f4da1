//! What other tasks said and typed is found, too, where their backups lie beside ours.

use std::path::Path;

use serde_json::{Value, json};
use whim_kit::{Client, Root, Run, Whim};

use crate::backup::{append, said, write};
use crate::support::{custom, open_to_all, ready, root, start_in, whim};

const TRANSCRIPT: &str = ".claude/projects/-app-repo/11111111-1111-4111-8111-111111111111.jsonl";
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
