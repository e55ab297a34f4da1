//! The one claim of a warm container: it waits for its task, takes the first valid one, and refuses every other.

use std::sync::Mutex;
use std::sync::PoisonError;

use tokio::sync::{mpsc, oneshot};

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
    /// The container ends, or its supervisor is replaced by one that waits anew.
    #[error("the spec could not be remembered; ask again")]
    NotRemembered,
}

/// What the container is to do, and who waits for the word that it is remembered.
#[derive(Debug)]
pub struct Claimed {
    pub resolved: Resolved,
    pub remembered: oneshot::Sender<()>,
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
        task: mpsc::Sender<Claimed>,
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
    pub fn open(given: Given) -> (Self, mpsc::Receiver<Claimed>) {
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

    /// Takes the spec, if it is the first and valid. A mistake leaves the container waiting. Once this returns, a crash of
    /// the supervisor does not lose it.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub async fn claim(&self, spec: Vec<u8>) -> Result<(), ClaimError> {
        self.take(&spec)?
            .await
            .map_err(|_| ClaimError::NotRemembered)
    }

    /// Resolves when the spec is remembered.
    fn take(&self, spec: &[u8]) -> Result<oneshot::Receiver<()>, ClaimError> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting::Yes { given, task } = &*waiting else {
            return Err(if matches!(*waiting, Waiting::No) {
                ClaimError::NotWaiting
            } else {
                ClaimError::Taken
            });
        };
        let resolved = given.resolve(Some(spec))?;
        let (remembered, known) = oneshot::channel();
        // The channel has room for the one that is ever sent.
        drop(task.try_send(Claimed {
            resolved,
            remembered,
        }));
        *waiting = Waiting::Taken;
        Ok(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Variables;

    #[tokio::test]
    async fn a_claim_is_answered_once_it_is_remembered() {
        let arguments = ["--wait-for-spec".into()];
        for remembers in [true, false] {
            let given = Given::parse(&arguments, Variables::new([])).unwrap();
            let (claim, mut task) = Claim::open(given);
            let spec = br#"{"version": 1, "agent": {"kind": "custom", "command": ["true"]}}"#;
            assert!(matches!(
                claim.claim(b"{".to_vec()).await,
                Err(ClaimError::Invalid(_))
            ));
            let mut answer = std::pin::pin!(claim.claim(spec.to_vec()));
            assert!(futures_util::poll!(answer.as_mut()).is_pending());
            let claimed = task.recv().await.unwrap();
            assert!(futures_util::poll!(answer.as_mut()).is_pending());
            if remembers {
                claimed.remembered.send(()).unwrap();
                assert!(answer.await.is_ok());
            } else {
                drop(claimed);
                assert!(matches!(answer.await, Err(ClaimError::NotRemembered)));
            }
            assert!(matches!(
                claim.claim(spec.to_vec()).await,
                Err(ClaimError::Taken)
            ));
        }
    }
}
