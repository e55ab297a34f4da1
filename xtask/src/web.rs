//! The web page: built before the binary that embeds it.

use std::fs;
use std::time::SystemTime;

use crate::command::{program, run, say};
use crate::{Failed, binary, machine, workspace};

/// Builds the page if it is older than its sources. False where there is none to build.
pub(crate) fn build() -> Result<bool, Failed> {
    if !workspace::at("web/package.json").exists() {
        return Ok(false);
    }
    if newest("web/dist").is_some_and(|built| newest_source().is_some_and(|source| built > source))
    {
        say("the web page is up to date");
        return Ok(true);
    }
    install()?;
    npm(&["run", "build"])?;
    Ok(true)
}

/// Drives the page of a real whim in Chromium. Why not, if that cannot be done here.
pub(crate) fn test() -> Result<Option<String>, Failed> {
    let missing = machine::programs(&["chromium"])?;
    if !missing.is_empty() {
        return Ok(Some(format!(
            "{} is not installed and only root can install it",
            missing.join(" and ")
        )));
    }
    install()?;
    let whim = binary::build("ci")?;
    let model = binary::build_other("whim-kit", "scripted-model", "ci")?;
    let clis = whim_kit::agents::installed()?;
    let servers = whim_kit::servers::installed()?;
    run(program("npm", ["test"])
        .current_dir(workspace::at("web"))
        .env("WHIM", whim)
        .env("SCRIPTED_MODEL", model)
        .env("AGENTS", clis)
        .env("SERVERS", servers))?;
    Ok(None)
}

fn install() -> Result<(), Failed> {
    let missing = machine::programs(&["node", "npm"])?;
    if !missing.is_empty() {
        return Err(Failed::Check(format!(
            "the web page needs {}",
            missing.join(" and ")
        )));
    }
    // npm writes this file when an installation is complete.
    let installed = workspace::at("web/node_modules/.package-lock.json")
        .metadata()
        .and_then(|meta| meta.modified());
    let locked = workspace::at("web/package-lock.json")
        .metadata()
        .and_then(|meta| meta.modified());
    if let (Ok(installed), Ok(locked)) = (installed, locked)
        && installed >= locked
    {
        return Ok(());
    }
    npm(&["ci", "--no-audit", "--no-fund"])
}

fn npm(arguments: &[&str]) -> Result<(), Failed> {
    Ok(run(
        program("npm", arguments).current_dir(workspace::at("web"))
    )?)
}

fn newest_source() -> Option<SystemTime> {
    let files = [
        "web/package.json",
        "web/package-lock.json",
        "web/index.html",
        "web/vite.config.js",
        "web/src",
    ];
    files.into_iter().filter_map(newest).max()
}

/// The latest change at or under a path.
fn newest(path: &str) -> Option<SystemTime> {
    let mut latest = None;
    let mut open = vec![workspace::at(path)];
    while let Some(path) = open.pop() {
        let Ok(meta) = path.metadata() else { continue };
        if meta.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path()),
            );
        } else {
            latest = latest.max(meta.modified().ok());
        }
    }
    latest
}
