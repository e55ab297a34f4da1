//! Snapshots of real repositories with the real git.

use std::fs;

use whim_kit::repo;

use super::*;
use crate::boot::git::testing;

pub(super) struct Lab {
    directory: tempfile::TempDir,
    pub(super) snapshots: Snapshots,
}

impl Lab {
    /// A clone of a remote with one commit, in a checkout with an identity.
    pub(super) fn cloned() -> Self {
        let lab = Self::without();
        let remote = lab.directory.path().join("remote");
        repo::with(&remote, &[("README.md", "hello\n"), ("kept.txt", "kept\n")]).unwrap();
        repo::git(lab.directory.path(), &["clone", "-q", "remote", "repo"]).unwrap();
        lab
    }

    /// No repository yet.
    pub(super) fn without() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots {
            git: testing::git(directory.path()),
            helper: Helper::here(),
            checkout: directory.path().join("repo"),
            scratch: directory.path().join("scratch"),
            limits: Limits {
                file: 1000,
                total: 100_000,
            },
            clean: Clean::default(),
        };
        Self {
            directory,
            snapshots,
        }
    }

    pub(super) fn git(&self, arguments: &[&str]) -> String {
        repo::git(&self.snapshots.checkout, arguments).unwrap()
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        let path = self.snapshots.checkout.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(super) async fn take(&self) -> Code {
        match self.snapshots.take(None, &Masks::default()).await.unwrap() {
            Snapshot::Taken { code, .. } => *code,
            other => panic!("{other:?}"),
        }
    }

    /// A file of the snapshot's work tree, as whoever has remote and bundle sees it.
    pub(super) fn saved(&self, code: &Code, name: &str) -> Option<String> {
        let there = tempfile::tempdir().unwrap();
        repo::empty(there.path()).unwrap();
        if let Some(remote) = &code.remote {
            repo::git(
                there.path(),
                &["fetch", "-q", remote, "+refs/heads/*:refs/remotes/origin/*"],
            )
            .unwrap();
        }
        let bundle = self.snapshots.scratch.join(BUNDLE);
        let work_tree = format!("{0}:{0}", code::WORK_TREE_REF);
        repo::git(
            there.path(),
            &["fetch", "-q", bundle.to_str().unwrap(), &work_tree],
        )
        .unwrap();
        repo::git(
            there.path(),
            &["show", &format!("{}:{name}", code.work_tree)],
        )
        .ok()
    }

    /// All that must not change: refs, index, status, configuration.
    fn state(&self) -> (String, Vec<u8>, String, Vec<String>) {
        let refs = self.git(&["for-each-ref"]);
        let index = fs::read(self.snapshots.checkout.join(".git/index")).unwrap_or_default();
        let mut inside: Vec<String> = walk(&self.snapshots.checkout.join(".git"));
        inside.sort();
        (
            refs,
            index,
            self.git(&["--no-optional-locks", "status", "--porcelain=v2"]),
            inside,
        )
    }
}

fn walk(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path.display().to_string()]
            }
        })
        .collect()
}

#[tokio::test]
async fn everything_that_is_not_pushed_is_saved_and_nothing_is_touched() {
    let lab = Lab::cloned();
    lab.git(&["checkout", "-q", "-b", "side"]);
    lab.write("side.txt", "side\n");
    lab.git(&["add", "-A"]);
    lab.git(&["commit", "-q", "-m", "Side"]);
    lab.git(&["checkout", "-q", "-b", "whim-x", "main"]);
    lab.write("README.md", "changed\n");
    lab.git(&["add", "README.md"]);
    lab.write("README.md", "changed twice\n");
    lab.write("deep/new.txt", "new\n");
    lab.write(".gitignore", "ignored\n");
    lab.write("ignored", "secret\n");
    fs::remove_file(lab.snapshots.checkout.join("kept.txt")).unwrap();
    let before = lab.state();
    let code = lab.take().await;
    assert_eq!(lab.state(), before, "the checkout was touched");
    assert_eq!(code.branch.as_deref(), Some("whim-x"));
    assert_eq!(code.bases, [lab.git(&["rev-parse", "main"])]);
    assert_eq!(
        lab.saved(&code, "README.md").as_deref(),
        Some("changed twice")
    );
    assert_eq!(lab.saved(&code, "deep/new.txt").as_deref(), Some("new"));
    assert_eq!(lab.saved(&code, "ignored"), None);
    assert_eq!(lab.saved(&code, "kept.txt"), None, "a deletion is a change");
    assert!(code.staged.is_some());
    let bundle = lab.snapshots.scratch.join(BUNDLE);
    let heads = lab.git(&["bundle", "list-heads", bundle.to_str().unwrap()]);
    assert!(heads.contains("refs/heads/side"), "{heads}");
    assert!(code.branches.iter().any(|branch| branch.name == "main"));
}

