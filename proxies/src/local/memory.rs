//! What requests showed about a server, so that the next one need not find out again.
//!
//! Remembered per port and program: a restart of the same program keeps it, another program starts afresh. Bounds:
//! [`MAX`] ports; the one beyond takes the place of any other, which then learns again.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use whim_wire::port::HostMode;

use super::rewrite::Guise;

const MAX: usize = 1024;

/// What is known of a program on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    program: u64,
    /// It refuses pages under the public name.
    pub(crate) pages_as_localhost: bool,
    /// It refuses upgrades and development resources under the public name (Next.js checks those only).
    pub(crate) internals_as_localhost: bool,
    /// Speaks TLS; none: nothing was answered yet.
    pub(crate) tls: Option<bool>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<u16, Known>,
}

#[derive(Debug, Default)]
pub(crate) struct Memory {
    state: Mutex<State>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one assignment; a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn of(&self, port: u16, program: u64) -> Known {
        self.state()
            .known
            .get(&port)
            .filter(|known| known.program == program)
            .copied()
            .unwrap_or_else(|| Known {
                program,
                ..Known::default()
            })
    }

    pub(crate) fn learn(&self, port: u16, program: u64, change: impl FnOnce(&mut Known)) {
        let mut state = self.state();
        if state.known.len() >= MAX
            && !state.known.contains_key(&port)
            && let Some(other) = state.known.keys().next().copied()
        {
            state.known.remove(&other);
        }
        let known = state.known.entry(port).or_default();
        if known.program != program {
            *known = Known {
                program,
                ..Known::default()
            };
        }
        change(known);
    }

    /// What to call the server in a request; `is_internal`: an upgrade or a development resource.
    pub(crate) fn guise(
        &self,
        mode: HostMode,
        port: u16,
        program: u64,
        is_internal: bool,
    ) -> Guise {
        let is_localhost = match mode {
            HostMode::Preserve => false,
            HostMode::Localhost => true,
            HostMode::Auto => {
                let known = self.of(port, program);
                known.pages_as_localhost || (is_internal && known.internals_as_localhost)
            }
        };
        if is_localhost {
            Guise::Localhost
        } else {
            Guise::Public
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_keeps_what_is_known_and_another_program_does_not() {
        let memory = Memory::default();
        memory.learn(3000, 7, |known| known.pages_as_localhost = true);
        let auto = HostMode::Auto;
        assert_eq!(memory.guise(auto, 3000, 7, false), Guise::Localhost);
        assert_eq!(memory.guise(auto, 3000, 8, false), Guise::Public);
        assert_eq!(memory.guise(auto, 3001, 7, false), Guise::Public);
        memory.learn(3000, 8, |known| known.internals_as_localhost = true);
        assert_eq!(memory.guise(auto, 3000, 8, false), Guise::Public);
        assert_eq!(memory.guise(auto, 3000, 8, true), Guise::Localhost);
        let (preserve, localhost) = (HostMode::Preserve, HostMode::Localhost);
        assert_eq!(memory.guise(preserve, 3000, 8, true), Guise::Public);
        assert_eq!(memory.guise(localhost, 3000, 9, false), Guise::Localhost);
    }

    #[test]
    fn memory_is_bounded() {
        let memory = Memory::default();
        for port in 1..=u16::try_from(MAX).unwrap() + 10 {
            memory.learn(port, 1, |known| known.tls = Some(true));
        }
        assert_eq!(memory.state().known.len(), MAX);
    }
}
