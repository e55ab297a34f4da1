//! What the task costs: the ledger, the totals, the cap.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use whim_wire::generation::{BudgetUpdate, Spend};

use super::Shared;
use super::access::{Owner, Reader};
use super::problem::Problem;

/// Lines of a list when no limit is given, and at most.
const DEFAULT: usize = 100;
const MOST: usize = 10_000;

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    after: Option<u64>,
    limit: Option<usize>,
}

/// The ledger.
pub(super) async fn generations(
    _: Owner,
    State(api): Shared,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let proxy = api.spending.proxy();
    let limit = page.limit.unwrap_or(DEFAULT).min(MOST);
    let lines = tokio::task::spawn_blocking(move || proxy.generations(page.after, limit))
        .await
        .map_err(|error| Problem::internal(&error))?
        .map_err(|error| Problem::internal(&error))?;
    Ok(Json(json!({ "generations": lines })))
}

/// Totals by session, model and day.
pub(super) async fn totals(_: Reader, State(api): Shared) -> Json<Spend> {
    Json(api.spending.proxy().spend())
}

/// Raises, lowers or removes the cap.
pub(super) async fn budget(
    _: Owner,
    State(api): Shared,
    Json(update): Json<BudgetUpdate>,
) -> Result<Json<Spend>, Problem> {
    api.spending
        .set_cap(update)
        .map_err(|error| Problem::internal(&error))?;
    api.board.note(
        whim_wire::event::kind::BUDGET_CHANGED,
        json!({ "budget_usd": update.usd }),
    );
    Ok(Json(api.spending.proxy().spend()))
}

/// Prometheus text: the generation proxy's figures, then those of the container.
pub(super) async fn metrics(_: Reader, State(api): Shared) -> String {
    let object = api.board.object();
    let mut text = api.spending.proxy().metrics();
    let mut gauge = |name: &str, help: &str, value: String| {
        text.push_str(&format!(
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"
        ));
    };
    gauge(
        "whim_sessions",
        "Sessions known.",
        object.sessions.len().to_string(),
    );
    gauge(
        "whim_idle_seconds",
        "Seconds without an agent at work.",
        object.idle_s.to_string(),
    );
    gauge(
        "whim_supervisor_restarts",
        "Supervisors before this one.",
        object.supervisor.restarts.to_string(),
    );
    gauge(
        "whim_backup_pending_bytes",
        "Bytes that exist here only.",
        object.backup.pending_bytes.to_string(),
    );
    text
}
