//! Ports, and links to their previews.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use whim_proxies::local::Change;
use whim_wire::port::{HostMode, Port};
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

/// A link as it was made.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct LinkMade {
    /// Where it leads; without addresses of previews of their own a path on the local proxy.
    url: String,
    /// Then: an address for a browser on the machine of the local proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    local_url: Option<String>,
    expires_at: Time,
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
        Json<LinkMade>,
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
    let body = LinkMade {
        url: link.url,
        local_url: link.local_url,
        expires_at: Time::from(until),
    };
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(body),
    ))
}

/// What is to be decided about a port; what is left out stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PortChange {
    /// Everybody may see what listens there now.
    public: Option<bool>,
    /// How its server is told its host.
    host: Option<HostMode>,
    /// It is meant where a request names no port.
    default: Option<bool>,
    /// What listens there now may have the links and the publicity of what did before.
    #[serde(default)]
    confirm: bool,
}

/// What is decided about a port.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Decided {
    port: u16,
    public: bool,
    host: HostMode,
    default: bool,
}

/// Decides about a port.
pub(super) async fn change(
    _: Owner,
    State(api): Shared,
    Path(port): Path<u16>,
    Json(change): Json<PortChange>,
) -> Result<Json<Decided>, Problem> {
    let change = Change {
        public: change.public,
        host: change.host,
        default: change.default,
        confirm: change.confirm,
    };
    api.previews
        .change(port, change)
        .map_err(|error| Problem::internal(&error))?;
    let (settings, default) = api.previews.settings_of(port);
    Ok(Json(Decided {
        port,
        public: settings.public.is_some(),
        host: settings.host,
        default,
    }))
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
