//! `fake-agent`: behaves like an agent as far as a host can tell, and in every bad way that one can.
//!
//! Its arguments are steps, done in order; see [`step::Step`] for all. With none it is an interactive agent
//! (`prompts`): it shows an input line on its terminal, takes prompts by keyboard or bracketed paste, asks the model at
//! `ANTHROPIC_BASE_URL` with `ANTHROPIC_AUTH_TOKEN` (or `ANTHROPIC_API_KEY`), runs the shell commands that the model
//! wants, and prints the answer. Without a base URL it echoes. A prompt `/STEP` does that step.
//!
//! ```text
//! fake-agent 'print ready' 'daemon double ignore TERM; forever' 'burn 2000' 'exit 3'
//! ```
//!
//! Its exit code is that of the last `exit`, else 0; 64 for a step it does not know, 70 when a step fails.

mod daemon;
mod keyboard;
mod model;
mod run;
mod step;

use std::io::{self, Write};
use std::process::ExitCode;

use step::Step;

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments
        .first()
        .is_some_and(|first| first == daemon::BECOME)
    {
        arguments.remove(0);
        match daemon::detach(&mut arguments) {
            Ok(true) => {}
            Ok(false) => return ExitCode::SUCCESS,
            Err(error) => return complain(70, &error),
        }
    }
    if arguments.is_empty() {
        arguments.push("prompts".to_owned());
    }
    let steps: Result<Vec<Step>, _> = arguments.iter().map(|line| Step::parse(line)).collect();
    let steps = match steps {
        Ok(steps) => steps,
        Err(error) => return complain(64, &error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return complain(70, &error),
    };
    match runtime.block_on(run::all(steps)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => complain(70, &error),
    }
}

fn complain(code: u8, error: &dyn std::error::Error) -> ExitCode {
    // Where standard error is gone nobody is left to tell.
    drop(writeln!(io::stderr(), "fake-agent: {error}"));
    ExitCode::from(code)
}
