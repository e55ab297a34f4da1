//! Ten thousand random usages against a calculator that shares nothing with the program but the table's file.
//!
//! It works on decimal strings and schoolbook arithmetic over digits, takes the rates from the JSON by itself, and
//! reads no code of `price`, `usage` or `money`.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use whim_proxies::generation::PriceTable;
use whim_proxies::generation::route::Format;
use whim_proxies::generation::tap::Tap;

const TABLE: &str = include_str!("../../data/prices.json");

/// A decimal as an integer of 10⁻¹⁸, read digit by digit.
fn scaled(text: &str) -> u128 {
    let (digits, exponent) = match text.to_lowercase().split_once('e') {
        Some((digits, exponent)) => (digits.to_owned(), exponent.parse::<i32>().unwrap()),
        None => (text.to_owned(), 0),
    };
    let point = digits.find('.').unwrap_or(digits.len());
    let whole = digits.replace('.', "");
    let places = i32::try_from(whole.len() - point).unwrap() - exponent;
    let mut value: u128 = whole.parse().unwrap();
    for _ in places..18 {
        value *= 10;
    }
    value
}

fn rate(model: &Value, keys: &[String]) -> Option<u128> {
    keys.iter()
        .find_map(|key| model.get(key))
        .map(|value| scaled(&value.to_string()))
}

/// The dollars of one call in nano-dollars, rounded up once.
fn reference(model: &Value, buckets: [u64; 5]) -> u64 {
    let prompt: u64 = buckets[..4].iter().sum();
    let mut tiers: Vec<u64> = model
        .as_object()
        .unwrap()
        .keys()
        .filter_map(|key| {
            key.split_once("_above_")?
                .1
                .strip_suffix("k_tokens")?
                .rsplit('_')
                .next()?
                .parse()
                .ok()
        })
        .filter(|thousands| prompt > thousands * 1000)
        .collect();
    tiers.sort_unstable();
    tiers.reverse();
    let keys = |base: &str| -> Vec<String> {
        let tiered = tiers
            .iter()
            .map(|thousands| format!("{base}_above_{thousands}k_tokens"));
        tiered.chain([base.to_owned()]).collect()
    };
    let input = rate(model, &keys("input_cost_per_token")).unwrap();
    let output = rate(model, &keys("output_cost_per_token")).unwrap();
    let read = rate(model, &keys("cache_read_input_token_cost")).unwrap_or(input);
    let short = rate(model, &keys("cache_creation_input_token_cost")).unwrap_or(input);
    let long = rate(model, &keys("cache_creation_input_token_cost_above_1hr")).unwrap_or(short);
    let sum: u128 = [input, read, short, long, output]
        .iter()
        .zip(buckets)
        .map(|(r, n)| r * u128::from(n))
        .sum();
    u64::try_from(sum.div_ceil(1_000_000_000)).unwrap()
}

#[test]
fn no_nano_dollar_is_off() {
    let table: serde_json::Map<String, Value> = serde_json::from_str(TABLE).unwrap();
    let models: Vec<(String, Value)> = table
        .into_iter()
        .filter(|(name, _)| !name.starts_with('_'))
        .collect();
    let prices = PriceTable::shipped();
    let tokens = prop_oneof![0u64..10, 0u64..5_000, 0u64..400_000];
    let strategy = (
        prop::sample::select(models),
        prop::collection::vec(tokens, 5),
        0usize..3,
        0u64..4_000,
    );
    let mut runner = TestRunner::new(Config {
        cases: 10_000,
        failure_persistence: None,
        ..Config::default()
    });
    let checked = runner.run(&strategy, |((name, model), n, format, split)| {
        let (input, read, short, long, output) = (n[0], n[1], n[2], n[3], n[4]);
        let (format, body, buckets) = match format {
            0 => (
                Format::Anthropic,
                format!(
                    "{{\"model\":\"{name}\",\"usage\":{{\"input_tokens\":{input},\"cache_read_input_tokens\":{read},\
                     \"cache_creation_input_tokens\":{},\"cache_creation\":{{\"ephemeral_5m_input_tokens\":{short},\
                     \"ephemeral_1h_input_tokens\":{long}}},\"output_tokens\":{output}}}}}",
                    short + long
                ),
                [input, read, short, long, output],
            ),
            1 => (
                Format::Responses,
                format!(
                    "{{\"model\":\"{name}\",\"usage\":{{\"input_tokens\":{},\"input_tokens_details\":{{\
                     \"cached_tokens\":{read},\"cache_write_tokens\":{short}}},\"output_tokens\":{output}}}}}",
                    input + read + short
                ),
                [input, read, short, 0, output],
            ),
            _ => (
                Format::Chat,
                format!(
                    "data: {{\"model\":\"{name}\",\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{output},\
                     \"prompt_tokens_details\":{{\"cached_tokens\":{read},\"cache_write_tokens\":{short}}}}}}}\n\n",
                    input + read + short
                ),
                [input, read, short, 0, output],
            ),
        };
        let mut tap = Tap::new(format);
        let at = usize::try_from(split).unwrap() % body.len();
        tap.feed(&body.as_bytes()[..at]);
        tap.feed(&body.as_bytes()[at..]);
        let answer = tap.answer();
        let usage = answer.usage(format, false).unwrap();
        let price = prices.find(answer.model.as_deref().unwrap()).unwrap();
        let cost = price.cost(&usage, answer.reported.terms()).ceil_nano();
        prop_assert_eq!(cost.0, reference(&model, buckets), "{}", body);
        Ok(())
    });
    checked.unwrap();
}
