//! The sentences that explain a state to a person.

use std::fmt::Write as _;

use crate::state::moment::{Moment, Spoken};
use crate::state::observation::{Child, Exit, Stop, clean};

use super::evidence::{Evidence, Life};
use super::limits::{PROGRESS_CPU, START_SLACK};

/// Longest command in a sentence, bytes.
pub(super) const MAX_COMMAND: usize = 120;
/// Most background processes that are named.
const MAX_BACKGROUND: usize = 4;

/// "tool Bash running 4 min, 82 % CPU: cargo test"
pub(super) fn tool_sentence(evidence: &Evidence, child: Option<&Child>, now: Moment) -> String {
    // With a process to show, the tool that it most likely belongs to: the last that was asked for before it started.
    let tools = evidence.hooks.tools.values();
    let tool = match child {
        Some(child) => tools
            .filter(|tool| tool.since <= child.started + START_SLACK)
            .max_by_key(|tool| tool.since),
        None => tools.min_by_key(|tool| tool.since),
    };
    let since = tool
        .map(|tool| tool.since)
        .or_else(|| child.map(|child| child.started))
        .or_else(|| evidence.wire.rest().map(|end| end.at))
        .unwrap_or(now);
    let mut sentence = String::from("tool ");
    if let Some(tool) = tool {
        let _ = write!(sentence, "{} ", clean(&tool.name, MAX_COMMAND));
    }
    let _ = write!(sentence, "running {}", Spoken(now - since));
    if let Some(cpu) = child.and_then(|child| child.cpu_percent) {
        let _ = write!(sentence, ", {cpu} % CPU");
    }
    let what = tool
        .and_then(|tool| tool.detail.as_deref())
        .or_else(|| child.map(|child| child.command.as_str()));
    if let Some(what) = what {
        let _ = write!(sentence, ": {}", clean(what, MAX_COMMAND));
    }
    sentence
}

pub(super) fn model_sentence(evidence: &Evidence, now: Moment) -> String {
    let calls = &evidence.wire.in_flight;
    let oldest = calls.values().min_by_key(|call| call.started);
    let Some(oldest) = oldest else {
        return "the model is called".to_owned();
    };
    let age = Spoken(now - oldest.started);
    match (calls.len(), oldest.progressed) {
        (1, Some(_)) => format!("the model answers since {age}"),
        (1, None) => format!("waits for the model since {age}"),
        (calls, _) => format!("{calls} model calls in flight, the oldest since {age}"),
    }
}

pub(super) fn between(evidence: &Evidence, now: Moment) -> String {
    match evidence.wire.rest() {
        Some(end) if end.value.stop == Stop::Error => {
            let age = Spoken(now - end.at);
            format!("the model call failed {age} ago; the agent tries again by itself")
        }
        _ if evidence.prompt > evidence.wire.last_start => "a prompt was delivered".to_owned(),
        _ => "in a turn, between two steps".to_owned(),
    }
}

/// What runs beneath an agent that rests and that it started for a tool, not as a helper of its own, busiest first:
/// only what uses CPU, so that a dev server that waits does not hold the machine.
pub(super) fn background(evidence: &Evidence) -> Vec<String> {
    let Life::Running { since, .. } = &evidence.life else {
        return Vec::new();
    };
    let helpers_until = evidence.wire.last_end.as_ref().map(|end| end.value.started);
    let first_turn = evidence.hooks.opened.or(helpers_until).unwrap_or(*since);
    let Some(tree) = &evidence.tree else {
        return Vec::new();
    };
    let mut busy: Vec<&Child> = (tree.value.children.iter())
        .filter(|child| child.started >= first_turn.min(tree.at))
        .filter(|child| child.cpu_percent.is_some_and(|cpu| cpu >= PROGRESS_CPU))
        .collect();
    busy.sort_by_key(|child| std::cmp::Reverse(child.cpu_percent));
    busy.into_iter()
        .take(MAX_BACKGROUND)
        .map(|child| clean(&child.command, MAX_COMMAND).into_owned())
        .collect()
}

pub(super) fn exited(exit: Exit, note: Option<&str>) -> String {
    let mut sentence = match exit {
        Exit::Code(0) => "the agent ended".to_owned(),
        Exit::Code(code) => format!("the agent ended with exit code {code}"),
        Exit::Signal(signal) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(name) => format!("the agent was ended by {name}"),
            Err(_) => format!("the agent was ended by signal {signal}"),
        },
    };
    if let Some(note) = note {
        let _ = write!(sentence, "; {}", clean(note, MAX_COMMAND * 2));
    }
    sentence
}
