//! The checkout: fetch, branch, submodules.
//!
//! Every step may be repeated: a supervisor that dies half-way leaves a repository into which the next one fetches again.
//! Nothing that an agent committed, or left uncommitted, is ever reset. A file in `.git` ([`MARK`]) tells what may be
//! overwritten: a checkout that we began in an empty directory and did not finish. One that we finished is left alone
//! for good, wherever the agent took it; in a directory that somebody else filled the branch is checked out as git does
//! it for people, which refuses to overwrite anything.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::git::{Git, GitError, QUICK};
use crate::helper::{Helper, HelperError};

/// A fetch that moves for longer than this is a repository for a mirror or for `depth`.
const FETCH: Duration = Duration::from_secs(30 * 60);
/// Submodules may be as large as the repository. For all of them together.
const SUBMODULES: Duration = Duration::from_secs(30 * 60);
/// Submodules that are looked after; a repository with more is somebody's mistake or malice.
const MOST_SUBMODULES: usize = 500;

/// Says how far our checkout of this directory came: `begun`, or `done BRANCH`.
pub(crate) const MARK: &str = ".git/whim-checkout";
pub(crate) const BEGUN: &str = "begun";
pub(crate) const DONE: &str = "done ";
/// Largest content of the mark: a word and a branch.
pub(crate) const MARK_SIZE: usize = 4096;

/// What is to be checked out. URLs are without credentials.
#[derive(Clone, Debug)]
pub struct Checkout {
    pub directory: PathBuf,
    pub url: String,
    /// Tried first; may be behind, may be down.
    pub mirror: Option<String>,
    /// Where the new branch starts; `None`: the remote's default.
    pub source_branch: Option<String>,
    /// `None`: a new name, or the one that an earlier boot chose.
    pub branch: Option<String>,
    pub depth: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// The branch was made, or the remote's branch of that name was taken up. `missing`: paths of submodules that could
    /// not be had.
    Fresh {
        branch: String,
        start: String,
        missing: Vec<String>,
    },
    /// It was there already.
    Kept,
    /// The remote has no commit yet.
    Empty { branch: String },
}

/// Why there is no checkout.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error("the checkout cannot be looked at: {0}")]
    Directory(#[from] HelperError),
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
    #[error(
        "{directory} is not empty, and branch {branch:?} cannot be checked out over what it holds: {reason}; \
         commit it, move it away, or give an empty directory",
        directory = directory.display()
    )]
    InTheWay {
        directory: PathBuf,
        branch: String,
        reason: String,
    },
}

/// What is in the directory before we do anything.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing, or a checkout of ours that was not finished.
    Ours,
    /// A checkout of ours, finished, of this branch.
    Done(String),
    /// Something that we did not put there.
    Foreign,
}

impl Checkout {
    /// Brings the directory to the branch.
    ///
    /// # Errors
    /// [`CheckoutError`].
    pub async fn run(&self, git: &Git, helper: &Helper) -> Result<Checked, CheckoutError> {
        let directory = self.directory.as_path();
        unlock(helper, directory).await;
        self.prepare(git).await?;
        let found = self.look(git, helper).await?;
        let done = match &found {
            Found::Done(branch) => Some(branch),
            Found::Ours | Found::Foreign => None,
        };
        let branch = match (&self.branch, done) {
            (None, Some(_)) => return Ok(Checked::Kept),
            (Some(wanted), Some(done)) if wanted == done => return Ok(Checked::Kept),
            (Some(wanted), _) => wanted.clone(),
            (None, None) => format!("whim-{}", crate::random::short()),
        };
        let ours = found == Found::Ours;
        if ours {
            self.mark(helper, BEGUN).await?;
        } else if self.has_branch(git, &branch).await? {
            // As it is here: it may be ahead of the remote.
            if !self.is_on(git, &branch).await? {
                self.switch(git, &[&branch], &branch).await?;
            }
            return Ok(Checked::Kept);
        }
        self.fetch(git, ours).await?;
        let done = format!("{DONE}{branch}");
        let Some(start) = self.start(git, &branch).await? else {
            let head = format!("refs/heads/{branch}");
            git.run(directory, &["symbolic-ref", "HEAD", &head], QUICK)
                .await?;
            self.mark(helper, &done).await?;
            return Ok(Checked::Empty { branch });
        };
        if ours {
            // A crash during a checkout leaves files half-written; nobody else has worked here.
            let arguments = ["checkout", "--force", "--no-track", "-B", &branch, &start];
            git.run(directory, &arguments, FETCH).await?;
        } else {
            self.switch(git, &["--no-track", "-b", &branch, &start], &branch)
                .await?;
        }
        let missing = self.submodules(git).await;
        self.mark(helper, &done).await?;
        Ok(Checked::Fresh {
            branch,
            start,
            missing,
        })
    }

