//! Gives memory back: after a burst what it took, and when nobody works what only work needs.
//!
//! A turn, a boot and a page being opened run code that an idle container does not need. Once nothing has worked for two
//! beats in a row, its mappings and the allocator's free pages go back to the system: an agent may be idle for days.
//! And a thousand calls that begin at once leave their bodies' pages between what goes on, where the allocator would
//! keep them for as long as it runs: once the process has grown by [`GROWN`] they go back too.

use whim_entrypoint::resident;
use whim_wire::state::AgentState;

/// Beats at rest after which memory is given back: one could lie between two turns.
const BEATS: u32 = 2;

/// Growth after which the allocator's free pages are given back, in kB.
const GROWN: u64 = 4 * 1024;

/// Counts beats at rest.
#[derive(Debug, Default)]
pub struct Rest {
    beats: u32,
}

impl Rest {
    /// To be told the state at each beat; true once for each rest.
    pub fn begins(&mut self, state: AgentState) -> bool {
        match state {
            AgentState::Starting | AgentState::Working => self.beats = 0,
            AgentState::NeedsInput | AgentState::Idle | AgentState::Stopped => {
                self.beats = self.beats.saturating_add(1);
            }
        }
        self.beats == BEATS
    }
}

/// Tells growth from what is needed.
#[derive(Debug, Default)]
pub struct Growth {
    /// Resident kB after the last time, or the least since then.
    base: Option<u64>,
}

impl Growth {
    /// To be asked at each beat; gives back what grew and is not in use.
    pub async fn shrink(&mut self) {
        let Some(resident) = self::resident() else {
            return;
        };
        if !self.is_due(resident) {
            return;
        }
        // Not on a thread that carries events: the allocator is held until it is done.
        let trimmed = tokio::task::spawn_blocking(trim).await;
        let left = self::resident();
        tracing::debug!(
            before = resident,
            left,
            "memory is given back after growth, in kB"
        );
        if let (Ok(()), Some(left)) = (trimmed, left) {
            self.base = Some(left);
        }
    }

    fn is_due(&mut self, resident: u64) -> bool {
        let base = self.base.get_or_insert(resident);
        *base = resident.min(*base);
        resident > base.saturating_add(GROWN)
    }
}

/// Of this process, in kB; `None` without `/proc`.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    Some(pages * u64::try_from(page.ok()??).ok()? / 1024)
}

/// Gives back what is not in use; a failure costs only memory and is logged.
pub fn give_back() {
    if let Err(error) = resident::forget_code() {
        tracing::debug!(%error, "memory is not given back");
    }
    trim();
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the C library's allocator has no safe wrapper")]
fn trim() {
    // SAFETY: takes no pointers; the allocator locks itself.
    let _released = unsafe { nix::libc::malloc_trim(0) };
}

#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rest_begins_once_and_a_moment_between_turns_is_none() {
        use AgentState::{Idle, NeedsInput, Starting, Working};
        let mut rest = Rest::default();
        let states = [
            Starting, Idle, Working, Idle, NeedsInput, Idle, Working, Idle, Idle, Idle,
        ];
        let begun: Vec<usize> = states
            .into_iter()
            .enumerate()
            .filter_map(|(at, state)| rest.begins(state).then_some(at))
            .collect();
        assert_eq!(begun, [4, 8]);
    }

    #[test]
    fn what_stays_after_giving_back_is_not_given_back_again() {
        let mut growth = Growth::default();
        let due = [9_000, 9_000 + GROWN, 8_000, 8_001 + GROWN].map(|kb| growth.is_due(kb));
        assert_eq!(due, [false, false, false, true]);
        growth.base = Some(40_000);
        let due = [40_000, 40_000 + GROWN, 40_001 + GROWN].map(|kb| growth.is_due(kb));
        assert_eq!(due, [false, false, true]);
    }
}
