//! What `whim run` works with: every value decided, with its default.
//!
//! Values that only the boot can decide stay open and say so: the remote's default branch, the agent's own model, the
//! id of a task that nobody named.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr};
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use whim_proxies::local::Limits;
use whim_wire::spec::{
    AgentKind, Attachment, IdleAction, Mode, PermissionMode, ProviderKind, Restore, Sensitive,
    Spec, Task, Trust, Usd,
};

use super::Secret;
use super::layers::Configuration;
use super::values::StoreKind;

/// The platform's documented auto-sleep.
pub const IDLE_AFTER: Duration = Duration::from_secs(15 * 60);
/// Fits `docker stop`, which kills after 10 s.
pub const GRACE: Duration = Duration::from_secs(8);
/// Shortest grace: the groups get KILL 2 s before its end, and TERM must have had some time.
pub const GRACE_MIN: Duration = Duration::from_secs(3);
/// Longest grace; no platform waits longer.
pub const GRACE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Long enough to install the dependencies of a large project.
pub const INIT_TIMEOUT: Duration = Duration::from_secs(600);
/// What is lost at most when a machine disappears.
pub const BACKUP_INTERVAL: Duration = Duration::from_secs(30);
/// The user of common agent images (`node:*`, the documented container).
pub const USER: &str = "node";
/// Dual stack; where IPv6 is off, the listener falls back to 0.0.0.0.
pub const BIND: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
/// Documented ports of the container's services.
pub const PORTS: Ports = Ports {
    generation: 3001,
    local: 8080,
    backup: 8081,
    ui: 7681,
};
/// Log filter.
pub const LOG: &str = "info";

/// Everything `whim run` was told.
#[derive(Clone, Debug)]
pub struct Settings {
    pub root: Root,
    /// Services up, task taken once from `PUT /v1/spec`.
    pub wait_for_spec: bool,
    pub task: Task,
    /// `None`: work in the directory that is there.
    pub repo: Option<Repo>,
    pub agent: Agent,
    pub provider: Provider,
    /// Hard cap; `None`: no cap.
    pub budget: Option<Usd>,
    pub caps: Caps,
    /// What happens under a cap to a model without a price.
    pub unknown_model: UnknownModel,
    pub prices: PathBuf,
    pub attachments: Vec<Attachment>,
    pub configuration: Configuration,
    pub restore: Option<Restore>,
    pub idle: Idle,
    pub init_timeout: Duration,
    pub backup: Backup,
    pub backend: Option<Backend>,
    /// How long an ordered end may take in all.
    pub grace: Duration,
    /// `None`: make a random one.
    pub control_token: Option<Secret>,
    /// Name or uid of the user of agents, shells, init.sh and hooks.
    pub user: String,
    pub no_new_privs: bool,
    pub ports: Ports,
    pub bind: IpAddr,
    pub preview: Preview,
    pub log: Log,
    /// Variables of the container that reach agents although whim uses them.
    pub pass_env: BTreeSet<String>,
    /// The spec as it was given, for the platform's API and for the next supervisor.
    pub spec: Option<Spec>,
}

/// The prefix of every path of the container's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// `directory` must be absolute.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self(directory.into())
    }

    /// A path of the layout (`/whim/state`) under this root.
    pub fn path(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let absolute = absolute.as_ref();
        self.0.join(absolute.strip_prefix("/").unwrap_or(absolute))
    }

    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Whether the layout lies where it does in a container.
    pub fn is_default(&self) -> bool {
        self.0 == Path::new("/")
    }
}

/// Bounds of model calls beside the money; `None`: no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Tokens of the task.
    pub tokens: Option<NonZeroU64>,
    /// Calls within any 60 seconds.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Minutes since the task's first call.
    pub minutes: Option<NonZeroU64>,
}

/// The repository.
#[derive(Clone, Debug, PartialEq)]
pub struct Repo {
    pub url: Sensitive,
    pub mirror: Option<Sensitive>,
    /// `None`: the remote's default.
    pub source_branch: Option<String>,
    /// `None`: no branch and no task id was given; the boot makes an id.
    pub branch: Option<String>,
    /// `None`: the whole history.
    pub depth: Option<u32>,
    pub trust: Trust,
}

