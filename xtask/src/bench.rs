//! Measurements beside peers, by name. Each installs what it needs where it can, and leaves out the peers that are missing.

use std::path::PathBuf;

use crate::command::{cargo, program, run as show, say};
use crate::{Failed, binary, machine, web, workspace};

/// Options of `cargo xtask bench`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// backup, claim, generation, kills, local, ports, search or terminal
    name: Option<String>,
    /// Arguments of the measurement itself
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

type Measurement = (
    &'static str,
    &'static str,
    fn(&[String]) -> Result<(), Failed>,
);

const ALL: [Measurement; 8] = [
    (
        "backup",
        "what saving a long history costs while it grows, and at the end: [MEGABYTES] [ROUNDS]",
        backup,
    ),
    (
        "claim",
        "from the claim of a warm container to its agent: [ROUNDS]",
        claim,
    ),
    (
        "generation",
        "the generation proxy beside nginx and others: [--rounds N] [--seconds S] [--only NAME,…] [--calls N]",
        generation,
    ),
    (
        "kills",
        "supervisor, helper, store and whole containers taken away in the middle of backups: [HOW OFTEN, else 1000]",
        kills,
    ),
    (
        "local",
        "the local proxy beside nginx, haproxy and caddy: [--rounds N] [--seconds S]",
        local,
    ),
    (
        "ports",
        "the port monitor's delay and cost: [ROUNDS]",
        ports,
    ),
    (
        "search",
        "the search among many turns, beside looking through all of them: [TURNS] [ROUNDS]",
        search,
    ),
    (
        "terminal",
        "the browser terminal beside ttyd, if that is installed: [ROUNDS, 0 leaves out what is compared]",
        terminal,
    ),
];

/// Runs one, or lists all there are.
pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let Some(name) = &options.name else {
        for (name, what, _) in ALL {
            say(&format!("{name:12}{what}"));
        }
        return Ok(());
    };
    let Some((_, _, measure)) = ALL.iter().find(|(known, ..)| known == name) else {
        let known: Vec<&str> = ALL.iter().map(|(name, ..)| *name).collect();
        return Err(Failed::Check(format!(
            "there is no measurement {name:?}; there are {}",
            known.join(", ")
        )));
    };
    measure(&options.arguments)
}

fn backup(arguments: &[String]) -> Result<(), Failed> {
    needs(&["python3"])?;
    let whim = shipped()?;
    let bench = built("whim-bench", &["--bin", "bench-backup"], "bench-backup")?;
    Ok(show(program(bench, [whim]).args(arguments))?)
}

fn claim(arguments: &[String]) -> Result<(), Failed> {
    let whim = shipped()?;
    let bench = built("whim-bench", &["--bin", "bench-claim"], "bench-claim")?;
    Ok(show(program(bench, [whim]).args(arguments))?)
}

fn generation(arguments: &[String]) -> Result<(), Failed> {
    needs(&["nginx"])?;
    let whim = shipped()?;
    let bench = built(
        "whim-bench",
        &["--bin", "bench-generation"],
        "bench-generation",
    )?;
    Ok(show(program(bench, arguments).arg("--whim").arg(whim))?)
}

/// The suite's test of it, which takes away thirty times.
fn kills(arguments: &[String]) -> Result<(), Failed> {
    web::build()?;
    let number = arguments.first().map_or("1000", String::as_str);
    let test = ["test", "--locked", "--package", "whim", "--profile", "ci"];
    let only = ["--test", "host", "--", "--nocapture", "kills::"];
    let mut test = binary::static_cargo(&test)?;
    Ok(show(test.args(only).env("WHIM_TEST_KILLS", number))?)
}

fn local(arguments: &[String]) -> Result<(), Failed> {
    needs(&["python3", "nginx", "wrk"])?;
    let bench = built("whim-bench", &["--bin", "bench-local"], "bench-local")?;
    let mut compare = program("python3", ["benches/local/compare.py"]);
    Ok(show(compare.arg(bench).args(arguments))?)
}

fn ports(arguments: &[String]) -> Result<(), Failed> {
    // The library embeds the page.
    web::build()?;
    let bench = built("whim-bench", &["--bin", "bench-ports"], "bench-ports")?;
    Ok(show(&mut program(bench, arguments))?)
}

fn search(arguments: &[String]) -> Result<(), Failed> {
    // The library embeds the page.
    web::build()?;
    let bench = built("whim-bench", &["--bin", "bench-search"], "bench-search")?;
    Ok(show(&mut program(bench, arguments))?)
}

fn terminal(arguments: &[String]) -> Result<(), Failed> {
    let whim = shipped()?;
    let bench = built("whim-bench", &["--bin", "bench-terminal"], "bench-terminal")?;
    Ok(show(program(bench, [whim]).args(arguments))?)
}

fn needs(programs: &[&str]) -> Result<(), Failed> {
    let missing = machine::programs(programs)?;
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failed::Check(format!(
        "the measurement needs {}",
        missing.join(", ")
    )))
}

/// The program as it is shipped, with the page that it embeds; its path.
fn shipped() -> Result<PathBuf, Failed> {
    web::build()?;
    binary::build("release")
}

/// A release build for this machine; its path.
fn built(package: &str, what: &[&str], path: &str) -> Result<PathBuf, Failed> {
    let arguments = ["build", "--release", "--locked", "--package", package];
    show(cargo(&arguments).args(what))?;
    Ok(workspace::target(&format!("release/{path}")))
}
