use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use serde_json::json;
use tempfile::TempDir;
use whim_wire::event::kind;
use whim_wire::time::Time;

use super::*;

const SECONDS: Duration = Duration::from_secs(20);

fn draft(n: u64) -> Draft {
    Draft::new("test.event", Time::EPOCH, &json!({ "n": n })).unwrap()
}

fn open(directory: &TempDir) -> (Journal, Repair) {
    open_with(directory, Limits::default())
}

fn open_with(directory: &TempDir, limits: Limits) -> (Journal, Repair) {
    Journal::open(&directory.path().join("journal"), limits).unwrap()
}

async fn close(journal: Journal) {
    journal.close(SECONDS).await.unwrap();
}

async fn next(subscription: &mut Subscription) -> Delivery {
    let delivery = tokio::time::timeout(SECONDS, subscription.next()).await;
    delivery.unwrap().unwrap().unwrap()
}

async fn next_seq(subscription: &mut Subscription) -> u64 {
    match next(subscription).await {
        Delivery::Event(entry) => {
            assert_eq!(entry.event().unwrap().seq, entry.seq);
            entry.seq
        }
        missing @ Delivery::Missing { .. } => panic!("{missing:?}"),
    }
}

fn segments(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory.path().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".jsonl"))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_an_earlier_writer_lost_is_told_by_the_next() {
    let directory = TempDir::new().unwrap();
    let (journal, _) = open(&directory);
    journal.append(&draft(1)).unwrap();
    close(journal).await;
    // As a writer leaves it that ended on a full disk.
    std::fs::write(
        directory.path().join("journal/lost"),
        format!("{:020}\n", 7),
    )
    .unwrap();
    let (journal, _) = open(&directory);
    assert_eq!(journal.append(&draft(8)).unwrap(), 8);
    close(journal).await;
    let (journal, _) = open(&directory);
    let told = |journal: &Journal| {
        let entries = journal.page(0, 100).unwrap().entries;
        let gaps = entries
            .iter()
            .filter(|entry| &*entry.kind == kind::JOURNAL_GAP);
        gaps.map(|entry| entry.event().unwrap().fields)
            .collect::<Vec<_>>()
    };
    let gaps = told(&journal);
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(
        (&gaps[0]["first"], &gaps[0]["last"]),
        (&json!(2), &json!(7))
    );
    // Once.
    journal.append(&draft(9)).unwrap();
    close(journal).await;
    let (journal, _) = open(&directory);
    assert_eq!(told(&journal).len(), 1);
}

#[tokio::test]
async fn numbers_go_on_across_restarts() {
    let directory = TempDir::new().unwrap();
    for round in 0..3 {
        let (journal, repair) = open(&directory);
        assert_eq!(
            repair,
            Repair {
                cut_bytes: 0,
                newest: round * 10,
                ..Repair::default()
            }
        );
        for n in 1..=10 {
            assert_eq!(journal.append(&draft(n)).unwrap(), round * 10 + n);
        }
        close(journal).await;
    }
    let (journal, _) = open(&directory);
    let page = journal.page(0, 100).unwrap();
    assert!(page.complete && !page.missing);
    let numbers: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
    let event = page.entries[12].event().unwrap();
    assert_eq!(
        (event.seq, &*event.kind, &event.fields["n"]),
        (13, "test.event", &json!(3))
    );
}

#[tokio::test]
async fn numbers_go_on_after_those_of_another_journal() {
    let directory = TempDir::new().unwrap();
    let (journal, _) = open(&directory);
    assert_eq!(journal.append(&draft(1)).unwrap(), 1);
    journal.go_on_after(100);
    journal.go_on_after(50);
    assert_eq!(journal.append(&draft(2)).unwrap(), 101);
    journal.flush(SECONDS).await.unwrap();
    let page = journal.page(0, 10).unwrap();
    let numbers: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!(numbers, [1, 101]);
    let mut subscription = journal.subscribe(Some(50));
    assert!(matches!(
        next(&mut subscription).await,
        Delivery::Missing { .. }
    ));
    assert_eq!(next_seq(&mut subscription).await, 101);
    close(journal).await;
    let (journal, repair) = open(&directory);
    assert_eq!(repair.newest, 101);
    assert_eq!(journal.append(&draft(3)).unwrap(), 102);
    close(journal).await;
}

#[tokio::test]
async fn a_second_writer_is_refused() {
    let directory = TempDir::new().unwrap();
    let (journal, _) = open(&directory);
    let second = Journal::open(&directory.path().join("journal"), Limits::default());
    assert!(matches!(second, Err(SegmentError::Locked { .. })));
    close(journal).await;
    open(&directory);
}

