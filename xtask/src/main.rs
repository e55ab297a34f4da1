//! `cargo xtask`: set-up for people. Nothing here is part of the product.
//!
//! | command | does |
//! |---|---|
//! | `run [PROMPT]` | builds, makes a sample repository, starts whim on it with a scripted model if there is no key |
//! | `test` | everything that a change must pass; says at the end what it left out and why |
//! | `bench NAME` | a measurement beside its peers |
//! | `image` | builds the container image without a registry and tries it |
//! | `build` | the static binary; prints its path |
//!
//! What a command needs of the machine it installs itself where it can, and prints what it does.

mod bench;
mod binary;
mod command;
mod image;
mod machine;
mod run;
mod test;
mod web;
mod workspace;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up for people: run, test, bench, image
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Start whim with an agent on a sample repository; builds and installs what that needs
    Run(run::Options),
    /// Run every check: format, lints, licences, tests, web page, image
    Test(test::Options),
    /// Run a measurement beside its peers; without a name list them
    Bench(bench::Options),
    /// Build the container image without a registry and try it
    Image(image::Options),
    /// Build the static binary and print its path
    Build {
        /// Cargo profile: `ci` builds quickly, `release` is what ships
        #[arg(long, default_value = "release")]
        profile: String,
    },
}

/// Why a task failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Command(#[from] command::CommandError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Repo(#[from] whim_kit::repo::RepoError),
    #[error(transparent)]
    Root(#[from] whim_kit::RootError),
    #[error(transparent)]
    Install(#[from] whim_kit::InstallError),
    #[error("cannot start the scripted model: {0}")]
    Model(io::Error),
    #[error("{0}")]
    Wait(String),
    /// Something that was checked is not so.
    #[error("{0}")]
    Check(String),
}

fn main() -> ExitCode {
    let result = match Options::parse().task {
        Task::Run(options) => run::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Image(options) => image::run(&options),
        Task::Build { profile } => web::build()
            .and_then(|_| binary::build(&profile))
            .map(|path| command::say(&path.display().to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            // Where standard error is gone nobody is left to tell.
            drop(writeln!(io::stderr(), "xtask: {failed}"));
            ExitCode::FAILURE
        }
    }
}
