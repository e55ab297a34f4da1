//! The journal: every event, numbered, on disk and to live subscribers.
//!
//! Numbers start at 1, rise by one each, and go on across restarts of the supervisor and of the container. An event
//! reaches subscribers once it is written, so no number that anyone saw is given twice, whatever is killed.
//!
//! Bounds, and what happens there:
//! - An event of more than [`MAX_EVENT`] bytes is refused.
//! - [`Journal::append`] never waits for the disk: events queue for a writer thread. With [`MAX_QUEUED`] events or
//!   [`MAX_QUEUED_BYTES`] waiting, an event is refused and counted; a `journal.gap` event tells how many, once there is
//!   room.
//! - The disk holds at most `segments` files of about `segment_bytes`; the oldest file goes first. Who asks for older
//!   events is told what is missing.
//! - A subscriber that falls [`MAX_BEHIND`] events behind reads on from the disk; it never slows the writer.
//! - A disk that refuses writes costs the events their place in the journal, not the subscribers their delivery; a
//!   `journal.gap` event names the lost numbers once writing works again.

mod queue;
mod segment;
mod subscription;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use whim_wire::event::{Draft, Event};

use queue::Queue;
use segment::Segments;
use writer::{Gap, Progress, Writer};

pub use segment::{Page, Repair, SegmentError};
pub use subscription::{Delivery, Subscription};

/// Largest event, bytes of its line.
pub const MAX_EVENT: usize = 64 * 1024;
/// Most events that wait for the writer.
pub const MAX_QUEUED: usize = 4_096;
/// Most bytes that wait for the writer.
pub const MAX_QUEUED_BYTES: usize = 4 * 1024 * 1024;
/// Most events that a subscriber may be behind before it reads from the disk.
pub const MAX_BEHIND: usize = 256;

/// How much of the past the disk holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file is closed when it is about to exceed this.
    pub segment_bytes: u64,
    /// Most files.
    pub segments: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 2 * 1024 * 1024,
            segments: 16,
        }
    }
}

/// An event as it is stored and delivered.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub seq: u64,
    /// `type` of the event.
    pub kind: Box<str>,
    /// The event as JSON, without line end.
    pub json: Box<str>,
}

impl Entry {
    /// The event itself.
    ///
    /// # Errors
    /// When the line was damaged on disk.
    pub fn event(&self) -> Result<Event, serde_json::Error> {
        serde_json::from_str(&self.json)
    }
}

/// Why an event was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("event {kind} cannot be written as JSON")]
    Encode {
        kind: String,
        source: serde_json::Error,
    },
    #[error("event {kind} has {bytes} bytes; at most {MAX_EVENT} are taken")]
    TooLarge { kind: String, bytes: usize },
    #[error("event {kind} was dropped: the disk is too slow and the journal's queue is full")]
    Full { kind: String },
}

/// Why what was appended is not known to be durable.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    #[error("the journal did not reach event {wanted} on disk within {} s; it is at {reached}", waited.as_secs_f32())]
    Timeout {
        wanted: u64,
        reached: u64,
        waited: Duration,
    },
    #[error("events up to {wanted} could not all be written")]
    Lost { wanted: u64 },
    #[error("the journal's writer has ended")]
    Ended,
}

/// A handle to the journal; clones share it. The writer ends when the last one is dropped and all is written.
#[derive(Clone, Debug)]
pub struct Journal {
    queue: Arc<Queue>,
    /// Closes the queue with the last handle.
    _closer: Arc<queue::Closer>,
    live: broadcast::Sender<Arc<Entry>>,
    progress: watch::Receiver<Progress>,
    directory: PathBuf,
}

