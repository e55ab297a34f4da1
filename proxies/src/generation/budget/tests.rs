//! Admission, holds, settlement and warnings.

use super::*;
use proptest::prelude::*;

fn ask(prompt: u64, allowance: u64, minimum: u64) -> Ask {
    Ask {
        prompt: NanoUsd(prompt),
        allowance: NanoUsd(allowance),
        minimum: NanoUsd(minimum),
    }
}

fn capped(usd: u64) -> Budget {
    Budget::new(
        Caps {
            usd: Some(NanoUsd(usd)),
            ..Caps::default()
        },
        NanoUsd::ZERO,
        0,
    )
}

#[test]
fn two_hundred_at_once_with_money_for_three() {
    let mut budget = capped(350);
    let now = Instant::now();
    let admitted = (0..200).filter_map(|_| budget.admit(ask(40, 60, 10), now).ok());
    assert_eq!(admitted.count(), 3);
}

#[test]
fn the_last_cents_serve_one_call_alone() {
    let mut budget = capped(50);
    let now = Instant::now();
    let hold = budget.admit(ask(10, 100, 20), now).unwrap();
    assert_eq!(hold.amount(), NanoUsd(50));
    assert!(budget.admit(ask(0, 1, 1), now).is_err(), "not two");
    assert_eq!(
        budget.settle(hold, NanoUsd(25), 0).map(|w| w.percent),
        Some(50)
    );
    assert!(
        budget.admit(ask(10, 100, 20), now).is_err(),
        "25 left, 30 needed"
    );
    assert!(budget.admit(ask(5, 100, 20), now).is_ok());
}

#[test]
fn a_hold_grows_only_into_free_money() {
    let mut budget = capped(100);
    let now = Instant::now();
    let mut a = budget.admit(ask(10, 30, 5), now).unwrap();
    let b = budget.admit(ask(10, 30, 5), now).unwrap();
    assert!(budget.adjust(&mut a, NanoUsd(60)).is_ok());
    assert!(budget.adjust(&mut a, NanoUsd(61)).is_err());
    assert_eq!(a.amount(), NanoUsd(60));
    assert!(budget.adjust(&mut a, NanoUsd(20)).is_ok());
    budget.set_cap(Some(NanoUsd(200)));
    assert!(
        budget.adjust(&mut a, NanoUsd(160)).is_ok(),
        "raised while running"
    );
    assert_eq!(budget.settle(b, NanoUsd(0), 0), None);
    assert!(budget.settle(a, NanoUsd(160), 0).is_some());
    assert_eq!(
        budget.state(),
        (Some(NanoUsd(200)), NanoUsd(160), NanoUsd(0))
    );
}

#[test]
fn warnings_come_once_and_again_after_a_raise() {
    let mut budget = capped(100);
    let now = Instant::now();
    let spend = |budget: &mut Budget, cost| {
        let hold = budget.admit(ask(0, 1, 1), now).unwrap();
        budget.settle(hold, NanoUsd(cost), 0).map(|w| w.percent)
    };
    assert_eq!(spend(&mut budget, 49), None);
    assert_eq!(spend(&mut budget, 1), Some(50));
    assert_eq!(spend(&mut budget, 1), None);
    assert_eq!(spend(&mut budget, 45), Some(95));
    budget.set_cap(Some(NanoUsd(1000)));
    assert_eq!(spend(&mut budget, 404), Some(50));
}

#[test]
fn other_caps() {
    let now = Instant::now();
    let caps = Caps {
        requests_per_minute: Some(2),
        ..Caps::default()
    };
    let mut budget = Budget::new(caps, NanoUsd::ZERO, 0);
    for _ in 0..2 {
        let hold = budget.admit(ask(1, 1, 1), now).unwrap();
        assert_eq!(budget.settle(hold, NanoUsd(1), 1), None);
    }
    let denied = budget
        .admit(ask(1, 1, 1), now + Duration::from_secs(20))
        .unwrap_err();
    assert_eq!(
        denied,
        Denied::Rate {
            cap: 2,
            retry_after: 41
        }
    );
    assert!(
        budget
            .admit(ask(1, 1, 1), now + Duration::from_secs(60))
            .is_ok()
    );

    let mut budget = Budget::new(
        Caps {
            tokens: Some(10),
            ..Caps::default()
        },
        NanoUsd::ZERO,
        10,
    );
    assert!(matches!(
        budget.admit(ask(1, 1, 1), now),
        Err(Denied::Tokens { .. })
    ));

    let mut budget = Budget::new(
        Caps {
            wall: Some(Duration::from_secs(60)),
            ..Caps::default()
        },
        NanoUsd::ZERO,
        0,
    );
    assert!(budget.admit(ask(1, 1, 1), now).is_ok());
    let later = now + Duration::from_secs(60);
    assert!(matches!(
        budget.admit(ask(1, 1, 1), later),
        Err(Denied::Time { .. })
    ));
}

#[test]
fn the_sentence_names_cap_spend_and_remedy() {
    let denied = Denied::Money {
        cap: NanoUsd(5_000_000_000),
        spent: NanoUsd(4_990_000_000),
        held: NanoUsd(0),
    };
    let message = denied.message();
    for part in [
        "$5.00",
        "$4.99",
        "PUT /v1/budget {\"usd\":\"10.00\"}",
        "--budget-usd",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

proptest! {
    /// Whatever calls come and go, what is held and spent never passes the cap, if calls cost what they hold.
    #[test]
    fn holds_never_pass_the_cap(cap in 0u64..10_000, steps: Vec<(u8, u16, u16)>) {
        let mut budget = capped(cap);
        let now = Instant::now();
        let mut holds = Vec::new();
        for (what, a, b) in steps {
            let (a, b) = (u64::from(a) % 500, u64::from(b) % 500);
            match what % 3 {
                0 => holds.extend(budget.admit(ask(a, b, 1), now).ok()),
                1 => if let Some(hold) = holds.last_mut() {
                    let _refused = budget.adjust(hold, NanoUsd(a + b));
                },
                _ => if let Some(hold) = holds.pop() {
                    let cost = hold.amount();
                    let _told = budget.settle(hold, cost, 0);
                },
            }
            let (_, spent, held) = budget.state();
            prop_assert!(spent.0 + held.0 <= cap);
            prop_assert_eq!(held.0, holds.iter().map(|h| h.amount().0).sum::<u64>());
        }
    }
}