#[tokio::test]
async fn an_unchanged_checkout_is_recognised_and_a_change_is_seen() {
    let lab = Lab::cloned();
    lab.write("new.txt", "1\n");
    let first = lab.take().await;
    let again = lab
        .snapshots
        .take(Some(&first.fingerprint), &Masks::default())
        .await
        .unwrap();
    assert_eq!(again, Snapshot::Unchanged);
    lab.write("new.txt", "2\n");
    let changed = lab
        .snapshots
        .take(Some(&first.fingerprint), &Masks::default())
        .await
        .unwrap();
    let Snapshot::Taken { code, .. } = changed else {
        panic!("{changed:?}");
    };
    assert_eq!(lab.saved(&code, "new.txt").as_deref(), Some("2"));
    // Only where branches point changed.
    lab.git(&["branch", "another"]);
    let branched = lab
        .snapshots
        .take(Some(&code.fingerprint), &Masks::default())
        .await
        .unwrap();
    assert!(matches!(branched, Snapshot::Taken { .. }));
}

#[tokio::test]
async fn without_a_repository_there_is_none_and_an_empty_one_is_saved() {
    let lab = Lab::without();
    fs::create_dir(&lab.snapshots.checkout).unwrap();
    assert_eq!(
        lab.snapshots.take(None, &Masks::default()).await.unwrap(),
        Snapshot::None
    );
    repo::empty(&lab.snapshots.checkout).unwrap();
    lab.write("first.txt", "first\n");
    let code = lab.take().await;
    assert_eq!((code.head.clone(), code.remote.clone()), (None, None));
    assert_eq!(code.branch.as_deref(), Some("main"));
    assert_eq!(lab.saved(&code, "first.txt").as_deref(), Some("first"));
}

#[tokio::test]
async fn a_repository_without_a_remote_is_saved_whole() {
    let lab = Lab::without();
    repo::with(&lab.snapshots.checkout, &[("a", "a\n")]).unwrap();
    lab.git(&["checkout", "-q", "--detach"]);
    lab.write("b", "b\n");
    let code = lab.take().await;
    assert_eq!(
        (code.branch.clone(), code.bases.clone()),
        (None, Vec::new())
    );
    assert_eq!(
        code.head.as_deref(),
        Some(lab.git(&["rev-parse", "HEAD"]).as_str())
    );
    assert_eq!(lab.saved(&code, "b").as_deref(), Some("b"));
}

#[tokio::test]
async fn a_merge_with_conflicts_is_saved_as_it_stands() {
    let lab = Lab::cloned();
    lab.git(&["checkout", "-q", "-b", "one"]);
    lab.write("README.md", "one\n");
    lab.git(&["commit", "-q", "-a", "-m", "One"]);
    lab.git(&["checkout", "-q", "-b", "two", "main"]);
    lab.write("README.md", "two\n");
    lab.git(&["commit", "-q", "-a", "-m", "Two"]);
    repo::git(&lab.snapshots.checkout, &["merge", "-q", "one"]).unwrap_err();
    let before = lab.state();
    let code = lab.take().await;
    assert_eq!(lab.state(), before);
    assert_eq!(code.operation.as_deref(), Some("merge"));
    assert_eq!(code.staged, None);
    let text = lab.saved(&code, "README.md").unwrap();
    assert!(text.contains("<<<<<<<") && text.contains("one"), "{text}");
}

