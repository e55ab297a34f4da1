//! A small language for timelines.
//!
//! A script is a list of lines `MILLISECONDS EVENT ARGUMENTS`; `FROM..TO EVENT` repeats an event that sources give again
//! and again (output every 100 ms, looks at the tree every second). Between events the fusion is evaluated exactly when
//! it asked to be, so a case also proves that it asks.

use std::collections::BTreeMap;
use std::time::Duration;

use whim_wire::state::{AgentState, Dialog, DialogKind};

use crate::state::fusion::{Fusion, Verdict};
use crate::state::moment::Moment;
use crate::state::observation::{
    Child, Exit, Generation, Hook, Key, Observation, Osc, Profile, Sample, Stop, Title, Word,
};

/// A change that a caller would publish.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) at: u64,
    pub(super) verdict: Verdict,
}

pub(super) fn ms(at: u64) -> Moment {
    // Away from zero, so that nothing leans on the boot.
    Moment::from_millis(1_000_000 + at)
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    See(Observation),
    /// Nothing runs until then, not even the supervisor.
    Suspend {
        until: u64,
    },
    Look,
}

/// `script` in order of time.
pub(super) fn parse(script: &str) -> Vec<(u64, Step)> {
    let mut steps: Vec<(u64, Step)> = Vec::new();
    // Children of the agent: from, to, CPU, command.
    let mut children: BTreeMap<u32, (u64, u64, u32, String)> = BTreeMap::new();
    let mut looks: Vec<u64> = Vec::new();
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let (time, event) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        let (from, to) = match time.split_once("..") {
            Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
            None => (time.parse().unwrap(), time.parse().unwrap()),
        };
        let words: Vec<&str> = event.split_whitespace().collect();
        match words[..] {
            ["child", cpu, ref command @ ..] => {
                let pid = 1_000 + u32::try_from(children.len()).unwrap();
                children.insert(pid, (from, to, cpu.parse().unwrap(), command.join(" ")));
            }
            ["looks"] => looks.extend((from..=to).step_by(1_000)),
            ["output"] => {
                let output = || Step::See(Observation::Output { bytes: 2_000 });
                steps.extend((from..=to).step_by(100).map(|at| (at, output())));
            }
            ["suspended"] => steps.push((from, Step::Suspend { until: to })),
            ["look"] => steps.push((from, Step::Look)),
            ref words => steps.push((from, Step::See(observation(words)))),
        }
    }
    let ends = children.values().flat_map(|(from, to, ..)| [*from, *to]);
    if let (Some(first), Some(last)) = (ends.clone().min(), ends.max()) {
        looks.extend((first..=last + 1_000).step_by(500));
    }
    for at in looks {
        let alive = children
            .iter()
            .filter(|(_, (from, to, ..))| *from <= at && at < *to);
        let sample: Vec<Child> = alive
            .map(|(pid, (from, _, cpu, command))| Child {
                pid: *pid,
                started: ms(*from),
                command: command.clone(),
                cpu_percent: Some(*cpu),
            })
            .collect();
        let cpu_percent = Some(sample.iter().filter_map(|child| child.cpu_percent).sum());
        let sample = Sample {
            children: sample,
            cpu_percent,
        };
        steps.push((at, Step::See(Observation::Tree(sample))));
    }
    steps.sort_by_key(|(at, _)| *at);
    steps
}

fn observation(words: &[&str]) -> Observation {
    let text = |word: &str| word.to_owned();
    match words {
        ["start"] => Observation::Started { pid: 31 },
        ["exit", code] => Observation::Exited {
            exit: Exit::Code(code.parse().unwrap()),
            note: None,
        },
        ["kill", signal] => Observation::Exited {
            exit: Exit::Signal(signal.parse().unwrap()),
            note: None,
        },
        ["word", "busy"] => Observation::Word(Word::Busy),
        ["word", "idle"] => Observation::Word(Word::Idle),
        ["word", "shell"] => Observation::Word(Word::Shell),
        ["word", "waiting"] => Observation::Word(Word::Waiting {
            waiting_for: Some(text("permission prompt")),
        }),
        ["gone"] => Observation::WordGone,
        ["session"] => Observation::Hook(Hook::SessionStarted),
        ["prompt"] => Observation::Hook(Hook::PromptSubmitted),
        ["pre", id, name, detail @ ..] => Observation::Hook(Hook::ToolStarted {
            id: text(id),
            name: text(name),
            detail: (!detail.is_empty()).then(|| detail.join(" ")),
            subagent: None,
        }),
        ["subpre", subagent, id, name] => Observation::Hook(Hook::ToolStarted {
            id: text(id),
            name: text(name),
            detail: None,
            subagent: Some(text(subagent)),
        }),
        ["post", id] => Observation::Hook(Hook::ToolEnded {
            id: text(id),
            interrupted: false,
        }),
        ["post!", id] => Observation::Hook(Hook::ToolEnded {
            id: text(id),
            interrupted: true,
        }),
        ["ask", id] => Observation::Hook(Hook::DialogOpened {
            dialog: dialog(id, "?"),
            tool: None,
            detail: None,
        }),
        ["ask", id, tool, detail @ ..] => Observation::Hook(Hook::DialogOpened {
            dialog: dialog(id, &format!("{tool}: {}", detail.join(" "))),
            tool: Some(text(tool)),
            detail: (!detail.is_empty()).then(|| detail.join(" ")),
        }),
        ["answered", id] => Observation::Hook(Hook::DialogClosed { id: text(id) }),
        ["interrupted"] => Observation::Hook(Hook::Interrupted),
        ["remind"] => Observation::Hook(Hook::DialogReminder),
        ["idle-reminder"] => Observation::Hook(Hook::IdleReminder),
        ["sub+", id] => Observation::Hook(Hook::SubagentStarted { id: text(id) }),
        ["sub-", id] => Observation::Hook(Hook::SubagentStopped { id: text(id) }),
        ["compact"] => Observation::Hook(Hook::Compacting),
        ["stop"] => Observation::Hook(Hook::Stopped),
        ["session-end"] => Observation::Hook(Hook::SessionEnded),
        ["osc", "working"] => Observation::Osc(Osc::Working),
        ["osc", "idle"] => Observation::Osc(Osc::Idle),
        ["osc", "done"] => Observation::Osc(Osc::Done),
        ["osc", "blocked"] => Observation::Osc(Osc::Blocked),
        ["osc", "clear"] => Observation::Osc(Osc::Clear),
        ["call", id] => generation(id, Generation::Started { side: false }),
        ["side", id] => generation(id, Generation::Started { side: true }),
        ["bytes", id] => generation(id, Generation::Progress),
        ["ends", id, stop] => {
            let stop = match *stop {
                "tool" => Stop::Tool,
                "turn" => Stop::EndTurn,
                "limit" => Stop::Limit,
                "left" => Stop::ClientLeft,
                "error" => Stop::Error,
                "refused" => Stop::Refused,
                other => panic!("{other}"),
            };
            generation(id, Generation::Ended(stop))
        }
        ["calls", ids @ ..] => Observation::Calls {
            in_flight: ids.iter().map(|id| (id.parse().unwrap(), ms(0))).collect(),
        },
        ["title", "spinning"] => Observation::Title(Title::Spinning),
        ["title", "resting"] => Observation::Title(Title::Resting),
        ["echo"] => Observation::Output { bytes: 1 },
        ["key", "esc"] => Observation::Key(Key::Interrupt),
        ["key", "enter"] => Observation::Key(Key::Submit),
        ["key", "x"] => Observation::Key(Key::Other),
        ["deliver"] => Observation::PromptDelivered,
        other => panic!("{other:?}"),
    }
}

