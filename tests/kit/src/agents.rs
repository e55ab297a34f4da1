//! The agent CLIs at the versions that the facts about them were observed with.
//!
//! `tests/kit/agents/package.json` pins them and `package-lock.json` pins what they bring along; this module makes sure
//! that they are installed. They go to `$WHIM_AGENTS_DIR`, else to `target/agents`, once: a second call finds them.
//! Several test processes may call at the same time; one installs, the others wait for it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::fcntl::{Flock, FlockArg};

const PACKAGE: &str = include_str!("../agents/package.json");
const LOCK: &str = include_str!("../agents/package-lock.json");

/// Why the CLIs are not there.
#[derive(Debug, thiserror::Error)]
pub enum AgentsError {
    /// A file or directory of the installation.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// npm is not there.
    #[error("cannot run npm ({0}); the agents' CLIs come from it")]
    Npm(io::Error),
    /// npm failed.
    #[error("npm ci in {path}: {message}")]
    Install { path: PathBuf, message: String },
}

/// The directory of the CLIs: `claude`, `codex`, `ccr` and `copilot`, for `PATH`. Installs them if need be, which takes
/// a download of some 250 MB.
///
/// # Errors
/// When they are not installed and cannot be.
pub fn installed() -> Result<PathBuf, AgentsError> {
    let directory = std::env::var_os("WHIM_AGENTS_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/agents"),
        PathBuf::from,
    );
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| AgentsError::File { path, source }
    };
    fs::create_dir_all(&directory).map_err(failed(&directory))?;
    let directory = directory.canonicalize().map_err(failed(&directory))?;
    let bin = directory.join("node_modules/.bin");
    let path = directory.join(".lock");
    let lock = File::create(&path).map_err(failed(&path))?;
    // Ends with the process that holds it, so nobody waits for a dead one.
    let held = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| failed(&path)(error.into()))?;
    // Written last, so a half-done installation is done again.
    let done = directory.join("installed.json");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == LOCK) {
        return Ok(bin);
    }
    for (name, content) in [("package.json", PACKAGE), ("package-lock.json", LOCK)] {
        let path = directory.join(name);
        fs::write(&path, content).map_err(failed(&path))?;
    }
    run(
        Command::new("npm").args(["ci", "--no-audit", "--no-fund"]),
        &directory,
    )?;
    // Claude Code's package puts its native binary into place in an install script, which npm may be set to skip.
    run(
        Command::new("node").arg("install.cjs"),
        &directory.join("node_modules/@anthropic-ai/claude-code"),
    )?;
    fs::write(&done, LOCK).map_err(failed(&done))?;
    drop(held);
    Ok(bin)
}

fn run(command: &mut Command, directory: &Path) -> Result<(), AgentsError> {
    let output = command
        .current_dir(directory)
        .stdin(Stdio::null())
        .output()
        .map_err(AgentsError::Npm)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(AgentsError::Install {
        path: directory.to_owned(),
        message,
    })
}

/// Codex's native binary, which the `codex` script starts as its child.
#[must_use]
pub fn native_codex(bin: &Path) -> PathBuf {
    let (package, target) = if cfg!(target_arch = "aarch64") {
        ("codex-linux-arm64", "aarch64-unknown-linux-musl")
    } else {
        ("codex-linux-x64", "x86_64-unknown-linux-musl")
    };
    bin.join(format!("../@openai/{package}/vendor/{target}/bin/codex"))
}
