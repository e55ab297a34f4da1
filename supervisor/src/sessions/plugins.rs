//! Installs an agent's plugins with its own program, as its user, before it starts.
//!
//! A plugin that cannot be installed is told in the log and left to the agent, which tries again beside its work.

use std::path::Path;
use std::time::Duration;

use whim_entrypoint::wire::Launch;

use super::launch::{Ground, environment};
use crate::agents::command::Command;
use crate::agents::plugins::{Installation, installed_file, is_installed};
use crate::agents::setup::Setup;

/// A marketplace may be a repository that is cloned.
const DEADLINE: Duration = Duration::from_secs(120);
/// Bytes of what it prints.
const OUTPUT: usize = 256 << 10;
/// Bytes of the file of what is installed.
const FILE: usize = 4 << 20;

pub(super) async fn install(
    ground: &Ground,
    setup: &Setup,
    program: &Path,
    command: &Command,
    wanted: Vec<Installation>,
) {
    if wanted.is_empty() {
        return;
    }
    let path = installed_file(&setup.home);
    let installed = match ground.helper.read_optional(&path, FILE).await {
        Ok(found) => found.map(|(file, _)| file).unwrap_or_default(),
        Err(error) => {
            tracing::warn!(%error, "what plugins are installed cannot be read");
            Vec::new()
        }
    };
    for Installation { plugin, calls } in wanted {
        if is_installed(&installed, &plugin) {
            continue;
        }
        match all(ground, program, command, calls).await {
            Ok(()) => tracing::info!(plugin, "installed"),
            Err(error) => tracing::warn!(plugin, error, "a plugin is not installed"),
        }
    }
}

async fn all(
    ground: &Ground,
    program: &Path,
    command: &Command,
    calls: Vec<Vec<String>>,
) -> Result<(), String> {
    for call in calls {
        let arguments = std::iter::once(program.as_os_str().to_owned());
        let launch = Launch {
            arguments: arguments.chain(call.iter().map(Into::into)).collect(),
            environment: environment(&ground.task().environment, command),
            directory: command.directory.clone(),
            user: ground.user.clone(),
            no_new_privs: ground.no_new_privs,
            ..Launch::of(program)
        };
        let run = ground
            .keeper
            .run("plugins", &launch, DEADLINE, OUTPUT)
            .await;
        let done = run.map_err(|error| error.to_string())?;
        if !done.exit.success() {
            let said = [done.stdout, done.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let last = said.lines().rev().find(|line| !line.trim().is_empty());
            return Err(format!(
                "{}: {}: {}",
                call.join(" "),
                done.exit,
                last.unwrap_or("it said nothing").trim()
            ));
        }
    }
    Ok(())
}
