//! Points in time for evidence: time since the machine's boot, suspension included.
//!
//! That is `CLOCK_BOOTTIME`, the clock in which `/proc/PID/stat` gives start times. It never steps back, whatever
//! happens to the wall clock.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    #[must_use]
    pub const fn from_boot(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    #[must_use]
    pub const fn from_millis(since_boot: u64) -> Self {
        Self(Duration::from_millis(since_boot))
    }

    #[must_use]
    pub const fn since_boot(self) -> Duration {
        self.0
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    /// Stops at the boot.
    fn sub(self, ago: Duration) -> Self {
        Self(self.0.saturating_sub(ago))
    }
}

impl Sub for Moment {
    type Output = Duration;

    /// How much later `self` is; zero if it is not.
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A duration as a sentence says it: `83 s`, `4 min`, `2 h 5 min`.
#[derive(Clone, Copy, Debug)]
pub struct Spoken(pub Duration);

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let minutes = seconds / 60;
        match (seconds, minutes) {
            (..120, _) => write!(f, "{seconds} s"),
            (_, ..120) => write!(f, "{minutes} min"),
            _ => write!(f, "{} h {} min", minutes / 60, minutes % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spoken() {
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_199, "119 min"),
            (7_500, "2 h 5 min"),
        ] {
            assert_eq!(Spoken(Duration::from_secs(seconds)).to_string(), text);
        }
    }
}
