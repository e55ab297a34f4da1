//! The agent CLIs at the versions that the facts about them were observed with.
//!
//! `tests/kit/agents/package.json` pins them and `package-lock.json` pins what they bring along; this module makes sure
//! that they are installed. They go to `$WHIM_AGENTS_DIR`, else to `target/agents`, once.

use std::path::{Path, PathBuf};

use crate::installed::{InstallError, Installation};

const AGENTS: Installation = Installation {
    name: "agents",
    variable: "WHIM_AGENTS_DIR",
    files: &[
        ("package.json", include_str!("../agents/package.json")),
        (
            "package-lock.json",
            include_str!("../agents/package-lock.json"),
        ),
    ],
    commands: &[
        ("", &["npm", "ci", "--no-audit", "--no-fund"]),
        // Claude Code's package puts its native binary into place in an install script, which npm may be set to skip.
        (
            "node_modules/@anthropic-ai/claude-code",
            &["node", "install.cjs"],
        ),
    ],
};

/// The directory of the CLIs: `claude`, `codex`, `ccr` and `copilot`, for `PATH`. Installs them if need be, which takes
/// a download of some 250 MB.
///
/// # Errors
/// When they are not installed and cannot be.
pub fn installed() -> Result<PathBuf, InstallError> {
    Ok(AGENTS.directory()?.join("node_modules/.bin"))
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
