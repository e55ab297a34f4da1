//! Git repositories for agents to work in.
//!
//! [`sample`] makes a small project with a failing test, [`hostile`] one that plants everything git can be made to run
//! when somebody else looks at a repository. Git is run with a clean configuration, so that the machine's own does not
//! matter.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The passage of `slug.sh` that makes the sample's test fail.
pub const SAMPLE_BUG: &str = "tr -c 'a-z0-9' '-'";
/// What mends it.
pub const SAMPLE_FIX: &str = "tr -cs 'a-z0-9' '-'";
/// A task for the sample.
pub const SAMPLE_TASK: &str = "The test in test.sh fails. Fix slug.sh and commit.";

const SLUG: &str = r#"#!/bin/sh
# slug TEXT: TEXT as a part of a URL, in small letters and dashes.
slug() {
    printf '%s' "$1" | tr 'A-Z' 'a-z' | tr -c 'a-z0-9' '-' | sed 's/^-//; s/-$//'
}
"#;

const TEST: &str = r#"#!/bin/sh
# Run me: sh test.sh
. ./slug.sh
failed=0
check() {
    got=$(slug "$1")
    if [ "$got" = "$2" ]; then echo "ok   $1"; else echo "FAIL $1: got $got, want $2"; failed=1; fi
}
check 'Hello World' 'hello-world'
check 'What?  Again!' 'what-again'
check '  Trim me ' 'trim-me'
exit $failed
"#;

/// Why a repository could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RepoError {
    /// A file or directory.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// Git could not be started.
    #[error("cannot run git: {0}")]
    Start(io::Error),
    /// Git failed.
    #[error("git {arguments} in {path}: {message}")]
    Git {
        path: PathBuf,
        arguments: String,
        message: String,
    },
}

/// Runs git in a repository, with no configuration but the repository's own; returns what it printed, trimmed.
///
/// # Errors
/// When git cannot be run or fails.
pub fn git(directory: &Path, arguments: &[&str]) -> Result<String, RepoError> {
    let mut command = Command::new("git");
    command
        .current_dir(directory)
        .args(arguments)
        .envs(CLEAN)
        .env("HOME", "/nonexistent");
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().map_err(RepoError::Start)?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).trim().to_owned());
    }
    Err(RepoError::Git {
        path: directory.to_owned(),
        arguments: arguments.join(" "),
        message: String::from_utf8_lossy(&stderr).trim().to_owned(),
    })
}

const CLEAN: [(&str, &str); 7] = [
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_AUTHOR_NAME", "Sample"),
    ("GIT_AUTHOR_EMAIL", "sample@example.com"),
    ("GIT_COMMITTER_NAME", "Sample"),
    ("GIT_COMMITTER_EMAIL", "sample@example.com"),
];

fn write(directory: &Path, name: &str, content: &str, mode: u32) -> Result<(), RepoError> {
    let path = directory.join(name);
    let made = path.parent().map_or(Ok(()), fs::create_dir_all);
    made.and_then(|()| fs::write(&path, content))
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)))
        .map_err(|source| RepoError::File { path, source })
}

/// Makes an empty repository with branch `main`; the directory is made if it is missing.
///
/// # Errors
/// As [`git`], or when the directory cannot be made.
pub fn empty(directory: &Path) -> Result<(), RepoError> {
    fs::create_dir_all(directory).map_err(|source| RepoError::File {
        path: directory.to_owned(),
        source,
    })?;
    git(directory, &["init", "-q", "-b", "main"]).map(drop)
}

/// Makes a repository with these files (path, content) in one commit on `main`.
///
/// # Errors
/// As [`empty`].
pub fn with(directory: &Path, files: &[(&str, &str)]) -> Result<(), RepoError> {
    empty(directory)?;
    for (name, content) in files {
        write(directory, name, content, 0o644)?;
    }
    git(directory, &["add", "-A"])?;
    git(directory, &["commit", "-q", "--allow-empty", "-m", "Start"]).map(drop)
}

/// Makes the sample: a shell function, and a test of it that fails.
///
/// # Errors
/// As [`empty`].
pub fn sample(directory: &Path) -> Result<(), RepoError> {
    with(
        directory,
        &[
            ("slug.sh", SLUG),
            ("test.sh", TEST),
            ("README.md", "# slug\n\nTest: `sh test.sh`\n"),
        ],
    )
}

