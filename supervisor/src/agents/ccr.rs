//! Claude Code behind Claude Code Router. Seen with router 2.0.0.
//!
//! The router runs beside the agent, on loopback, and translates Messages to Chat Completions. Our proxy stands behind
//! it (`…/api/v1/chat/completions`), because the router drops generation ids and costs; Claude Code stands before it,
//! started as always, only with the router's address. `ccr code` is not used: it sets no switch against calls home.
//!
//! The router chooses the upstream model by its `Router` table, so a model must be named; Claude Code's own `--model`
//! means nothing to it and is not passed.
//!
//! `GET /api/config` of the router shows the resolved key to whoever asks when it has none of its own: its `APIKEY` is
//! the session token, which Claude Code sends to it anyway. Both are written as references to the environment, not as
//! text. The main session uses the home's own configuration (a person's transformers stay); every further session has a
//! router with a home of its own, because configuration, port and pid file are one per home.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::claude::{EFFORTS, check_effort, command, files};
use super::command::{Command, Companion, PromptRoute, Readiness};
use super::edit::{Edit, FileEdit, JsonEdit};
use super::locate::Program;
use super::plugins::{Installation, installations};
use super::setup::{AgentKind, Impossible, ProviderKind, Setup, Start, Surface};
use super::{Agent, PromptRules, Watch, claude, inject};

/// The router listens about 1.5 s after its start; a loaded machine takes longer.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// Variable that the router's configuration takes the session token from.
const TOKEN_VARIABLE: &str = "WHIM_TOKEN";

/// Name of our provider in the router's configuration.
const PROVIDER: &str = "whim";

/// The router itself.
pub static ROUTER: Program = Program {
    name: "ccr",
    home: &[".local/bin/ccr"],
    native: &[],
    remedy: "install it with `npm install -g @musistudio/claude-code-router`",
};

#[derive(Clone, Copy, Debug)]
pub struct Ccr;

impl Agent for Ccr {
    fn kind(&self) -> AgentKind {
        AgentKind::Ccr
    }

    fn program(&self) -> Option<&'static Program> {
        Some(&claude::PROGRAM)
    }

    fn check(&self, setup: &Setup) -> Vec<Impossible> {
        let mut found = Vec::new();
        if setup.provider == ProviderKind::Anthropic {
            found.push(Impossible {
                agent: "ccr",
                field: "provider.kind",
                value: setup.provider.as_str().to_owned(),
                reason: "the router speaks Chat Completions to the provider".into(),
                remedy: "use agent `claude` with this provider".into(),
            });
        }
        match setup.model.as_deref() {
            None => found.push(Impossible {
                agent: "ccr",
                field: "agent.model",
                value: String::new(),
                reason: "the router has no model of its own".into(),
                remedy: "name one of the provider's, e.g. anthropic/claude-sonnet-4.5".into(),
            }),
            Some(model) if model.contains(',') => found.push(Impossible {
                agent: "ccr",
                field: "agent.model",
                value: model.to_owned(),
                reason: "the router splits provider and model at a comma".into(),
                remedy: "name the model alone".into(),
            }),
            Some(_) => {}
        }
        found.extend(check_effort("ccr", setup, &EFFORTS));
        found
    }

    fn files(&self, setup: &Setup) -> Vec<FileEdit> {
        let mut files = files(setup);
        files.push(FileEdit {
            path: router_home(setup).join(".claude-code-router/config.json"),
            mode: inject::PRIVATE,
            edit: Edit::Json(router_config(setup)),
        });
        files
    }

    fn plugins(&self, setup: &Setup) -> Vec<Installation> {
        installations(setup)
    }

    fn command(&self, setup: &Setup, start: &Start) -> Result<Command, Impossible> {
        if let Some(impossible) = self.check(setup).into_iter().next() {
            return Err(impossible);
        }
        Ok(command(setup, start, &router_address(setup), None))
    }

    fn companions(&self, setup: &Setup) -> Vec<Companion> {
        vec![Companion {
            name: "router",
            program: &ROUTER,
            command: Command {
                program: ROUTER.name.into(),
                arguments: vec!["start".into()],
                environment: vec![
                    (
                        "HOME".into(),
                        router_home(setup).to_string_lossy().into_owned(),
                    ),
                    (TOKEN_VARIABLE.into(), setup.token.expose().to_owned()),
                ],
                // The router reads HOST, PORT and APIKEY from the environment, too.
                unset: vec!["HOST", "PORT", "APIKEY", "SERVICE_PORT"],
                directory: setup.home.clone(),
                surface: Surface::Pipes,
                stdin: None,
                prompt: PromptRoute::None,
                notes: Vec::new(),
            },
            ready: Readiness {
                url: format!("{}/health", router_address(setup)),
                deadline: READY_DEADLINE,
            },
        }]
    }

    fn watch(&self, setup: &Setup) -> Watch {
        claude::watch(setup)
    }

    fn prompt_rules(&self) -> PromptRules {
        claude::PROMPT_RULES
    }

    fn chooses_id(&self) -> bool {
        true
    }

    fn forks(&self) -> bool {
        true
    }
}

fn router_address(setup: &Setup) -> String {
    format!("http://127.0.0.1:{}", setup.router_port)
}

fn router_home(setup: &Setup) -> PathBuf {
    if setup.session == "main" {
        setup.home.clone()
    } else {
        setup
            .home
            .join(".local/state/whim/ccr")
            .join(&setup.session)
    }
}

fn router_config(setup: &Setup) -> JsonEdit {
    let model = setup.model.as_deref().unwrap_or_default();
    let route = format!("{PROVIDER},{model}");
    let mut provider = json!({
        "name": PROVIDER,
        "api_base_url": format!("{}/api/v1/chat/completions", setup.proxy),
        "api_key": format!("${TOKEN_VARIABLE}"),
        "models": [model],
    });
    if setup.provider == ProviderKind::Openrouter
        && let Some(members) = provider.as_object_mut()
    {
        members.insert("transformer".into(), json!({"use": ["openrouter"]}));
    }
    let mut edit = JsonEdit::new()
        .set(&["HOST"], "127.0.0.1")
        .set(&["PORT"], setup.router_port)
        .set(&["APIKEY"], format!("${TOKEN_VARIABLE}"))
        .default_to(&["LOG"], false)
        .default_to(&["API_TIMEOUT_MS"], 600_000)
        .upsert(&["Providers"], "name", provider);
    // Every kind of request goes through our provider: another one would pass the proxy by.
    for kind in ["default", "background", "think", "longContext", "webSearch"] {
        edit = edit.set(&["Router", kind], route.clone());
    }
    edit
}
