//! Runs other programs, and says so.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::workspace;

/// Why a program gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("cannot run {line}: {source}")]
    Start { line: String, source: io::Error },
    #[error("{line}: {status}{message}")]
    Status {
        line: String,
        status: ExitStatus,
        message: String,
    },
}

impl CommandError {
    /// For a program that is started or waited for by hand.
    pub(crate) fn start(command: &Command) -> impl FnOnce(io::Error) -> Self + use<> {
        let line = line(command);
        move |source| Self::Start { line, source }
    }
}

/// Prints a line.
pub(crate) fn say(line: &str) {
    // Where standard output is gone nobody is left to tell.
    drop(writeln!(io::stdout(), "{line}"));
}

/// A program with these arguments, in the top of the checkout.
pub(crate) fn program<S: AsRef<OsStr>>(
    name: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(name);
    command
        .args(arguments)
        .current_dir(workspace::root())
        .stdin(Stdio::null());
    command
}

/// Cargo, with the lock file as it is.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    // Cargo tells its own path to what it runs.
    program(
        std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()),
        arguments,
    )
}

/// Runs it with its output shown.
pub(crate) fn run(command: &mut Command) -> Result<(), CommandError> {
    let line = line(command);
    say(&format!("$ {line}"));
    let status = command.status().map_err(|source| CommandError::Start {
        line: line.clone(),
        source,
    })?;
    if status.success() {
        Ok(())
    } else {
        Err(CommandError::Status {
            line,
            status,
            message: String::new(),
        })
    }
}

/// Runs it quietly; what it printed to standard output, trimmed.
pub(crate) fn output(command: &mut Command) -> Result<String, CommandError> {
    let line = line(command);
    let output = command.output().map_err(|source| CommandError::Start {
        line: line.clone(),
        source,
    })?;
    let status = output.status;
    if !status.success() {
        let text = [output.stderr, output.stdout].concat();
        let message = format!("\n{}", String::from_utf8_lossy(&text).trim());
        return Err(CommandError::Status {
            line,
            status,
            message,
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a program of this name is in `PATH`.
pub(crate) fn exists(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| is_executable(&directory.join(name)))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
