//! Whatever happens in whatever order.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Move {
    Push(u8),
    View(Activity, bool),
    Written,
    Output,
    Submitted(u8),
    Generation,
    Ended(bool),
    Interrupted,
    Human(bool),
    HumanSubmitted,
    Gone(bool),
    Interrupt,
    Deadline,
    Pass(u64),
}

fn any_move() -> impl Strategy<Value = Move> {
    let activity = prop_oneof![
        Just(Activity::Starting),
        Just(Activity::Idle),
        Just(Activity::Idle),
        Just(Activity::Working),
        Just(Activity::Dialog)
    ];
    prop_oneof![
        (0..4_u8).prop_map(Move::Push),
        (activity, prop::bool::weighted(0.9))
            .prop_map(|(activity, paste)| Move::View(activity, paste)),
        Just(Move::Written),
        Just(Move::Written),
        Just(Move::Output),
        (0..4_u8).prop_map(Move::Submitted),
        Just(Move::Generation),
        any::<bool>().prop_map(Move::Ended),
        Just(Move::Interrupted),
        any::<bool>().prop_map(Move::Human),
        Just(Move::HumanSubmitted),
        any::<bool>().prop_map(Move::Gone),
        Just(Move::Interrupt),
        Just(Move::Deadline),
        Just(Move::Deadline),
        (0..20_000_u64).prop_map(Move::Pass),
    ]
}

proptest! {
    /// Whatever happens: every prompt's story is told in order and ends once, Enter never goes into a dialog, and a
    /// deadline that has passed does not come again.
    #[test]
    fn stories_stay_in_order(moves in prop::collection::vec(any_move(), 0..80), kind in prop_oneof![Just(AgentKind::Claude), Just(AgentKind::Custom)]) {
        let mut queue = Queue::new(of(kind).prompt_rules());
        let mut now = Duration::ZERO;
        let mut stories: BTreeMap<String, Vec<Status>> = BTreeMap::new();
        let mut next = 0;
        let mut activity = Activity::Starting;
        for step in moves {
            let text = |n: u8| format!("{}{n}", if n == 3 { "/" } else { "prompt " });
            let effects = match step {
                Move::Push(n) => {
                    next += 1;
                    queue.push(next.to_string(), text(n), now).unwrap()
                }
                Move::View(new, bracketed_paste) => {
                    activity = new;
                    queue.on(&Event::View(View { activity: new, bracketed_paste }), now)
                }
                Move::Written => queue.on(&Event::Written, now),
                Move::Output => queue.on(&Event::Output, now),
                Move::Submitted(n) => queue.on(&Event::Submitted(&text(n)), now),
                Move::Generation => queue.on(&Event::GenerationStarted, now),
                Move::Ended(failed) => queue.on(&Event::TurnEnded { failed }, now),
                Move::Interrupted => queue.on(&Event::Interrupted, now),
                Move::Human(leaves_draft) => queue.on(&Event::HumanKey { leaves_draft }, now),
                Move::HumanSubmitted => queue.on(&Event::HumanSubmitted, now),
                Move::Gone(returns) => {
                    activity = Activity::Starting;
                    queue.on(&Event::Gone { returns, reason: "x" }, now)
                }
                Move::Interrupt => queue.interrupt(now),
                Move::Deadline => match queue.next_deadline() {
                    Some(at) => {
                        now = now.max(at);
                        let effects = queue.on(&Event::Tick, now);
                        prop_assert!(queue.next_deadline().is_none_or(|next| next > now));
                        effects
                    }
                    None => Vec::new(),
                },
                Move::Pass(milliseconds) => {
                    now += Duration::from_millis(milliseconds);
                    queue.on(&Event::Tick, now)
                }
            };
            for effect in effects {
                match effect {
                    Effect::Write(bytes) => {
                        prop_assert!(bytes != b"\r" || activity != Activity::Dialog);
                    }
                    Effect::Report { id, status, .. } => stories.entry(id).or_default().push(status),
                    Effect::Typing { .. } | Effect::Untyped { .. } => {}
                }
            }
        }
        for story in stories.values() {
            prop_assert_eq!(story[0], Queued);
            prop_assert!(story.windows(2).all(|pair| !pair[0].is_final()), "{:?}", story);
            let order = |status: &Status| match status {
                Queued => 0,
                Delivered => 1,
                Working => 2,
                Done | Interrupted | Failed => 3,
            };
            prop_assert!(story.windows(2).all(|pair| order(&pair[0]) < order(&pair[1])), "{:?}", story);
        }
    }
}
