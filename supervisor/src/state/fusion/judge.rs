//! From evidence to a state with a reason: the rules that put the sources in order.

use whim_wire::state::{AgentState, Dialog};

use crate::state::moment::{Moment, Spoken};
use crate::state::observation::{Manner, Title, Word, clean};

use super::dialog;
use super::evidence::{Evidence, Life};
use super::limits::{
    CUSTOM_CPU, CUSTOM_REST, ONESHOT_START, READY, STALL_MODEL, STALL_OTHER, STALL_TOOL, STILL,
};
use super::reason::{MAX_COMMAND, background, between, exited, model_sentence, tool_sentence};
use super::timers::Timers;
use super::turn::{How, Turn, turn};

pub(super) struct Judgement {
    pub(super) state: AgentState,
    pub(super) reason: String,
    pub(super) stalled: bool,
    pub(super) dialog: Option<Dialog>,
}

impl Judgement {
    fn new(state: AgentState, reason: impl Into<String>) -> Self {
        Self {
            state,
            reason: reason.into(),
            stalled: false,
            dialog: None,
        }
    }
}

/// `None`: nothing that would change the state `before`.
pub(super) fn judge(
    evidence: &Evidence,
    before: AgentState,
    since: Moment,
    timers: &mut Timers<'_>,
) -> Option<Judgement> {
    let running = match &evidence.life {
        Life::None => {
            return Some(Judgement::new(
                AgentState::Starting,
                "the agent is not started yet",
            ));
        }
        Life::Exited { exit, note } => {
            return Some(Judgement::new(
                AgentState::Stopped,
                exited(*exit, note.as_deref()),
            ));
        }
        Life::Running { since, .. } => *since,
    };
    match evidence.profile.manner {
        Manner::Custom => Some(custom(evidence, before, running, since, timers)),
        Manner::Oneshot => Some(oneshot(evidence, running, since, timers)),
        Manner::Interactive => interactive(evidence, before, running, since, timers),
    }
}

fn interactive(
    evidence: &Evidence,
    before: AgentState,
    running: Moment,
    since: Moment,
    timers: &mut Timers<'_>,
) -> Option<Judgement> {
    if let Some(open) = dialog::open(evidence, timers) {
        let what = clean(&open.what, MAX_COMMAND * 2);
        let mut judgement = Judgement::new(AgentState::NeedsInput, format!("waits for {what}"));
        if open.dialog.is_some() {
            judgement.reason = format!("asks: {what}");
        }
        judgement.dialog = open.dialog;
        return Some(judgement);
    }
    match turn(evidence, timers) {
        Turn::Open => Some(working(evidence, before, since, timers)),
        Turn::Settling if before == AgentState::Working => {
            Some(working(evidence, before, since, timers))
        }
        Turn::Settling => None,
        Turn::Closed(how) => Some(idle(evidence, how)),
        Turn::Unknown => unknown(evidence, running, timers),
    }
}

/// No source spoke of a turn: is the agent up?
fn unknown(evidence: &Evidence, running: Moment, timers: &mut Timers<'_>) -> Option<Judgement> {
    let title = evidence.title.as_ref();
    if let (Some(title), Some(output)) = (title, evidence.output)
        && title.value == Title::Spinning
        && !timers.over(output, STILL)
    {
        return Some(Judgement::new(
            AgentState::Working,
            "its title says that it works",
        ));
    }
    let up = evidence.hooks.ready.max(title.map(|title| title.at));
    let ready = match (up, evidence.output) {
        (Some(up), _) if timers.over(up, STILL) => Some("ready for a prompt"),
        (_, Some(output)) if timers.over(output, STILL) => Some("ready for a prompt"),
        _ if timers.over(running, READY) => Some("no sign from the agent since it started"),
        _ => None,
    };
    ready.map(|reason| Judgement::new(AgentState::Idle, reason))
}

fn custom(
    evidence: &Evidence,
    before: AgentState,
    running: Moment,
    since: Moment,
    timers: &mut Timers<'_>,
) -> Judgement {
    if !evidence.wire.in_flight.is_empty() {
        return working(evidence, before, since, timers);
    }
    if let Some(computed) = evidence.computed
        && !timers.over(computed, CUSTOM_REST)
    {
        let cpu = evidence
            .tree
            .as_ref()
            .and_then(|tree| tree.value.cpu_percent);
        let cpu = cpu.filter(|cpu| *cpu >= CUSTOM_CPU);
        return match cpu {
            Some(cpu) => Judgement::new(AgentState::Working, format!("uses {cpu} % CPU")),
            None => Judgement::new(AgentState::Working, "used CPU a moment ago"),
        };
    }
    if let Some(printed) = evidence.printed
        && !timers.over(printed, CUSTOM_REST)
    {
        return Judgement::new(AgentState::Working, "prints");
    }
    let sampled = evidence
        .tree
        .as_ref()
        .and_then(|tree| tree.value.cpu_percent)
        .is_some();
    if before == AgentState::Starting && !sampled && !timers.over(running, CUSTOM_REST) {
        return Judgement::new(AgentState::Starting, "just started");
    }
    Judgement::new(AgentState::Idle, "neither prints nor uses CPU")
}

fn oneshot(
    evidence: &Evidence,
    running: Moment,
    since: Moment,
    timers: &mut Timers<'_>,
) -> Judgement {
    let up = evidence.output.is_some()
        || evidence.hooks.last.is_some()
        || evidence.wire.last_start.is_some();
    if !up && !timers.over(running, ONESHOT_START) {
        return Judgement::new(AgentState::Starting, "just started");
    }
    working(evidence, AgentState::Working, since, timers)
}

fn working(
    evidence: &Evidence,
    before: AgentState,
    since: Moment,
    timers: &mut Timers<'_>,
) -> Judgement {
    let child = evidence.tool_child(timers);
    let (mut reason, limit) = match (child, evidence.wire.newest()) {
        (Some(child), _) => (tool_sentence(evidence, Some(child), timers.now), STALL_TOOL),
        (None, Some(_)) => (model_sentence(evidence, timers.now), STALL_MODEL),
        (None, None) if evidence.tool_asked().is_some() => {
            (tool_sentence(evidence, None, timers.now), STALL_TOOL)
        }
        (None, None) => (between(evidence, timers.now), STALL_OTHER),
    };
    let began = match before {
        AgentState::Working => since,
        _ => timers.now,
    };
    let progress = Some(began).max(evidence.progress()).max(evidence.prompt);
    let stalled = match progress {
        Some(progress) if timers.over(progress, limit) => {
            reason = format!(
                "no progress for {}: {reason}",
                Spoken(timers.now - progress)
            );
            true
        }
        _ => false,
    };
    Judgement {
        stalled,
        ..Judgement::new(AgentState::Working, reason)
    }
}

fn idle(evidence: &Evidence, how: How) -> Judgement {
    let reason = match how {
        How::Ready => "ready for a prompt",
        How::Ended => "the turn ended",
        How::Interrupted => "the turn was interrupted",
        How::Failed => "the turn ended; its last model call failed",
        How::Refused => "the turn ended; its last model call was refused",
        How::Restored => "no sign of work since the supervisor came back",
    };
    let shell = (evidence.word.as_ref()).is_some_and(|word| word.value == Word::Shell);
    let reason = match background(evidence).first() {
        Some(first) => format!("{reason}; still running: {first}"),
        None if shell => format!("{reason}; a command runs in the background"),
        None => reason.to_owned(),
    };
    Judgement::new(AgentState::Idle, reason)
}
