//! The clocks: wall time for what people and programs read, and the boot clock for ages.

use jiff::Timestamp;
use whim_wire::time::Time;

use crate::state::moment::Moment;

/// Wall-clock time, for anything that leaves the process.
#[must_use]
pub fn now() -> Time {
    Timestamp::now().into()
}

/// Whole seconds from `earlier` to `later`; 0 when the clock was set back in between.
#[must_use]
pub fn seconds_between(earlier: Time, later: Time) -> u64 {
    u64::try_from((later.as_millisecond() - earlier.as_millisecond()) / 1000).unwrap_or(0)
}

/// Waits until then; for ever without a time.
pub async fn until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Time since the machine's boot, suspension included. Every kernel since 2.6.39 has this clock; without it ages are 0.
#[must_use]
pub fn boot_now() -> Moment {
    crate::state::clock::now().unwrap_or_default()
}
