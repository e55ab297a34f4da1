//! What the container was told to do: flags, variables, spec, as the keeper holds them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use whim_entrypoint::wire::{ARGUMENTS, Arguments, MAX_ARGUMENTS, read_memfd};
use zeroize::Zeroizing;

use super::complain;
use super::failure::Failure;
use crate::config::{Given, Request, Resolved, Settings, Variables};
use crate::keeper::Keeper;
use crate::reload::{LARGEST, SETTLED, UNDER_WAY};

/// What the keeper was started with, or was given since.
pub(super) struct Told {
    pub(super) given: Given,
    pub(super) settings: Box<Settings>,
    pub(super) variables: Variables,
}

/// Reads what we were told. `None`: help was asked for and printed.
pub(super) fn read(held: &mut HashMap<String, OwnedFd>) -> Result<Option<Told>, Failure> {
    let arguments = arguments(held)?;
    let variables = Variables::new(arguments.environment);
    // Standard input is read, files may be gone: a later supervisor goes by what the first one understood.
    if let Some(settled) = held.get(SETTLED) {
        let bytes = read_memfd(settled, LARGEST).map_err(|error| broken(&error))?;
        let (given, spec) = Given::from_settled(&bytes).map_err(|error| broken(&error))?;
        let resolved = given
            .resolve(spec.as_deref())
            .map_err(|error| broken(&error))?;
        return Ok(Some(Told {
            given,
            settings: Box::new(resolved.settings),
            variables,
        }));
    }
    let given = match Given::parse(&arguments.arguments, variables.clone()) {
        Ok(given) => given,
        Err(help) => {
            use std::io::Write;
            drop(std::io::stdout().write_all(help.as_bytes()));
            return Ok(None);
        }
    };
    let first = crate::config::read(
        &arguments.arguments,
        variables.clone(),
        &mut std::io::stdin().lock(),
    );
    let resolved = match first {
        Ok(Request::Run(resolved)) => Ok(*resolved),
        Ok(Request::Help(_)) => return Ok(None),
        Err(invalid) => Err(invalid),
    };
    match resolved {
        Ok(Resolved { settings, warnings }) => {
            for warning in warnings {
                complain(&format!("warning: {warning}"));
            }
            Ok(Some(Told {
                given,
                settings: Box::new(settings),
                variables,
            }))
        }
        Err(invalid) => Err(Failure::new(invalid.exit_code(), invalid.to_string())),
    }
}

/// What was understood outlives this supervisor in the keeper's memory.
pub(super) async fn remember(
    keeper: &Keeper,
    given: &Given,
    settings: &Settings,
) -> Result<(), Failure> {
    let internal = |error: &dyn std::fmt::Display| Failure::new(70, error.to_string());
    let bytes = given
        .settle(settings.spec.as_ref())
        .map_err(|error| internal(&error))?;
    Ok(keeper.hold_sealed(SETTLED, &bytes).await?)
}

/// The layers before a reload that the last supervisor did not finish.
pub(super) fn interrupted_reload(
    held: &mut HashMap<String, OwnedFd>,
) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let Some(memory) = held.remove(UNDER_WAY) else {
        return Ok(None);
    };
    let bytes =
        read_memfd(&memory, LARGEST).map_err(|error| Failure::new(70, error.to_string()))?;
    Ok(Some(Zeroizing::new(bytes)))
}

/// What the keeper was started with: arguments, and the container's own environment.
pub(crate) fn arguments(held: &HashMap<String, OwnedFd>) -> Result<Arguments, Failure> {
    let memory = held
        .get(ARGUMENTS)
        .ok_or_else(|| broken(&"they are missing"))?;
    let bytes = read_memfd(memory, MAX_ARGUMENTS).map_err(|error| broken(&error))?;
    Arguments::decode(&bytes).map_err(|error| broken(&error))
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(70, format!("the keeper's arguments: {error}"))
}
