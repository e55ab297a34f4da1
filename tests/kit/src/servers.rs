//! The development servers that the local proxy is tested with, at pinned versions.
//!
//! `tests/kit/servers/` pins them. They go to `$WHIM_SERVERS_DIR`, else to `target/servers`, once.

use std::path::{Path, PathBuf};

use crate::installed::{InstallError, Installation};

const SERVERS: Installation = Installation {
    name: "servers",
    variable: "WHIM_SERVERS_DIR",
    files: &[
        ("package.json", include_str!("../servers/package.json")),
        (
            "package-lock.json",
            include_str!("../servers/package-lock.json"),
        ),
        (
            "requirements.txt",
            include_str!("../servers/requirements.txt"),
        ),
    ],
    commands: &[
        // Not `npm ci`: that refuses a lock file without the optional binaries for systems that nobody here has.
        ("", &["npm", "install", "--no-audit", "--no-fund"]),
        // Into a directory: neither a virtual environment's package nor leave to change the system's is needed. And with
        // the interpreter itself: where a version manager stands in its place, that has more to do after pip.
        (
            "",
            &[
                "sh",
                "-c",
                "\"$(python3 -c 'import sys; print(sys.executable)')\" -m pip install --quiet --root-user-action ignore \
                 --disable-pip-version-check --upgrade --target python -r requirements.txt",
            ],
        ),
    ],
};

/// The directory of the servers, with `node_modules`: projects made in it find their framework.
///
/// # Errors
/// When they are not installed and cannot be; it takes a download of some 100 MB.
pub fn installed() -> Result<PathBuf, InstallError> {
    SERVERS.directory()
}

/// The value of `PYTHONPATH` with which Python finds Flask and Django.
#[must_use]
pub fn python_path(installed: &Path) -> PathBuf {
    installed.join("python")
}
