//! Codex CLI. Seen with 0.169.0.
//!
//! - Our provider, the hooks and every switch travel as `-c` overrides: they win over whatever the home's
//!   `config.toml` says, and a `codex` that a person starts in a shell keeps its own. Trust of the checkout and MCP
//!   servers are merged into `config.toml`.
//! - Hooks of the command line are trusted by naming their hash under the layer's synthetic path
//!   (`/<session-flags>/config.toml:EVENT:0:0`). `--dangerously-bypass-hook-trust` would trust the repository's too.
//! - `--no-daemon`: the default terminal interface leaves a background server behind that outlives it, goes on with
//!   the turn and calls out.
//! - The native binary is started, not npm's wrapper: signals reach the agent itself.
//! - An untrusted repository, and one that brings hooks of its own, raise a dialog at the start that no setting
//!   prevents: [`Agent::startup_dialogs`] answers it as `repo.trust` says (`exec` raises none).
//! - Known call home that has no switch: the terminal interface asks raw.githubusercontent.com for an announcement
//!   (`tui.show_tooltips = false` does not stop it).
//! - Codex's own `default` is the sandbox `workspace-write`. It needs user namespaces, which containers rarely have;
//!   without them every command of the agent fails, so only `bypass` is possible there.

use std::collections::BTreeMap;
use std::time::Duration;

use toml_edit::{InlineTable, Value};
use whim_wire::spec::Sensitive;

use super::claude::check_effort;
use super::command::{Command, MAX_PROMPT_ARGUMENT, PromptRoute};
use super::edit::{Edit, FileEdit, TomlEdit};
use super::hook;
use super::locate::Program;
use super::setup::{
    AgentKind, Conversation, Impossible, McpServer, PermissionMode, ProviderKind, Setup, Start,
    Surface,
};
use super::{Agent, PromptRules, StartupDialog, Watch, inject};

/// Values of `model_reasoning_effort`.
pub const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

/// Name of the variable with the session token (`env_key` of our provider).
pub const TOKEN_VARIABLE: &str = "WHIM_TOKEN";

static PROGRAM: Program = Program {
    name: "codex",
    home: &[".local/bin/codex"],
    #[cfg(target_arch = "x86_64")]
    native: &["@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex"],
    #[cfg(not(target_arch = "x86_64"))]
    native: &["@openai/codex-linux-arm64/vendor/aarch64-unknown-linux-musl/bin/codex"],
    remedy: "install it with `npm install -g @openai/codex`",
};

#[derive(Clone, Copy, Debug)]
pub struct Codex;

impl Agent for Codex {
    fn kind(&self) -> AgentKind {
        AgentKind::Codex
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&PROGRAM)
    }

    fn check(&self, setup: &Setup) -> Vec<Impossible> {
        let mut found = Vec::new();
        if setup.provider == ProviderKind::Anthropic {
            found.push(Impossible {
                agent: "codex",
                field: "provider.kind",
                value: setup.provider.as_str().to_owned(),
                reason: "Codex speaks the OpenAI Responses format only".into(),
                remedy: "use agent `claude` with this provider, or provider `openai`".into(),
            });
        }
        match setup.permission {
            Some(PermissionMode::Plan) => found.push(Impossible {
                agent: "codex",
                field: "agent.permission_mode",
                value: "plan".into(),
                reason: "Codex cannot be started in its plan mode".into(),
                remedy: "use `default` and begin the prompt with `/plan`".into(),
            }),
            Some(mode @ (PermissionMode::Default | PermissionMode::AcceptEdits))
                if !setup.sandbox =>
            {
                found.push(Impossible {
                    agent: "codex",
                    field: "agent.permission_mode",
                    value: mode.as_str().into(),
                    reason: "its sandbox needs unprivileged user namespaces, which do not work here, so every command would fail".into(),
                    remedy: "use `bypass` (the container is the sandbox) or allow user namespaces".into(),
                });
            }
            _ => {}
        }
        found.extend(check_effort("codex", setup, &EFFORTS));
        found
    }

    fn files(&self, setup: &Setup) -> Vec<FileEdit> {
        let codex = setup.home.join(".codex");
        let mut files = vec![
            FileEdit {
                path: codex.join("config.toml"),
                mode: inject::PRIVATE,
                edit: Edit::Toml(config(setup)),
            },
            inject::instructions(setup, codex.join("AGENTS.md")),
        ];
        files.extend(inject::skills(setup, &codex.join("skills")));
        files
    }

    fn command(&self, setup: &Setup, start: &Start) -> Result<Command, Impossible> {
        if let Some(impossible) = self.check(setup).into_iter().next() {
            return Err(impossible);
        }
        Ok(command(setup, start))
    }

    fn startup_dialogs(&self, setup: &Setup) -> Vec<StartupDialog> {
        let review = if setup.trusted {
            StartupDialog {
                shows: "Hooks need review",
                keys: Some(b"2\r"),
                why: "the repository is trusted, its hooks are, too",
            }
        } else {
            StartupDialog {
                shows: "Hooks need review",
                keys: Some(b"3\r"),
                why: "the repository is not trusted: its hooks do not run",
            }
        };
        let restricted = StartupDialog {
            shows: "Open restricted",
            keys: Some(b"\r"),
            why: "the repository is not trusted: its configuration and hooks stay off",
        };
        match setup.trusted {
            true => vec![review],
            false => vec![restricted, review],
        }
    }

    fn watch(&self, _setup: &Setup) -> Watch {
        Watch {
            session_files: None,
            title: true,
            osc_7501: true,
            transcript: true,
            ready_by_paste: false,
            dialogs: true,
        }
    }

    fn prompt_rules(&self) -> PromptRules {
        PromptRules {
            paste_required: true,
            local: &['/', '!'],
            tells_submit: true,
            interrupt: b"\x1b",
            leave_dialog: b"\x1b",
            // A second Escape opens the choice of an earlier message.
            interrupt_gap: Duration::from_secs(2),
            clear_line: b"\x15",
        }
    }

    fn chooses_id(&self) -> bool {
        false
    }

    fn forks(&self) -> bool {
        true
    }
}

