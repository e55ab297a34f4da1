//! Between those who append and the writer: numbers, and a bounded queue.
//!
//! Numbering and queueing are one step under one lock, held for a copy of a few bytes: so events stand in the queue in
//! the order of their numbers.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use whim_wire::event::Draft;

use super::{AppendError, Entry, MAX_EVENT, MAX_QUEUED, MAX_QUEUED_BYTES};

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Debug)]
struct State {
    next: u64,
    waiting: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// Events refused for want of room since the last batch.
    dropped: u64,
    sync: bool,
    closed: bool,
}

/// What the writer takes at once.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) dropped: u64,
    /// Somebody waits for stable storage.
    pub(super) sync: bool,
}

/// Closes the queue when the last handle goes.
#[derive(Debug)]
pub(super) struct Closer(pub(super) Arc<Queue>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_one();
    }
}

impl Queue {
    pub(super) fn new(next: u64) -> Self {
        let state = State {
            next,
            waiting: VecDeque::new(),
            bytes: 0,
            dropped: 0,
            sync: false,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            work: Condvar::new(),
        }
    }

    pub(super) fn push(&self, draft: &Draft) -> Result<u64, AppendError> {
        let kind = || draft.kind().to_owned();
        let body = serde_json::to_string(draft).map_err(|source| AppendError::Encode {
            kind: kind(),
            source,
        })?;
        // 28: `{"seq":` with the longest number and a comma.
        let bytes = body.len() + 28;
        if bytes > MAX_EVENT {
            return Err(AppendError::TooLarge {
                kind: kind(),
                bytes,
            });
        }
        let fields = body.strip_prefix('{').unwrap_or(&body);
        let mut state = self.lock();
        if state.waiting.len() >= MAX_QUEUED || state.bytes + bytes > MAX_QUEUED_BYTES {
            state.dropped += 1;
            return Err(AppendError::Full { kind: kind() });
        }
        let seq = state.next;
        state.next += 1;
        state.bytes += bytes;
        state.waiting.push_back(Arc::new(Entry {
            seq,
            kind: draft.kind().into(),
            json: format!("{{\"seq\":{seq},{fields}").into(),
        }));
        drop(state);
        self.work.notify_one();
        Ok(seq)
    }

    /// As [`Self::push`], for the writer's own events: false if there was no room, which is not counted.
    pub(super) fn push_quietly(&self, draft: &Draft) -> bool {
        match self.push(draft) {
            Ok(_) => true,
            Err(AppendError::Full { .. }) => {
                self.lock().dropped -= 1;
                false
            }
            Err(error) => {
                tracing::error!(%error, "the journal cannot tell of its own gap");
                true
            }
        }
    }

    /// The next number is above `seq`.
    pub(super) fn go_on_after(&self, seq: u64) {
        let mut state = self.lock();
        state.next = state.next.max(seq.saturating_add(1));
    }

    /// The newest number given so far.
    pub(super) fn newest(&self) -> u64 {
        self.lock().next - 1
    }

    /// Asks the writer for stable storage; returns the newest number given so far.
    pub(super) fn want_sync(&self) -> u64 {
        let mut state = self.lock();
        state.sync = true;
        let newest = state.next - 1;
        drop(state);
        self.work.notify_one();
        newest
    }

    /// Everything that waits; blocks until there is something, and gives `None` once closed and empty.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut state = self.lock();
        while state.waiting.is_empty() && !state.sync && state.dropped == 0 {
            if state.closed {
                return None;
            }
            state = (self.work.wait(state)).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes = 0;
        Some(Batch {
            entries: std::mem::take(&mut state.waiting).into(),
            dropped: std::mem::take(&mut state.dropped),
            sync: std::mem::take(&mut state.sync),
        })
    }

    /// Every change under the lock is complete when it panics, so a poisoned lock is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
