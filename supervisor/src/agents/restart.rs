//! Whether an agent that ended comes back.
//!
//! A program that ends with 0 was told to (by `/exit`, by a person, by us) and stays ended. Any other end that nobody
//! asked for is a crash: the agent is started again and resumes its own session, at once the first time, then with a
//! growing delay, at most [`MAX_RESTARTS`] times in [`WINDOW`]; after that it stays `stopped` with the reason. A resumed
//! run that ends within [`SHORT_RUN`] may have found its session unusable (`No conversation found`): the one after it
//! begins a new session, so that the terminal does not die of a damaged transcript.
//!
//! What counts outlives the supervisor ([`RestartPolicy::remember`]), so that an agent and a supervisor that take turns
//! in crashing come to an end, too.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use whim_wire::time::Time;

use super::prompt::Moment;

/// Restarts within [`WINDOW`].
pub const MAX_RESTARTS: usize = 5;
/// How long a restart counts.
pub const WINDOW: Duration = Duration::from_secs(600);
/// A run so short did not get to work.
pub const SHORT_RUN: Duration = Duration::from_secs(10);
/// Delay of the second restart in a row; doubled from then on.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// As a shell shows it: the code, or 128 and the signal's number.
    #[must_use]
    pub const fn shell(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "signal {name}"),
                None => write!(f, "signal {signal}"),
            },
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    nix::sys::signal::Signal::try_from(signal)
        .ok()
        .map(nix::sys::signal::Signal::as_str)
}

/// What follows an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing; with the reason for the state.
    Stopped { reason: String },
    Restart {
        after: Duration,
        /// False: begin a new session, the old one cannot be resumed.
        resume: bool,
        reason: String,
    },
}

/// The restarts of one session.
#[derive(Clone, Debug, Default)]
pub struct RestartPolicy {
    /// When, oldest first; at most [`MAX_RESTARTS`].
    restarts: VecDeque<Moment>,
    resumed_short: u32,
}

/// What of a [`RestartPolicy`] is kept. Wall-clock times: no other clock outlives the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// When, oldest first.
    #[serde(default)]
    pub restarts: Vec<Time>,
    #[serde(default)]
    pub resumed_short: u32,
}

impl RestartPolicy {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Goes on where an earlier supervisor stopped; `now` and `wall` are the same moment. A restart that seems to lie in
    /// the future (the clock was set back) counts as one of now, one from before the machine's boot as one of the boot.
    #[must_use]
    pub fn restore(counted: &Counted, now: Moment, wall: Time) -> Self {
        let age = |at: &Time| {
            let age = wall.as_millisecond().saturating_sub(at.as_millisecond());
            Duration::from_millis(u64::try_from(age).unwrap_or(0))
        };
        let recent = counted.restarts.iter().map(age).filter(|age| *age < WINDOW);
        let mut restarts: VecDeque<Moment> = recent.map(|age| now.saturating_sub(age)).collect();
        while restarts.len() > MAX_RESTARTS {
            restarts.pop_front();
        }
        Self {
            restarts,
            resumed_short: counted.resumed_short,
        }
    }

    /// What the next supervisor must know; `now` and `wall` are the same moment.
    #[must_use]
    pub fn remember(&self, now: Moment, wall: Time) -> Counted {
        let restarts = self.restarts.iter().map(|&at| {
            let age = SignedDuration::try_from(now.saturating_sub(at)).unwrap_or_default();
            let at = wall.timestamp().checked_sub(age);
            at.map_or(wall, Time::from)
        });
        Counted {
            restarts: restarts.collect(),
            resumed_short: self.resumed_short,
        }
    }

    /// Restarts that still count.
    #[must_use]
    pub fn recent(&self, now: Moment) -> usize {
        self.restarts
            .iter()
            .filter(|&&at| now.saturating_sub(at) < WINDOW)
            .count()
    }

