//! Terminals over HTTP: the API's part for terminals, ttyd's addresses, and the page.
//!
//! | address | does |
//! |---|---|
//! | `GET /v1/terminals`, `POST`, `DELETE /v1/terminals/{id}` | list, open a shell, close (bearer) |
//! | `POST /v1/terminals/{id}/links`, `DELETE …/links/{n}` | make and revoke links (bearer) |
//! | `GET /t/{id}/token` | an `AuthToken` (bearer; a link needs none) |
//! | `GET /t/{id}/ws` | the WebSocket: `tty` or `tty.v2` |
//! | `GET /t/{id}/`, `/`, `/assets/…` | the page (no credential: it holds nothing) |
//!
//! `{id}` is a terminal's name or a link (`cap-…`). Host and Origin are checked on everything, see [`guard`].

pub mod access;
pub mod guard;
mod page;
pub mod problem;
mod protocol;
mod socket;
mod upgrade;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequestParts, Path, Query, Request, State};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use self::access::{Access, Grant, LINK_PREFIX, LinkError};
use self::guard::Guard;
use self::problem::Problem;
use self::socket::{Credential, Session};
use self::upgrade::Upgrade;
use super::set::TerminalSet;
use super::terminal::{Exit, Kind, Terminal, TerminalId};

type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What `POST /v1/terminals` asks for; everything may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct OpenRequest {
    pub command: Option<Vec<String>>,
    pub cwd: Option<String>,
    pub columns: Option<u16>,
    pub rows: Option<u16>,
}

/// Why a shell was not opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The request cannot be carried out as it is (422).
    #[error("{0}")]
    Invalid(String),
    /// Not now (503).
    #[error("{0}")]
    Unavailable(String),
}

/// Starts and ends shells: the part that needs the keeper.
pub trait Shells: Send + Sync + 'static {
    /// Starts a shell and lists it in the set.
    fn open(&self, request: OpenRequest) -> Pending<'_, Result<Terminal, ShellError>>;
    /// Ends a terminal's program and all that it left. Returns once the end is under way.
    fn close(&self, terminal: Terminal) -> Pending<'_, Result<(), ShellError>>;
}

/// What the handlers share.
#[derive(Clone)]
pub struct HttpState {
    pub set: TerminalSet,
    pub access: Access,
    pub guard: Guard,
    pub shells: Arc<dyn Shells>,
}

impl std::fmt::Debug for HttpState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("HttpState")
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

/// All addresses of the table above, behind the guard.
pub fn router(state: HttpState) -> Router {
    let guard = state.guard.clone();
    Router::new()
        .route("/v1/terminals", get(list).post(open))
        .route("/v1/terminals/{id}", delete(close))
        .route("/v1/terminals/{id}/links", post(new_link))
        .route("/v1/terminals/{id}/links/{number}", delete(revoke_link))
        .route("/t/{id}", get(with_slash))
        .route("/t/{id}/", get(terminal_page))
        .route("/t/{id}/token", get(token))
        .route("/t/{id}/ws", get(websocket))
        .route("/t/{id}/assets/{*path}", get(terminal_asset))
        .route(
            "/",
            get(|request: HeaderMap| async move { page::index(&request) }),
        )
        .route(
            "/assets/{*path}",
            get(|Path(path): Path<String>, request: HeaderMap| async move {
                page::asset(&request, &path)
            }),
        )
        .layer(axum::middleware::from_fn_with_state(guard, guard::layer))
        .with_state(state)
}

fn no_terminal() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is no such terminal")
}

/// The request's sender as the socket tells it, for the failure limit.
fn source(extensions: &http::Extensions) -> Option<IpAddr> {
    extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map(|ConnectInfo(address)| address.ip())
}

/// Proof that the request showed the control token.
#[derive(Debug)]
struct Owner;

fn refuse(access: &Access, source: Option<IpAddr>, shown: Option<bool>) -> Problem {
    if shown == Some(false) && access.failed(source) {
        return Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many wrong credentials; wait a minute",
        )
        .with(header::RETRY_AFTER, "60");
    }
    Problem::new(StatusCode::UNAUTHORIZED, "show the control token as bearer")
        .with(header::WWW_AUTHENTICATE, "Bearer realm=\"whim\"")
}

