//! The static binary.
//!
//! `crt-static` needs an explicit target, because procedural macros cannot be static; the flags then hold for the
//! target's code only. Relative relocations are packed where the linker can do it and the result starts.

use std::path::PathBuf;
use std::process::Command;

use crate::command::{cargo, output, program, run};
use crate::{Failed, workspace};

/// The flags of the static build, for `RUSTFLAGS`.
pub(crate) fn flags() -> String {
    let mut flags = "-C target-feature=+crt-static".to_owned();
    if packs_relocations() {
        flags.push_str(" -C link-arg=-Wl,-z,pack-relative-relocs");
    }
    flags
}

/// Cargo for this machine as an explicit target, with the static flags.
pub(crate) fn static_cargo(arguments: &[&str]) -> Result<Command, Failed> {
    let mut command = cargo(arguments);
    command
        .args(["--target", &target()?])
        .env("RUSTFLAGS", flags());
    Ok(command)
}

/// Builds the `whim` binary; its path.
pub(crate) fn build(profile: &str) -> Result<PathBuf, Failed> {
    build_other("whim", "whim", profile)
}

/// Builds a binary of one of the crates; its path.
pub(crate) fn build_other(package: &str, name: &str, profile: &str) -> Result<PathBuf, Failed> {
    run(&mut static_cargo(&[
        "build",
        "--locked",
        "--package",
        package,
        "--bin",
        name,
        "--profile",
        profile,
    ])?)?;
    Ok(workspace::target(&format!(
        "{}/{profile}/{name}",
        target()?
    )))
}

/// This machine's target triple.
fn target() -> Result<String, Failed> {
    Ok(output(&mut program("rustc", ["--print", "host-tuple"]))?)
}

fn packs_relocations() -> bool {
    let Ok(directory) = tempfile::tempdir() else {
        return false;
    };
    let (source, result) = (
        directory.path().join("probe.c"),
        directory.path().join("probe"),
    );
    if std::fs::write(
        &source,
        "int zero; int *at = &zero; int main(void) { return *at; }\n",
    )
    .is_err()
    {
        return false;
    }
    let mut compile = Command::new("cc");
    compile
        .args(["-static-pie", "-Wl,-z,pack-relative-relocs", "-o"])
        .arg(&result)
        .arg(&source);
    // An old linker warns of the option and goes on; only what starts counts.
    output(&mut compile).is_ok() && output(&mut Command::new(&result)).is_ok()
}
