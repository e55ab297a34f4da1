//! Git, always as the agents' user and never as root.
//!
//! A repository is somebody else's program: hooks, `core.fsmonitor`, filters and included configuration name commands.
//! So git runs with the identity of the agents, with the settings that start commands switched off from the command
//! line's scope (which outranks the repository's), with a clean environment, and asks for credentials only through our
//! helper command, which the supervisor answers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use whim_entrypoint::wire::{Credentials, Launch};

use crate::keeper::{Captured, Keeper, KeeperError, RunError};

/// Git's plumbing answers at once; longer means a dead file system.
pub const QUICK: Duration = Duration::from_secs(60);
/// Most output that is kept of one git command: a listing of a hundred thousand refs.
const OUTPUT: usize = 16 * 1024 * 1024;

/// Overrides for every call, as key and value.
const CONFIGURATION: [(&str, &str); 15] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.pager", "cat"),
    // A background repack would outlive its command.
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("protocol.ext.allow", "never"),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "main"),
    // A server that says nothing for two minutes is down: git's own servers give a sign every five seconds.
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "120"),
    // Pointers of large files stay pointers: the boot neither waits for their content nor needs their program, which
    // the agent's own git runs when it wants them.
    ("filter.lfs.process", ""),
    ("filter.lfs.smudge", ""),
    ("filter.lfs.clean", ""),
    ("filter.lfs.required", "false"),
    // The first helper of the list is removed, so that no helper of the image sees our questions.
    ("credential.helper", ""),
];

/// A git command that failed.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// Not found, or not executable.
    #[error("git cannot be run: {source}; install git in the image")]
    Missing { source: std::io::Error },
    #[error(transparent)]
    Run(#[from] RunError),
    /// `stderr`: its last lines, credentials removed.
    #[error("git {command} failed ({exit}): {stderr}", exit = exit.to_string())]
    Failed {
        command: String,
        exit: crate::keeper::Exit,
        stderr: String,
    },
}

impl GitError {
    /// No space, or no quota, left where git writes.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Failed { stderr, .. } if crate::files::says_disk_full(stderr))
    }
}

/// Who starts git.
#[derive(Clone, Debug)]
pub enum Runner {
    Keeper(Keeper),
    /// The test itself, as whoever runs it.
    #[cfg(test)]
    Test,
}

/// Runs git as the agents' user.
#[derive(Clone, Debug)]
pub struct Git {
    pub runner: Runner,
    pub user: Option<Credentials>,
    /// Environment of the agents' user without any secret: `PATH`, `HOME`, proxies, certificates.
    pub environment: Vec<(OsString, OsString)>,
    /// Command that git runs to ask for credentials, see `credential` in gitcredentials(7).
    pub credential_helper: String,
    /// Global configuration of these calls, see [`write_configuration`].
    pub configuration: PathBuf,
}

/// Writes the global configuration of the boot's git calls. A repository on this machine may belong to somebody else,
/// and only the global configuration reaches the git at its other end; the agents' user's own follows.
///
/// # Errors
/// When it cannot be written.
pub fn write_configuration(path: &Path, home: &Path) -> std::io::Result<()> {
    let user = home.join(".gitconfig");
    let user = user
        .to_string_lossy()
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    let text = format!("[safe]\n\tdirectory = *\n[include]\n\tpath = \"{user}\"\n");
    crate::files::write(path, 0o644, text.as_bytes())
}

