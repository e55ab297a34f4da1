use super::*;
use proptest::prelude::*;

fn port(number: u16) -> Port {
    Port {
        port: number,
        address: "127.0.0.1".parse().unwrap(),
        family: 4,
        dual: false,
        process: None,
        uid: 0,
        session: None,
        since: Time::EPOCH,
        preview: String::new(),
        http: None,
        exposed: false,
        taken_over: false,
    }
}

/// Drives an announcer by milliseconds.
struct Clock {
    start: Instant,
    announcer: Announcer,
}

impl Clock {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            announcer: Announcer::default(),
        }
    }

    fn at(&mut self, ms: u64, changes: &[(PortChange, u16)]) -> Vec<String> {
        let now = self.start + Duration::from_millis(ms);
        let mut notices = self.announcer.due(now);
        let changes = changes
            .iter()
            .map(|(change, number)| (*change, port(*number)))
            .collect();
        notices.extend(self.announcer.push(changes, now));
        notices.iter().map(describe).collect()
    }
}

fn describe(notice: &Notice) -> String {
    match notice {
        Notice::One(change, port) => format!("{change:?} {}", port.port),
        Notice::Many(event) => format!("{} changes, {} listed", event.count, event.ports.len()),
    }
}

use PortChange::{Changed, Closed, Opened};

#[test]
fn the_first_opening_is_announced_at_once_and_so_is_the_first_after_a_calm_life() {
    let mut clock = Clock::new();
    assert_eq!(clock.at(0, &[(Opened, 1)]), ["Opened 1"]);
    assert_eq!(clock.at(500, &[(Closed, 1)]), ["Closed 1"]);
    assert_eq!(clock.at(510, &[(Opened, 1)]), ["Opened 1"]);
}

#[test]
fn a_port_that_closed_within_50_ms_is_announced_again_after_100_ms_open() {
    let mut clock = Clock::new();
    clock.at(0, &[(Opened, 1)]);
    assert_eq!(clock.at(40, &[(Closed, 1)]), ["Closed 1"]);
    assert!(clock.at(50, &[(Opened, 1)]).is_empty());
    assert!(clock.at(60, &[(Changed, 1)]).is_empty());
    assert!(clock.at(149, &[]).is_empty());
    assert_eq!(
        clock.announcer.next(),
        Some(clock.start + Duration::from_millis(150))
    );
    assert_eq!(clock.at(150, &[]), ["Opened 1"]);
    assert_eq!(clock.at(400, &[(Closed, 1)]), ["Closed 1"]);
    assert_eq!(
        clock.at(401, &[(Opened, 1)]),
        ["Opened 1"],
        "a calm life clears its name"
    );
}

#[test]
fn a_held_opening_that_closes_was_never_there() {
    let mut clock = Clock::new();
    clock.at(0, &[(Opened, 1)]);
    clock.at(10, &[(Closed, 1)]);
    for round in 0..5 {
        assert!(clock.at(20 + round * 60, &[(Opened, 1)]).is_empty());
        assert!(clock.at(70 + round * 60, &[(Closed, 1)]).is_empty());
    }
    assert_eq!(clock.announcer.next(), None);
}

#[test]
fn ten_changes_are_ten_events_and_eleven_are_one() {
    let changes =
        |range: std::ops::RangeInclusive<u16>| range.map(|n| (Opened, n)).collect::<Vec<_>>();
    assert_eq!(Clock::new().at(0, &changes(1..=10)).len(), 10);
    assert_eq!(
        Clock::new().at(0, &changes(1..=11)),
        ["11 changes, 11 listed"]
    );
    assert_eq!(
        Clock::new().at(0, &changes(1..=1000)),
        ["1000 changes, 100 listed"]
    );
}