#[tokio::test]
async fn what_is_too_large_is_left_out_and_told_also_when_it_grew() {
    let lab = Lab::cloned();
    lab.write("grows.bin", "small\n");
    lab.write("we ird*[x].bin", &"x".repeat(2000));
    let code = lab.take().await;
    assert_eq!(lab.saved(&code, "grows.bin").as_deref(), Some("small"));
    lab.write("grows.bin", &"y".repeat(5000));
    let code = lab.take().await;
    let mut names: Vec<_> = code
        .left_out
        .iter()
        .map(|left| (left.path.as_str(), left.bytes))
        .collect();
    names.sort_unstable();
    assert_eq!(names, [("grows.bin", 5000), ("we ird*[x].bin", 2000)]);
    assert_eq!(lab.saved(&code, "grows.bin"), None);
    assert_eq!(lab.saved(&code, "we ird*[x].bin"), None);
    // Tracked files are saved whatever their size.
    lab.write("README.md", &"z".repeat(5000));
    let code = lab.take().await;
    assert_eq!(lab.saved(&code, "README.md").unwrap().len(), 5000);
}

#[tokio::test]
async fn submodules_and_inner_repositories_are_named() {
    let lab = Lab::cloned();
    let inner = lab.directory.path().join("inner");
    repo::with(&inner, &[("i", "i\n")]).unwrap();
    lab.git(&[
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        inner.to_str().unwrap(),
        "libs/inner",
    ]);
    lab.git(&["commit", "-q", "-m", "Add a submodule"]);
    repo::with(&lab.snapshots.checkout.join("nested"), &[("n", "n\n")]).unwrap();
    lab.write("libs/inner/dirty.txt", "dirty\n");
    let code = lab.take().await;
    assert_eq!(code.submodules, ["libs/inner"]);
    let left: Vec<_> = code
        .left_out
        .iter()
        .map(|left| (left.path.as_str(), left.reason))
        .collect();
    assert_eq!(left, [("nested", Reason::Repository)]);
}

#[tokio::test]
async fn nothing_that_a_repository_plants_is_run_when_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    let lab = Lab::without();
    let evidence = directory.path().join("evidence");
    repo::hostile(&lab.snapshots.checkout, &evidence).unwrap();
    lab.write("slug.sh", "changed\n");
    drop(fs::remove_file(&evidence));
    let code = lab.take().await;
    assert_eq!(lab.saved(&code, "slug.sh").as_deref(), Some("changed"));
    let sprung = fs::read_to_string(&evidence).unwrap_or_default();
    assert_eq!(sprung, "", "traps were sprung");
}

#[tokio::test]
async fn a_spoilt_scratch_repository_is_begun_anew() {
    let lab = Lab::cloned();
    lab.write("a", "a\n");
    lab.take().await;
    fs::write(lab.snapshots.scratch.join("index"), "spoilt").unwrap();
    fs::write(lab.snapshots.scratch.join("index.lock"), "").unwrap();
    let code = lab.take().await;
    assert_eq!(lab.saved(&code, "a").as_deref(), Some("a"));
}

#[tokio::test]
async fn a_sparse_checkout_deletes_nothing() {
    let lab = Lab::cloned();
    lab.write("far/away.txt", "away\n");
    lab.git(&["add", "-A"]);
    lab.git(&["commit", "-q", "-m", "Far"]);
    lab.git(&[
        "sparse-checkout",
        "set",
        "--no-cone",
        "/README.md",
        "/new.txt",
    ]);
    assert!(!lab.snapshots.checkout.join("far").exists());
    lab.write("new.txt", "new\n");
    let code = lab.take().await;
    assert_eq!(lab.saved(&code, "far/away.txt").as_deref(), Some("away"));
    assert_eq!(lab.saved(&code, "new.txt").as_deref(), Some("new"));
}

#[tokio::test]
async fn a_large_file_pointer_repository_and_a_shallow_clone_are_saved() {
    let lab = Lab::without();
    let remote = lab.directory.path().join("remote");
    repo::with(
        &remote,
        &[(
            ".gitattributes",
            "*.bin filter=lfs diff=lfs merge=lfs -text\n",
        )],
    )
    .unwrap();
    repo::git(&remote, &["commit", "-q", "--allow-empty", "-m", "More"]).unwrap();
    let url = format!("file://{}", remote.display());
    repo::git(
        lab.directory.path(),
        &["clone", "-q", "--depth=1", &url, "repo"],
    )
    .unwrap();
    lab.write("a.bin", "content\n");
    let code = lab.take().await;
    assert_eq!(code.bases.len(), 1);
    assert_eq!(lab.saved(&code, "a.bin").as_deref(), Some("content"));
}
