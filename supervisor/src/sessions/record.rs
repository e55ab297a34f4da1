//! What of a session outlives the supervisor and the container: one small file a session, replaced at each change.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use whim_wire::spec::{AgentKind, Mode, PermissionMode, ProviderKind};
use whim_wire::time::Time;

use super::actor::End;
use super::prompts::Prompts;
use crate::agents::restart::Counted;
use crate::agents::setup::{SessionToken, Setup};
use crate::config::reload::Loaded;
use crate::state::fusion::Remembered;

/// Name of the file in the session's directory.
const FILE: &str = "session.json";
/// A record with its full queue of prompts stays below this.
const LIMIT: u64 = 128 * 1024 * 1024;

/// The record of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub id: String,
    pub agent: AgentKind,
    pub mode: Mode,
    /// Working directory of the agent.
    pub directory: PathBuf,
    /// Token of the generation proxy, so that an agent that outlived its supervisor is still known. Worth nothing
    /// elsewhere.
    pub token: String,
    /// What the agent itself calls its session; known from its start, or once it says so.
    pub agent_session_id: Option<String>,
    /// Where the agent says that it writes its conversation; not believed without a look, see
    /// [`crate::agents::observe::transcript::place`].
    #[serde(default)]
    pub transcript: Option<PathBuf>,
    /// The first prompt was given: a later start resumes instead of giving it again.
    pub prompted: bool,
    /// Asked to stop, or ended well: not started again.
    pub ended: bool,
    /// How it ended for good, once it has: a supervisor that comes up after that goes on from there.
    #[serde(default)]
    pub end: Option<End>,
    /// Raw exit as a shell shows it, of the last run.
    pub exit: Option<i32>,
    /// Why it ended for good.
    #[serde(default)]
    pub ended_because: Option<String>,
    /// The life of the container that it belongs to, as the keeper numbers it.
    #[serde(default)]
    pub life: u64,
    /// What a session beside `main` was started with; `main` goes by the task.
    #[serde(default)]
    pub chosen: Option<Chosen>,
    /// The last word about its state, for the next supervisor.
    #[serde(default)]
    pub verdict: Option<Remembered>,
    /// Loopback port of the agent's router (CCR); 0: none chosen yet.
    #[serde(default)]
    pub router_port: u16,
    /// The program's input box was seen to take bracketed pastes.
    #[serde(default)]
    pub bracketed_paste: bool,
    /// A person's text may stand in the program's input box.
    #[serde(default)]
    pub draft: bool,
    /// When the agent was started last.
    #[serde(default)]
    pub began: Option<Time>,
    /// It is being ended to be started again at once: its end is no crash.
    #[serde(default)]
    pub restarting: bool,
    /// What of the layers it was started with, as fingerprints; `None`: not known.
    #[serde(default)]
    pub loaded: Option<Loaded>,
    /// Crashes of the agent that still count.
    #[serde(default)]
    pub restarts: Counted,
    #[serde(default)]
    pub prompts: Prompts,
    /// What it goes on from, where it was restored from a backup.
    #[serde(default)]
    pub restored: Option<Restored>,
}

/// What a restored session begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The agent's session that it is a fork of, by the agent's own means; none: its own goes on, or a new one begins.
    #[serde(default)]
    pub fork_of: Option<String>,
    /// What a new session is told of the one before, ahead of its first prompt.
    #[serde(default)]
    pub brief: Option<String>,
    /// SHA-256 of the prompt that the conversation began with: a spec that is given once more does not ask twice.
    #[serde(default)]
    pub begun_with: Option<String>,
}

/// Where a session beside `main` differs from it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chosen {
    pub provider: ProviderKind,
    pub model: Option<String>,
    pub effort: Option<String>,
    pub permission: Option<PermissionMode>,
    /// argv of a `custom` agent.
    pub command: Vec<String>,
}

impl Record {
    /// A new session's.
    #[must_use]
    pub fn new(id: &str, agent: AgentKind, mode: Mode, directory: PathBuf, life: u64) -> Self {
        Self {
            id: id.to_owned(),
            agent,
            mode,
            directory,
            token: format!("whim-{id}-{}", crate::random::token()),
            agent_session_id: None,
            transcript: None,
            prompted: false,
            ended: false,
            end: None,
            exit: None,
            ended_because: None,
            life,
            chosen: None,
            verdict: None,
            router_port: 0,
            bracketed_paste: false,
            draft: false,
            began: None,
            restarting: false,
            loaded: None,
            restarts: Counted::default(),
            prompts: Prompts::default(),
            restored: None,
        }
    }

    /// The same session in another life of the container: what ended then may be asked for again. A `oneshot` session was
    /// one task of that life, so this one's is new.
    #[must_use]
    pub fn revived(self, life: u64) -> Self {
        if self.life == life {
            return self;
        }
        if self.mode == Mode::Oneshot && self.ended {
            return Self::new(&self.id, self.agent, self.mode, self.directory, life);
        }
        Self {
            ended: false,
            end: None,
            exit: None,
            ended_because: None,
            life,
            ..self
        }
    }

    /// Restored, and not started since.
    #[must_use]
    pub fn awaits_start(&self) -> bool {
        self.restored.is_some() && !self.prompted
    }

    /// What its agent is prepared with, where `main` stands on `task`.
    #[must_use]
    pub fn setup(&self, task: &Setup) -> Setup {
        let mut setup = Setup {
            checkout: self.directory.clone(),
            session: self.id.clone(),
            token: SessionToken::new(self.token.clone()),
            router_port: self.router_port,
            ..task.clone()
        };
        if let Some(chosen) = self.chosen.clone() {
            setup.provider = chosen.provider;
            setup.model = chosen.model;
            setup.effort = chosen.effort;
            setup.permission = chosen.permission;
            setup.custom = chosen.command;
        }
        setup
    }

    /// Reads the record in a session's directory; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn read(directory: &Path) -> io::Result<Option<Self>> {
        let path = directory.join(FILE);
        let length = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if length > LIMIT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(serde_json::from_slice(&std::fs::read(path)?)?))
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// When the disk is full or gone; the old record is then as it was.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        crate::files::write(&directory.join(FILE), 0o600, &serde_json::to_vec(self)?)
    }
}

/// A new id for a conversation, where the agent lets it be chosen: a version 4 UUID.
#[must_use]
pub(super) fn fresh_id() -> String {
    crate::random::uuid()
}
