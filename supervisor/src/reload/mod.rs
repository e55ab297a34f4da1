//! `PUT /v1/config`: other layers for a task that runs.
//!
//! The layers are checked like those of a spec, all mistakes at once; then the files that follow from them are changed in
//! one transaction, and only then agents and shells start with them. A running process keeps its environment, and no
//! agent promises to read its files again: what each session does not know yet is told, by comparing with what it was
//! started with, and a restart by resuming is done on request.
//!
//! A supervisor that dies in between is followed by one that goes forward: the keeper holds the new layers (so that the
//! next supervisor starts from them) together with the old ones, until all is done. A step that fails undoes those before
//! it, and the old layers stay. Items that are wanted no more are taken out where we wrote them and nobody changed them.
//! The layers hold for the life of the container: the next one is given its task anew.
//!
//! One reload at a time; another is refused meanwhile.

mod transaction;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use whim_wire::event::kind;
use whim_wire::spec::{self, AgentKind, Spec};
use whim_wire::state::AgentState;
use zeroize::Zeroizing;

use crate::agents::edit::Share;
use crate::agents::setup::Setup;
use crate::boot::Grounds;
use crate::boot::again::{self, Made, OurFile};
use crate::config::reload::{self as compare, Effect};
use crate::config::{Given, Invalid, Mistake, Place, Settings};
use crate::keeper::KeeperError;
use crate::sessions::{MAIN, Record, SessionError};
pub use transaction::StepError;
use transaction::Transaction;

/// What was understood of flags, variables and spec, for the next supervisor.
pub const SETTLED: &str = "settled";
/// The layers before, while a reload is under way; empty otherwise.
pub const UNDER_WAY: &str = "reload";
/// Largest content of either, in bytes.
pub const LARGEST: usize = 64 * 1024 * 1024;
/// How long a call waits for the boot's end.
const SETTLING: Duration = Duration::from_secs(5);
/// Until a restarted agent runs: its end takes three seconds at most.
const RESTART: Duration = Duration::from_secs(60);

/// Why the layers are as they were.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("the boot is not done; wait for phase `ready`")]
    NotReady,
    #[error("another reload is under way")]
    Busy,
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("{0}")]
    Step(#[from] StepError),
    #[error("the session's record cannot be read: {0}")]
    Record(std::io::Error),
    #[error("the layers cannot be remembered: {0}")]
    Remember(String),
}

impl From<KeeperError> for ReloadError {
    fn from(error: KeeperError) -> Self {
        Self::Remember(error.to_string())
    }
}

/// What a reload did. JSON pointers name items of the merged layers, which have the members of one layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reloaded {
    /// In force for everything that runs or starts from now on.
    pub applied: Vec<String>,
    /// In place, but not known to an agent that was started before: it must be restarted (`?restart=resume`).
    pub needs_restart: Vec<String>,
    /// Done at the next boot only.
    pub next_boot: Vec<String>,
    /// Sessions that were restarted.
    pub restarted: Vec<String>,
    /// Sessions that should have been, and why they are not.
    pub not_restarted: Vec<NotRestarted>,
    /// What is doubtful about the layers, as `whim spec check` says it.
    pub warnings: Vec<Value>,
}

/// A session that goes on as it was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct NotRestarted {
    pub session: String,
    pub reason: String,
}

/// See the module's header.
#[derive(Debug)]
pub struct Reload {
    turn: Semaphore,
    active: OnceLock<Active>,
    opened: watch::Sender<bool>,
}

/// What there is once the boot is done.
#[derive(Debug)]
struct Active {
    grounds: Arc<Grounds>,
    /// As it was settled: no file is read again.
    given: Given,
    settings: Mutex<Arc<Settings>>,
}

impl Default for Reload {
    fn default() -> Self {
        Self {
            turn: Semaphore::new(1),
            active: OnceLock::new(),
            opened: watch::Sender::new(false),
        }
    }
}

