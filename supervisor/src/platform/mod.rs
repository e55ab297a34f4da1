//! The platform's client (contract §7; what is asked of a platform: `wire/openapi/platform.json`).
//!
//! Four tasks share one [`link`]: events from the journal ([`events`]), what listens ([`ports`]), the login for git
//! ([`git`]), and at the start the spec. None of them ever stops the agent. What is owed waits in the journal on disk,
//! which bounds it; the state object says how much that is, and since when the platform is away.
//!
//! The token is in the client's memory and in the header of a call, nowhere else.
//!
//! - `outbox`, `retry`: pure: what is sent next, and when again
//! - `client`, `link`: one call; the way as all share it
//! - `record`: what outlives this supervisor

mod client;
mod events;
mod git;
mod link;
mod outbox;
mod ports;
mod record;
mod retry;

use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whim_proxies::http::dial::DialError;

pub use client::SetupError;
use client::{Call, Client};
use git::Login;
use link::Link;
use record::Record;
pub use record::RecordError;
use retry::{Backoff, Kind};

use crate::board::Board;
use crate::boot::credentials::{GitCredentials, Remote};
use crate::config::settings::Backend;
use crate::config::{Secret, Variables};
use crate::ports::PortsHandle;

/// For each step of connecting.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the clone waits for the platform's login; it may do without.
const FIRST_LOGIN: Duration = Duration::from_secs(20);
/// How long git waits for a renewed one.
const FRESH_LOGIN: Duration = Duration::from_secs(15);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("the way to the platform: {0}")]
    Dial(#[from] DialError),
    #[error("what the platform acknowledged cannot be kept: {0}")]
    Record(#[from] RecordError),
    #[error("the platform's calls name the task; give --task-id or /task/id in the spec")]
    Task,
}

/// The platform has no spec to give, and says that it will not.
#[derive(Debug, thiserror::Error)]
#[error("the platform refuses the spec: {0}")]
pub struct SpecError(String);

/// What the client is made of.
#[derive(Debug)]
pub struct Setup<'a> {
    pub backend: &'a Backend,
    /// Id of the task.
    pub task: Option<&'a str>,
    pub board: Arc<Board>,
    /// Directory for what outlives the supervisor.
    pub state: &'a Path,
    /// Number of the journal's newest event, as it was opened.
    pub newest: u64,
    /// The container's own environment: outbound proxies and certificate authorities.
    pub variables: &'a Variables,
    /// When everything here ends.
    pub stop: CancellationToken,
}

/// Handle to the client. Without a platform every call of it does nothing.
#[derive(Clone, Debug, Default)]
pub struct Platform(Arc<Parts>);

#[derive(Debug, Default)]
struct Parts {
    /// There is, or will be once the task is known, a platform.
    expected: bool,
    link: OnceLock<Arc<Link>>,
    record: Mutex<Option<Record>>,
    login: Mutex<Option<Login>>,
    /// What is waited for at the end.
    last: TaskTracker,
}

impl Platform {
    /// `expected`: the container was given a platform, which is opened once its task is known.
    #[must_use]
    pub fn new(expected: bool) -> Self {
        Self(Arc::new(Parts {
            expected,
            ..Parts::default()
        }))
    }

