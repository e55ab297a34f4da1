//! The proxy's state, its handles for the supervisor, and the entry.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use whim_wire::generation::{LedgerLine, Spend, Totals};
use whim_wire::money::NanoUsd;
use whim_wire::time::Time;

use super::activity::{Activity, Board, What};
use super::body::RequestBody;
use super::budget::{Budget, Caps, Warning};
use super::ledger::{self, Ledger};
use super::price::PriceTable;
use super::prompts::Prompts;
use super::provider::Credentials;
use super::retry::{Allowance, RetryPolicy};
use super::session::SessionTokens;
use super::socket::Sockets;
use crate::http::dial::{DialError, Dialer, OutboundProxies, Resolve, SystemResolver};
use crate::http::pool::Pool;
use crate::http::serve as http_serve;

/// What happens to a model without a price while money is capped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownModel {
    /// Refused by name.
    #[default]
    Refuse,
    /// Priced as the dearest model of the table.
    Dearest,
}

/// Bounds of the proxy.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: u64,
    /// Time for each step of connecting.
    pub connect: Duration,
    /// Time for an answer's head.
    pub head: Duration,
    /// Time without a byte after which an answer is given up.
    pub silence: Duration,
    /// Time without generated content after which a call is told to be stalled.
    pub stall: Duration,
    /// Pause before a provider is first asked what a call cost that did not say.
    pub reconcile: Duration,
    /// Bounds of the server.
    pub server: http_serve::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            connect: Duration::from_secs(10),
            head: Duration::from_secs(600),
            silence: Duration::from_secs(600),
            stall: Duration::from_secs(60),
            reconcile: Duration::from_secs(1),
            server: http_serve::Limits::default(),
        }
    }
}

/// How a proxy is set up.
#[derive(Debug)]
pub struct Config {
    /// Directory of the ledger.
    pub ledger: PathBuf,
    /// Prices.
    pub prices: PriceTable,
    /// What happens to models without one.
    pub unknown_model: UnknownModel,
    /// Caps at the start.
    pub caps: Caps,
    /// Bounds.
    pub limits: Limits,
    /// Retrying.
    pub retry: RetryPolicy,
    /// Where events go. Its capacity is the bound; what does not fit is dropped and counted.
    pub activity: Option<mpsc::Sender<Activity>>,
    /// Names to addresses.
    pub resolver: Arc<dyn Resolve>,
    /// Outbound proxies.
    pub proxies: OutboundProxies,
    /// Extra certificate authorities, PEM.
    pub extra_roots: Option<String>,
    /// `HTTP-Referer` and `X-OpenRouter-Title` for OpenRouter's attribution.
    pub attribution: Option<(String, String)>,
}

impl Config {
    /// Defaults around a ledger's directory.
    #[must_use]
    pub fn new(ledger: PathBuf) -> Self {
        Self {
            ledger,
            prices: PriceTable::shipped(),
            unknown_model: UnknownModel::default(),
            caps: Caps::default(),
            limits: Limits::default(),
            retry: RetryPolicy::default(),
            activity: None,
            resolver: Arc::new(SystemResolver),
            proxies: OutboundProxies::default(),
            extra_roots: None,
            attribution: None,
        }
    }
}

/// Why a proxy cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::OpenError),
    /// The way out.
    #[error(transparent)]
    Dial(#[from] DialError),
}

/// Counters for the metrics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) unauthorized: AtomicU64,
    pub(super) forbidden: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) bytes_down: AtomicU64,
    pub(super) stalls: AtomicU64,
    pub(super) blind: AtomicU64,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

/// The proxy.
#[derive(Debug)]
pub struct GenerationProxy {
    pub(super) pool: Arc<Pool<RequestBody>>,
    pub(super) tokens: SessionTokens,
    pub(super) credentials: Credentials,
    pub(super) budget: Mutex<Budget>,
    pub(super) ledger: Ledger,
    pub(super) board: Board,
    pub(super) prices: PriceTable,
    pub(super) unknown_model: UnknownModel,
    pub(super) limits: Limits,
    pub(super) retry: RetryPolicy,
    pub(super) retries: Mutex<Allowance>,
    pub(super) counters: Counters,
    prompts: Mutex<Prompts>,
    pub(super) asking: Arc<tokio::sync::Semaphore>,
    pub(super) attribution: Option<(String, String)>,
    /// Distinguishes the calls of this process from those of an earlier one.
    run: String,
    next_call: AtomicU64,
}

