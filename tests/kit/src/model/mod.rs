//! A model provider that follows a script.
//!
//! [`Upstream`] serves on loopback what Anthropic, OpenAI and OpenRouter serve, as far as the agent CLIs and the
//! generation proxy use it; the [`script`] decides what it says and where it fails, and every request is recorded. It
//! runs on a thread of its own and stops when dropped. The same is a program, `scripted-model`, with a [`control`] port.
//!
//! | path (also under `/api`, then in OpenRouter's shape) | answers |
//! |---|---|
//! | `POST /v1/messages` · `/v1/responses` · `/v1/chat/completions` | by script, streamed or whole |
//! | `POST /v1/messages/count_tokens` · `GET /v1/models` | a quarter of the bytes · the script's list |
//! | `GET /v1/generation?id=` | OpenRouter's account of an earlier answer, after the script's number of 404s |
//! | `HEAD /`, `GET /` · `GET /v1/responses` | 200 · 426 |

mod answer;
mod anthropic;
mod chat;
mod choose;
pub mod control;
pub mod conversation;
pub mod demo;
pub mod directives;
mod play;
pub mod record;
mod responses;
pub mod script;
mod serve;
pub mod tools;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::background::Background;
use crate::wait::TimedOut;
use choose::Chooser;
use conversation::Conversation;
use record::{Outcome, Record, Recorded};
use script::{Reply, Script};

/// Names of open gates.
pub(super) type Gates = BTreeSet<String>;

/// Remembered for `GET /v1/generation`; beyond that the account of the oldest is gone.
const MAX_GENERATIONS: usize = 1024;

/// What connections and the owner share.
#[derive(Debug)]
struct Shared {
    chooser: Mutex<Chooser>,
    record: Mutex<Record>,
    /// Signalled at every change of the record.
    changed: Condvar,
    gates: watch::Sender<Gates>,
    lookups: Mutex<HashMap<String, u32>>,
    started: Instant,
    /// Makes ids of one run different from those of another.
    seed: u64,
    next: AtomicU64,
}

/// A panic while holding one of these locks fails its own test; the data are still good to look at.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Settles the outcome of a request when dropped, on whichever way its task ends.
#[derive(Debug)]
struct Settles {
    shared: Arc<Shared>,
    seq: u64,
    outcome: Outcome,
}

impl Drop for Settles {
    fn drop(&mut self) {
        let outcome = self.outcome;
        self.shared
            .update(self.seq, |recorded| recorded.outcome = outcome);
    }
}

impl Shared {
    fn new(script: Script) -> Self {
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

    fn received(&self, head: &http::request::Parts) -> Recorded {
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        serve::begun(head, at_ms)
    }

    fn add(&self, recorded: Recorded) -> u64 {
        let seq = locked(&self.record).add(recorded);
        self.changed.notify_all();
        seq
    }

    fn update(&self, seq: u64, change: impl FnOnce(&mut Recorded)) {
        locked(&self.record).with(seq, change);
        self.changed.notify_all();
    }

    fn sent(&self, seq: u64, write: &Bytes) {
        self.update(seq, |recorded| recorded.sent.extend_from_slice(write));
    }

    fn settles(self: &Arc<Self>, seq: u64, outcome: Outcome) -> Settles {
        Settles {
            shared: Arc::clone(self),
            seq,
            outcome,
        }
    }

    fn next_id(&self, router: bool) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:014x}{number:06x}", self.seed);
        if router { format!("gen-{id}") } else { id }
    }

    fn choose(&self, conversation: &Conversation, path: &str) -> (String, Reply) {
        locked(&self.chooser).choose(conversation, path)
    }

    fn required_key(&self) -> Option<String> {
        locked(&self.chooser).script().require_key.clone()
    }

    fn models(&self) -> Vec<String> {
        locked(&self.chooser).script().models.clone()
    }

    fn set_script(&self, script: Script) {
        *locked(&self.chooser) = Chooser::new(script);
    }

    fn gates(&self) -> watch::Receiver<Gates> {
        self.gates.subscribe()
    }

    fn set_gate(&self, name: &str, open: bool) {
        self.gates.send_modify(|gates| {
            if open {
                gates.insert(name.to_owned());
            } else {
                gates.remove(name);
            }
        });
    }

    fn active(&self) -> usize {
        locked(&self.record)
            .all()
            .filter(|recorded| recorded.outcome == Outcome::Open)
            .count()
    }

    fn forget(&self) {
        locked(&self.record).clear();
    }

    fn requests_json(&self, after: u64) -> (u16, Value) {
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

    fn script_json(&self) -> (u16, Value) {
        match serde_json::to_value(locked(&self.chooser).script()) {
            Ok(script) => (200, script),
            Err(error) => (500, json!({"error": error.to_string()})),
        }
    }

    /// OpenRouter's account of a generation (<https://openrouter.ai/docs/api-reference/get-a-generation>).
    fn generation(&self, id: &str) -> (u16, Value) {
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
        let (usage, streamed) = usage_sent(&recorded.sent);
        (
            200,
            json!({"data": {
                "id": id, "model": recorded.model, "streamed": streamed, "provider_name": "Scripted",
                "cancelled": recorded.outcome == Outcome::ClientLeft, "total_cost": usage["cost"],
                "upstream_inference_cost": usage["cost_details"]["upstream_inference_cost"], "is_byok": usage["is_byok"],
                "native_tokens_prompt": usage["prompt_tokens"], "native_tokens_completion": usage["completion_tokens"],
                "native_tokens_cached": usage["prompt_tokens_details"]["cached_tokens"],
            }}),
        )
    }
}

