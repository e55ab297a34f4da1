//! The container's state from those of its sessions.
//!
//! One session at work keeps the container `working`, because whoever reads the state may suspend a machine that is
//! not; a dialog of another session shows with that session, and beside the container's state. Ended sessions count
//! only when all have ended.

use std::time::Duration;

use whim_wire::state::{AgentState, Dialog, Phase};

use super::fusion::Verdict;
use super::memory::Memory;
use super::moment::Moment;

/// The state of the whole container.
#[derive(Clone, Debug, PartialEq)]
pub struct Whole {
    pub state: AgentState,
    pub reason: String,
    pub since: Moment,
    pub stalled: bool,
    /// Of the session that `state` is about, else of the first that has one.
    pub dialog: Option<Dialog>,
    /// Model calls in flight.
    pub generations: u32,
    /// Since an agent was last at work; zero while one works or starts.
    pub idle: Duration,
    /// What resting agents left running.
    pub background: Vec<String>,
}

impl Whole {
    /// Whether this is news, not just another wording.
    #[must_use]
    pub fn differs(&self, before: &Self) -> bool {
        let id = |whole: &Self| whole.dialog.as_ref().map(|dialog| dialog.id.clone());
        self.state != before.state || self.stalled != before.stalled || id(self) != id(before)
    }
}

impl Whole {
    /// The word of an earlier supervisor, until its sessions are found again.
    #[must_use]
    pub fn remembered(memory: &Memory, since: Moment) -> Self {
        let state = memory.state.unwrap_or(AgentState::Starting);
        let speaker = memory.sessions.values().find(|word| word.state == state);
        Self {
            state,
            reason: speaker.map_or_else(
                || "as before the supervisor came back".to_owned(),
                |word| word.reason.clone(),
            ),
            since,
            stalled: false,
            dialog: speaker.and_then(|word| word.dialog.clone()),
            generations: 0,
            idle: Duration::ZERO,
            background: Vec::new(),
        }
    }
}

/// Keeps since when the container's state holds.
#[derive(Clone, Copy, Debug)]
pub struct Container {
    state: AgentState,
    since: Moment,
    active: Moment,
}

impl Container {
    /// `last`: the word of an earlier supervisor.
    #[must_use]
    pub fn new(last: Option<AgentState>, now: Moment) -> Self {
        Self {
            state: last.unwrap_or(AgentState::Starting),
            since: now,
            active: now,
        }
    }

    /// Since when the state holds.
    #[must_use]
    pub fn since(&self) -> Moment {
        self.since
    }

    /// The container's state at `now`. `sessions`: name and verdict, the main one first.
    pub fn update(&mut self, now: Moment, phase: &Phase, sessions: &[(&str, &Verdict)]) -> Whole {
        let (state, reason, speaker) = judge(phase, sessions);
        if state != self.state {
            self.state = state;
            self.since = now;
        }
        if matches!(state, AgentState::Working | AgentState::Starting) {
            self.active = now;
        }
        let dialog = speaker.and_then(|verdict| verdict.dialog.clone());
        let any = || {
            sessions
                .iter()
                .find_map(|(_, verdict)| verdict.dialog.clone())
        };
        Whole {
            state,
            reason,
            since: self.since,
            // One agent that goes on is enough not to call for help.
            stalled: speaker.is_some_and(|verdict| verdict.stalled),
            dialog: dialog.or_else(any),
            generations: sessions.iter().fold(0, |sum, (_, verdict)| {
                verdict.generations.saturating_add(sum)
            }),
            idle: now - self.active,
            background: sessions
                .iter()
                .flat_map(|(_, verdict)| verdict.background.iter().cloned())
                .collect(),
        }
    }
}

