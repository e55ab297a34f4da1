use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::backup::code::Code;
use crate::backup::collect::Collector;
use crate::backup::objects::Objects;
use crate::config::values::StoreKind;
use crate::config::{Secret, Variables};
use crate::paths::Paths;

#[path = "engine_store_tests.rs"]
mod store;
#[path = "engine_stories_tests.rs"]
mod stories;
#[path = "engine_work_tree_tests.rs"]
mod work_tree;

const TRANSCRIPT: &str = ".claude/projects/-app-repo/s.jsonl";

thread_local! {
    /// What the clocks say to this test, if not the truth.
    static CLOCKS: std::cell::Cell<Option<Now>> = const { std::cell::Cell::new(None) };
}

fn now() -> Now {
    CLOCKS.get().unwrap_or_else(Now::read)
}

/// A container's disk: home, state, and a store beside.
struct Disk {
    directory: tempfile::TempDir,
    masks: Masks,
}

impl Disk {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("home/.claude/projects/-app-repo")).unwrap();
        fs::create_dir_all(directory.path().join("whim/state/backup")).unwrap();
        Self {
            directory,
            masks: Masks::default(),
        }
    }

    fn paths(&self) -> Paths {
        Paths::new(self.directory.path(), Path::new("/home"))
    }

    fn home(&self, path: &str) -> PathBuf {
        let path = self.directory.path().join("home").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn state(&self, path: &str) -> PathBuf {
        self.directory.path().join("whim/state").join(path)
    }

    fn append(&self, path: &str, text: &str) {
        let path = self.home(path);
        let mut file = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn engine_of(&self, bound: u64, snapshots: Option<Snapshots>) -> Engine {
        let url = format!("file://{}", self.directory.path().join("store").display());
        let settings = Backup {
            url: url.into(),
            kind: StoreKind::File,
            interval: Duration::from_secs(30),
            recordings: true,
            environment: std::collections::BTreeMap::default(),
            code: false,
        };
        let spool = self.state("backup/spool");
        Engine::new(Setup {
            task: "t".into(),
            collector: Collector::new(None, &self.paths(), true),
            sink: Sink::new(settings, Variables::default(), "t", &spool, bound).unwrap(),
            index: self.state("backup/index.json.zst"),
            places: Places::default(),
            snapshots,
            now,
            hurry: CancellationToken::new(),
        })
        .unwrap()
    }

    fn engine_with(&self, bound: u64) -> Engine {
        self.engine_of(bound, None)
    }

    fn engine(&self) -> Engine {
        self.engine_with(u64::MAX)
    }

    async fn backup(&self, engine: &mut Engine) -> Done {
        engine.backup("now", Vec::new(), &self.masks).await.unwrap()
    }

    fn store(&self) -> Store {
        let objects = Objects::directory(self.directory.path().join("store")).unwrap();
        Store::of(objects, "t").unwrap()
    }

    /// Paths and contents of the newest snapshot.
    async fn saved(&self) -> Vec<(String, String)> {
        let store = self.store();
        let manifest = store.newest().await.unwrap().unwrap();
        let mut saved = Vec::new();
        for file in &manifest.files {
            let content = store.read_file(&manifest, file, u64::MAX).await.unwrap();
            saved.push((file.path.clone(), String::from_utf8(content).unwrap()));
        }
        saved.sort();
        saved
    }

    async fn content(&self, path: &str) -> String {
        let saved = self.saved().await;
        let found = saved.iter().find(|(name, _)| name == path);
        found
            .unwrap_or_else(|| panic!("{path}: {saved:?}"))
            .1
            .clone()
    }
}

fn line(n: usize) -> String {
    format!("{{\"uuid\":\"u{n}\",\"text\":\"what was said {n}\"}}\n")
}

#[tokio::test]
async fn only_new_bytes_are_read_and_put() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    let long: String = (0..20_000).map(line).collect();
    disk.append(TRANSCRIPT, &long);
    let first = disk.backup(&mut engine).await;
    assert!(
        first.taken && first.new_bytes == long.len() as u64,
        "{first:?}"
    );
    let nothing = disk.backup(&mut engine).await;
    assert!(!nothing.taken && nothing.read_bytes == 0, "{nothing:?}");
    assert_eq!(nothing.snapshot, first.snapshot);
    // A supervisor after this one knows as much.
    for _ in 0..2 {
        disk.append(TRANSCRIPT, &line(1));
        let more = disk.backup(&mut engine).await;
        assert_eq!(more.new_bytes, line(1).len() as u64);
        assert!(
            more.read_bytes <= 4096 + more.new_bytes && more.put_bytes < 200,
            "{more:?}"
        );
        engine = disk.engine();
    }
    assert_eq!(
        disk.content(TRANSCRIPT).await,
        format!("{long}{}{}", line(1), line(1))
    );
}

