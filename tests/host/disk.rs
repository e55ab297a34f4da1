//! Disks that are full, at the start and later.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use whim_kit::{Root, mounts, repo, wait};

use crate::support::{
    PATIENCE, agents_word, custom, kill_supervisor, open_to_all, ready, root, start_in, state, whim,
};

const MIB: u64 = 1 << 20;
/// The same, for what is held in memory.
const BLOCK: usize = 1 << 20;
const IDLE: &str = "exec sleep 100000";

/// Takes all space that is left.
fn fill(path: &Path) -> PathBuf {
    let filler = path.join("filler");
    let mut file = File::create(&filler).unwrap();
    for size in [BLOCK, 4096, 1] {
        let block = vec![b'x'; size];
        while file.write_all(&block).is_ok() {}
    }
    filler
}

/// Does `work` beside somebody who takes whatever space becomes free.
fn beside(filler: &Path, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let mut file = File::options().append(true).open(filler).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                while file.write_all(b"x").is_ok() {}
                std::thread::yield_now();
            }
        });
        let worked = catch_unwind(AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        worked.unwrap_or_else(|panicked| resume_unwind(panicked));
    });
}

#[test]
fn a_state_directory_without_space_is_told_at_the_start() {
    mounts::apart(|| {
        for (path, size) in [("/whim", 64 * 1024), ("/run", 4096)] {
            let root = root(&whim());
            root.small_disk(path, size).unwrap();
            if path == "/run" {
                fill(&root.at(path));
            }
            let mut whim = custom(whim(), IDLE).start(root.clone()).unwrap();
            assert_eq!(whim.ended(PATIENCE).unwrap(), 73, "{}", whim.output());
            let said = whim.stderr();
            // Beside it the journal's writer may have logged that it cannot write either.
            let told = |line: &&str| {
                line.starts_with("whim: ") && line.contains("No space left on device")
            };
            let told: Vec<&str> = said.lines().filter(told).collect();
            assert_eq!(told.len(), 1, "one message: {said}");
            let place = root.at(path).display().to_string();
            assert!(
                told[0].contains(&place) && told[0].contains("larger disk"),
                "{said}"
            );
            assert!(!root.at("/run/whim/ready.json").exists());
        }
    })
    .unwrap();
}

/// A repository of two files: one as large in git as it is, one that git makes small.
fn large() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    repo::empty(directory.path()).unwrap();
    let mut random = vec![0_u8; 3 * BLOCK];
    std::io::Read::read_exact(&mut File::open("/dev/urandom").unwrap(), &mut random).unwrap();
    std::fs::write(directory.path().join("random"), &random).unwrap();
    // Not zeros, of which git makes a hole.
    std::fs::write(directory.path().join("same"), vec![b'x'; 8 * BLOCK]).unwrap();
    repo::git(directory.path(), &["add", "-A"]).unwrap();
    repo::git(directory.path(), &["commit", "-q", "-m", "Large"]).unwrap();
    open_to_all(directory.path());
    directory
}

#[test]
fn a_clone_that_does_not_fit_is_told_and_goes_on_with_more_space() {
    mounts::apart(|| {
        let origin = large();
        // Too small to fetch; too small to check out.
        for size in [2 * MIB, 8 * MIB] {
            let root = root(&whim());
            root.small_disk("/app", size).unwrap();
            let spec = json!({"version": 1, "repo": {"url": origin.path(), "branch": "work"}});
            let run = custom(whim().args(["--spec", &spec.to_string()]), IDLE);
            let mut whim = run.start(root.clone()).unwrap();
            assert_eq!(
                whim.ended(PATIENCE).unwrap(),
                73,
                "{size}: {}",
                whim.output()
            );
            let said = whim.stderr();
            let told = |line: &&str| line.starts_with("whim: ") && line.contains("larger disk");
            assert_eq!(said.lines().filter(told).count(), 1, "{size}: {said}");
            drop(whim);

            mounts::resize(&root.at("/app"), 64 * MIB).unwrap();
            let (_whim, client) = start_in(&run, &root);
            ready(&client, &_whim);
            assert_eq!(agents_word(&root, "git status --porcelain"), "");
            assert_eq!(agents_word(&root, "git branch --show-current"), "work");
            for file in ["random", "same"] {
                let here = std::fs::read(root.at("/app/repo").join(file)).unwrap();
                assert!(
                    here == std::fs::read(origin.path().join(file)).unwrap(),
                    "{file}"
                );
            }
            agents_word(&root, "git fsck --full --strict");
        }
    })
    .unwrap();
}

#[test]
fn a_disk_that_fills_up_later_stops_nothing() {
    mounts::apart(|| {
        let root = Root::on_small_disk(32 * MIB, whim().is_ordinary()).unwrap();
        let script = "while read -r line; do echo \"got $line\"; done";
        let (mut whim, client) = start_in(&custom(whim(), script), &root);
        let before = ready(&client, &whim);
        let pid = before["sessions"][0]["pid"].clone();
        let say = |text: &str| {
            let path = "/v1/sessions/main/prompts";
            let answer = client.post(path, &json!({"text": text})).unwrap();
            assert_eq!(answer.status, 202, "{}", answer.text());
        };
        let filler = fill(&root.at("/whim/state"));
        // The files' last blocks take some more. The queue has room for all of these, however slowly they are taken.
        let mut prompts = 0..40;
        wait::until("the report", PATIENCE, || {
            if prompts.next().is_some() {
                say("while it is full");
            }
            let said = whim.stderr();
            said.contains("the journal cannot be written").then_some(())
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
        // The files for pollers go on too.
        let word = root.at("/tmp/claude_state");
        let changed = || std::fs::metadata(&word).unwrap().modified().unwrap();
        beside(&filler, || {
            for file in 1..=4 {
                let last = changed();
                let newer = || (changed() > last).then_some(());
                wait::until("a newer state file", PATIENCE, newer)
                    .unwrap_or_else(|error| panic!("{file}: {error}\n{}", whim.output()));
            }
        });
        assert!(!std::fs::read_to_string(&word).unwrap().trim().is_empty());

        // Not even a crash in the middle of it.
        let after = kill_supervisor(&client, &whim, 1);
        assert_eq!(after["sessions"][0]["pid"], pid, "{}", whim.output());
        say("still full");
        state(&client, &whim, "an answer", |state| {
            state["sessions"][0]["pid"] == pid
        });

        std::fs::remove_file(filler).unwrap();
        say("space again");
        let events = wait::until("the journal's return", PATIENCE, || {
            let events = client.json("/v1/events?limit=10000").ok()?;
            let gap = |event: &serde_json::Value| event["type"] == "journal.gap";
            events["events"]
                .as_array()?
                .iter()
                .any(gap)
                .then_some(events)
        });
        let events = events.unwrap_or_else(|error| panic!("{error}\n{}", whim.output()));
        let last = events["events"].as_array().unwrap().len();
        assert!(last > 0);
        let record = root.at("/whim/state/sessions/main/session.json");
        wait::file(&record, PATIENCE, |text| {
            text.contains("space again").then_some(())
        })
        .unwrap();
        whim.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(whim.ended(PATIENCE).unwrap(), 0, "{}", whim.output());
    })
    .unwrap();
}