impl Git {
    /// Runs git in `directory` and returns its output; a non-zero exit is an error.
    ///
    /// # Errors
    /// [`GitError`].
    pub async fn run(
        &self,
        directory: &Path,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<String, GitError> {
        let captured = self.capture(directory, arguments, deadline).await?;
        if captured.exit.success() {
            return Ok(String::from_utf8_lossy(&captured.stdout).into_owned());
        }
        let command = arguments.first().copied().unwrap_or_default().to_owned();
        let stderr = last_lines(&captured.stderr, 6);
        Err(GitError::Failed {
            command,
            exit: captured.exit,
            stderr,
        })
    }

    /// As [`Git::run`], but every exit is an answer.
    ///
    /// # Errors
    /// [`GitError`] when it could not run to its end.
    pub async fn capture(
        &self,
        directory: &Path,
        arguments: &[&str],
        deadline: Duration,
    ) -> Result<Captured, GitError> {
        let launch = self.launch(directory, arguments);
        let run = match &self.runner {
            Runner::Keeper(keeper) => keeper.run("git", &launch, deadline, OUTPUT).await,
            #[cfg(test)]
            Runner::Test => Ok(testing::run(&launch)),
        };
        run.map_err(|error| match error {
            RunError::Keeper(KeeperError::Spawn { step, source, .. }) if step == "exec" => {
                GitError::Missing { source }
            }
            other => GitError::Run(other),
        })
    }

    /// How one call is started.
    #[must_use]
    pub fn launch(&self, directory: &Path, arguments: &[&str]) -> Launch {
        let mut environment = self.environment.clone();
        let mut set = |name: &str, value: OsString| {
            environment.retain(|(present, _)| present != name);
            environment.push((name.into(), value));
        };
        set("GIT_TERMINAL_PROMPT", "0".into());
        set(
            "GIT_CONFIG_GLOBAL",
            self.configuration.clone().into_os_string(),
        );
        set("GIT_LFS_SKIP_SMUDGE", "1".into());
        set("LC_ALL", "C.UTF-8".into());
        let helper = [
            ("credential.helper", self.credential_helper.as_str()),
            ("credential.useHttpPath", "true"),
        ];
        let overrides: Vec<_> = CONFIGURATION.into_iter().chain(helper).collect();
        set("GIT_CONFIG_COUNT", overrides.len().to_string().into());
        for (index, (key, value)) in overrides.into_iter().enumerate() {
            set(&format!("GIT_CONFIG_KEY_{index}"), key.into());
            set(&format!("GIT_CONFIG_VALUE_{index}"), value.into());
        }
        Launch {
            arguments: std::iter::once("git")
                .chain(arguments.iter().copied())
                .map(OsString::from)
                .collect(),
            environment,
            directory: PathBuf::from(directory),
            user: self.user.clone(),
            // Transports and filters are children of git: whatever of them is left ends with it.
            ..Launch::of("git")
        }
    }
}

/// The last lines of an error output, on one line, without what looks like credentials in URLs.
fn last_lines(stderr: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let skip = lines.len().saturating_sub(count);
    redact(&lines.into_iter().skip(skip).collect::<Vec<_>>().join("; "))
}

/// Removes `user:password@` after every `://`.
fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let authority = after
            .split(['/', ' ', '\'', '"'])
            .next()
            .unwrap_or_default();
        rest = match authority.rsplit_once('@') {
            Some((userinfo, _)) => after.get(userinfo.len() + 1..).unwrap_or_default(),
            None => after,
        };
    }
    clean.push_str(rest);
    clean
}

/// Git for unit tests, with real repositories and without a keeper.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    pub(super) fn run(launch: &Launch) -> Captured {
        let output = std::process::Command::new(&launch.program)
            .args(launch.arguments.iter().skip(1))
            .env_clear()
            .envs(launch.environment.iter().cloned())
            .current_dir(&launch.directory)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        Captured {
            exit: crate::keeper::Exit::Code(output.status.code().unwrap()),
            stdout: output.stdout,
            stderr: output.stderr,
        }
    }

    /// `directory` holds the home and the configuration.
    pub(crate) fn git(directory: &Path) -> Git {
        let configuration = directory.join("gitconfig");
        write_configuration(&configuration, directory).unwrap();
        Git {
            runner: Runner::Test,
            user: None,
            environment: vec![
                ("PATH".into(), std::env::var_os("PATH").unwrap()),
                ("HOME".into(), directory.as_os_str().to_owned()),
            ],
            credential_helper: String::new(),
            configuration,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_leave_no_trace_in_messages() {
        let text = "fatal: unable to access 'https://x:ghp_secret@example.org/a.git/': 403; see http://a@b@c/d e@f";
        assert_eq!(
            redact(text),
            "fatal: unable to access 'https://example.org/a.git/': 403; see http://c/d e@f"
        );
        assert_eq!(redact("no url, a@b"), "no url, a@b");
    }
}
