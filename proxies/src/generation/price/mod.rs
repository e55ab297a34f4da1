//! What a call costs: rates from data, by model, prompt size and service tier.
//!
//! Owns the table that ships with the program and the user's overrides, both in LiteLLM's schema (USD per token).
//! Promises: no rate is written in code; sums are exact and rounded up once; a model without a price is said to have
//! none and never counts as free by accident. A rate that a tier leaves out is the base tier's; a cache rate that a
//! model leaves out is its input rate, which is the dearer assumption for reads.

mod names;
mod table;

use std::collections::{BTreeMap, HashMap};

use whim_wire::generation::Usage;

use super::money::{AttoUsd, Multiplier};
use super::usage::Terms;

pub use table::{PriceTable, TableError};

/// Rates of one tier, per token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rates {
    input: Option<AttoUsd>,
    output: Option<AttoUsd>,
    cache_read: Option<AttoUsd>,
    cache_write_5m: Option<AttoUsd>,
    cache_write_1h: Option<AttoUsd>,
}

/// Rates by the prompt tokens above which they price the whole request.
type Tiers = BTreeMap<u64, Rates>;

/// Prices of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelPrice {
    standard: Tiers,
    /// Those of other service tiers, by name.
    services: HashMap<String, Tiers>,
    multipliers: Vec<(String, Multiplier)>,
    per_search: AttoUsd,
    max_output: Option<u64>,
}

impl ModelPrice {
    /// Output tokens that one call may produce at most, where the table says so.
    #[must_use]
    pub const fn max_output(&self) -> Option<u64> {
        self.max_output
    }

    /// The exact cost of these tokens on these terms.
    #[must_use]
    pub fn cost(&self, usage: &Usage, terms: Terms<'_>) -> AttoUsd {
        let prompt = usage.prompt_tokens();
        let served = terms.tier.and_then(|tier| self.services.get(tier));
        let rate = |field| self.rate(prompt, served, field);
        let input = rate(|r| r.input).unwrap_or_default();
        let write = rate(|r| r.cache_write_5m).unwrap_or(input);
        let tokens = input
            .times(usage.input_tokens)
            .plus(
                rate(|r| r.cache_read)
                    .unwrap_or(input)
                    .times(usage.cache_read_tokens),
            )
            .plus(write.times(usage.cache_write_5m_tokens))
            .plus(
                rate(|r| r.cache_write_1h)
                    .unwrap_or(write)
                    .times(usage.cache_write_1h_tokens),
            )
            .plus(
                rate(|r| r.output)
                    .unwrap_or_default()
                    .times(usage.output_tokens),
            );
        let speed = if terms.fast {
            self.multiplier("fast")
        } else {
            Multiplier::ONE
        };
        let region = terms
            .geo
            .map_or(Multiplier::ONE, |geo| self.multiplier(geo));
        tokens
            .scaled(speed)
            .scaled(region)
            .plus(self.per_search.times(terms.web_searches))
    }

    /// The rate for a prompt of this size: of the tiers it exceeds the highest that has one, of those of the service
    /// tier if any has, of the standard ones otherwise.
    fn rate(
        &self,
        prompt: u64,
        served: Option<&Tiers>,
        field: fn(&Rates) -> Option<AttoUsd>,
    ) -> Option<AttoUsd> {
        let at = |tiers: &Tiers| {
            let exceeded = |above: u64| above == 0 || prompt > above;
            let mut highest = tiers.iter().rev().filter(|(above, _)| exceeded(**above));
            highest.find_map(|(above, rates)| field(rates).map(|rate| (*above, rate)))
        };
        match (at(&self.standard), served.and_then(at)) {
            // A service tier without a rate for long prompts does not make them cheaper than the standard tier's.
            (Some((above, standard)), Some((served_above, served))) if served_above < above => {
                Some(standard.max(served))
            }
            (_, Some((_, served))) => Some(served),
            (standard, None) => standard.map(|(_, rate)| rate),
        }
    }

    fn multiplier(&self, name: &str) -> Multiplier {
        let found = self.multipliers.iter().find(|(known, _)| known == name);
        found.map_or(Multiplier::ONE, |(_, by)| *by)
    }

    /// How dear this model is, to find the dearest: the output rate, then the input rate, at their highest tier.
    pub(super) fn dearness(&self) -> (AttoUsd, AttoUsd) {
        let highest = |field: fn(&Rates) -> Option<AttoUsd>| {
            self.standard
                .values()
                .filter_map(field)
                .max()
                .unwrap_or_default()
        };
        (highest(|r| r.output), highest(|r| r.input))
    }
}

#[cfg(test)]
mod tests;
