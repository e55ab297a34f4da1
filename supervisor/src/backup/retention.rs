//! Which snapshots are kept, and when what they no longer name is removed.
//!
//! All of the last hour, then one an hour for a day, one a day for thirty days, one a month. The newest is always kept,
//! and it holds everything, so that thinning costs moments of the past and never a conversation. Ages are measured
//! against the newest snapshot, not against a clock, which may have jumped.
//!
//! A segment is removed when no snapshot names it and it is older than [`UNUSED`] by the store's own clock: another
//! container of the same task may be about to name it.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use super::manifest::SnapshotId;
use super::store::{Store, StoreError};

const HOUR: i64 = 60 * 60 * 1000;
const DAY: i64 = 24 * HOUR;
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
    let mut taken = BTreeSet::new();
    let mut gone = Vec::new();
    // From the newest back: of each span the newest one stays.
    for id in ids.iter().rev() {
        let at = id.milliseconds();
        let age = now.saturating_sub(at);
        let span = if age <= HOUR {
            continue;
        } else if age <= DAY {
            HOUR
        } else if age <= 30 * DAY {
            DAY
        } else {
            30 * DAY
        };
        if !taken.insert((span, at.div_euclid(span))) {
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
        assert_eq!(within(0, HOUR + 1), 61);
        assert_eq!(within(HOUR + 1, DAY), 23);
        assert!(
            (29..=31).contains(&within(DAY + 1, 30 * DAY)),
            "{}",
            within(DAY + 1, 30 * DAY)
        );
        assert!(kept.len() < 130, "{}", kept.len());
        assert!(superfluous(&[]).is_empty());
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
