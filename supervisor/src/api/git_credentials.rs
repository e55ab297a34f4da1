//! Credentials for git, asked for by `whim git-credential` through the unix socket.
//!
//! They are given for the exact scheme, host and path of `repo.url` only, so that a remote that the agent adds, or a
//! redirect, gets nothing. Of `repo.trust: untrusted` nothing is given at all once it is fetched.

use axum::Json;
use axum::extract::State;
use http::StatusCode;
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

/// What git says of a login that a server refused.
#[derive(Deserialize)]
pub(super) struct Refused {
    protocol: String,
    host: String,
    #[serde(default)]
    path: String,
    username: String,
    password: String,
}

/// A server refused a login. If it is the one that is held, a new one is asked for, so that git's next try works. What
/// git does not have from here says nothing.
pub(super) async fn refused(
    _: Reader,
    State(api): Shared,
    Json(refused): Json<Refused>,
) -> StatusCode {
    let Refused {
        protocol,
        host,
        path,
        username,
        password,
    } = refused;
    let held = api.git_credentials.answer(&protocol, &host, &path);
    if held == Some((username, password)) {
        api.platform.renew(&protocol, &host, &path).await;
    }
    StatusCode::NO_CONTENT
}
