//! What holds for any timeline whatsoever.

use proptest::collection::vec;
use proptest::prelude::*;
use whim_wire::state::{AgentState, Dialog, DialogKind};

use crate::state::fusion::{Fusion, Verdict};
use crate::state::observation::{
    Child, Exit, Generation, Hook, Key, Manner, Observation, Osc, Profile, Sample, Stop, Title,
    Word,
};

use super::script::ms;

fn name() -> impl Strategy<Value = String> {
    (0..4u8).prop_map(|n| format!("t{n}"))
}

fn hook() -> impl Strategy<Value = Hook> {
    prop_oneof![
        Just(Hook::SessionStarted),
        Just(Hook::PromptSubmitted),
        (name(), any::<bool>()).prop_map(|(id, sub)| Hook::ToolStarted {
            name: "Bash".into(),
            detail: Some(id.clone()),
            subagent: sub.then(|| "s1".into()),
            id,
        }),
        (name(), any::<bool>()).prop_map(|(id, interrupted)| Hook::ToolEnded { id, interrupted }),
        name().prop_map(|id| Hook::DialogOpened {
            tool: Some("Bash".into()),
            detail: Some(id.clone()),
            dialog: Dialog {
                id,
                kind: DialogKind::Permission,
                text: "?".into(),
                options: vec![],
            },
        }),
        Just(Hook::DialogReminder),
        Just(Hook::IdleReminder),
        Just(Hook::SubagentStarted { id: "s1".into() }),
        Just(Hook::SubagentStopped { id: "s1".into() }),
        Just(Hook::Compacting),
        Just(Hook::Stopped),
        Just(Hook::Interrupted),
        name().prop_map(|id| Hook::DialogClosed { id }),
        Just(Hook::SessionEnded),
    ]
}

fn stop() -> impl Strategy<Value = Stop> {
    prop::sample::select(vec![
        Stop::Tool,
        Stop::EndTurn,
        Stop::Limit,
        Stop::ClientLeft,
        Stop::Error,
        Stop::Refused,
    ])
}

fn generation() -> impl Strategy<Value = Generation> {
    prop_oneof![
        any::<bool>().prop_map(|side| Generation::Started { side }),
        Just(Generation::Progress),
        stop().prop_map(Generation::Ended),
    ]
}

/// Anything but the start and end of the agent.
fn evidence() -> impl Strategy<Value = Observation> {
    prop_oneof![
        4 => hook().prop_map(Observation::Hook),
        4 => (0..4u64, generation()).prop_map(|(call, event)| Observation::Generation { call, event }),
        2 => prop::sample::select(vec![
            Word::Busy, Word::Idle, Word::Shell, Word::Waiting { waiting_for: None },
        ]).prop_map(Observation::Word),
        1 => Just(Observation::WordGone),
        2 => prop::sample::select(vec![Osc::Working, Osc::Idle, Osc::Done, Osc::Blocked, Osc::Clear])
            .prop_map(Observation::Osc),
        2 => (0..100_000u64, 0..120u32).prop_map(|(age, cpu)| Observation::Tree(Sample {
            children: vec![Child {
                pid: 9,
                started: ms(100_000) - std::time::Duration::from_millis(age),
                command: "make".into(),
                cpu_percent: Some(cpu),
            }],
            cpu_percent: Some(cpu),
        })),
        1 => Just(Observation::Tree(Sample::default())),
        1 => prop::sample::select(vec![Title::Spinning, Title::Resting]).prop_map(Observation::Title),
        2 => (0..3000usize).prop_map(|bytes| Observation::Output { bytes }),
        1 => prop::sample::select(vec![Key::Interrupt, Key::Submit, Key::Other]).prop_map(Observation::Key),
        1 => Just(Observation::PromptDelivered),
        1 => Just(Observation::Calls { in_flight: vec![(1, ms(0))] }),
    ]
}

fn profile() -> impl Strategy<Value = Profile> {
    (any::<bool>(), any::<bool>(), 0..3u8).prop_map(|(asks, animates, manner)| Profile {
        asks,
        animates,
        manner: match manner {
            0 => Manner::Custom,
            1 => Manner::Oneshot,
            _ => Manner::Interactive,
        },
    })
}

/// Waits between observations: mostly short, sometimes long.
fn timeline() -> impl Strategy<Value = Vec<(u64, Observation)>> {
    vec(
        (prop_oneof![4 => 0..400u64, 1 => 0..30_000u64], evidence()),
        0..40,
    )
}

fn started(profile: Profile) -> Fusion {
    let mut fusion = Fusion::new(profile);
    fusion.observe(ms(0), ms(0), Observation::Started { pid: 31 });
    fusion
}

