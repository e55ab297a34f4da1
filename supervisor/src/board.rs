//! The board: what each part of the supervisor reports, and the state object that is made of it.
//!
//! Parts report when something changes; nobody polls. Every report that changes what a reader would see makes an event
//! in the journal and wakes those who wait. The object itself is made on demand, because ages are in it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use whim_wire::event::{Draft, kind};
use whim_wire::state::{
    AgentState, Backend, Backup, Phase, SessionState, StateObject, Supervisor, VERSION,
};
use whim_wire::time::Time;

use crate::clock;
use crate::idle::awake::Awake;
use crate::journal::Journal;

/// Handle to the board.
#[derive(Debug)]
pub struct Board {
    parts: Mutex<Parts>,
    object: watch::Sender<Arc<StateObject>>,
    journal: Journal,
}

#[derive(Debug)]
struct Parts {
    phase: Phase,
    sessions: BTreeMap<String, SessionState>,
    /// The last word before this supervisor, which holds until the sessions of before are looked at again.
    carried: Option<(AgentState, String, Time)>,
    overall: (AgentState, String, Time),
    idle_since: Option<Time>,
    keep_awake: Awake,
    /// By session.
    generations: BTreeMap<String, u32>,
    ports: Vec<u16>,
    backup: Backup,
    /// None: there is no platform.
    platform: Option<Platform>,
    provider: Option<Result<(), String>>,
    weaknesses: Vec<String>,
    supervisor: Supervisor,
}

/// What the platform's client reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformStanding {
    /// Why it cannot be reached.
    pub error: Option<String>,
    /// Number of the last event that it has for good.
    pub acknowledged: u64,
    /// Events that it will never get.
    pub lost: u64,
}

#[derive(Debug)]
struct Platform {
    standing: PlatformStanding,
    /// Since when it can be reached, or not.
    since: Time,
}

impl Board {
    /// `carried`: the state object of the supervisor before this one, if agents of its time are still there.
    #[must_use]
    pub fn new(journal: Journal, supervisor: Supervisor, carried: Option<&StateObject>) -> Self {
        let now = clock::now();
        // The sessions of before stand as they were last seen until their tasks report.
        let sessions = carried
            .map(|object| object.sessions.clone())
            .unwrap_or_default();
        let sessions = sessions
            .into_iter()
            .map(|session| (session.id.clone(), session))
            .collect();
        let first = || Phase::Booting {
            step: crate::supervise::SERVICES.into(),
        };
        // They do not change with the supervisor, and looking for them takes a moment.
        let carried_weaknesses = carried
            .map(|object| object.weaknesses.clone())
            .unwrap_or_default();
        let phase = carried.map_or_else(first, |object| object.phase.clone());
        let starting = (AgentState::Starting, "the container starts".to_owned(), now);
        let carried = carried.map(|object| (object.state, object.reason.clone(), object.since));
        let parts = Parts {
            phase,
            sessions,
            overall: carried.clone().unwrap_or(starting),
            carried,
            idle_since: None,
            keep_awake: Awake::default(),
            generations: BTreeMap::new(),
            ports: Vec::new(),
            backup: Backup::default(),
            platform: None,
            provider: None,
            weaknesses: carried_weaknesses,
            supervisor,
        };
        let object = watch::Sender::new(Arc::new(build(&parts, journal.position())));
        Self {
            parts: Mutex::new(parts),
            object,
            journal,
        }
    }

    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The state object at each change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<StateObject>> {
        self.object.subscribe()
    }

    /// Makes the object anew, so that its ages are of now.
    pub fn refresh(&self) {
        let object = self.object();
        self.object.send_replace(Arc::new(object));
    }

    /// The boot, or the container's life as a whole, goes on to this phase.
    pub fn phase(&self, phase: Phase) {
        let mut parts = self.parts();
        if parts.phase == phase {
            return;
        }
        parts.phase = phase;
        let event = serde_json::to_value(&parts.phase).unwrap_or_default();
        self.publish(parts, kind::PHASE_CHANGED, event);
    }

    #[must_use]
    pub fn current_phase(&self) -> Phase {
        self.parts().phase.clone()
    }

