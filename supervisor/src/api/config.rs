//! `PUT /v1/config`: other layers for a task that runs.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use serde::Deserialize;

use super::Shared;
use super::access::Owner;
use super::problem::Problem;
use crate::config::report::Check;
use crate::reload::{ReloadError, Reloaded, StepError};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    /// Left out: no agent is restarted.
    restart: Option<Restart>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Restart {
    /// By resuming its conversation.
    Resume,
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        let detail = error.to_string();
        match error {
            ReloadError::NotReady
            | ReloadError::Busy
            | ReloadError::Step(StepError::Edit(_) | StepError::Busy(_)) => Self::conflict(detail),
            ReloadError::Invalid(invalid) => {
                let check = Check {
                    mistakes: invalid.mistakes,
                    warnings: Vec::new(),
                };
                Self::invalid(detail).with_errors(check.to_json())
            }
            ReloadError::Step(_) | ReloadError::Record(_) | ReloadError::Remember(_) => {
                Self::internal(&detail)
            }
        }
    }
}

/// Exchanges the layers.
pub(super) async fn put(
    _: Owner,
    State(api): Shared,
    Query(how): Query<How>,
    body: Bytes,
) -> Result<Json<Reloaded>, Problem> {
    let reload = api.reload.clone();
    let restart = matches!(how.restart, Some(Restart::Resume));
    // In a task of its own: a caller that hangs up must not leave it half-done.
    let done = tokio::spawn(async move { reload.put(&body, restart).await }).await;
    let done = done.map_err(|error| Problem::internal(&error))?;
    Ok(Json(done?))
}