impl GenerationProxy {
    /// Opens the ledger, takes over what was spent, and stands ready.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(config: Config) -> Result<Arc<Self>, OpenError> {
        let dialer = Dialer::new(
            config.resolver,
            config.proxies,
            config.extra_roots.as_deref(),
            config.limits.connect,
        )?;
        let ledger = Ledger::open(&config.ledger)?;
        let spend = ledger.spend(None, NanoUsd::ZERO);
        let tokens = spend.totals.usage.total_tokens();
        let mut budget = Budget::new(config.caps, spend.totals.usd, tokens);
        if let Some(first) = ledger.first() {
            budget.began(instant(first));
        }
        let started = jiff::Timestamp::now().as_microsecond();
        Ok(Arc::new(Self {
            pool: Pool::new(dialer),
            tokens: SessionTokens::default(),
            credentials: Credentials::default(),
            budget: Mutex::new(budget),
            ledger,
            board: Board::new(config.activity),
            prices: config.prices,
            unknown_model: config.unknown_model,
            limits: config.limits,
            retry: config.retry,
            retries: Mutex::default(),
            counters: Counters::default(),
            prompts: Mutex::default(),
            asking: Arc::new(tokio::sync::Semaphore::new(super::reconcile::AT_ONCE)),
            attribution: config.attribution,
            run: format!("{started:x}"),
            next_call: AtomicU64::new(1),
        }))
    }

    /// Who may call.
    #[must_use]
    pub const fn tokens(&self) -> &SessionTokens {
        &self.tokens
    }

    /// The providers' keys.
    #[must_use]
    pub const fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Calls in flight.
    #[must_use]
    pub const fn board(&self) -> &Board {
        &self.board
    }

    /// Replaces all bounds.
    pub fn set_caps(&self, caps: Caps) {
        self.budget().set_caps(caps);
    }

    /// Sets or removes the cap; the caller makes it last.
    pub fn set_budget(&self, cap: Option<NanoUsd>) {
        self.budget().set_cap(cap);
    }

    /// Spend and cap, by session, model and day.
    #[must_use]
    pub fn spend(&self) -> Spend {
        let (cap, _, held) = self.budget().state();
        self.ledger.spend(cap, held)
    }

    /// What one session spent, and the task's cap. Cheap, unlike [`Self::spend`].
    #[must_use]
    pub fn session(&self, id: &str) -> (Totals, Option<NanoUsd>) {
        let (cap, _, _) = self.budget().state();
        (self.ledger.session(id), cap)
    }

    /// Lines of the ledger with numbers above `after`, oldest first, or the newest; at most `limit`. May read files.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn generations(&self, after: Option<u64>, limit: usize) -> io::Result<Vec<LedgerLine>> {
        self.ledger.page(after, limit)
    }

    /// Counts calls that another ledger of the task holds and this one does not, each with a number of its own; they
    /// count against the caps as well. Returns how many.
    ///
    /// # Errors
    /// The ledger cannot be read or written; a repetition goes on where this stopped.
    pub async fn carry_on(&self, lines: Vec<LedgerLine>) -> Result<usize, ledger::FlushError> {
        let count = |line: &LedgerLine| {
            let tokens = line.usage.total_tokens();
            let mut budget = self.budget();
            budget.carry_on(line.cost_usd, tokens);
            budget.began(instant(line.at));
        };
        self.ledger.carry_on(lines, count).await
    }

    /// Every call that has ended is on stable storage when this returns.
    ///
    /// # Errors
    /// The ledger cannot be written.
    pub async fn flush(&self) -> Result<(), ledger::FlushError> {
        self.ledger.flush().await
    }

    pub(super) fn budget(&self) -> std::sync::MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn prompts(&self) -> std::sync::MutexGuard<'_, Prompts> {
        self.prompts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_call(&self) -> (u64, String) {
        let number = self.next_call.fetch_add(1, Ordering::Relaxed);
        (number, format!("{}-{number}", self.run))
    }

    pub(super) fn tell_warning(&self, call: u64, session: &Arc<str>, warning: Option<Warning>) {
        if let Some(warning) = warning {
            self.board
                .tell(call, session, Instant::now(), What::Budget(warning));
        }
    }
}

/// The same moment by the clock that is not set; now, for one that has yet to come.
fn instant(at: Time) -> Instant {
    let ago = Timestamp::now().duration_since(at.timestamp());
    let now = Instant::now();
    Duration::try_from(ago)
        .ok()
        .and_then(|ago| now.checked_sub(ago))
        .unwrap_or(now)
}

/// Serves agents on bound listeners (loopback ones: the caller binds) until `shutdown` resolves and calls in flight
/// have had their time to end.
///
/// # Errors
/// There is no listener.
pub async fn serve(
    listeners: Vec<TcpListener>,
    proxy: Arc<GenerationProxy>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let limits = proxy.limits.server;
    let pool = Arc::clone(&proxy.pool);
    let sweeper = async move {
        let mut every = tokio::time::interval(Duration::from_secs(30));
        loop {
            every.tick().await;
            pool.sweep();
        }
    };
    let sockets = Sockets::default();
    let ends = sockets.clone();
    let shutdown = async move {
        shutdown.await;
        ends.end();
    };
    let relays = sockets.clone();
    let handler =
        move |request| super::forward::handle(Arc::clone(&proxy), sockets.clone(), request);
    // A connection that has switched to WebSocket is none of the server's any more.
    let switched = async move {
        relays.ending().await;
        if timeout(limits.drain, relays.ended()).await.is_err() {
            tracing::warn!("WebSockets still in use were cut at the end of the drain");
        }
        Ok(())
    };
    let served = async {
        let served = http_serve::serve(listeners, limits, handler, shutdown);
        tokio::try_join!(served, switched).map(|_| ())
    };
    tokio::select! {
        served = served => served,
        () = sweeper => Ok(()),
    }
}
