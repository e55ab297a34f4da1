use std::os::unix::fs::{chown, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::mkfifo;
use tempfile::TempDir;
use tokio::sync::oneshot;
use whim_wire::state::{Backup, Phase, Supervisor, VERSION};
use whim_wire::time::Time;

use super::*;

fn state(state: AgentState) -> StateObject {
    StateObject {
        version: VERSION,
        state,
        reason: format!("{} because", state.word().repeat(40)),
        since: Time::EPOCH,
        at: Time::EPOCH,
        seq: 1,
        phase: Phase::Ready,
        stalled: false,
        idle_s: 0,
        keep_awake: vec![],
        active_generations: 0,
        supervisor: Supervisor::default(),
        sessions: vec![],
        ports: vec![],
        backup: Backup::default(),
        backend: None,
        dialog: None,
        provider_error: None,
        weaknesses: vec![],
    }
}

fn word(directory: &TempDir) -> String {
    std::fs::read_to_string(directory.path().join(WORD)).unwrap()
}

fn names(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn both_files_world_readable_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let files = StateFiles::open(directory.path()).unwrap();
    for each in AgentState::ALL {
        files.write(&state(each)).unwrap();
        assert_eq!(word(&directory), format!("{each}\n"));
        let object = std::fs::read(directory.path().join(OBJECT)).unwrap();
        assert_eq!(object.last(), Some(&b'\n'));
        assert_eq!(
            serde_json::from_slice::<StateObject>(&object).unwrap(),
            state(each)
        );
    }
    // Beside them only the space for the next two, for as long as there is a writer.
    let spares = names(&directory);
    assert_eq!(spares.iter().filter(|name| is_temporary(name)).count(), 2);
    assert_eq!(spares.len(), 4, "{spares:?}");
    drop(files);
    assert_eq!(names(&directory), [WORD, OBJECT]);
    for name in [WORD, OBJECT] {
        let meta = std::fs::symlink_metadata(directory.path().join(name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o644);
    }
}

#[test]
fn links_fifos_and_foreign_files_are_replaced_not_followed() {
    let directory = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    let victim = elsewhere.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    symlink(&victim, directory.path().join(WORD)).unwrap();
    mkfifo(&directory.path().join(OBJECT), Mode::S_IRWXU).unwrap();
    let files = StateFiles::open(directory.path()).unwrap();
    files.write(&state(AgentState::Idle)).unwrap();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    for name in [WORD, OBJECT] {
        let meta = std::fs::symlink_metadata(directory.path().join(name)).unwrap();
        assert!(meta.is_file(), "{name}");
        assert_eq!(meta.uid(), geteuid().as_raw());
    }
    // A dangling link, and one to a directory.
    for target in ["/nowhere/at/all", elsewhere.path().to_str().unwrap()] {
        std::fs::remove_file(directory.path().join(WORD)).unwrap();
        symlink(target, directory.path().join(WORD)).unwrap();
        files.write(&state(AgentState::Working)).unwrap();
        assert_eq!(word(&directory), "working\n");
    }
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 1);
    if geteuid().is_root() {
        let path = directory.path().join(WORD);
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o1777)).unwrap();
        chown(&path, Some(1001), Some(1001)).unwrap();
        files.write(&state(AgentState::Idle)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().uid(), 0);
    }
}

#[test]
fn a_directory_in_the_way_is_named() {
    for name in [WORD, OBJECT] {
        let directory = TempDir::new().unwrap();
        let files = StateFiles::open(directory.path()).unwrap();
        let path = directory.path().join(name);
        std::fs::create_dir(&path).unwrap();
        let at_start = StateFiles::open(directory.path()).unwrap_err();
        assert!(matches!(&at_start, PublishError::IsDirectory { path: named } if *named == path));
        let later = files.write(&state(AgentState::Idle)).unwrap_err();
        assert!(matches!(&later, PublishError::IsDirectory { path: named } if *named == path));
        drop(files);
        assert!(
            !names(&directory).iter().any(|name| is_temporary(name)),
            "a failed write leaves nothing"
        );
    }
}

#[test]
fn leftovers_of_a_killed_writer_go_and_other_files_stay() {
    let directory = TempDir::new().unwrap();
    let leftover = ".claude_state.0123456789abcdef.tmp";
    for name in [
        leftover,
        ".claude_state.json.0123456789abcdef.tmp",
        ".claude_state.notes.tmp",
        "claude_state.tmp",
        ".claude_state.0123456789abcdef",
    ] {
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    let linked = ".claude_state.fedcba9876543210.tmp";
    symlink("/etc/passwd", directory.path().join(linked)).unwrap();
    StateFiles::open(directory.path()).unwrap();
    let mut kept = [
        ".claude_state.0123456789abcdef",
        linked,
        ".claude_state.notes.tmp",
        "claude_state.tmp",
    ];
    kept.sort_unstable();
    assert_eq!(names(&directory), kept);
}

#[test]
fn a_missing_directory_is_made_sticky() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("root/tmp");
    let files = StateFiles::open(&path).unwrap();
    files.write(&state(AgentState::Starting)).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777);
}

