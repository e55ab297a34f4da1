//! Token counts as providers report them, and their normal form: disjoint buckets.
//!
//! Anthropic's `input_tokens` leaves cached tokens out; OpenAI's (and OpenRouter's for chat and responses) includes
//! them, and its `output_tokens` includes reasoning. Prices are per bucket, so the overlap has to go first.
//! Sources: Anthropic Messages API `usage`; OpenAI Responses and Chat Completions `usage`; OpenRouter usage accounting.

use whim_wire::generation::Usage;
use whim_wire::money::NanoUsd;

use super::json::{Path, Scalar};
use super::money::AttoUsd;
use super::route::Format;

/// More tokens than any model processes in a call: a count beyond is a fault, not a number.
const CREDIBLE_TOKENS: u64 = 1_000_000_000;
/// More than any one call costs: a cost beyond is a fault, not a price.
const CREDIBLE_COST: NanoUsd = NanoUsd(1_000_000_000_000);

/// The fields of a `usage` object, as far as they were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
    reasoning: Option<u64>,
    cost: Option<NanoUsd>,
    upstream_cost: Option<NanoUsd>,
    byok: bool,
    web_searches: Option<u64>,
    fast: bool,
    geo: Option<String>,
    tier: Option<String>,
}

/// A multiplier's cause or a price tier's name: short, or it is none.
fn label(text: &str) -> Option<String> {
    (!text.is_empty() && text.len() <= 32).then(|| text.to_ascii_lowercase())
}

fn count(value: Scalar<'_>) -> Option<u64> {
    let Scalar::Number(text) = value else {
        return None;
    };
    let whole = text.split_once('.').map_or(text, |(whole, fraction)| {
        if fraction.bytes().all(|b| b == b'0') {
            whole
        } else {
            text
        }
    });
    whole.parse().ok().filter(|&n| n <= CREDIBLE_TOKENS)
}

fn cost(value: Scalar<'_>) -> Option<NanoUsd> {
    let Scalar::Number(text) = value else {
        return None;
    };
    let nano = AttoUsd::parse(text).ok()?.ceil_nano();
    (nano <= CREDIBLE_COST).then_some(nano)
}

impl Reported {
    /// Takes a scalar of a `usage` object that stands at `level` in the path. Values that cannot be true (negative,
    /// absurd, of the wrong type) are passed over.
    pub fn scalar(&mut self, path: &Path, level: usize, value: Scalar<'_>) {
        let keep = |slot: &mut Option<u64>| {
            if let Some(n) = count(value) {
                *slot = Some(n);
            }
        };
        let keep_cost = |slot: &mut Option<NanoUsd>| {
            if let Some(n) = cost(value) {
                *slot = Some(n);
            }
        };
        match (path.key(level), path.key(level + 1), path.len() - level) {
            (b"input_tokens" | b"prompt_tokens", _, 1) => keep(&mut self.input),
            (b"output_tokens" | b"completion_tokens", _, 1) => keep(&mut self.output),
            (b"cache_read_input_tokens", _, 1) => keep(&mut self.cache_read),
            (b"cache_creation_input_tokens", _, 1) => keep(&mut self.cache_write),
            (b"cache_creation", b"ephemeral_5m_input_tokens", 2) => keep(&mut self.cache_write_5m),
            (b"cache_creation", b"ephemeral_1h_input_tokens", 2) => keep(&mut self.cache_write_1h),
            (b"input_tokens_details" | b"prompt_tokens_details", b"cached_tokens", 2) => {
                keep(&mut self.cache_read);
            }
            (b"input_tokens_details" | b"prompt_tokens_details", b"cache_write_tokens", 2) => {
                keep(&mut self.cache_write);
            }
            (
                b"output_tokens_details" | b"completion_tokens_details",
                b"reasoning_tokens" | b"thinking_tokens",
                2,
            ) => keep(&mut self.reasoning),
            (b"server_tool_use", b"web_search_requests", 2) => keep(&mut self.web_searches),
            (b"cost", _, 1) => keep_cost(&mut self.cost),
            (b"cost_details", b"upstream_inference_cost", 2) => keep_cost(&mut self.upstream_cost),
            (b"is_byok", _, 1) => self.byok = value == Scalar::Bool(true),
            (b"speed", _, 1) => self.fast = matches!(value, Scalar::Text("fast", _)),
            (b"inference_geo", _, 1) => {
                if let Scalar::Text(text, _) = value {
                    self.geo = label(text);
                }
            }
            (b"service_tier", _, 1) => {
                if let Scalar::Text(text, _) = value {
                    self.tier = label(text);
                }
            }
            _ => {}
        }
    }

