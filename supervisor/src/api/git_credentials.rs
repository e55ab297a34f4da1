//! Credentials for git, asked for by `whim git-credential` through the unix socket.
//!
//! They are given for the exact scheme, host and path of `repo.url` only, so that a remote that the agent adds, or a
//! redirect, gets nothing. With `repo.trust: untrusted` nothing is given at all.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::Shared;
use super::access::Reader;
use super::problem::Problem;

/// What git asks for, see gitcredentials(7).
#[derive(Debug, Deserialize)]
pub(super) struct Question {
    protocol: String,
    host: String,
    #[serde(default)]
    path: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Answer {
    username: String,
    password: String,
}

pub(super) async fn get(
    _: Reader,
    State(api): Shared,
    Json(question): Json<Question>,
) -> Result<Json<Answer>, Problem> {
    let Question {
        protocol,
        host,
        path,
    } = question;
    // A login that is over, or about to be, is renewed first.
    api.platform.freshen(&protocol, &host, &path).await;
    match api.git_credentials.answer(&protocol, &host, &path) {
        Some((username, password)) => Ok(Json(Answer { username, password })),
        None => Err(Problem::not_found(
            "credential for",
            &format!("{protocol}://{host}/{path}"),
        )),
    }
}
