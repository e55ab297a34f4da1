//! The way to the platform as all tasks share it: whether it works, since when not, and who must know.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use whim_wire::event::kind;

use super::client::{Call, Client, Trouble};
use super::retry::Backoff;
use crate::board::{Board, PlatformStanding};

/// See the module's header.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    board: Arc<Board>,
    standing: Mutex<Standing>,
    /// How often the platform came back after it could not be reached.
    returns: watch::Sender<u64>,
    /// The container ends: one try each, now.
    hurry: CancellationToken,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Standing {
    /// What goes wrong, by call.
    errors: BTreeMap<Call, String>,
    acknowledged: u64,
    lost: u64,
}

impl Link {
    pub(super) fn new(
        client: Client,
        board: Arc<Board>,
        acknowledged: u64,
        stop: CancellationToken,
    ) -> Self {
        let link = Self {
            client,
            board,
            standing: Mutex::new(Standing {
                acknowledged,
                ..Standing::default()
            }),
            returns: watch::Sender::new(0),
            hurry: CancellationToken::new(),
            stop,
        };
        link.show(&link.lock());
        link
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// Changes when the platform can be reached again.
    pub(super) fn returns(&self) -> watch::Receiver<u64> {
        self.returns.subscribe()
    }

    /// Done once the container ends.
    pub(super) fn hurry(&self) -> &CancellationToken {
        &self.hurry
    }

    /// Done when the supervisor ends.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Makes a call, and notes how it went.
    pub(super) async fn call(&self, call: Call, body: Bytes) -> Result<Bytes, Trouble> {
        let answer = self.client.call(call, body).await;
        match &answer {
            Ok(_) => self.works(call),
            Err(trouble) if is_an_answer(call, trouble) => self.works(call),
            Err(trouble) => self.fails(call, trouble),
        }
        answer
    }

    /// The pause after one more failure.
    pub(super) fn pause(backoff: &mut Backoff, trouble: &Trouble) -> Duration {
        backoff.failed(trouble.kind, trouble.after, crate::random::number())
    }

    /// How far the platform has the events.
    pub(super) fn delivered(&self, acknowledged: u64, lost: u64) {
        let mut standing = self.lock();
        (standing.acknowledged, standing.lost) = (acknowledged, lost);
        self.show(&standing);
    }

    /// An answer came that is of no use.
    pub(super) fn fails(&self, call: Call, trouble: &Trouble) {
        let mut standing = self.lock();
        let first = standing.errors.is_empty();
        let error = trouble.to_string();
        if standing.errors.get(&call) == Some(&error) {
            return;
        }
        standing.errors.insert(call, error.clone());
        self.show(&standing);
        drop(standing);
        if first {
            tracing::warn!(%error, "the platform cannot be reached; what is owed to it waits");
            self.board
                .note(kind::BACKEND_UNREACHABLE, json!({"error": error}));
        } else {
            tracing::debug!(%error, ?call, "the platform cannot be reached");
        }
    }

    fn works(&self, call: Call) {
        let mut standing = self.lock();
        let back = standing.errors.remove(&call).is_some() && standing.errors.is_empty();
        if !back {
            return;
        }
        self.show(&standing);
        let owed = self
            .board
            .journal()
            .position()
            .saturating_sub(standing.acknowledged);
        drop(standing);
        tracing::info!(owed_events = owed, "the platform can be reached again");
        self.board
            .note(kind::BACKEND_REACHED, json!({"owed_events": owed}));
        self.returns.send_modify(|count| *count += 1);
    }

    fn show(&self, standing: &Standing) {
        self.board.platform(PlatformStanding {
            error: standing.errors.values().next().cloned(),
            acknowledged: standing.acknowledged,
            lost: standing.lost,
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A refusal that belongs to the call's meaning and says nothing about the way.
fn is_an_answer(call: Call, trouble: &Trouble) -> bool {
    match call {
        Call::Spec | Call::GitCredentials => trouble.status == Some(StatusCode::NOT_FOUND),
        Call::Events => matches!(
            trouble.status,
            Some(
                StatusCode::CONFLICT
                    | StatusCode::BAD_REQUEST
                    | StatusCode::PAYLOAD_TOO_LARGE
                    | StatusCode::UNPROCESSABLE_ENTITY
            )
        ),
        Call::Ports => false,
    }
}