    /// Sets the service tier, which OpenAI reports beside its usage.
    pub fn set_tier(&mut self, text: &str) {
        self.tier = label(text);
    }

    /// Whether nothing was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Takes over what a later event says. Counts are cumulative, so they replace. A zero does not replace a prompt
    /// count: some gateways repeat the prompt's fields as zeros in their last event.
    pub fn update(&mut self, later: Self) {
        let replace = |old: &mut Option<u64>, new: Option<u64>| {
            if new.is_some() {
                *old = new;
            }
        };
        let replace_prompt = |old: &mut Option<u64>, new: Option<u64>| {
            if new.is_some_and(|n| n > 0) || old.is_none() {
                *old = new;
            }
        };
        replace_prompt(&mut self.input, later.input);
        replace_prompt(&mut self.cache_read, later.cache_read);
        replace_prompt(&mut self.cache_write, later.cache_write);
        replace_prompt(&mut self.cache_write_5m, later.cache_write_5m);
        replace_prompt(&mut self.cache_write_1h, later.cache_write_1h);
        replace(&mut self.output, later.output);
        replace(&mut self.reasoning, later.reasoning);
        replace(&mut self.web_searches, later.web_searches);
        self.cost = later.cost.or(self.cost);
        self.upstream_cost = later.upstream_cost.or(self.upstream_cost);
        self.byok |= later.byok;
        self.fast |= later.fast;
        if later.geo.is_some() {
            self.geo = later.geo;
        }
        if later.tier.is_some() {
            self.tier = later.tier;
        }
    }

    /// Output tokens, if they were reported.
    #[must_use]
    pub const fn output(&self) -> Option<u64> {
        self.output
    }

    /// Disjoint buckets; none if neither prompt nor output were reported.
    ///
    /// `one_hour`: the request asked for a cache that lives an hour, so a total without split is priced as that.
    #[must_use]
    pub fn buckets(&self, format: Format, one_hour: bool) -> Option<Usage> {
        if self.input.is_none() && self.output.is_none() {
            return None;
        }
        let read = self.cache_read.unwrap_or(0);
        let long = self.cache_write_1h.unwrap_or(0);
        let short = self.cache_write_5m.unwrap_or(0);
        let unsplit = self
            .cache_write
            .unwrap_or(0)
            .saturating_sub(long.saturating_add(short));
        let (short, long) = if one_hour {
            (short, long.saturating_add(unsplit))
        } else {
            (short.saturating_add(unsplit), long)
        };
        let reported = self.input.unwrap_or(0);
        let input = match format {
            Format::Anthropic => reported,
            Format::Responses | Format::Chat => reported
                .saturating_sub(read)
                .saturating_sub(short)
                .saturating_sub(long),
        };
        Some(Usage {
            input_tokens: input,
            cache_read_tokens: read,
            cache_write_5m_tokens: short,
            cache_write_1h_tokens: long,
            output_tokens: self.output.unwrap_or(0),
            reasoning_tokens: self.reasoning.unwrap_or(0),
        })
    }

    /// What the provider says that the call cost: with one's own key at the upstream, its share is added.
    #[must_use]
    pub fn provider_cost(&self) -> Option<NanoUsd> {
        let upstream = if self.byok { self.upstream_cost } else { None };
        self.cost
            .map(|cost| cost.saturating_add(upstream.unwrap_or_default()))
    }

    /// What changes the price beside the counts.
    #[must_use]
    pub fn terms(&self) -> Terms<'_> {
        Terms {
            tier: self.tier.as_deref(),
            fast: self.fast,
            geo: self.geo.as_deref(),
            web_searches: self.web_searches.unwrap_or(0),
        }
    }
}

