//! The spec: what the platform asks for, as JSON of version 1.
//!
//! Owns the shape only. Reading ignores unknown fields (a newer platform may talk to an older image); what is unknown,
//! and whether names, paths and limits hold, is told by `whim spec check`, which walks the schema generated from these
//! types. Every field but `version` may be left out; defaults that depend on flags and variables are applied by the
//! supervisor, so that here "not given" stays distinguishable.
//!
//! Values that may hold secrets are [`Sensitive`]: they are written back as they came, but cannot be printed.

mod layer;
mod sensitive;
mod usd;

pub use layer::{InitUser, Layer, LayerName, McpServer, Plugins, Skill};
pub use sensitive::Sensitive;
pub use usd::{Usd, UsdError};

use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The version of the spec that this build reads.
pub const VERSION: u32 = 1;

/// What the platform asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "whim spec")]
pub struct Spec {
    /// Always 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    #[serde(default)]
    pub task: Task,
    /// Left out: work in the directory that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<Repo>,
    #[serde(default)]
    pub agent: Agent,
    #[serde(default)]
    pub provider: Provider,
    #[serde(default)]
    pub budget: Budget,
    /// Files fetched for the agent, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// Configuration layers; their order here does not matter, their names give the priority.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<Layer>,
    /// Continue or fork from a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Restore>,
    #[serde(default)]
    pub idle: Idle,
    /// Who runs the init scripts of the layers `platform`, `team` and `workspace` that do not say so themselves; the
    /// other layers' always run as the agents' user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_user: Option<InitUser>,
    /// How long init.sh may run, in seconds. Default 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub init_timeout_s: Option<u64>,
    #[serde(default)]
    pub backup: Backup,
}

/// Which task this is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Task {
    /// Names the task in the store, the platform's API and the default branch `whim-<id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Id of the task that started this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

/// The repository to work on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Repo {
    /// `https://`, `http://`, `ssh://`, `git://`, `file://`, `user@host:path` or a local path. May hold credentials,
    /// which never reach the checkout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Sensitive>,
    /// Where the work starts; left out: the remote's default branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_branch: Option<String>,
    /// The new branch; left out: `whim-<task id>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Commits of history to fetch; left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub depth: Option<u32>,
    /// A nearer copy that is tried first; when it fails, `url` is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Sensitive>,
    #[serde(default)]
    pub trust: Trust,
}

/// How far the content of the repository is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    #[default]
    Full,
    /// No hooks, MCP servers or settings from the repository, and no push credential.
    Untrusted,
}

/// The agent and how it starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Agent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<AgentKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// In the agent's own words; left out: its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permission_mode: Option<PermissionMode>,
    /// Reasoning effort in the agent's own words (`low`, `medium`, `high`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<String>,
    /// The first prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// argv of a `custom` agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub command: Option<Vec<String>>,
}

/// The model provider. Its key never stands in a spec: see `PUT /v1/credentials` and the variables of `whim run`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Provider {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ProviderKind>,
    /// Base URL without `/v1`; left out: the provider's own. `compatible` needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Sensitive>,
    /// Whether the upstream speaks the WebSocket of the Responses API; left out: only api.openai.com does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub websocket: Option<bool>,
}

/// What the task may cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Budget {
    /// Hard cap; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<Usd>,
    /// Tokens of the task, prompts and answers together, after which calls are refused; left out: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<NonZeroU64>,
    /// Model calls within any 60 seconds; left out: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// Minutes after the task's first model call from which on calls are refused; left out: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minutes: Option<NonZeroU64>,
}

/// A file fetched for the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Attachment {
    /// File name, no directories.
    pub name: String,
    /// `https://`; usually signed, hence never printed whole.
    pub url: Sensitive,
}

/// Continue or fork from a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Restore {
    /// URL of a backup, or the id of a task in the same store.
    pub from: Sensitive,
    #[serde(default)]
    pub mode: RestoreMode,
    /// Id of the task, where `from` is the URL of a store that holds several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The snapshot: its id, or how it begins. Default: the newest complete one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// A new session that is told of the one before, instead of that one. Another agent is always only told.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub summary: bool,
}

/// Idleness.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Idle {
    /// Seconds; 0 = never. Default 900.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<IdleAction>,
}

