//! What the generation proxy reports: ledger lines, usage buckets, spend totals, budget.
//!
//! Owns the shapes only. Buckets of tokens are disjoint, so that each is priced once.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::money::NanoUsd;
use crate::time::Time;

/// Tokens of one call or of many, in disjoint buckets.
///
/// `reasoning_tokens` is the one exception: it is informational and part of `output_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Usage {
    /// Prompt tokens that were neither read from nor written to a cache.
    pub input_tokens: u64,
    /// Prompt tokens read from the provider's cache.
    pub cache_read_tokens: u64,
    /// Prompt tokens written to a cache that lives for minutes (or whose lifetime the provider does not state).
    pub cache_write_5m_tokens: u64,
    /// Prompt tokens written to a cache that lives for an hour.
    pub cache_write_1h_tokens: u64,
    /// Generated tokens, reasoning included.
    pub output_tokens: u64,
    /// The part of `output_tokens` that was reasoning, where the provider says so.
    pub reasoning_tokens: u64,
}

impl Usage {
    /// All tokens of the prompt, cached or not: what price tiers go by.
    #[must_use]
    pub const fn prompt_tokens(&self) -> u64 {
        self.input_tokens
            .saturating_add(self.cache_read_tokens)
            .saturating_add(self.cache_write_5m_tokens)
            .saturating_add(self.cache_write_1h_tokens)
    }

    /// Everything that was processed.
    #[must_use]
    pub const fn total_tokens(&self) -> u64 {
        self.prompt_tokens().saturating_add(self.output_tokens)
    }

    /// Replaces one call's tokens, counted in here, by others.
    pub const fn replace(&mut self, old: &Self, new: &Self) {
        self.input_tokens = self.input_tokens.saturating_sub(old.input_tokens);
        self.cache_read_tokens = self.cache_read_tokens.saturating_sub(old.cache_read_tokens);
        self.cache_write_5m_tokens = self
            .cache_write_5m_tokens
            .saturating_sub(old.cache_write_5m_tokens);
        self.cache_write_1h_tokens = self
            .cache_write_1h_tokens
            .saturating_sub(old.cache_write_1h_tokens);
        self.output_tokens = self.output_tokens.saturating_sub(old.output_tokens);
        self.reasoning_tokens = self.reasoning_tokens.saturating_sub(old.reasoning_tokens);
        self.add(new);
    }

    /// Adds another call's tokens.
    pub const fn add(&mut self, other: &Self) {
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.cache_read_tokens = self
            .cache_read_tokens
            .saturating_add(other.cache_read_tokens);
        self.cache_write_5m_tokens = self
            .cache_write_5m_tokens
            .saturating_add(other.cache_write_5m_tokens);
        self.cache_write_1h_tokens = self
            .cache_write_1h_tokens
            .saturating_add(other.cache_write_1h_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.reasoning_tokens = self.reasoning_tokens.saturating_add(other.reasoning_tokens);
    }
}

/// Who says what a call cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CostSource {
    /// The provider's answer.
    Provider,
    /// Reported usage times the price table.
    Table,
    /// The answer was cut before its usage came: an estimate, rounded up.
    Estimate,
    /// Nothing to charge, or no price known and no cap set.
    #[default]
    None,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The terminal event was forwarded.
    Complete,
    /// The agent hung up first; the upstream call was cancelled.
    ClientLeft,
    /// The upstream connection ended before the answer did.
    UpstreamCut,
    /// The provider answered with an error, also inside a 200.
    UpstreamError,
    /// Nothing was forwarded: a cap or limit answered.
    Refused,
    /// The stream was ended here because it would have passed the cap.
    CutAtCap,
}

/// One model call: a line of `generations.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LedgerLine {
    /// When the request's head had arrived.
    pub at: Time,
    /// The proxy's own id of the call, unique in this ledger.
    #[serde(default)]
    pub call: String,
    /// Number of the line, rising over rotations; the `after` of lists.
    #[serde(default)]
    pub seq: u64,
    /// Session that the token belongs to.
    pub session: String,
    /// Kind of agent.
    pub agent: String,
    /// Provider that was (or would have been) called.
    pub provider: String,
    /// Path of the request, without its query.
    pub path: String,
    /// Model of the answer; of the request while no answer names one.
    pub model: Option<String>,
    /// The provider's id of this generation.
    pub generation_id: Option<String>,
    /// The provider's id of the request, for its support; on a WebSocket that of the handshake.
    pub upstream_request_id: Option<String>,
    /// HTTP status that the agent got; none when it left before one was known. On a WebSocket 101, or that of the error.
    pub status: Option<u16>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Request's head to first byte of the answer's body.
    pub ttfb_ms: Option<u64>,
    /// Request's head to the end.
    pub duration_ms: u64,
    /// The provider's word; for responses the final status.
    pub stop_reason: Option<String>,
    /// Tokens.
    pub usage: Usage,
    /// What it cost.
    pub cost_usd: NanoUsd,
    /// Who says so.
    pub cost_source: CostSource,
    /// Calls made upstream for this one.
    pub attempts: u32,
    /// How it ended.
    pub outcome: Outcome,
}

/// Sums over calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Totals {
    /// What the calls cost together.
    pub usd: NanoUsd,
    /// Calls that reached a provider.
    pub requests: u64,
    /// Calls that a cap or limit answered.
    pub refused: u64,
    /// Tokens of all of them.
    #[serde(flatten)]
    pub usage: Usage,
}

impl Totals {
    /// Adds one call.
    pub const fn add(&mut self, line: &LedgerLine) {
        self.usd = NanoUsd(self.usd.0.saturating_add(line.cost_usd.0));
        if matches!(line.outcome, Outcome::Refused) {
            self.refused = self.refused.saturating_add(1);
        } else {
            self.requests = self.requests.saturating_add(1);
        }
        self.usage.add(&line.usage);
    }
}

/// Totals of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionTotals {
    /// Session id.
    pub session: String,
    /// Its sums.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Totals of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelTotals {
    /// Model as the provider named it.
    pub model: String,
    /// Its sums.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Totals of one day (UTC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DayTotals {
    /// `YYYY-MM-DD`.
    pub day: String,
    /// Its sums.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Answer of `GET /v1/spend`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spend {
    /// The cap; absent without one.
    pub budget_usd: Option<NanoUsd>,
    /// What calls in flight may still cost.
    pub reserved_usd: NanoUsd,
    /// Sums over everything.
    #[serde(flatten)]
    pub totals: Totals,
    /// By session.
    pub by_session: Vec<SessionTotals>,
    /// By model.
    pub by_model: Vec<ModelTotals>,
    /// By day.
    pub by_day: Vec<DayTotals>,
}

/// Body of `PUT /v1/budget`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BudgetUpdate {
    /// The new cap; `null` removes it.
    pub usd: Option<NanoUsd>,
}
