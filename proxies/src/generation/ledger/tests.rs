//! Crashes, repair, rotation and sums, on real files.

use std::fs;
use std::time::Duration;

use whim_wire::generation::{CostSource, Usage};

use super::slots::Record;
use super::*;

fn record(call: &str, usd: u64) -> Record<'_> {
    Record {
        call: call.into(),
        at: "2026-11-22T03:04:05.678Z".parse::<Time>().unwrap(),
        session: "main".into(),
        agent: "claude".into(),
        provider: "anthropic".into(),
        path: "/v1/messages".into(),
        model: Some("claude-opus-4-8".into()),
        generation_id: None,
        stream: true,
        reserved_usd: NanoUsd(usd),
        attempts: 1,
        turn: 0,
    }
}

pub(super) fn line(call: &str, usd: u64) -> LedgerLine {
    LedgerLine {
        cost_source: CostSource::Table,
        usage: Usage {
            input_tokens: 10,
            output_tokens: 5,
            ..Usage::default()
        },
        outcome: Outcome::Complete,
        ..record(call, usd).into_line()
    }
}

fn total(ledger: &Ledger) -> u64 {
    ledger.spend(None, NanoUsd::ZERO).totals.usd.0
}

/// Ends the process as far as the ledger is concerned: nothing is settled, nothing flushed.
fn crash(ledger: Ledger) {
    std::mem::forget(ledger);
}

#[tokio::test]
async fn another_ledgers_calls_are_taken_in_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.settle(line("own", 1000), None), 1);
    let mut seen = 0;
    let before: Vec<LedgerLine> = (0..200).map(|n| line(&format!("c{n}"), 1)).collect();
    assert_eq!(
        ledger
            .carry_on(before.clone(), |_| seen += 1)
            .await
            .unwrap(),
        200
    );
    assert_eq!(
        ledger
            .carry_on(before.clone(), |_| seen += 1)
            .await
            .unwrap(),
        0
    );
    assert_eq!(seen, 200);
    assert_eq!(total(&ledger), 1200);
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(total(&ledger), 1200, "what was taken in is on file");
    assert_eq!(ledger.carry_on(before, |_| {}).await.unwrap(), 0);
    assert_eq!(ledger.settle(line("next", 1), None), 202);
}

#[tokio::test]
async fn sums_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    for n in 0..10 {
        let slot = ledger.reserve(&record(&format!("c{n}"), 100)).unwrap();
        assert!(slot.is_some());
        assert_eq!(ledger.settle(line(&format!("c{n}"), n), slot), n + 1);
    }
    ledger.flush().await.unwrap();
    let before = ledger.spend(Some(NanoUsd(7)), NanoUsd(1));
    assert_eq!(before.totals.usd, NanoUsd(45));
    assert_eq!(
        (before.totals.requests, before.totals.usage.input_tokens),
        (10, 100)
    );
    assert_eq!(
        (
            before.by_session.len(),
            before.by_model.len(),
            before.by_day[0].day.as_str()
        ),
        (1, 1, "2026-11-22")
    );
    assert_eq!(ledger.session("main"), before.by_session[0].totals);
    assert_eq!(ledger.session("other"), Totals::default());
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(ledger.spend(Some(NanoUsd(7)), NanoUsd(1)), before);
    assert_eq!(ledger.settle(line("c10", 1), None), 11, "numbers go on");
    let page: Vec<u64> = ledger
        .page(Some(8), 2)
        .unwrap()
        .iter()
        .map(|l| l.seq)
        .collect();
    assert_eq!(page, [9, 10]);
    assert_eq!(ledger.page(None, 1).unwrap()[0].call, "c10");
}

#[tokio::test]
async fn a_kill_mid_call_charges_the_reservation_once() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let mut slot = ledger.reserve(&record("open", 1_000)).unwrap().unwrap();
    ledger
        .update(
            &mut slot,
            &Record {
                generation_id: Some("gen-1".into()),
                ..record("open", 2_000)
            },
        )
        .unwrap();
    let done = ledger.reserve(&record("done", 500)).unwrap();
    ledger.settle(line("done", 30), done);
    ledger.flush().await.unwrap();
    crash(ledger);
    for _ in 0..2 {
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(total(&ledger), 2_030);
        let last = ledger.page(None, 1).unwrap().remove(0);
        assert_eq!(
            (last.call.as_str(), last.outcome, last.cost_source),
            ("open", Outcome::UpstreamCut, CostSource::Estimate)
        );
        assert_eq!(last.generation_id.as_deref(), Some("gen-1"));
        crash(ledger);
    }
}