/// Where and how often history is kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Backup {
    /// `file://`, `s3://`, `gs://`, `az://`, or the backend's `https://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Sensitive>,
    /// Seconds between backups. Default 30.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub interval_s: Option<u64>,
    /// Terminal recordings leave the container too. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recordings: Option<bool>,
    /// The work tree is saved too: what is not pushed, not committed, not tracked. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<bool>,
}

/// A value that was none of the words allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is none of {allowed}")]
pub struct UnknownWord {
    pub given: String,
    /// The words, separated by commas.
    pub allowed: &'static str,
}

macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum $name {
            $($(#[$inner])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every value, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word used in JSON, on the command line and in output.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(given: &str) -> Result<Self, UnknownWord> {
                const ALLOWED: &str = words!(@list $($word),+);
                match given {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { given: given.to_owned(), allowed: ALLOWED }),
                }
            }
        }
    };
    (@list $first:literal $(, $rest:literal)*) => { concat!($first $(, ", ", $rest)*) };
}
pub(crate) use words;

words! {
    /// The agent CLI.
    AgentKind {
        /// Claude Code.
        Claude = "claude",
        /// Codex CLI.
        Codex = "codex",
        /// Claude Code behind Claude Code Router.
        Ccr = "ccr",
        /// GitHub Copilot CLI.
        Copilot = "copilot",
        /// Any command, see [`Agent::command`].
        Custom = "custom",
    }
}

words! {
    /// How a session runs.
    Mode {
        /// In a terminal.
        Interactive = "interactive",
        /// One prompt; the container ends with the agent's result.
        Oneshot = "oneshot",
        /// One prompt; the container stays.
        Sticky = "sticky",
    }
}

words! {
    /// What the agent may do without asking; mapped for each agent.
    PermissionMode {
        Default = "default",
        AcceptEdits = "accept-edits",
        Plan = "plan",
        Bypass = "bypass",
    }
}

words! {
    /// The kind of model provider.
    ProviderKind {
        Anthropic = "anthropic",
        Openai = "openai",
        Openrouter = "openrouter",
        /// Anything that speaks one of the three wire formats at a given base URL.
        Compatible = "compatible",
    }
}

words! {
    /// What to do with a backup.
    RestoreMode {
        /// Keep branch and session ids.
        Resume = "resume",
        /// New branch, new ids.
        Fork = "fork",
    }
}

#[expect(
    clippy::derivable_impls,
    reason = "the macro does not mark a default variant"
)]
impl Default for RestoreMode {
    fn default() -> Self {
        Self::Resume
    }
}

/// What happens after the idle time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IdleAction {
    /// Say so in state and events.
    #[default]
    Report,
    /// End the container in order.
    Exit,
    /// Run this program (absolute path) as the agents' user.
    Exec(String),
}

impl fmt::Display for IdleAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Report => f.write_str("report"),
            Self::Exit => f.write_str("exit"),
            Self::Exec(path) => write!(f, "exec:{path}"),
        }
    }
}

impl FromStr for IdleAction {
    type Err = UnknownWord;

    fn from_str(given: &str) -> Result<Self, UnknownWord> {
        match given {
            "report" => Ok(Self::Report),
            "exit" => Ok(Self::Exit),
            _ => match given.strip_prefix("exec:") {
                Some(path) if path.starts_with('/') && !path.contains(char::is_control) => {
                    Ok(Self::Exec(path.to_owned()))
                }
                _ => Err(UnknownWord {
                    given: given.to_owned(),
                    allowed: "report, exit, exec:/absolute/path",
                }),
            },
        }
    }
}

impl TryFrom<String> for IdleAction {
    type Error = UnknownWord;

    fn try_from(given: String) -> Result<Self, UnknownWord> {
        given.parse()
    }
}

impl From<IdleAction> for String {
    fn from(action: IdleAction) -> Self {
        action.to_string()
    }
}

impl JsonSchema for IdleAction {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IdleAction".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "`report`, `exit`, or `exec:` and the absolute path of a program, run as the agents' user.",
            "type": "string",
            "pattern": "^(report|exit|exec:/.*)$",
        })
    }
}

#[cfg(test)]
mod tests;
