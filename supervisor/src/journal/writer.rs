//! The writer thread: takes what waits, writes it in one call, tells the subscribers.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::{broadcast, watch};
use whim_wire::event::{Draft, kind};

use super::Entry;
use super::queue::{Batch, Queue};
use super::segment::Segments;

/// Bytes that are written in one call, about.
const WRITE_BYTES: usize = 256 * 1024;

/// How far the writer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    /// Newest event that subscribers were sent; it is written, unless lost.
    pub(super) delivered: u64,
    /// Newest event that is on stable storage, unless lost.
    pub(super) synced: u64,
    /// Newest event that could not be written.
    pub(super) lost_up_to: u64,
}

impl Progress {
    pub(super) fn starting_at(next: u64) -> Self {
        Self {
            delivered: next - 1,
            synced: next - 1,
            lost_up_to: 0,
        }
    }
}

/// Fields are dropped in this order: once `progress` closes, the lock of `segments` is free.
#[derive(Debug)]
pub(super) struct Writer {
    segments: Segments,
    queue: Arc<Queue>,
    live: broadcast::Sender<Arc<Entry>>,
    gap: Option<Gap>,
    progress: watch::Sender<Progress>,
}

/// Events that could not be written, until a later one could.
#[derive(Debug, Serialize)]
pub(super) struct Gap {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) error: String,
}

#[derive(Debug, Serialize)]
struct Dropped {
    dropped: u64,
}

impl Writer {
    pub(super) fn new(
        segments: Segments,
        queue: Arc<Queue>,
        live: broadcast::Sender<Arc<Entry>>,
        gap: Option<Gap>,
        progress: watch::Sender<Progress>,
    ) -> Self {
        Self {
            segments,
            queue,
            live,
            gap,
            progress,
        }
    }

    pub(super) fn run(mut self) {
        let mut dropped = 0;
        while let Some(batch) = self.queue.take() {
            let Batch {
                entries,
                dropped: more,
                sync,
            } = batch;
            dropped += more;
            let mut rest = entries.as_slice();
            while let Some((part, later)) = rest.split_at_checked(part(rest)) {
                if part.is_empty() {
                    break;
                }
                self.write(part);
                rest = later;
            }
            if sync {
                self.sync();
            }
            // The queue has room again: its own news goes the way of all events.
            if dropped > 0 && self.tell(&Dropped { dropped }) {
                dropped = 0;
            }
        }
        self.sync();
    }

    fn write(&mut self, part: &[Arc<Entry>]) {
        let (Some(first), Some(last)) = (part.first(), part.last()) else {
            return;
        };
        let mut lines = Vec::new();
        for entry in part {
            lines.extend_from_slice(entry.json.as_bytes());
            lines.push(b'\n');
        }
        let lost = match self.segments.write(first.seq, &lines) {
            Ok(()) => {
                if let Some(gap) = self.gap.take()
                    && !self.tell(&gap)
                {
                    self.gap = Some(gap);
                }
                false
            }
            Err(error) => {
                self.lose(first.seq, last.seq, &error);
                true
            }
        };
        // Before the delivery: who subscribes in between takes these from the disk.
        self.progress.send_modify(|progress| {
            progress.delivered = last.seq;
            if lost {
                progress.lost_up_to = last.seq;
            }
        });
        for entry in part {
            // Nobody listens: fine.
            let _listeners = self.live.send(Arc::clone(entry));
        }
    }

    fn lose(&mut self, first: u64, last: u64, error: &(dyn std::error::Error + 'static)) {
        let gap = self.gap.get_or_insert_with(|| {
            tracing::error!(
                error,
                first,
                "the journal cannot be written; events are lost"
            );
            Gap {
                first,
                last,
                error: error.to_string(),
            }
        });
        gap.last = last;
        if let Err(error) = self.segments.note_lost(last) {
            tracing::error!(%error, last, "a restart may give numbers of lost events again");
        }
    }

    fn sync(&mut self) {
        let delivered = self.progress.borrow().delivered;
        let failed = self.segments.sync().err();
        if let Some(error) = &failed {
            let error: &dyn std::error::Error = error;
            tracing::error!(error, "the journal may not be durable");
        }
        self.progress.send_modify(|progress| {
            progress.synced = delivered;
            if failed.is_some() {
                progress.lost_up_to = delivered;
            }
        });
    }

    /// Appends an event about the journal itself; false if there was no room.
    fn tell(&self, payload: &impl Serialize) -> bool {
        let at = Timestamp::now().into();
        match Draft::new(kind::JOURNAL_GAP, at, payload) {
            Ok(draft) => self.queue.push_quietly(&draft),
            Err(error) => {
                tracing::error!(%error, "cannot tell of a gap in the journal");
                true
            }
        }
    }
}

/// How many of `entries` make a first part of about [`WRITE_BYTES`]: at least one.
fn part(entries: &[Arc<Entry>]) -> usize {
    let mut bytes = 0;
    let fits = entries.iter().take_while(|entry| {
        let first = bytes == 0;
        bytes += entry.json.len() + 1;
        first || bytes <= WRITE_BYTES
    });
    fits.count()
}
