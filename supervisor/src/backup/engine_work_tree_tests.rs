//! The work tree beside the conversations, with a git that waits to be let go.

use std::os::unix::fs::PermissionsExt as _;

use whim_kit::repo;

use super::*;
use crate::backup::code::Limits;
use crate::backup::snapshot::Clean;
use crate::boot::git::testing;
use crate::helper::Helper;

impl Disk {
    /// A checkout whose git, at the beginning of a look, writes a line to `looks` and waits for one from `gate`.
    fn gated(&self) -> Snapshots {
        let root = self.directory.path();
        repo::with(&root.join("repo"), &[("a.txt", "a\n")]).unwrap();
        let gate = root.join("gate");
        nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let bin = root.join("bin");
        fs::create_dir(&bin).unwrap();
        let path = std::env::var("PATH").unwrap();
        let script = format!(
            "#!/bin/sh\nPATH={path}\ncase \"$*\" in *show-prefix*)\n  echo look >> {looks}\n  read line < {gate};;\nesac\nexec git \"$@\"\n",
            looks = root.join("looks").display(),
            gate = gate.display(),
        );
        fs::write(bin.join("git"), script).unwrap();
        fs::set_permissions(bin.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
        let mut git = testing::git(root);
        git.environment.retain(|(name, _)| name != "PATH");
        let path = format!("{}:{path}", bin.display());
        git.environment.push(("PATH".into(), path.into()));
        Snapshots {
            git,
            helper: Helper::here(),
            checkout: root.join("repo"),
            scratch: root.join("scratch"),
            limits: Limits::default(),
            clean: Clean::default(),
        }
    }

    fn looks(&self) -> usize {
        let looks = fs::read_to_string(self.directory.path().join("looks"));
        looks.unwrap_or_default().lines().count()
    }

    /// Waits for the look of this number.
    async fn begun(&self, look: usize) {
        while self.looks() < look {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets these looks go, each when it has begun: before, the one before it could take the word for itself.
    async fn let_go(&self, looks: std::ops::RangeInclusive<usize>) {
        for look in looks {
            self.begun(look).await;
            let gate = self.directory.path().join("gate");
            let opened = tokio::task::spawn_blocking(move || fs::write(gate, "go\n"));
            opened.await.unwrap().unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_neither_wait_for_git_nor_is_it_started_twice() {
    let disk = Disk::new();
    let mut engine = disk.engine_of(u64::MAX, Some(disk.gated()));
    disk.append(TRANSCRIPT, &line(1));
    let hurry = engine.setup.hurry.clone();
    let saved = async {
        disk.begun(1).await;
        // The conversation is in the store while git waits. Now the container ends.
        assert_eq!(disk.content(TRANSCRIPT).await, line(1));
        hurry.cancel();
    };
    let (done, ()) = tokio::join!(engine.backup("now", Vec::new(), &disk.masks), saved);
    let done = done.unwrap();
    assert!(done.taken && done.unreadable.len() == 1, "{done:?}");
    assert!(
        done.unreadable[0].reason.contains("the container ends"),
        "{done:?}"
    );
    // The next one waits for the same git, and looks again because that began before.
    engine.setup.hurry = CancellationToken::new();
    disk.append(TRANSCRIPT, &line(2));
    let (done, ()) = tokio::join!(disk.backup(&mut engine), disk.let_go(1..=2));
    assert!(done.taken && done.unreadable.is_empty(), "{done:?}");
    assert_eq!(disk.looks(), 2);
    let store = disk.store();
    let newest = store.newest().await.unwrap().unwrap();
    assert_eq!(Some(&newest.id), done.snapshot.as_ref());
    assert!(newest.code.is_some());
    let file = |kind| newest.files.iter().find(|file| file.kind == kind).unwrap();
    let transcript = store.read_file(&newest, file(Kind::Conversation), 1 << 20);
    assert_eq!(
        transcript.await.unwrap(),
        [line(1), line(2)].concat().as_bytes()
    );
    let bundle = store.read_file(&newest, file(Kind::Code), 1 << 20).await;
    assert!(bundle.unwrap().starts_with(b"# v"));
    // Nothing changed: one look, no snapshot.
    let (done, ()) = tokio::join!(disk.backup(&mut engine), disk.let_go(3..=3));
    assert!(!done.taken && done.unreadable.is_empty(), "{done:?}");
}

#[tokio::test]
async fn a_bundle_is_what_git_wrote_and_not_what_became_of_it() {
    let disk = Disk::new();
    let mut engine = disk.engine();
    let bundle = disk.directory.path().join("bundle");
    fs::write(&bundle, "# v2 and what an agent wrote after it").unwrap();
    let Setup {
        collector, sink, ..
    } = &mut engine.setup;
    let mut draft = Draft::new(collector, &disk.masks, sink);
    draft
        .take_bundle(&Helper::here(), &bundle, 4)
        .await
        .unwrap();
    let changes = draft.finish().await.unwrap();
    assert_eq!(changes[&bundle::key()].good.bytes, 4);
    let short = draft.take_bundle(&Helper::here(), &bundle, 1000).await;
    assert!(matches!(short, Err(DraftError::Collect(_))), "{short:?}");
}

#[tokio::test]
async fn what_is_left_out_for_a_secret_is_said_once() {
    let mut disk = Disk::new();
    disk.masks = Masks::new(&[Secret::new("sk-ant-0123456789".into())]);
    let root = disk.directory.path().to_owned();
    repo::with(&root.join("repo"), &[("a.txt", "a\n")]).unwrap();
    fs::write(root.join("repo/.env"), "KEY=sk-ant-0123456789\n").unwrap();
    let snapshots = Snapshots {
        git: testing::git(&root),
        helper: Helper::here(),
        checkout: root.join("repo"),
        scratch: root.join("scratch"),
        limits: Limits::default(),
        clean: Clean::default(),
    };
    let mut engine = disk.engine_of(u64::MAX, Some(snapshots));
    let done = disk.backup(&mut engine).await;
    let said: Vec<&str> = done.guarded.iter().map(|one| one.reason.as_str()).collect();
    assert!(
        said.len() == 1 && said[0].ends_with("files: .env"),
        "{done:?}"
    );
    let newest = disk.store().newest().await.unwrap().unwrap();
    assert_eq!(newest.code.unwrap()["left_out"][0]["path"], ".env");
    // Something else changed.
    fs::write(root.join("repo/b.txt"), "b\n").unwrap();
    let done = disk.backup(&mut engine).await;
    assert!(done.taken && done.guarded.is_empty(), "{done:?}");
}
