//! Is a dialog open that waits for a person?
//!
//! Strongest first: the status file's "waiting"; a hook that opened a dialog and nothing that closed it; Codex's
//! "blocked" where neither wire nor processes contradict; and for an agent that gives no sign of its own, a tool that
//! was asked for, never started, before a still screen.

use whim_wire::state::Dialog;

use crate::state::moment::Moment;
use crate::state::observation::{Osc, Title, Word};

use super::evidence::Evidence;
use super::limits::{DIALOG_SETTLE, INTERRUPT, SOURCES_APART, START_SLACK, STILL};
use super::timers::Timers;

/// A dialog that waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Open {
    pub(super) dialog: Option<Dialog>,
    pub(super) what: String,
}

/// The dialog that waits at `timers.now`.
pub(super) fn open(evidence: &Evidence, timers: &mut Timers<'_>) -> Option<Open> {
    if let Some(word) = &evidence.word {
        return match &word.value {
            Word::Waiting { waiting_for } => {
                let overtaken = evidence.hooks.closed.max(evidence.hooks.opened);
                let overtaken = overtaken.filter(|at| *at > word.at && at_rest(evidence, *at));
                if overtaken.is_some_and(|at| timers.over(at, SOURCES_APART)) {
                    return None;
                }
                let dialog = hooked(evidence).map(|(_, dialog)| dialog.clone());
                // The hook of the end of what was asked for is ahead of the file.
                if let Some(over) = evidence.hooks.dialogs_over.filter(|over| *over > word.at)
                    && dialog.is_none()
                    && !timers.over(over, SOURCES_APART)
                {
                    return None;
                }
                let what = (dialog.as_ref().map(|dialog| dialog.text.clone()))
                    .or_else(|| waiting_for.clone())
                    .unwrap_or_else(|| "an answer".to_owned());
                Some(Open { dialog, what })
            }
            // A hook may be ahead of the file, not long.
            Word::Busy | Word::Idle | Word::Shell => {
                let (at, dialog) = hooked(evidence)?;
                let ahead = at > word.at && !answered(evidence, at, timers);
                (ahead && timers.over(at, DIALOG_SETTLE)).then(|| Open::hooked(dialog))
            }
        };
    }
    if let Some((at, dialog)) = hooked(evidence)
        && !answered(evidence, at, timers)
    {
        return timers.over(at, DIALOG_SETTLE).then(|| Open::hooked(dialog));
    }
    if let Some(at) = evidence.hooks.reminded
        && evidence.hooks.last.is_none_or(|last| last <= at)
        && !answered(evidence, at, timers)
    {
        return Some(Open::unknown("a permission or an answer"));
    }
    if let Some(osc) = &evidence.osc
        && osc.value == Osc::Blocked
        && evidence.wire.in_flight.is_empty()
        && evidence.tool_child(timers).is_none()
        && !answered(evidence, osc.at, timers)
    {
        return (timers.over(osc.at, DIALOG_SETTLE)).then(|| Open::unknown("an approval"));
    }
    restored(evidence, timers).or_else(|| silent(evidence, timers))
}

impl Open {
    fn hooked(dialog: &Dialog) -> Self {
        Self {
            dialog: Some(dialog.clone()),
            what: dialog.text.clone(),
        }
    }

    fn unknown(what: &str) -> Self {
        Self {
            dialog: None,
            what: what.to_owned(),
        }
    }
}

fn hooked(evidence: &Evidence) -> Option<(Moment, &Dialog)> {
    let asked = evidence.hooks.dialog.as_ref()?;
    Some((asked.at, &asked.value.dialog))
}

/// Nothing of the main agent's turn stirs since `at`: only then does a hook refute the status file. Subagents go on
/// beside an open dialog, so their steps say nothing.
fn at_rest(evidence: &Evidence, at: Moment) -> bool {
    evidence.hooks.subagents.is_empty() || evidence.hooks.closed.is_some_and(|closed| closed >= at)
}

/// Whether something happened after `asked` that happens only once a dialog is answered.
fn answered(evidence: &Evidence, asked: Moment, timers: &mut Timers<'_>) -> bool {
    let hooks = &evidence.hooks;
    if hooks.closed.max(evidence.submit).max(evidence.prompt) > Some(asked) {
        return true;
    }
    // The next model call follows the tool's result; calls of subagents do not need it.
    let mut calls = evidence.wire.in_flight.values();
    let alone = hooks.subagents.is_empty() && !calls.any(|call| call.started <= asked);
    if alone && evidence.wire.last_start > Some(asked) {
        return true;
    }
    let osc = evidence.osc.as_ref();
    if osc.is_some_and(|osc| osc.at > asked && osc.value != Osc::Blocked) {
        return true;
    }
    // Claude Code's title rests while a dialog is open.
    if evidence.spun > Some(asked + DIALOG_SETTLE) {
        return true;
    }
    // A process that appeared later is the tool's, unless others run beside it.
    let sole = alone && hooks.tools.len() <= 1;
    if sole && evidence.spawned > Some(asked + START_SLACK) {
        return true;
    }
    evidence
        .interrupted()
        .is_some_and(|at| at > asked && timers.over(at, INTERRUPT))
}

/// An earlier supervisor saw a dialog, and nothing since says that it is gone.
fn restored(evidence: &Evidence, timers: &mut Timers<'_>) -> Option<Open> {
    use whim_wire::state::AgentState;
    let restored = evidence.restored.as_ref()?;
    if restored.value.state != AgentState::NeedsInput
        || evidence.hooks.last > Some(restored.at)
        || answered(evidence, restored.at, timers)
    {
        return None;
    }
    Some(Open {
        dialog: restored.value.dialog.clone(),
        what: match &restored.value.dialog {
            Some(dialog) => dialog.text.clone(),
            None => "an answer".to_owned(),
        },
    })
}

/// The guess about an agent that may ask but never says so: the model asked for a tool, none runs, and the terminal
/// rests: by its title, or by a screen that is still. (Claude Code's dialogs blink, but change the title.)
fn silent(evidence: &Evidence, timers: &mut Timers<'_>) -> Option<Open> {
    let speaks = evidence.hooks.last.is_some() || evidence.osc.is_some();
    if speaks || !evidence.profile.asks || !evidence.profile.animates {
        return None;
    }
    evidence.wire.tool_asked()?;
    let end = evidence.wire.rest()?;
    let output = evidence.output?;
    let (title, titled) = match &evidence.title {
        Some(title) => (title.value, title.at),
        None => (Title::Spinning, output),
    };
    let over = match title {
        Title::Resting if titled > end.at => timers.over(titled, SOURCES_APART),
        _ => timers.over(output.max(end.at), STILL),
    };
    let acted = evidence.interrupt.max(evidence.submit) > Some(end.at);
    if !over || acted || evidence.tool_child(timers).is_some() {
        return None;
    }
    Some(Open::unknown(
        "something; it was told to run a tool, runs none, and its terminal rests",
    ))
}
