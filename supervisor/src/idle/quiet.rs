//! Since when nothing has happened, and whether that is long enough. Pure.
//!
//! The clock is one that stands still while the machine is suspended: a machine that was woken has just begun to be idle
//! again, however long it slept.

use std::time::Duration;

use tokio::time::Instant;
use whim_wire::state::{AgentState, Phase, StateObject};

/// See the module's header.
#[derive(Debug)]
pub(super) struct Quiet {
    after: Duration,
    /// None: somebody or something is busy.
    since: Option<Instant>,
    /// It was told of this quiet time.
    told: bool,
}

impl Quiet {
    pub(super) fn new(after: Duration) -> Self {
        Self {
            after,
            since: None,
            told: false,
        }
    }

    /// Takes a look. `Some`: it has been quiet for the idle time, and that is said for the first time.
    pub(super) fn see(&mut self, now: Instant, busy: bool) -> Option<Duration> {
        if busy {
            self.since = None;
            self.told = false;
            return None;
        }
        let quiet = now.saturating_duration_since(*self.since.get_or_insert(now));
        let reached = !self.told && quiet >= self.after;
        self.told |= reached;
        reached.then_some(quiet)
    }

    /// When to look again at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        let since = self.since.filter(|_| !self.told)?;
        Some(since + self.after)
    }
}

/// Whether somebody or something keeps the container busy: an agent that works, starts or waits for a person, a boot, a
/// reason to stay awake.
pub(super) fn is_busy(object: &StateObject) -> bool {
    let at_work = matches!(
        object.state,
        AgentState::Working | AgentState::NeedsInput | AgentState::Starting
    );
    at_work
        || object.phase != Phase::Ready
        || object.active_generations > 0
        || !object.keep_awake.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(900);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_told_once_when_the_time_is_over() {
        let start = Instant::now();
        let mut quiet = Quiet::new(AFTER);
        assert_eq!(quiet.due(), None);
        assert_eq!(quiet.see(start, false), None);
        assert_eq!(quiet.due(), Some(start + AFTER));
        assert_eq!(quiet.see(start + AFTER - SECOND, false), None);
        assert_eq!(quiet.see(start + AFTER, false), Some(AFTER));
        assert_eq!(quiet.see(start + AFTER * 2, false), None);
        assert_eq!(quiet.due(), None);
    }

    #[test]
    fn whatever_is_busy_begins_the_time_anew() {
        let start = Instant::now();
        let mut quiet = Quiet::new(AFTER);
        quiet.see(start, false);
        assert_eq!(quiet.see(start + AFTER, true), None);
        assert_eq!(quiet.due(), None);
        quiet.see(start + AFTER + SECOND, false);
        assert_eq!(quiet.see(start + AFTER * 2, false), None);
        assert!(quiet.see(start + AFTER * 2 + SECOND, false).is_some());
        // And the next idle time is told again.
        quiet.see(start + AFTER * 3, true);
        quiet.see(start + AFTER * 4, false);
        assert!(quiet.see(start + AFTER * 5, false).is_some());
    }

    #[test]
    fn what_counts_as_busy() {
        let idle: StateObject = serde_json::from_value(serde_json::json!({
            "version": 1, "state": "idle", "reason": "", "since": "2026-11-22T03:00:00.000Z",
            "at": "2026-11-22T03:00:00.000Z", "seq": 1, "phase": "ready", "stalled": false, "idle_s": 9,
            "keep_awake": [], "active_generations": 0, "supervisor": {"pid": 1, "restarts": 0, "version": ""},
            "sessions": [], "ports": [], "backup": {"last_ok": null, "pending_bytes": 0, "error": null},
        }))
        .unwrap();
        let with = |change: fn(&mut StateObject)| {
            let mut object = idle.clone();
            change(&mut object);
            is_busy(&object)
        };
        assert!(!is_busy(&idle));
        assert!(!with(|object| object.state = AgentState::Stopped));
        assert!(with(|object| object.state = AgentState::Working));
        assert!(with(|object| object.state = AgentState::NeedsInput));
        assert!(with(|object| object.keep_awake = vec!["a person".into()]));
        assert!(with(|object| object.active_generations = 1));
        assert!(with(
            |object| object.phase = Phase::Booting { step: "x".into() }
        ));
        assert!(with(|object| object.phase = Phase::WaitingForSpec));
    }
}
