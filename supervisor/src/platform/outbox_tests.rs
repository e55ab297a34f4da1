use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn event(seq: u64, filling: usize) -> Delivery {
    Delivery::Event(Arc::new(Entry {
        seq,
        kind: "x".into(),
        json: format!(
            r#"{{"seq":{seq},"type":"x","f":"{}"}}"#,
            "f".repeat(filling)
        )
        .into(),
    }))
}

fn outbox(events: impl IntoIterator<Item = u64>) -> Outbox {
    let mut outbox = Outbox::new("s".into(), 0);
    for seq in events {
        outbox.push(event(seq, 0));
    }
    outbox
}

fn parsed(batch: &Batch) -> Value {
    serde_json::from_slice(&batch.body).unwrap()
}

/// Every number of a batch, in order; panics if one is twice there or absent.
fn numbers(batch: &Batch) -> Vec<u64> {
    let batch = parsed(batch);
    let mut all: Vec<u64> = batch["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    for range in batch["missing"].as_array().into_iter().flatten() {
        all.extend(range["first"].as_u64().unwrap()..=range["last"].as_u64().unwrap());
    }
    all.sort_unstable();
    let whole: Vec<u64> =
        (batch["first"].as_u64().unwrap()..=batch["last"].as_u64().unwrap()).collect();
    assert_eq!(all, whole, "{batch}");
    all
}

#[test]
fn a_batch_is_the_same_until_it_is_answered() {
    let mut outbox = outbox(1..=3);
    let first = outbox.batch().unwrap();
    assert_eq!(outbox.batch().unwrap(), first);
    assert_eq!(numbers(&first), [1, 2, 3]);
    assert_eq!(outbox.taken(&first, Some(3)), Next::GoOn);
    assert_eq!(outbox.acknowledged(), 3);
    assert!(outbox.batch().is_none() && outbox.is_empty());
}

#[test]
fn an_answer_may_name_less_or_nothing() {
    let mut outbox = outbox(1..=4);
    let batch = outbox.batch().unwrap();
    assert_eq!(outbox.taken(&batch, Some(2)), Next::GoOn);
    let batch = outbox.batch().unwrap();
    assert_eq!(numbers(&batch), [3, 4]);
    assert_eq!(outbox.taken(&batch, None), Next::GoOn);
    assert_eq!(outbox.acknowledged(), 4);
}

#[test]
fn an_answer_cannot_acknowledge_what_was_not_sent() {
    let mut outbox = outbox(1..=2);
    let batch = outbox.batch().unwrap();
    outbox.push(event(3, 0));
    assert_eq!(outbox.taken(&batch, Some(99)), Next::GoOn);
    assert_eq!(outbox.acknowledged(), 2);
    assert_eq!(numbers(&outbox.batch().unwrap()), [3]);
}

#[test]
fn an_answer_that_takes_nothing_is_no_progress() {
    let mut outbox = outbox(1..=2);
    let batch = outbox.batch().unwrap();
    assert_eq!(outbox.taken(&batch, Some(0)), Next::Confused);
    assert_eq!(outbox.batch().unwrap(), batch);
}

#[test]
fn a_platform_that_lost_something_gets_it_again() {
    let mut outbox = Outbox::new("s".into(), 10);
    outbox.push(event(11, 0));
    assert_eq!(outbox.conflict(4, 11), Next::ReadAgain { after: 4 });
    // What the journal does not have any more is named.
    outbox.push(Delivery::Missing { first: 5, last: 8 });
    outbox.push(event(9, 0));
    let batch = outbox.batch().unwrap();
    assert_eq!(numbers(&batch), [5, 6, 7, 8, 9]);
    assert_eq!(parsed(&batch)["missing"][0]["last"], 8);
    assert_eq!(outbox.lost(), 4);
}

#[test]
fn a_platform_that_has_more_than_we_know_is_believed_up_to_the_journal() {
    let mut outbox = outbox(1..=3);
    assert_eq!(outbox.conflict(2, 50), Next::GoOn);
    assert_eq!(numbers(&outbox.batch().unwrap()), [3]);
    assert_eq!(outbox.conflict(40, 50), Next::ReadAgain { after: 40 });
    assert_eq!(outbox.conflict(51, 50), Next::Confused);
    assert_eq!(outbox.conflict(40, 50), Next::Confused);
}

