//! The checkout: fetch, branch, submodules.
//!
//! Every step may be repeated: a supervisor that dies half-way leaves a repository into which the next one fetches again.
//! Nothing that an agent committed, or left uncommitted, is ever reset: once the branch is checked out the step is done.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::git::{Git, GitError, QUICK};
use crate::helper::Helper;

/// A fetch that moves for longer than this is a repository for a mirror or for `depth`.
const FETCH: Duration = Duration::from_secs(30 * 60);
/// Submodules may be as large as the repository.
const SUBMODULES: Duration = Duration::from_secs(30 * 60);

/// What is to be checked out. URLs are without credentials.
#[derive(Clone, Debug)]
pub struct Checkout {
    pub directory: PathBuf,
    pub url: String,
    /// Tried first; may be behind, may be down.
    pub mirror: Option<String>,
    /// Where the new branch starts; `None`: the remote's default.
    pub source_branch: Option<String>,
    pub branch: String,
    pub depth: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The branch was made, or the remote's branch of that name was taken up.
    Fresh { start: String },
    /// It was there already.
    Kept,
    /// The remote has no commit yet.
    Empty,
}

/// Why there is no checkout.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(
        "repository {url} cannot be reached: {reason}; check the URL, the network and the credentials"
    )]
    Unreachable { url: String, reason: String },
    #[error("branch {branch:?} does not exist in {url}; it has: {}", known.join(", "))]
    NoBranch {
        branch: String,
        url: String,
        known: Vec<String>,
    },
}

impl Checkout {
    /// Brings the directory to the branch.
    ///
    /// # Errors
    /// [`CheckoutError`].
    pub async fn run(&self, git: &Git, helper: &Helper) -> Result<Checked, CheckoutError> {
        let directory = self.directory.as_path();
        let interrupted = unlock(helper, directory).await;
        self.prepare(git).await?;
        if !interrupted && self.is_checked_out(git).await? {
            return Ok(Checked::Kept);
        }
        self.fetch(git).await?;
        let start = match self.start(git).await? {
            Some(start) => start,
            None => {
                git.run(
                    directory,
                    &[
                        "symbolic-ref",
                        "HEAD",
                        &format!("refs/heads/{}", self.branch),
                    ],
                    QUICK,
                )
                .await?;
                return Ok(Checked::Empty);
            }
        };
        // A crash during a checkout leaves the index locked and files half-written; nobody else works here yet.
        git.run(
            directory,
            &[
                "checkout",
                "--force",
                "--no-track",
                "-B",
                &self.branch,
                &start,
            ],
            FETCH,
        )
        .await?;
        self.submodules(git).await;
        Ok(Checked::Fresh { start })
    }

    async fn prepare(&self, git: &Git) -> Result<(), GitError> {
        let directory = self.directory.as_path();
        // Makes the repository, or leaves an existing one as it is. No template: it could bring hooks.
        git.run(directory, &["init", "--quiet", "--template="], QUICK)
            .await?;
        let known = git
            .capture(directory, &["remote", "get-url", "origin"], QUICK)
            .await?;
        if !known.exit.success() {
            git.run(directory, &["remote", "add", "origin", &self.url], QUICK)
                .await?;
        } else if String::from_utf8_lossy(&known.stdout).trim() != self.url {
            git.run(
                directory,
                &["remote", "set-url", "origin", &self.url],
                QUICK,
            )
            .await?;
        }
        Ok(())
    }

    async fn is_checked_out(&self, git: &Git) -> Result<bool, GitError> {
        let directory = self.directory.as_path();
        let head = git
            .capture(
                directory,
                &["symbolic-ref", "--short", "--quiet", "HEAD"],
                QUICK,
            )
            .await?;
        let on_branch = String::from_utf8_lossy(&head.stdout).trim() == self.branch;
        let commit = git
            .capture(
                directory,
                &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"],
                QUICK,
            )
            .await?;
        Ok(on_branch && commit.exit.success())
    }

