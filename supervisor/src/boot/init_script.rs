//! init.sh: the scripts of all layers, run once as the agents' user before the agent starts.
//!
//! The parts run in one shell, lowest layer first, so that what a part exports or where it goes holds for the next. The
//! first part that fails ends the script, and is named. What a part leaves running (a database) lives on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use whim_entrypoint::wire::{Credentials, Launch};

use crate::keeper::{Exit, Keeper, KeeperError, Output, Process, ProcessIo};
use crate::logs::{Log, Tail};

/// Names of the keeper's processes begin so, one for each shell in order; a new supervisor finds a running script, and
/// what scripts left running, by them.
pub const PREFIX: &str = "init/";
/// Name of the log.
const LOG: &str = "init";
/// What is kept of the output for the message about a failure.
const TAIL: usize = 16 * 1024;
/// Lines of it that are shown.
const LINES: usize = 20;
/// Between TERM and KILL when the script ran past its time.
const GRACE: Duration = Duration::from_secs(2);

/// Why the script did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("init.sh cannot be started: {0}")]
    Start(KeeperError),
    #[error("init.sh failed ({exit}); its last lines:\n{tail}")]
    Failed { exit: Exit, tail: String },
    #[error("init.sh did not end within {} s (init_timeout_s); its last lines:\n{tail}", limit.as_secs())]
    Deadline { limit: Duration, tail: String },
    #[error(transparent)]
    Keeper(#[from] KeeperError),
}

/// A part of the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub layer: String,
    pub script: String,
}

/// Text of the script that runs the parts. It is sh, and uses bash where there is one because the parts may need it.
#[must_use]
pub fn assemble(parts: &[Part], directory: &Path) -> String {
    let mut text = String::from(
        "#!/bin/sh\n# Written by whim from the configuration layers.\n\
         # One stream, so that what went wrong stands where it did.\nexec 2>&1\n\
         if [ -z \"$WHIM_INIT_SHELL\" ] && command -v bash >/dev/null 2>&1; then WHIM_INIT_SHELL=bash exec bash \"$0\" \"$@\"; fi\n\
         unset WHIM_INIT_SHELL\n\
         whim_part=\n\
         trap 'status=$?; [ $status -eq 0 ] || echo \"init.sh: the part of layer $whim_part failed with status $status\" >&2' EXIT\n",
    );
    for (index, part) in parts.iter().enumerate() {
        let path = part_path(directory, index, &part.layer);
        let (layer, path) = (quote(&part.layer), quote(&path.to_string_lossy()));
        // Not `. part || exit`: in such a list the shell would ignore a `set -e` of the part.
        text.push_str(&format!("whim_part={layer}\n. {path}\nwhim_status=$?\n[ $whim_status -eq 0 ] || exit $whim_status\n"));
    }
    text.push_str("exit 0\n");
    text
}

/// Writes the script and its parts, root's and readable by all.
///
/// # Errors
/// [`InitError::Write`].
pub fn write(parts: &[Part], script: &Path, directory: &Path) -> Result<(), InitError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InitError::Write { path, source }
    };
    std::fs::create_dir_all(directory).map_err(failed(directory))?;
    for (index, part) in parts.iter().enumerate() {
        let path = part_path(directory, index, &part.layer);
        crate::files::write(&path, 0o644, part.script.as_bytes()).map_err(failed(&path))?;
    }
    crate::files::write(script, 0o755, assemble(parts, directory).as_bytes())
        .map_err(failed(script))
}

