//! Sessions: each one agent at work. The container has `main` and may have more, each in a git worktree of its own.
//!
//! A session is one task that owns everything about it ([`actor`]); this module knows them by id and passes on what is
//! asked. Bounds: [`MOST`] sessions; [`ASKED`] questions wait for a session, a caller beyond waits too.

mod actor;
pub mod beginning;
mod companions;
mod evidence;
pub mod hooks;
mod launch;
mod oneshot;
mod plugins;
mod prompts;
pub mod record;
mod running;
pub mod shells;
mod tap;
mod terminal;
mod transcript;
mod worktree;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot as answer, watch};
use whim_wire::spec::{AgentKind, PermissionMode};
use whim_wire::state::{AgentState, SessionState};

pub use actor::{End, Input};
pub(crate) use companions::session_of_companion;
pub use evidence::Evidence;
pub use launch::{Adopted, Ground, Plan, StartError, Task, is_main, session_of};
pub(crate) use launch::{check, start};
pub use prompts::{Progress, Prompt, PromptError};
pub use record::{Record, Restored};

/// The session that every container has.
pub const MAIN: &str = "main";
/// Sessions at once; each agent takes hundreds of megabytes.
const MOST: usize = 32;
/// Sessions that are known, also those that ended.
const KNOWN: usize = 1024;
/// How long a question about a session waits for the boot's end.
const SETTLING: Duration = Duration::from_secs(5);
/// Questions that may wait for one session.
const ASKED: usize = 64;

/// What another session is started with; what is left out is as in the task.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSession {
    /// Its name; left out: `s2`, `s3`, … A restored session of this name goes on, with its agent's own session.
    pub id: Option<String>,
    pub agent: Option<AgentKind>,
    pub model: Option<String>,
    pub permission_mode: Option<PermissionMode>,
    pub effort: Option<String>,
    /// First prompt.
    pub prompt: Option<String>,
    /// argv of a `custom` agent.
    pub command: Option<Vec<String>>,
}

/// Why a session does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("there is no session {0:?}")]
    Unknown(String),
    #[error("session {0:?} exists already")]
    Exists(String),
    #[error("{MOST} sessions run already; stop one first")]
    TooMany,
    #[error("this container has had {KNOWN} sessions")]
    TooManyKnown,
    #[error("the boot is not done; wait for phase `ready`")]
    NotReady,
    #[error("session {0:?} does not run")]
    NotRunning(String),
    #[error("session {0:?} does not ask that (any more)")]
    NoDialog(String),
    #[error("{0}")]
    Invalid(String),
    #[error("the session cannot be started: {0}")]
    Start(String),
    #[error(transparent)]
    Prompt(#[from] PromptError),
    #[error("the session ended meanwhile")]
    Gone,
}

/// All sessions.
#[derive(Clone, Debug)]
pub struct Sessions {
    running: Arc<Mutex<BTreeMap<String, mpsc::Sender<Input>>>>,
    /// Set once the boot is done: what every session needs.
    ground: Arc<std::sync::OnceLock<Arc<Ground>>>,
    /// All sessions that there are at the boot's end, or were before this supervisor, are registered.
    settled: Arc<watch::Sender<bool>>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self::new()
    }
}

impl Sessions {
    #[must_use]
    pub fn new() -> Self {
        Self {
            running: Arc::default(),
            ground: Arc::default(),
            settled: Arc::new(watch::Sender::new(false)),
        }
    }

    /// From now on sessions can be started on this ground.
    pub fn open(&self, ground: Arc<Ground>) {
        // The boot runs once; a second ground would be a fault of ours and changes nothing.
        drop(self.ground.set(ground));
    }

    /// What sessions stand on, once the boot is done.
    pub(crate) fn ground(&self) -> Option<Arc<Ground>> {
        self.ground.get().cloned()
    }

    /// From now on a session that is not registered does not exist.
    pub(crate) fn settle(&self) {
        self.settled.send_replace(true);
    }

    /// Registers a session's task under its id.
    pub(crate) fn register(&self, id: &str) -> mpsc::Receiver<Input> {
        let (sender, receiver) = mpsc::channel(ASKED);
        self.lock().insert(id.to_owned(), sender);
        receiver
    }

