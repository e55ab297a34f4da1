//! `GET /healthz` and `GET /readyz`: for probes, without a token.

use std::time::Duration;

use axum::extract::State;
use http::StatusCode;
use whim_wire::state::Phase;

use super::Shared;
use super::access::Owner;
use super::problem::Problem;
use crate::backup::agent::BackupError;

/// A disk that takes longer is not one to suspend on.
const QUIESCE: Duration = Duration::from_secs(10);

/// The supervisor answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// 200 once all services listen, 503 when the boot failed or the container ends.
pub(super) async fn ready(State(api): Shared) -> (StatusCode, &'static str) {
    match api.board.current_phase() {
        Phase::Failed { .. } => (StatusCode::SERVICE_UNAVAILABLE, "failed\n"),
        Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        Phase::Booting { step } if step == crate::supervise::SERVICES => {
            (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        }
        Phase::Booting { .. } | Phase::WaitingForSpec | Phase::Ready => (StatusCode::OK, "ready\n"),
    }
}

/// Before a suspension: what is in memory only goes to disk. 503 with what is still owed when it does not.
pub(super) async fn quiesce(_: Owner, State(api): Shared) -> Result<StatusCode, Problem> {
    let owed = |what: &str, error: &dyn std::fmt::Display| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "owed",
            format!("{what} is not durable: {error}"),
        )
    };
    let proxy = api.spending.proxy();
    proxy
        .flush()
        .await
        .map_err(|error| owed("the ledger", &error))?;
    api.board
        .journal()
        .flush(QUIESCE)
        .await
        .map_err(|error| owed("the journal", &error))?;
    super::backups::started(&api).await;
    match api.backups.now("quiesce").await {
        // Nothing was done yet that could be lost.
        Ok(_) | Err(BackupError::NotReady) => Ok(StatusCode::OK),
        Err(error) => Err(owed("the history", &error)),
    }
}