impl FromRequestParts<HttpState> for Owner {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        state: &HttpState,
    ) -> Result<Self, Problem> {
        match state.access.bearer(&parts.headers) {
            Some(true) => Ok(Self),
            shown => Err(refuse(&state.access, source(&parts.extensions), shown)),
        }
    }
}

/// A terminal as the API lists it (CONTRACT §6c).
#[derive(Debug, Serialize)]
struct Listed {
    id: TerminalId,
    kind: Kind,
    state: &'static str,
    exit: Option<Exit>,
    title: String,
    columns: u16,
    rows: u16,
    viewers: usize,
}

impl From<&Terminal> for Listed {
    fn from(terminal: &Terminal) -> Self {
        let status = terminal.status();
        Self {
            id: terminal.id().clone(),
            kind: terminal.kind(),
            state: if status.exit.is_some() {
                "exited"
            } else {
                "running"
            },
            exit: status.exit,
            title: status.title,
            columns: status.size.columns,
            rows: status.size.rows,
            viewers: status.viewers,
        }
    }
}

async fn list(_: Owner, State(state): State<HttpState>) -> Response {
    let terminals: Vec<Listed> = state.set.list().iter().map(Listed::from).collect();
    Json(serde_json::json!({"terminals": terminals})).into_response()
}

fn shell_problem(error: &ShellError) -> Problem {
    let status = match error {
        ShellError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ShellError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Problem::new(status, error.to_string())
}

/// Bodies of this part of the API are small.
const MAX_BODY: usize = 64 << 10;

async fn body<T: Default + for<'de> Deserialize<'de>>(request: Request) -> Result<T, Problem> {
    let bytes = axum::body::to_bytes(request.into_body(), MAX_BODY)
        .await
        .map_err(|error| Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn open(
    _: Owner,
    State(state): State<HttpState>,
    request: Request,
) -> Result<Response, Problem> {
    let asked: OpenRequest = body(request).await?;
    let terminal = state
        .shells
        .open(asked)
        .await
        .map_err(|error| shell_problem(&error))?;
    let location = format!("/v1/terminals/{}", terminal.id());
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(Listed::from(&terminal)),
    )
        .into_response())
}

fn named(state: &HttpState, id: &str) -> Result<Terminal, Problem> {
    let id = TerminalId::new(id).map_err(|_| no_terminal())?;
    state.set.get(&id).ok_or_else(no_terminal)
}

/// Ends a running shell; takes an ended terminal off the list.
async fn close(
    _: Owner,
    State(state): State<HttpState>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let terminal = named(&state, &id)?;
    if terminal.status().exit.is_none() {
        state
            .shells
            .close(terminal.clone())
            .await
            .map_err(|error| shell_problem(&error))?;
    }
    state.set.remove(terminal.id());
    state.access.forget(terminal.id());
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize)]
#[serde(default)]
struct LinkRequest {
    read_only: bool,
    expires_s: u64,
}

impl Default for LinkRequest {
    fn default() -> Self {
        Self {
            read_only: true,
            expires_s: 3600,
        }
    }
}

/// Links live at most a week.
const MAX_LINK_LIFE: u64 = 7 * 24 * 3600;

async fn new_link(
    _: Owner,
    State(state): State<HttpState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let terminal = named(&state, &id)?;
    let asked: LinkRequest = body(request).await?;
    if !(1..=MAX_LINK_LIFE).contains(&asked.expires_s) {
        let detail = format!("expires_s must be 1 to {MAX_LINK_LIFE}");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    let life = Duration::from_secs(asked.expires_s);
    let link = state
        .access
        .link(terminal.id(), asked.read_only, life)
        .map_err(|error| {
            let status = match error {
                LinkError::TooMany => StatusCode::TOO_MANY_REQUESTS,
                LinkError::Random(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Problem::new(status, error.to_string())
        })?;
    let expires_at = jiff::Timestamp::now()
        .checked_add(jiff::SignedDuration::from_secs(
            asked.expires_s.try_into().unwrap_or(i64::MAX),
        ))
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let location = format!("/v1/terminals/{}/links/{}", terminal.id(), link.number);
    let body = serde_json::json!({
        "path": format!("/t/{}/", link.secret),
        "read_only": asked.read_only,
        "expires_at": format!("{expires_at:.3}"),
    });
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(body),
    )
        .into_response())
}

async fn revoke_link(
    _: Owner,
    State(state): State<HttpState>,
    Path((id, number)): Path<(String, u64)>,
) -> Result<StatusCode, Problem> {
    let id = TerminalId::new(&id).map_err(|_| no_terminal())?;
    if state.access.revoke(&id, number) {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::new(StatusCode::NOT_FOUND, "there is no such link"))
    }
}

