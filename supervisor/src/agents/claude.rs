//! Claude Code. Seen with 2.1.197.
//!
//! - No dialog on a fresh home: `hasCompletedOnboarding` skips the connectivity check (which exits 1 without the
//!   internet even with a local base URL), theme and security notes; trust of the checkout is recorded per path;
//!   `skipDangerousModePermissionPrompt` answers the warning of bypass mode; the token travels as
//!   `ANTHROPIC_AUTH_TOKEN`, because a key in `ANTHROPIC_API_KEY` asks first and is sent to the vendor.
//! - No calls home: two switches of the environment (facts 1.8).
//! - A stream that breaks off (the provider's, or ours when the supervisor is killed) is asked for once more, at once and
//!   without streaming, and the turn goes on. `CLAUDE_CODE_DISABLE_NONSTREAMING_FALLBACK` must stay unset: with it the
//!   turn ends there with an API error, without another try, and nobody is there to say "go on". At the cap the second
//!   try costs nothing: it is refused.
//! - Hooks and nothing else come with `--settings`: they belong to hosted runs only, so a `claude` that a person starts
//!   in a shell, or a home that is restored elsewhere, has none of them.
//! - As root bypass mode needs `IS_SANDBOX=1`.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::command::{Command, MAX_PROMPT_ARGUMENT, PromptRoute};
use super::edit::{Edit, FileEdit, JsonEdit};
use super::hook;
use super::locate::Program;
use super::observe::session_file;
use super::plugins::{Installation, installations};
use super::setup::{
    AgentKind, Conversation, Impossible, PermissionMode, ProviderKind, Setup, Start, Surface,
};
use super::{Agent, PromptRules, Watch, inject};

/// Effort levels of `--effort`.
pub const EFFORTS: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];

pub(super) static PROGRAM: Program = Program {
    name: "claude",
    home: &[".local/bin/claude", ".claude/local/claude"],
    #[cfg(target_arch = "x86_64")]
    native: &[
        "@anthropic-ai/claude-code-linux-x64/claude",
        "@anthropic-ai/claude-code-linux-x64-musl/claude",
    ],
    #[cfg(not(target_arch = "x86_64"))]
    native: &[
        "@anthropic-ai/claude-code-linux-arm64/claude",
        "@anthropic-ai/claude-code-linux-arm64-musl/claude",
    ],
    remedy: "install it with `npm install -g @anthropic-ai/claude-code`",
};

/// Variables that lead Claude Code past the proxy, to another account or to another home.
pub(super) const UNSET: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "ANTHROPIC_UNIX_SOCKET",
    "CLAUDE_CONFIG_DIR",
    "CLAUDECODE",
];

pub(super) const PROMPT_RULES: PromptRules = PromptRules {
    paste_required: true,
    local: &['/', '!', '#'],
    tells_submit: true,
    interrupt: b"\x1b",
    leave_dialog: b"\x1b",
    // A second Escape clears the input box, or opens the choice of an earlier message.
    interrupt_gap: Duration::from_secs(2),
    clear_line: b"\x15",
};

#[derive(Clone, Copy, Debug)]
pub struct Claude;

impl Agent for Claude {
    fn kind(&self) -> AgentKind {
        AgentKind::Claude
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&PROGRAM)
    }

    fn check(&self, setup: &Setup) -> Vec<Impossible> {
        let mut found = Vec::new();
        if setup.provider == ProviderKind::Openai {
            found.push(Impossible {
                agent: "claude",
                field: "provider.kind",
                value: setup.provider.as_str().to_owned(),
                reason: "Claude Code speaks the Anthropic Messages format only".into(),
                remedy: "use agent `codex` with this provider, or agent `ccr`, which translates"
                    .into(),
            });
        }
        found.extend(check_effort("claude", setup, &EFFORTS));
        found
    }

    fn files(&self, setup: &Setup) -> Vec<FileEdit> {
        files(setup)
    }

    fn plugins(&self, setup: &Setup) -> Vec<Installation> {
        installations(setup)
    }

    fn command(&self, setup: &Setup, start: &Start) -> Result<Command, Impossible> {
        if let Some(impossible) = self.check(setup).into_iter().next() {
            return Err(impossible);
        }
        let mut command = command(setup, start, &setup.proxy, setup.model.as_deref());
        if setup.provider == ProviderKind::Anthropic {
            // Off behind any other base URL by default; the proxy passes everything that it needs.
            command
                .environment
                .push(("ENABLE_TOOL_SEARCH".into(), "true".into()));
        }
        Ok(command)
    }

    fn watch(&self, setup: &Setup) -> Watch {
        watch(setup)
    }

    fn prompt_rules(&self) -> PromptRules {
        PROMPT_RULES
    }

    fn chooses_id(&self) -> bool {
        true
    }

    fn forks(&self) -> bool {
        true
    }
}

pub(super) fn watch(setup: &Setup) -> Watch {
    Watch {
        session_files: Some(session_file::directory(setup)),
        title: true,
        osc_7501: false,
        transcript: true,
        ready_by_paste: false,
        dialogs: true,
    }
}

/// An effort that the agent does not know.
pub(super) fn check_effort(
    agent: &'static str,
    setup: &Setup,
    known: &[&str],
) -> Option<Impossible> {
    let effort = setup.effort.as_deref()?;
    (!known.contains(&effort)).then(|| Impossible {
        agent,
        field: "agent.effort",
        value: effort.to_owned(),
        reason: "it has no such level".into(),
        remedy: format!("use one of {}", known.join(", ")),
    })
}

