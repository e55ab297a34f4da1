//! `GET /healthz` and `GET /readyz`: for probes, without a token.

use axum::extract::State;
use http::StatusCode;
use whim_wire::state::Phase;

use super::Shared;

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
