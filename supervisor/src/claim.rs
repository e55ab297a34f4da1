//! The one claim of a warm container: it waits for its task, takes the first valid one, and refuses every other.

use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::mpsc;

use crate::config::{Given, Invalid, Resolved};

/// Why a spec is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("this container does not wait for a spec; start it with --wait-for-spec")]
    NotWaiting,
    #[error("this container has its task already")]
    Taken,
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// See the module's header.
#[derive(Debug)]
pub struct Claim {
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
enum Waiting {
    No,
    Yes {
        given: Box<Given>,
        task: mpsc::Sender<Resolved>,
    },
    Taken,
}

impl Claim {
    /// For a container that has its task from the start.
    #[must_use]
    pub fn none() -> Self {
        Self {
            waiting: Mutex::new(Waiting::No),
        }
    }

    /// For a warm one; the task comes out of the receiver.
    #[must_use]
    pub fn open(given: Given) -> (Self, mpsc::Receiver<Resolved>) {
        let (task, receiver) = mpsc::channel(1);
        (
            Self {
                waiting: Mutex::new(Waiting::Yes {
                    given: Box::new(given),
                    task,
                }),
            },
            receiver,
        )
    }

    /// Takes the spec, if it is the first and valid. A mistake leaves the container waiting.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn claim(&self, spec: Vec<u8>) -> Result<(), ClaimError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting::Yes { given, task } = &*waiting else {
            return Err(if matches!(*waiting, Waiting::No) {
                ClaimError::NotWaiting
            } else {
                ClaimError::Taken
            });
        };
        let resolved = given.resolve(Some(&spec))?;
        // The channel has room for the one that is ever sent.
        drop(task.try_send(resolved));
        *waiting = Waiting::Taken;
        Ok(())
    }
}
