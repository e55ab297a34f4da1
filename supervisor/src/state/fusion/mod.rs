//! The fusion: dated evidence in, one state with a reason out.
//!
//! ```text
//! starting → working | idle | needs_input → stopped
//! ```
//!
//! [`Fusion`] folds the observations about one session and judges them when asked. It reads no clock and does no I/O;
//! the same observations and evaluation times always give the same verdicts. Sources by strength: the end of the
//! process; the agent's own word (status file, hooks); the wire; the process tree; the terminal. Each is optional, and
//! what a missing or lost one leaves open the weaker ones close, with a delay.
//!
//! Promises: a verdict holds until [`Fusion::next_deadline`] or the next observation, so nobody needs to poll. The state
//! goes from `working` to `idle` only after a settle time, so it cannot flap faster than three times a second. Work shows
//! at once. Observations may come late, twice or out of order.
//!
//! Time in which the machine or the supervisor stood still does not count against the agent: an evaluation that comes
//! later than asked for moves all waits by what was lost. Bounds: see the folds; all of it stays below 100 kB.

mod dialog;
mod evidence;
mod hooks;
mod inferred;
mod judge;
mod limits;
mod reason;
mod timers;
mod turn;
mod verdict;
mod wire;

#[cfg(test)]
mod tests;

use whim_wire::state::AgentState;

use super::moment::Moment;
use super::observation::{Observation, Profile};
use evidence::{Evidence, Life};
use limits::{BEAT, LATE, SETTLE};
use timers::{Dated, Lost, Timers};

pub use verdict::{Remembered, Verdict};

/// The fold for one session.
#[derive(Debug)]
pub struct Fusion {
    evidence: Evidence,
    verdict: Option<Verdict>,
    /// When to evaluate at the latest.
    due: Option<Moment>,
    /// When anything was last asked of it.
    ran: Moment,
    lost: Lost,
}

impl Fusion {
    /// For a session whose agent is not started yet.
    #[must_use]
    pub fn new(profile: Profile) -> Self {
        Self {
            evidence: Evidence::new(profile),
            verdict: None,
            due: None,
            ran: Moment::default(),
            lost: Lost::default(),
        }
    }

    /// For a session that an earlier supervisor left running. Its last word stands until evidence says otherwise.
    /// `running`: when the agent's process started.
    #[must_use]
    pub fn resume(profile: Profile, last: Remembered, running: Moment, now: Moment) -> Self {
        let mut fusion = Self::new(profile);
        fusion.evidence.life = Life::Running {
            since: running,
            pid: None,
        };
        fusion.verdict = Some(Verdict {
            state: last.state,
            reason: last.reason.clone(),
            since: now,
            credited: false,
            stalled: false,
            dialog: last.dialog.clone(),
            generations: 0,
            background: Vec::new(),
        });
        fusion.evidence.restored = Some(Dated {
            at: now,
            value: last,
        });
        fusion
    }

    /// Takes in what a source saw. `at`: when it was so; a date in the future counts as `now`.
    pub fn observe(&mut self, at: Moment, now: Moment, observation: Observation) {
        self.notice_lost_time(now);
        let before = self.evidence.began();
        self.evidence.observe(at.min(now), observation);
        let began = self.evidence.began();
        if began.is_some() && began != before {
            self.verdict = None;
        }
    }

    /// The state at `now`.
    pub fn evaluate(&mut self, now: Moment) -> Verdict {
        self.notice_lost_time(now);
        let mut timers = Timers::at(now, &self.lost);
        let (before, since) = match &self.verdict {
            Some(verdict) => (verdict.state, verdict.since),
            None => (AgentState::Starting, now),
        };
        let judged = judge::judge(&self.evidence, before, since, &mut timers);
        // However contradictory the sources, work that was shown is shown for the settle time.
        let judged = judged.filter(|judged| {
            let rest = before == AgentState::Working && judged.state == AgentState::Idle;
            !rest || timers.over(since, SETTLE)
        });
        let mut verdict = Verdict {
            state: before,
            reason: String::new(),
            since,
            credited: false,
            stalled: false,
            dialog: None,
            generations: u32::try_from(self.evidence.wire.in_flight.len()).unwrap_or(u32::MAX),
            background: Vec::new(),
        };
        match (judged, &self.verdict) {
            (Some(judged), _) => {
                verdict.state = judged.state;
                verdict.reason = judged.reason;
                verdict.stalled = judged.stalled;
                verdict.dialog = judged.dialog;
            }
            (None, Some(before)) => {
                verdict.reason.clone_from(&before.reason);
                verdict.dialog.clone_from(&before.dialog);
            }
            (None, None) => "the agent is starting".clone_into(&mut verdict.reason),
        }
        if verdict.state != before {
            verdict.since = now;
        }
        if verdict.state == AgentState::Idle {
            verdict.background = reason::background(&self.evidence);
        }
        self.due = timers.due().map(|due| due.min(now + BEAT));
        verdict.credited = verdict.state == AgentState::Working && self.is_credit(since, now);
        self.verdict = Some(verdict.clone());
        verdict
    }

    /// Whether the agent would rest if no prompt had been delivered.
    fn is_credit(&mut self, since: Moment, now: Moment) -> bool {
        let Some(prompt) = self.evidence.prompt.take() else {
            return false;
        };
        let newer = Some(prompt) > self.evidence.wire.last_start;
        let mut timers = Timers::at(now, &self.lost);
        let judged = judge::judge(&self.evidence, AgentState::Idle, since, &mut timers);
        self.evidence.prompt = Some(prompt);
        newer && judged.is_none_or(|judged| judged.state == AgentState::Idle)
    }

    /// When the last verdict may end by itself; none: only by an observation. At most 5 s ahead.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        self.due
    }

    fn notice_lost_time(&mut self, now: Moment) {
        if let Some(due) = self.due
            && now > due + LATE
        {
            self.lost.add(self.ran, now);
            // What was due is due now.
            self.due = Some(now);
        }
        self.ran = self.ran.max(now);
    }
}
