//! The history is saved as it grows, and nothing that was acknowledged is ever missing.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use whim::backup::objects::Objects;
use whim::backup::store::Store;
use whim_kit::backend::{Call, Trouble};
use whim_kit::{Backend, Client, Root, Run, S3, Whim, mounts, wait};

use crate::support::{PATIENCE, as_agent, custom, ready, root, start_in, state, whim};

const IDLE: &str = "exec sleep 100000";
pub(crate) const TRANSCRIPT: &str =
    ".claude/projects/-app-repo/11111111-1111-4111-8111-111111111111.jsonl";

fn line(n: usize) -> String {
    format!("{{\"type\":\"user\",\"uuid\":\"u{n}\",\"message\":\"what was said {n}\"}}\n")
}

pub(crate) fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(line).collect()
}

/// A run whose own timer does not come in between.
pub(crate) fn slowly() -> Run {
    spec(json!({"interval_s": 3600}))
}

fn spec(backup: Value) -> Run {
    let spec = json!({"version": 1, "task": {"id": "ww-1"}, "backup": backup});
    custom(whim().args(["--spec", &spec.to_string()]), IDLE)
}

pub(crate) fn started(run: &Run) -> (Root, Whim, Client) {
    let root = root(&whim());
    let (whim, client) = start_in(run, &root);
    ready(&client, &whim);
    (root, whim, client)
}

fn home(root: &Root, path: &str) -> PathBuf {
    root.at("/home/node").join(path)
}

pub(crate) fn write(root: &Root, path: &str, text: &str) {
    root.write_as_agent(&format!("/home/node/{path}"), text)
        .unwrap();
}

pub(crate) fn append(root: &Root, path: &str, text: &str) {
    let path = home(root, path);
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn command(whim: &Whim, arguments: &[&str]) -> Output {
    whim.whim(Path::new(env!("CARGO_BIN_EXE_whim")), arguments)
        .output()
        .unwrap()
}

pub(crate) fn said(whim: &Whim, arguments: &[&str]) -> String {
    let output = command(whim, arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {output:?}\n{}",
        whim.output()
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Paths and contents of the newest snapshot in the store that is this directory, read without the program.
fn saved(directory: &Path) -> Vec<(String, String)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let store = Store::of(Objects::directory(directory.to_owned()).unwrap(), "ww-1").unwrap();
        let Some(manifest) = store.newest().await.unwrap() else {
            return Vec::new();
        };
        let mut saved = Vec::new();
        for file in &manifest.files {
            let content = store.read_file(&manifest, file, u64::MAX).await.unwrap();
            saved.push((file.path.clone(), String::from_utf8(content).unwrap()));
        }
        saved
    })
}

fn content(directory: &Path, path: &str) -> String {
    let saved = saved(directory);
    let found = saved.iter().find(|(name, _)| name == path);
    found
        .unwrap_or_else(|| panic!("{path} is not in {saved:?}"))
        .1
        .clone()
}

pub(crate) fn store(root: &Root) -> PathBuf {
    root.at("/whim/state/backup")
}

