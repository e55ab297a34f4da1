//! What an agent is prepared with, and how it is to be started.
//!
//! A [`Setup`] is the part of the task that concerns one session's agent, with all layers merged and all paths real
//! (the `--root` prefix included). It never holds a provider's key: the agent gets the address of the generation proxy
//! and a session token that is worth nothing elsewhere. [`Start`] says which run of the agent is wanted: a new
//! conversation, the continuation of an old one, with or without a terminal.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::{Map, Value};
use whim_wire::spec::Plugins;
pub use whim_wire::spec::{AgentKind, McpServer, PermissionMode, ProviderKind, Skill};

/// The session token of the generation proxy. Worth nothing outside of this container, but masked all the same.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionToken(String);

impl SessionToken {
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }

    /// The token itself, for the agent's environment only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

/// How the agent's hooks reach the supervisor, see [`super::hook`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookTransport {
    /// Path of the `whim` binary as the agent sees it.
    pub program: PathBuf,
    /// The unix socket that the hook command connects to.
    pub socket: PathBuf,
}

/// All that an agent is prepared with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Home of the agents' user.
    pub home: PathBuf,
    /// Working directory of this session.
    pub checkout: PathBuf,
    /// Directory above the checkouts that holds the merged `CLAUDE.md` (`/app`).
    pub app: PathBuf,
    /// Our id of the session (`main`).
    pub session: String,
    /// Base address of the generation proxy, without `/v1` and without a slash at the end.
    pub proxy: String,
    pub token: SessionToken,
    pub provider: ProviderKind,
    /// Providers whose WebSocket the generation proxy relays.
    pub websockets: Vec<ProviderKind>,
    /// None: the agent's own choice.
    pub model: Option<String>,
    /// None: the agent's own choice.
    pub permission: Option<PermissionMode>,
    /// None: the agent's own choice.
    pub effort: Option<String>,
    /// Merged instructions of all layers, Markdown.
    pub instructions: Option<String>,
    pub mcp_servers: BTreeMap<String, McpServer>,
    pub skills: Vec<Skill>,
    pub plugins: Plugins,
    /// Claude Code's settings from the layers.
    pub settings: Map<String, Value>,
    /// False with `repo.trust: untrusted`: nothing that the repository brings is run or loaded without a question.
    pub trusted: bool,
    /// The agent runs as root (an ordinary user's or a broken image's run).
    pub root: bool,
    /// Unprivileged user namespaces work here, so Codex's sandbox can.
    pub sandbox: bool,
    /// None: no hooks; states then come from the other sources.
    pub hooks: Option<HookTransport>,
    /// Free loopback port of CCR's router.
    pub router_port: u16,
    /// argv of a `custom` agent.
    pub custom: Vec<String>,
}

/// With or without a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Surface {
    /// A terminal (`interactive`, `sticky`).
    Terminal,
    /// Pipes and structured output (`oneshot`).
    Pipes,
}

/// Which conversation the agent begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conversation {
    /// A new one; `id` is used where the agent lets its id be chosen, see [`super::Agent::chooses_id`].
    New { id: String },
    /// The agent's own session of this id goes on.
    Resume { id: String },
    /// A new one that begins with all that the session `from` holds, which stays as it is. `id` as in `New`. Only where
    /// [`super::Agent::forks`].
    Fork { from: String, id: String },
}

/// One run of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub surface: Surface,
    pub conversation: Conversation,
    /// The first prompt.
    pub prompt: Option<String>,
}

/// A setting that this agent cannot have. Refused before anything is started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} `{value}` is not possible with agent `{agent}`: {reason}; {remedy}")]
pub struct Impossible {
    pub agent: &'static str,
    /// Field of the spec, as a person would look for it (`agent.permission_mode`).
    pub field: &'static str,
    pub value: String,
    pub reason: String,
    pub remedy: String,
}