#[tokio::test]
async fn a_line_being_written_waits_for_its_end() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    disk.append(TRANSCRIPT, "{\"uuid\":\"u1\"");
    assert_eq!(disk.backup(&mut engine).await.snapshot, None);
    disk.append(TRANSCRIPT, ",\"a\":1}\n{\"uuid\":");
    disk.backup(&mut engine).await;
    assert_eq!(
        disk.content(TRANSCRIPT).await,
        "{\"uuid\":\"u1\",\"a\":1}\n"
    );
    disk.append(TRANSCRIPT, "\"u2\"}");
    disk.backup(&mut engine).await;
    disk.append(TRANSCRIPT, "\n");
    disk.backup(&mut engine).await;
    assert_eq!(
        disk.content(TRANSCRIPT).await,
        "{\"uuid\":\"u1\",\"a\":1}\n{\"uuid\":\"u2\"}\n"
    );
}

#[tokio::test]
async fn a_damaged_transcript_never_replaces_the_good_one() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    let good: String = (0..50).map(line).collect();
    disk.append(TRANSCRIPT, &good);
    disk.backup(&mut engine).await;
    fs::write(disk.home(TRANSCRIPT), line(49)).unwrap();
    let done = disk.backup(&mut engine).await;
    assert_eq!(done.guarded.len(), 1);
    assert_eq!(done.guarded[0].reason, "it lost 49 records");
    let beside = format!("{TRANSCRIPT}.damaged");
    assert_eq!(disk.content(TRANSCRIPT).await, good);
    assert_eq!(disk.content(&beside).await, line(49));
    // It is told once, and what comes after the damage is kept too, by the next supervisor as well.
    for n in [50, 51] {
        engine = disk.engine();
        disk.append(TRANSCRIPT, &line(n));
        assert!(disk.backup(&mut engine).await.guarded.is_empty());
    }
    assert_eq!(disk.content(TRANSCRIPT).await, good);
    assert_eq!(
        disk.content(&beside).await,
        [line(49), line(50), line(51)].concat()
    );
    // Whole again.
    let whole: String = (0..52).map(line).collect();
    fs::write(disk.home(TRANSCRIPT), &whole).unwrap();
    assert!(disk.backup(&mut disk.engine()).await.guarded.is_empty());
    assert_eq!(disk.saved().await, [(TRANSCRIPT.to_owned(), whole)]);
}

