//! What the connections of an upstream share with its owner: script, record, gates.

use std::collections::{BTreeSet, HashMap};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::choose::Chooser;
use super::conversation::Conversation;
use super::record::{Outcome, Record, Recorded};
use super::script::{Reply, Script};
use super::{account, serve};

/// Names of open gates.
pub(super) type Gates = BTreeSet<String>;

/// Remembered for `GET /v1/generation`; beyond that the account of the oldest is gone.
const MAX_GENERATIONS: usize = 1024;

/// What connections and the owner share.
#[derive(Debug)]
pub(super) struct Shared {
    chooser: Mutex<Chooser>,
    pub(super) record: Mutex<Record>,
    /// Signalled at every change of the record.
    pub(super) changed: Condvar,
    gates: watch::Sender<Gates>,
    lookups: Mutex<HashMap<String, u32>>,
    started: Instant,
    /// Makes ids of one run different from those of another.
    seed: u64,
    next: AtomicU64,
}

/// A panic while holding one of these locks fails its own test; the data are still good to look at.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Settles the outcome of a request when dropped, on whichever way its task ends.
#[derive(Debug)]
pub(super) struct Settles {
    shared: Arc<Shared>,
    seq: u64,
    pub(super) outcome: Outcome,
}

impl Drop for Settles {
    fn drop(&mut self) {
        let outcome = self.outcome;
        self.shared
            .update(self.seq, |recorded| recorded.outcome = outcome);
    }
}

impl Shared {
    pub(super) fn new(script: Script) -> Self {
        let nanos = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.subsec_nanos());
        Self {
            chooser: Mutex::new(Chooser::new(script)),
            record: Mutex::default(),
            changed: Condvar::new(),
            gates: watch::Sender::new(Gates::new()),
            lookups: Mutex::default(),
            started: Instant::now(),
            seed: u64::from(nanos) << 20 ^ u64::from(process::id()),
            next: AtomicU64::new(1),
        }
    }

    pub(super) fn received(&self, head: &http::request::Parts) -> Recorded {
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        serve::begun(head, at_ms)
    }

    pub(super) fn add(&self, recorded: Recorded) -> u64 {
        let seq = locked(&self.record).add(recorded);
        self.changed.notify_all();
        seq
    }

    pub(super) fn update(&self, seq: u64, change: impl FnOnce(&mut Recorded)) {
        locked(&self.record).with(seq, change);
        self.changed.notify_all();
    }

    pub(super) fn sent(&self, seq: u64, write: &Bytes) {
        self.update(seq, |recorded| recorded.sent.extend_from_slice(write));
    }

    pub(super) fn settles(self: &Arc<Self>, seq: u64, outcome: Outcome) -> Settles {
        Settles {
            shared: Arc::clone(self),
            seq,
            outcome,
        }
    }

    pub(super) fn next_id(&self, router: bool) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:014x}{number:06x}", self.seed);
        if router { format!("gen-{id}") } else { id }
    }

    pub(super) fn choose(&self, conversation: &Conversation, path: &str) -> (String, Reply) {
        locked(&self.chooser).choose(conversation, path)
    }

    pub(super) fn required_key(&self) -> Option<String> {
        locked(&self.chooser).script().require_key.clone()
    }

    pub(super) fn websocket(&self) -> bool {
        locked(&self.chooser).script().websocket
    }

    pub(super) fn models(&self) -> Vec<String> {
        locked(&self.chooser).script().models.clone()
    }

    pub(super) fn set_script(&self, script: Script) {
        *locked(&self.chooser) = Chooser::new(script);
    }

    pub(super) fn gates(&self) -> watch::Receiver<Gates> {
        self.gates.subscribe()
    }

    pub(super) fn set_gate(&self, name: &str, open: bool) {
        self.gates.send_modify(|gates| {
            if open {
                gates.insert(name.to_owned());
            } else {
                gates.remove(name);
            }
        });
    }

    pub(super) fn active(&self) -> usize {
        locked(&self.record)
            .all()
            .filter(|recorded| recorded.outcome == Outcome::Open)
            .count()
    }

    pub(super) fn forget(&self) {
        locked(&self.record).clear();
    }

    pub(super) fn requests_json(&self, after: u64) -> (u16, Value) {
        let record = locked(&self.record);
        let requests: Vec<Value> = record
            .all()
            .filter(|recorded| recorded.seq > after)
            .map(Recorded::to_json)
            .collect();
        (
            200,
            json!({"requests": requests, "dropped": record.dropped()}),
        )
    }

    pub(super) fn script_json(&self) -> (u16, Value) {
        match serde_json::to_value(locked(&self.chooser).script()) {
            Ok(script) => (200, script),
            Err(error) => (500, json!({"error": error.to_string()})),
        }
    }

    /// OpenRouter's account of a generation (<https://openrouter.ai/docs/api-reference/get-a-generation>).
    pub(super) fn generation(&self, id: &str) -> (u16, Value) {
        let misses = locked(&self.chooser).script().generation_misses;
        let mut lookups = locked(&self.lookups);
        if lookups.len() >= MAX_GENERATIONS {
            lookups.clear();
        }
        let asked = lookups.entry(id.to_owned()).or_insert(0);
        *asked += 1;
        let record = locked(&self.record);
        let found = record
            .all()
            .find(|recorded| recorded.generation == id && !id.is_empty());
        let Some(recorded) = found.filter(|_| *asked > misses) else {
            return (
                404,
                json!({"error": {"code": 404, "message": format!("Generation {id} not found")}}),
            );
        };
        (200, account::of(recorded))
    }
}