/// Bytes of the segments.
fn stored(directory: &Path) -> u64 {
    let segments = fs::read_dir(directory.join("tasks/ww-1/segments")).unwrap();
    segments
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

fn events(client: &Client, kind: &str) -> Vec<Value> {
    let events = client.json("/v1/events?limit=10000").unwrap();
    let all = events["events"].as_array().unwrap().iter();
    all.filter(|event| event["type"] == kind).cloned().collect()
}

#[test]
fn what_grows_is_saved_listed_and_proven() {
    let (root, whim, client) = started(&slowly());
    write(&root, TRANSCRIPT, &lines(0..5000));
    write(
        &root,
        ".codex/sessions/2026/11/22/rollout-1.jsonl",
        "{\"ordinal\":1}\n{\"torn",
    );
    write(
        &root,
        ".copilot/session-state/x/events.jsonl",
        "{\"id\":\"1\"}\n",
    );
    write(
        &root,
        ".copilot/session-state/x/workspace.yaml",
        "cwd: /app/repo\n",
    );
    write(&root, ".local/state/whim/history/shell-1.bash", "#1\nls\n");
    said(&whim, &["backup", "now"]);
    let store = store(&root);
    assert_eq!(content(&store, TRANSCRIPT), lines(0..5000));
    assert_eq!(
        content(&store, ".codex/sessions/2026/11/22/rollout-1.jsonl"),
        "{\"ordinal\":1}\n"
    );
    for path in [
        ".copilot/session-state/x/events.jsonl",
        ".copilot/session-state/x/workspace.yaml",
        ".local/state/whim/history/shell-1.bash",
    ] {
        assert_eq!(
            content(&store, path),
            fs::read_to_string(home(&root, path)).unwrap()
        );
    }
    let names: Vec<String> = saved(&store).into_iter().map(|(path, _)| path).collect();
    assert!(
        names.iter().any(|path| path.starts_with("journal/")),
        "{names:?}"
    );

    // A hundred bytes more cost a hundred bytes, not the whole.
    let before = stored(&store);
    append(&root, TRANSCRIPT, &line(5000));
    let taken: Value = serde_json::from_str(&said(&whim, &["backup", "now", "--json"])).unwrap();
    assert_eq!(taken["taken"], true);
    assert!(
        stored(&store) - before < 2000,
        "{} {before}",
        stored(&store)
    );
    append(
        &root,
        ".codex/sessions/2026/11/22/rollout-1.jsonl",
        "\":1}\n",
    );
    let answer = client.post("/v1/backups", &json!({})).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        content(&store, ".codex/sessions/2026/11/22/rollout-1.jsonl"),
        "{\"ordinal\":1}\n{\"torn\":1}\n"
    );

    let listed = client.json("/v1/backups").unwrap();
    assert_eq!(listed["backup"]["pending_bytes"], 0);
    assert!(
        listed["backup"]["last_ok"].is_string() && listed["backup"]["error"].is_null(),
        "{listed}"
    );
    assert!(listed["backups"].as_array().unwrap().len() >= 3);
    let newest = listed["backups"][0]["id"].as_str().unwrap();
    assert!(said(&whim, &["backup", "list"]).contains(newest));
    let verified: Value =
        serde_json::from_str(&said(&whim, &["backup", "verify", "--json"])).unwrap();
    assert_eq!(
        (&verified["ok"], &verified["snapshot"]),
        (&json!(true), &json!(newest))
    );

    // The agents' user may do none of it.
    let bare = format!(
        "exec {} backup now --root {}",
        env!("CARGO_BIN_EXE_whim"),
        root.path().display()
    );
    let refused = as_agent(&root, &bare);
    assert!(
        !refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("may not"),
        "{refused:?}"
    );

    // Without a supervisor, from the store alone; and a byte that turned is found.
    drop(whim);
    let url = format!("file://{}", store.display());
    let alone = |arguments: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_whim"))
            .args(arguments)
            .args(["--backup", &url])
            .env_clear()
            .output()
            .unwrap()
    };
    assert!(String::from_utf8_lossy(&alone(&["backup", "list"]).stdout).contains("SNAPSHOT"));
    assert_eq!(alone(&["backup", "verify"]).status.code(), Some(0));
    assert_eq!(
        alone(&["backup", "verify", "--task", "none"]).status.code(),
        Some(1)
    );
    let segments = store.join("tasks/ww-1/segments");
    let largest = fs::read_dir(&segments)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let largest = largest
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&largest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&largest, bytes).unwrap();
    let found = alone(&["backup", "verify"]);
    assert_eq!(found.status.code(), Some(1), "{found:?}");
    assert!(
        String::from_utf8_lossy(&found.stdout).contains(TRANSCRIPT),
        "{found:?}"
    );
    assert_eq!(alone(&["purge"]).status.code(), Some(64));
    assert_eq!(alone(&["purge", "--yes"]).status.code(), Some(0));
    assert_eq!(fs::read_dir(&segments).unwrap().count(), 0);
}