/// What Claude Code and the router's Claude Code are prepared with.
pub(super) fn files(setup: &Setup) -> Vec<FileEdit> {
    let checkout = setup.checkout.to_string_lossy();
    let claude = setup.home.join(".claude");
    let mut files = vec![
        FileEdit {
            path: setup.home.join(".claude.json"),
            mode: inject::PRIVATE,
            edit: Edit::Json(
                JsonEdit::new()
                    .set(&["hasCompletedOnboarding"], true)
                    .set(&["projects", &checkout, "hasTrustDialogAccepted"], true),
            ),
        },
        FileEdit {
            path: claude.join("settings.json"),
            mode: inject::PUBLIC,
            edit: Edit::Json(settings(setup)),
        },
        inject::instructions(setup, setup.app.join("CLAUDE.md")),
    ];
    if !setup.mcp_servers.is_empty() {
        files.push(inject::mcp_file(
            setup.home.join(".mcp.json"),
            &inject::mcp_servers(setup, "stdio"),
        ));
    }
    files.extend(inject::skills(setup, &claude.join("skills")));
    files
}

fn settings(setup: &Setup) -> JsonEdit {
    let mut edit = JsonEdit::new();
    if !setup.settings.is_empty() {
        edit = edit.merge(&[], Value::Object(setup.settings.clone()));
    }
    for (name, marketplace) in &setup.plugins.marketplaces {
        edit = edit.set(&["extraKnownMarketplaces", name], marketplace.clone());
    }
    for (plugin, enabled) in &setup.plugins.enabled {
        edit = edit.set(&["enabledPlugins", plugin], *enabled);
    }
    if setup.permission == Some(PermissionMode::Bypass) {
        edit = edit.set(&["skipDangerousModePermissionPrompt"], true);
    }
    if setup.trusted {
        edit = edit.default_to(&["enableAllProjectMcpServers"], true);
    }
    edit
}

/// The command against `base`: the generation proxy, or a router before it.
pub(super) fn command(setup: &Setup, start: &Start, base: &str, model: Option<&str>) -> Command {
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
    if start.surface == Surface::Pipes {
        // stream-json needs --verbose in print mode.
        add(&["-p", "--output-format", "stream-json", "--verbose"]);
    }
    match &start.conversation {
        Conversation::New { id } => add(&["--session-id", id]),
        Conversation::Resume { id } => add(&["--resume", id]),
        Conversation::Fork { from, id } => {
            add(&["--resume", from, "--fork-session", "--session-id", id]);
        }
    }
    if let Some(model) = model {
        add(&["--model", model]);
    }
    if let Some(effort) = &setup.effort {
        add(&["--effort", effort]);
    }
    match setup.permission {
        None => {}
        Some(PermissionMode::Default) => add(&["--permission-mode", "default"]),
        Some(PermissionMode::AcceptEdits) => add(&["--permission-mode", "acceptEdits"]),
        Some(PermissionMode::Plan) => add(&["--permission-mode", "plan"]),
        Some(PermissionMode::Bypass) => add(&["--dangerously-skip-permissions"]),
    }
    if !setup.mcp_servers.is_empty() {
        // Read by itself only where the working directory lies below the home.
        add(&["--mcp-config", &text(&setup.home.join(".mcp.json"))]);
    }
    if !setup.trusted {
        // Neither the repository's settings (hooks, permissions) nor its MCP servers.
        add(&["--setting-sources", "user", "--strict-mcp-config"]);
    }
    if let Some(transport) = &setup.hooks {
        let hooks = json!({"hooks": hook::claude_settings(transport)});
        add(&["--settings", &hooks.to_string()]);
    }
    let (prompt, stdin) = match (&start.prompt, start.surface) {
        (None, _) => (PromptRoute::None, None),
        (Some(prompt), Surface::Pipes) => (PromptRoute::Given, Some(prompt.clone().into_bytes())),
        (Some(prompt), Surface::Terminal) if prompt.len() <= MAX_PROMPT_ARGUMENT => {
            // `--` ends the list that --mcp-config takes, and a prompt may begin with a dash.
            add(&["--", prompt]);
            (PromptRoute::Given, None)
        }
        (Some(_), Surface::Terminal) => (PromptRoute::Terminal, None),
    };

    let mut environment = vec![
        ("ANTHROPIC_BASE_URL".into(), base.to_owned()),
        (
            "ANTHROPIC_AUTH_TOKEN".into(),
            setup.token.expose().to_owned(),
        ),
    ];
    environment.extend(
        [
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC",
            "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL",
        ]
        .map(|name| (name.to_owned(), "1".to_owned())),
    );
    let mut notes = Vec::new();
    if setup.root && setup.permission == Some(PermissionMode::Bypass) {
        environment.push(("IS_SANDBOX".into(), "1".into()));
        notes.push(
            "Claude Code runs as root in bypass mode: it is told that this is a sandbox".into(),
        );
    }
    environment.extend(hook::environment(setup));
    Command {
        program: PROGRAM.name.into(),
        arguments,
        environment,
        unset: UNSET.to_vec(),
        directory: setup.checkout.clone(),
        surface: start.surface,
        stdin,
        prompt,
        notes,
    }
}

pub(super) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
