//! The time in snapshots' ids. Pure.
//!
//! It is the wall clock's as long as that goes on. When the wall clock was set back, it goes on from the last snapshot
//! with the clock since boot: what was taken in an hour stays an hour long, which is what [`super::retention`] thins by,
//! and the order stays that in which they were taken.

use std::time::Duration;

use jiff::Timestamp;
use whim_wire::time::Time;

use super::manifest::SnapshotId;
use crate::state::moment::Moment;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub wall: Time,
    pub boot: Moment,
}

impl Now {
    /// As the kernel has it.
    #[must_use]
    pub fn read() -> Self {
        Self {
            wall: crate::clock::now(),
            boot: crate::clock::boot_now(),
        }
    }
}

/// When the last snapshot was taken; none before the first one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace(Option<Last>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    /// Milliseconds since the epoch, as in its id.
    id: i64,
    boot: Moment,
}

impl Pace {
    /// The id of a snapshot that is taken now by this container: above `newest`, and as far from the last one as it was
    /// since then, or as the wall clock says if that is further.
    pub fn next(&mut self, now: Now, newest: Option<&SnapshotId>, container: &str) -> SnapshotId {
        let paced = self.0.map_or(i64::MIN, |last| {
            let since: Duration = now.boot - last.boot;
            let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            last.id.saturating_add(since)
        });
        let at = now.wall.as_millisecond().max(paced);
        let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::MAX);
        let id = SnapshotId::after(newest, at.into(), container);
        self.0 = Some(Last {
            id: id.milliseconds(),
            boot: now.boot,
        });
        id
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1000;
    const DAY: i64 = 24 * 60 * 60 * SECOND;
    const BEGIN: i64 = 1_795_000_000_000;

    fn now(wall: i64, boot: i64) -> Now {
        Now {
            wall: Timestamp::from_millisecond(wall).unwrap().into(),
            boot: Moment::from_millis(boot.unsigned_abs()),
        }
    }

    /// Times of the ids when the wall clock is off by so much at each second since boot.
    fn ids(offsets: &[i64]) -> Vec<i64> {
        let mut pace = Pace::default();
        let mut newest: Option<SnapshotId> = None;
        let mut ids = Vec::new();
        for (n, offset) in (0..).zip(offsets) {
            let now = now(BEGIN + n * SECOND + offset, n * SECOND);
            let id = pace.next(now, newest.as_ref(), "0123abcd");
            ids.push(id.milliseconds());
            newest = Some(id);
        }
        ids
    }

    #[test]
    fn a_day_back_is_not_told_by_the_ids() {
        let steady = ids(&[0; 6]);
        assert_eq!(ids(&[0, 0, -DAY, -DAY, -DAY, 0]), steady);
    }

    #[test]
    fn a_year_ahead_is_followed_and_nothing_stands_still_after_it() {
        let year = 365 * DAY;
        let found = ids(&[0, 0, year, 0, 0, 0]);
        let spans: Vec<i64> = found.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(spans, [SECOND, year + SECOND, SECOND, SECOND, SECOND]);
    }

    #[test]
    fn another_containers_snapshot_from_the_future_is_passed_and_time_goes_on() {
        let mut pace = Pace::default();
        let far = Timestamp::from_millisecond(BEGIN + DAY).unwrap();
        let theirs = SnapshotId::after(None, far.into(), "ffffffff");
        let first = pace.next(now(BEGIN, 0), Some(&theirs), "0123abcd");
        let second = pace.next(now(BEGIN + SECOND, SECOND), Some(&first), "0123abcd");
        assert_eq!(first.milliseconds(), BEGIN + DAY + 1);
        assert_eq!(second.milliseconds(), BEGIN + DAY + 1 + SECOND);
    }

    proptest! {
        #[test]
        fn whatever_the_wall_clock_does_ids_rise_at_least_as_time_does(
            offsets in proptest::collection::vec(prop_oneof![Just(0), -400 * DAY..400 * DAY], 1..40)
        ) {
            let found = ids(&offsets);
            prop_assert!(found.windows(2).all(|pair| pair[1] - pair[0] >= SECOND), "{found:?}");
        }
    }
}
