//! GitHub Copilot CLI with a provider of its own ("BYOK"). Seen with 1.0.102.
//!
//! - No GitHub login: `COPILOT_PROVIDER_BASE_URL` names the proxy. No calls home: `COPILOT_OFFLINE`, which also turns
//!   off the update check and the GitHub MCP server.
//! - Folder trust, which `--allow-all` does not skip, is the list `trustedFolders` in `~/.copilot/config.json` (a file
//!   the CLI manages itself, with comments at its head). `COPILOT_ALLOW_ALL=true` would trust any directory.
//! - Hooks are a file of ours in `~/.copilot/hooks`; user-level hooks need no trust. A shell of the user's runs them
//!   too, where the command does nothing.
//! - A model must be named. Models of the GPT-5 series and later want the Responses format, with Chat Completions the
//!   CLI warns.
//! - Before its first prompt it tells nothing: `sessionStart` comes with that prompt.
//! - Esc twice (with a pause between) or one Ctrl-C interrupts; a prompt entered while it works is queued and joined with others into one.

use std::time::Duration;

use serde_json::Value;

use super::claude::check_effort;
use super::command::{Command, MAX_PROMPT_ARGUMENT, PromptRoute};
use super::edit::{Edit, FileEdit, JsonEdit};
use super::hook;
use super::locate::Program;
use super::setup::{
    AgentKind, Conversation, Impossible, PermissionMode, ProviderKind, Setup, Start, Surface,
};
use super::{Agent, PromptRules, Watch, inject};

/// Levels of `--reasoning-effort`.
pub const EFFORTS: [&str; 7] = ["none", "minimal", "low", "medium", "high", "xhigh", "max"];

static PROGRAM: Program = Program {
    name: "copilot",
    home: &[".local/bin/copilot"],
    #[cfg(target_arch = "x86_64")]
    native: &[
        "@github/copilot-linux-x64/copilot",
        "@github/copilot-linuxmusl-x64/copilot",
    ],
    #[cfg(not(target_arch = "x86_64"))]
    native: &[
        "@github/copilot-linux-arm64/copilot",
        "@github/copilot-linuxmusl-arm64/copilot",
    ],
    remedy: "install it with `npm install -g @github/copilot`",
};

#[derive(Clone, Copy, Debug)]
pub struct Copilot;

impl Agent for Copilot {
    fn kind(&self) -> AgentKind {
        AgentKind::Copilot
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&PROGRAM)
    }

    fn check(&self, setup: &Setup) -> Vec<Impossible> {
        let mut found = Vec::new();
        if setup.model.is_none() {
            found.push(Impossible {
                agent: "copilot",
                field: "agent.model",
                value: String::new(),
                reason: "with a provider of its own Copilot has no default model".into(),
                remedy: "name one of the provider's models".into(),
            });
        }
        found.extend(check_effort("copilot", setup, &EFFORTS));
        found
    }

    fn files(&self, setup: &Setup) -> Vec<FileEdit> {
        let copilot = setup.home.join(".copilot");
        let mut files = Vec::new();
        if setup.trusted {
            files.push(FileEdit {
                path: copilot.join("config.json"),
                mode: inject::PRIVATE,
                edit: Edit::Json(JsonEdit::new().include(
                    &["trustedFolders"],
                    setup.checkout.to_string_lossy().as_ref(),
                )),
            });
        }
        if let Some(transport) = &setup.hooks {
            let mut content = hook::copilot_file(transport).to_string();
            content.push('\n');
            files.push(FileEdit {
                path: copilot.join("hooks/whim.json"),
                mode: inject::PUBLIC,
                edit: Edit::Replace(content.into_bytes()),
            });
        }
        files.push(inject::instructions(
            setup,
            copilot.join("copilot-instructions.md"),
        ));
        if !setup.mcp_servers.is_empty() {
            let mut servers = inject::mcp_servers(setup, "local");
            for (_, server) in &mut servers {
                // Without the list none of the server's tools is offered.
                if let Some(members) = server.as_object_mut() {
                    members.insert("tools".into(), Value::from(vec!["*"]));
                }
            }
            files.push(inject::mcp_file(copilot.join("mcp-config.json"), &servers));
        }
        files.extend(inject::skills(setup, &copilot.join("skills")));
        files
    }

    fn command(&self, setup: &Setup, start: &Start) -> Result<Command, Impossible> {
        if let Some(impossible) = self.check(setup).into_iter().next() {
            return Err(impossible);
        }
        if !setup.trusted && start.surface == Surface::Terminal {
            return Err(Impossible {
                agent: "copilot",
                field: "repo.trust",
                value: "untrusted".into(),
                reason: "in a terminal Copilot ends unless the folder, with its hooks and servers, is trusted".into(),
                remedy: "use mode `oneshot`, which leaves them out, or another agent".into(),
            });
        }
        Ok(command(setup, start))
    }

    fn watch(&self, _setup: &Setup) -> Watch {
        Watch {
            session_files: None,
            title: false,
            osc_7501: false,
            transcript: true,
            ready_by_paste: true,
            dialogs: true,
        }
    }

    fn prompt_rules(&self) -> PromptRules {
        PromptRules {
            paste_required: true,
            local: &['/', '!'],
            tells_submit: true,
            // Escape would have to come twice with a pause between; one Ctrl-C does the same while it works.
            interrupt: b"\x03",
            leave_dialog: b"\x1b",
            // Ctrl-C twice ends the program.
            interrupt_gap: Duration::from_secs(3),
            // Ctrl-U stops at the line's beginning; the backspace joins it to the one before.
            clear_line: b"\x15\x7f",
        }
    }

    fn chooses_id(&self) -> bool {
        true
    }
}