impl Reload {
    /// From now on layers can be changed. `under_way`: what the supervisor before held of a reload that it did not finish;
    /// it is finished now.
    pub async fn open(
        &self,
        grounds: Arc<Grounds>,
        given: &Given,
        settings: &Settings,
        under_way: Option<Zeroizing<Vec<u8>>>,
    ) {
        let settled = given.settle(settings.spec.as_ref());
        let settled = settled
            .map_err(|error| error.to_string())
            .and_then(|bytes| Given::from_settled(&bytes).map_err(|error| error.to_string()));
        let given = match settled {
            Ok((given, _)) => given,
            Err(error) => {
                tracing::error!(error, "the layers cannot be changed in this life");
                return;
            }
        };
        let active = Active {
            grounds,
            given,
            settings: Mutex::new(Arc::new(settings.clone())),
        };
        if let Some(before) = under_way.filter(|before| !before.is_empty())
            && let Err(error) = active.finish(&before).await
        {
            tracing::error!(%error, "a reload that was under way is not finished");
            let event = json!({"error": error.to_string()});
            active.grounds.board.note(kind::CONFIG_FAILED, event);
        }
        // The boot runs once; a second would be a fault of ours and changes nothing.
        drop(self.active.set(active));
        self.opened.send_replace(true);
    }

    /// What is in force; `None` before [`Reload::open`].
    #[must_use]
    pub fn settings(&self) -> Option<Arc<Settings>> {
        self.active.get().map(Active::settings)
    }

    /// Puts these layers in the place of all there were. `body`: the array of layers, or an object with it as `config`.
    ///
    /// # Errors
    /// [`ReloadError`]; everything is then as it was.
    pub async fn put(&self, body: &[u8], restart: bool) -> Result<Reloaded, ReloadError> {
        // Taking up what runs is a matter of milliseconds; a boot may be one of minutes.
        let mut opened = self.opened.subscribe();
        let opening = opened.wait_for(|opened| *opened);
        drop(tokio::time::timeout(SETTLING, opening).await);
        let active = self.active.get().ok_or(ReloadError::NotReady)?;
        let _turn = self.turn.try_acquire().map_err(|_| ReloadError::Busy)?;
        active.put(body, restart).await
    }
}

impl Active {
    async fn put(&self, body: &[u8], restart: bool) -> Result<Reloaded, ReloadError> {
        let old = self.settings();
        let text = with_layers(old.spec.as_ref(), body)?;
        let resolved = self.given.resolve(Some(&text))?;
        let mut new = Settings::clone(&old);
        new.configuration = resolved.settings.configuration;
        new.spec = resolved.settings.spec;
        // Before anything can print one.
        self.grounds.secrets.learn(&new);
        let changes = compare::changes(&old.configuration, &new.configuration);
        let remember = |settings: &Settings| {
            let bytes = self.given.settle(settings.spec.as_ref());
            bytes.map_err(|error| ReloadError::Remember(error.to_string()))
        };
        let (before, after) = (remember(&old)?, remember(&new)?);
        self.hold(UNDER_WAY, &before).await?;
        self.hold(SETTLED, &after).await?;
        if let Err(error) = self.change(&old, &new).await {
            self.hold(SETTLED, &before).await?;
            self.hold(UNDER_WAY, &[]).await?;
            return Err(error);
        }
        self.hold(UNDER_WAY, &[]).await?;
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);

