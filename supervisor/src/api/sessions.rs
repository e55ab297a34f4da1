//! Sessions, their prompts, and what steers them.

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use whim_wire::state::SessionState;

use super::Shared;
use super::access::{Owner, Reader};
use super::problem::Problem;
use crate::sessions::{NewSession, Prompt, PromptError, SessionError};

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Self {
        let detail = error.to_string();
        match error {
            SessionError::Unknown(id) => Self::not_found("session", &id),
            SessionError::Exists(_)
            | SessionError::NotRunning(_)
            | SessionError::NoDialog(_)
            | SessionError::NotReady => Self::conflict(detail),
            SessionError::Prompt(PromptError::Full(_))
            | SessionError::TooMany
            | SessionError::TooManyKnown => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "full", detail)
            }
            SessionError::Prompt(PromptError::Stopped) => Self::conflict(detail),
            SessionError::Prompt(_) | SessionError::Invalid(_) => Self::invalid(detail),
            SessionError::Start(_) | SessionError::Gone => Self::internal(&detail),
        }
    }
}

/// All sessions, `main` among them.
pub(super) async fn list(_: Reader, State(api): Shared) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "sessions": api.board.sessions() }))
}

pub(super) async fn get(
    _: Reader,
    State(api): Shared,
    Path(id): Path<String>,
) -> Result<Json<SessionState>, Problem> {
    let found = api
        .board
        .sessions()
        .into_iter()
        .find(|session| session.id == id);
    found
        .map(Json)
        .ok_or_else(|| Problem::not_found("session", &id))
}

/// Starts another agent in its own worktree.
pub(super) async fn create(
    _: Owner,
    State(api): Shared,
    Json(new): Json<NewSession>,
) -> Result<(StatusCode, Json<SessionState>), Problem> {
    Ok((StatusCode::CREATED, Json(api.sessions.create(new).await?)))
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct NewPrompt {
    text: String,
}

/// Queues a prompt.
pub(super) async fn prompt(
    _: Owner,
    State(api): Shared,
    Path(id): Path<String>,
    Json(new): Json<NewPrompt>,
) -> Result<(StatusCode, Json<Prompt>), Problem> {
    Ok((
        StatusCode::ACCEPTED,
        Json(api.sessions.prompt(&id, new.text).await?),
    ))
}

pub(super) async fn prompt_status(
    _: Owner,
    State(api): Shared,
    Path((id, prompt)): Path<(String, String)>,
) -> Result<Json<Prompt>, Problem> {
    let found = api.sessions.prompt_status(&id, &prompt).await?;
    found
        .map(Json)
        .ok_or_else(|| Problem::not_found("prompt", &prompt))
}

/// Interrupts the turn.
pub(super) async fn interrupt(
    _: Owner,
    State(api): Shared,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    api.sessions.interrupt(&id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Ends the session and everything that it left running.
pub(super) async fn stop(
    _: Owner,
    State(api): Shared,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    api.sessions.stop(&id).await?;
    Ok(StatusCode::ACCEPTED)
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Answer {
    /// Id of the dialog, from the state.
    dialog: String,
    /// One of its options, as its text or its position from 0.
    option: serde_json::Value,
}

/// Answers what the agent asks.
pub(super) async fn answer(
    _: Owner,
    State(api): Shared,
    Path(id): Path<String>,
    Json(answer): Json<Answer>,
) -> Result<StatusCode, Problem> {
    api.sessions
        .answer(&id, &answer.dialog, &answer.option)
        .await?;
    Ok(StatusCode::ACCEPTED)
}
