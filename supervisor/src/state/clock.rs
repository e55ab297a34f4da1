//! Where moments come from, and how they become wall-clock times.
//!
//! Wall-clock times are made when they are shown, from the age of a moment: a clock that is set right later sets them
//! right, too.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};
use whim_wire::time::Time;

use super::moment::Moment;

/// Now, on `CLOCK_BOOTTIME`.
///
/// # Errors
/// When the kernel has no such clock (before Linux 2.6.39).
pub fn now() -> nix::Result<Moment> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    Ok(Moment::from_boot(time))
}

/// The wall-clock time of `moment`, given both clocks' present.
#[must_use]
pub fn wall(moment: Moment, now: Moment, wall_now: Timestamp) -> Time {
    let age = SignedDuration::try_from(now - moment).unwrap_or(SignedDuration::MAX);
    wall_now.checked_sub(age).map_or(Time::EPOCH, Time::from)
}

/// The moment of a wall-clock time that a source gave. The future counts as now.
#[must_use]
pub fn moment(wall: Timestamp, now: Moment, wall_now: Timestamp) -> Moment {
    let age = wall_now.duration_since(wall);
    now - Duration::try_from(age).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let (present, wall_present) = (now().unwrap(), Timestamp::now());
        let minute = Duration::from_secs(60);
        let time = wall(present - minute, present, wall_present);
        let back = moment(time.timestamp(), present, wall_present);
        let apart = (present - minute) - back;
        assert!(apart.max(back - (present - minute)) < Duration::from_millis(2));
        let future = wall_present + SignedDuration::from_secs(5);
        assert_eq!(moment(future, present, wall_present), present);
        assert_eq!(
            wall(
                Moment::default(),
                Moment::from_boot(Duration::MAX),
                wall_present
            ),
            Time::EPOCH
        );
    }

    #[test]
    fn boot_time_rises() {
        assert!(now().unwrap() <= now().unwrap());
    }
}
