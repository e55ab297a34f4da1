//! Known secrets in real repositories: whatever way one got in, no object of the bundle has it, and the rest is saved.

use std::fs;

use whim_kit::repo;

use super::tests::Lab;
use super::*;
use crate::config::Secret;

const SECRET: &str = "sk-ant-hunter2-hunter2";

fn masks() -> Masks {
    Masks::new(&[Secret::new(SECRET.to_owned())])
}

impl Lab {
    async fn clean(&self) -> Code {
        match self.snapshots.take(None, &masks()).await.unwrap() {
            Snapshot::Taken { code, .. } => *code,
            other => panic!("{other:?}"),
        }
    }

    /// Everything that is in the bundle, uncompressed, with its refs.
    fn bundled(&self, code: &Code) -> String {
        let there = tempfile::tempdir().unwrap();
        repo::empty(there.path()).unwrap();
        let git = |arguments: &[&str]| repo::git(there.path(), arguments).unwrap();
        if let Some(remote) = &code.remote {
            git(&["fetch", "-q", remote, "+refs/heads/*:refs/remotes/origin/*"]);
        }
        let bundle = self.snapshots.scratch.join(BUNDLE);
        let refs = git(&["bundle", "unbundle", bundle.to_str().unwrap()]);
        let objects = git(&["cat-file", "--batch-all-objects", "--batch", "--buffer"]);
        format!("{refs}{objects}")
    }

    fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "-q", "-m", message]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    async fn holds_no_secret(&self) -> Code {
        let code = self.clean().await;
        assert!(!self.bundled(&code).contains(SECRET));
        assert!(!serde_json::to_string(&code).unwrap().contains(SECRET));
        code
    }
}

fn secrets(code: &Code) -> Vec<&str> {
    let left = code.left_out.iter();
    let left = left.filter(|left| left.reason == Reason::Secret);
    left.map(|left| left.path.as_str()).collect()
}

#[tokio::test]
async fn files_of_the_work_tree_are_saved_without() {
    let lab = Lab::cloned();
    lab.write(".env", &format!("KEY={SECRET}\n"));
    lab.write("kept.txt", &format!("kept\n{SECRET}\n"));
    lab.write("README.md", "hello, changed\n");
    lab.write("new \"é\".txt", &format!("a\0b {SECRET}"));
    // Without masks it is in it, or the other assertions mean nothing.
    let code = lab.take().await;
    assert!(lab.bundled(&code).contains(SECRET));

    let code = lab.holds_no_secret().await;
    assert_eq!(secrets(&code), [".env", "kept.txt", "new \"é\".txt"]);
    assert_eq!(lab.saved(&code, "kept.txt").as_deref(), Some("kept"));
    assert_eq!(
        lab.saved(&code, "README.md").as_deref(),
        Some("hello, changed")
    );
    assert_eq!(lab.saved(&code, ".env"), None);
    assert!(code.secrets().unwrap().contains(".env, kept.txt"));
    // As it is, nothing is news.
    let again = lab.snapshots.take(Some(&code.fingerprint), &masks()).await;
    assert_eq!(again.unwrap(), Snapshot::Unchanged);
    // Once it is gone, the files are saved again.
    lab.write("kept.txt", "kept\nand more\n");
    let code = lab.holds_no_secret().await;
    assert_eq!(secrets(&code), [".env", "new \"é\".txt"]);
    assert_eq!(
        lab.saved(&code, "kept.txt").as_deref(),
        Some("kept\nand more")
    );
}

#[tokio::test]
async fn what_is_staged_is_not_saved_as_such() {
    let lab = Lab::cloned();
    lab.write("kept.txt", &format!("kept\n{SECRET}\n"));
    lab.git(&["add", "--all"]);
    lab.write("kept.txt", "kept, and taken out again\n");
    let code = lab.holds_no_secret().await;
    assert_eq!(
        (code.staged.as_ref(), secrets(&code)),
        (None, vec!["kept.txt"])
    );
}

