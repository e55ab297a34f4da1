//! Any command as an agent: a script, another CLI, a test's fake.
//!
//! It gets the proxy's address and the session token under the names that most programs read. Nothing is known about
//! its flags, so a model, permission mode or effort cannot be passed on and are refused instead of being ignored.

use std::time::Duration;

use super::command::{Command, PromptRoute};
use super::edit::FileEdit;
use super::hook;
use super::locate::Program;
use super::setup::{AgentKind, Impossible, Setup, Start, Surface};
use super::{Agent, PromptRules, Watch, inject};

#[derive(Clone, Copy, Debug)]
pub struct Custom;

impl Agent for Custom {
    fn kind(&self) -> AgentKind {
        AgentKind::Custom
    }

    fn program(&self) -> Option<&'static Program> {
        None
    }

    fn check(&self, setup: &Setup) -> Vec<Impossible> {
        let mut found = Vec::new();
        if setup.custom.first().is_none_or(String::is_empty) {
            found.push(Impossible {
                agent: "custom",
                field: "agent.command",
                value: String::new(),
                reason: "there is no program to start".into(),
                remedy: "name it with its arguments, e.g. [\"bash\", \"-l\"]".into(),
            });
        }
        let passed = [
            ("agent.model", setup.model.clone()),
            (
                "agent.permission_mode",
                setup.permission.map(|mode| mode.as_str().to_owned()),
            ),
            ("agent.effort", setup.effort.clone()),
        ];
        for (field, value) in passed {
            if let Some(value) = value {
                found.push(Impossible {
                    agent: "custom",
                    field,
                    value,
                    reason: "nothing is known about the command's own options".into(),
                    remedy: "put it into agent.command".into(),
                });
            }
        }
        found
    }

    fn files(&self, setup: &Setup) -> Vec<FileEdit> {
        // The command may be any of the known CLIs, or read one of these files itself.
        vec![
            inject::instructions(setup, setup.app.join("CLAUDE.md")),
            inject::instructions(setup, setup.home.join(".codex/AGENTS.md")),
        ]
    }

    fn command(&self, setup: &Setup, start: &Start) -> Result<Command, Impossible> {
        if let Some(impossible) = self.check(setup).into_iter().next() {
            return Err(impossible);
        }
        let mut words = setup.custom.iter().cloned();
        let token = setup.token.expose();
        let mut environment: Vec<(String, String)> = [
            ("ANTHROPIC_BASE_URL", setup.proxy.clone()),
            ("ANTHROPIC_AUTH_TOKEN", token.to_owned()),
            ("OPENAI_BASE_URL", format!("{}/v1", setup.proxy)),
            ("OPENAI_API_KEY", token.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        environment.extend(hook::environment(setup));
        let (prompt, stdin) = match (&start.prompt, start.surface) {
            (None, _) => (PromptRoute::None, None),
            (Some(prompt), Surface::Pipes) => {
                (PromptRoute::Given, Some(prompt.clone().into_bytes()))
            }
            (Some(_), Surface::Terminal) => (PromptRoute::Terminal, None),
        };
        Ok(Command {
            program: words.next().unwrap_or_default().into(),
            arguments: words.collect(),
            environment,
            unset: Vec::new(),
            directory: setup.checkout.clone(),
            surface: start.surface,
            stdin,
            prompt,
            notes: Vec::new(),
        })
    }

    fn watch(&self, _setup: &Setup) -> Watch {
        Watch {
            session_files: None,
            title: false,
            osc_7501: false,
            transcript: false,
            ready_by_paste: false,
            dialogs: false,
        }
    }

    fn prompt_rules(&self) -> PromptRules {
        PromptRules {
            paste_required: false,
            local: &[],
            tells_submit: false,
            interrupt: b"\x03",
            leave_dialog: b"\x1b",
            interrupt_gap: Duration::from_secs(1),
            clear_line: b"\x15",
        }
    }

    fn chooses_id(&self) -> bool {
        false
    }
}
