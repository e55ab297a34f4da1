//! The generation proxy as the rest of the supervisor sees it: who may call, on whose key, under which cap, at what cost.
//!
//! The cap outlives supervisor and container in a small file beside the ledger; keys are in memory only.

mod reach;

pub use reach::Found;

use std::io;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::{Notify, mpsc};
use whim_proxies::generation::activity::{Activity, Purpose, What};
use whim_proxies::generation::budget::Caps;
use whim_proxies::generation::ledger;
use whim_proxies::generation::price::PriceTable;
use whim_proxies::generation::provider::{BaseError, Provider, Upstream};
use whim_proxies::generation::proxy::{Config, GenerationProxy, OpenError};
use whim_proxies::generation::secret::Secret;
use whim_proxies::generation::session::Session;
use whim_proxies::http::dial::DialError;
use whim_wire::event::kind;
use whim_wire::generation::{BudgetUpdate, Outcome};
use whim_wire::money::NanoUsd;
use whim_wire::spec::{AgentKind, ProviderKind};
use whim_wire::state::Spend;

use crate::board::Board;
use crate::clock::boot_now;
use crate::config::Variables;
use crate::config::settings::{self, Credential, Settings};
use crate::sessions::{Evidence, Record, Sessions};
use crate::state::moment::Moment;
use crate::state::observation::{Generation, Observation, Stop};

/// Events of the proxy that may wait; beyond, the proxy drops and counts them, and the next look at its board sets
/// right what was missed.
const ACTIVITY: usize = 1024;
/// After events were lost: how long nothing must come before the sessions are told what is in flight.
const RESEND: Duration = Duration::from_millis(200);

/// Why the proxy cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpendingError {
    #[error(transparent)]
    Open(ledger::OpenError),
    #[error("{path}: {source}", path = path.display())]
    Cap { path: PathBuf, source: io::Error },
    #[error("price table {path} cannot be used: {reason}", path = path.display())]
    Prices { path: PathBuf, reason: String },
    #[error("provider.upstream: {0}")]
    Upstream(#[from] BaseError),
    /// What the container's environment says of the way out.
    #[error("HTTPS_PROXY, HTTP_PROXY or SSL_CERT_FILE: {0}")]
    WayOut(#[from] DialError),
}

impl SpendingError {
    /// Exit code, contract §8.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Open(_) | Self::Cap { .. } => 73,
            Self::Prices { .. } | Self::Upstream(_) | Self::WayOut(_) => 64,
        }
    }
}

/// See the module's header.
#[derive(Debug)]
pub struct Spending {
    proxy: Arc<GenerationProxy>,
    /// Where the cap is kept.
    cap: PathBuf,
    main: Mutex<Main>,
    /// Sessions that the cap refused a call.
    refused: Mutex<std::collections::BTreeSet<String>>,
    /// Told when a key changes.
    rekeyed: Notify,
}

/// The provider of the task.
#[derive(Clone, Debug, Default)]
struct Main {
    kind: Option<ProviderKind>,
    upstream: Option<String>,
    websocket: Option<bool>,
}

impl Main {
    fn new(given: &settings::Provider) -> Self {
        let upstream = given.upstream.as_ref();
        Self {
            kind: given.kind,
            upstream: upstream.map(|url| url.expose().to_owned()),
            websocket: given.websocket,
        }
    }

    /// Where calls to this provider go: the task's base URL is that of the task's provider, or of any while none is known.
    fn upstream(&self, kind: ProviderKind) -> Result<Upstream, BaseError> {
        let own = self.kind.is_none_or(|own| own == kind);
        let base = self.upstream.as_deref().filter(|_| own);
        let upstream = Upstream::new(provider(kind), base)?;
        Ok(match self.websocket.filter(|_| own) {
            Some(speaks) => upstream.with_websocket(speaks),
            None => upstream,
        })
    }
}

