//! Is a turn in progress?
//!
//! Evidence that opens a turn counts at once. Evidence that ends one counts after a settle time, in which the state
//! stays what it was, so that the gaps between two tools or two queued prompts are not seen. The agent's own word (status
//! file, hooks) comes first; the wire and the processes stand in where it is missing or must have been lost; a terminal
//! sequence, which any process can print, never stands against them.

use crate::state::moment::Moment;
use crate::state::observation::{Stop, Title, Word};

use super::evidence::Evidence;
use super::inferred::inferred;
use super::limits::{
    BETWEEN_STEPS, CONFIRM, HUNG_UP, INTERRUPT, OSC_CREDIT, PROMPT_CREDIT, SETTLE, SIGNAL_LOST,
    SOURCES_APART, STILL, SUGGESTION,
};
use super::timers::Timers;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Open,
    /// Ended, unless more follows: the state stays as it was.
    Settling,
    Closed(How),
    /// No source said anything yet.
    Unknown,
}

/// How the last turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Ended,
    Interrupted,
    Failed,
    Refused,
    /// No turn yet.
    Ready,
    /// The source of this word is an earlier supervisor.
    Restored,
}

/// What the agent itself says.
enum Own {
    /// `file`: the status file says so now, it is not inferred.
    Open {
        at: Moment,
        file: bool,
    },
    Closed {
        at: Moment,
        file: bool,
    },
}

pub(super) fn turn(evidence: &Evidence, timers: &mut Timers<'_>) -> Turn {
    match own(evidence, timers) {
        Some(Own::Open { file: true, .. }) => Turn::Open,
        Some(Own::Open { at, file: false }) => doubted(evidence, at, timers),
        Some(Own::Closed { at, file }) => reopened(evidence, at, file, timers),
        None => inferred(evidence, timers),
    }
}

fn own(evidence: &Evidence, timers: &mut Timers<'_>) -> Option<Own> {
    let hooks = &evidence.hooks;
    let hooked = match (hooks.opened, hooks.closed) {
        (Some(opened), closed) if closed.is_none_or(|closed| closed < opened) => Some(Own::Open {
            at: opened,
            file: false,
        }),
        (_, Some(at)) => Some(Own::Closed { at, file: false }),
        _ => None,
    };
    let Some(word) = &evidence.word else {
        return hooked;
    };
    let at = word.at;
    match (&word.value, hooked) {
        (Word::Busy | Word::Waiting { .. }, Some(Own::Closed { at: closed, .. }))
            if closed > at =>
        {
            Some(if timers.over(closed, SOURCES_APART) {
                Own::Closed {
                    at: closed,
                    file: false,
                }
            } else {
                Own::Open { at, file: true }
            })
        }
        (Word::Busy | Word::Waiting { .. }, _) => Some(Own::Open { at, file: true }),
        (Word::Idle | Word::Shell, Some(Own::Open { at: opened, .. }))
            if opened > at && (stirs(evidence, timers) || !timers.over(opened, CONFIRM)) =>
        {
            Some(Own::Open {
                at: opened,
                file: false,
            })
        }
        (Word::Idle | Word::Shell, _) => Some(Own::Closed { at, file: true }),
    }
}

/// A state sequence says, later than `after` and than any work that ended, that a turn begins. Codex prints it some 30 ms
/// before its hook runs; alone it is believed for a while.
fn announced(evidence: &Evidence, after: Moment, timers: &mut Timers<'_>) -> bool {
    evidence.osc.as_ref().is_some_and(|osc| {
        !osc.value.rests()
            && osc.at > after
            && evidence.step_ended() < Some(osc.at)
            && !timers.over(osc.at, OSC_CREDIT)
    })
}

/// Wire or processes show work right now.
fn stirs(evidence: &Evidence, timers: &mut Timers<'_>) -> bool {
    !evidence.wire.in_flight.is_empty() || evidence.tool_child(timers).is_some()
}

