//! The task that owns the state: it takes observations and facts, and says what changed.
//!
//! ```text
//! sources ──observe──▶ monitor ──▶ watch of the state object (files, API, CLI)
//! modules ──facts────▶         ──▶ journal: state.changed
//! ```
//!
//! It sleeps until something arrives, a verdict may end by itself, or a look at the process tree is due. Observations
//! and facts come through one queue of [`MAX_QUEUED`]; a sender waits while it is full ([`Handle::observe`]) or learns
//! that its news was dropped ([`Handle::try_observe`], for what comes again anyway: output, progress, looks). The state
//! goes out through a watch channel, which holds only the newest. At most [`MAX_SESSIONS`] sessions are followed.

mod object;
mod session;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use whim_wire::state::{AgentState, Phase, StateObject};

use super::clock;
use super::combine::{Container, Whole};
use super::fusion::Fusion;
use super::memory::Memory;
use super::moment::Moment;
use super::observation::Observation;
use super::tree::{Table, Top, TreeError};
use crate::journal::Journal;
use session::Session;

pub use object::{Facts, SessionFacts};

/// Most observations and facts that wait.
pub const MAX_QUEUED: usize = 1_024;
/// Most sessions at a time.
pub const MAX_SESSIONS: usize = 64;
/// What is taken from the queue before the state is judged again.
const BATCH: usize = 128;

/// How long a supervisor may take to find the sessions of the one before.
const SEARCH: Duration = Duration::from_secs(10);

/// Why the monitor did not do as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MonitorError {
    #[error("the state is no longer watched: the supervisor is ending")]
    Ended,
    #[error("session {0} cannot be watched: there are {MAX_SESSIONS} already")]
    TooMany(Arc<str>),
    #[error("session {0} is watched already")]
    Known(Arc<str>),
    #[error("the kernel gives no time since boot")]
    Clock,
}

type Change = Box<dyn FnOnce(&mut Facts) + Send>;

enum Command {
    Open {
        id: Arc<str>,
        facts: SessionFacts,
        fusion: Box<Fusion>,
        answer: oneshot::Sender<Result<(), MonitorError>>,
    },
    Top {
        id: Arc<str>,
        top: Option<Top>,
    },
    Close {
        id: Arc<str>,
    },
    Observe {
        id: Arc<str>,
        at: Moment,
        observation: Observation,
    },
    Facts(Change),
}

/// What others hold of the monitor.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<Arc<StateObject>>,
}

impl Handle {
    /// The state, now and whenever it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Arc<StateObject>> {
        self.state.clone()
    }

    /// Watches a new session; the first one opened speaks first.
    ///
    /// # Errors
    /// When it is watched already, there are too many, or the monitor has ended.
    pub async fn open(
        &self,
        id: Arc<str>,
        facts: SessionFacts,
        fusion: Fusion,
    ) -> Result<(), MonitorError> {
        let (answer, answered) = oneshot::channel();
        let fusion = Box::new(fusion);
        self.send(Command::Open {
            id,
            facts,
            fusion,
            answer,
        })
        .await?;
        answered.await.unwrap_or(Err(MonitorError::Ended))
    }

    /// Where the processes of a session are to be looked for; none: nowhere.
    ///
    /// # Errors
    /// When the monitor has ended.
    pub async fn top(&self, id: Arc<str>, top: Option<Top>) -> Result<(), MonitorError> {
        self.send(Command::Top { id, top }).await
    }

    /// Forgets a session.
    ///
    /// # Errors
    /// When the monitor has ended.
    pub async fn close(&self, id: Arc<str>) -> Result<(), MonitorError> {
        self.send(Command::Close { id }).await
    }

    /// Hands over what a source saw at `at`; waits while the queue is full. Unknown sessions are ignored.
    ///
    /// # Errors
    /// When the monitor has ended.
    pub async fn observe(
        &self,
        id: Arc<str>,
        at: Moment,
        observation: Observation,
    ) -> Result<(), MonitorError> {
        self.send(Command::Observe {
            id,
            at,
            observation,
        })
        .await
    }

    /// As [`Self::observe`], without waiting: false if it was dropped.
    #[must_use]
    pub fn try_observe(&self, id: Arc<str>, at: Moment, observation: Observation) -> bool {
        let command = Command::Observe {
            id,
            at,
            observation,
        };
        self.commands.try_send(command).is_ok()
    }

    /// Changes what the state object says beside the agents' states. `change` runs on the monitor's task: quickly, please.
    ///
    /// # Errors
    /// When the monitor has ended.
    pub async fn facts(
        &self,
        change: impl FnOnce(&mut Facts) + Send + 'static,
    ) -> Result<(), MonitorError> {
        self.send(Command::Facts(Box::new(change))).await
    }

    async fn send(&self, command: Command) -> Result<(), MonitorError> {
        (self.commands.send(command).await).map_err(|_| MonitorError::Ended)
    }
}