#[test]
fn what_comes_too_fast_one_by_one_is_summed_up_at_the_end_of_the_window() {
    let mut clock = Clock::new();
    for n in 0..10u16 {
        assert_eq!(clock.at(u64::from(n), &[(Opened, n + 1)]).len(), 1);
    }
    for n in 10..40u16 {
        assert!(clock.at(u64::from(n), &[(Opened, n + 1)]).is_empty());
    }
    assert_eq!(clock.announcer.next(), Some(clock.start + WINDOW));
    assert_eq!(clock.at(100, &[]), ["30 changes, 30 listed"]);
    assert!(
        clock.at(120, &[(Opened, 100)]).is_empty(),
        "still in the storm"
    );
    assert_eq!(
        clock.at(200, &[]),
        ["Opened 100"],
        "a lone one has its own event again"
    );
    assert_eq!(clock.at(201, &[(Opened, 101)]), ["Opened 101"]);
}

#[test]
fn what_could_not_be_published_is_kept_in_order_and_counted() {
    let mut clock = Clock::new();
    let now = clock.start;
    let full: Vec<Notice> = (1..=300).map(|n| Notice::One(Opened, port(n))).collect();
    clock.announcer.hold_back(full, now);
    assert_eq!(clock.at(100, &[]), ["300 changes, 100 listed"]);
    let many = Notice::Many(PortsEvent {
        count: 300,
        ports: Vec::new(),
    });
    clock
        .announcer
        .hold_back(vec![many, Notice::One(Opened, port(1))], now + WINDOW);
    assert_eq!(clock.at(200, &[]), ["301 changes, 1 listed"]);
}

#[test]
fn notices_are_events_of_the_stream() {
    let event = Notice::One(Opened, port(3000))
        .draft(Time::EPOCH)
        .unwrap()
        .number(7);
    let json = serde_json::to_value(event).unwrap();
    assert_eq!(
        (&json["type"], &json["port"]["port"]),
        (&"port.opened".into(), &3000.into())
    );
    let many = PortsEvent {
        count: 12,
        ports: vec![PortsEventEntry {
            change: Closed,
            port: port(1),
        }],
    };
    let json =
        serde_json::to_value(Notice::Many(many).draft(Time::EPOCH).unwrap().number(8)).unwrap();
    assert_eq!(
        (&json["type"], &json["count"]),
        (&"ports.changed".into(), &12.into())
    );
    assert_eq!(json["ports"][0]["change"], "closed");
}

proptest! {
    /// However the ports flap: at most eleven messages in any 100 ms, and in the end everybody knows what is open.
    #[test]
    fn bounded_rate_and_a_true_end(steps in proptest::collection::vec((0u64..30, 0u16..30), 1..200)) {
        let mut clock = Clock::new();
        let mut open = std::collections::BTreeSet::new();
        let mut known = std::collections::BTreeSet::new();
        let mut sent: Vec<u64> = Vec::new();
        let mut summed = false;
        let mut now = 0;
        let mut follow = |clock: &mut Clock, now: u64, changes: Vec<(PortChange, Port)>, known: &mut std::collections::BTreeSet<u16>| {
            let at = clock.start + Duration::from_millis(now);
            let mut notices = clock.announcer.due(at);
            notices.extend(clock.announcer.push(changes, at));
            for notice in notices {
                sent.push(now);
                match notice {
                    Notice::One(Opened, port) => { known.insert(port.port); }
                    Notice::One(Closed, port) => { known.remove(&port.port); }
                    Notice::One(Changed, _) => {}
                    Notice::Many(event) => {
                        summed |= event.count > event.ports.len() as u64;
                        for entry in event.ports {
                            if entry.change == Closed { known.remove(&entry.port.port); } else { known.insert(entry.port.port); }
                        }
                    }
                }
            }
        };
        for (wait, number) in steps {
            now += wait;
            let change = if open.remove(&number) { Closed } else { open.insert(number); Opened };
            follow(&mut clock, now, vec![(change, port(number))], &mut known);
        }
        for later in [100, 200, 300] {
            follow(&mut clock, now + later, Vec::new(), &mut known);
        }
        prop_assert!(clock.announcer.next().is_none());
        for (index, at) in sent.iter().enumerate() {
            prop_assert!(sent[index..].iter().take_while(|later| **later < at + 100).count() <= 2 * BURST + 1);
        }
        if !summed {
            prop_assert_eq!(known, open);
        }
    }
}