/// Lets time pass as a good caller does, and returns every verdict on the way.
fn pass(fusion: &mut Fusion, until: u64) -> Vec<(u64, Verdict)> {
    let mut seen = Vec::new();
    while let Some(due) = fusion.next_deadline().filter(|due| *due < ms(until)) {
        let at = u64::try_from((due - ms(0)).as_millis()).unwrap();
        seen.push((at, fusion.evaluate(ms(at))));
        assert!(
            fusion.next_deadline().is_none_or(|next| next > due),
            "a deadline that is over is not asked for again"
        );
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// A verdict holds until the deadline that it named: asking in between changes nothing.
    #[test]
    fn verdicts_hold_until_their_deadline(
        profile in profile(), timeline in timeline(), parts in 1..8u64,
    ) {
        let mut fusion = started(profile);
        let mut at = 0;
        for (wait, observation) in timeline {
            pass(&mut fusion, at + wait);
            at += wait;
            fusion.observe(ms(at), ms(at), observation);
            let verdict = fusion.evaluate(ms(at));
            let due = fusion.next_deadline().map_or(at + 4_000, |due| {
                u64::try_from((due - ms(0)).as_millis()).unwrap()
            });
            let between = at + (due - at) * (parts - 1) / parts;
            if between < due {
                at = between;
                let again = fusion.evaluate(ms(at));
                prop_assert!(!again.differs(&verdict), "{verdict:?} became {again:?} before {due}");
            }
        }
    }

    /// Every verdict has a reason, dates that make sense, and flags that fit the state.
    #[test]
    fn verdicts_are_well_formed(profile in profile(), timeline in timeline()) {
        let mut fusion = started(profile);
        let mut at = 0;
        let mut last: Option<Verdict> = None;
        for (wait, observation) in timeline {
            at += wait;
            let mut seen = pass(&mut fusion, at);
            fusion.observe(ms(at), ms(at), observation);
            seen.push((at, fusion.evaluate(ms(at))));
            for (at, verdict) in seen {
                prop_assert!(!verdict.reason.is_empty());
                prop_assert!(verdict.reason.len() < 600);
                prop_assert!(verdict.since <= ms(at));
                prop_assert!(verdict.dialog.is_none() || verdict.state == AgentState::NeedsInput);
                prop_assert!(!verdict.stalled || verdict.state == AgentState::Working);
                prop_assert!(verdict.state != AgentState::Stopped);
                if let Some(last) = &last {
                    let since = if last.state == verdict.state { last.since } else { ms(at) };
                    prop_assert_eq!(verdict.since, since);
                    prop_assert!(
                        verdict.state != AgentState::Starting || last.state == AgentState::Starting
                    );
                }
                last = Some(verdict);
            }
        }
    }

    /// From `working` to `idle` and back takes at least the settle time, whatever the sources do.
    #[test]
    fn no_flapping(timeline in timeline()) {
        let mut fusion = started(Profile::INTERACTIVE);
        let mut at = 0;
        let mut work: Option<u64> = None;
        let mut before = AgentState::Starting;
        for (wait, observation) in timeline {
            at += wait;
            let mut seen = pass(&mut fusion, at);
            fusion.observe(ms(at), ms(at), observation);
            seen.push((at, fusion.evaluate(ms(at))));
            for (at, verdict) in seen {
                if verdict.state == AgentState::Working && before != AgentState::Working {
                    work = Some(at);
                }
                if verdict.state == AgentState::Idle && before == AgentState::Working {
                    prop_assert!(at - work.unwrap() >= 300, "worked only {} ms", at - work.unwrap());
                }
                before = verdict.state;
            }
        }
    }

    /// What was seen twice counts once.
    #[test]
    fn duplicates_change_nothing(profile in profile(), timeline in timeline()) {
        let mut once = started(profile);
        let mut twice = started(profile);
        let mut at = 0;
        for (wait, observation) in timeline {
            at += wait;
            pass(&mut once, at);
            pass(&mut twice, at);
            once.observe(ms(at), ms(at), observation.clone());
            twice.observe(ms(at), ms(at), observation.clone());
            twice.observe(ms(at), ms(at), observation);
            prop_assert_eq!(once.evaluate(ms(at)), twice.evaluate(ms(at)));
        }
    }

    /// Hooks are processes that overtake each other: once all have arrived, their dates decide.
    #[test]
    fn hooks_may_arrive_in_any_order(
        hooks in Just(()).prop_flat_map(|()| vec((1..2_000u64, 0..3u8), 1..6)),
        seed in any::<prop::sample::Index>(),
    ) {
        // Complete turns: each has a prompt, a tool that ran, and a stop.
        let mut dated = Vec::new();
        let mut at = 1_000;
        for (index, (wait, tools)) in hooks.iter().enumerate() {
            at += wait;
            dated.push((at, Hook::PromptSubmitted));
            for tool in 0..*tools {
                let id = format!("t{index}-{tool}");
                dated.push((at + 10, Hook::ToolStarted {
                    id: id.clone(), name: "Bash".into(), detail: None, subagent: None,
                }));
                dated.push((at + 20, Hook::ToolEnded { id, interrupted: false }));
            }
            at += 30;
            dated.push((at, Hook::Stopped));
        }
        let mut fusion = started(Profile::INTERACTIVE);
        let now = at + 5;
        let turn = seed.index(dated.len());
        dated.rotate_left(turn);
        for (date, hook) in dated {
            fusion.observe(ms(date), ms(now), Observation::Hook(hook));
        }
        fusion.evaluate(ms(now));
        prop_assert_eq!(fusion.evaluate(ms(now + 1_000)).state, AgentState::Idle);
    }

    /// The end of the process is the last word.
    #[test]
    fn nothing_revives_a_dead_agent(profile in profile(), timeline in timeline(), after in timeline()) {
        let mut fusion = started(profile);
        for (index, (_, observation)) in timeline.into_iter().enumerate() {
            let at = index as u64 * 50;
            fusion.observe(ms(at), ms(at), observation);
        }
        let exit = Observation::Exited { exit: Exit::Signal(9), note: None };
        fusion.observe(ms(60_000), ms(60_000), exit);
        for (wait, observation) in after {
            fusion.observe(ms(60_000 + wait), ms(90_000), observation);
            prop_assert_eq!(fusion.evaluate(ms(90_000)).state, AgentState::Stopped);
        }
    }
}
