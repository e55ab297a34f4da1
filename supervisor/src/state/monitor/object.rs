//! The state object and the events of its changes, put together from verdicts and facts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use whim_wire::event::{Draft, kind};
use whim_wire::state::{
    AgentState, Backup, Dialog, Phase, SessionState, Spend, StateObject, Supervisor, VERSION,
};
use whim_wire::time::Time;

use crate::state::clock;
use crate::state::combine::Whole;
use crate::state::fusion::Verdict;
use crate::state::moment::Moment;
use crate::state::observation::Observation;

use super::session::Session;

/// What the state object says beside the agents' states.
#[derive(Clone, Debug)]
pub struct Facts {
    pub phase: Phase,
    pub supervisor: Supervisor,
    /// Reasons to stay awake that are not an agent's.
    pub keep_awake: Vec<String>,
    pub ports: Vec<u16>,
    pub backup: Backup,
    /// By session.
    pub sessions: BTreeMap<String, SessionFacts>,
}

/// What the state object says of a session beside its state. `pid` and `exit` follow the observations.
#[derive(Clone, Debug, Default)]
pub struct SessionFacts {
    pub agent: String,
    pub mode: String,
    pub agent_session_id: Option<String>,
    pub pid: Option<u32>,
    pub terminal: Option<String>,
    pub queued_prompts: u32,
    pub exit: Option<i32>,
    pub spend: Spend,
}

impl SessionFacts {
    pub(super) fn observe(&mut self, observation: &Observation) {
        match observation {
            Observation::Started { pid } => {
                self.pid = Some(*pid);
                self.exit = None;
            }
            Observation::Exited { exit, .. } => {
                self.pid = None;
                self.exit = Some(exit.status());
            }
            _ => {}
        }
    }
}

/// The wall-clock time of a moment, worked out once: computed anew each time it would tremble by a millisecond.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    moment: Moment,
    wall: Time,
}

impl Since {
    pub(super) fn new(now: Moment, wall: Timestamp) -> Self {
        Self {
            moment: now,
            wall: wall.into(),
        }
    }

    pub(super) fn update(&mut self, moment: Moment, now: Moment, wall: Timestamp) {
        if self.moment != moment {
            self.moment = moment;
            self.wall = clock::wall(moment, now, wall);
        }
    }

    pub(super) fn wall(self) -> Time {
        self.wall
    }
}

#[derive(Serialize)]
struct Changed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<&'a str>,
    state: AgentState,
    reason: &'a str,
    stalled: bool,
    since: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialog: Option<&'a Dialog>,
}

impl Changed<'_> {
    fn draft(&self, at: Timestamp) -> Option<Draft> {
        Draft::new(kind::STATE_CHANGED, at.into(), self)
            .inspect_err(|error| tracing::error!(%error, "a change of state has no event"))
            .ok()
    }
}

pub(super) fn changed(
    session: Option<&str>,
    whole: &Whole,
    since: Time,
    at: Timestamp,
) -> Option<Draft> {
    let changed = Changed {
        session,
        state: whole.state,
        reason: &whole.reason,
        stalled: whole.stalled,
        since,
        dialog: whole.dialog.as_ref(),
    };
    changed.draft(at)
}

pub(super) fn changed_session(
    id: &str,
    verdict: &Verdict,
    since: Time,
    at: Timestamp,
) -> Option<Draft> {
    let changed = Changed {
        session: Some(id),
        state: verdict.state,
        reason: &verdict.reason,
        stalled: verdict.stalled,
        since,
        dialog: verdict.dialog.as_ref(),
    };
    changed.draft(at)
}

pub(super) fn compose(
    facts: &Facts,
    whole: &Whole,
    since: Since,
    sessions: &[Session],
    seq: u64,
) -> StateObject {
    let left = whole.background.iter();
    let mut keep_awake = facts.keep_awake.clone();
    keep_awake.extend(left.map(|command| format!("still running after the turn: {command}")));
    StateObject {
        version: VERSION,
        state: whole.state,
        reason: whole.reason.clone(),
        since: since.wall(),
        at: Timestamp::now().into(),
        seq,
        phase: facts.phase.clone(),
        stalled: whole.stalled,
        idle_s: whole.idle.as_secs(),
        keep_awake,
        active_generations: whole.generations,
        supervisor: facts.supervisor.clone(),
        sessions: sessions
            .iter()
            .filter_map(|session| session_state(facts, session))
            .collect(),
        ports: facts.ports.clone(),
        backup: facts.backup.clone(),
        dialog: whole.dialog.clone(),
    }
}

fn session_state(facts: &Facts, session: &Session) -> Option<SessionState> {
    let verdict = session.fusion.last()?;
    let facts = facts.sessions.get(&*session.id)?;
    Some(SessionState {
        id: session.id.to_string(),
        agent: facts.agent.clone(),
        mode: facts.mode.clone(),
        state: verdict.state,
        reason: verdict.reason.clone(),
        since: session.since?.wall(),
        stalled: verdict.stalled,
        agent_session_id: facts.agent_session_id.clone(),
        pid: facts.pid,
        terminal: facts.terminal.clone(),
        queued_prompts: facts.queued_prompts,
        exit: facts.exit,
        dialog: verdict.dialog.clone(),
        spend: facts.spend.clone(),
    })
}

/// Whether two objects say the same; the clocks in them always move.
pub(super) fn same(a: &StateObject, b: &StateObject) -> bool {
    let mut later = b.clone();
    later.at = a.at;
    later.idle_s = a.idle_s;
    *a == later
}
