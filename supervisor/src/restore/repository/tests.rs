//! From a snapshot back to a checkout, with the real git.

use std::fs;

use whim_kit::repo;

use super::*;
use crate::backup::code::{BUNDLE, Limits};
use crate::backup::mask::Masks;
use crate::backup::snapshot::{Clean, Snapshot, Snapshots};
use crate::boot::git::testing;

struct Lab {
    directory: tempfile::TempDir,
    git: Git,
    helper: Helper,
}

impl Lab {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let git = testing::git(directory.path());
        let remote = directory.path().join("remote");
        repo::with(&remote, &[("README.md", "hello\n"), ("kept.txt", "kept\n")]).unwrap();
        repo::git(directory.path(), &["clone", "-q", "remote", "repo"]).unwrap();
        let helper = Helper::here();
        Self {
            directory,
            git,
            helper,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.at("repo").join(name), content).unwrap();
    }

    async fn snapshot(&self) -> Code {
        let snapshots = Snapshots {
            git: self.git.clone(),
            helper: self.helper.clone(),
            checkout: self.at("repo"),
            scratch: self.at("scratch"),
            limits: Limits::default(),
            clean: Clean::default(),
        };
        match snapshots.take(None, &Masks::default()).await.unwrap() {
            Snapshot::Taken { code, .. } => *code,
            other => panic!("{other:?}"),
        }
    }

    async fn restore(&self, code: &Code, branch: Option<&str>) -> Result<Outcome, RepositoryError> {
        let repository = Repository {
            git: &self.git,
            helper: &self.helper,
            checkout: &self.at("back"),
            remote: None,
            branch: branch.map(str::to_owned),
        };
        repository
            .restore(code, &self.at("scratch").join(BUNDLE))
            .await
    }

    fn told(&self, checkout: &str, arguments: &[&str]) -> String {
        repo::git(&self.at(checkout), arguments).unwrap()
    }

    /// That a question has the same answer before and after.
    fn same(&self, arguments: &[&str]) {
        let (before, after) = (self.told("repo", arguments), self.told("back", arguments));
        assert_eq!(before, after, "{arguments:?}");
    }
}

/// Branches, commits, staged, changed, deleted and untracked files.
async fn busy(lab: &Lab) -> Code {
    let git = |arguments: &[&str]| lab.told("repo", arguments);
    git(&["checkout", "-q", "-b", "side"]);
    lab.write("side.txt", "side\n");
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "Side"]);
    git(&["checkout", "-q", "-b", "whim-x", "main"]);
    lab.write("mine.txt", "mine\n");
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "Mine"]);
    lab.write("stashed.txt", "stashed\n");
    git(&["stash", "-q", "-u"]);
    lab.write("README.md", "staged\n");
    git(&["add", "README.md"]);
    lab.write("README.md", "changed\n");
    lab.write("new.txt", "new\n");
    fs::remove_file(lab.at("repo/kept.txt")).unwrap();
    lab.snapshot().await
}

#[tokio::test]
async fn a_checkout_comes_back_as_it_was() {
    let lab = Lab::new();
    let code = busy(&lab).await;
    let outcome = lab.restore(&code, None).await.unwrap();
    assert_eq!(outcome.branch.as_deref(), Some("whim-x"));
    lab.same(&["status", "--porcelain"]);
    lab.same(&["symbolic-ref", "HEAD"]);
    lab.same(&["log", "--format=%H %s", "--branches"]);
    lab.same(&["diff"]);
    lab.same(&["diff", "--cached"]);
    lab.same(&["stash", "show", "-p", "--include-untracked"]);
    lab.same(&["remote", "get-url", "origin"]);
    assert_eq!(fs::read_to_string(lab.at("back/new.txt")).unwrap(), "new\n");
    let refs = lab.told(
        "back",
        &["for-each-ref", "--format=%(refname)", "refs/whim"],
    );
    assert_eq!(refs, "", "nothing of ours is left");
}