#[test]
fn changes_are_saved_without_being_asked_for() {
    let (root, whim, _client) = started(&spec(json!({"interval_s": 1})));
    let waits = |what: &str, path: &str, wanted: &str| {
        let store = store(&root);
        let found = wait::until(what, PATIENCE, || {
            let there = store.join("tasks/ww-1/manifests").exists();
            let saved = if there { saved(&store) } else { Vec::new() };
            saved
                .into_iter()
                .find(|(name, content)| name == path && content == wanted)
        });
        found.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
    };
    // Nothing of it is there at the start, not even the directories.
    write(&root, TRANSCRIPT, &line(1));
    waits("the first line", TRANSCRIPT, &line(1));
    append(&root, TRANSCRIPT, &line(2));
    waits("the second line", TRANSCRIPT, &lines(1..3));
    let agent = TRANSCRIPT.replace(".jsonl", "/subagents/agent-1.jsonl");
    write(&root, &agent, &line(3));
    waits("a sub-agent's line", &agent, &line(3));
}

#[test]
fn a_damaged_transcript_is_kept_beside_the_good_one() {
    let (root, whim, client) = started(&slowly());
    write(&root, TRANSCRIPT, &lines(0..40));
    said(&whim, &["backup", "now"]);
    write(&root, TRANSCRIPT, &line(0));
    said(&whim, &["backup", "now"]);
    let store = store(&root);
    assert_eq!(content(&store, TRANSCRIPT), lines(0..40));
    assert_eq!(content(&store, &format!("{TRANSCRIPT}.damaged")), line(0));
    let guarded = events(&client, "backup.guarded");
    assert_eq!(guarded.len(), 1, "{guarded:?}");
    assert_eq!(guarded[0]["path"], TRANSCRIPT);
    assert_eq!(guarded[0]["reason"], "it lost 39 records");

    // Another one becomes a link to something that is nobody's transcript; root does not follow it.
    let other = ".codex/sessions/2026/11/22/rollout-2.jsonl";
    write(&root, other, &line(7));
    said(&whim, &["backup", "now"]);
    fs::remove_file(home(&root, other)).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", home(&root, other)).unwrap();
    said(&whim, &["backup", "now"]);
    assert_eq!(content(&store, other), line(7));
    assert_eq!(events(&client, "backup.guarded")[1]["path"], other);

    // Whole again: the good one follows, and the damaged one is no more.
    write(&root, TRANSCRIPT, &lines(0..41));
    said(&whim, &["backup", "now"]);
    assert_eq!(content(&store, TRANSCRIPT), lines(0..41));
    assert!(
        saved(&store)
            .iter()
            .all(|(path, _)| !path.ends_with(".damaged"))
    );
}

#[test]
fn secrets_do_not_leave_the_container() {
    let run = slowly().env("ANTHROPIC_API_KEY", "sk-ant-secret-0123456789");
    let (root, whim, _client) = started(&run);
    let token = whim.token().to_owned();
    write(
        &root,
        TRANSCRIPT,
        &format!("{{\"text\":\"key sk-ant-secret-0123456789, token {token}\"}}\n"),
    );
    said(&whim, &["backup", "now"]);
    let saved = content(&store(&root), TRANSCRIPT);
    assert!(
        !saved.contains("sk-ant") && !saved.contains(&token),
        "{saved}"
    );
    assert!(saved.contains("key [secret]"), "{saved}");
    serde_json::from_str::<Value>(&saved).unwrap();
}

#[test]
fn the_end_saves_what_is_owed() {
    let (root, mut whim, _client) = started(&slowly());
    write(&root, TRANSCRIPT, &line(0));
    said(&whim, &["backup", "now"]);
    append(&root, TRANSCRIPT, &lines(1..1000));
    whim.signal(Signal::SIGTERM).unwrap();
    assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    let saved = content(&store(&root), TRANSCRIPT);
    assert!(
        saved == lines(0..1000),
        "{} lines\n{}",
        saved.lines().count(),
        whim.output()
    );
}