        let mut outcome = Reloaded {
            warnings: resolved
                .warnings
                .iter()
                .map(|warning| json!(warning))
                .collect(),
            ..Reloaded::default()
        };
        if restart {
            self.restart(&mut outcome).await;
        }
        let unknown = self.unknown();
        for change in &changes {
            let pointer = change.pointer();
            match change.effect {
                Effect::NextBoot => outcome.next_boot.push(pointer),
                Effect::NewShells => outcome.applied.push(pointer),
                Effect::AgentRestart if unknown.contains(&pointer) => {}
                Effect::AgentRestart => outcome.applied.push(pointer),
            }
        }
        // Also what an earlier reload left to a restart.
        outcome.needs_restart = unknown.into_iter().collect();
        let event = json!({"applied": outcome.applied, "needs_restart": outcome.needs_restart,
            "next_boot": outcome.next_boot, "restarted": outcome.restarted});
        self.grounds.board.note(kind::CONFIG_CHANGED, event);
        Ok(outcome)
    }

    /// Goes on with a reload that the supervisor before began: its layers are the present ones already.
    async fn finish(&self, before: &[u8]) -> Result<(), ReloadError> {
        let remember = |error: String| ReloadError::Remember(error);
        let (given, spec) =
            Given::from_settled(before).map_err(|error| remember(error.to_string()))?;
        let old = given.resolve(spec.as_deref())?.settings;
        let new = self.settings();
        self.change(&old, &new).await?;
        self.hold(UNDER_WAY, &[]).await?;
        tracing::info!("finished the reload that the supervisor before began");
        let event = json!({"applied": [], "needs_restart": self.unknown(), "next_boot": [], "restarted": []});
        self.grounds.board.note(kind::CONFIG_CHANGED, event);
        Ok(())
    }

    /// Changes every file, or none; then what is started next.
    async fn change(&self, old: &Settings, new: &Settings) -> Result<(), ReloadError> {
        let grounds = &self.grounds;
        let main = Record::read(&grounds.paths.session(MAIN)).map_err(ReloadError::Record)?;
        let (Some(main), Some(ground)) = (main, grounds.sessions.ground()) else {
            return Err(ReloadError::NotReady);
        };
        let old = again::make(grounds, old, &main);
        let new = again::make(grounds, new, &main);
        let mut transaction = Transaction::new(grounds);
        match steps(&mut transaction, &old, &new).await {
            Ok(gone) => {
                for (path, share) in gone {
                    grounds.written.forget(&path, share.fingerprints());
                }
            }
            Err(error) => {
                transaction.undo().await;
                return Err(error.into());
            }
        }
        ground.reload(new.task);
        Ok(())
    }

    /// Restarts every session that was started with anything else.
    async fn restart(&self, outcome: &mut Reloaded) {
        let behind: Vec<String> = self
            .running()
            .into_iter()
            .filter(|record| !self.unknown_to(record).is_empty())
            .map(|record| record.id)
            .collect();
        let restarts = behind.into_iter().map(|id| async move {
            let restarted = self.grounds.sessions.restart(&id);
            let restarted = tokio::time::timeout(RESTART, restarted).await;
            let late = |_| format!("it did not come back within {} s", RESTART.as_secs());
            let told = |error: SessionError| error.to_string();
            let done = restarted.map_err(late).and_then(|done| done.map_err(told));
            (id, done)
        });
        for (session, done) in futures_util::future::join_all(restarts).await {
            match done {
                Ok(()) => outcome.restarted.push(session),
                Err(reason) => outcome.not_restarted.push(NotRestarted { session, reason }),
            }
        }
    }

    /// What at least one running agent does not know.
    fn unknown(&self) -> BTreeSet<String> {
        let running = self.running();
        running
            .iter()
            .flat_map(|record| self.unknown_to(record))
            .collect()
    }

    fn unknown_to(&self, record: &Record) -> BTreeSet<String> {
        let settings = self.settings();
        let now = compare::loaded(&settings.configuration, &record.token);
        // Of one that an older binary started nothing is known: then all may be news to it.
        let then = record.loaded.clone().unwrap_or_default();
        compare::unknown(&then, &now)
    }

    /// Records of the sessions whose agent runs.
    fn running(&self) -> Vec<Record> {
        let live = |session: &whim_wire::state::SessionState| session.state != AgentState::Stopped;
        let sessions = self.grounds.board.sessions().into_iter().filter(live);
        let read = |id: String| match Record::read(&self.grounds.paths.session(&id)) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(session = id, %error, "the session's record cannot be read");
                None
            }
        };
        sessions.filter_map(|session| read(session.id)).collect()
    }

    fn settings(&self) -> Arc<Settings> {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn hold(&self, name: &str, bytes: &[u8]) -> Result<(), ReloadError> {
        Ok(self.grounds.keeper.hold_sealed(name, bytes).await?)
    }
}

