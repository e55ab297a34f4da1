//! `GET /v1/state`: the state object, with long poll.

use std::str::FromStr;
use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use whim_wire::state::{AgentState, StateObject};

use super::access::Reader;
use super::problem::Problem;
use super::{Api, Shared};

/// Longest long poll: below the idle timeouts of the usual proxies in between.
const LONGEST: Duration = Duration::from_secs(50);
/// Long poll without `timeout_s`.
const DEFAULT: Duration = Duration::from_secs(30);

#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    /// States to wait for, separated by commas.
    wait: Option<String>,
    /// Wait for an event with a number above this.
    after_seq: Option<u64>,
    timeout_s: Option<f64>,
}

/// The state; with `wait` or `after_seq` as soon as it is as asked, at the latest after `timeout_s`: then as it is.
pub(super) async fn get(
    _: Reader,
    State(api): Shared,
    Query(wanted): Query<Wanted>,
) -> Result<Json<StateObject>, Problem> {
    let states = match &wanted.wait {
        Some(words) => words
            .split(',')
            .map(AgentState::from_str)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Problem::invalid(format!("wait: {error}")))?,
        None => Vec::new(),
    };
    let timeout = match wanted.timeout_s {
        Some(seconds) => Duration::try_from_secs_f64(seconds)
            .map_err(|error| Problem::invalid(format!("timeout_s: {seconds}: {error}")))?
            .min(LONGEST),
        None => DEFAULT,
    };
    let reached = |object: &StateObject| {
        let state = wanted.wait.is_none() || states.contains(&object.state);
        state && wanted.after_seq.is_none_or(|seq| object.seq > seq)
    };
    Ok(Json(wait(&api, reached, timeout).await))
}

async fn wait(api: &Api, reached: impl Fn(&StateObject) -> bool, timeout: Duration) -> StateObject {
    // Subscribed before the first look, so that no change falls in between.
    let mut changes = api.board.watch();
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        changes.borrow_and_update();
        let object = api.board.object();
        if reached(&object) {
            return object;
        }
        match tokio::time::timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return api.board.object(),
        }
    }
}
