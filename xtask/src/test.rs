//! `cargo xtask test`: everything that a change must pass.
//!
//! Steps go on after a failure, so that one run shows all of them. What cannot be done on this machine is left out with
//! its reason; the end lists what failed and what was left out.

use std::time::Instant;

use nix::unistd::geteuid;

use crate::command::{cargo, exists, program, run as show, say};
use crate::{Failed, binary, image, machine, web, workspace};

/// Options of `cargo xtask test`
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Leave a step out: format, licences, lints, tests, page or image
    #[arg(long)]
    skip: Vec<String>,
}

/// How a step ended that did not fail.
enum Done {
    Yes,
    LeftOut(String),
}

type Step = (&'static str, fn() -> Result<Done, Failed>);

const STEPS: [Step; 6] = [
    ("format", format),
    ("licences", licences),
    ("lints", lints),
    ("tests", tests),
    ("page", page),
    ("image", container),
];

pub(crate) fn run(options: &Options) -> Result<(), Failed> {
    let known = |name: &String| STEPS.iter().any(|(step, _)| step == name);
    if let Some(unknown) = options.skip.iter().find(|name| !known(name)) {
        return Err(Failed::Check(format!("there is no step {unknown:?}")));
    }
    let (mut failed, mut left_out) = (Vec::new(), Vec::new());
    // The binary embeds the page, so the page comes before anything is compiled.
    web::build()?;
    for (name, step) in STEPS {
        if options.skip.iter().any(|skipped| skipped == name) {
            left_out.push(format!("{name}: as asked"));
            continue;
        }
        say(&format!("\n== {name}"));
        let started = Instant::now();
        match step() {
            Ok(Done::Yes) => {}
            Ok(Done::LeftOut(why)) => left_out.push(format!("{name}: {why}")),
            Err(error) => {
                say(&format!("{name}: {error}"));
                failed.push(name);
            }
        }
        say(&format!(
            "-- {name}: {:.1} s",
            started.elapsed().as_secs_f64()
        ));
    }
    say("");
    for line in &left_out {
        say(&format!("left out: {line}"));
    }
    if failed.is_empty() {
        say("all checks passed");
        return Ok(());
    }
    Err(Failed::Check(format!("failed: {}", failed.join(", "))))
}

fn format() -> Result<Done, Failed> {
    show(&mut cargo(&["fmt", "--all", "--check"]))?;
    Ok(Done::Yes)
}

fn lints() -> Result<Done, Failed> {
    show(&mut cargo(&[
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    Ok(Done::Yes)
}

/// What comes in with the dependencies. Advisories need the network of the day; these do not change between two commits
/// with one lock file.
fn licences() -> Result<Done, Failed> {
    let tool = machine::cargo_deny()?;
    show(&mut program(
        &tool,
        ["check", "bans", "licenses", "sources"],
    ))?;
    Ok(Done::Yes)
}

fn page() -> Result<Done, Failed> {
    Ok(web::test()?.map_or(Done::Yes, Done::LeftOut))
}

/// How all tests are run.
const NEXTEST: [&str; 8] = [
    "nextest",
    "run",
    "--locked",
    "--workspace",
    "--cargo-profile",
    "ci",
    "--profile",
    "ci",
];
const CARGO_TEST: [&str; 6] = [
    "test",
    "--locked",
    "--workspace",
    "--profile",
    "ci",
    "--no-fail-fast",
];

/// Unit, property and black-box tests, all with the static binary: one build of every crate for all of them.
fn tests() -> Result<Done, Failed> {
    let missing = machine::programs(&[
        "git", "setpriv", "unshare", "tmux", "vi", "less", "node", "npm", "pip3",
    ])?;
    if !missing.is_empty() {
        return Err(Failed::Check(format!(
            "the tests need {}",
            missing.join(", ")
        )));
    }
    let user = machine::agents_user()?;
    let clis = whim_kit::agents::installed()?;
    say(&format!("agent CLIs: {}", clis.display()));
    // Before the tests: an installation is not part of what they may take.
    let servers = whim_kit::servers::installed()?;
    say(&format!("development servers: {}", servers.display()));
    let runner = if exists("cargo-nextest") {
        &NEXTEST[..]
    } else {
        say("cargo-nextest is not installed; cargo test runs the same tests, more slowly");
        &CARGO_TEST[..]
    };
    // One run shows all that fails, and as whom.
    let mut passed = show(&mut binary::static_cargo(runner)?);
    if user.is_none() {
        // The same build again, so that only the black-box tests' own time is added.
        for role in ["docker", "ordinary"] {
            say(&format!("the black-box tests as {role}"));
            let only: &[&str] = if runner == NEXTEST {
                &["-E", "package(whim) & binary(host)"]
            } else {
                &["--test", "host"]
            };
            let again = [runner, only].concat();
            let again = show(binary::static_cargo(&again)?.env("WHIM_TEST_AS", role));
            passed = passed.and(again);
        }
    }
    passed?;
    show(&mut program(
        "git",
        [
            "diff",
            "--exit-code",
            "--stat",
            "--",
            "Cargo.lock",
            "web/package-lock.json",
        ],
    ))?;
    Ok(user.map_or(Done::Yes, Done::LeftOut))
}

fn container() -> Result<Done, Failed> {
    if !workspace::at("Dockerfile").exists() {
        return Ok(Done::LeftOut("there is no Dockerfile".into()));
    }
    if !geteuid().is_root() {
        return Ok(Done::LeftOut(
            "a Docker daemon of its own needs root".into(),
        ));
    }
    image::run(&image::Options::default())?;
    Ok(Done::Yes)
}