impl Journal {
    /// Opens the journal in `directory` (made with mode 0700 if missing) and repairs what a crash left: an incomplete
    /// last line is cut off. There is one writer at a time, which a lock ensures.
    ///
    /// # Errors
    /// When the directory cannot be had, is locked by another supervisor, or the writer cannot be started.
    pub fn open(directory: &Path, limits: Limits) -> Result<(Self, Repair), SegmentError> {
        let (segments, next, repair) = Segments::open(directory, limits)?;
        let queue = Arc::new(Queue::new(next));
        let (live, _) = broadcast::channel(MAX_BEHIND);
        let (sender, progress) = watch::channel(Progress::starting_at(next));
        // What a supervisor before lost and could not tell any more.
        let gap = (repair.lost_until > repair.newest).then(|| Gap {
            first: repair.newest + 1,
            last: repair.lost_until,
            error: "the disk took no more when the supervisor ended".to_owned(),
        });
        let writer = Writer::new(segments, Arc::clone(&queue), live.clone(), gap, sender);
        std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| SegmentError::Thread { source })?;
        let journal = Self {
            _closer: Arc::new(queue::Closer(Arc::clone(&queue))),
            queue,
            live,
            progress,
            directory: directory.to_path_buf(),
        };
        Ok((journal, repair))
    }

    /// Numbers an event and hands it to the writer. Does not wait.
    ///
    /// # Errors
    /// When the event is too large, or came while the queue was full; it then has no number and is nowhere.
    pub fn append(&self, draft: &Draft) -> Result<u64, AppendError> {
        self.queue.push(draft)
    }

    /// Events to come are numbered above `seq`: those up to it happened elsewhere and are not here. Who asks for older
    /// ones is told that they are missing.
    pub fn go_on_after(&self, seq: u64) {
        self.queue.go_on_after(seq);
    }

    /// Number of the newest event that subscribers can have seen; 0 before the first.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.progress.borrow().delivered
    }

    /// Number of the newest event that was appended; 0 before the first. Subscribers may not have seen it yet.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.queue.newest()
    }

    /// All events after number `after`, then the live ones as they come; `None`: only those that come.
    #[must_use]
    pub fn subscribe(&self, after: Option<u64>) -> Subscription {
        // In this order: what is written between the two steps is in both, and told apart by number.
        let live = self.live.subscribe();
        let after = after.unwrap_or_else(|| self.position());
        Subscription::new(live, self.progress.clone(), self.directory.clone(), after)
    }

    /// A page of the past: at most `limit` events after number `after`. Reads files.
    ///
    /// # Errors
    /// When a file of the journal cannot be read.
    pub fn page(&self, after: u64, limit: usize) -> Result<Page, SegmentError> {
        segment::read(&self.directory, after, self.position(), limit)
    }

    /// Waits, at most `deadline`, until everything appended so far is on stable storage.
    ///
    /// # Errors
    /// When it is not by then, or something could not be written.
    pub async fn flush(&self, deadline: Duration) -> Result<(), FlushError> {
        let wanted = self.queue.want_sync();
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|progress| progress.synced >= wanted);
        match tokio::time::timeout(deadline, reached).await {
            Ok(Ok(progress)) if progress.lost_up_to >= wanted && wanted > 0 => {
                Err(FlushError::Lost { wanted })
            }
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(FlushError::Ended),
            Err(_) => Err(FlushError::Timeout {
                wanted,
                reached: self.progress.borrow().synced,
                waited: deadline,
            }),
        }
    }

    /// Ends the writer once everything is on disk, and waits, at most `deadline`, until another may open the journal.
    /// Other handles must be gone.
    ///
    /// # Errors
    /// When it has not ended by then.
    pub async fn close(self, deadline: Duration) -> Result<(), FlushError> {
        let wanted = self.appended();
        let mut progress = self.progress.clone();
        drop(self);
        // The writer lets go of its progress after everything else.
        let ended = async { while progress.changed().await.is_ok() {} };
        (tokio::time::timeout(deadline, ended).await).map_err(|_| FlushError::Timeout {
            wanted,
            reached: progress.borrow().synced,
            waited: deadline,
        })
    }
}