    /// A session is as given now. `news`: more than another wording of its reason, so worth an event.
    pub fn session(&self, session: SessionState, news: bool) {
        let mut parts = self.parts();
        if parts.sessions.get(&session.id) == Some(&session) {
            return;
        }
        let event = json!({
            "session": session.id, "state": session.state, "reason": session.reason, "stalled": session.stalled,
            "since": session.since, "dialog": session.dialog,
        });
        parts.sessions.insert(session.id.clone(), session);
        parts.carried = None;
        if news {
            self.publish(parts, kind::STATE_CHANGED, event);
        } else {
            self.wake(parts);
        }
    }

    #[must_use]
    pub fn sessions(&self) -> Vec<SessionState> {
        self.parts().sessions.values().cloned().collect()
    }

    /// Why the machine should stay awake, by who says so; none takes it back. See [`Awake`] for how long it counts.
    pub fn keep_awake(&self, source: &str, reasons: Vec<String>) {
        let mut parts = self.parts();
        if parts.keep_awake.set(source, reasons, Instant::now()) {
            self.wake(parts);
        }
    }

    /// Model calls of a session in flight.
    pub fn generations(&self, session: &str, count: u32) {
        let mut parts = self.parts();
        if parts.generations.get(session).copied().unwrap_or(0) != count {
            parts.generations.insert(session.to_owned(), count);
            self.wake(parts);
        }
    }

    /// The last word: nothing of the container's goes on.
    pub fn stopped(&self) {
        let mut parts = self.parts();
        for session in parts.sessions.values_mut() {
            if session.state != AgentState::Stopped {
                session.state = AgentState::Stopped;
                session.reason = "the container ended".into();
            }
        }
        parts.carried = None;
        self.wake(parts);
    }

    pub fn ports(&self, ports: Vec<u16>) {
        let mut parts = self.parts();
        if parts.ports != ports {
            parts.ports = ports;
            self.wake(parts);
        }
    }

    pub fn backup(&self, backup: Backup) {
        let mut parts = self.parts();
        if parts.backup != backup {
            parts.backup = backup;
            self.wake(parts);
        }
    }

    /// How it stands with the platform. An acknowledgement alone wakes nobody: it follows on every event.
    pub fn platform(&self, standing: PlatformStanding) {
        let mut parts = self.parts();
        let since = match &parts.platform {
            Some(before) if before.standing.error.is_some() == standing.error.is_some() => {
                before.since
            }
            _ => clock::now(),
        };
        let before = parts.platform.replace(Platform { standing, since });
        let told = |platform: &Option<Platform>| {
            let standing = &platform.as_ref()?.standing;
            Some((standing.error.clone(), standing.lost))
        };
        if told(&before) != told(&parts.platform) {
            self.wake(parts);
        }
    }

    /// What weakens the separation of agent and host.
    pub fn weaknesses(&self, weaknesses: Vec<String>) {
        let mut parts = self.parts();
        if parts.weaknesses != weaknesses {
            parts.weaknesses = weaknesses;
            self.wake(parts);
        }
    }

    /// Whether model calls can succeed, and why not. The first word and every change are an event.
    pub fn provider(&self, found: Result<(), String>) {
        let mut parts = self.parts();
        if parts.provider.as_ref() == Some(&found) {
            return;
        }
        let event = match &found {
            Ok(()) => json!({"ok": true}),
            Err(error) => json!({"ok": false, "error": error}),
        };
        parts.provider = Some(found);
        self.publish(parts, kind::PROVIDER_CHANGED, event);
    }

    /// The state object as of now.
    #[must_use]
    pub fn object(&self) -> StateObject {
        build(&self.parts(), self.journal.position())
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, parts: MutexGuard<'_, Parts>, kind: &'static str, event: Value) {
        self.note(kind, event);
        self.wake(parts);
    }

    /// Appends an event; what a payload cannot be is a fault of ours and is logged.
    pub fn note(&self, kind: &'static str, event: Value) {
        match Draft::new(kind, clock::now(), &event) {
            Ok(draft) => self.append(&draft),
            Err(error) => tracing::error!(%error, "event not written"),
        }
    }

    /// Appends an event to the journal.
    pub fn append(&self, draft: &Draft) {
        if let Err(error) = self.journal.append(draft) {
            tracing::error!(%error, "event not written");
        }
    }