fn part_path(directory: &Path, index: usize, layer: &str) -> PathBuf {
    directory.join(format!("{index:02}-{layer}.sh"))
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Where and as whom it runs.
#[derive(Clone, Debug)]
pub struct Run {
    /// The keeper's name for it.
    pub name: String,
    pub script: PathBuf,
    pub directory: PathBuf,
    pub user: Option<Credentials>,
    pub environment: Vec<(OsString, OsString)>,
    pub limit: Duration,
    pub log_directory: PathBuf,
}

impl Run {
    /// Runs the script to its end; takes up one that an earlier supervisor started.
    ///
    /// # Errors
    /// [`InitError`].
    pub async fn run(&self, keeper: &Keeper, adopted: Option<Process>) -> Result<(), InitError> {
        let mut process = match adopted {
            Some(process) => process,
            None => {
                let launch = Launch {
                    environment: self.environment.clone(),
                    directory: self.directory.clone(),
                    user: self.user.clone(),
                    end_with_leader: false,
                    ..Launch::of(&self.script)
                };
                keeper
                    .spawn(&self.name, &launch, Vec::new())
                    .await
                    .map_err(InitError::Start)?
            }
        };
        let mut log = Log::open(&self.log_directory, LOG);
        let mut tail = Tail::new(TAIL);
        let io = std::mem::replace(&mut process.io, ProcessIo::None);
        let ended = async {
            if let ProcessIo::Pipes {
                mut stdout,
                mut stderr,
                ..
            } = io
            {
                let mut status = process.status();
                loop {
                    // The script's daemons may keep the pipes open for ever: its own end is the end of the step.
                    let output = tokio::select! {
                        chunk = stdout.next() => chunk.map(|chunk| (chunk, &stdout)),
                        chunk = stderr.next() => chunk.map(|chunk| (chunk, &stderr)),
                        _ = status.wait_for(Option::is_some) => break,
                    };
                    let (Some(chunk), stream) = output.map_err(KeeperError::Channel)? else {
                        break;
                    };
                    log.append(&chunk.bytes);
                    tail.push(&chunk.bytes);
                    stream.acknowledge(stream.position());
                }
                let exit = process.wait().await?;
                for stream in [&mut stdout, &mut stderr] {
                    while let Some(chunk) = stream.take() {
                        log.append(&chunk.bytes);
                        tail.push(&chunk.bytes);
                        stream.acknowledge(stream.position());
                    }
                }
                process.io = ProcessIo::Pipes {
                    stdin: None,
                    stdout,
                    stderr,
                };
                return Ok(exit);
            }
            process.wait().await
        };
        let exit = match tokio::time::timeout(self.limit, ended).await {
            Ok(exit) => exit?,
            Err(_) => {
                process.end(GRACE).await?;
                process.acknowledge().await?;
                return Err(InitError::Deadline {
                    limit: self.limit,
                    tail: tail.lines(LINES),
                });
            }
        };
        if exit.success() {
            tend(process, &self.log_directory);
            Ok(())
        } else {
            Err(InitError::Failed {
                exit,
                tail: tail.lines(LINES),
            })
        }
    }
}

/// What the script left running may go on printing: its output goes on into the log, so that it never blocks, until the
/// last of it has ended.
pub fn tend(mut process: Process, log_directory: &Path) {
    let log = Log::open(log_directory, LOG);
    drop(tokio::spawn(async move {
        if let ProcessIo::Pipes { stdout, stderr, .. } =
            std::mem::replace(&mut process.io, ProcessIo::None)
        {
            drain(stdout, stderr, log).await;
        }
        let mut gone = process.gone();
        let ended = gone.wait_for(|gone| *gone).await.is_ok();
        if ended && let Err(error) = process.acknowledge().await {
            // At the container's end the keeper goes first.
            tracing::debug!(%error, "init");
        }
    }));
}

async fn drain(mut stdout: Output, mut stderr: Output, mut log: Log) {
    let (mut more_stdout, mut more_stderr) = (true, true);
    while more_stdout || more_stderr {
        let chunk = tokio::select! {
            chunk = stdout.next(), if more_stdout => {
                more_stdout = matches!(chunk, Ok(Some(_)));
                stdout.acknowledge(stdout.position());
                chunk
            }
            chunk = stderr.next(), if more_stderr => {
                more_stderr = matches!(chunk, Ok(Some(_)));
                stderr.acknowledge(stderr.position());
                chunk
            }
        };
        if let Ok(Some(chunk)) = chunk {
            log.append(&chunk.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn run(parts: &[(&str, &str)]) -> (i32, String) {
        let directory = tempfile::tempdir().unwrap();
        let parts: Vec<Part> = parts
            .iter()
            .map(|(layer, script)| Part {
                layer: (*layer).into(),
                script: (*script).into(),
            })
            .collect();
        let script = directory.path().join("init.sh");
        write(&parts, &script, &directory.path().join("init.d")).unwrap();
        let output = Command::new(&script).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap(),
            String::from_utf8(text).unwrap(),
        )
    }

    #[test]
    fn parts_share_one_shell_in_order() {
        let (status, text) = run(&[
            ("team", "export A=1; cd /usr\n"),
            ("user", "echo $A $PWD; [[ -n $BASH ]] && echo bash"),
        ]);
        assert_eq!((status, text.as_str()), (0, "1 /usr\nbash\n"));
    }

    #[test]
    fn the_part_that_fails_is_named_and_the_last() {
        for script in [
            "echo before\nfalse",
            "echo before\nexit 1",
            "echo before\n(exit 1)",
            "set -e\necho before\nfalse\necho after",
        ] {
            let (status, text) = run(&[("workspace", script), ("user", "echo never")]);
            assert_eq!(status, 1, "{script}");
            assert_eq!(
                text,
                "before\ninit.sh: the part of layer workspace failed with status 1\n"
            );
        }
    }

    #[test]
    fn no_parts_is_a_success() {
        assert_eq!(run(&[]), (0, String::new()));
    }
}