impl Spending {
    /// Opens the ledger under `state`. What the proxy sees comes out of the receiver.
    ///
    /// # Errors
    /// [`SpendingError`].
    pub fn open(
        state: &Path,
        settings: &Settings,
        variables: &Variables,
    ) -> Result<(Self, mpsc::Receiver<Activity>), SpendingError> {
        let (sender, receiver) = mpsc::channel(ACTIVITY);
        let mut config = Config::new(state.to_owned());
        config.activity = Some(sender);
        config.prices = prices(&settings.prices)?;
        config.unknown_model = match settings.unknown_model {
            settings::UnknownModel::Refuse => whim_proxies::generation::proxy::UnknownModel::Refuse,
            settings::UnknownModel::Dearest => {
                whim_proxies::generation::proxy::UnknownModel::Dearest
            }
        };
        config.resolver = crate::resolve::resolver();
        let way = crate::outbound::way_out(variables)?;
        (config.proxies, config.extra_roots) = (way.proxies, way.extra_roots);
        let proxy = GenerationProxy::open(config).map_err(|error| match error {
            OpenError::Ledger(error) => SpendingError::Open(error),
            OpenError::Dial(error) => SpendingError::WayOut(error),
        })?;
        let cap = state.join("budget.json");
        let spending = Self {
            proxy,
            cap,
            main: Mutex::default(),
            refused: Mutex::default(),
            rekeyed: Notify::new(),
        };
        spending.task(settings)?;
        Ok((spending, receiver))
    }

    /// The proxy, to be served.
    #[must_use]
    pub fn proxy(&self) -> Arc<GenerationProxy> {
        self.proxy.clone()
    }

    /// Takes provider, keys and cap of a task. A cap that was set while running outlives the task's own.
    ///
    /// # Errors
    /// [`SpendingError`].
    pub fn task(&self, settings: &Settings) -> Result<(), SpendingError> {
        let main = Main::new(&settings.provider);
        if let Some(kind) = settings.provider.kind {
            // Checked now, so that a mistake is told at the start and not by the first call.
            main.upstream(kind)?;
        }
        *self.main.lock().unwrap_or_else(PoisonError::into_inner) = main;
        self.keys(&settings.provider);
        let asked = settings.budget.map(|usd| NanoUsd(usd.nanos()));
        let kept = self.read_cap()?;
        self.proxy.set_caps(Caps {
            usd: kept.map_or(asked, |kept| kept.usd),
            tokens: settings.caps.tokens.map(NonZeroU64::get),
            requests_per_minute: settings.caps.requests_per_minute.map(NonZeroU32::get),
            wall: settings
                .caps
                .minutes
                .map(|minutes| Duration::from_secs(minutes.get().saturating_mul(60))),
        });
        Ok(())
    }

    /// Puts the keys in that are given; others stay.
    pub fn keys(&self, given: &settings::Provider) {
        for kind in ProviderKind::ALL {
            let credential = if Some(*kind) == given.kind {
                given.credentials.main(*kind)
            } else {
                given.credentials.of(*kind)
            };
            let key = match credential {
                Some(Credential::ApiKey(secret) | Credential::ClaudeOauth(secret)) => {
                    secret.expose().to_owned()
                }
                None => continue,
            };
            self.proxy
                .credentials()
                .set(provider(*kind), Some(Secret::new(key)));
        }
    }

    /// Replaces one key while running.
    pub fn rotate(&self, kind: ProviderKind, key: String) {
        self.proxy
            .credentials()
            .set(provider(kind), Some(Secret::new(key)));
        self.rekeyed.notify_one();
    }

    fn upstream(&self, kind: ProviderKind) -> Result<Upstream, BaseError> {
        let main = self.main.lock().unwrap_or_else(PoisonError::into_inner);
        main.upstream(kind)
    }

    /// Lets a session's agent call with the token in its record, unless the session has ended for good.
    pub fn admit(&self, record: &Record, kind: ProviderKind) {
        if record.end.is_some() {
            return;
        }
        let upstreams = match self.upstream(kind) {
            Ok(upstream) => vec![upstream],
            Err(error) => {
                tracing::warn!(session = record.id, %error, "no provider: calls are answered with 502");
                Vec::new()
            }
        };
        let session = Session {
            id: record.id.clone(),
            agent: record.agent.to_string(),
            upstreams,
        };
        self.proxy
            .tokens()
            .adopt(Secret::new(record.token.clone()), session);
    }

    /// Ends what [`Self::admit`] began: what an ended session left running calls on nobody's account.
    pub fn dismiss(&self, id: &str) {
        self.proxy.tokens().revoke(id);
    }