fn config(setup: &Setup) -> TomlEdit {
    let checkout = setup.checkout.to_string_lossy();
    let trust = if setup.trusted {
        "trusted"
    } else {
        "untrusted"
    };
    let mut edit = TomlEdit::new().set(&["projects", &checkout, "trust_level"], trust);
    for (name, server) in &setup.mcp_servers {
        let at = |key| ["mcp_servers", name.as_str(), key];
        edit = match server {
            McpServer::Stdio { command, args, env } => {
                let edit = edit.set(&at("command"), command.clone()).set(
                    &at("args"),
                    args.iter().map(Sensitive::expose).collect::<Value>(),
                );
                if env.is_empty() {
                    edit
                } else {
                    edit.set(&at("env"), table(env))
                }
            }
            McpServer::Http { url, headers } => {
                let edit = edit.set(&at("url"), url.expose());
                if headers.is_empty() {
                    edit
                } else {
                    edit.set(&at("http_headers"), table(headers))
                }
            }
        };
    }
    edit
}

fn table(entries: &BTreeMap<String, Sensitive>) -> Value {
    Value::InlineTable(
        entries
            .iter()
            .map(|(name, value)| (name.as_str(), Value::from(value.expose())))
            .collect::<InlineTable>(),
    )
}

fn command(setup: &Setup, start: &Start) -> Command {
    let mut arguments: Vec<String> = Vec::new();
    let mut notes = Vec::new();
    let mut set = |key: &str, value: Value| {
        arguments.push("-c".into());
        arguments.push(format!("{key}={}", value.to_string().trim()));
    };
    set("model_provider", "whim".into());
    set("model_providers.whim", provider(setup));
    set("check_for_update_on_startup", false.into());
    set("analytics.enabled", false.into());
    set("feedback.enabled", false.into());
    // Both fetch catalogues from the vendor at every start.
    set("features.plugins", false.into());
    set("features.apps", false.into());
    if let Some(effort) = &setup.effort {
        set("model_reasoning_effort", effort.as_str().into());
    }
    if let Some(transport) = &setup.hooks {
        for (key, value) in hook::codex_overrides(transport) {
            set(&key, value);
        }
    }
    match setup.permission {
        Some(PermissionMode::Bypass) => {
            arguments.push("--dangerously-bypass-approvals-and-sandbox".into());
        }
        Some(_) => {
            set("approval_policy", "on-request".into());
            set("sandbox_mode", "workspace-write".into());
        }
        None if setup.sandbox => {}
        None => {
            set("approval_policy", "on-request".into());
            set("sandbox_mode", "danger-full-access".into());
            notes.push(
                "Codex's sandbox needs user namespaces, which do not work here: commands run without it"
                    .into(),
            );
        }
    }
    if let Some(model) = &setup.model {
        arguments.extend(["-m".into(), model.clone()]);
    }
    let (prompt, stdin) = match start.surface {
        Surface::Pipes => {
            arguments.push("exec".into());
            arguments.push("--json".into());
            // An existing directory need not be a repository, and an untrusted one must not end the run.
            arguments.push("--skip-git-repo-check".into());
            arguments.extend(goes_on(&start.conversation));
            // `-` takes the prompt from standard input, which has no length limit and is not listed by ps.
            arguments.push("-".into());
            let prompt = start.prompt.clone().unwrap_or_default();
            (PromptRoute::Given, Some(prompt.into_bytes()))
        }
        Surface::Terminal => {
            arguments.push("--no-daemon".into());
            arguments.extend(goes_on(&start.conversation));
            match &start.prompt {
                None => (PromptRoute::None, None),
                Some(prompt) if prompt.len() <= MAX_PROMPT_ARGUMENT => {
                    arguments.extend(["--".into(), prompt.clone()]);
                    (PromptRoute::Given, None)
                }
                Some(_) => (PromptRoute::Terminal, None),
            }
        }
    };
    let mut environment = vec![(TOKEN_VARIABLE.to_owned(), setup.token.expose().to_owned())];
    environment.extend(hook::environment(setup));
    Command {
        program: PROGRAM.name.into(),
        arguments,
        environment,
        unset: vec![
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "CODEX_API_KEY",
            "CODEX_HOME",
        ],
        directory: setup.checkout.clone(),
        surface: start.surface,
        stdin,
        prompt,
        notes,
    }
}

/// The subcommand that takes a session up, with its id.
fn goes_on(conversation: &Conversation) -> Vec<String> {
    match conversation {
        Conversation::New { .. } => Vec::new(),
        Conversation::Resume { id } => vec!["resume".into(), id.clone()],
        Conversation::Fork { from, .. } => vec!["fork".into(), from.clone()],
    }
}

/// Our provider. A name of our own: the built-in `openai` ignores the key of the environment and always tries a
/// WebSocket, which costs an attempt where there is none.
fn provider(setup: &Setup) -> Value {
    let mut provider = InlineTable::new();
    provider.insert("name", "whim".into());
    provider.insert("base_url", format!("{}/v1", setup.proxy).into());
    provider.insert("env_key", TOKEN_VARIABLE.into());
    provider.insert("wire_api", "responses".into());
    if setup.websockets.contains(&setup.provider) {
        provider.insert("supports_websockets", true.into());
    }
    Value::InlineTable(provider)
}
