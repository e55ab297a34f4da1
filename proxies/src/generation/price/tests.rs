//! Costs against figures worked out by hand.

use super::*;

fn usage(input: u64, read: u64, short: u64, long: u64, output: u64) -> Usage {
    Usage {
        input_tokens: input,
        cache_read_tokens: read,
        cache_write_5m_tokens: short,
        cache_write_1h_tokens: long,
        output_tokens: output,
        reasoning_tokens: 0,
    }
}

fn nano(model: &str, usage: &Usage, terms: Terms<'_>) -> u64 {
    let price = PriceTable::shipped().find(model).expect(model);
    price.cost(usage, terms).ceil_nano().0
}

#[test]
fn every_bucket_has_its_rate() {
    // 34·5 + 1000·0.5 + 150·6.25 + 50·10 + 57·25 = 3532.5 per million.
    let u = usage(34, 1000, 150, 50, 57);
    assert_eq!(nano("claude-opus-4-8", &u, Terms::default()), 3_532_500);
    assert_eq!(
        nano(
            "claude-opus-5-5",
            &usage(0, 1_000_000, 0, 0, 0),
            Terms::default()
        ),
        200_000_000
    );
}

#[test]
fn a_long_prompt_reprices_everything() {
    let at = usage(272_000, 0, 0, 0, 1);
    assert_eq!(nano("gpt-5.5", &at, Terms::default()), 1_360_030_000);
    let above = usage(272_000, 1, 0, 0, 1);
    assert_eq!(
        nano("gpt-5.5", &above, Terms::default()),
        2_720_000_000 + 1_000 + 45_000
    );
}

#[test]
fn service_tiers() {
    let u = usage(1_000_000, 0, 0, 0, 0);
    let with = |tier| {
        nano(
            "gpt-5.5",
            &u,
            Terms {
                tier,
                ..Terms::default()
            },
        )
    };
    let small = |tier| {
        nano(
            "gpt-5.5",
            &usage(1000, 0, 0, 0, 0),
            Terms {
                tier,
                ..Terms::default()
            },
        )
    };
    assert_eq!(small(Some("flex")), 2_500_000);
    assert_eq!(small(Some("priority")), 12_500_000);
    assert_eq!(small(Some("default")), 5_000_000);
    assert_eq!(
        with(Some("flex")),
        5_000_000_000,
        "the tier's own rate above 272k"
    );
    assert_eq!(
        with(Some("priority")),
        12_500_000_000,
        "never below the standard tier above 272k"
    );
}

#[test]
fn multipliers_and_searches() {
    let u = usage(1_000_000, 0, 0, 0, 0);
    let fast = Terms {
        fast: true,
        geo: Some("us"),
        web_searches: 2,
        ..Terms::default()
    };
    assert_eq!(
        nano("claude-opus-4-8", &u, fast),
        11_000_000_000 + 20_000_000
    );
    let elsewhere = Terms {
        geo: Some("global"),
        ..Terms::default()
    };
    assert_eq!(nano("claude-opus-4-8", &u, elsewhere), 5_000_000_000);
}

#[test]
fn missing_cache_rates_are_the_input_rate() {
    let json = r#"{"x":{"input_cost_per_token":1e-6,"output_cost_per_token":2e-6}}"#;
    let price = PriceTable::with_overrides(json)
        .unwrap()
        .find("vendor/x")
        .unwrap();
    assert_eq!(
        price
            .cost(&usage(1, 1, 1, 1, 1), Terms::default())
            .ceil_nano()
            .0,
        6_000
    );
}

#[test]
fn overrides_win_and_unknown_models_have_no_price() {
    let json = r#"{"claude-opus-4-8":{"input_cost_per_token":0.000001,"output_cost_per_token":"2e-6","x":[]}}"#;
    let table = PriceTable::with_overrides(json).unwrap();
    let price = table.find("anthropic/claude-opus-4.8").unwrap();
    assert_eq!(
        price
            .cost(&usage(1, 0, 0, 0, 0), Terms::default())
            .ceil_nano()
            .0,
        1_000
    );
    assert!(
        table.find("gpt-5.5").is_some(),
        "the shipped table is below"
    );
    assert!(table.find("llama-unheard-of").is_none());
    assert!(table.dearest().is_some());
}

#[test]
fn nothing_overflows() {
    let u = usage(u64::MAX, u64::MAX, u64::MAX, u64::MAX, u64::MAX);
    let terms = Terms {
        web_searches: u64::MAX,
        ..Terms::default()
    };
    assert_eq!(nano("claude-opus-4-8", &u, terms), u64::MAX);
}