    /// What a session cost so far.
    #[must_use]
    pub fn session(&self, id: &str) -> Spend {
        let (totals, budget_usd) = self.proxy.session(id);
        Spend {
            usd: totals.usd,
            budget_usd,
            requests: totals.requests,
            input_tokens: totals.usage.input_tokens,
            output_tokens: totals.usage.output_tokens,
            cache_read_tokens: totals.usage.cache_read_tokens,
            cache_write_tokens: totals.usage.cache_write_5m_tokens
                + totals.usage.cache_write_1h_tokens,
        }
    }

    /// Whether the cap refused one of the session's calls since this supervisor began.
    #[must_use]
    pub fn was_refused(&self, id: &str) -> bool {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(id)
    }

    /// Raises, lowers or removes the cap, for good.
    ///
    /// # Errors
    /// When it cannot be written down; it then does not change.
    pub fn set_cap(&self, update: BudgetUpdate) -> Result<(), SpendingError> {
        let failed = |source| SpendingError::Cap {
            path: self.cap.clone(),
            source,
        };
        let json = serde_json::to_vec(&update).map_err(|error| failed(error.into()))?;
        crate::files::write(&self.cap, 0o600, &json).map_err(failed)?;
        self.proxy.set_budget(update.usd);
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        Ok(())
    }

    /// All calls in flight, after events were lost. False when a session could not take them.
    fn resend(&self, sessions: &Sessions) -> bool {
        let (now, clock) = (boot_now(), Instant::now());
        let mut by_session: std::collections::BTreeMap<Arc<str>, Vec<(u64, Moment)>> =
            std::collections::BTreeMap::new();
        for id in sessions.ids() {
            by_session.insert(id.into(), Vec::new());
        }
        for (call, in_flight) in self.proxy.board().in_flight() {
            let calls = by_session.entry(in_flight.session.clone()).or_default();
            if in_flight.purpose != Purpose::Side {
                calls.push((
                    call,
                    now - clock.saturating_duration_since(in_flight.started),
                ));
            }
        }
        let mut taken = true;
        for (session, in_flight) in by_session {
            taken &= sessions.observe(&session, Evidence::now(Observation::Calls { in_flight }));
        }
        taken
    }

