//! Secrets of this container's own: as given, or random and kept by the keeper, so that they outlive this supervisor.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use whim_entrypoint::wire::read_memfd;

use super::failure::{Failure, at};
use crate::config::{Secret, Settings};
use crate::identity::Identity;
use crate::keeper::Keeper;
use crate::paths::Paths;
use crate::{files, random};

/// Most bytes of one that is held.
const LARGEST: usize = 4096;

/// The bearer of the owner's calls; written where only the owner can read it.
pub(super) async fn control_token(
    keeper: &Keeper,
    held: &mut HashMap<String, OwnedFd>,
    settings: &Settings,
    identity: &Identity,
    paths: &Paths,
) -> Result<String, Failure> {
    let bytes = kept(
        keeper,
        held,
        "control-token",
        settings.control_token.as_ref(),
    )
    .await?;
    let token = String::from_utf8_lossy(&bytes).into_owned();
    let path = paths.control_token();
    if identity.is_split() {
        files::ensure(&path, 0o600, format!("{token}\n").as_bytes())
            .map_err(|error| at(&path, error))?;
    }
    Ok(token)
}

/// The router's secret: links that it signed outlive this supervisor.
pub(super) async fn preview_secret(
    keeper: &Keeper,
    held: &mut HashMap<String, OwnedFd>,
    settings: &Settings,
) -> Result<Vec<u8>, Failure> {
    let given = settings.preview.secret.as_ref();
    kept(keeper, held, "preview-secret", given).await
}

/// The secret of this name: as given, else as the keeper holds it, else random and held from now on.
async fn kept(
    keeper: &Keeper,
    held: &mut HashMap<String, OwnedFd>,
    name: &str,
    given: Option<&Secret>,
) -> Result<Vec<u8>, Failure> {
    if let Some(secret) = given {
        return Ok(secret.expose().as_bytes().to_vec());
    }
    if let Some(memory) = held.remove(name) {
        return read_memfd(&memory, LARGEST).map_err(|error| Failure::new(70, error.to_string()));
    }
    let secret = random::token().into_bytes();
    keeper.hold_sealed(name, &secret).await?;
    Ok(secret)
}
