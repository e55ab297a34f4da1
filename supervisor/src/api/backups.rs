//! The history's backups: how it stands, back up now, prove it, remove it.

use axum::Json;
use axum::extract::{Query, State};
use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use whim_wire::state::{Backup, Phase};

use super::access::Owner;
use super::problem::Problem;
use super::{Api, Shared};
use crate::backup::agent::BackupError;
use crate::backup::store::StoreError;
use crate::backup::verify::{self, Summary, Verified};

/// Snapshots of a list when no limit is given, and at most: each is read.
const DEFAULT: usize = 50;
const MOST: usize = 1000;
/// For taking up the agents of a supervisor before.
const STARTED: std::time::Duration = std::time::Duration::from_secs(20);

#[derive(Debug, Deserialize)]
pub(super) struct Page {
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct At {
    at: Option<String>,
}

/// Status and list.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Listing {
    backup: Backup,
    /// Without credentials.
    url: Option<String>,
    backups: Vec<Summary>,
}

/// A backup that is durable.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Taken {
    /// The newest snapshot; none when there is nothing to save.
    snapshot: Option<String>,
    /// This call took it; else nothing had changed since.
    taken: bool,
    files: usize,
    /// Bytes of files that are new in it.
    new_bytes: u64,
    /// Bytes put into the store.
    put_bytes: u64,
}

/// What was removed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Purged {
    objects: usize,
}

pub(super) async fn list(
    _: Owner,
    State(api): Shared,
    Query(page): Query<Page>,
) -> Result<Json<Listing>, Problem> {
    started(&api).await;
    let backups = match api.backups.store() {
        Ok(store) => {
            let limit = page.limit.unwrap_or(DEFAULT).min(MOST);
            verify::list(&store, limit).await.map_err(of_store)?
        }
        Err(BackupError::NotReady) => Vec::new(),
        Err(error) => return Err(refused(&error)),
    };
    Ok(Json(Listing {
        backup: api.board.object().backup,
        url: api.backups.url(),
        backups,
    }))
}

pub(super) async fn now(_: Owner, State(api): Shared) -> Result<Json<Taken>, Problem> {
    started(&api).await;
    let done = api.backups.now("now").await;
    let done = done.map_err(|error| refused(&error))?;
    Ok(Json(Taken {
        snapshot: done.snapshot.map(String::from),
        taken: done.taken,
        files: done.files,
        new_bytes: done.new_bytes,
        put_bytes: done.put_bytes,
    }))
}

pub(super) async fn verify(
    _: Owner,
    State(api): Shared,
    Query(query): Query<At>,
) -> Result<Json<Verified>, Problem> {
    started(&api).await;
    let at = query.at.map(|at| at.parse()).transpose();
    let at = at.map_err(|error: crate::backup::manifest::ManifestError| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "at", error.to_string())
    })?;
    let store = api.backups.store().map_err(|error| refused(&error))?;
    let verified = verify::verify(&store, at.as_ref())
        .await
        .map_err(of_store)?;
    verified.map(Json).ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "snapshot",
            "there is no snapshot yet",
        )
    })
}

pub(super) async fn purge(_: Owner, State(api): Shared) -> Result<Json<Purged>, Problem> {
    started(&api).await;
    let objects = api.backups.purge().await;
    let objects = objects.map_err(|error| refused(&error))?;
    Ok(Json(Purged { objects }))
}

/// After a restart of the supervisor the container is ready before its backups are.
pub(super) async fn started(api: &Api) {
    if api.board.current_phase() == Phase::Ready {
        api.backups.started(STARTED).await;
    }
}

fn refused(error: &BackupError) -> Problem {
    let status = match error {
        BackupError::Busy => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, "backup", error.to_string())
}

fn of_store(error: StoreError) -> Problem {
    use crate::backup::objects::ObjectError;
    let status = match &error {
        StoreError::Object(ObjectError::NotFound { .. }) => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, "store", error.to_string())
}
