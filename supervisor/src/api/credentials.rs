//! `PUT /v1/spec` and `PUT /v1/credentials`: what a platform gives a warm or running container.

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use whim_wire::spec::{ProviderKind, Sensitive};

use super::Shared;
use super::access::Owner;
use super::problem::Problem;
use crate::boot::credentials::Remote;
use crate::claim::ClaimError;
use crate::config::Secret;
use crate::rotated::{Given, Login};

/// Claims a waiting container, once.
pub(super) async fn claim(
    _: Owner,
    State(api): Shared,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    match api.claim.claim(body.to_vec()).await {
        Ok(()) => Ok(StatusCode::ACCEPTED),
        Err(error @ (ClaimError::NotWaiting | ClaimError::Taken)) => {
            Err(Problem::conflict(error.to_string()))
        }
        Err(error @ ClaimError::NotRemembered) => Err(Problem::internal(&error)),
        Err(ClaimError::Invalid(invalid)) => {
            let errors = crate::config::report::Check {
                mistakes: invalid.mistakes.clone(),
                warnings: Vec::new(),
            }
            .to_json();
            Err(Problem::invalid(invalid.to_string()).with_errors(errors))
        }
    }
}

/// Credentials, held in memory only.
#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct NewCredentials {
    /// A provider's key.
    provider: Option<NewKey>,
    /// Login for the task's repository.
    git: Option<NewLogin>,
    /// The token of the platform's own API.
    platform: Option<NewToken>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct NewKey {
    kind: ProviderKind,
    key: Sensitive,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct NewLogin {
    /// The repository's URL: the login is given for it only.
    url: Sensitive,
    username: String,
    password: Sensitive,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct NewToken {
    token: Sensitive,
}

/// Replaces provider key, git login and the platform's token while running.
pub(super) async fn rotate(
    _: Owner,
    State(api): Shared,
    Json(new): Json<NewCredentials>,
) -> Result<StatusCode, Problem> {
    let mut given = Given::default();
    let remote =
        match &new.git {
            Some(login) => Some(Remote::parse(login.url.expose()).ok_or_else(|| {
                Problem::invalid("git.url: a login belongs to an http or https URL")
            })?),
            None => None,
        };
    if remote.is_some() && api.git_credentials.is_closed() {
        return Err(Problem::conflict(
            "git: the repository is untrusted and fetched; it gets no login any more",
        ));
    }
    if let Some(NewToken { token }) = new.platform {
        if !api.platform.rotate(Secret::new(token.expose().to_owned())) {
            return Err(Problem::conflict(
                "platform.token: there is no platform; start with --backend",
            ));
        }
        given.platform = Some(token);
    }
    if let Some(NewKey { kind, key }) = new.provider {
        api.spending.rotate(kind, key.expose().to_owned());
        given.keys.insert(kind, key);
    }
    if let (Some((remote, _)), Some(login)) = (remote, new.git) {
        let password = login.password.expose().to_owned();
        api.git_credentials
            .set(remote, login.username.clone(), password);
        given.git = Some(Login {
            url: login.url,
            username: login.username,
            password: login.password,
        });
    }
    let kept = api.rotated.keep(given).await;
    kept.map_err(|error| Problem::internal(&error))?;
    Ok(StatusCode::NO_CONTENT)
}
