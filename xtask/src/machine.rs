//! What tests and measurements need of the machine.

use std::path::PathBuf;

use nix::unistd::{User, geteuid};

use crate::command::{cargo, exists, output, program, run, say};
use crate::{Failed, workspace};

/// The packages that bring these programs on Debian and Ubuntu.
const PACKAGES: [(&str, &str); 15] = [
    ("git", "git"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("tmux", "tmux"),
    ("vi", "vim-tiny"),
    ("less", "less"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("mmdebstrap", "mmdebstrap"),
    ("dockerd", "docker.io"),
    ("python3", "python3"),
    ("pip3", "python3-pip"),
    ("chromium", "chromium"),
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
];

/// Makes sure that these programs are there; installs them if this is root on Debian or Ubuntu. What is still missing
/// afterwards.
pub(crate) fn programs(wanted: &[&str]) -> Result<Vec<String>, Failed> {
    let missing = || {
        wanted
            .iter()
            .filter(|name| !exists(name))
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let first = missing();
    if first.is_empty() || !geteuid().is_root() || !exists("apt-get") {
        return Ok(first);
    }
    let package = |name: &String| {
        PACKAGES
            .iter()
            .find(|(program, _)| program == name)
            .map(|(_, package)| *package)
    };
    let mut packages: Vec<&str> = first.iter().filter_map(package).collect();
    packages.dedup();
    if packages.is_empty() {
        return Ok(first);
    }
    say(&format!("installing {}", packages.join(" ")));
    run(program("apt-get", ["update", "-q"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let arguments = ["install", "-y", "-q", "--no-install-recommends"]
        .into_iter()
        .chain(packages);
    run(program("apt-get", arguments).env("DEBIAN_FRONTEND", "noninteractive"))?;
    Ok(missing())
}

/// The version of cargo-deny that the configuration in `deny.toml` was written for.
const CARGO_DENY: &str = "0.20.2";

/// The program that checks licences and origins of dependencies; installed under `target/` where there is none.
pub(crate) fn cargo_deny() -> Result<PathBuf, Failed> {
    if exists("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    let root = workspace::target("tools");
    let path = root.join("bin/cargo-deny");
    if !path.exists() {
        run(
            cargo(&["install", "--locked", "--version", CARGO_DENY, "--root"])
                .arg(&root)
                .arg("cargo-deny"),
        )?;
    }
    Ok(path)
}

/// Makes sure that there is an ordinary user `node`; why not, if not.
pub(crate) fn agents_user() -> Result<Option<String>, Failed> {
    let there = || {
        User::from_name(whim_kit::AGENTS_USER)
            .ok()
            .flatten()
            .is_some()
    };
    if !geteuid().is_root() {
        return Ok(Some(
            "not root: tests that change users are left out".to_owned(),
        ));
    }
    if !there() {
        say("making the user node");
        output(&mut program(
            "useradd",
            [
                "--create-home",
                "--shell",
                "/bin/bash",
                whim_kit::AGENTS_USER,
            ],
        ))?;
    }
    Ok((!there()).then(|| "there is no user node and none could be made".to_owned()))
}
