//! The terminals that exist, by name.
//!
//! Bounds: [`MAX_RUNNING`] running terminals; of those that have ended, the newest [`MAX_ENDED`] stay listed until they are
//! removed (CONTRACT §6c).

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use super::terminal::{Terminal, TerminalId};

/// Terminals that may run at once.
pub const MAX_RUNNING: usize = 128;
/// Ended terminals that stay listed.
pub const MAX_ENDED: usize = 32;

/// Why a terminal was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    #[error("a terminal named {0} exists already")]
    Exists(TerminalId),
    #[error("{MAX_RUNNING} terminals are running already")]
    TooMany,
}

/// See the module's header. Clones share the same terminals.
#[derive(Clone, Debug, Default)]
pub struct TerminalSet {
    terminals: Arc<Mutex<Vec<Terminal>>>,
    restarting: CancellationToken,
}

impl TerminalSet {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<Terminal>) -> T) -> T {
        act(&mut self
            .terminals
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    /// Lists a terminal under its name. An ended one of the same name is replaced.
    ///
    /// # Errors
    /// When a running one has the name, or too many run.
    pub fn add(&self, terminal: Terminal) -> Result<(), AddError> {
        self.with(|all| {
            let running = |terminal: &Terminal| terminal.status().exit.is_none();
            if all
                .iter()
                .any(|other| other.id() == terminal.id() && running(other))
            {
                return Err(AddError::Exists(terminal.id().clone()));
            }
            if all.iter().filter(|other| running(other)).count() >= MAX_RUNNING {
                return Err(AddError::TooMany);
            }
            all.retain(|other| other.id() != terminal.id());
            all.push(terminal);
            Self::forget_oldest(all);
            Ok(())
        })
    }

    fn forget_oldest(all: &mut Vec<Terminal>) {
        let ended = |terminal: &Terminal| terminal.status().exit.is_some();
        let mut over = all
            .iter()
            .filter(|terminal| ended(terminal))
            .count()
            .saturating_sub(MAX_ENDED);
        all.retain(|terminal| {
            let forget = over > 0 && ended(terminal);
            over -= usize::from(forget);
            !forget
        });
    }

    /// All terminals, in the order they were added.
    pub fn list(&self) -> Vec<Terminal> {
        self.with(|all| {
            Self::forget_oldest(all);
            all.clone()
        })
    }

    pub fn get(&self, id: &TerminalId) -> Option<Terminal> {
        self.with(|all| all.iter().find(|terminal| terminal.id() == id).cloned())
    }

    /// Takes a terminal off the list. Its engine goes on until its viewers have left.
    pub fn remove(&self, id: &TerminalId) -> Option<Terminal> {
        self.with(|all| {
            let place = all.iter().position(|terminal| terminal.id() == id)?;
            Some(all.remove(place))
        })
    }

    /// The supervisor is about to be replaced: viewers are told to come again (Close 1012).
    pub fn restart(&self) {
        self.restarting.cancel();
    }

    /// Done once [`TerminalSet::restart`] was called.
    pub fn restarting(&self) -> CancellationToken {
        self.restarting.clone()
    }
}