    fn read_cap(&self) -> Result<Option<BudgetUpdate>, SpendingError> {
        let failed = |source| SpendingError::Cap {
            path: self.cap.clone(),
            source,
        };
        match std::fs::read(&self.cap) {
            Ok(json) => serde_json::from_slice(&json)
                .map(Some)
                .map_err(|error| failed(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Passes what the proxy sees on: to the sessions as evidence, to the journal as events.
    pub async fn report(
        self: Arc<Self>,
        mut activity: mpsc::Receiver<Activity>,
        sessions: Sessions,
        board: Arc<Board>,
    ) {
        let mut dropped = 0;
        // Sessions may believe in a call that is over.
        let mut lost = false;
        loop {
            let next = tokio::select! {
                next = activity.recv() => next,
                () = tokio::time::sleep(RESEND), if lost => {
                    // What is still on its way is older than the list.
                    lost = !(activity.is_empty() && self.resend(&sessions));
                    continue;
                }
            };
            let Some(Activity {
                call,
                session,
                at,
                what,
            }) = next
            else {
                break;
            };
            if self.proxy.board().dropped() != dropped {
                dropped = self.proxy.board().dropped();
                lost = true;
            }
            let moment = boot_now() - Instant::now().saturating_duration_since(at);
            if let Some(event) = observed(&what) {
                let observation = Observation::Generation { call, event };
                lost |= !sessions.observe(
                    &session,
                    Evidence::Seen {
                        at: moment,
                        observation,
                    },
                );
            }
            match what {
                What::Started { purpose, model, .. } => board.note(
                    kind::GENERATION_STARTED,
                    json!({"session": &*session, "call": call, "model": model, "side": purpose == Purpose::Side}),
                ),
                What::Finished { outcome, stop_reason, cost, usage, error, .. } => {
                    board.note(
                        kind::GENERATION_ENDED,
                        json!({"session": &*session, "call": call, "outcome": outcome, "stop_reason": stop_reason,
                               "cost_usd": cost, "usage": usage, "error": error}),
                    );
                    if outcome == Outcome::Complete {
                        // The best probe of all.
                        board.provider(Ok(()));
                    }
                }
                What::Refused { again, message } => {
                    if !again {
                        self.refused.lock().unwrap_or_else(PoisonError::into_inner).insert(session.to_string());
                    }
                    board.note(kind::BUDGET_CHANGED, json!({"session": &*session, "refused": message}));
                }
                What::Budget(warning) => board.note(
                    kind::BUDGET_CHANGED,
                    json!({"session": &*session, "percent": warning.percent, "spent_usd": warning.spent, "budget_usd": warning.cap}),
                ),
                What::FirstByte | What::Progress { .. } | What::Stalled { .. } => {}
            }
        }
    }
}

fn observed(what: &What) -> Option<Generation> {
    Some(match what {
        What::Started { purpose, .. } => Generation::Started {
            side: *purpose == Purpose::Side,
        },
        What::FirstByte | What::Progress { .. } => Generation::Progress,
        What::Finished {
            outcome,
            tool_use,
            stop_reason,
            ..
        } => Generation::Ended(match outcome {
            Outcome::Complete if *tool_use => Stop::Tool,
            Outcome::Complete => match stop_reason.as_deref() {
                Some(
                    "max_tokens"
                    | "length"
                    | "pause_turn"
                    | "incomplete"
                    | "model_context_window_exceeded",
                ) => Stop::Limit,
                _ => Stop::EndTurn,
            },
            Outcome::ClientLeft => Stop::ClientLeft,
            Outcome::UpstreamCut | Outcome::UpstreamError => Stop::Error,
            Outcome::Refused | Outcome::CutAtCap => Stop::Refused,
        }),
        // An agent waits and asks again, as after a provider's own limit.
        What::Refused { again: true, .. } => Generation::Ended(Stop::Error),
        What::Refused { .. } => Generation::Ended(Stop::Refused),
        What::Stalled { .. } | What::Budget(_) => return None,
    })
}

fn provider(kind: ProviderKind) -> Provider {
    match kind {
        ProviderKind::Anthropic => Provider::Anthropic,
        ProviderKind::Openai => Provider::OpenAi,
        ProviderKind::Openrouter => Provider::OpenRouter,
        ProviderKind::Compatible => Provider::Compatible,
    }
}

/// The providers whose WebSocket the generation proxy relays.
#[must_use]
pub fn websockets(given: &settings::Provider) -> Vec<ProviderKind> {
    let main = Main::new(given);
    let speaks = |kind: &ProviderKind| main.upstream(*kind).is_ok_and(|u| u.websocket());
    ProviderKind::ALL.iter().copied().filter(speaks).collect()
}

/// The provider that an agent speaks to when the task names none for it.
#[must_use]
pub fn natural(agent: AgentKind) -> ProviderKind {
    match agent {
        AgentKind::Claude | AgentKind::Custom => ProviderKind::Anthropic,
        AgentKind::Codex | AgentKind::Copilot => ProviderKind::Openai,
        AgentKind::Ccr => ProviderKind::Openrouter,
    }
}

/// The table that ships, with the overrides of a file if it is there.
fn prices(path: &Path) -> Result<PriceTable, SpendingError> {
    let failed = |reason: String| SpendingError::Prices {
        path: path.to_owned(),
        reason,
    };
    match std::fs::read_to_string(path) {
        Ok(text) => PriceTable::with_overrides(&text).map_err(|error| failed(error.to_string())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(PriceTable::shipped()),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_websocket_is_the_tasks_upstreams() {
        let speak = |kind, upstream: Option<&str>, websocket| {
            websockets(&settings::Provider {
                kind,
                upstream: upstream.map(|url| url.to_owned().into()),
                websocket,
                credentials: settings::Credentials::default(),
            })
        };
        let (openai, compatible) = (ProviderKind::Openai, ProviderKind::Compatible);
        assert_eq!(speak(Some(openai), None, None), [openai]);
        assert_eq!(speak(Some(openai), None, Some(false)), []);
        let gateway = Some("http://gateway.example");
        assert_eq!(speak(Some(openai), gateway, None), []);
        assert_eq!(speak(Some(openai), gateway, Some(true)), [openai]);
        // What is said of one provider's upstream is not said of another's own address.
        assert_eq!(
            speak(Some(compatible), gateway, Some(true)),
            [openai, compatible]
        );
        assert_eq!(speak(Some(compatible), gateway, Some(false)), [openai]);
    }
}