    /// Starts another session beside `main`.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn create(&self, new: NewSession) -> Result<SessionState, SessionError> {
        let ground = self.ground.get().cloned().ok_or(SessionError::NotReady)?;
        if let Some(text) = &new.prompt {
            crate::agents::prompt::check(text).map_err(PromptError::from)?;
        }
        let live = |session: &SessionState| session.state != AgentState::Stopped;
        if ground.board.sessions().into_iter().filter(live).count() >= MOST {
            return Err(SessionError::TooMany);
        }
        let (id, inbox) = self.reserve(new.id.as_deref())?;
        let started = launch::beside(&ground, &id, new, inbox).await;
        if started.is_err() {
            self.lock().remove(&id);
        }
        started
    }

    fn reserve(
        &self,
        wanted: Option<&str>,
    ) -> Result<(String, mpsc::Receiver<Input>), SessionError> {
        let mut running = self.lock();
        if running.len() >= KNOWN {
            return Err(SessionError::TooManyKnown);
        }
        let id = match wanted {
            Some(id) => {
                check_id(id)?;
                if running.contains_key(id) {
                    return Err(SessionError::Exists(id.to_owned()));
                }
                id.to_owned()
            }
            None => (2..)
                .map(|number| format!("s{number}"))
                .find(|id| !running.contains_key(id))
                .unwrap_or_default(),
        };
        let (sender, receiver) = mpsc::channel(ASKED);
        running.insert(id.clone(), sender);
        Ok((id, receiver))
    }

    /// Queues a prompt.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn prompt(&self, id: &str, text: String) -> Result<Prompt, SessionError> {
        crate::agents::prompt::check(&text).map_err(PromptError::from)?;
        self.ask(id, |answer| Input::Prompt { text, answer })
            .await?
    }

    /// What became of a prompt.
    ///
    /// # Errors
    /// [`SessionError::Unknown`].
    pub async fn prompt_status(
        &self,
        id: &str,
        prompt: &str,
    ) -> Result<Option<Prompt>, SessionError> {
        let prompt = prompt.to_owned();
        self.ask(id, |answer| Input::PromptStatus { prompt, answer })
            .await
    }

    /// Interrupts the turn, if one is under way.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn interrupt(&self, id: &str) -> Result<(), SessionError> {
        self.ask(id, |answer| Input::Interrupt { answer }).await?
    }

    /// Ends the session and everything it left.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn stop(&self, id: &str) -> Result<(), SessionError> {
        self.ask(id, |answer| Input::Stop { answer }).await?
    }

    /// Ends the agent and starts it again on its own conversation, with the files and the environment of now. What it was
    /// doing is interrupted; prompts that wait are kept. Returns when it runs again.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn restart(&self, id: &str) -> Result<(), SessionError> {
        self.ask(id, |answer| Input::Restart { answer }).await?
    }

    /// Answers the dialog that the session shows.
    ///
    /// # Errors
    /// [`SessionError::NoDialog`] when it does not ask that (any more).
    pub async fn answer(
        &self,
        id: &str,
        dialog: &str,
        option: &serde_json::Value,
    ) -> Result<(), SessionError> {
        let (dialog, option) = (dialog.to_owned(), option.clone());
        self.ask(id, |answer| Input::Answer {
            dialog,
            option,
            answer,
        })
        .await?
    }

    /// Ids of all sessions.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Passes evidence on to the session it is about; that of an unknown one is dropped. False: it is lost, because the
    /// session is behind.
    pub fn observe(&self, id: &str, evidence: Evidence) -> bool {
        let Some(sender) = self.lock().get(id).cloned() else {
            return true;
        };
        match sender.try_send(Input::Evidence(evidence)) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(session = id, "evidence lost: the session is behind");
                false
            }
        }
    }

    /// As [`Self::observe`], for evidence that comes once: waits until the session takes it.
    pub async fn tell(&self, id: &str, evidence: Evidence) {
        let sender = self.lock().get(id).cloned();
        if let Some(sender) = sender {
            // One that ended needs it no more.
            drop(sender.send(Input::Evidence(evidence)).await);
        }
    }

    async fn ask<T>(
        &self,
        id: &str,
        input: impl FnOnce(answer::Sender<T>) -> Input,
    ) -> Result<T, SessionError> {
        let sender = match self.known(id) {
            Some(sender) => sender,
            // Taking up what runs is a matter of milliseconds; a boot may be one of minutes.
            None => {
                let mut settled = self.settled.subscribe();
                let settling = settled.wait_for(|settled| *settled);
                if tokio::time::timeout(SETTLING, settling).await.is_err() {
                    return Err(SessionError::NotReady);
                }
                self.known(id)
                    .ok_or_else(|| SessionError::Unknown(id.to_owned()))?
            }
        };
        let (answer, answered) = answer::channel();
        sender
            .send(input(answer))
            .await
            .map_err(|_| SessionError::Gone)?;
        answered.await.map_err(|_| SessionError::Gone)
    }

    fn known(&self, id: &str) -> Option<mpsc::Sender<Input>> {
        self.lock().get(id).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, mpsc::Sender<Input>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a session can have this name: it becomes a directory, a branch, a terminal and a part of a token.
pub(crate) fn check_id(id: &str) -> Result<(), SessionError> {
    let good = |character: char| {
        character.is_ascii_lowercase() || character.is_ascii_digit() || character == '-'
    };
    let begins = id.starts_with(|first: char| first.is_ascii_lowercase());
    if !begins || id.len() > 32 || !id.chars().all(good) {
        let message = format!(
            "id: {id:?} is no name of a session; use up to 32 lower-case letters, digits and `-`, beginning with a letter"
        );
        return Err(SessionError::Invalid(message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_safe_as_paths_and_branches() {
        for good in ["main", "s2", "a-b9"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "-x",
            "9",
            "A",
            "a_b",
            "a b",
            "ä",
            &"x".repeat(33),
            "a\n",
        ] {
            assert!(check_id(bad).is_err(), "{bad:?}");
        }
    }
}