    /// The agent ended. `asked`: by us, or by a person who stopped the session; `started`: when this run began;
    /// `resumable`: the agent's own session id is known.
    pub fn ended(
        &mut self,
        exit: Exit,
        asked: bool,
        started: Moment,
        resumable: bool,
        now: Moment,
    ) -> Decision {
        if asked {
            return Decision::Stopped {
                reason: format!("stopped ({exit})"),
            };
        }
        if exit == Exit::Code(0) {
            return Decision::Stopped {
                reason: "the agent ended".into(),
            };
        }
        while self
            .restarts
            .front()
            .is_some_and(|&at| now.saturating_sub(at) >= WINDOW)
        {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= MAX_RESTARTS {
            return Decision::Stopped {
                reason: format!(
                    "the agent crashed again ({exit}) after {MAX_RESTARTS} restarts in {} min",
                    WINDOW.as_secs() / 60
                ),
            };
        }
        if now.saturating_sub(started) < SHORT_RUN && !self.restarts.is_empty() {
            self.resumed_short = self.resumed_short.saturating_add(1);
        } else {
            self.resumed_short = 0;
        }
        let in_a_row = u32::try_from(self.restarts.len()).unwrap_or(u32::MAX);
        let after = match in_a_row.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST_DELAY * 2_u32.pow(doublings.min(8)),
        };
        self.restarts.push_back(now);
        Decision::Restart {
            after,
            resume: resumable && self.resumed_short == 0,
            reason: format!(
                "the agent crashed ({exit}); restart {} of {MAX_RESTARTS}",
                self.restarts.len()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CRASH: Exit = Exit::Signal(11);

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn restart(decision: &Decision) -> (u64, bool) {
        match decision {
            Decision::Restart { after, resume, .. } => (after.as_secs(), *resume),
            Decision::Stopped { reason } => panic!("{reason}"),
        }
    }

    #[test]
    fn a_good_or_wanted_end_is_an_end() {
        let mut policy = RestartPolicy::new();
        for (exit, asked) in [
            (Exit::Code(0), false),
            (Exit::Code(1), true),
            (Exit::Signal(15), true),
        ] {
            let decision = policy.ended(exit, asked, at(0), true, at(50));
            assert!(matches!(decision, Decision::Stopped { .. }), "{exit}");
        }
        assert_eq!(policy.recent(at(50)), 0);
    }

    #[test]
    fn crashes_are_resumed_with_growing_delays_then_stopped_with_the_reason() {
        let mut policy = RestartPolicy::new();
        let mut delays = Vec::new();
        for crash in 1..=5 {
            let decision = policy.ended(CRASH, false, at(60 * crash - 30), true, at(60 * crash));
            delays.push(restart(&decision));
        }
        assert_eq!(
            delays,
            [(0, true), (1, true), (2, true), (4, true), (8, true)]
        );
        let last = policy.ended(CRASH, false, at(330), true, at(360));
        assert_eq!(
            last,
            Decision::Stopped {
                reason: "the agent crashed again (signal SIGSEGV) after 5 restarts in 10 min"
                    .into()
            }
        );
        // The first of them is ten minutes old: one more may be.
        assert!(matches!(
            policy.ended(CRASH, false, at(600), true, at(660)),
            Decision::Restart { .. }
        ));
    }

    #[test]
    fn a_session_that_cannot_be_resumed_is_begun_anew() {
        let mut policy = RestartPolicy::new();
        assert!(restart(&policy.ended(CRASH, false, at(0), true, at(100))).1);
        assert!(!restart(&policy.ended(Exit::Code(1), false, at(100), true, at(101))).1);
        assert!(restart(&policy.ended(CRASH, false, at(102), true, at(300))).1);
        let mut policy = RestartPolicy::new();
        assert!(!restart(&policy.ended(CRASH, false, at(0), false, at(100))).1);
    }

    fn wall(seconds: i64) -> Time {
        jiff::Timestamp::from_second(1_795_000_000 + seconds)
            .unwrap()
            .into()
    }

    #[test]
    fn a_supervisor_that_crashes_too_forgets_no_restart() {
        let mut counted = Counted::default();
        let mut delays = Vec::new();
        for crash in 1..=5_u32 {
            // Another supervisor each time, on a machine that counts from another boot.
            let now = at(10_000 + 7 * u64::from(crash));
            let clock = wall(7 * i64::from(crash));
            let mut policy = RestartPolicy::restore(&counted, now, clock);
            delays.push(restart(&policy.ended(CRASH, false, now - at(60), true, now)).0);
            counted = policy.remember(now, clock);
            let json = serde_json::to_vec(&counted).unwrap();
            assert_eq!(serde_json::from_slice::<Counted>(&json).unwrap(), counted);
        }
        assert_eq!(delays, [0, 1, 2, 4, 8]);
        let after = |seconds: i64| {
            let mut policy = RestartPolicy::restore(&counted, at(50_000), wall(seconds));
            policy.ended(CRASH, false, at(49_000), true, at(50_000))
        };
        assert!(matches!(after(60), Decision::Stopped { .. }));
        // Set back: nothing is forgotten before its time.
        assert!(matches!(after(-500), Decision::Stopped { .. }));
        assert!(
            matches!(after(608), Decision::Restart { .. }),
            "the first is ten minutes old"
        );
    }

    #[test]
    fn damaged_counts_stay_within_bounds() {
        let counted = Counted {
            restarts: vec![wall(0); 1_000],
            resumed_short: u32::MAX,
        };
        let policy = RestartPolicy::restore(&counted, at(1), wall(1));
        assert_eq!(policy.recent(at(1)), MAX_RESTARTS);
    }

    #[test]
    fn ends_read_well() {
        assert_eq!(Exit::Signal(9).to_string(), "signal SIGKILL");
        assert_eq!(Exit::Signal(40).to_string(), "signal 40");
        assert_eq!((Exit::Code(3).shell(), Exit::Signal(9).shell()), (3, 137));
    }

    proptest! {
        #[test]
        fn never_more_than_five_in_ten_minutes(gaps in prop::collection::vec(0..400_u64, 0..60)) {
            let mut policy = RestartPolicy::new();
            let mut now = 0;
            let mut restarts: Vec<u64> = Vec::new();
            for gap in gaps {
                now += gap;
                if let Decision::Restart { .. } = policy.ended(CRASH, false, at(now - gap), true, at(now)) {
                    restarts.push(now);
                }
            }
            for window in restarts.windows(MAX_RESTARTS + 1) {
                prop_assert!(window[MAX_RESTARTS] - window[0] >= WINDOW.as_secs());
            }
        }
    }
}