/// Hooks opened a turn at `opened` and did not end it. No hook tells of an interrupt, and hooks get lost.
fn doubted(evidence: &Evidence, opened: Moment, timers: &mut Timers<'_>) -> Turn {
    if (evidence.interrupt).is_some_and(|key| key > opened && announced(evidence, key, timers)) {
        return Turn::Open;
    }
    if let Some(rest) = evidence.obeyed().filter(|rest| *rest > opened)
        && timers.over(rest, SETTLE)
    {
        return Turn::Closed(How::Interrupted);
    }
    if stirs(evidence, timers) {
        return Turn::Open;
    }
    let hooks = &evidence.hooks;
    let step = evidence.step_ended();
    let tools = !hooks.tools.is_empty();
    if let Some(at) = evidence.interrupted().filter(|at| *at > opened)
        && timers.over(at, INTERRUPT)
    {
        return Turn::Closed(How::Interrupted);
    }
    if let Some(osc) = &evidence.osc
        && osc.value.rests()
        && osc.at > opened
        && step.is_none_or(|step| step <= osc.at)
        && timers.over(osc.at, SETTLE)
    {
        return Turn::Closed(ended(evidence));
    }
    if let Some(end) = evidence.wire.rest().filter(|end| end.at > opened && !tools) {
        let wait = match end.value.stop {
            Stop::EndTurn | Stop::Refused | Stop::Limit => Some(SIGNAL_LOST),
            Stop::ClientLeft => Some(HUNG_UP),
            Stop::Tool | Stop::Error => None,
        };
        // A tool that ended later is answered first: the end was a subagent's.
        let newest = end.at.max(hooks.step_ended.unwrap_or(end.at));
        if wait.is_some_and(|wait| timers.over(newest, wait)) {
            return Turn::Closed(ended(evidence));
        }
    }
    if let Some(title) = &evidence.title
        && title.value == Title::Resting
        && title.at > opened
    {
        let newest = Some(title.at).max(evidence.output).max(step);
        if newest.is_some_and(|newest| timers.over(newest, STILL)) {
            return Turn::Closed(How::Ended);
        }
    }
    Turn::Open
}

/// The agent said at `closed` that its turn is over. What says otherwise since?
fn reopened(evidence: &Evidence, closed: Moment, file: bool, timers: &mut Timers<'_>) -> Turn {
    if let Some(prompt) = evidence.prompt.filter(|prompt| *prompt > closed)
        && !timers.over(prompt, PROMPT_CREDIT)
    {
        return Turn::Open;
    }
    let hooks = &evidence.hooks;
    if hooks.tools.values().any(|tool| tool.since > closed) {
        return Turn::Open;
    }
    if !file && announced(evidence, closed, timers) {
        return Turn::Open;
    }
    let background = !hooks.subagents.is_empty();
    if background && !evidence.wire.in_flight.is_empty() {
        return Turn::Open;
    }
    if let Some(start) = evidence.wire.newest().filter(|start| *start > closed) {
        // Prompt suggestions follow a turn and belong to none.
        let suggestion = file && !background;
        if !suggestion || timers.over(start, SUGGESTION) {
            return Turn::Open;
        }
    }
    let step = evidence.step_ended().filter(|step| *step > closed);
    if let Some(step) = step {
        // A Stop hook of the repository can send the agent on; then only the wire knows.
        let sent_on = !file
            && evidence.wire.rest().is_some_and(|end| {
                end.at > closed && matches!(end.value.stop, Stop::Tool | Stop::Error)
            });
        if (background || sent_on) && !timers.over(step, BETWEEN_STEPS) {
            return Turn::Open;
        }
    }
    // With the status file at rest, a suggestion's end is no end of work.
    let newest = if file {
        closed
    } else {
        step.unwrap_or(closed).max(closed)
    };
    if timers.over(newest, SETTLE) {
        Turn::Closed(ended(evidence))
    } else {
        Turn::Settling
    }
}

/// How the newest turn ended, as far as wire and keys tell.
pub(super) fn ended(evidence: &Evidence) -> How {
    let Some(end) = &evidence.wire.last_end else {
        return match evidence.interrupted() {
            Some(_) => How::Interrupted,
            None if evidence.hooks.opened.is_some() => How::Ended,
            None => How::Ready,
        };
    };
    if evidence.interrupted() > Some(end.value.started) {
        return How::Interrupted;
    }
    match end.value.stop {
        Stop::Refused => How::Refused,
        Stop::Error => How::Failed,
        Stop::ClientLeft => How::Interrupted,
        Stop::EndTurn | Stop::Tool | Stop::Limit => How::Ended,
    }
}
