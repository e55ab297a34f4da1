//! The API: state, events, sessions, terminals, spend. A thin edge: it checks who calls, parses, asks the owner of the
//! matter, and words the answer.
//!
//! One router serves three doors (see [`access`]); 8081 gets the machine-facing part, 7681 and the unix socket all of it.

pub mod access;
pub mod attach;
mod attachments;
mod backups;
mod config;
mod conversation;
mod credentials;
mod events;
mod git_credentials;
mod health;
pub(crate) mod openapi;
mod ports;
pub mod problem;
mod search;
pub mod serve;
mod sessions;
mod spend;
mod state;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{delete, get, patch, post, put};

use crate::board::Board;
use crate::boot::credentials::GitCredentials;
use crate::sessions::Sessions;
use access::Gate;

/// Largest request body: a prompt of [`crate::sessions`]' bound, written as JSON with every character escaped.
const BODY: usize = 8 * 1024 * 1024;

/// What the handlers ask.
#[derive(Debug)]
pub struct Api {
    pub board: Arc<Board>,
    pub attachments: Arc<crate::attachments::Attachments>,
    pub sessions: Sessions,
    pub conversations: crate::conversation::reader::Conversations,
    pub git_credentials: Arc<GitCredentials>,
    pub spending: Arc<crate::spending::Spending>,
    pub gate: Arc<Gate>,
    pub claim: crate::claim::Claim,
    pub reload: Arc<crate::reload::Reload>,
    pub platform: crate::platform::Platform,
    pub rotated: Arc<crate::rotated::Rotated>,
    pub previews: crate::previews::Previews,
    pub terminals: crate::terminals::set::TerminalSet,
    pub backups: crate::backup::agent::Backups,
    pub store: crate::store::Store,
    pub feed: crate::store::feed::Feed,
    pub elsewhere: crate::store::feed::elsewhere::Elsewhere,
}

type Shared = State<Arc<Api>>;

/// The part for 8081: what a platform's backend calls.
pub fn machine(api: &Arc<Api>) -> Router {
    finish(common(), api)
}

/// All of it, for 7681 and the unix socket. `terminals`: the routes of the web terminals and the page.
pub fn whole(api: &Arc<Api>, terminals: Router) -> Router {
    let router = common()
        .route("/v1/git-credential", post(git_credentials::get))
        .route("/v1/git-credential/refused", post(git_credentials::refused))
        .route("/v1/attach", get(attach::upgrade));
    finish(router, api).merge(terminals)
}

fn common() -> Router<Arc<Api>> {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/state", get(state::get))
        .route("/v1/events", get(events::get))
        .route("/v1/sessions", get(sessions::list).post(sessions::create))
        .route("/v1/sessions/{id}", get(sessions::get))
        .route("/v1/sessions/{id}/conversation", get(conversation::get))
        .route("/v1/sessions/{id}/prompts", post(sessions::prompt))
        .route(
            "/v1/sessions/{id}/prompts/{prompt}",
            get(sessions::prompt_status),
        )
        .route("/v1/sessions/{id}/interrupt", post(sessions::interrupt))
        .route("/v1/sessions/{id}/stop", post(sessions::stop))
        .route("/v1/sessions/{id}/answers", post(sessions::answer))
        .route("/v1/spec", put(credentials::claim))
        .route("/v1/config", put(config::put))
        .route("/v1/credentials", put(credentials::rotate))
        .route(
            "/v1/attachments",
            get(attachments::list).post(attachments::add),
        )
        .route("/v1/generations", get(spend::generations))
        .route("/v1/spend", get(spend::totals))
        .route("/v1/search", get(search::get))
        .route("/v1/search/rebuild", post(search::rebuild))
        .route("/v1/ports", get(ports::list))
        .route("/v1/ports/{port}", patch(ports::change))
        .route("/v1/ports/{port}/links", post(ports::link))
        .route("/v1/ports/{port}/links/{id}", delete(ports::revoke))
        .route("/v1/budget", put(spend::budget))
        .route(
            "/v1/backups",
            get(backups::list).post(backups::now).delete(backups::purge),
        )
        .route("/v1/backups/verify", post(backups::verify))
        .route("/v1/quiesce", post(health::quiesce))
        .route("/metrics", get(spend::metrics))
}

fn finish(router: Router<Arc<Api>>, api: &Arc<Api>) -> Router {
    router
        .layer(DefaultBodyLimit::max(BODY))
        .layer(map_response(problem::documented))
        .layer(from_fn_with_state(api.gate.clone(), access::admit))
        .with_state(api.clone())
}