#[tokio::test]
async fn links_and_missing_files_leave_the_good_copy() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    disk.append(TRANSCRIPT, &line(1));
    fs::write(disk.home("secret"), "outside").unwrap();
    symlink(
        disk.home("secret"),
        disk.home(".claude/projects/-app-repo/link.jsonl"),
    )
    .unwrap();
    disk.backup(&mut engine).await;
    fs::remove_file(disk.home(TRANSCRIPT)).unwrap();
    let gone = disk.backup(&mut engine).await;
    assert_eq!(gone.guarded[0].reason, "it is gone");
    symlink(disk.home("secret"), disk.home(TRANSCRIPT)).unwrap();
    let link = disk.backup(&mut engine).await;
    assert!(link.guarded[0].reason.contains("symlink"), "{link:?}");
    assert!(
        disk.backup(&mut engine).await.guarded.is_empty(),
        "told once"
    );
    assert_eq!(disk.saved().await, [(TRANSCRIPT.to_owned(), line(1))]);
    fs::remove_file(disk.home(TRANSCRIPT)).unwrap();
    disk.append(&format!("{TRANSCRIPT}/a.jsonl"), &line(2));
    disk.backup(&mut engine).await;
    assert_eq!(disk.saved().await.len(), 2);
}

#[tokio::test]
async fn without_its_index_nothing_is_put_again() {
    let disk = Disk::new();
    disk.append(TRANSCRIPT, &line(1));
    disk.append(".codex/sessions/2026/11/22/rollout-1.jsonl", &line(2));
    disk.backup(&mut disk.engine()).await;
    for spoil in [None, Some("no index")] {
        match spoil {
            None => fs::remove_file(disk.state("backup/index.json.zst")).unwrap(),
            Some(text) => fs::write(disk.state("backup/index.json.zst"), text).unwrap(),
        }
        disk.append(TRANSCRIPT, &line(3));
        let done = disk.backup(&mut disk.engine()).await;
        assert_eq!(done.new_bytes, line(3).len() as u64);
    }
    // Another container of the same task, with an empty home, drops nothing.
    let other = Disk::new();
    hand_over(&disk, &other);
    other.append(".codex/sessions/new.jsonl", &line(9));
    other.backup(&mut other.engine()).await;
    assert_eq!(other.saved().await.len(), 3);
    assert_eq!(
        other.content(TRANSCRIPT).await,
        [line(1), line(3), line(3)].concat()
    );
}

#[tokio::test]
async fn a_store_that_takes_nothing_is_owed_and_gets_it_later() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    disk.append(TRANSCRIPT, &line(1));
    disk.backup(&mut engine).await;
    let tasks = disk.directory.path().join("store/tasks");
    fs::rename(&tasks, disk.directory.path().join("away")).unwrap();
    fs::write(&tasks, "in the way").unwrap();
    for n in [2, 3] {
        disk.append(TRANSCRIPT, &line(n));
        let done = disk.backup(&mut engine).await;
        assert!(done.owed.is_some() && done.taken, "{done:?}");
        engine = disk.engine();
    }
    // Even when the file was damaged meanwhile.
    fs::write(disk.home(TRANSCRIPT), "").unwrap();
    let done = disk.backup(&mut engine).await;
    assert_eq!(done.guarded.len(), 1, "{done:?}");
    fs::remove_file(&tasks).unwrap();
    fs::rename(disk.directory.path().join("away"), &tasks).unwrap();
    let done = disk.backup(&mut engine).await;
    assert_eq!(done.owed, None);
    assert_eq!(
        disk.content(TRANSCRIPT).await,
        [line(1), line(2), line(3)].concat()
    );
    assert_eq!(engine.setup.sink.spooled(), 0);
}

/// The store of one container's disk becomes that of another.
fn hand_over(from: &Disk, to: &Disk) {
    fs::rename(
        from.directory.path().join("store"),
        to.directory.path().join("store"),
    )
    .unwrap();
}