#[tokio::test]
async fn commits_are_saved_up_to_it_and_the_rest_as_changes() {
    let lab = Lab::cloned();
    lab.git(&["branch", "clean"]);
    lab.write("good.txt", "good\n");
    let good = lab.commit("Good");
    lab.write("kept.txt", &format!("kept\n{SECRET}\n"));
    let bad = lab.commit("Bad");
    lab.git(&["branch", "aside"]);
    lab.write("kept.txt", "kept\n");
    lab.write("later.txt", "later\n");
    let later = lab.commit("Take it out");
    let before = lab.git(&["log", "--all", "--format=%H"]);

    let code = lab.holds_no_secret().await;
    assert_eq!(code.head, Some(good.clone()));
    let mut withheld = vec![bad, later];
    withheld.sort();
    assert_eq!(code.withheld, withheld);
    let branches: Vec<&str> = code.branches.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(branches, ["clean"]);
    assert_eq!(secrets(&code), Vec::<&str>::new());
    assert_eq!(lab.saved(&code, "later.txt").as_deref(), Some("later"));
    assert_eq!(lab.saved(&code, "good.txt").as_deref(), Some("good"));
    assert_eq!(lab.git(&["log", "--all", "--format=%H"]), before);

    // A good commit after the look is not taken for one that was found clean.
    lab.write("last.txt", "last\n");
    lab.commit("Last");
    let code = lab.holds_no_secret().await;
    assert_eq!((code.head, code.withheld.len()), (Some(good), 3));
}

#[tokio::test]
async fn messages_first_commits_and_stashes_are_looked_at() {
    let lab = Lab::without();
    fs::create_dir(&lab.snapshots.checkout).unwrap();
    repo::empty(&lab.snapshots.checkout).unwrap();
    lab.write("a.txt", "a\n");
    lab.commit(&format!("With {SECRET}"));
    let code = lab.holds_no_secret().await;
    assert_eq!((code.head, code.withheld.len()), (None, 1));
    assert_eq!(lab.take().await.withheld, Vec::<String>::new());

    let lab = Lab::cloned();
    lab.write("kept.txt", SECRET);
    lab.git(&["stash"]);
    let code = lab.holds_no_secret().await;
    assert!(!lab.bundled(&code).contains("refs/stash"));
    assert!(!code.withheld.is_empty());
}

#[tokio::test]
async fn a_secret_that_is_pushed_is_the_remotes_already() {
    let lab = Lab::cloned();
    lab.write("kept.txt", SECRET);
    let pushed = lab.commit("Pushed");
    lab.git(&["push", "-q", "origin", "HEAD:refs/heads/other"]);
    lab.write("README.md", "changed\n");
    let code = lab.clean().await;
    assert_eq!(
        (code.head.as_ref(), code.withheld.len()),
        (Some(&pushed), 0)
    );
    assert_eq!(lab.saved(&code, "README.md").as_deref(), Some("changed"));
}

/// What was found clean was so of the secrets that were known then.
#[tokio::test]
async fn a_secret_that_becomes_known_later_is_looked_for_everywhere() {
    let lab = Lab::cloned();
    lab.write("kept.txt", SECRET);
    lab.commit("Not known yet");
    let other = Masks::new(&[Secret::new("something-else".to_owned())]);
    let taken = lab.snapshots.take(None, &other).await.unwrap();
    assert!(matches!(taken, Snapshot::Taken { code, .. } if code.withheld.is_empty()));
    let known = [SECRET, "something-else"].map(|secret| Secret::new(secret.to_owned()));
    let both = Masks::new(&known);
    match lab.snapshots.take(None, &both).await.unwrap() {
        Snapshot::Taken { code, .. } => assert_eq!(code.withheld.len(), 1),
        other => panic!("{other:?}"),
    }
}