fn dialog(id: &str, text: &str) -> Dialog {
    Dialog {
        id: id.to_owned(),
        kind: DialogKind::Permission,
        text: text.to_owned(),
        options: vec!["Yes".to_owned(), "No".to_owned()],
    }
}

fn generation(call: &str, event: Generation) -> Observation {
    Observation::Generation {
        call: call.parse().unwrap(),
        event,
    }
}

/// Plays `steps` until `end`, evaluating after each and whenever the fusion asked for it.
pub(super) fn play(fusion: &mut Fusion, steps: &[(u64, Step)], end: u64) -> Vec<Change> {
    let mut changes: Vec<Change> = Vec::new();
    let mut awake_at = 0;
    let mut note = |fusion: &mut Fusion, at: u64| {
        let verdict = fusion.evaluate(ms(at));
        if changes
            .last()
            .is_none_or(|last| verdict.differs(&last.verdict))
        {
            changes.push(Change { at, verdict });
        }
    };
    note(fusion, 0);
    let end_of_play = [(end, Step::Look)];
    for (at, step) in steps.iter().chain(&end_of_play) {
        let at = (*at).max(awake_at);
        while let Some(due) = fusion.next_deadline().filter(|due| *due < ms(at)) {
            let due = (due - ms(0)).max(Duration::ZERO);
            let due = u64::try_from(due.as_millis()).unwrap().max(awake_at);
            if due >= at {
                break;
            }
            note(fusion, due);
        }
        match step {
            Step::See(observation) => fusion.observe(ms(at), ms(at), observation.clone()),
            Step::Suspend { until } => {
                awake_at = *until;
                continue;
            }
            Step::Look => {}
        }
        note(fusion, at);
    }
    changes
}

/// Plays `script` from the start of an agent and compares what is published with `expected`: lines
/// `EARLIEST..LATEST STATE [stalled] [~ PART OF THE REASON]`, all changes, in order.
#[track_caller]
pub(super) fn case(profile: Profile, script: &str, expected: &str) {
    case_with(&mut Fusion::new(profile), script, expected);
}

#[track_caller]
pub(super) fn case_with(fusion: &mut Fusion, script: &str, expected: &str) {
    let steps = parse(script);
    let end = steps.iter().map(|(at, _)| *at).max().unwrap_or(0) + 20_000;
    let changes = play(fusion, &steps, end);
    let told: Vec<String> = (changes.iter())
        .map(|change| {
            let Change { at, verdict } = change;
            let stalled = if verdict.stalled { " stalled" } else { "" };
            format!("{at} {}{stalled} ~ {}", verdict.state, verdict.reason)
        })
        .collect();
    let wanted: Vec<&str> = expected
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let told_text = told.join("\n  ");
    assert_eq!(wanted.len(), changes.len(), "published:\n  {told_text}");
    for (line, change) in wanted.iter().zip(&changes) {
        let (head, reason) = line.split_once(" ~ ").unwrap_or((line, ""));
        let mut words = head.split_whitespace();
        let time = words.next().unwrap();
        let (from, to) = time.split_once("..").unwrap_or((time, time));
        let span = from.parse::<u64>().unwrap()..=to.parse::<u64>().unwrap();
        let state: AgentState = words.next().unwrap().parse().unwrap();
        let stalled = words.next() == Some("stalled");
        let verdict = &change.verdict;
        assert!(
            span.contains(&change.at)
                && verdict.state == state
                && verdict.stalled == stalled
                && verdict.reason.contains(reason),
            "expected: {line}\npublished:\n  {told_text}"
        );
    }
}
