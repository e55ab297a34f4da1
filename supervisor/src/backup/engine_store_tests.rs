//! What is asked of the store, and what happens while it answers.

use std::sync::{Arc, Mutex};

use super::*;
use crate::backup::objects::Watch;

/// What was asked of a store.
type Asked = Arc<Mutex<Vec<String>>>;

/// Notes what is asked of the engine's store; what begins as `refused` is refused.
fn watch(engine: &mut Engine, refused: Option<&'static str>) -> Asked {
    let asked = Asked::default();
    let noted = asked.clone();
    let watch = move |action: &str, name: &str| {
        let kind = name.split('/').nth(2).unwrap_or_default();
        let call = format!("{action} {kind}");
        let is_let = refused.is_none_or(|refused| call != refused);
        noted.lock().unwrap().push(call);
        is_let
    };
    engine.setup.sink.watch(Watch(Arc::new(watch)));
    asked
}

fn count(asked: &Asked, call: &str) -> usize {
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    asked.iter().filter(|one| *one == call).count()
}

#[tokio::test]
async fn what_is_judged_is_what_is_saved() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    let good: String = (0..50).map(line).collect();
    disk.append(TRANSCRIPT, &good);
    disk.backup(&mut engine).await;
    // Written anew with all its records, and damaged while it is compared with what the store has.
    let anew: String = (0..50).rev().map(line).collect();
    fs::write(disk.home(TRANSCRIPT), &anew).unwrap();
    let path = disk.home(TRANSCRIPT);
    let damage = move |action: &str, name: &str| {
        if action == "get" && name.contains("segments") {
            fs::write(&path, line(7)).unwrap();
        }
        true
    };
    engine.setup.sink.watch(Watch(Arc::new(damage)));
    disk.backup(&mut engine).await;
    assert_eq!(disk.content(TRANSCRIPT).await, anew);
    let done = disk.backup(&mut engine).await;
    assert_eq!(done.guarded[0].reason, "it lost 49 records");
    assert_eq!(disk.content(TRANSCRIPT).await, anew);
}

#[tokio::test]
async fn what_the_store_acknowledged_is_not_sent_again() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    let away = watch(&mut engine, Some("put segments"));
    disk.append(TRANSCRIPT, &line(1));
    assert!(disk.backup(&mut engine).await.owed.is_some());
    assert_eq!(count(&away, "put segments"), 1);
    // The segment gets there, its snapshot does not.
    let half = watch(&mut engine, Some("put manifests"));
    for tries in [1, 0] {
        assert!(disk.backup(&mut engine).await.owed.is_some());
        assert_eq!(count(&half, "put segments"), tries);
    }
    // One that the store lost meanwhile is.
    fs::remove_dir_all(disk.directory.path().join("store/tasks/t/segments")).unwrap();
    let open = watch(&mut engine, None);
    assert_eq!(disk.backup(&mut engine).await.owed, None);
    assert_eq!(count(&open, "put segments"), 1);
    assert_eq!(disk.content(TRANSCRIPT).await, line(1));
}

#[tokio::test]
async fn a_backup_without_news_reads_nothing_of_the_store() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    disk.append(TRANSCRIPT, &line(1));
    disk.backup(&mut engine).await;
    let asked = watch(&mut engine, None);
    disk.backup(&mut engine).await;
    assert_eq!(*asked.lock().unwrap(), ["head manifests"]);
}

#[tokio::test]
async fn an_endless_file_is_told_and_not_read() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    disk.append(TRANSCRIPT, &line(1));
    disk.backup(&mut engine).await;
    let file = fs::OpenOptions::new()
        .write(true)
        .open(disk.home(TRANSCRIPT));
    file.unwrap()
        .set_len(crate::backup::collect::MAX_LINES + 1)
        .unwrap();
    let done = disk.backup(&mut engine).await;
    assert_eq!((done.read_bytes, done.unreadable.len()), (0, 1), "{done:?}");
    assert_eq!(disk.content(TRANSCRIPT).await, line(1));
}

#[tokio::test]
async fn what_is_gone_makes_room_before_a_backup_fails() {
    use crate::backup::manifest::MAX_FILES;
    let disk = Disk::new();
    let mut engine = disk.engine();
    disk.append(TRANSCRIPT, &line(1));
    disk.backup(&mut engine).await;
    let left = engine.index.files.values().next().unwrap().clone();
    for n in 0..MAX_FILES {
        let key = Key {
            place: Place::Home,
            path: format!(".codex/sessions/{n}.jsonl"),
        };
        Arc::make_mut(&mut engine.index)
            .files
            .insert(key, left.clone());
    }
    disk.append(".codex/sessions/new.jsonl", &line(2));
    let done = disk.backup(&mut engine).await;
    assert!(done.taken && done.unreadable.is_empty(), "{done:?}");
    let manifest = disk.store().newest().await.unwrap().unwrap();
    assert_eq!(manifest.files.len(), MAX_FILES);
    for path in [TRANSCRIPT, ".codex/sessions/new.jsonl"] {
        assert!(
            manifest.files.iter().any(|file| file.path == path),
            "{path}"
        );
    }
}
