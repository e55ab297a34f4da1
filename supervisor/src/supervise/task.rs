//! The task, where the platform has it.

use whim_wire::state::Phase;

use super::Failure;
use crate::board::Board;
use crate::config::{Given, Settings};
use crate::platform::{self, Platform};

/// How the container ends when the platform's client cannot be made.
pub(super) fn no_platform(error: &platform::OpenError) -> Failure {
    let code = match error {
        platform::OpenError::Record(_) => 73,
        platform::OpenError::Setup(_)
        | platform::OpenError::Dial(_)
        | platform::OpenError::Task => 64,
    };
    Failure::new(code, error.to_string())
}

/// The task as the platform gives it. One without a spec for this task leaves it to flags and variables.
pub(super) async fn fetch(
    platform: &Platform,
    board: &Board,
    given: &Given,
) -> Result<Settings, Failure> {
    let step = "spec";
    board.phase(Phase::Booting { step: step.into() });
    let give_up = |code, error: String| {
        board.phase(Phase::Failed {
            step: step.into(),
            error: error.clone(),
        });
        Failure::new(code, error)
    };
    let spec = platform.spec().await;
    let spec = spec.map_err(|error| give_up(69, error.to_string()))?;
    let resolved = match spec {
        Some(spec) => given.resolve(Some(&spec)),
        None => given.resolve_alone(),
    };
    let resolved = resolved.map_err(|invalid| give_up(invalid.exit_code(), invalid.to_string()))?;
    for warning in resolved.warnings {
        super::complain(&format!("warning: {warning}"));
    }
    Ok(resolved.settings)
}
