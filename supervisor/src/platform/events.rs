//! Events to the platform, from the journal, one batch after the other.
//!
//! At least once and in order: see [`super::outbox`]. A batch leaves [`COLLECT`] after its first event, or when it is
//! full. While the platform is away the journal goes on; what it must let go meanwhile is named as missing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;
use whim_wire::platform::Acknowledgement;

use super::client::{Call, Trouble};
use super::link::Link;
use super::outbox::{Next, Outbox};
use super::record::Record;
use super::retry::Backoff;
use crate::journal::{Journal, Subscription};

/// What happens together is told together.
const COLLECT: Duration = Duration::from_millis(100);
/// Before the journal is read again after it could not be.
const UNREADABLE: Duration = Duration::from_secs(1);

/// Delivers until the supervisor ends, or, once the container does, until all is delivered or one try has failed.
pub(super) async fn deliver(link: Arc<Link>, journal: Journal, record: Record) {
    let stop = link.stop().clone();
    let outbox = Outbox::new(record.stream().to_owned(), record.acknowledged());
    let subscription = journal.subscribe(Some(record.acknowledged()));
    let sender = Sender {
        link,
        journal,
        record,
        outbox,
        subscription,
        backoff: Backoff::default(),
        failing: false,
    };
    tokio::select! {
        () = sender.run() => {}
        () = stop.cancelled() => {}
    }
}

struct Sender {
    link: Arc<Link>,
    journal: Journal,
    record: Record,
    outbox: Outbox,
    subscription: Subscription,
    backoff: Backoff,
    failing: bool,
}

impl Sender {
    async fn run(mut self) {
        let mut due = Instant::now();
        let mut tokens = self.link.client().tokens();
        let hurry = self.link.hurry().clone();
        loop {
            if hurry.is_cancelled() && self.has_told_all() {
                return;
            }
            let waits = !self.outbox.is_empty();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due), if waits => {}
                // A new token: what was refused may be taken now.
                _ = tokens.changed(), if waits && self.failing => {}
                delivery = self.subscription.next(), if self.outbox.has_room() => {
                    match delivery {
                        Some(Ok(delivery)) => self.outbox.push(delivery),
                        Some(Err(error)) => {
                            tracing::warn!(%error, "the journal cannot be read for the platform");
                            tokio::time::sleep(UNREADABLE).await;
                        }
                        None => return,
                    }
                    let now = Instant::now();
                    if !waits {
                        due = now + COLLECT;
                    }
                    if !self.failing && self.outbox.is_ready() {
                        due = now;
                    }
                    continue;
                }
                () = hurry.cancelled(), if waits => {}
                // Nothing to tell: the end is looked at above.
                () = hurry.cancelled(), if !hurry.is_cancelled() => continue,
            }
            match self.send().await {
                Ok(()) => {
                    self.failing = false;
                    self.backoff.succeeded();
                    due = Instant::now();
                }
                Err(_) if hurry.is_cancelled() => return,
                Err(trouble) => {
                    self.failing = true;
                    due = Instant::now() + Link::pause(&mut self.backoff, &trouble);
                }
            }
        }
    }

    /// Counted by what was appended: the last word of a boot that failed may be on its way to the disk still.
    fn has_told_all(&self) -> bool {
        self.outbox.is_empty() && self.outbox.acknowledged() >= self.journal.appended()
    }

    /// One batch, and what its answer means.
    async fn send(&mut self) -> Result<(), Trouble> {
        let Some(batch) = self.outbox.batch() else {
            return Ok(());
        };
        let answer = self
            .link
            .call(Call::Events, Bytes::from(batch.body.clone()))
            .await;
        let next = match answer {
            Ok(body) => self.outbox.taken(&batch, acknowledged(&body)),
            Err(trouble) => match (trouble.status, acknowledged(&trouble.body)) {
                (Some(StatusCode::CONFLICT), Some(number)) => {
                    let next = self.outbox.conflict(number, self.journal.position());
                    tracing::info!(
                        number,
                        ?next,
                        "the platform asks for another place in the events"
                    );
                    next
                }
                (
                    Some(
                        StatusCode::BAD_REQUEST
                        | StatusCode::PAYLOAD_TOO_LARGE
                        | StatusCode::UNPROCESSABLE_ENTITY,
                    ),
                    _,
                ) => {
                    tracing::warn!(first = batch.first, last = batch.last, %trouble, "the platform refuses events");
                    let smaller = self.outbox.refused();
                    self.link
                        .delivered(self.outbox.acknowledged(), self.outbox.lost());
                    if smaller {
                        // Each refusal costs a pause, so that a platform that refuses everything costs little.
                        return Err(trouble.passing());
                    }
                    self.link.fails(Call::Events, &trouble);
                    return Err(trouble);
                }
                (Some(StatusCode::CONFLICT), None) => {
                    self.link.fails(Call::Events, &trouble);
                    return Err(trouble);
                }
                _ => return Err(trouble),
            },
        };
        match next {
            Next::GoOn => {}
            Next::ReadAgain { after } => {
                self.subscription = self.journal.subscribe(Some(after));
            }
            Next::Confused => {
                let trouble = Trouble::confused("it acknowledges what cannot be");
                self.link.fails(Call::Events, &trouble);
                return Err(trouble);
            }
        }
        self.record.acknowledge(self.outbox.acknowledged());
        self.link
            .delivered(self.outbox.acknowledged(), self.outbox.lost());
        Ok(())
    }
}

/// The number that an answer names. One without a number says: all of it.
fn acknowledged(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Acknowledgement>(body)
        .ok()
        .map(|answer| answer.acknowledged)
}
