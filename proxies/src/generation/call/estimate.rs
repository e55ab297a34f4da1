//! What a call may cost before anything is known of its answer: the model it is priced as, its prompt, its allowance.

use std::sync::Arc;

use whim_wire::generation::Usage;
use whim_wire::money::NanoUsd;

use crate::generation::budget::{ALLOWANCE_TOKENS, Ask, MINIMUM_TOKENS};
use crate::generation::price::ModelPrice;
use crate::generation::proxy::GenerationProxy;
use crate::generation::request::Request;
use crate::generation::session::Session;
use crate::generation::usage::Terms;

/// The dearest of the models that may answer; none if the one asked for has no price.
pub(super) fn dearest(proxy: &GenerationProxy, request: &Request) -> Option<Arc<ModelPrice>> {
    let asked = request
        .model
        .as_deref()
        .or_else(|| request.fallbacks.first().map(String::as_str))?;
    let first = proxy.prices.find(asked)?;
    let others = request
        .fallbacks
        .iter()
        .filter_map(|model| proxy.prices.find(model));
    others
        .chain(std::iter::once(first))
        .max_by_key(|price| price.dearness())
}

/// What output adds to a prompt's cost: its rate depends on the prompt's size and on the terms.
pub(super) fn output_cost(
    price: &ModelPrice,
    prompt: &Usage,
    terms: Terms<'_>,
    tokens: u64,
) -> NanoUsd {
    let with = |output_tokens| {
        let usage = Usage {
            output_tokens,
            ..*prompt
        };
        price.cost(&usage, terms).ceil_nano()
    };
    with(tokens).saturating_sub(with(0))
}

/// What to hold for a request, and the prompt's part of it.
///
/// What the session's last prompt to this model held is taken to be cached for as long as a cache lives; the rest is
/// priced as if it were written to one, which is the dearest that can happen to it.
pub(super) fn estimate(
    proxy: &GenerationProxy,
    session: &Session,
    price: &ModelPrice,
    request: &Request,
) -> (Ask, Usage) {
    let terms = request.terms();
    let tokens = request.estimated_prompt();
    let cached = proxy
        .prompts()
        .cached(&session.id, request.model.as_deref())
        .min(tokens);
    let fresh = tokens - cached;
    let read = Usage {
        cache_read_tokens: cached,
        ..Usage::default()
    };
    let written = if request.one_hour {
        Usage {
            cache_write_1h_tokens: fresh,
            ..read
        }
    } else {
        Usage {
            cache_write_5m_tokens: fresh,
            ..read
        }
    };
    let plain = Usage {
        input_tokens: fresh,
        ..read
    };
    let cost = |prompt: &Usage| price.cost(prompt, terms).ceil_nano();
    let prompt = if cost(&written) > cost(&plain) {
        written
    } else {
        plain
    };
    // A stream is watched and holds more as it grows; an answer in one piece can only be held for in advance.
    let can = price.max_output().map(|limit| request.of_all(limit));
    let most = request.most_output().or(can).unwrap_or(u64::MAX);
    let allowance = if request.warm_up {
        0
    } else if request.stream {
        most.min(ALLOWANCE_TOKENS)
    } else {
        match request.most_output() {
            Some(limit) => limit.min(can.unwrap_or(limit)),
            None => request.of_all(ALLOWANCE_TOKENS),
        }
    };
    // Nobody watches an answer in one piece, so less than all that is held for would be no bound.
    let least = if request.stream {
        allowance.min(MINIMUM_TOKENS)
    } else {
        allowance
    };
    let ask = Ask {
        prompt: cost(&prompt),
        allowance: output_cost(price, &prompt, terms, allowance),
        minimum: output_cost(price, &prompt, terms, least),
    };
    (ask, prompt)
}