/// The task before it runs.
#[derive(Debug)]
pub struct Monitor {
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<Arc<StateObject>>,
    journal: Journal,
    memory: PathBuf,
    remembered: Memory,
    container: Container,
    /// What the journal knows.
    told: Option<Whole>,
    /// How long the last word of an earlier supervisor stands without any session.
    search_until: Moment,
    since: object::Since,
    facts: Facts,
    sessions: Vec<Session>,
    look: Option<JoinHandle<Result<Table, TreeError>>>,
    looked: Moment,
}

impl Monitor {
    /// `memory`: the file for the next supervisor; `remembered`: what the last one left there.
    ///
    /// # Errors
    /// When the kernel gives no time since boot.
    pub fn new(
        facts: Facts,
        journal: Journal,
        memory: PathBuf,
        remembered: Memory,
    ) -> Result<(Self, Handle), MonitorError> {
        let now = clock::now().map_err(|_| MonitorError::Clock)?;
        let mut container = Container::new(remembered.state, now);
        // With sessions still to be found, the last word stands as it was.
        let (whole, told) = match remembered.state {
            Some(_) => {
                let whole = Whole::remembered(&remembered, now);
                (whole.clone(), Some(whole))
            }
            None => (container.update(now, &facts.phase, &[]), None),
        };
        let since = object::Since::new(now, Timestamp::now());
        let first = object::compose(&facts, &whole, since, &[], journal.position());
        let (state, states) = watch::channel(Arc::new(first));
        let (sender, commands) = mpsc::channel(MAX_QUEUED);
        let handle = Handle {
            commands: sender,
            state: states,
        };
        let monitor = Self {
            commands,
            state,
            journal,
            memory,
            remembered,
            container,
            told,
            search_until: now + SEARCH,
            since,
            facts,
            sessions: Vec::new(),
            look: None,
            looked: Moment::default(),
        };
        Ok((monitor, handle))
    }