fn judge<'a>(
    phase: &Phase,
    sessions: &[(&str, &'a Verdict)],
) -> (AgentState, String, Option<&'a Verdict>) {
    match phase {
        Phase::Failed { step, error } => {
            let reason = format!("the boot failed at {step}: {error}");
            return (AgentState::Stopped, reason, None);
        }
        Phase::WaitingForSpec => {
            return (AgentState::Starting, "waits for a task".to_owned(), None);
        }
        Phase::Booting { step } if sessions.is_empty() => {
            return (AgentState::Starting, format!("boots: {step}"), None);
        }
        Phase::Booting { .. } | Phase::Ready | Phase::Stopping => {}
    }
    let speaker = sessions
        .iter()
        .enumerate()
        .min_by_key(|(index, (_, verdict))| (rank(verdict), *index));
    let Some((_, (id, verdict))) = speaker else {
        return match phase {
            Phase::Stopping => (AgentState::Stopped, "the container ends".to_owned(), None),
            _ => (
                AgentState::Starting,
                "no session is started yet".to_owned(),
                None,
            ),
        };
    };
    let same = sessions
        .iter()
        .filter(|(_, other)| other.state == verdict.state);
    let reason = match (sessions.len(), same.count()) {
        (1, _) => verdict.reason.clone(),
        (_, 1) => format!("{id}: {}", verdict.reason),
        (_, same) => format!("{id} and {} more: {}", same - 1, verdict.reason),
    };
    (verdict.state, reason, Some(verdict))
}

/// The lowest speaks for the container. A session that still makes progress before one that does not.
fn rank(verdict: &Verdict) -> u8 {
    match (verdict.state, verdict.stalled) {
        (AgentState::Working, false) => 0,
        (AgentState::Working, true) => 1,
        (AgentState::NeedsInput, _) => 2,
        (AgentState::Starting, _) => 3,
        (AgentState::Idle, _) => 4,
        (AgentState::Stopped, _) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AgentState::{Idle, NeedsInput, Starting, Stopped, Working};
    use whim_wire::state::DialogKind;

    fn verdict(state: AgentState) -> Verdict {
        Verdict {
            state,
            reason: format!("r-{state}"),
            since: Moment::default(),
            stalled: false,
            dialog: (state == NeedsInput).then(|| Dialog {
                id: "d".into(),
                kind: DialogKind::Question,
                text: "?".into(),
                options: vec![],
            }),
            generations: 1,
            background: vec![],
        }
    }

    fn whole(phase: &Phase, states: &[AgentState]) -> Whole {
        let verdicts: Vec<Verdict> = states.iter().copied().map(verdict).collect();
        let names = ["main", "b", "c"];
        let sessions: Vec<(&str, &Verdict)> = names.into_iter().zip(&verdicts).collect();
        Container::new(None, Moment::default()).update(Moment::from_millis(5), phase, &sessions)
    }

    #[test]
    fn table() {
        let ready = &Phase::Ready;
        for (states, expected, reason) in [
            (&[Idle][..], Idle, "r-idle"),
            (&[Idle, Working], Working, "b: r-working"),
            (&[NeedsInput, Working], Working, "b: r-working"),
            (&[NeedsInput, Idle], NeedsInput, "main: r-needs_input"),
            (&[Idle, Starting], Starting, "b: r-starting"),
            (&[Stopped, Idle], Idle, "b: r-idle"),
            (&[Stopped, Stopped], Stopped, "main and 1 more: r-stopped"),
            (
                &[Working, Working, Idle],
                Working,
                "main and 1 more: r-working",
            ),
            (&[], Starting, "no session is started yet"),
        ] {
            let whole = whole(ready, states);
            assert_eq!(
                (whole.state, whole.reason.as_str()),
                (expected, reason),
                "{states:?}"
            );
            assert_eq!(whole.generations as usize, states.len());
            assert_eq!(whole.dialog.is_some(), states.contains(&NeedsInput));
        }
    }

    #[test]
    fn phases() {
        let step = || "clone".to_owned();
        let error = || "no route".to_owned();
        for (phase, states, expected) in [
            (Phase::Booting { step: step() }, &[][..], Starting),
            (Phase::Booting { step: step() }, &[Working], Working),
            (Phase::WaitingForSpec, &[], Starting),
            (
                Phase::Failed {
                    step: step(),
                    error: error(),
                },
                &[],
                Stopped,
            ),
            (Phase::Stopping, &[], Stopped),
            (Phase::Stopping, &[Working], Working),
        ] {
            assert_eq!(whole(&phase, states).state, expected, "{phase:?}");
        }
    }

    #[test]
    fn a_stalled_session_beside_one_that_works_is_no_stall() {
        let mut stalled = verdict(Working);
        stalled.stalled = true;
        let working = verdict(Working);
        let mut container = Container::new(None, Moment::default());
        let now = Moment::from_millis(1);
        let both = container.update(now, &Phase::Ready, &[("a", &stalled), ("b", &working)]);
        assert!(!both.stalled);
        let alone = container.update(now, &Phase::Ready, &[("a", &stalled)]);
        assert!(alone.stalled);
    }

    #[test]
    fn idle_time_runs_from_the_end_of_work() {
        let mut container = Container::new(None, Moment::default());
        let at = Moment::from_millis;
        let (working, idle) = (verdict(Working), verdict(Idle));
        container.update(at(1_000), &Phase::Ready, &[("main", &working)]);
        let whole = container.update(at(1_500), &Phase::Ready, &[("main", &idle)]);
        assert_eq!(
            (whole.since, whole.idle),
            (at(1_500), Duration::from_millis(500))
        );
        let whole = container.update(at(9_000), &Phase::Ready, &[("main", &idle)]);
        assert_eq!(
            (whole.since, whole.idle),
            (at(1_500), Duration::from_secs(8))
        );
        let whole = container.update(at(9_500), &Phase::Ready, &[("main", &working)]);
        assert_eq!((whole.since, whole.idle), (at(9_500), Duration::ZERO));
    }

    #[test]
    fn the_last_word_of_an_earlier_supervisor_keeps_its_place() {
        let mut container = Container::new(Some(Idle), Moment::from_millis(7));
        let idle = verdict(Idle);
        let whole = container.update(Moment::from_millis(9), &Phase::Ready, &[("main", &idle)]);
        assert_eq!(whole.since, Moment::from_millis(7));
    }
}