/// Makes the sample with traps in its `.git`: hooks, `core.fsmonitor`, `core.sshCommand`, `core.hooksPath`, filters,
/// a diff driver and an `include.path`. Every trap appends its name to `evidence` when it is sprung, together with the
/// user id that ran it. A clone takes none of them along; whoever runs git *in* this directory springs them.
///
/// # Errors
/// As [`empty`].
pub fn hostile(directory: &Path, evidence: &Path) -> Result<(), RepoError> {
    sample(directory)?;
    let trap = |name: &str| format!("echo {name} $(id -u) >> '{}'", evidence.display());
    let script = |name: &str| format!("#!/bin/sh\n{}\n", trap(name));
    let hooks = [
        "post-checkout",
        "pre-commit",
        "post-commit",
        "pre-push",
        "post-merge",
        "post-index-change",
        "reference-transaction",
    ];
    for hook in hooks {
        write(
            directory,
            &format!(".git/hooks/{hook}"),
            &script(hook),
            0o755,
        )?;
    }
    write(
        directory,
        ".git/traps/fsmonitor",
        &script("fsmonitor"),
        0o755,
    )?;
    let set = |key: &str, value: &str| git(directory, &["config", key, value]).map(drop);
    // Content passes through a filter, or the repository would be unusable and the trap seen at once.
    let through = |name: &str| format!("sh -c \"{}; cat\"", trap(name).replace('$', "\\$"));
    set("filter.trap.clean", &through("clean"))?;
    set("filter.trap.smudge", &through("smudge"))?;
    set(
        "diff.trap.textconv",
        &directory.join(".git/traps/fsmonitor").display().to_string(),
    )?;
    set("core.sshCommand", &through("ssh"))?;
    set("core.pager", &through("pager"))?;
    set("credential.helper", &format!("!{}", trap("credential")))?;
    write(
        directory,
        ".git/info/attributes",
        "* filter=trap diff=trap\n",
        0o644,
    )?;
    let included = format!(
        "[core]\n\tfsmonitor = {}\n",
        directory.join(".git/traps/fsmonitor").display()
    );
    write(directory, ".git/traps/config", &included, 0o644)?;
    set("include.path", "traps/config")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(directory: &Path) -> bool {
        Command::new("sh")
            .arg("test.sh")
            .current_dir(directory)
            .output()
            .unwrap()
            .status
            .success()
    }

    #[test]
    fn the_samples_test_fails_and_the_fix_mends_it() {
        let dir = tempfile::tempdir().unwrap();
        sample(dir.path()).unwrap();
        assert!(!passes(dir.path()));
        let slug = fs::read_to_string(dir.path().join("slug.sh")).unwrap();
        assert_eq!(slug.matches(SAMPLE_BUG).count(), 1);
        fs::write(
            dir.path().join("slug.sh"),
            slug.replace(SAMPLE_BUG, SAMPLE_FIX),
        )
        .unwrap();
        assert!(passes(dir.path()));
        assert_eq!(
            git(dir.path(), &["status", "--short"]).unwrap(),
            "M slug.sh"
        );
    }

    #[test]
    fn the_traps_work() {
        let dir = tempfile::tempdir().unwrap();
        let evidence = dir.path().join("evidence");
        let repo = dir.path().join("repo");
        hostile(&repo, &evidence).unwrap();
        drop(fs::remove_file(&evidence));
        fs::write(repo.join("slug.sh"), "changed\n").unwrap();
        git(&repo, &["status"]).unwrap();
        git(&repo, &["add", "slug.sh"]).unwrap();
        let sprung = fs::read_to_string(&evidence).unwrap();
        assert!(
            sprung.contains("fsmonitor") && sprung.contains("clean"),
            "{sprung}"
        );
        fs::remove_file(&evidence).unwrap();
        git(dir.path(), &["clone", "-q", "repo", "clone"]).unwrap();
        let sprung = fs::read_to_string(&evidence).unwrap_or_default();
        assert!(
            !sprung.contains("smudge") && !sprung.contains("post-checkout"),
            "{sprung}"
        );
    }
}
