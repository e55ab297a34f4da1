//! What the container was told to do: flags, variables, spec, as the keeper holds them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use whim_entrypoint::wire::{Arguments, memfd_sealed, read_memfd};

use super::complain;
use super::failure::Failure;
use crate::config::{Given, Request, Resolved, Settings, Variables};
use crate::keeper::Keeper;

/// Largest argv and environment.
pub(super) const ARGUMENTS: usize = 64 * 1024 * 1024;

/// What the keeper was started with, or was given since.
pub(super) struct Told {
    pub(super) given: Given,
    pub(super) settings: Box<Settings>,
    pub(super) variables: Variables,
}

/// Reads what we were told. `None`: help was asked for and printed.
pub(super) fn read(held: &mut HashMap<String, OwnedFd>) -> Result<Option<Told>, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(70, format!("the keeper's arguments: {error}"))
    };
    // Standard input is read, files may be gone: a later supervisor goes by what the first one understood.
    if let Some(settled) = held.get("settled") {
        let bytes = read_memfd(settled, ARGUMENTS).map_err(|error| broken(&error))?;
        let (given, spec) = Given::from_settled(&bytes).map_err(|error| broken(&error))?;
        let resolved = given
            .resolve(spec.as_deref())
            .map_err(|error| broken(&error))?;
        let variables = container(held)?;
        return Ok(Some(Told {
            given,
            settings: Box::new(resolved.settings),
            variables,
        }));
    }
    let arguments = held.get("arguments").ok_or_else(|| broken(&"missing"))?;
    let bytes = read_memfd(arguments, ARGUMENTS).map_err(|error| broken(&error))?;
    let arguments = Arguments::decode(&bytes).map_err(|error| broken(&error))?;
    let variables = Variables::new(arguments.environment);
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
    let memfd = memfd_sealed("settled", &bytes).map_err(|error| internal(&error))?;
    Ok(keeper.hold("settled", memfd).await?)
}

/// The container's own environment, as the keeper received it.
pub(super) fn container(held: &HashMap<String, OwnedFd>) -> Result<Variables, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(70, format!("the keeper's arguments: {error}"))
    };
    let arguments = held.get("arguments").ok_or_else(|| broken(&"missing"))?;
    let bytes = read_memfd(arguments, ARGUMENTS).map_err(|error| broken(&error))?;
    let arguments = Arguments::decode(&bytes).map_err(|error| broken(&error))?;
    Ok(Variables::new(arguments.environment))
}