    async fn fetch(&self, git: &Git) -> Result<(), CheckoutError> {
        let directory = self.directory.as_path();
        let depth = self.depth.map(|depth| format!("--depth={depth}"));
        let fetch = |from: &str| {
            let mut arguments = vec![
                "fetch".to_owned(),
                "--quiet".into(),
                "--prune".into(),
                "--no-write-fetch-head".into(),
            ];
            arguments.extend(depth.clone());
            arguments.extend([
                from.to_owned(),
                "+refs/heads/*:refs/remotes/origin/*".into(),
            ]);
            arguments
        };
        let mut mirrored = false;
        if let Some(mirror) = &self.mirror {
            let arguments = fetch(mirror);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            match git.run(directory, &arguments, FETCH).await {
                Ok(_) => mirrored = true,
                Err(error) if error.is_disk_full() => return Err(error.into()),
                Err(error) => tracing::warn!(%error, "the mirror is left out"),
            }
        }
        let arguments = fetch("origin");
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match git.run(directory, &arguments, FETCH).await {
            Ok(_) => Ok(()),
            Err(error @ GitError::Failed { .. }) if error.is_disk_full() => Err(error.into()),
            Err(
                error @ (GitError::Failed { .. }
                | GitError::Run(crate::keeper::RunError::Deadline { .. })),
            ) if mirrored => {
                tracing::warn!(%error, "the repository itself cannot be reached; the mirror's state is used");
                Ok(())
            }
            Err(GitError::Failed { stderr, .. }) => Err(CheckoutError::Unreachable {
                url: self.url.clone(),
                reason: stderr,
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// The commit where the branch starts; `None` when the remote is empty.
    async fn start(&self, git: &Git) -> Result<Option<String>, CheckoutError> {
        let directory = self.directory.as_path();
        let listed = git
            .run(
                directory,
                &[
                    "for-each-ref",
                    "--format=%(refname:lstrip=3)",
                    "refs/remotes/origin",
                ],
                QUICK,
            )
            .await?;
        let known: Vec<String> = listed
            .lines()
            .filter(|name| *name != "HEAD")
            .map(str::to_owned)
            .collect();
        let remote = |branch: &str| {
            known
                .iter()
                .any(|name| name == branch)
                .then(|| format!("refs/remotes/origin/{branch}"))
        };
        // Work that was pushed to this branch before (a resumed task) is where it goes on.
        if let Some(start) = remote(&self.branch) {
            return Ok(Some(start));
        }
        if let Some(branch) = &self.source_branch {
            if let Some(start) = remote(branch) {
                return Ok(Some(start));
            }
            let commit = format!("{branch}^{{commit}}");
            let found = git
                .capture(
                    directory,
                    &[
                        "rev-parse",
                        "--verify",
                        "--quiet",
                        "--end-of-options",
                        &commit,
                    ],
                    QUICK,
                )
                .await?;
            if found.exit.success() {
                return Ok(Some(
                    String::from_utf8_lossy(&found.stdout).trim().to_owned(),
                ));
            }
            let mut known = known;
            known.truncate(20);
            return Err(CheckoutError::NoBranch {
                branch: branch.clone(),
                url: self.url.clone(),
                known,
            });
        }
        if known.is_empty() {
            return Ok(None);
        }
        let default = self.default_branch(git).await;
        let fallback = ["main", "master"].into_iter().find_map(&remote);
        let first = known
            .first()
            .map(|name| format!("refs/remotes/origin/{name}"));
        Ok(default.as_deref().and_then(remote).or(fallback).or(first))
    }

    async fn default_branch(&self, git: &Git) -> Option<String> {
        let answer = git
            .run(
                &self.directory,
                &["ls-remote", "--symref", "origin", "HEAD"],
                FETCH,
            )
            .await
            .ok()?;
        let line = answer
            .lines()
            .find_map(|line| line.strip_prefix("ref: refs/heads/"))?;
        line.split_whitespace().next().map(str::to_owned)
    }

    async fn submodules(&self, git: &Git) {
        let listed = git
            .capture(
                &self.directory,
                &["cat-file", "-e", "HEAD:.gitmodules"],
                QUICK,
            )
            .await;
        if !listed.is_ok_and(|listed| listed.exit.success()) {
            return;
        }
        let arguments = ["submodule", "update", "--init", "--recursive", "--quiet"];
        // A repository with a submodule that cannot be had is still worth working in; the agent sees what is missing.
        if let Err(error) = git.run(&self.directory, &arguments, SUBMODULES).await {
            tracing::warn!(%error, "submodules are incomplete");
        }
    }
}

/// Removes lock files that a killed git left behind, and tells whether there were any. Only called before anyone else
/// works in the checkout.
async fn unlock(helper: &Helper, directory: &Path) -> bool {
    let mut found = false;
    for name in [
        "index.lock",
        "HEAD.lock",
        "config.lock",
        "shallow.lock",
        "packed-refs.lock",
    ] {
        let path = directory.join(".git").join(name);
        match helper.remove(&path).await {
            Ok(()) => {
                tracing::info!(path = %path.display(), "removed the lock of a git that was killed");
                found = true;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => tracing::warn!(%error, "a git lock stays"),
        }
    }
    found
}
