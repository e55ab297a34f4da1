//! When the next backup is due. Pure: whoever asks says what time it is.
//!
//! Times are [`Instant`]s, which no wall clock moves: a clock that is set neither holds a backup up nor hurries it.

use std::time::Duration;

use tokio::time::Instant;

/// Between two backups that turns' ends ask for.
const BREATH: Duration = Duration::from_secs(2);
/// After the first failure; doubled with each one more, up to [`LONGEST`].
const AGAIN: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(120);
/// From the first change to the backup: what is written together is saved together.
const SETTLE: Duration = Duration::from_millis(500);

/// See the module's header.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Between two backups that changes ask for.
    interval: Duration,
    at: Option<Instant>,
    /// When the last backup began.
    began: Option<Instant>,
    failures: u32,
}

impl Due {
    /// At once: there is what a supervisor before left undone.
    #[must_use]
    pub fn new(interval: Duration, now: Instant) -> Self {
        Self {
            interval,
            at: Some(now),
            began: None,
            failures: 0,
        }
    }

    /// When; none: until something happens.
    #[must_use]
    pub fn at(&self) -> Option<Instant> {
        self.at
    }

    /// The last one failed.
    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.failures > 0
    }

    /// A backup begins: for whatever asked for one.
    pub fn begin(&mut self, now: Instant) {
        self.at = None;
        self.began = Some(now);
    }

    /// Something changed.
    pub fn changed(&mut self, now: Instant) {
        self.ask(now + SETTLE, self.interval);
    }

    /// Somebody finished, and waits.
    pub fn turn_ended(&mut self, now: Instant) {
        self.ask(now, BREATH);
    }

    fn ask(&mut self, earliest: Instant, gap: Duration) {
        let due = self
            .began
            .map_or(earliest, |began| earliest.max(began + gap));
        // A store that takes nothing is not asked more often for it.
        if self.failures == 0 || self.at.is_none() {
            self.at = Some(self.at.map_or(due, |before| before.min(due)));
        }
    }

    /// The backup is in the store.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// It is not, and is tried again. `true`: the first time, until it works again.
    pub fn failed(&mut self, now: Instant) -> bool {
        let again = AGAIN.saturating_mul(1 << self.failures.min(8)).min(LONGEST);
        let news = self.failures == 0;
        self.failures = self.failures.saturating_add(1);
        self.at = Some(now + again);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn changes_are_saved_once_an_interval_and_turns_soon() {
        let begin = Instant::now();
        let mut due = Due::new(INTERVAL, begin);
        assert_eq!(due.at(), Some(begin));
        due.begin(begin);
        due.succeeded();
        assert_eq!(due.at(), None);
        due.changed(begin + SECOND);
        due.changed(begin + 2 * SECOND);
        assert_eq!(due.at(), Some(begin + INTERVAL));
        due.turn_ended(begin + SECOND);
        assert_eq!(due.at(), Some(begin + BREATH));
        // Long after the last one, only what is written together is waited for.
        due.begin(begin);
        due.changed(begin + 2 * INTERVAL);
        assert_eq!(due.at(), Some(begin + 2 * INTERVAL + SETTLE));
    }

    #[test]
    fn a_store_that_takes_nothing_is_asked_less_and_less() {
        let begin = Instant::now();
        let mut due = Due::new(INTERVAL, begin);
        let mut waits = Vec::new();
        for _ in 0..8 {
            due.begin(begin);
            let news = due.failed(begin);
            assert_eq!(news, waits.is_empty());
            // Changes do not hurry it.
            due.turn_ended(begin);
            waits.push((due.at().unwrap() - begin).as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 120, 120, 120]);
        due.begin(begin);
        due.succeeded();
        assert!(!due.is_retry() && due.failed(begin));
    }
}
