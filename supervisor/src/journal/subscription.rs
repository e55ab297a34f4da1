//! One reader of the journal: the past from disk, then what comes, without a hole between.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use super::Entry;
use super::segment::{self, SegmentError};
use super::writer::Progress;

/// Most events that are read from disk at once.
const PAGE: usize = 256;

/// What a subscriber receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    Event(Arc<Entry>),
    /// Events of these numbers (both included) are no longer or never were in the journal; ask for the state instead.
    Missing {
        first: u64,
        last: u64,
    },
}

/// See [`super::Journal::subscribe`].
#[derive(Debug)]
pub struct Subscription {
    live: broadcast::Receiver<Arc<Entry>>,
    progress: watch::Receiver<Progress>,
    directory: PathBuf,
    /// Number of the last event that was delivered or reported missing.
    last: u64,
    /// Read from disk and not delivered yet.
    past: VecDeque<Arc<Entry>>,
    /// The live channel does not reach back to `last`.
    behind: bool,
}

impl Subscription {
    pub(super) fn new(
        live: broadcast::Receiver<Arc<Entry>>,
        progress: watch::Receiver<Progress>,
        directory: PathBuf,
        after: u64,
    ) -> Self {
        let newest = progress.borrow().delivered;
        Self {
            live,
            progress,
            directory,
            // A number from the future (another container's journal) means: what comes.
            last: after.min(newest),
            past: VecDeque::new(),
            behind: after < newest,
        }
    }

    /// The next event; `None` when the journal is closed and all was delivered. May be dropped while it waits.
    ///
    /// # Errors
    /// When the past cannot be read; the next call tries again.
    pub async fn next(&mut self) -> Option<Result<Delivery, SegmentError>> {
        loop {
            if let Some(entry) = self.past.front() {
                let seq = entry.seq;
                if seq > self.last + 1 {
                    return Some(Ok(self.missing(seq - 1)));
                }
                let entry = self.past.pop_front()?;
                self.last = seq;
                return Some(Ok(Delivery::Event(entry)));
            }
            if self.behind {
                match self.catch_up().await {
                    Ok(Some(missing)) => return Some(Ok(missing)),
                    Ok(None) => continue,
                    Err(error) => return Some(Err(error)),
                }
            }
            match self.live.recv().await {
                Ok(entry) if entry.seq == self.last + 1 => {
                    self.last = entry.seq;
                    return Some(Ok(Delivery::Event(entry)));
                }
                // A hole: the disk knows.
                Ok(entry) if entry.seq > self.last => self.behind = true,
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Reads the next page of the past.
    async fn catch_up(&mut self) -> Result<Option<Delivery>, SegmentError> {
        let until = self.progress.borrow().delivered;
        let (directory, last) = (self.directory.clone(), self.last);
        let read = move || segment::read(&directory, last, until, PAGE);
        let page = (tokio::task::spawn_blocking(read).await).unwrap_or(Err(SegmentError::Task))?;
        self.past.extend(page.entries);
        if !page.complete {
            return Ok(None);
        }
        self.behind = false;
        // The end of the range may be missing, too.
        let newest = self.past.back().map_or(self.last, |entry| entry.seq);
        let short = self.past.is_empty() && newest < until;
        Ok(short.then(|| self.missing(until)))
    }

    fn missing(&mut self, last: u64) -> Delivery {
        let first = self.last + 1;
        self.last = last;
        Delivery::Missing { first, last }
    }
}