/// What changes a call's price beside its token counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms<'a> {
    /// Service tier (`flex`, `priority`, …).
    pub tier: Option<&'a str>,
    /// Anthropic's fast mode.
    pub fast: bool,
    /// Region that inference was bound to.
    pub geo: Option<&'a str>,
    /// Searches that the provider made, each at a price.
    pub web_searches: u64,
}

#[cfg(test)]
mod tests {
    use super::super::json::{Reader, Visit};
    use super::*;

    struct Root(Reported);

    impl Visit for Root {
        fn scalar(&mut self, path: &Path, value: Scalar<'_>) {
            self.0.scalar(path, 0, value);
        }
    }

    fn reported(json: &str) -> Reported {
        let (mut reader, mut root) = (Reader::default(), Root(Reported::default()));
        reader.feed(json.as_bytes(), &mut root);
        assert!(reader.done(), "{json}");
        root.0
    }

    fn buckets(format: Format, one_hour: bool, json: &str) -> [u64; 6] {
        let u = reported(json).buckets(format, one_hour).unwrap();
        [
            u.input_tokens,
            u.cache_read_tokens,
            u.cache_write_5m_tokens,
            u.cache_write_1h_tokens,
            u.output_tokens,
            u.reasoning_tokens,
        ]
    }

    #[test]
    fn buckets_are_disjoint() {
        use Format::{Anthropic, Chat, Responses};
        let split = r#"{"input_tokens":10,"cache_read_input_tokens":20,"cache_creation_input_tokens":7,
            "cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":4},"output_tokens":5}"#;
        assert_eq!(buckets(Anthropic, false, split), [10, 20, 3, 4, 5, 0]);
        let total = r#"{"input_tokens":10,"cache_creation_input_tokens":7,"output_tokens":5}"#;
        assert_eq!(buckets(Anthropic, false, total), [10, 0, 7, 0, 5, 0]);
        assert_eq!(buckets(Anthropic, true, total), [10, 0, 0, 7, 5, 0]);
        let responses = r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":60,"cache_write_tokens":15},
            "output_tokens":9,"output_tokens_details":{"reasoning_tokens":4}}"#;
        assert_eq!(buckets(Responses, false, responses), [25, 60, 15, 0, 9, 4]);
        let chat = r#"{"prompt_tokens":100,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":60}}"#;
        assert_eq!(buckets(Chat, false, chat), [40, 60, 0, 0, 9, 0]);
        let more_cached = r#"{"prompt_tokens":10,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":60}}"#;
        assert_eq!(buckets(Chat, false, more_cached), [0, 60, 0, 0, 1, 0]);
    }

    #[test]
    fn what_cannot_be_true_is_passed_over() {
        let r =
            reported(r#"{"input_tokens":18446744073709551615,"output_tokens":-5,"cost":1e308}"#);
        assert_eq!(r.buckets(Format::Anthropic, false), None);
        assert_eq!(r.provider_cost(), None);
        for cost in ["-0.5", "\"0.5\"", "null", "true", "1e4"] {
            let r = reported(&format!("{{\"cost\":{cost}}}"));
            assert_eq!(r.provider_cost(), None, "{cost}");
        }
    }

    #[test]
    fn own_key_at_the_upstream_adds_its_share() {
        let json =
            r#"{"cost":0.0005,"is_byok":true,"cost_details":{"upstream_inference_cost":0.01}}"#;
        assert_eq!(reported(json).provider_cost(), Some(NanoUsd(10_500_000)));
        let json =
            r#"{"cost":0.0005,"is_byok":false,"cost_details":{"upstream_inference_cost":0.01}}"#;
        assert_eq!(reported(json).provider_cost(), Some(NanoUsd(500_000)));
    }

    #[test]
    fn later_counts_replace_and_zeros_keep_the_prompt() {
        let mut r =
            reported(r#"{"input_tokens":100,"cache_read_input_tokens":50,"output_tokens":1}"#);
        r.update(reported(
            r#"{"input_tokens":0,"cache_read_input_tokens":0,"output_tokens":57}"#,
        ));
        let u = r.buckets(Format::Anthropic, false).unwrap();
        assert_eq!(
            (u.input_tokens, u.cache_read_tokens, u.output_tokens),
            (100, 50, 57)
        );
    }
}