/// The agent of the session `main`.
#[derive(Clone, Debug, PartialEq)]
pub struct Agent {
    pub kind: AgentKind,
    pub mode: Mode,
    /// `None`: the agent's own default.
    pub model: Option<String>,
    /// `None`: the agent's own default.
    pub permission_mode: Option<PermissionMode>,
    /// `None`: the agent's own default.
    pub effort: Option<String>,
    /// Line ends are newlines.
    pub prompt: Option<String>,
    /// argv of a `custom` agent; empty for the others.
    pub command: Vec<String>,
}

/// The model provider.
#[derive(Clone, Debug)]
pub struct Provider {
    /// `None`: a `custom` agent, and nothing says which.
    pub kind: Option<ProviderKind>,
    /// Base URL without `/v1`; `None`: the provider's own.
    pub upstream: Option<Sensitive>,
    /// Whether the upstream speaks the WebSocket of the Responses API; `None`: only api.openai.com does.
    pub websocket: Option<bool>,
    pub credentials: Credentials,
}

/// Provider credentials as they were given; all of them, because later sessions may use other agents.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    pub anthropic_api_key: Option<Secret>,
    pub claude_code_oauth_token: Option<Secret>,
    pub openai_api_key: Option<Secret>,
    pub openrouter_api_key: Option<Secret>,
    /// `WHIM_PROVIDER_KEY`: for the chosen provider, before its own variable.
    pub provider_key: Option<Secret>,
}

/// A credential and how it is shown to the provider.
#[derive(Clone, Debug)]
pub enum Credential<'a> {
    ApiKey(&'a Secret),
    /// OAuth token of a Claude subscription: a bearer with its own beta header.
    ClaudeOauth(&'a Secret),
}

impl Credentials {
    /// The credential for the main provider, `WHIM_PROVIDER_KEY` first. An API key is preferred to a subscription's
    /// token, as Claude Code itself does.
    pub fn main(&self, provider: ProviderKind) -> Option<Credential<'_>> {
        self.provider_key
            .as_ref()
            .map(Credential::ApiKey)
            .or_else(|| self.of(provider))
    }

    /// The credential from the provider's own variables.
    pub fn of(&self, provider: ProviderKind) -> Option<Credential<'_>> {
        match provider {
            ProviderKind::Anthropic => {
                let key = self.anthropic_api_key.as_ref().map(Credential::ApiKey);
                key.or_else(|| {
                    self.claude_code_oauth_token
                        .as_ref()
                        .map(Credential::ClaudeOauth)
                })
            }
            ProviderKind::Openai => self.openai_api_key.as_ref().map(Credential::ApiKey),
            ProviderKind::Openrouter => self.openrouter_api_key.as_ref().map(Credential::ApiKey),
            ProviderKind::Compatible => None,
        }
    }
}

/// What a cap does about a model without a known price.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownModel {
    /// Refuse it by name.
    #[default]
    Refuse,
    /// Count it at the dearest known rate.
    Dearest,
}

/// Idleness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// `None`: never.
    pub after: Option<Duration>,
    pub action: IdleAction,
}

/// Where and how often history is kept.
#[derive(Clone, Debug)]
pub struct Backup {
    pub url: Sensitive,
    pub kind: StoreKind,
    pub interval: Duration,
    /// Terminal recordings are saved too.
    pub recordings: bool,
    /// The work tree is saved too: what is not pushed, not committed, not tracked.
    pub code: bool,
    /// The container's variables that hold the store's credentials and settings (`AWS_*`, …). They reach the store's
    /// client only.
    pub environment: BTreeMap<String, Secret>,
}

/// The platform's API.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Without a trailing slash.
    pub url: Sensitive,
    pub token: Secret,
}

/// TCP ports; 0: any free one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub generation: u16,
    pub local: u16,
    pub backup: u16,
    pub ui: u16,
}

/// How previews are addressed and entered.
#[derive(Clone, Debug, Default)]
pub struct Preview {
    /// Template with `{port}`; `None`: the local path form.
    pub url: Option<String>,
    pub limits: Limits,
    /// The router's secret; `None`: make a random one.
    pub secret: Option<Secret>,
}

/// Logging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// In the syntax of tracing's `Targets`: levels, alone or of a module, separated by commas.
    pub filter: String,
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// The container's own environment, as the keeper received it. `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    /// The first of several equal names counts, as getenv(3) does it.
    pub fn new(pairs: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut map = BTreeMap::new();
        for (name, value) in pairs {
            map.entry(name).or_insert(value);
        }
        Self(map)
    }

    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(std::ffi::OsStr::new(name))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }
}

impl std::fmt::Debug for Variables {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
