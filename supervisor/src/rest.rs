//! Gives memory back when nobody works.
//!
//! A turn, a boot and a page being opened run code that an idle container does not need. Once nothing has worked for two
//! beats in a row, its mappings and the allocator's free pages go back to the system: an agent may be idle for days.

use whim_entrypoint::resident;
use whim_wire::state::AgentState;

/// Beats at rest after which memory is given back: one could lie between two turns.
const BEATS: u32 = 2;

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
}