/// What a path part opens without a further credential.
fn opened_by_link(state: &HttpState, id: &str) -> Option<Grant> {
    id.starts_with(LINK_PREFIX)
        .then(|| state.access.open(id))
        .flatten()
}

async fn with_slash(Path(id): Path<String>) -> Response {
    // Only names that need no escaping can be terminals or links.
    if id
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    {
        Redirect::permanent(&format!("/t/{id}/")).into_response()
    } else {
        no_terminal().into_response()
    }
}

async fn terminal_page(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    request: HeaderMap,
) -> Response {
    if opened_by_link(&state, &id).is_some() || named(&state, &id).is_ok() {
        page::index(&request)
    } else {
        no_terminal().into_response()
    }
}

async fn terminal_asset(Path((_, path)): Path<(String, String)>, request: HeaderMap) -> Response {
    page::asset(&request, &path)
}

async fn token(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let value = if id.starts_with(LINK_PREFIX) {
        opened_by_link(&state, &id).ok_or_else(no_terminal)?;
        String::new()
    } else {
        match state.access.bearer(request.headers()) {
            Some(true) => {}
            shown => return Err(refuse(&state.access, source(request.extensions()), shown)),
        }
        let terminal = named(&state, &id)?;
        state
            .access
            .issue(terminal.id())
            .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
    };
    let body = serde_json::json!({"token": value}).to_string();
    let headers = [
        (header::CONTENT_TYPE, "application/json;charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, body).into_response())
}

#[derive(Debug, Deserialize)]
struct WebsocketQuery {
    readonly: Option<String>,
}

async fn websocket(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    Query(query): Query<WebsocketQuery>,
    headers: HeaderMap,
    upgrade: Upgrade,
    extensions: http::Extensions,
) -> Result<Response, Problem> {
    let source = source(&extensions);
    let (grant, credential) = if id.starts_with(LINK_PREFIX) {
        let Some(grant) = opened_by_link(&state, &id) else {
            let limited = state.access.failed(source);
            return Err(if limited {
                refuse(&state.access, source, Some(false))
            } else {
                no_terminal()
            });
        };
        (grant, Credential::Shown)
    } else {
        let terminal = named(&state, &id);
        let credential = match state.access.bearer(&headers) {
            Some(true) => Credential::Shown,
            Some(false) => return Err(refuse(&state.access, source, Some(false))),
            None => Credential::First,
        };
        let id = terminal?.id().clone();
        // A source with many failures may still go on when it can hold a living token.
        if matches!(credential, Credential::First)
            && state.access.is_limited(source)
            && !state.access.has_token(&id)
        {
            return Err(refuse(&state.access, source, Some(false)));
        }
        let grant = Grant {
            terminal: id,
            read_only: false,
            revoked: CancellationToken::new(),
            expires: None,
        };
        (grant, credential)
    };
    let read_only = query
        .readonly
        .is_some_and(|value| value != "0" && value != "false");
    let grant = Grant {
        read_only: grant.read_only || read_only,
        ..grant
    };
    let session = Session {
        terminal: state.set.get(&grant.terminal).ok_or_else(no_terminal)?,
        access: state.access.clone(),
        grant,
        credential,
        source,
        restarting: state.set.restarting(),
    };
    Ok(upgrade.accept(move |socket, protocol| session.serve(socket, protocol)))
}

#[cfg(test)]
mod tests;