#[test]
fn a_suspension_waits_for_the_backup() {
    let (root, whim, client) = started(&slowly());
    write(&root, TRANSCRIPT, &line(0));
    let answer = whim
        .platform(PATIENCE)
        .unwrap()
        .post("/v1/quiesce", &json!({}))
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(content(&store(&root), TRANSCRIPT), line(0));
    drop(client);
}

#[test]
fn a_store_that_is_full_or_gone_is_owed_and_gets_everything_later() {
    mounts::apart(|| {
        let disk = root(&whim());
        fs::create_dir_all(disk.at("/store")).unwrap();
        if whim().is_ordinary() {
            disk.give_to_agent(&disk.at("/store")).unwrap();
        }
        disk.small_disk("/store", 256 * 1024).unwrap();
        let url = format!("file://{}", disk.at("/store").display());
        let run = spec(json!({"interval_s": 1, "url": url}));
        let (whim, client) = start_in(&run, &disk);
        ready(&client, &whim);
        write(&disk, TRANSCRIPT, &line(0));
        said(&whim, &["backup", "now"]);
        assert_eq!(content(&disk.at("/store"), TRANSCRIPT), line(0));

        // Full: more than fits, and of the kind that does not compress.
        let mut noise = vec![0_u8; 600 * 1024];
        std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut noise)
            .unwrap();
        let noise: String = noise
            .chunks(100)
            .map(|bytes| {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{{\"uuid\":\"{hex}\"}}\n")
            })
            .collect();
        append(&disk, TRANSCRIPT, &noise);
        assert_eq!(command(&whim, &["backup", "now"]).status.code(), Some(1));
        let owed = state(&client, &whim, "what is owed", |state| {
            state["backup"]["pending_bytes"].as_u64().unwrap() > 0
        });
        assert!(
            owed["backup"]["error"]
                .as_str()
                .unwrap()
                .contains("No space"),
            "{owed}"
        );
        assert!(owed["backup"]["last_ok"].is_string());
        // What was saved before is as it was.
        assert_eq!(content(&disk.at("/store"), TRANSCRIPT), line(0));
        // Damaged while it is owed: what was seen whole is not lost, nor by a crash.
        write(&disk, TRANSCRIPT, "{\"uuid\":\"stub\"}\n");
        assert_eq!(command(&whim, &["backup", "now"]).status.code(), Some(1));
        kill(Pid::from_raw(whim.supervisor().unwrap()), Signal::SIGKILL).unwrap();
        state(&client, &whim, "the next supervisor", |state| {
            state["supervisor"]["restarts"] == 1 && state["phase"] == "ready"
        });
        mounts::resize(&disk.at("/store"), 64 << 20).unwrap();
        state(&client, &whim, "everything saved", |state| {
            state["backup"]["pending_bytes"] == 0
                && state["backup"]["error"].is_null()
                && state["backup"]["last_ok"].is_string()
        });
        assert_eq!(content(&disk.at("/store"), TRANSCRIPT), line(0) + &noise);
        assert!(!events(&client, "backup.failed").is_empty());

        // Gone altogether: filled anew from what is here.
        fs::remove_dir_all(disk.at("/store/tasks")).unwrap();
        write(&disk, ".codex/sessions/a.jsonl", &line(1));
        said(&whim, &["backup", "now"]);
        assert_eq!(
            content(&disk.at("/store"), ".codex/sessions/a.jsonl"),
            line(1)
        );
        said(&whim, &["backup", "verify"]);
    })
    .unwrap();
}

