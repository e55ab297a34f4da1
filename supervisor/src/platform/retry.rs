//! When a call that failed is made again. Pure.
//!
//! The pause doubles from [`FIRST`] to [`LONGEST`] and is drawn from its upper half, so that a thousand containers that
//! lost the same platform do not come back in step. Where the platform itself names a time, it is not asked sooner.

use std::time::Duration;

use jiff::Timestamp;

/// Pause after the first failure.
pub(super) const FIRST: Duration = Duration::from_millis(500);
/// Longest pause of our own.
pub(super) const LONGEST: Duration = Duration::from_secs(60);
/// First pause after a refusal (401, 403, 404): a person must do something, but a token may just be on its way.
pub(super) const REFUSED: Duration = Duration::from_secs(8);
/// Longest `Retry-After` that is kept; a platform that says more meant something else.
pub(super) const ASKED_MOST: Duration = Duration::from_secs(3600);

/// What went wrong, as far as it matters for the pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No answer, or one that says: later.
    Passing,
    /// An answer that will stay the same until somebody changes something.
    Refused,
}

/// The failures in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure. `asked`: the platform's own wish. `random`: any number, evenly drawn.
    pub(super) fn failed(&mut self, kind: Kind, asked: Option<Duration>, random: u32) -> Duration {
        let base = match kind {
            Kind::Passing => FIRST,
            Kind::Refused => REFUSED,
        };
        let doubled = base.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1).min(31);
        let half = doubled.min(LONGEST) / 2;
        let drawn = half + half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        match asked.map(|asked| asked.min(ASKED_MOST)) {
            // A tenth on top, for the same reason.
            Some(asked) => {
                drawn.max(asked + (asked / 10).mul_f64(f64::from(random) / f64::from(u32::MAX)))
            }
            None => drawn,
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// `Retry-After` (RFC 9110 10.2.3): seconds, or a date. One that is in the past means now.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
    let left = at.as_millisecond().saturating_sub(now.as_millisecond());
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..40)
            .map(|_| backoff.failed(Kind::Passing, None, u32::MAX))
            .collect();
        assert_eq!(pauses[0], FIRST);
        assert_eq!(pauses[1], FIRST * 2);
        assert_eq!(pauses[39], LONGEST);
        assert!(pauses.is_sorted());
        backoff.succeeded();
        assert_eq!(backoff.failed(Kind::Passing, None, u32::MAX), FIRST);
    }

    #[test]
    fn every_draw_is_between_half_and_whole() {
        for random in [0, 1, u32::MAX / 2, u32::MAX] {
            let pause = Backoff { failures: 3 }.failed(Kind::Passing, None, random);
            assert!((FIRST * 4..=FIRST * 8).contains(&pause), "{pause:?}");
        }
        assert_eq!(Backoff::default().failed(Kind::Passing, None, 0), FIRST / 2);
        assert!(Backoff::default().failed(Kind::Refused, None, 0) >= REFUSED / 2);
    }

    #[test]
    fn the_platforms_wish_is_never_undercut_and_bounded() {
        let asked = Duration::from_secs(90);
        for random in [0, u32::MAX] {
            let pause = Backoff::default().failed(Kind::Passing, Some(asked), random);
            assert!(pause >= asked && pause <= asked * 11 / 10, "{pause:?}");
        }
        let year = Duration::from_secs(31_000_000);
        assert_eq!(
            Backoff::default().failed(Kind::Passing, Some(year), 0),
            ASKED_MOST
        );
        let tiny = Some(Duration::ZERO);
        assert_eq!(
            Backoff { failures: 20 }.failed(Kind::Passing, tiny, 0),
            LONGEST / 2
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let seconds = |text| retry_after(text, now).map(|pause| pause.as_secs());
        assert_eq!(seconds("120"), Some(120));
        assert_eq!(seconds("Sun, 22 Nov 2026 10:01:30 GMT"), Some(90));
        assert_eq!(seconds("Sun, 22 Nov 2026 09:00:00 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("-1"), None);
    }
}