#[tokio::test]
async fn a_container_that_could_not_reach_the_store_at_first_drops_nothing_of_the_one_before() {
    const HISTORY: &str = ".local/state/whim/history/bash";
    let before = Disk::new();
    before.append(TRANSCRIPT, &line(1));
    before.append(HISTORY, "make\nmake test\n");
    before.backup(&mut before.engine()).await;
    let disk = Disk::new();
    fs::write(disk.directory.path().join("store"), "in the way").unwrap();
    let mut engine = disk.engine();
    disk.append(".codex/sessions/new.jsonl", &line(9));
    disk.append(HISTORY, "ls\n");
    let done = disk.backup(&mut engine).await;
    assert!(done.owed.is_some() && done.taken, "{done:?}");
    fs::remove_file(disk.directory.path().join("store")).unwrap();
    hand_over(&before, &disk);
    // Its own snapshot is not taken for all that there is, though it is the newest and nothing changed since.
    let done = disk.backup(&mut disk.engine()).await;
    assert_eq!(done.owed, None);
    assert_eq!(disk.content(TRANSCRIPT).await, line(1));
    assert_eq!(disk.content(".codex/sessions/new.jsonl").await, line(9));
    // Of the same name, and not the same: neither goes for the other.
    assert_eq!(disk.content(HISTORY).await, "make\nmake test\n");
    assert_eq!(disk.content(&format!("{HISTORY}.damaged")).await, "ls\n");
    // And a history that holds all of it takes the place of both.
    fs::write(disk.home(HISTORY), "make\nmake test\nls\n").unwrap();
    disk.backup(&mut disk.engine()).await;
    assert_eq!(disk.content(HISTORY).await, "make\nmake test\nls\n");
    assert_eq!(disk.saved().await.len(), 3);
}

#[tokio::test]
async fn what_another_container_left_stays_until_there_is_something_newer() {
    let before = Disk::new();
    fs::create_dir_all(before.state("journal")).unwrap();
    fs::write(before.state("journal/1.jsonl"), line(1)).unwrap();
    let mut engine = before.engine();
    before.backup(&mut engine).await;
    let code = Code {
        work_tree: "a".repeat(40),
        bundle: "code.bundle".into(),
        object_format: "sha1".into(),
        fingerprint: "f".into(),
        ..Code::default()
    };
    let bundle = Entry {
        kind: Kind::Code,
        agent: None,
        mode: 0o600,
        good: super::super::index::Copy {
            sha256: super::super::store::segment_name(b""),
            ..Default::default()
        },
        damaged: None,
        compared: 0,
        trouble: None,
    };
    Arc::make_mut(&mut engine.index)
        .files
        .insert(bundle::key(), bundle);
    Arc::make_mut(&mut engine.index).code = Some(Box::new(code.clone()));
    fs::write(before.state("journal/1.jsonl"), line(1).repeat(2)).unwrap();
    before.backup(&mut engine).await;
    let disk = Disk::new();
    hand_over(&before, &disk);
    fs::create_dir_all(disk.state("journal")).unwrap();
    fs::write(disk.state("journal/2.jsonl"), line(2)).unwrap();
    disk.backup(&mut disk.engine()).await;
    // Its own goes with its file, as ever.
    fs::remove_file(disk.state("journal/2.jsonl")).unwrap();
    fs::write(disk.state("journal/3.jsonl"), line(3)).unwrap();
    disk.backup(&mut disk.engine()).await;
    let paths: Vec<String> = disk
        .saved()
        .await
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    assert_eq!(paths, ["code.bundle", "journal/1.jsonl", "journal/3.jsonl"]);
    let manifest = disk.store().newest().await.unwrap().unwrap();
    assert_eq!(manifest.code, Some(serde_json::to_value(&code).unwrap()));
}

