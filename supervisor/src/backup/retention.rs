//! Which snapshots are kept, and when what they no longer name is removed.
//!
//! All of the last hour and the newest [`NEWEST`] in any case; then the newest of each of the last 24 hours that have any,
//! of each of the last thirty such days, and of every thirty days. The newest is always kept, and it holds everything, so
//! that thinning costs moments of the past and never a conversation.
//!
//! No clock is asked. Times are those of the ids, and hours and days without a snapshot do not count: a wall clock that
//! jumps by a year makes one more hour, and nothing that was saved right before it is a year old.
//!
//! A segment is removed when no snapshot names it and it is older than [`UNUSED`] by the store's own clock: another
//! container of the same task may be about to name it.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::manifest::SnapshotId;
use super::store::{Store, StoreError};

const HOUR: i64 = 60 * 60 * 1000;
const DAY: i64 = 24 * HOUR;
/// What an agent that works makes in an hour at the usual interval of half a minute.
const NEWEST: usize = 120;
/// Spans of which the newest snapshot stays, and how many that have one.
const SPANS: [(i64, usize); 3] = [(HOUR, 24), (DAY, 30), (30 * DAY, usize::MAX)];
/// Longer than any backup takes.
pub const UNUSED: Duration = Duration::from_secs(24 * 60 * 60);
/// Most snapshots that are looked at for segments they name; more are a reason to remove none.
const MAX_READ: usize = 2_000;

/// The snapshots that go, of these in rising order.
#[must_use]
pub fn superfluous(ids: &[SnapshotId]) -> Vec<SnapshotId> {
    let Some(newest) = ids.last() else {
        return Vec::new();
    };
    let now = newest.milliseconds();
    let mut spans = SPANS.map(|(span, most)| (span, most, BTreeSet::new()));
    let mut gone = Vec::new();
    // From the newest back: of each span the newest one stays.
    for (place, id) in ids.iter().rev().enumerate() {
        let at = id.milliseconds();
        let mut stays = place < NEWEST || now.saturating_sub(at) <= HOUR;
        for (span, most, taken) in &mut spans {
            stays |= taken.len() < *most && taken.insert(at.div_euclid(*span));
        }
        if !stays {
            gone.push(id.clone());
        }
    }
    gone
}

/// What a tidying removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub snapshots: usize,
    pub segments: usize,
}

/// Thins the task's snapshots and removes what none names any more.
///
/// # Errors
/// [`StoreError`]; what was removed until then was superfluous.
pub async fn tidy(store: &Store, unused: Duration) -> Result<Removed, StoreError> {
    let ids = store.list_manifests().await?;
    let gone = superfluous(&ids);
    for id in &gone {
        store.delete_manifest(id).await?;
    }
    let mut removed = Removed {
        snapshots: gone.len(),
        segments: 0,
    };
    // Before the snapshots: one that is written meanwhile names segments that are newer than this list.
    let segments = store.list_segments().await?;
    let newest = segments.iter().map(|segment| segment.modified).max();
    let unused = i64::try_from(unused.as_millis()).unwrap_or(i64::MAX);
    let old: Vec<_> = segments
        .iter()
        .filter(|segment| {
            let age = newest.map_or(0, |newest| {
                newest.as_millisecond() - segment.modified.as_millisecond()
            });
            age > unused
        })
        .collect();
    if old.is_empty() {
        return Ok(removed);
    }
    let ids = store.list_manifests().await?;
    if ids.len() > MAX_READ {
        return Ok(removed);
    }
    let mut named = HashSet::new();
    for id in &ids {
        // One that cannot be read may name anything: then nothing goes.
        let manifest = store.get_manifest(id).await?;
        named.extend(manifest.segments.into_iter().map(|segment| segment.name));
    }
    for segment in old {
        if !named.contains(&segment.name) {
            store.delete_segment(&segment.name).await?;
            removed.segments += 1;
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn id(at: i64) -> SnapshotId {
        let at = Timestamp::from_millisecond(at).unwrap();
        SnapshotId::after(None, at.into(), "0123abcd")
    }

    fn kept(ats: &[i64]) -> Vec<i64> {
        let ids: Vec<SnapshotId> = ats.iter().copied().map(id).collect();
        let gone = superfluous(&ids);
        let kept = ids.iter().filter(|id| !gone.contains(id));
        kept.map(SnapshotId::milliseconds).collect()
    }

    #[test]
    fn the_past_is_thinned() {
        let minute = HOUR / 60;
        let ats: Vec<i64> = (0..40 * 24 * 60).map(|n| n * minute).collect();
        let kept = kept(&ats);
        let newest = *ats.last().unwrap();
        let within = |from: i64, to: i64| {
            kept.iter()
                .filter(|at| (from..to).contains(&(newest - **at)))
                .count()
        };
        let dense = 2 * HOUR;
        assert_eq!(within(0, dense), 120);
        let hourly = within(dense, DAY);
        assert!((21..=22).contains(&hourly), "{hourly}");
        let daily = within(DAY, 30 * DAY);
        assert!((28..=30).contains(&daily), "{daily}");
        assert!(kept.len() < 180, "{}", kept.len());
        assert!(superfluous(&[]).is_empty());
    }

    /// Snapshots of forty days, one in ten minutes, and what is kept of them.
    fn usual() -> (Vec<i64>, Vec<i64>) {
        let ats: Vec<i64> = (0..40 * 24 * 6).map(|n| n * HOUR / 6).collect();
        let kept = kept(&ats);
        (ats, kept)
    }

    #[test]
    fn a_clock_that_jumps_ahead_makes_nothing_old() {
        let (mut ats, before) = usual();
        let last = *ats.last().unwrap();
        ats.push(last + 365 * DAY);
        let after = kept(&ats);
        let lost: Vec<i64> = before
            .iter()
            .filter(|at| !after.contains(at))
            .map(|at| (last - at) / HOUR)
            .collect();
        // As one more hour would: the last of each kind makes room.
        assert!(lost.len() <= 3, "hours before the jump: {lost:?}");
        let newest = ats.iter().rev().take(NEWEST);
        assert!(newest.into_iter().all(|at| after.contains(at)));
    }

    #[test]
    fn a_pause_of_a_year_costs_as_little() {
        let (ats, before) = usual();
        let pause = ats.last().unwrap() + 365 * DAY;
        let resumed: Vec<i64> = (0..6).map(|n| pause + n * HOUR / 6).collect();
        let after = kept(&[ats, resumed.clone()].concat());
        assert!(resumed.iter().all(|at| after.contains(at)));
        let lost = before.iter().filter(|at| !after.contains(at)).count();
        assert!(lost <= 9, "{lost}");
    }

    proptest! {
        #[test]
        fn the_newest_and_the_last_hour_always_stay(mut ats in proptest::collection::vec(0_i64..4_000_000_000_000, 1..60)) {
            ats.sort_unstable();
            ats.dedup();
            let newest = *ats.last().unwrap();
            let kept = kept(&ats);
            prop_assert!(ats.iter().filter(|at| newest - **at <= HOUR).all(|at| kept.contains(at)));
        }

        #[test]
        fn thinning_again_removes_nothing(mut ats in proptest::collection::vec(0_i64..10_000_000_000, 1..60)) {
            ats.sort_unstable();
            ats.dedup();
            let once = kept(&ats);
            prop_assert_eq!(&kept(&once), &once);
        }
    }
}