#[tokio::test]
async fn a_torn_last_line_is_cut_off_and_its_call_still_counts() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.settle(line("whole", 30), None);
    let slot = ledger.reserve(&record("torn", 400)).unwrap();
    assert!(slot.is_some());
    ledger.flush().await.unwrap();
    crash(ledger);
    let path = dir.path().join("generations.jsonl");
    let whole = fs::read(&path).unwrap();
    let torn = serde_json::to_vec(&line("torn", 300)).unwrap();
    for cut in [1, 20, torn.len() - 1, torn.len()] {
        fs::write(&path, [&whole[..], &torn[..cut]].concat()).unwrap();
        let reserved = fs::read(dir.path().join("generations.reserved")).unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(total(&ledger), 430, "cut at {cut}");
        ledger.flush().await.unwrap();
        crash(ledger);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with('\n') && text.lines().count() == 2);
        assert!(
            text.lines()
                .all(|l| serde_json::from_str::<LedgerLine>(l).is_ok())
        );
        fs::write(dir.path().join("generations.reserved"), reserved).unwrap();
    }
}

#[tokio::test]
async fn a_line_on_file_outranks_its_reservation() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let slot = ledger.reserve(&record("c", 400)).unwrap();
    // As if the kill came between the line and the clearing of the slot.
    ledger.settle(line("c", 30), None);
    ledger.flush().await.unwrap();
    assert!(slot.is_some());
    crash(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(total(&ledger), 30);
}

#[test]
fn slots_are_bounded_and_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let mut taken = Vec::new();
    while let Some(slot) = ledger.reserve(&record("c", 1)).unwrap() {
        taken.push(slot);
    }
    assert_eq!(taken.len(), slots::SLOTS);
    ledger.settle(line("c", 1), taken.pop());
    drop(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert!(ledger.reserve(&record("d", 1)).unwrap().is_some());
}

#[tokio::test]
async fn who_finds_no_slot_waits_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let mut taken = Vec::new();
    while let Some(slot) = ledger.reserve(&record("c", 1)).unwrap() {
        taken.push(slot);
    }
    ledger.slots.room(Duration::from_millis(1)).await;
    assert!(ledger.reserve(&record("d", 1)).unwrap().is_none());
    // Longer than any test may take: it is told.
    let waiting = ledger.slots.room(Duration::from_secs(3600));
    let settling = async { ledger.settle(line("c", 1), taken.pop()) };
    tokio::join!(waiting, settling);
    assert!(ledger.reserve(&record("d", 1)).unwrap().is_some());
}

#[test]
fn a_record_fits_whatever_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let evil = "\u{1}\"\\é\n".repeat(1000);
    let record = Record {
        session: evil.as_str().into(),
        agent: "x".repeat(1000).into(),
        provider: evil.as_str().into(),
        path: evil.as_str().into(),
        model: Some("m".repeat(5000).into()),
        generation_id: Some(evil.as_str().into()),
        ..record("c", u64::MAX)
    };
    assert!(ledger.reserve(&record).unwrap().is_some());
    crash(ledger);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(total(&ledger), u64::MAX);
}