#[test]
fn a_real_s3_keeps_it_and_may_stall() {
    let s3 = S3::start().unwrap();
    let mut run = spec(json!({"interval_s": 3600, "url": "s3://history/team/a"}));
    for (name, value) in s3.environment() {
        run = run.env(name, value);
    }
    let (root, whim, client) = started(&run);
    write(&root, TRANSCRIPT, &lines(0..1000));
    said(&whim, &["backup", "now"]);
    append(&root, TRANSCRIPT, &lines(1000..2000));
    said(&whim, &["backup", "now"]);
    assert!(said(&whim, &["backup", "verify"]).contains("all as they went in"));

    // Stalled: the spool has it, the state says so, the agent goes on; then it answers again.
    s3.freeze().unwrap();
    append(&root, TRANSCRIPT, &lines(2000..3000));
    assert_eq!(command(&whim, &["backup", "now"]).status.code(), Some(1));
    let owed = client.json("/v1/state").unwrap();
    assert!(
        owed["backup"]["pending_bytes"].as_u64().unwrap() > 0,
        "{owed}"
    );
    assert!(owed["backup"]["error"].is_string());
    s3.go_on().unwrap();
    said(&whim, &["backup", "now"]);
    assert_eq!(
        client.json("/v1/state").unwrap()["backup"]["pending_bytes"],
        0
    );

    // Read from elsewhere, by whoever has the credentials.
    drop(whim);
    let mut alone = std::process::Command::new(env!("CARGO_BIN_EXE_whim"));
    alone.args([
        "backup",
        "verify",
        "--json",
        "--backup",
        "s3://history/team/a",
    ]);
    let alone = alone.env_clear().envs(s3.environment()).output().unwrap();
    let verified: Value =
        serde_json::from_slice(&alone.stdout).unwrap_or_else(|_| panic!("{alone:?}"));
    assert_eq!(
        (&verified["ok"], &verified["task"]),
        (&json!(true), &json!("ww-1"))
    );
    assert!(verified["bytes"].as_u64().unwrap() > lines(0..3000).len() as u64);
}

#[test]
fn the_platform_keeps_it() {
    let platform = Backend::start("ww-1", "internal-token").unwrap();
    let run = spec(json!({"interval_s": 3600, "url": platform.url()}))
        .env("WHIM_BACKEND_URL", platform.url())
        .env("WHIM_INTERNAL_API_TOKEN", "internal-token");
    let (root, whim, client) = started(&run);
    for round in 0..4 {
        write(&root, TRANSCRIPT, &lines(0..100 * (round + 1)));
        said(&whim, &["backup", "now"]);
    }
    assert!(said(&whim, &["backup", "verify"]).contains("all as they went in"));
    assert!(
        client.json("/v1/backups").unwrap()["backups"]
            .as_array()
            .unwrap()
            .len()
            >= 4
    );

    // An answer that was lost is no second object; a refusal is owed, told without the token, and made good.
    platform.trouble(Call::BackupPut, Trouble::Unheard(500), 1);
    append(&root, TRANSCRIPT, &lines(400..500));
    drop(command(&whim, &["backup", "now"]));
    said(&whim, &["backup", "now"]);
    platform.trouble(Call::BackupPut, Trouble::Status(507), 1);
    append(&root, TRANSCRIPT, &lines(500..600));
    let refused = command(&whim, &["backup", "now"]);
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        words.contains("507") && !words.contains("internal-token"),
        "{words}"
    );
    said(&whim, &["backup", "now"]);
    assert!(said(&whim, &["backup", "verify"]).contains("all as they went in"));
    // A token that was replaced while it runs.
    platform.set_token("newer-token");
    let machine = whim.platform(PATIENCE).unwrap();
    let answer = machine
        .put(
            "/v1/credentials",
            &json!({"platform": {"token": "newer-token"}}),
        )
        .unwrap();
    assert_eq!(answer.status, 204, "{}", answer.text());
    append(&root, TRANSCRIPT, &lines(600..700));
    said(&whim, &["backup", "now"]);
    assert!(said(&whim, &["backup", "verify"]).contains("all as they went in"));
    assert_eq!(platform.violations(), Vec::<String>::new());
    said(&whim, &["purge", "--yes"]);
    assert_eq!(platform.look(|books| books.kept()), 0);
}
