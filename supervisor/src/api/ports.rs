//! Ports, and links to their previews.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use whim_wire::port::Port;
use whim_wire::time::Time;

use super::Shared;
use super::access::{Owner, Reader};
use super::problem::Problem;
use crate::previews::PreviewError;

/// What listens.
pub(super) async fn list(_: Reader, State(api): Shared) -> Json<Vec<Port>> {
    Json(api.previews.list())
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(super) struct NewLink {
    /// How long it is good for, in seconds.
    expires_s: u64,
}

/// A link that opens one port without any other credential.
pub(super) async fn link(
    _: Owner,
    State(api): Shared,
    Path(port): Path<u16>,
    Json(new): Json<NewLink>,
) -> Result<
    (
        StatusCode,
        [(header::HeaderName, HeaderValue); 1],
        Json<Value>,
    ),
    Problem,
> {
    let link = api
        .previews
        .link(port, Duration::from_secs(new.expires_s))
        .map_err(|error| Problem::invalid(format!("expires_s: {error}")))?;
    let until = Timestamp::try_from(link.expires_at).map_err(|error| Problem::internal(&error))?;
    let location = HeaderValue::from_str(&format!("/v1/ports/{port}/links/{}", link.id));
    let location = location.map_err(|error| Problem::internal(&error))?;
    let mut body = json!({"url": link.url, "expires_at": Time::from(until)});
    if let Some(local_url) = link.local_url {
        body["local_url"] = json!(local_url);
    }
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(body),
    ))
}

/// Takes a link back.
pub(super) async fn revoke(
    _: Owner,
    State(api): Shared,
    Path((_, id)): Path<(u16, String)>,
) -> Result<StatusCode, Problem> {
    match api.previews.revoke(&id) {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(PreviewError::Links(_)) => Err(Problem::not_found("link", &id)),
        Err(error) => Err(Problem::internal(&error)),
    }
}