#[tokio::test]
async fn sums_outlive_rotated_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generations.jsonl");
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.settle(line("first", 5), None);
    ledger.flush().await.unwrap();
    drop(ledger);
    // Grow the file past its bound with lines that count nothing.
    let filler = LedgerLine {
        stop_reason: Some("x".repeat(64 << 10)),
        ..line("filler", 0)
    };
    let filler = serde_json::to_string(&filler).unwrap() + "\n";
    let mut text = fs::read_to_string(&path).unwrap();
    while (text.len() as u64) < ROTATE {
        text.push_str(&filler);
    }
    fs::write(&path, text).unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.settle(line("second", 7), None);
    ledger.flush().await.unwrap();
    drop(ledger);
    assert!(dir.path().join("generations-1.jsonl").exists());
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    let ledger = Ledger::open(dir.path()).unwrap();
    assert_eq!(total(&ledger), 12);
    drop(ledger);
    fs::remove_file(dir.path().join("generations-1.jsonl")).unwrap();
    assert_eq!(total(&Ledger::open(dir.path()).unwrap()), 12);
    // Without the sums everything on file is summed again.
    fs::remove_file(dir.path().join("generations.totals.json")).unwrap();
    assert_eq!(total(&Ledger::open(dir.path()).unwrap()), 7);
}

#[tokio::test]
async fn a_rotation_that_failed_half_way_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("generations.jsonl");
    let long = LedgerLine {
        stop_reason: Some("x".repeat(17 << 20)),
        ..line("long", 5)
    };
    let ledger = Ledger::open(dir.path()).unwrap();
    ledger.settle(long, None);
    ledger.flush().await.unwrap();
    // As after a try that renamed the file and could not make the next one.
    fs::rename(&path, dir.path().join("generations-1.jsonl")).unwrap();
    ledger.settle(line("next", 7), None);
    ledger.flush().await.unwrap();
    drop(ledger);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
    assert!(!dir.path().join("generations-2.jsonl").exists());
    assert_eq!(total(&Ledger::open(dir.path()).unwrap()), 12);
}

#[tokio::test]
async fn a_provisional_cost_is_replaced_and_not_added() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let slot = ledger.reserve(&record("c", 100)).unwrap();
    let provisional = ledger.settle_provisionally(line("c", 100));
    assert_eq!(total(&ledger), 100);
    let last = LedgerLine {
        cost_usd: NanoUsd(40),
        ..provisional.clone()
    };
    ledger.finish(&provisional, last, slot);
    ledger.flush().await.unwrap();
    assert_eq!(total(&ledger), 40);
    assert_eq!(ledger.page(None, 9).unwrap().len(), 1);
    drop(ledger);
    assert_eq!(total(&Ledger::open(dir.path()).unwrap()), 40);
}

#[tokio::test]
async fn who_follows_by_numbers_misses_no_line_that_came_late() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let late = ledger.settle_provisionally(line("late", 1));
    for n in 0..9 {
        ledger.settle(line(&format!("c{n}"), 1), None);
    }
    ledger.finish(&late, late.clone(), None);
    // Enough for memory not to reach back, so that files are read as well.
    for n in 0..RECENT {
        ledger.settle(line(&format!("d{n}"), 0), None);
    }
    ledger.flush().await.unwrap();
    let (mut after, mut calls) = (0, Vec::new());
    loop {
        let page = ledger.page(Some(after), 4).unwrap();
        let Some(last) = page.last() else { break };
        assert!(last.seq > after);
        after = last.seq;
        calls.extend(page.into_iter().map(|line| line.call));
    }
    assert_eq!(calls.len(), 10 + RECENT);
    assert!(calls.contains(&"late".to_owned()));
    assert_eq!(total(&ledger), 10);
}

#[test]
fn lines_cannot_be_forged() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let forged = "x\"}\n{\"cost_usd\":\"0.00\"}\n\u{2028}\u{1b}[2J";
    ledger.settle(
        LedgerLine {
            generation_id: Some(forged.into()),
            ..line("c", 1)
        },
        None,
    );
    drop(ledger);
    let text = fs::read_to_string(dir.path().join("generations.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn a_torn_reservation_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(dir.path()).unwrap();
    let mut slot = ledger.reserve(&record("c", 100)).unwrap().unwrap();
    for usd in [200, 300] {
        ledger.update(&mut slot, &record("c", usd)).unwrap();
    }
    crash(ledger);
    let path = dir.path().join("generations.reserved");
    let mut bytes = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&bytes[..slots::SIZE]).into_owned();
    assert!(
        text.contains("0.0000003"),
        "the third record stands in the first place: {text}"
    );
    bytes[1] = b'{';
    fs::write(&path, bytes).unwrap();
    assert_eq!(total(&Ledger::open(dir.path()).unwrap()), 200);
}