    /// The task is known: from now on the platform is called.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, setup: &Setup<'_>) -> Result<(), OpenError> {
        let task = setup.task.ok_or(OpenError::Task)?;
        let record = Record::open(setup.state, setup.newest)?;
        let client = Client::new(
            setup.backend.url.expose(),
            task,
            setup.backend.token.clone(),
            crate::outbound::dialer(setup.variables, CONNECT)?,
        )?;
        let link = Link::new(
            client,
            setup.board.clone(),
            record.acknowledged(),
            setup.stop.clone(),
        );
        // There is one platform; a second one would be a fault of ours and changes nothing.
        drop(self.0.link.set(Arc::new(link)));
        *lock(&self.0.record) = Some(record);
        Ok(())
    }

    /// Begins to deliver events and ports.
    pub fn start(&self, listening: PortsHandle) {
        let (Some(link), Some(record)) = (self.link(), lock(&self.0.record).take()) else {
            return;
        };
        let journal = link.board().journal().clone();
        let events = events::deliver(link.clone(), journal, record);
        drop(self.0.last.spawn(events));
        drop(self.0.last.spawn(ports::register(link, listening)));
    }

    /// The task's spec; `None`: the platform has none, or there is no platform. Waits for a platform that is away: what
    /// the task is, nobody else knows.
    ///
    /// # Errors
    /// [`SpecError`] when it refuses.
    pub async fn spec(&self) -> Result<Option<Bytes>, SpecError> {
        let Some(link) = self.link() else {
            return Ok(None);
        };
        let mut backoff = Backoff::default();
        loop {
            match link.call(Call::Spec, Bytes::new()).await {
                Ok(spec) => return Ok(Some(spec)),
                Err(trouble) if trouble.status == Some(StatusCode::NOT_FOUND) => return Ok(None),
                Err(trouble) if trouble.kind == Kind::Refused => {
                    return Err(SpecError(trouble.to_string()));
                }
                Err(trouble) => tokio::time::sleep(Link::pause(&mut backoff, &trouble)).await,
            }
        }
    }

    /// A new token in place of the old one; calls that were refused are made again at once. False: there is no platform,
    /// and will not be.
    pub fn rotate(&self, token: Secret) -> bool {
        if let Some(link) = self.link() {
            link.client().rotate(token);
        }
        self.0.expected
    }

    /// From now on a login for `remote` is kept in `credentials`. Returns when the first one is there, the platform says
    /// that it gives none, or it has taken too long: git then goes on without, and the login comes later.
    pub async fn keep_login(&self, remote: &Remote, credentials: &Arc<GitCredentials>) {
        let Some(link) = self.link() else { return };
        let login = Login::keep(link, remote.clone(), credentials.clone());
        if let Some(before) = lock(&self.0.login).replace(login.clone()) {
            before.end();
        }
        if tokio::time::timeout(FIRST_LOGIN, login.first())
            .await
            .is_err()
        {
            tracing::warn!(
                seconds = FIRST_LOGIN.as_secs(),
                "the platform gave no login for git in time; going on without"
            );
        }
    }

    /// No login is kept any more.
    pub fn end_login(&self) {
        if let Some(login) = lock(&self.0.login).take() {
            login.end();
        }
    }

    /// Git asks for this remote: returns once the login is good, or could not be renewed.
    pub async fn freshen(&self, protocol: &str, host: &str, path: &str) {
        let login = lock(&self.0.login).clone();
        let login = login.filter(|login| login.is_for(protocol, host, path));
        if let Some(login) = login
            && tokio::time::timeout(FRESH_LOGIN, login.freshen())
                .await
                .is_err()
        {
            tracing::warn!("the platform did not renew the login for git in time");
        }
    }

    /// A server refused the login for this remote: returns once there is another, or there could not be.
    pub async fn renew(&self, protocol: &str, host: &str, path: &str) {
        let login = lock(&self.0.login).clone();
        let login = login.filter(|login| login.is_for(protocol, host, path));
        if let Some(login) = login
            && tokio::time::timeout(FRESH_LOGIN, login.renew())
                .await
                .is_err()
        {
            tracing::warn!("the platform did not give another login for git in time");
        }
    }

    /// The container ends: what is owed is told now. Returns when the platform has it, when one try has failed, or at
    /// the deadline; what is still owed stays in the journal.
    pub async fn drain(&self, deadline: Instant) {
        let Some(link) = self.link() else { return };
        link.hurry().cancel();
        self.0.last.close();
        if tokio::time::timeout_at(deadline, self.0.last.wait())
            .await
            .is_err()
        {
            tracing::warn!("the time was over before the platform had everything");
        }
    }

    fn link(&self) -> Option<Arc<Link>> {
        self.0.link.get().cloned()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every value here is replaced whole, so a panic elsewhere leaves nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
