//! Supervisor, helper, store and the whole container taken away in the middle of backups, at random moments: no snapshot is
//! torn, and what was acknowledged comes back.
//!
//! `WHIM_TEST_KILLS` says how often; `cargo xtask bench kills` does it 1,000 times.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use whim::backup::manifest::SnapshotId;
use whim::backup::objects::Objects;
use whim::backup::store::Store;
use whim::backup::verify;
use whim_kit::{Root, Whim};

use crate::backup::{TRANSCRIPT, append, lines, said, slowly, started, store, write};
use crate::support::{PATIENCE, ready, root, start_in, state, whim};

/// What is taken away where nobody says how often.
const KILLS: u64 = 30;
/// Containers that are killed then: each is started first.
const CONTAINERS: u64 = 8;
/// Written between two of them.
const LINES: usize = 100;
/// From asking for a backup to the blow: about what a backup takes, from the command's start to the answer's end.
const WINDOW_MS: u64 = 100;

/// What is taken away.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Supervisor,
    Helper,
    /// The store is something else for a while, as a mount that is lost is.
    Store,
}

fn kills(unless_said: u64) -> u64 {
    match std::env::var("WHIM_TEST_KILLS") {
        Ok(number) => number.parse().unwrap(),
        Err(_) => unless_said,
    }
}

/// The moments are those of the scheduler anyway: no seed would bring them back.
fn random(below: u64) -> u64 {
    RandomState::new().hash_one(0) % below
}

fn ask(whim: &Whim) -> Child {
    let mut now = whim.whim(Path::new(env!("CARGO_BIN_EXE_whim")), &["backup", "now"]);
    let now = now.stdout(Stdio::null()).stderr(Stdio::null());
    now.spawn().unwrap()
}

/// Puts what lies at one path to the other, at once.
fn exchange(one: &Path, other: &Path) {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE).unwrap();
}

/// The store, as it is read without the program.
struct Proof {
    runtime: tokio::runtime::Runtime,
    store: Store,
    /// Snapshots that came back whole.
    whole: BTreeSet<SnapshotId>,
}

impl Proof {
    fn of(root: &Root) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let objects = Objects::directory(store(root)).unwrap();
        Self {
            runtime,
            store: Store::of(objects, "ww-1").unwrap(),
            whole: BTreeSet::new(),
        }
    }

    /// Every snapshot that is listed and was not looked at before comes back whole, and the newest has these lines.
    fn holds(&mut self, acknowledged: usize, round: u64) {
        let Self {
            runtime,
            store,
            whole,
        } = self;
        runtime.block_on(async {
            for id in store.list_manifests().await.unwrap() {
                if whole.insert(id.clone()) {
                    let verified = verify::verify(store, Some(&id)).await.unwrap().unwrap();
                    assert!(verified.ok, "round {round}: {verified:?}");
                }
            }
            if acknowledged == 0 {
                return;
            }
            let newest = store.newest().await.unwrap().unwrap();
            let file = newest.files.iter().find(|file| file.path == TRANSCRIPT);
            let saved = store.read_file(&newest, file.unwrap(), u64::MAX).await;
            let saved = String::from_utf8(saved.unwrap()).unwrap();
            assert!(
                saved.starts_with(&lines(0..acknowledged)),
                "round {round}: {} of {acknowledged}",
                saved.lines().count()
            );
        });
    }
}

#[test]
fn kills_in_the_middle_lose_nothing_that_was_acknowledged() {
    let (root, whim, client) = started(&slowly());
    write(&root, TRANSCRIPT, &lines(0..1));
    said(&whim, &["backup", "now"]);
    let tasks = store(&root).join("tasks");
    let away = store(&root).join("away");
    fs::write(&away, "in the way").unwrap();
    let mut proof = Proof::of(&root);
    let (mut written, mut acknowledged, mut restarts, mut answered) = (1, 1, 0, 0);
    let kills = kills(KILLS);
    for round in 0..kills {
        append(&root, TRANSCRIPT, &lines(written..written + LINES));
        written += LINES;
        let victim = match random(4) {
            0 => Victim::Helper,
            1 => Victim::Store,
            _ => Victim::Supervisor,
        };
        let mut now = ask(&whim);
        std::thread::sleep(Duration::from_millis(random(WINDOW_MS)));
        match victim {
            Victim::Supervisor => {
                let supervisor = Pid::from_raw(whim.supervisor().unwrap());
                kill(supervisor, Signal::SIGKILL).unwrap();
                restarts += 1;
            }
            // It may be on its way up.
            Victim::Helper => drop(
                whim.helper()
                    .map(|helper| kill(Pid::from_raw(helper), Signal::SIGKILL)),
            ),
            Victim::Store => exchange(&tasks, &away),
        }
        let success = now.wait().unwrap().success();
        if let Victim::Store = victim {
            exchange(&tasks, &away);
        }
        if success {
            acknowledged = written;
            answered += 1;
        }
        state(&client, &whim, "the supervisor", |state| {
            state["supervisor"]["restarts"] == restarts && state["phase"] == "ready"
        });
        proof.holds(acknowledged, round);
    }
    said(&whim, &["backup", "now"]);
    proof.holds(written, kills);
    // Some came before the blow and some after it, or nothing was in the middle.
    println!(
        "{kills} blows, {restarts} at the supervisor; {answered} backups were acknowledged before"
    );
    assert!(answered > 0 && answered < kills, "{answered} of {kills}");
}

/// Everything is gone at once, as when a machine loses its container: nothing gets a word before its end. The next one goes
/// on in the same root, and at the end another root gets back what was acknowledged.
#[test]
fn a_container_that_is_killed_in_the_middle_loses_nothing_that_was_acknowledged() {
    let run = slowly().as_pid_1();
    let root = root(&run);
    write(&root, TRANSCRIPT, &lines(0..1));
    let kills = kills(CONTAINERS);
    let (mut written, mut acknowledged, mut answered) = (1, 0, 0);
    let mut proof: Option<Proof> = None;
    for round in 0..kills {
        let (mut whim, client) = start_in(&run, &root);
        ready(&client, &whim);
        if round % 2 == 0 {
            // So that there always is something to lose.
            said(&whim, &["backup", "now"]);
            acknowledged = written;
        }
        append(&root, TRANSCRIPT, &lines(written..written + LINES));
        written += LINES;
        let mut now = ask(&whim);
        std::thread::sleep(Duration::from_millis(random(WINDOW_MS)));
        whim.signal(Signal::SIGKILL).unwrap();
        assert_ne!(whim.ended(PATIENCE).unwrap(), 0);
        if now.wait().unwrap().success() {
            acknowledged = written;
            answered += 1;
        }
        let proof = proof.get_or_insert_with(|| Proof::of(&root));
        proof.holds(acknowledged, round);
    }
    println!("{kills} containers were killed; {answered} backups were acknowledged before");
    let (whim, client) = start_in(&run, &root);
    ready(&client, &whim);
    said(&whim, &["backup", "now"]);
    drop(whim);
    let new = self::root(&self::whim());
    let store = store(&root);
    let url = format!("file://{}", store.display());
    let mut restore = self::whim()
        .command("restore")
        .arg(url)
        .start(new.clone())
        .unwrap();
    let ended = restore.ended(PATIENCE).unwrap();
    assert_eq!(ended, 0, "{}", restore.output());
    let back = fs::read_to_string(new.at("/home/node").join(TRANSCRIPT)).unwrap();
    assert!(
        back == lines(0..written),
        "{} of {written}",
        back.lines().count()
    );
}
