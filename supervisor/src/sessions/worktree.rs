//! A git worktree for each session beside `main`, so that two agents never write the same files.

use std::path::PathBuf;
use std::time::Duration;

use super::Ground;
use crate::boot::git::{GitError, QUICK};

/// A worktree of a large repository takes as long as its checkout did.
const CHECKOUT: Duration = Duration::from_secs(30 * 60);

/// Makes (or finds) the worktree of a session: its own branch, beginning where the main checkout stands. A branch of that
/// name that is there goes on, for it is an earlier session's work. In a directory that is no repository, or has no
/// commit yet, there is nothing to branch from: the session shares it.
///
/// # Errors
/// [`GitError`].
pub(super) async fn make(ground: &Ground, id: &str) -> Result<PathBuf, GitError> {
    let git = &ground.git;
    let checkout = ground.paths.checkout();
    let checkout = checkout.as_path();
    let directory = ground.paths.worktrees().join(id);
    let commit = ["rev-parse", "--verify", "--quiet", "HEAD^{commit}"];
    if !git.capture(checkout, &commit, QUICK).await?.exit.success() {
        return Ok(checkout.to_owned());
    }
    // One whose directory is gone is still in git's list, and its branch counts as checked out there.
    git.run(checkout, &["worktree", "prune"], QUICK).await?;
    let listed = ["worktree", "list", "--porcelain", "-z"];
    let listed = git.run(checkout, &listed, QUICK).await?;
    // Git lists them with every link resolved.
    let real = ground.helper.canonicalize(&directory).await;
    let real = real.unwrap_or_else(|_| directory.clone());
    let line = format!("worktree {}", real.display());
    if listed.split('\0').any(|known| known == line) {
        return Ok(directory);
    }
    let head = ["symbolic-ref", "--short", "--quiet", "HEAD"];
    let head = git.capture(checkout, &head, QUICK).await?;
    let base = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    let branch = if base.is_empty() {
        format!("whim-{id}")
    } else {
        format!("{base}-{id}")
    };
    let path = directory.to_string_lossy().into_owned();
    let name = format!("refs/heads/{branch}");
    let known = ["rev-parse", "--verify", "--quiet", &name];
    let known = git.capture(checkout, &known, QUICK).await?.exit.success();
    let arguments = if known {
        vec!["worktree", "add", "--quiet", &path, &branch]
    } else {
        vec!["worktree", "add", "--quiet", "-b", &branch, &path, "HEAD"]
    };
    git.run(checkout, &arguments, CHECKOUT).await?;
    Ok(directory)
}
