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

/// Claims a waiting container, once.
pub(super) async fn claim(
    _: Owner,
    State(api): Shared,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    match api.claim.claim(body.to_vec()) {
        Ok(()) => Ok(StatusCode::ACCEPTED),
        Err(error @ (ClaimError::NotWaiting | ClaimError::Taken)) => {
            Err(Problem::conflict(error.to_string()))
        }
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
struct NewToken {
    token: Sensitive,
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

/// Replaces provider key, git login and the platform's token while running.
pub(super) async fn rotate(
    _: Owner,
    State(api): Shared,
    Json(new): Json<NewCredentials>,
) -> Result<StatusCode, Problem> {
    let login = match new.git {
        Some(login) => {
            let (remote, _) = Remote::parse(login.url.expose()).ok_or_else(|| {
                Problem::invalid("git.url: a login belongs to an http or https URL")
            })?;
            Some((remote, login.username, login.password.expose().to_owned()))
        }
        None => None,
    };
    if let Some(NewToken { token }) = new.platform
        && !api.platform.rotate(Secret::new(token.expose().to_owned()))
    {
        return Err(Problem::conflict(
            "platform.token: there is no platform (--backend), or its task is not known yet",
        ));
    }
    if let Some(NewKey { kind, key }) = new.provider {
        api.spending.rotate(kind, key.expose().to_owned());
    }
    if let Some((remote, username, password)) = login {
        api.git_credentials.set(remote, username, password);
    }
    Ok(StatusCode::NO_CONTENT)
}