    fn wake(&self, mut parts: MutexGuard<'_, Parts>) {
        let now = clock::now();
        let (state, reason) = overall(&parts);
        if (parts.overall.0, &parts.overall.1) != (state, &reason) {
            let since = if parts.overall.0 == state {
                parts.overall.2
            } else {
                now
            };
            let changed = parts.overall.0 != state;
            parts.overall = (state, reason, since);
            if changed {
                let mut event = Map::new();
                event.insert("state".into(), json!(state));
                event.insert("reason".into(), json!(parts.overall.1));
                self.note(kind::STATE_CHANGED, Value::Object(event));
            }
        }
        let at_work = matches!(
            state,
            AgentState::Working | AgentState::NeedsInput | AgentState::Starting
        );
        if at_work || parts.idle_since.is_none() {
            parts.keep_awake.worked(Instant::now());
        }
        parts.idle_since = if at_work {
            None
        } else {
            parts.idle_since.or(Some(now))
        };
        let object = Arc::new(build(&parts, self.journal.position()));
        drop(parts);
        self.object.send_replace(object);
    }
}

fn build(parts: &Parts, seq: u64) -> StateObject {
    let now = clock::now();
    let (state, reason, since) = parts.overall.clone();
    let leading = parts
        .sessions
        .values()
        .find(|session| session.state == state);
    StateObject {
        version: VERSION,
        state,
        reason,
        since,
        at: now,
        seq,
        phase: parts.phase.clone(),
        stalled: leading.is_some_and(|session| session.stalled),
        idle_s: parts
            .idle_since
            .map_or(0, |since| clock::seconds_between(since, now)),
        keep_awake: parts.keep_awake.reasons(Instant::now()),
        active_generations: parts.generations.values().sum(),
        supervisor: parts.supervisor.clone(),
        sessions: parts.sessions.values().cloned().collect(),
        ports: parts.ports.clone(),
        backup: parts.backup.clone(),
        backend: parts.platform.as_ref().map(|platform| Backend {
            reachable: platform.standing.error.is_none(),
            since: platform.since,
            error: platform.standing.error.clone(),
            owed_events: seq.saturating_sub(platform.standing.acknowledged),
            lost_events: platform.standing.lost,
        }),
        dialog: leading
            .and_then(|session| session.dialog.clone())
            .or_else(|| {
                parts
                    .sessions
                    .values()
                    .find_map(|session| session.dialog.clone())
            }),
        provider_error: match &parts.provider {
            Some(Err(error)) => Some(error.clone()),
            Some(Ok(())) | None => None,
        },
        weaknesses: parts.weaknesses.clone(),
    }
}

/// The container's state is that of the session which most needs to be known: one at work, because whoever reads the state
/// may suspend a machine that is not; then one that waits for a person; then one that starts, then idle ones; `stopped`
/// only when every session is. A dialog of any session shows beside it.
fn overall(parts: &Parts) -> (AgentState, String) {
    let (state, reason) = of_sessions(parts);
    match &parts.provider {
        // Whatever the agent makes of it, a person should read why.
        Some(Err(error)) if state != AgentState::Stopped => (state, format!("{reason}; {error}")),
        _ => (state, reason),
    }
}

fn of_sessions(parts: &Parts) -> (AgentState, String) {
    match &parts.phase {
        Phase::Failed { step, error } => {
            return (
                AgentState::Stopped,
                format!("the boot failed at {step}: {error}"),
            );
        }
        Phase::WaitingForSpec => return (AgentState::Idle, "waiting for a task".into()),
        Phase::Booting { .. } | Phase::Ready | Phase::Stopping => {}
    }
    if let Some((state, reason, _)) = &parts.carried {
        return (*state, reason.clone());
    }
    let order = [
        AgentState::Working,
        AgentState::NeedsInput,
        AgentState::Starting,
        AgentState::Idle,
        AgentState::Stopped,
    ];
    let leading = order.into_iter().find_map(|state| {
        parts
            .sessions
            .values()
            .find(|session| session.state == state)
    });
    match (leading, &parts.phase) {
        (Some(session), _) if parts.sessions.len() > 1 => {
            (session.state, format!("{}: {}", session.id, session.reason))
        }
        (Some(session), _) => (session.state, session.reason.clone()),
        (None, Phase::Booting { step }) => (AgentState::Starting, format!("booting: {step}")),
        (None, Phase::Stopping) => (AgentState::Stopped, "the container ends".into()),
        (None, _) => (AgentState::Starting, "no session yet".into()),
    }
}
