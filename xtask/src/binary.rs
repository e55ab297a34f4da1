//! The static binary.
//!
//! `crt-static` needs an explicit target, because procedural macros cannot be static; the flags then hold for the
//! target's code only. Relative relocations are packed where the linker can do it and the result starts; functions that
//! came out the same are kept once where it can do that. Paths of dependencies begin where the registry's sources do: where
//! they lay on the machine that built is nobody's business, and 60 kB.

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
    if folds_functions() {
        flags.push_str(" -C link-arg=-Wl,--icf=all");
    }
    for sources in registry_sources() {
        flags.push_str(&format!(" --remap-path-prefix={sources}="));
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
    // Where all crates are put together at once, that is done at the level of this one, and those that are optimised for
    // speed need the highest: below it no loop of theirs is vectorised. Said here and not in the profile, because there
    // it would hold for the library too, and because Cargo forgets `strip` where the profile names the linked package.
    rustc("whim", "whim", profile, &["-C", "opt-level=3"])
}

/// Builds a binary of one of the crates; its path.
pub(crate) fn build_other(package: &str, name: &str, profile: &str) -> Result<PathBuf, Failed> {
    rustc(package, name, profile, &[])
}

/// `flags`: for the binary itself only.
fn rustc(package: &str, name: &str, profile: &str, flags: &[&str]) -> Result<PathBuf, Failed> {
    let mut command = static_cargo(&["rustc", "--locked", "--package", package])?;
    command.args(["--bin", name, "--profile", profile, "--"]);
    run(command.args(flags))?;
    Ok(workspace::target(&format!(
        "{}/{profile}/{name}",
        target()?
    )))
}

/// This machine's target triple.
fn target() -> Result<String, Failed> {
    Ok(output(&mut program("rustc", ["--print", "host-tuple"]))?)
}

/// Where cargo keeps the sources of the dependencies; of none that flags cannot name.
fn registry_sources() -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || std::env::home_dir().map(|home| home.join(".cargo")),
        |home| Some(PathBuf::from(home)),
    );
    let Some(Ok(registries)) = home.map(|home| home.join("registry/src").read_dir()) else {
        return Vec::new();
    };
    registries
        .filter_map(|registry| registry.ok()?.path().into_os_string().into_string().ok())
        .map(|path| format!("{path}/"))
        .filter(|path| !path.contains([' ', '=']))
        .collect()
}

/// Whether the linker that rustc uses knows the option: its own does, the system's may not.
fn folds_functions() -> bool {
    let Ok(directory) = tempfile::tempdir() else {
        return false;
    };
    let source = directory.path().join("probe.rs");
    if std::fs::write(&source, "fn main() {}\n").is_err() {
        return false;
    }
    let mut compile = program("rustc", ["-C", "link-arg=-Wl,--icf=all", "-o"]);
    compile.arg(directory.path().join("probe")).arg(&source);
    output(&mut compile).is_ok()
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
