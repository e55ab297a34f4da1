//! A git worktree for each session beside `main`, so that two agents never write the same files.

use std::path::{Path, PathBuf};

use crate::boot::git::{Git, GitError, QUICK};

/// Makes (or finds) the worktree of a session: its own branch, beginning where the main checkout stands. In a directory
/// that is no repository, or has no commit yet, there is nothing to branch from: the session shares it.
///
/// # Errors
/// [`GitError`].
pub(super) async fn make(
    git: &Git,
    checkout: &Path,
    worktrees: &Path,
    id: &str,
) -> Result<PathBuf, GitError> {
    let directory = worktrees.join(id);
    let head = git
        .capture(
            checkout,
            &["symbolic-ref", "--short", "--quiet", "HEAD"],
            QUICK,
        )
        .await?;
    let commit = git
        .capture(
            checkout,
            &["rev-parse", "--verify", "--quiet", "HEAD^{commit}"],
            QUICK,
        )
        .await?;
    if !commit.exit.success() {
        return Ok(checkout.to_owned());
    }
    let listed = git
        .run(checkout, &["worktree", "list", "--porcelain"], QUICK)
        .await?;
    let line = format!("worktree {}", directory.display());
    if listed.lines().any(|known| known == line) {
        return Ok(directory);
    }
    let base = String::from_utf8_lossy(&head.stdout).trim().to_owned();
    let branch = if base.is_empty() {
        format!("whim-{id}")
    } else {
        format!("{base}-{id}")
    };
    let path = directory.to_string_lossy().into_owned();
    git.run(
        checkout,
        &["worktree", "add", "--quiet", "-B", &branch, &path, "HEAD"],
        QUICK,
    )
    .await?;
    Ok(directory)
}