/// The last usage in a body that was sent, and whether it was a stream.
fn usage_sent(sent: &[u8]) -> (Value, bool) {
    let text = String::from_utf8_lossy(sent);
    if let Ok(body) = serde_json::from_str::<Value>(&text) {
        return (body["usage"].clone(), false);
    }
    let events = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok());
    let usages = events.map(|event| {
        if event["usage"].is_object() {
            event["usage"].clone()
        } else {
            event["response"]["usage"].clone()
        }
    });
    (
        usages
            .into_iter()
            .find(Value::is_object)
            .unwrap_or(Value::Null),
        true,
    )
}

/// A scripted provider, serving until dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Dropped last: its tasks hold `shared`.
    background: Background,
}

impl Upstream {
    /// Serves `script` on a free loopback port.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start(script: Script) -> io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script)
    }

    /// Serves `script` at this address.
    ///
    /// # Errors
    /// When the port or a thread cannot be had.
    pub fn start_at(address: SocketAddr, script: Script) -> io::Result<Self> {
        let background = Background::start("scripted-model")?;
        let shared = Arc::new(Shared::new(script));
        let (listener, address) = listen(&background, address)?;
        drop(
            background
                .handle()
                .spawn(serve::serve(listener, Arc::clone(&shared))),
        );
        Ok(Self {
            address,
            shared,
            background,
        })
    }

    /// Opens a control port ([`control`]).
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn control_at(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let (listener, address) = listen(&self.background, address)?;
        drop(
            self.background
                .handle()
                .spawn(control::serve(listener, Arc::clone(&self.shared))),
        );
        Ok(address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL, without `/v1`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL in OpenRouter's shape, without `/v1`.
    #[must_use]
    pub fn router_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Replaces the script; nothing of it is used up yet.
    pub fn set_script(&self, script: Script) {
        self.shared.set_script(script);
    }

    /// Lets the replies go on that wait for this gate, now and later.
    pub fn open(&self, gate: &str) {
        self.shared.set_gate(gate, true);
    }

    /// Holds such replies again.
    pub fn close(&self, gate: &str) {
        self.shared.set_gate(gate, false);
    }

    /// All requests kept, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        locked(&self.shared.record).all().cloned().collect()
    }

    /// The generations among them that are no titles.
    #[must_use]
    pub fn turns(&self) -> Vec<Recorded> {
        locked(&self.shared.record)
            .all()
            .filter(|recorded| recorded.is_turn())
            .cloned()
            .collect()
    }

    /// Answers under way.
    #[must_use]
    pub fn active(&self) -> usize {
        self.shared.active()
    }

    /// Forgets all requests.
    pub fn forget(&self) {
        self.shared.forget();
    }

    /// Waits until `seen` finds what it looks for among the requests.
    ///
    /// # Errors
    /// After `limit`, naming `what` and the requests there were.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut seen: impl FnMut(&[&Recorded]) -> Option<T>,
    ) -> Result<T, TimedOut> {
        let deadline = Instant::now() + limit;
        let mut record = locked(&self.shared.record);
        loop {
            let all: Vec<&Recorded> = record.all().collect();
            if let Some(found) = seen(&all) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let line = |recorded: &&Recorded| {
                    let Recorded {
                        seq,
                        method,
                        path,
                        status,
                        rule,
                        outcome,
                        ..
                    } = recorded;
                    format!("{seq} {method} {path} {status} {rule} {outcome:?}")
                };
                return Err(TimedOut::new(
                    what,
                    limit,
                    all.iter().map(line).collect::<Vec<_>>().join("; "),
                ));
            }
            record = self
                .shared
                .changed
                .wait_timeout(record, left)
                .map_or_else(|error| error.into_inner().0, |(record, _)| record);
        }
    }
}

fn listen(
    background: &Background,
    address: SocketAddr,
) -> io::Result<(tokio::net::TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let _entered = background.handle().enter();
    Ok((tokio::net::TcpListener::from_std(listener)?, address))
}