#[tokio::test]
async fn a_fork_is_a_new_branch_with_the_same_changes() {
    let lab = Lab::new();
    let code = busy(&lab).await;
    let outcome = lab.restore(&code, Some("whim-fork")).await.unwrap();
    assert_eq!(outcome.branch.as_deref(), Some("whim-fork"));
    lab.same(&["status", "--porcelain"]);
    lab.same(&["rev-parse", "HEAD"]);
    assert_eq!(
        lab.told("back", &["symbolic-ref", "--short", "HEAD"]),
        "whim-fork"
    );
    let refused = Lab::new();
    let code = busy(&refused).await;
    let refused = refused.restore(&code, Some("side")).await;
    assert!(matches!(refused, Err(RepositoryError::BranchExists { .. })));
}

#[tokio::test]
async fn nothing_that_is_there_is_overwritten_and_a_try_that_broke_off_is_repeated() {
    let lab = Lab::new();
    let code = busy(&lab).await;
    fs::create_dir(lab.at("back")).unwrap();
    fs::write(lab.at("back/mine"), "mine").unwrap();
    let refused = lab.restore(&code, None).await;
    assert!(
        matches!(refused, Err(RepositoryError::InTheWay { .. })),
        "{refused:?}"
    );
    assert_eq!(fs::read_to_string(lab.at("back/mine")).unwrap(), "mine");
    fs::remove_file(lab.at("back/mine")).unwrap();
    // Broken off after some files were written.
    fs::rename(lab.at("remote"), lab.at("away")).unwrap();
    let broken = lab.restore(&code, None).await;
    assert!(
        matches!(&broken, Err(RepositoryError::Unreachable { .. })),
        "{broken:?}"
    );
    fs::rename(lab.at("away"), lab.at("remote")).unwrap();
    fs::write(lab.at("back/new.txt"), "half").unwrap();
    lab.restore(&code, None).await.unwrap();
    lab.same(&["status", "--porcelain"]);
    assert_eq!(fs::read_to_string(lab.at("back/new.txt")).unwrap(), "new\n");
    let again = lab.restore(&code, None).await;
    assert!(
        matches!(again, Err(RepositoryError::InTheWay { .. })),
        "a finished one is somebody's work"
    );
}

#[tokio::test]
async fn commits_that_the_remote_lost_are_told() {
    let lab = Lab::new();
    let code = busy(&lab).await;
    fs::remove_dir_all(lab.at("remote")).unwrap();
    repo::with(&lab.at("remote"), &[("other", "other\n")]).unwrap();
    let refused = lab.restore(&code, None).await;
    assert!(
        matches!(refused, Err(RepositoryError::Lost { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn without_a_remote_the_bundle_is_enough_and_a_detached_head_stays_one() {
    let lab = Lab::new();
    lab.told("repo", &["remote", "remove", "origin"]);
    lab.told("repo", &["checkout", "-q", "--detach"]);
    lab.write("new.txt", "new\n");
    let code = lab.snapshot().await;
    let outcome = lab.restore(&code, None).await.unwrap();
    assert_eq!(outcome.branch, None);
    lab.same(&["status", "--porcelain"]);
    lab.same(&["rev-parse", "HEAD"]);
    repo::git(&lab.at("back"), &["symbolic-ref", "HEAD"]).unwrap_err();
}

#[tokio::test]
async fn an_empty_repository_comes_back_with_its_files() {
    let lab = Lab::new();
    fs::remove_dir_all(lab.at("repo")).unwrap();
    repo::empty(&lab.at("repo")).unwrap();
    lab.write("first.txt", "first\n");
    let code = lab.snapshot().await;
    lab.restore(&code, None).await.unwrap();
    lab.same(&["status", "--porcelain"]);
    assert_eq!(
        fs::read_to_string(lab.at("back/first.txt")).unwrap(),
        "first\n"
    );
}
