//! The base image: a minimal Debian with what agents need, made from packages and imported.

use std::process::Stdio;

use super::daemon::Daemon;
use crate::Failed;
use crate::command::{CommandError, output, program, say};

/// The base's name in the daemon.
pub(super) const NAME: &str = "whim-base:bookworm";

/// Makes it, unless the daemon has it from an earlier time.
pub(super) fn import(daemon: &Daemon) -> Result<(), Failed> {
    if output(&mut daemon.docker(["image", "inspect", NAME])).is_ok() {
        return Ok(());
    }
    say("making the base image from Debian packages (about a minute)");
    let mut make = program(
        "mmdebstrap",
        [
            "--quiet",
            "--variant=minbase",
            "--include=ca-certificates,git,nodejs",
            "bookworm",
            "-",
        ],
    );
    let mut made = make
        .stdout(Stdio::piped())
        .spawn()
        .map_err(CommandError::start(&make))?;
    let mut import = daemon.docker(["import", "-", NAME]);
    if let Some(tar) = made.stdout.take() {
        import.stdin(tar);
    }
    let imported = output(&mut import);
    let status = made.wait().map_err(CommandError::start(&make))?;
    if !status.success() {
        // A base from half a tar must not be found the next time.
        let removed = output(&mut daemon.docker(["image", "rm", NAME]));
        return Err(Failed::Check(format!(
            "mmdebstrap: {status} ({})",
            if removed.is_ok() {
                "removed"
            } else {
                "nothing imported"
            }
        )));
    }
    imported?;
    Ok(())
}