/// All changes of files; what was taken out of which.
async fn steps(
    transaction: &mut Transaction<'_>,
    old: &Made,
    new: &Made,
) -> Result<Vec<(PathBuf, Share)>, StepError> {
    let by_path = |made: &Made| -> BTreeMap<PathBuf, OurFile> {
        let files = made.files.iter().cloned();
        files.map(|file| (file.path.clone(), file)).collect()
    };
    let (before, after) = (by_path(old), by_path(new));
    let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    for path in paths {
        transaction.ours(before.get(path), after.get(path))?;
    }
    for (kind, setup) in &new.sessions {
        for edit in crate::agents::of(*kind).files(setup) {
            transaction.merge(&edit).await?;
        }
    }
    let wanted = shares(&new.sessions)?;
    let mut gone = Vec::new();
    for (path, share) in shares(&old.sessions)? {
        let share = match wanted.get(&path) {
            Some(wanted) => share.without(wanted),
            None => share,
        };
        if !share.is_empty() {
            transaction.take_out(&path, &share).await?;
            gone.push((path, share));
        }
    }
    Ok(gone)
}

/// What all sessions together want in each file.
fn shares(sessions: &[(AgentKind, Setup)]) -> Result<BTreeMap<PathBuf, Share>, StepError> {
    let mut all: BTreeMap<PathBuf, Share> = BTreeMap::new();
    for (kind, setup) in sessions {
        for edit in crate::agents::of(*kind).files(setup) {
            let share = edit.share()?;
            let share = match all.remove(&edit.path) {
                Some(known) => known.and(share),
                None => share,
            };
            all.insert(edit.path, share);
        }
    }
    Ok(all)
}

/// The task's spec with other layers.
fn with_layers(spec: Option<&Spec>, body: &[u8]) -> Result<Vec<u8>, ReloadError> {
    let mistake = |problem: String| {
        let remedy = "send the array of layers as in the spec, or {\"config\":[…]}";
        let place = Place::Spec("/config".into());
        ReloadError::Invalid(Invalid {
            mistakes: vec![Mistake::new(place, problem, remedy)],
        })
    };
    // serde_json's message holds position and kind, never content.
    let body: Value =
        serde_json::from_slice(body).map_err(|error| mistake(format!("is no JSON: {error}")))?;
    let layers = match body {
        Value::Array(layers) => Value::Array(layers),
        Value::Object(mut members) => {
            let layers = members.shift_remove("config");
            if let Some(other) = members.keys().next() {
                return Err(mistake(format!(
                    "stands beside {:?}, which cannot be changed while the task runs",
                    crate::config::printable(other)
                )));
            }
            layers.ok_or_else(|| mistake("is missing".into()))?
        }
        _ => return Err(mistake("is no array".into())),
    };
    let spec = spec.cloned().unwrap_or_else(|| Spec {
        version: spec::VERSION,
        ..Spec::default()
    });
    let unwritable = |error: serde_json::Error| ReloadError::Remember(error.to_string());
    let mut spec = serde_json::to_value(spec).map_err(unwritable)?;
    if let Some(members) = spec.as_object_mut() {
        members.insert("config".into(), layers);
    }
    serde_json::to_vec(&spec).map_err(unwritable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_layers_of_the_spec_are_exchanged() {
        let spec: Spec = serde_json::from_value(json!({"version": 1, "task": {"id": "ww-1"},
            "provider": {"upstream": "https://user:pw@x/"}, "config": [{"layer": "user", "env": {"A": "1"}}]}))
        .unwrap();
        for body in [
            json!([{"layer": "team"}]),
            json!({"config": [{"layer": "team"}]}),
        ] {
            let text = with_layers(Some(&spec), body.to_string().as_bytes()).unwrap();
            let new: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(new["config"], json!([{"layer": "team"}]));
            assert_eq!(new["task"]["id"], "ww-1");
            assert_eq!(new["provider"]["upstream"], "https://user:pw@x/");
        }
    }

    #[test]
    fn what_are_no_layers_is_told() {
        for (body, part) in [
            ("{", "is no JSON"),
            ("3", "is no array"),
            ("{}", "is missing"),
            (r#"{"config":[],"repo":{}}"#, "\"repo\""),
        ] {
            let error = with_layers(None, body.as_bytes()).unwrap_err().to_string();
            assert!(
                error.contains(part) && error.contains("/config"),
                "{body}: {error}"
            );
        }
    }
}