#[tokio::test]
async fn a_full_spool_gives_up_nothing() {
    let disk = Disk::new();
    fs::write(disk.directory.path().join("store"), "in the way").unwrap();
    let mut engine = disk.engine_with(400);
    disk.append(TRANSCRIPT, &line(1));
    assert!(disk.backup(&mut engine).await.owed.is_some());
    let noise: String = (0..400).map(|_| crate::random::token() + "\n").collect();
    disk.append(TRANSCRIPT, &noise);
    let full = engine.backup("now", Vec::new(), &disk.masks).await;
    assert!(
        matches!(
            full,
            Err(EngineError::Draft(DraftError::Sink(SinkError::Full { .. })))
        ),
        "{full:?}"
    );
    // What a backup that failed half way left in the spool does not stay there, and what counts does.
    let left = disk
        .state("backup/spool/tasks/t/segments")
        .join("a".repeat(64));
    fs::write(&left, "left").unwrap();
    let full = engine.backup("now", Vec::new(), &disk.masks).await;
    assert!(full.is_err() && !left.exists());
    assert!(engine.setup.sink.spooled() > 0);
    assert!(engine.owed().await > noise.len() as u64);
    fs::remove_file(disk.directory.path().join("store")).unwrap();
    assert_eq!(disk.backup(&mut engine).await.owed, None);
    assert_eq!(disk.content(TRANSCRIPT).await, line(1) + &noise);
}

#[tokio::test]
async fn a_store_that_was_emptied_is_filled_again() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    disk.append(TRANSCRIPT, &line(1));
    disk.backup(&mut engine).await;
    fs::remove_dir_all(disk.directory.path().join("store/tasks")).unwrap();
    assert!(disk.backup(&mut engine).await.taken);
    assert_eq!(disk.content(TRANSCRIPT).await, line(1));
}

#[tokio::test]
async fn secrets_do_not_leave() {
    let mut disk = Disk::new();
    disk.masks = Masks::new(&[Secret::new("sk-ant-0123456789".into())]);
    let mut engine = disk.engine();
    disk.append(TRANSCRIPT, "{\"a\":\"x sk-ant-0123456789 y\"}\n");
    disk.append(
        ".claude/projects/-app-repo/s/meta.json",
        "{\"k\":\"sk-ant-0123456789\"}",
    );
    disk.backup(&mut engine).await;
    disk.append(TRANSCRIPT, "{\"b\":\"sk-ant-0123456789\"}\n");
    let more = disk.backup(&mut disk.engine()).await;
    assert!(more.new_bytes < 30);
    let saved = disk.content(TRANSCRIPT).await;
    assert_eq!(
        saved,
        "{\"a\":\"x [secret]********* y\"}\n{\"b\":\"[secret]*********\"}\n"
    );
    assert!(!format!("{:?}", disk.saved().await).contains("sk-ant"));
    // And still a file that did not change is known as the same.
    fs::remove_file(disk.state("backup/index.json.zst")).unwrap();
    assert_eq!(disk.backup(&mut disk.engine()).await.new_bytes, 0);
}

#[tokio::test]
async fn the_ledger_may_be_rotated() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    fs::write(disk.state("generations.jsonl"), line(1).repeat(1000)).unwrap();
    disk.backup(&mut engine).await;
    fs::rename(
        disk.state("generations.jsonl"),
        disk.state("generations-1.jsonl"),
    )
    .unwrap();
    fs::write(disk.state("generations.jsonl"), line(2)).unwrap();
    let done = disk.backup(&mut engine).await;
    assert!(done.guarded.is_empty());
    assert_eq!(done.new_bytes, line(2).len() as u64);
    assert_eq!(
        disk.content("generations-1.jsonl").await,
        line(1).repeat(1000)
    );
    fs::remove_file(disk.state("generations-1.jsonl")).unwrap();
    disk.backup(&mut engine).await;
    assert_eq!(
        disk.saved().await,
        [("generations.jsonl".to_owned(), line(2))]
    );
}

#[tokio::test]
async fn many_small_pieces_become_one() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    let mut written = String::new();
    for n in 0..150 {
        disk.append(TRANSCRIPT, &line(n));
        written.push_str(&line(n));
        let done = disk.backup(&mut engine).await;
        assert_eq!(done.new_bytes, line(n).len() as u64);
    }
    assert_eq!(disk.content(TRANSCRIPT).await, written);
    let manifest = disk.store().newest().await.unwrap().unwrap();
    let pieces = manifest.files[0].pieces.len();
    assert!(pieces <= 65 && manifest.segments.len() <= 65, "{pieces}");
}