    /// Runs until `shutdown`, or until all handles are gone.
    ///
    /// # Errors
    /// When the kernel gives no time since boot.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), MonitorError> {
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let now = clock::now().map_err(|_| MonitorError::Clock)?;
            self.judge(now);
            let due = Self::sleep(self.due(), now);
            let look_due = Self::sleep(self.look_due(), now);
            let looking = self.look.is_some();
            tokio::select! {
                () = &mut shutdown => return Ok(()),
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command)?,
                    None => return Ok(()),
                },
                () = due => {}
                () = look_due, if !looking => {
                    self.look = Some(tokio::task::spawn_blocking(move || {
                        Table::read(clock::now().unwrap_or(now))
                    }));
                }
                table = finished(&mut self.look), if looking => self.looked(table)?,
            }
        }
    }

    fn take(&mut self, first: Command) -> Result<(), MonitorError> {
        let now = clock::now().map_err(|_| MonitorError::Clock)?;
        self.apply(first, now);
        for _ in 1..BATCH {
            match self.commands.try_recv() {
                Ok(command) => self.apply(command, now),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn apply(&mut self, command: Command, now: Moment) {
        match command {
            Command::Open {
                id,
                facts,
                fusion,
                answer,
            } => {
                let opened = if self.find(&id).is_some() {
                    Err(MonitorError::Known(id))
                } else if self.sessions.len() >= MAX_SESSIONS {
                    Err(MonitorError::TooMany(id))
                } else {
                    self.facts.sessions.insert(id.to_string(), facts);
                    self.sessions.push(Session::new(id, *fusion));
                    Ok(())
                };
                // Who asked may have given up meanwhile.
                let _gone = answer.send(opened);
            }
            Command::Top { id, top } => {
                if let Some(session) = self.find(&id) {
                    session.look_beneath(top);
                }
            }
            Command::Close { id } => {
                self.sessions.retain(|session| session.id != id);
                self.facts.sessions.remove(&*id);
            }
            Command::Observe {
                id,
                at,
                observation,
            } => {
                if let Some(facts) = self.facts.sessions.get_mut(&*id) {
                    facts.observe(&observation);
                }
                if let Some(session) = self.find(&id) {
                    session.fusion.observe(at, now, observation);
                }
            }
            Command::Facts(change) => change(&mut self.facts),
        }
    }

    fn looked(
        &mut self,
        table: Result<Result<Table, TreeError>, tokio::task::JoinError>,
    ) -> Result<(), MonitorError> {
        self.look = None;
        let now = clock::now().map_err(|_| MonitorError::Clock)?;
        self.looked = now;
        match table {
            Ok(Ok(table)) => {
                for session in &mut self.sessions {
                    session.look(&table, now);
                }
            }
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "cannot look at the processes");
            }
            Err(error) => tracing::warn!(%error, "the look at the processes ended early"),
        }
        Ok(())
    }

    /// Judges all sessions and publishes what is new.
    fn judge(&mut self, now: Moment) {
        let wall = Timestamp::now();
        let mut news = false;
        for session in &mut self.sessions {
            if let Some(draft) = session.judge(now, wall) {
                news = true;
                append(&self.journal, draft);
            }
        }
        let verdicts: Vec<_> = (self.sessions.iter())
            .filter_map(|session| Some((&*session.id, session.fusion.last()?)))
            .collect();
        // Until the sessions of an earlier supervisor are found again, its word stands.
        let searching = self.remembered.state.is_some()
            && verdicts.is_empty()
            && now < self.search_until
            && matches!(self.facts.phase, Phase::Booting { .. } | Phase::Ready);
        let whole = if searching {
            Whole::remembered(&self.remembered, self.container.since())
        } else {
            self.remembered.state = None;
            self.container.update(now, &self.facts.phase, &verdicts)
        };
        self.since.update(whole.since, now, wall);
        if (self.told.as_ref()).is_none_or(|told| whole.differs(told)) {
            news = true;
            if let Some(draft) = object::changed(None, &whole, self.since.wall(), wall) {
                append(&self.journal, draft);
            }
            self.told = Some(whole.clone());
        }
        if news {
            self.keep(whole.state);
        }
        let seq = self.journal.appended();
        let object = object::compose(&self.facts, &whole, self.since, &self.sessions, seq);
        self.state.send_if_modified(|before| {
            let modified = !object::same(before, &object);
            if modified {
                *before = Arc::new(object);
            }
            modified
        });
    }

    fn keep(&self, state: AgentState) {
        let memory = Memory {
            state: Some(state),
            sessions: (self.sessions.iter())
                .filter_map(|session| {
                    Some((session.id.to_string(), session.fusion.last()?.remember()))
                })
                .collect(),
        };
        // A few hundred bytes on a memory file system.
        if let Err(error) = memory.save(&self.memory) {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "a next supervisor will not know the last state");
        }
    }

    fn due(&self) -> Option<Moment> {
        let due = self
            .sessions
            .iter()
            .filter_map(|session| session.fusion.next_deadline());
        let search = (self.remembered.state).map(|_| self.search_until);
        due.chain(search).min()
    }

    fn look_due(&self) -> Option<Moment> {
        let intervals = self.sessions.iter().filter_map(Session::look_interval);
        intervals.min().map(|interval| self.looked + interval)
    }

    /// Sleeps until `due`; for ever without.
    fn sleep(due: Option<Moment>, now: Moment) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        match due {
            // The kernel's timers may fire up to a millisecond early in another clock's terms.
            Some(due) => {
                let end = Instant::now() + (due - now) + Duration::from_millis(1);
                Box::pin(tokio::time::sleep_until(end))
            }
            None => Box::pin(std::future::pending()),
        }
    }

    fn find(&mut self, id: &str) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| &*session.id == id)
    }
}

async fn finished(
    look: &mut Option<JoinHandle<Result<Table, TreeError>>>,
) -> Result<Result<Table, TreeError>, tokio::task::JoinError> {
    match look {
        Some(look) => look.await,
        None => std::future::pending().await,
    }
}

fn append(journal: &Journal, draft: whim_wire::event::Draft) {
    if let Err(error) = journal.append(&draft) {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "a change of state is missing in the journal");
    }
}
