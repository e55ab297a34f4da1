//! The checkout, brought back: what the remote has from there, the rest from the snapshot's bundle, then the work tree as
//! changes that are not committed.
//!
//! All of it is git's work and done as the agents' user. Nothing that is there is overwritten: the directory must be
//! empty, or hold a restore of ours that did not come to its end, which is done again. The mark in `.git` is the boot's
//! ([`crate::boot::repository::MARK`]), so a boot that follows leaves the checkout as it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backup::code::{Code, Invalid};
use crate::boot::git::{Git, GitError, QUICK};
use crate::boot::repository::{BEGUN, Checkout, DONE, MARK, MARK_SIZE};
use crate::helper::{Helper, HelperError};

/// For fetching and unpacking.
const PATIENCE: Duration = Duration::from_secs(30 * 60);
/// Commits beside the bundle's that are looked for one by one.
const MOST_LOOKED_FOR: usize = 1000;

/// Where a repository is restored to.
#[derive(Debug)]
pub struct Repository<'a> {
    pub git: &'a Git,
    pub helper: &'a Helper,
    pub checkout: &'a Path,
    /// Fetched from, in place of the snapshot's remote. Without a login.
    pub remote: Option<String>,
    /// A new branch at the snapshot's `HEAD`; `None`: the snapshot's own branch.
    pub branch: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Checked out; `None`: a detached `HEAD`.
    pub branch: Option<String>,
    /// What a person should know, a sentence each.
    pub notes: Vec<String>,
}

/// Why the checkout was not brought back.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Helper(#[from] HelperError),
    #[error(
        "{path} is not empty: nothing in it is overwritten; move it away, or restore into an empty root",
        path = path.display()
    )]
    InTheWay { path: PathBuf },
    #[error(
        "the snapshot builds on commits of {url}, which cannot be reached: {reason}; check the URL, the network and the \
         credentials, or name another with --repo"
    )]
    Unreachable { url: String, reason: String },
    #[error(
        "commit {commit}, which the snapshot builds on, is not in {url} any more; name a repository that has it with --repo"
    )]
    Lost { commit: String, url: String },
    #[error(
        "the snapshot builds on commit {commit} of a remote that it does not name; name it with --repo"
    )]
    NoRemote { commit: String },
    #[error("the snapshot's bundle does not hold its work tree {commit}")]
    Incomplete { commit: String },
    #[error("branch {branch:?} is there already; name another with --branch")]
    BranchExists { branch: String },
}

impl RepositoryError {
    /// The network, not what is here.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Lost { .. } | Self::NoRemote { .. }
        )
    }
}