fn command(setup: &Setup, start: &Start) -> Command {
    let mut arguments: Vec<String> = Vec::new();
    match &start.conversation {
        Conversation::New { id } => arguments.extend(["--session-id".into(), id.clone()]),
        // It cannot fork: whoever asks for that has copied the session under its new id.
        Conversation::Resume { id } | Conversation::Fork { from: _, id } => {
            arguments.push(format!("--resume={id}"));
        }
    }
    if let Some(effort) = &setup.effort {
        arguments.extend(["--reasoning-effort".into(), effort.clone()]);
    }
    match setup.permission {
        None | Some(PermissionMode::Default) => {}
        Some(PermissionMode::AcceptEdits) => arguments.push("--allow-tool=write".into()),
        Some(PermissionMode::Plan) => arguments.extend(["--mode".into(), "plan".into()]),
        Some(PermissionMode::Bypass) => arguments.push("--allow-all".into()),
    }
    let prompt = match (&start.prompt, start.surface) {
        (None, Surface::Terminal) => PromptRoute::None,
        (Some(prompt), Surface::Terminal) if prompt.len() <= MAX_PROMPT_ARGUMENT => {
            arguments.extend(["-i".into(), prompt.clone()]);
            PromptRoute::Given
        }
        (Some(_), Surface::Terminal) => PromptRoute::Terminal,
        (_, Surface::Pipes) => {
            arguments.extend(["--output-format".into(), "json".into()]);
            PromptRoute::Given
        }
    };
    let stdin = (start.surface == Surface::Pipes)
        .then(|| start.prompt.clone().unwrap_or_default().into_bytes());

    let model = setup.model.clone().unwrap_or_default();
    let anthropic = setup.provider == ProviderKind::Anthropic;
    let mut environment = vec![
        (
            "COPILOT_PROVIDER_BASE_URL".to_owned(),
            if anthropic {
                setup.proxy.clone()
            } else {
                format!("{}/v1", setup.proxy)
            },
        ),
        (
            "COPILOT_PROVIDER_TYPE".to_owned(),
            if anthropic { "anthropic" } else { "openai" }.to_owned(),
        ),
        (
            "COPILOT_PROVIDER_API_KEY".to_owned(),
            setup.token.expose().to_owned(),
        ),
        ("COPILOT_OFFLINE".to_owned(), "true".to_owned()),
        ("COPILOT_AUTO_UPDATE".to_owned(), "false".to_owned()),
    ];
    if !anthropic {
        let wire = if speaks_responses(&model) && setup.provider == ProviderKind::Openai {
            "responses"
        } else {
            "completions"
        };
        environment.push(("COPILOT_PROVIDER_WIRE_API".to_owned(), wire.to_owned()));
    }
    environment.push(("COPILOT_MODEL".to_owned(), model));
    environment.extend(hook::environment(setup));
    Command {
        program: PROGRAM.name.into(),
        arguments,
        environment,
        unset: vec![
            "COPILOT_HOME",
            "COPILOT_ALLOW_ALL",
            "COPILOT_PROVIDER_BEARER_TOKEN",
            "COPILOT_PROVIDER_API_KEY_COMMAND",
            "COPILOT_PROVIDER_HEADERS",
            "COPILOT_PROVIDER_TRANSPORT",
            "COPILOT_PROVIDER_MODEL_ID",
            "COPILOT_PROVIDER_WIRE_MODEL",
        ],
        directory: setup.checkout.clone(),
        surface: start.surface,
        stdin,
        prompt,
        notes: Vec::new(),
    }
}

/// `gpt-5` and everything after it.
fn speaks_responses(model: &str) -> bool {
    model
        .strip_prefix("gpt-")
        .and_then(|rest| rest.split(['.', '-']).next())
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major >= 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_format_follows_the_model() {
        for (model, responses) in [
            ("gpt-5", true),
            ("gpt-5.1-codex", true),
            ("gpt-6-sol", true),
            ("gpt-10", true),
            ("gpt-4.1", false),
            ("gpt-4o", false),
            ("o3", false),
            ("claude-sonnet-5", false),
        ] {
            assert_eq!(speaks_responses(model), responses, "{model}");
        }
    }
}