#[test]
fn a_reader_in_a_tight_loop_never_sees_an_empty_or_torn_file() {
    let directory = TempDir::new().unwrap();
    let files = StateFiles::open(directory.path()).unwrap();
    files.write(&state(AgentState::Idle)).unwrap();
    let done = AtomicBool::new(false);
    let reads = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0u32;
            let mut seen = [false; 5];
            while !done.load(Ordering::Relaxed) || reads < 1_000 {
                let word = std::fs::read_to_string(directory.path().join(WORD)).unwrap();
                let known = AgentState::ALL
                    .iter()
                    .position(|s| format!("{s}\n") == word);
                seen[known.unwrap_or_else(|| panic!("read {word:?}"))] = true;
                let object = std::fs::read(directory.path().join(OBJECT)).unwrap();
                serde_json::from_slice::<StateObject>(&object)
                    .unwrap_or_else(|error| panic!("{error}: {object:?}"));
                reads += 1;
            }
            assert!(
                seen.iter().filter(|seen| **seen).count() > 1,
                "nothing changed meanwhile"
            );
            reads
        });
        for round in 0..1_500 {
            files.write(&state(AgentState::ALL[round % 5])).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(reads >= 1_000);
}

struct Running {
    directory: TempDir,
    states: watch::Sender<Arc<StateObject>>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

fn running() -> Running {
    let directory = TempDir::new().unwrap();
    let files = StateFiles::open(directory.path()).unwrap();
    let (states, receiver) = watch::channel(Arc::new(state(AgentState::Starting)));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(publish(files, receiver, async {
        let _ = stopped.await;
    }));
    Running {
        directory,
        states,
        stop,
        task,
    }
}

/// Waits until the word is `expected`; the deadline is for a publisher that hangs.
async fn reads(directory: &TempDir, expected: AgentState) {
    let path = directory.path().join(WORD);
    let seen = async {
        while std::fs::read_to_string(&path).ok() != Some(format!("{expected}\n")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), seen)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn working_is_not_delayed_by_the_spacing() {
    let running = running();
    reads(&running.directory, AgentState::Starting).await;
    // With the spacing of 100 ms no round could be this quick; on a busy machine not every round is.
    let quick = async {
        loop {
            let idle = Arc::new(state(AgentState::Idle));
            running.states.send_replace(idle);
            reads(&running.directory, AgentState::Idle).await;
            let began = Instant::now();
            let working = Arc::new(state(AgentState::Working));
            running.states.send_replace(working);
            reads(&running.directory, AgentState::Working).await;
            if began.elapsed() < Duration::from_millis(50) {
                break;
            }
        }
    };
    let deadline = Duration::from_secs(20);
    tokio::time::timeout(deadline, quick)
        .await
        .expect("each was delayed");
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_written_ten_times_a_second_and_ends_with_the_newest() {
    let running = running();
    reads(&running.directory, AgentState::Starting).await;
    // The word is written first, the object right after it.
    let begun = std::time::Instant::now();
    while !running.directory.path().join(OBJECT).exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "no object");
        tokio::task::yield_now().await;
    }
    let inode = || {
        std::fs::metadata(running.directory.path().join(OBJECT))
            .unwrap()
            .mtime_nsec()
    };
    let mut writes = std::collections::BTreeSet::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(600) {
        running.states.send_modify(|object| {
            let mut newer = (**object).clone();
            newer.seq += 1;
            *object = Arc::new(newer);
        });
        writes.insert(inode());
        tokio::task::yield_now().await;
    }
    assert!(writes.len() <= 9, "{} writes in 600 ms", writes.len());
    running
        .states
        .send_replace(Arc::new(state(AgentState::Idle)));
    reads(&running.directory, AgentState::Idle).await;
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
}

#[tokio::test]
async fn the_last_value_is_written_before_the_end() {
    let running = running();
    running
        .states
        .send_replace(Arc::new(state(AgentState::Stopped)));
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
    assert_eq!(word(&running.directory), "stopped\n");
}

#[tokio::test]
async fn the_files_are_written_again_without_any_change() {
    let running = running();
    reads(&running.directory, AgentState::Starting).await;
    let path = running.directory.path().join(WORD);
    std::fs::remove_file(&path).unwrap();
    // The promise is five seconds; how late this machine is now is another matter.
    const { assert!(BEAT.as_millis() < 5_000) };
    reads(&running.directory, AgentState::Starting).await;
    let object = std::fs::read(running.directory.path().join(OBJECT)).unwrap();
    let object: StateObject = serde_json::from_slice(&object).unwrap();
    assert_ne!(
        object.at,
        Time::EPOCH,
        "the object says when it was written"
    );
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
}