impl Repository<'_> {
    /// Whether nothing is in the way; changes nothing.
    ///
    /// # Errors
    /// [`RepositoryError::InTheWay`].
    pub async fn check(&self) -> Result<(), RepositoryError> {
        let entries = match self.helper.list(self.checkout).await {
            Ok(entries) => entries,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let only_git = entries.iter().all(|entry| entry.name == ".git");
        if entries.is_empty() || (self.is_begun().await? || (only_git && self.is_bare().await?)) {
            return Ok(());
        }
        Err(RepositoryError::InTheWay {
            path: self.checkout.to_owned(),
        })
    }

    /// A restore of ours that did not end.
    async fn is_begun(&self) -> Result<bool, HelperError> {
        let mark = self.checkout.join(MARK);
        let mark = self.helper.read_optional(&mark, MARK_SIZE).await?;
        Ok(mark.is_some_and(|(content, _)| content.trim_ascii() == BEGUN.as_bytes()))
    }

    /// A repository that somebody made and nobody used.
    async fn is_bare(&self) -> Result<bool, GitError> {
        let refs = ["for-each-ref", "--count=1"];
        let refs = self.git.capture(self.checkout, &refs, QUICK).await?;
        Ok(refs.exit.success() && refs.stdout.is_empty())
    }

    /// Brings it back. `bundle` must be readable for the agents' user.
    ///
    /// # Errors
    /// [`RepositoryError`]; what was done until then is done again by the next try.
    pub async fn restore(&self, code: &Code, bundle: &Path) -> Result<Outcome, RepositoryError> {
        code.check()?;
        self.check().await?;
        let mut outcome = Outcome::default();
        self.helper.make_directory(self.checkout, 0o755).await?;
        let format = format!("--object-format={}", code.object_format);
        self.run(&["init", "--quiet", "--template=", &format])
            .await?;
        self.mark(BEGUN).await?;
        let remote = self.remote.as_ref().or(code.remote.as_ref());
        self.fetch(code, remote, &mut outcome).await?;
        let file = bundle.to_string_lossy();
        let unpacked = self.run(&["bundle", "unbundle", &file]).await?;
        if !self.has(&code.work_tree).await? {
            return Err(RepositoryError::Incomplete {
                commit: code.work_tree.clone(),
            });
        }
        self.branches(code, &unpacked, &mut outcome).await?;
        outcome.branch = self.head(code).await?;
        self.work_tree(code).await?;
        let stash = unpacked
            .lines()
            .find_map(|line| line.strip_suffix(" refs/stash"));
        if let Some(stash) = stash {
            self.run(&["stash", "store", "--message", "restored", stash])
                .await?;
        }
        let missing = self.submodules(remote).await;
        if !missing.is_empty() {
            let missing = missing.join(", ");
            outcome
                .notes
                .push(format!("submodules that could not be had: {missing}"));
        }
        outcome.notes.extend(said(code));
        let branch = outcome.branch.as_deref().unwrap_or("HEAD");
        self.mark(&format!("{DONE}{branch}")).await?;
        Ok(outcome)
    }

    async fn run(&self, arguments: &[&str]) -> Result<String, GitError> {
        self.git.run(self.checkout, arguments, PATIENCE).await
    }

    async fn mark(&self, word: &str) -> Result<(), HelperError> {
        let path = self.checkout.join(MARK);
        let content = format!("{word}\n").into_bytes();
        self.helper.write(&path, 0o644, None, content).await
    }

    async fn has(&self, commit: &str) -> Result<bool, GitError> {
        let commit = format!("{commit}^{{commit}}");
        let asked = ["cat-file", "-e", &commit];
        let asked = self.git.capture(self.checkout, &asked, QUICK).await?;
        Ok(asked.exit.success())
    }

    /// What the remote has. Without it only a bundle that is whole can be restored.
    async fn fetch(
        &self,
        code: &Code,
        remote: Option<&String>,
        outcome: &mut Outcome,
    ) -> Result<(), RepositoryError> {
        let Some(url) = remote else {
            return match code.bases.first() {
                Some(commit) => Err(RepositoryError::NoRemote {
                    commit: commit.clone(),
                }),
                None => Ok(()),
            };
        };
        let known = ["remote", "get-url", "origin"];
        let known = self.git.capture(self.checkout, &known, QUICK).await?;
        let verb = if known.exit.success() {
            "set-url"
        } else {
            "add"
        };
        self.run(&["remote", verb, "origin", url]).await?;
        let fetched = self
            .run(&[
                "fetch",
                "--quiet",
                "--prune",
                "--no-write-fetch-head",
                "origin",
                "+refs/heads/*:refs/remotes/origin/*",
            ])
            .await;
        match fetched {
            Ok(_) => {}
            Err(GitError::Failed { stderr, .. }) if code.bases.is_empty() => {
                let note = format!(
                    "{url} cannot be reached, and is not needed for the snapshot: {stderr}"
                );
                outcome.notes.push(note);
            }
            Err(GitError::Failed { stderr, .. }) if !crate::files::says_disk_full(&stderr) => {
                return Err(RepositoryError::Unreachable {
                    url: url.clone(),
                    reason: stderr,
                });
            }
            Err(error) => return Err(error.into()),
        }
        for commit in &code.bases {
            if self.has(commit).await? {
                continue;
            }
            // Its branch may be gone or rewritten; many servers give a commit by its name still.
            let by_name = [
                "fetch",
                "--quiet",
                "--no-write-fetch-head",
                "origin",
                commit,
            ];
            match self.run(&by_name).await {
                Ok(_) => {}
                Err(GitError::Failed { .. }) => {
                    return Err(RepositoryError::Lost {
                        commit: commit.clone(),
                        url: url.clone(),
                    });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// All local branches at once, as a file of refs: the repository is new and has none.
    async fn branches(
        &self,
        code: &Code,
        unpacked: &str,
        outcome: &mut Outcome,
    ) -> Result<(), RepositoryError> {
        let mut text = String::from("# pack-refs with: sorted \n");
        let mut branches: Vec<_> = code.branches.iter().collect();
        branches.sort_by(|one, other| one.name.cmp(&other.name));
        let mut looked = 0;
        for branch in branches {
            let name = format!("refs/heads/{}", branch.name);
            let there = unpacked.lines().any(|line| {
                line.strip_suffix(name.as_str())
                    .is_some_and(|rest| rest.ends_with(' '))
            });
            if !there {
                looked += 1;
                if looked > MOST_LOOKED_FOR || !self.has(&branch.commit).await? {
                    let name = &branch.name;
                    outcome.notes.push(format!(
                        "branch {name} was on the remote and is not there any more"
                    ));
                    continue;
                }
            }
            text.push_str(&format!("{} {name}\n", branch.commit));
        }
        let path = self.checkout.join(".git/packed-refs");
        self.helper
            .write(&path, 0o644, None, text.into_bytes())
            .await?;
        Ok(())
    }

    /// Points `HEAD` to where it belongs.
    async fn head(&self, code: &Code) -> Result<Option<String>, RepositoryError> {
        let branch = match (&self.branch, &code.branch) {
            (Some(new), _) => {
                let exists = code.branches.iter().any(|branch| branch.name == *new);
                if exists {
                    return Err(RepositoryError::BranchExists {
                        branch: new.clone(),
                    });
                }
                Some(new)
            }
            (None, same) => same.as_ref(),
        };
        match (branch, &code.head) {
            (Some(branch), head) => {
                let name = format!("refs/heads/{branch}");
                self.run(&["symbolic-ref", "HEAD", &name]).await?;
                if let Some(head) = head {
                    self.run(&["update-ref", &name, head]).await?;
                }
            }
            (None, Some(head)) => {
                self.run(&["update-ref", "--no-deref", "HEAD", head])
                    .await?;
            }
            (None, None) => {}
        }
        Ok(branch.cloned())
    }

    /// The files as they were, the index as it was, so that what was not committed is not committed.
    async fn work_tree(&self, code: &Code) -> Result<(), GitError> {
        self.run(&["read-tree", "--reset", "-u", &code.work_tree])
            .await?;
        match code.staged.as_ref().or(code.head.as_ref()) {
            Some(commit) => self.run(&["read-tree", "--reset", commit]).await?,
            None => self.run(&["read-tree", "--empty"]).await?,
        };
        // Says with its exit that files differ, which they may.
        let refresh = ["update-index", "-q", "--refresh"];
        self.git.capture(self.checkout, &refresh, PATIENCE).await?;
        Ok(())
    }

    async fn submodules(&self, remote: Option<&String>) -> Vec<String> {
        let checkout = Checkout {
            directory: self.checkout.to_owned(),
            url: remote.cloned().unwrap_or_default(),
            mirror: None,
            source_branch: None,
            branch: None,
            depth: None,
        };
        checkout.submodules(self.git).await
    }
}

/// What a snapshot does not bring back.
fn said(code: &Code) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(operation) = &code.operation {
        notes.push(format!(
            "a {operation} was under way: the files are as they were, the {operation} has to be begun again"
        ));
    }
    if !code.submodules.is_empty() {
        let paths = code.submodules.join(", ");
        notes.push(format!(
            "what was changed inside of submodules was not saved: {paths}"
        ));
    }
    notes.extend(code.secrets());
    if !code.left_out.is_empty() {
        let shown: Vec<String> = code
            .left_out
            .iter()
            .take(20)
            .map(|left| format!("{} ({} bytes)", left.path, left.bytes))
            .collect();
        let more = code.left_out.len().saturating_sub(shown.len()) as u64 + code.left_out_more;
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        notes.push(format!(
            "left out of the snapshot: {}{more}",
            shown.join(", ")
        ));
    }
    notes
}

#[cfg(test)]
mod tests;