    async fn look(&self, git: &Git, helper: &Helper) -> Result<Found, CheckoutError> {
        let path = self.directory.join(MARK);
        if let Some((content, _)) = helper.read_optional(&path, MARK_SIZE).await? {
            let content = String::from_utf8_lossy(&content).trim().to_owned();
            return Ok(match content.strip_prefix(DONE) {
                Some(branch) => Found::Done(branch.to_owned()),
                None if content == BEGUN => Found::Ours,
                // Not written by us: nothing may be overwritten.
                None => Found::Foreign,
            });
        }
        let entries = helper.list(&self.directory).await?;
        if entries.iter().any(|entry| entry.name != ".git") {
            return Ok(Found::Foreign);
        }
        let refs = ["for-each-ref", "--count=1", "refs/heads"];
        let branches = git.run(&self.directory, &refs, QUICK).await?;
        Ok(if branches.trim().is_empty() {
            Found::Ours
        } else {
            Found::Foreign
        })
    }

    async fn mark(&self, helper: &Helper, word: &str) -> Result<(), HelperError> {
        let path = self.directory.join(MARK);
        let content = format!("{word}\n").into_bytes();
        helper.write(&path, 0o644, None, content).await
    }

    async fn is_on(&self, git: &Git, branch: &str) -> Result<bool, GitError> {
        let arguments = ["symbolic-ref", "--quiet", "HEAD"];
        let head = git.capture(&self.directory, &arguments, QUICK).await?;
        let head = String::from_utf8_lossy(&head.stdout);
        Ok(head.trim().strip_prefix("refs/heads/") == Some(branch))
    }

    async fn has_branch(&self, git: &Git, branch: &str) -> Result<bool, GitError> {
        let name = format!("refs/heads/{branch}");
        let arguments = ["rev-parse", "--verify", "--quiet", &name];
        let found = git.capture(&self.directory, &arguments, QUICK).await?;
        Ok(found.exit.success())
    }

    /// A checkout that overwrites nothing.
    async fn switch(
        &self,
        git: &Git,
        arguments: &[&str],
        branch: &str,
    ) -> Result<(), CheckoutError> {
        let arguments: Vec<&str> = ["checkout", "--quiet"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        match git.run(&self.directory, &arguments, FETCH).await {
            Ok(_) => Ok(()),
            Err(GitError::Failed { stderr, .. }) if !crate::files::says_disk_full(&stderr) => {
                Err(CheckoutError::InTheWay {
                    directory: self.directory.clone(),
                    branch: branch.to_owned(),
                    reason: stderr,
                })
            }
            Err(error) => Err(error.into()),
        }
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

    async fn fetch(&self, git: &Git, ours: bool) -> Result<(), CheckoutError> {
        let directory = self.directory.as_path();
        // It would cut the history of a repository that somebody else brought.
        let depth = self.depth.filter(|_| ours);
        let depth = depth.map(|depth| format!("--depth={depth}"));
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
    async fn start(&self, git: &Git, branch: &str) -> Result<Option<String>, CheckoutError> {
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
        if let Some(start) = remote(branch) {
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
            if known.is_empty() {
                tracing::warn!(
                    branch,
                    "the repository is empty: there is no branch to start from"
                );
                return Ok(None);
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

    /// Paths of the submodules that could not be had. A repository without them is still worth working in.
    pub(crate) async fn submodules(&self, git: &Git) -> Vec<String> {
        let arguments = [
            "config",
            "--blob=HEAD:.gitmodules",
            "--null",
            "--get-regexp",
            r"^submodule\..*\.path$",
        ];
        let paths = match git.capture(&self.directory, &arguments, QUICK).await {
            // Also fails where there are none.
            Ok(listed) if listed.exit.success() => paths(&listed.stdout),
            Ok(_) => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "submodules cannot be listed");
                return Vec::new();
            }
        };
        let deadline = Instant::now() + SUBMODULES;
        let mut missing = Vec::new();
        // One by one: git gives up on all when one cannot be cloned.
        for path in paths {
            let left = deadline.saturating_duration_since(Instant::now());
            let arguments = [
                "submodule",
                "update",
                "--init",
                "--recursive",
                "--quiet",
                "--",
                &path,
            ];
            if let Err(error) = git.run(&self.directory, &arguments, left).await {
                tracing::warn!(path, %error, "a submodule is incomplete");
                missing.push(path);
            }
        }
        missing
    }
}

/// Values of a listing of `git config --null`: `key NEWLINE value NUL`.
fn paths(listing: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(listing);
    let values = text
        .split('\0')
        .filter_map(|entry| entry.split_once('\n'))
        .map(|(_, path)| path.to_owned());
    values.take(MOST_SUBMODULES).collect()
}

/// Removes lock files that a killed git left behind. Only called before anyone else works in the checkout.
async fn unlock(helper: &Helper, directory: &Path) {
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
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => tracing::warn!(%error, "a git lock stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_submodules_are_read_whole() {
        let listing = b"submodule.a.path\nlibs/a\0submodule.b c.path\nb = c\nd\0submodule.x.path\0";
        assert_eq!(paths(listing), ["libs/a", "b = c\nd"]);
        assert!(paths(b"").is_empty());
    }
}
