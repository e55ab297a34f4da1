//! Secrets of this container's own: as given, or random and kept by the keeper, so that they outlive this supervisor.

use std::collections::HashMap;
use std::os::fd::OwnedFd;

use whim_entrypoint::wire::{memfd_sealed, read_memfd};

use super::failure::{Failure, at};
use crate::config::Settings;
use crate::identity::Identity;
use crate::keeper::Keeper;
use crate::paths::Paths;
use crate::{files, random};

/// The bearer of the owner's calls; written where only the owner can read it.
pub(super) async fn control_token(
    keeper: &Keeper,
    held: &mut HashMap<String, OwnedFd>,
    settings: &Settings,
    identity: &Identity,
    paths: &Paths,
) -> Result<String, Failure> {
    let token = match (&settings.control_token, held.remove("control-token")) {
        (Some(token), _) => token.expose().to_owned(),
        (None, Some(held)) => {
            let bytes =
                read_memfd(&held, 4096).map_err(|error| Failure::new(70, error.to_string()))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        (None, None) => {
            let token = random::token();
            let memfd = memfd_sealed("control-token", token.as_bytes());
            keeper
                .hold(
                    "control-token",
                    memfd.map_err(|error| Failure::new(73, error.to_string()))?,
                )
                .await?;
            token
        }
    };
    let path = paths.control_token();
    if identity.is_split() {
        files::ensure(&path, 0o600, format!("{token}\n").as_bytes())
            .map_err(|error| at(&path, error))?;
    }
    Ok(token)
}

/// The router's secret: as given, or random and kept by the keeper, so that links outlive this supervisor.
pub(super) async fn preview_secret(
    keeper: &Keeper,
    held: &mut HashMap<String, OwnedFd>,
    settings: &Settings,
) -> Result<Vec<u8>, Failure> {
    let internal = |error: std::io::Error| Failure::new(70, error.to_string());
    if let Some(secret) = &settings.preview.secret {
        return Ok(secret.expose().as_bytes().to_vec());
    }
    if let Some(secret) = held.remove("preview-secret") {
        return read_memfd(&secret, 4096).map_err(internal);
    }
    let secret = random::token().into_bytes();
    keeper
        .hold(
            "preview-secret",
            memfd_sealed("preview-secret", &secret).map_err(internal)?,
        )
        .await?;
    Ok(secret)
}