#[test]
fn what_nobody_takes_is_found_by_halving_and_left_out() {
    let mut outbox = outbox(1..=8);
    let poison = 5;
    let mut delivered = Vec::new();
    let mut calls = 0;
    while let Some(batch) = outbox.batch() {
        calls += 1;
        assert!(calls < 40);
        let sent: Vec<u64> = parsed(&batch)["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["seq"].as_u64().unwrap())
            .collect();
        if sent.contains(&poison) {
            assert!(outbox.refused());
        } else {
            numbers(&batch);
            delivered.extend(sent);
            outbox.taken(&batch, None);
        }
    }
    assert_eq!(delivered, [1, 2, 3, 4, 6, 7, 8]);
    assert_eq!((outbox.acknowledged(), outbox.lost()), (8, 1));
}

#[test]
fn a_refused_gap_is_not_refused_for_ever() {
    let mut outbox = Outbox::new("s".into(), 0);
    outbox.push(Delivery::Missing { first: 1, last: 9 });
    assert!(!outbox.refused());
    assert!(outbox.batch().is_some());
}

#[test]
fn batches_and_memory_are_bounded() {
    let mut outbox = Outbox::new("s".into(), 0);
    let mut seq = 0;
    while outbox.has_room() {
        seq += 1;
        outbox.push(event(seq, 60_000));
    }
    assert!(seq < 40);
    assert!(outbox.batch().unwrap().body.len() <= BATCH_BYTES);
    let mut outbox = Outbox::new("s".into(), 0);
    let mut pushed = 0;
    for seq in 1.. {
        if !outbox.has_room() {
            break;
        }
        outbox.push(event(seq, 0));
        pushed += 1;
    }
    assert_eq!(pushed, HELD);
    assert_eq!(numbers(&outbox.batch().unwrap()).len(), BATCH_EVENTS);
}

#[test]
fn what_was_seen_already_is_passed_over() {
    let mut outbox = Outbox::new("s".into(), 5);
    outbox.push(event(5, 0));
    outbox.push(Delivery::Missing { first: 3, last: 7 });
    outbox.push(event(7, 0));
    outbox.push(event(8, 0));
    assert_eq!(numbers(&outbox.batch().unwrap()), [6, 7, 8]);
}

proptest! {
    /// Whatever the platform answers, every number is delivered or named, in order, and none is passed over.
    #[test]
    fn nothing_is_passed_over(
        events in proptest::collection::vec((any::<bool>(), 1u64..4), 1..40),
        answers in proptest::collection::vec(0u8..5, 0..200),
    ) {
        let mut outbox = Outbox::new("s".into(), 0);
        let mut newest = 0;
        for (present, length) in events {
            if present {
                newest += 1;
                outbox.push(event(newest, 0));
            } else {
                outbox.push(Delivery::Missing { first: newest + 1, last: newest + length });
                newest += length;
            }
        }
        let mut durable = 0;
        let mut answers = answers.into_iter();
        let mut calls = 0;
        while let Some(batch) = outbox.batch() {
            calls += 1;
            prop_assert!(calls < 2000);
            numbers(&batch);
            prop_assert_eq!(batch.first, outbox.acknowledged() + 1);
            prop_assert!(batch.first <= durable + 1, "a gap");
            match answers.next() {
                // Lost on the way there.
                Some(0) => {}
                // Taken, and the answer was lost.
                Some(1) => durable = durable.max(batch.last),
                Some(2) => drop(outbox.refused()),
                Some(3) => {
                    durable = durable.max(batch.first);
                    outbox.taken(&batch, Some(batch.first));
                }
                _ => {
                    durable = durable.max(batch.last);
                    outbox.taken(&batch, Some(durable));
                }
            }
        }
        prop_assert_eq!(outbox.acknowledged(), newest);
    }
}
