//! The turn of an agent that says nothing about it: neither status file nor hooks.
//!
//! Terminal sequences count as far as wire and processes agree, else the wire alone, else what an earlier supervisor had
//! made of it.

use whim_wire::state::AgentState;

use crate::state::moment::Moment;
use crate::state::observation::{Stop, Title};

use super::evidence::Evidence;
use super::limits::{
    HUNG_UP, INTERRUPT, OSC_CREDIT, PROMPT_CREDIT, RESTORED, RETRY_PAUSE, SETTLE, SIGNAL_LOST,
    SOURCES_APART, STILL, WIRE_END,
};
use super::timers::Timers;
use super::turn::{How, Turn, ended};

pub(super) fn inferred(evidence: &Evidence, timers: &mut Timers<'_>) -> Turn {
    let wire = &evidence.wire;
    let osc = evidence.osc.as_ref();
    let osc_rest = osc.filter(|osc| osc.value.rests()).map(|osc| osc.at);
    if let Some(newest) = wire.newest() {
        // Codex's title thread can outlive the turn: the wire itself saw the end of another call, and so says Codex.
        let ended = wire
            .last_end
            .as_ref()
            .filter(|end| end.value.stop == Stop::EndTurn);
        let over = ended.is_some_and(|end| end.at > newest) && osc_rest > Some(newest);
        if !over {
            return Turn::Open;
        }
    }
    if let Some(rest) = evidence.obeyed()
        && evidence.prompt <= evidence.interrupt
    {
        return settled(rest, How::Interrupted, timers);
    }
    if evidence.tool_child(timers).is_some() {
        return Turn::Open;
    }
    let last_end = wire.last_end.as_ref();
    let newest_work = last_end.map(|end| end.at).max(wire.newest());
    if let Some(prompt) = evidence.prompt
        && Some(prompt) > newest_work.max(osc_rest)
        && !timers.over(prompt, PROMPT_CREDIT)
    {
        return Turn::Open;
    }
    match osc {
        Some(osc)
            if osc.value.rests() && last_end.is_none_or(|end| end.at <= osc.at + SOURCES_APART) =>
        {
            let newest = osc.at.max(newest_work.unwrap_or(osc.at));
            settled(newest, ended(evidence), timers)
        }
        Some(osc) if !osc.value.rests() => match last_end {
            Some(end) if end.value.stop == Stop::EndTurn => {
                let credit = if osc.at > end.at {
                    OSC_CREDIT
                } else {
                    SIGNAL_LOST
                };
                if timers.over(osc.at.max(end.at), credit) {
                    Turn::Closed(ended(evidence))
                } else {
                    Turn::Open
                }
            }
            Some(_) => Turn::Open,
            // No call was ever seen: the wire is no witness. Its animation is, a little.
            None if timers.over(osc.at, OSC_CREDIT) && still(evidence, timers) => {
                Turn::Closed(How::Ended)
            }
            None => Turn::Open,
        },
        _ => wire_alone(evidence, timers),
    }
}

fn wire_alone(evidence: &Evidence, timers: &mut Timers<'_>) -> Turn {
    let Some(end) = evidence.wire.rest() else {
        return restored(evidence, timers);
    };
    let at = end.at;
    if let Some(interrupt) = evidence
        .interrupted()
        .filter(|interrupt| *interrupt > end.value.started)
        && timers.over(interrupt.max(at), INTERRUPT)
    {
        return Turn::Closed(How::Interrupted);
    }
    let over = match end.value.stop {
        Stop::EndTurn | Stop::Refused => timers.over(at, WIRE_END),
        Stop::Limit => timers.over(at, SIGNAL_LOST),
        Stop::ClientLeft => timers.over(at, HUNG_UP),
        // A tool may run inside the agent, with no process to see.
        Stop::Tool => still(evidence, timers) && title_rests(evidence, at),
        Stop::Error => {
            timers.over(at, RETRY_PAUSE) && (!evidence.profile.animates || still(evidence, timers))
        }
    };
    if over {
        Turn::Closed(ended(evidence))
    } else if end.value.stop == Stop::EndTurn || end.value.stop == Stop::Refused {
        Turn::Settling
    } else {
        Turn::Open
    }
}

fn settled(newest: Moment, how: How, timers: &mut Timers<'_>) -> Turn {
    if timers.over(newest, SETTLE) {
        Turn::Closed(how)
    } else {
        Turn::Settling
    }
}

fn restored(evidence: &Evidence, timers: &mut Timers<'_>) -> Turn {
    let Some(restored) = &evidence.restored else {
        return Turn::Unknown;
    };
    match restored.value.state {
        AgentState::Working | AgentState::NeedsInput => {
            let newest = Some(restored.at)
                .max(evidence.printed)
                .max(evidence.step_ended());
            if newest.is_some_and(|newest| timers.over(newest, RESTORED)) {
                Turn::Closed(How::Restored)
            } else {
                Turn::Open
            }
        }
        AgentState::Idle => Turn::Closed(How::Restored),
        AgentState::Starting | AgentState::Stopped => Turn::Unknown,
    }
}

fn still(evidence: &Evidence, timers: &mut Timers<'_>) -> bool {
    let newest = evidence.output.max(evidence.step_ended());
    newest.is_some_and(|newest| timers.over(newest, STILL))
}

fn title_rests(evidence: &Evidence, since: Moment) -> bool {
    let title = evidence.title.as_ref();
    title.is_some_and(|title| title.value == Title::Resting && title.at > since)
}