#[tokio::test]
async fn a_torn_end_is_cut_at_every_byte() {
    let directory = TempDir::new().unwrap();
    let (journal, _) = open(&directory);
    for n in 1..=3 {
        journal.append(&draft(n)).unwrap();
    }
    close(journal).await;
    let path = directory
        .path()
        .join("journal")
        .join(&segments(&directory)[0]);
    let whole = std::fs::read(&path).unwrap();
    let third = whole[..whole.len() - 1]
        .iter()
        .rposition(|b| *b == b'\n')
        .unwrap()
        + 1;
    for length in third..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let (journal, repair) = open(&directory);
        assert_eq!(repair.newest, 2, "cut at {length}");
        assert_eq!(repair.cut_bytes, (length - third) as u64);
        assert_eq!(journal.append(&draft(9)).unwrap(), 3);
        close(journal).await;
        let lines = std::fs::read_to_string(&path).unwrap();
        let numbers: Vec<u64> = lines
            .lines()
            .map(|line| serde_json::from_str::<Event>(line).unwrap().seq)
            .collect();
        assert_eq!(numbers, [1, 2, 3]);
    }
}

#[tokio::test]
async fn garbage_at_the_end_is_cut_and_garbage_inside_is_passed_over() {
    let directory = TempDir::new().unwrap();
    let (journal, _) = open(&directory);
    journal.append(&draft(1)).unwrap();
    close(journal).await;
    let path = directory
        .path()
        .join("journal")
        .join(&segments(&directory)[0]);
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap();
    file.write_all(b"not json\n").unwrap();
    file.write_all(br#"{"seq":2,"at":"1970-01-01T00:00:00.000Z","type":"x"}"#)
        .unwrap();
    file.write_all(b"\n").unwrap();
    // Blocks that were allocated and never written read as zeros after a power cut; here a long line of them.
    file.write_all(&vec![0; MAX_EVENT * 3]).unwrap();
    file.write_all(b"\n").unwrap();
    let (journal, repair) = open(&directory);
    assert_eq!(
        repair,
        Repair {
            cut_bytes: MAX_EVENT as u64 * 3 + 1,
            newest: 2,
            ..Repair::default()
        }
    );
    assert_eq!(journal.append(&draft(3)).unwrap(), 3);
    journal.flush(SECONDS).await.unwrap();
    let page = journal.page(0, 10).unwrap();
    assert_eq!(
        page.entries
            .iter()
            .map(|entry| entry.seq)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[tokio::test]
async fn old_segments_go_and_readers_are_told() {
    let directory = TempDir::new().unwrap();
    let limits = Limits {
        segment_bytes: 1_000,
        segments: 3,
    };
    let (journal, _) = open_with(&directory, limits);
    for n in 1..=200 {
        journal.append(&draft(n)).unwrap();
        if n % 5 == 0 {
            journal.flush(SECONDS).await.unwrap();
        }
    }
    assert_eq!(segments(&directory).len(), 3);
    let first: u64 = segments(&directory)[0]
        .trim_end_matches(".jsonl")
        .parse()
        .unwrap();
    assert!(first > 100, "{first}");
    let mut subscription = journal.subscribe(Some(7));
    assert_eq!(
        next(&mut subscription).await,
        Delivery::Missing {
            first: 8,
            last: first - 1
        }
    );
    for seq in first..=200 {
        assert_eq!(next_seq(&mut subscription).await, seq);
    }
    let page = journal.page(7, 1).unwrap();
    assert!(page.missing && !page.complete);
    assert_eq!(page.entries[0].seq, first);
    // Nothing left but a name: the count goes on.
    close(journal).await;
    let names = segments(&directory);
    for name in &names[..2] {
        std::fs::remove_file(directory.path().join("journal").join(name)).unwrap();
    }
    let last = directory.path().join("journal").join(&names[2]);
    std::fs::write(&last, "").unwrap();
    let (journal, _) = open_with(&directory, limits);
    let expected: u64 = names[2].trim_end_matches(".jsonl").parse().unwrap();
    assert_eq!(journal.append(&draft(1)).unwrap(), expected);
}

#[tokio::test]
async fn the_past_and_the_present_join_without_a_hole() {
    let directory = TempDir::new().unwrap();
    let (journal, _) = open(&directory);
    for n in 1..=100 {
        journal.append(&draft(n)).unwrap();
    }
    journal.flush(SECONDS).await.unwrap();
    let writer = journal.clone();
    let appending = tokio::task::spawn_blocking(move || {
        for n in 101..=3_000 {
            writer.append(&draft(n)).unwrap();
            if n % 50 == 0 {
                std::thread::yield_now();
            }
        }
    });
    let mut readers = Vec::new();
    for after in [0, 1, 77] {
        let mut subscription = journal.subscribe(Some(after));
        readers.push(tokio::spawn(async move {
            for seq in after + 1..=3_000 {
                assert_eq!(next_seq(&mut subscription).await, seq);
            }
        }));
        tokio::task::yield_now().await;
    }
    appending.await.unwrap();
    for reader in readers {
        reader.await.unwrap();
    }
}

#[tokio::test]
async fn a_slow_subscriber_reads_on_from_the_disk() {
    let directory = TempDir::new().unwrap();
    let (journal, _) = open(&directory);
    let mut slow = journal.subscribe(None);
    let many = 5 * MAX_BEHIND as u64;
    for n in 1..=many {
        journal.append(&draft(n)).unwrap();
    }
    journal.flush(SECONDS).await.unwrap();
    for seq in 1..=many {
        assert_eq!(next_seq(&mut slow).await, seq);
    }
    journal.append(&draft(0)).unwrap();
    assert_eq!(next_seq(&mut slow).await, many + 1);
    drop(journal);
    assert!(
        tokio::time::timeout(SECONDS, slow.next())
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn without_a_number_only_what_comes() {
    let directory = TempDir::new().unwrap();
    let (journal, _) = open(&directory);
    journal.append(&draft(1)).unwrap();
    journal.flush(SECONDS).await.unwrap();
    let mut news = journal.subscribe(None);
    let mut future = journal.subscribe(Some(1_000));
    journal.append(&draft(2)).unwrap();
    assert_eq!(next_seq(&mut news).await, 2);
    assert_eq!(next_seq(&mut future).await, 2);
}

#[test]
fn a_full_queue_refuses_without_using_a_number() {
    let queue = Queue::new(1);
    for n in 1..=MAX_QUEUED as u64 {
        assert_eq!(queue.push(&draft(n)).unwrap(), n);
    }
    assert!(matches!(
        queue.push(&draft(0)),
        Err(AppendError::Full { .. })
    ));
    let batch = queue.take().unwrap();
    assert_eq!((batch.entries.len(), batch.dropped), (MAX_QUEUED, 1));
    assert_eq!(queue.push(&draft(0)).unwrap(), MAX_QUEUED as u64 + 1);

    let queue = Queue::new(1);
    let large = Draft::new("large", Time::EPOCH, &json!({ "x": "x".repeat(60_000) })).unwrap();
    let taken = std::iter::repeat_with(|| queue.push(&large))
        .take_while(Result::is_ok)
        .count();
    assert_eq!(taken, MAX_QUEUED_BYTES / 60_100);
}

#[test]
fn dropped_events_are_told() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("journal");
    let (segments, next, _) = Segments::open(&path, Limits::default()).unwrap();
    let queue = Arc::new(Queue::new(next));
    let closer = queue::Closer(Arc::clone(&queue));
    // The writer comes too late.
    while queue.push(&draft(1)).is_ok() {}
    assert!(queue.push(&draft(1)).is_err());
    let (live, _) = broadcast::channel(1);
    let (sender, progress) = watch::channel(Progress::starting_at(next));
    let writer = Writer::new(segments, queue, live, None, sender);
    drop(closer);
    writer.run();
    let newest = progress.borrow().delivered;
    assert_eq!(newest, MAX_QUEUED as u64 + 1);
    let page = segment::read(&path, newest - 1, newest, 10).unwrap();
    let gap = page.entries[0].event().unwrap();
    assert_eq!(&*gap.kind, kind::JOURNAL_GAP);
    assert_eq!(gap.fields["dropped"], json!(2));
}

#[test]
fn too_large_an_event_is_refused() {
    let queue = Queue::new(1);
    let draft = Draft::new("x", Time::EPOCH, &json!({ "x": "x".repeat(MAX_EVENT) })).unwrap();
    assert!(matches!(
        queue.push(&draft),
        Err(AppendError::TooLarge { .. })
    ));
    assert_eq!(queue.push(&super::tests::draft(1)).unwrap(), 1);
}

#[tokio::test]
async fn a_disk_that_refuses_costs_the_past_not_the_present() {
    let directory = TempDir::new().unwrap();
    let limits = Limits {
        segment_bytes: 1,
        segments: 100,
    };
    let (journal, _) = open_with(&directory, limits);
    let mut live = journal.subscribe(None);
    for n in 1..=3 {
        journal.append(&draft(n)).unwrap();
    }
    journal.flush(SECONDS).await.unwrap();
    for seq in 1..=3 {
        assert_eq!(next_seq(&mut live).await, seq);
    }
    // The next segment cannot be made: a directory has its name.
    let block = |seq: u64| {
        directory
            .path()
            .join("journal")
            .join(format!("{seq:020}.jsonl"))
    };
    for seq in 4..=6 {
        std::fs::create_dir(block(seq)).unwrap();
    }
    for seq in 4..=6 {
        assert_eq!(journal.append(&draft(seq)).unwrap(), seq);
        assert!(matches!(
            journal.flush(SECONDS).await,
            Err(FlushError::Lost { .. })
        ));
        assert_eq!(next_seq(&mut live).await, seq);
    }
    for seq in 4..=6 {
        std::fs::remove_dir(block(seq)).unwrap();
    }
    assert_eq!(journal.append(&draft(7)).unwrap(), 7);
    assert_eq!(next_seq(&mut live).await, 7);
    let Delivery::Event(gap) = next(&mut live).await else {
        panic!("no gap is told");
    };
    let gap = gap.event().unwrap();
    assert_eq!(&*gap.kind, kind::JOURNAL_GAP);
    assert_eq!(
        (&gap.fields["first"], &gap.fields["last"]),
        (&json!(4), &json!(6))
    );
    let mut reader = journal.subscribe(Some(3));
    assert_eq!(
        next(&mut reader).await,
        Delivery::Missing { first: 4, last: 6 }
    );
    assert_eq!(next_seq(&mut reader).await, 7);
}

#[tokio::test]
async fn numbers_of_lost_events_are_not_given_again() {
    let directory = TempDir::new().unwrap();
    let limits = Limits {
        segment_bytes: 1,
        segments: 100,
    };
    let (journal, _) = open_with(&directory, limits);
    for n in 1..=3 {
        journal.append(&draft(n)).unwrap();
    }
    journal.flush(SECONDS).await.unwrap();
    let block = directory
        .path()
        .join("journal")
        .join(format!("{:020}.jsonl", 4));
    std::fs::create_dir(&block).unwrap();
    assert_eq!(journal.append(&draft(4)).unwrap(), 4);
    assert!(matches!(
        journal.flush(SECONDS).await,
        Err(FlushError::Lost { .. })
    ));
    std::fs::remove_dir(&block).unwrap();
    close(journal).await;
    let (journal, _) = open_with(&directory, limits);
    assert_eq!(journal.append(&draft(5)).unwrap(), 5);
}

/// Not a test by itself: the process that `a_killed_writer_loses_nothing_that_was_seen` kills.
#[tokio::test]
async fn victim() {
    let Ok(directory) = std::env::var("WHIM_TEST_JOURNAL") else {
        return;
    };
    let (journal, _) = Journal::open(Path::new(&directory), Limits::default()).unwrap();
    let mut subscription = journal.subscribe(None);
    let mut out = std::io::stderr();
    loop {
        for n in 0..7 {
            journal.append(&draft(n)).unwrap();
        }
        for _ in 0..7 {
            writeln!(out, "seen {}", next_seq(&mut subscription).await).unwrap();
        }
    }
}

#[tokio::test]
async fn a_killed_writer_loses_nothing_that_was_seen() {
    let directory = TempDir::new().unwrap();
    let mut newest = 0;
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "journal::tests::victim"])
            .env("WHIM_TEST_JOURNAL", directory.path().join("journal"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut seen = BTreeSet::new();
        for line in lines {
            let line = line.unwrap();
            let number = line
                .strip_prefix("seen ")
                .and_then(|n| n.parse::<u64>().ok());
            if let Some(number) = number {
                assert!(seen.insert(number));
            }
            if seen.len() == 50 + round * 13 {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen.first() > Some(&newest), "a number was given twice");
        let (journal, _) = open(&directory);
        let mut stored = BTreeSet::new();
        let mut after = 0;
        loop {
            let page = journal.page(after, 1_000).unwrap();
            stored.extend(page.entries.iter().map(|entry| entry.seq));
            after = stored.last().copied().unwrap_or(0);
            if page.complete {
                break;
            }
        }
        assert!(seen.is_subset(&stored), "{:?}", seen.difference(&stored));
        newest = after;
        close(journal).await;
    }
}
