//! The binary. What must be small (the keeper, an init, a holder) is found by its name before anything else is touched.

use std::process::ExitCode;

fn main() -> ExitCode {
    match whim_entrypoint::dispatch() {
        Some(code) => code,
        None => whim::main(),
    }
}
