//! What to work on, with which agent and provider.

use std::path::PathBuf;

use whim_wire::spec::{AgentKind, Mode, PermissionMode, ProviderKind, Sensitive, Spec, Task};

use super::reader::{Problem, Reader, word};
use crate::config::mistake::{Mistake, Place};
use crate::config::{names, settings, values};

impl Reader<'_> {
    pub(super) fn root(&mut self) -> settings::Root {
        let directory = self.value(&self.options.root, "WHIM_ROOT", |text| {
            if text.contains(char::is_control) {
                return Err(Problem::new(
                    "contains control characters",
                    "give a directory",
                ));
            }
            std::path::absolute(text).map_err(|error| {
                Problem::new(format!("is no directory: {error}"), "give an absolute path")
            })
        });
        settings::Root::new(directory.unwrap_or_else(|| PathBuf::from("/")))
    }

    pub(super) fn wait_for_spec(&mut self, spec_given: bool) -> bool {
        let wait = self.options.wait_for_spec || self.switch("WHIM_WAIT_FOR_SPEC");
        let place = if self.options.wait_for_spec {
            Place::Flag("--wait-for-spec".to_owned())
        } else {
            Place::Variable("WHIM_WAIT_FOR_SPEC".to_owned())
        };
        let named = self.options.spec.is_some() || self.variable("WHIM_SPEC").is_some();
        if wait && named {
            self.mistake(
                place,
                None,
                Problem::new("stands together with a spec", "leave one of the two out"),
            );
        }
        // Once the spec has come, nobody waits any more.
        wait && !spec_given
    }

    pub(super) fn repo(&mut self, spec: &Spec, task: &Task) -> Option<settings::Repo> {
        let options = self.options;
        let remedy = "give an https, ssh, git or file URL, user@host:path, or a local path";
        let url = self.checked(&options.repo, "WHIM_REPO_URL", names::repository, remedy);
        let branch_remedy = "give a name that `git check-ref-format --branch` accepts";
        let source_branch = self.checked(
            &options.source_branch,
            "WHIM_SOURCE_BRANCH",
            names::branch,
            branch_remedy,
        );
        let branch = self.checked(&options.branch, "WHIM_BRANCH", names::branch, branch_remedy);
        let given = spec.repo.clone().unwrap_or_default();
        // A mirror belongs to the repository of the same spec.
        let mirror = if url.is_some() { None } else { given.mirror };
        let url = url.map(Sensitive::from).or(given.url)?;
        Some(settings::Repo {
            url,
            mirror,
            source_branch: source_branch.or(given.source_branch),
            branch: branch
                .or(given.branch)
                .or_else(|| task.id.as_ref().map(|id| format!("whim-{id}"))),
            depth: given.depth,
            trust: given.trust,
        })
    }

    pub(super) fn agent(&mut self, spec: &Spec, spec_missing: bool) -> settings::Agent {
        let options = self.options;
        let given = &spec.agent;
        let kind = self
            .value(&options.agent, "WHIM_AGENT", |text| {
                word(text, AgentKind::ALL, AgentKind::as_str)
            })
            .or(given.kind);
        let kind = kind.unwrap_or(AgentKind::Claude);
        let mode = self
            .value(&options.mode, "WHIM_MODE", |text| {
                word(text, Mode::ALL, Mode::as_str)
            })
            .or(given.mode);
        let mode = mode.unwrap_or(Mode::Interactive);
        let permission_mode = self
            .value(&options.permission_mode, "WHIM_PERMISSION_MODE", |text| {
                word(text, PermissionMode::ALL, PermissionMode::as_str)
            })
            .or(given.permission_mode);
        let model = self.checked(
            &options.model,
            "WHIM_MODEL",
            values::agent_word,
            "give the model's name",
        );
        let effort = self.checked(
            &options.effort,
            "WHIM_EFFORT",
            values::agent_word,
            "give a word such as low or high",
        );
        let prompt = self.checked(
            &options.prompt,
            "WHIM_PROMPT",
            values::prompt,
            values::PROMPT_REMEDY,
        );
        let prompt = prompt
            .as_ref()
            .or(given.prompt.as_ref())
            .map(|text| values::normalised(text));
        let command = self.value(&options.agent_command, "WHIM_AGENT_COMMAND", |text| {
            let argv: Vec<String> = serde_json::from_str(text).map_err(|_| {
                Problem::new(
                    "is no JSON array of strings",
                    r#"write it as ["program","argument"]"#,
                )
            })?;
            values::command(&argv)
                .map_err(|problem| Problem::new(problem, values::COMMAND_REMEDY))?;
            Ok(argv)
        });
        let command = command
            .or_else(|| given.command.clone())
            .unwrap_or_default();
        if !spec_missing {
            if kind == AgentKind::Custom && command.is_empty() {
                let problem = Problem::new(
                    "is missing for the agent custom",
                    r#"give its argv, as ["program","argument"]"#,
                );
                self.mistake(Place::Flag("--agent-command".to_owned()), None, problem);
            }
            if mode != Mode::Interactive && kind != AgentKind::Custom && prompt.is_none() {
                let problem = Problem::new(
                    format!("is missing for the mode {mode}"),
                    "give a prompt, or use --mode interactive",
                );
                self.mistake(Place::Flag("[PROMPT]".to_owned()), None, problem);
            }
        }
        if kind != AgentKind::Custom && !command.is_empty() {
            let place = Place::Flag("--agent-command".to_owned());
            let remedy = "use --agent custom, or leave it out";
            self.warnings.push(Mistake::new(
                place,
                format!("is not used by the agent {kind}"),
                remedy,
            ));
        }
        settings::Agent {
            kind,
            mode,
            model: model.or_else(|| given.model.clone()),
            permission_mode,
            effort: effort.or_else(|| given.effort.clone()),
            prompt,
            command: if kind == AgentKind::Custom {
                command
            } else {
                Vec::new()
            },
        }
    }

    pub(super) fn provider(
        &mut self,
        spec: &Spec,
        agent: AgentKind,
        spec_missing: bool,
    ) -> settings::Provider {
        let options = self.options;
        let credentials = settings::Credentials {
            anthropic_api_key: self.secret("ANTHROPIC_API_KEY"),
            claude_code_oauth_token: self.secret("CLAUDE_CODE_OAUTH_TOKEN"),
            openai_api_key: self.secret("OPENAI_API_KEY"),
            openrouter_api_key: self.secret("OPENROUTER_API_KEY"),
            provider_key: self.secret("WHIM_PROVIDER_KEY"),
        };
        let kind = self
            .value(&options.provider, "WHIM_PROVIDER", |text| {
                word(text, ProviderKind::ALL, ProviderKind::as_str)
            })
            .or(spec.provider.kind)
            .or_else(|| default_provider(agent, &credentials));
        let upstream = self.value(&options.upstream, "WHIM_UPSTREAM_URL", |text| {
            values::upstream(text).map_err(|problem| {
                Problem::new(problem, "give the base URL, as https://api.example.com")
            })
        });
        let upstream = upstream.map(Sensitive::from).or_else(|| {
            let given = spec.provider.upstream.as_ref()?;
            values::upstream(given.expose()).ok().map(Sensitive::from)
        });
        let websocket = self.choice("WHIM_UPSTREAM_WEBSOCKET");
        if !spec_missing {
            if kind == Some(ProviderKind::Compatible) && upstream.is_none() {
                let problem = Problem::new(
                    "is missing for the provider compatible",
                    "give the provider's base URL",
                );
                self.mistake(Place::Flag("--upstream".to_owned()), None, problem);
            }
            // No mistake: credentials may come later with `PUT /v1/credentials`, and a local provider may want none.
            if let Some(kind) = kind
                && kind != ProviderKind::Compatible
                && credentials.main(kind).is_none()
            {
                let place = Place::Variable(credential_variable(kind).to_owned());
                let remedy =
                    "set it, or send it with PUT /v1/credentials; until then model calls fail";
                self.warnings.push(Mistake::new(
                    place,
                    format!("is missing for the provider {kind}"),
                    remedy,
                ));
            }
        }
        settings::Provider {
            kind,
            upstream,
            websocket: websocket.or(spec.provider.websocket),
            credentials,
        }
    }
}

/// The provider that an agent works with unless told otherwise. Copilot speaks two wire formats and a custom agent any,
/// so there the credential decides.
fn default_provider(agent: AgentKind, credentials: &settings::Credentials) -> Option<ProviderKind> {
    let order = [
        ProviderKind::Anthropic,
        ProviderKind::Openai,
        ProviderKind::Openrouter,
    ];
    let with_credential = || {
        order
            .into_iter()
            .find(|kind| credentials.of(*kind).is_some())
    };
    match agent {
        AgentKind::Claude => Some(ProviderKind::Anthropic),
        AgentKind::Codex => Some(ProviderKind::Openai),
        AgentKind::Ccr => Some(ProviderKind::Openrouter),
        AgentKind::Copilot => with_credential().or(Some(ProviderKind::Openai)),
        AgentKind::Custom => with_credential(),
    }
}

fn credential_variable(provider: ProviderKind) -> &'static str {
    match provider {
        ProviderKind::Anthropic => "ANTHROPIC_API_KEY",
        ProviderKind::Openai => "OPENAI_API_KEY",
        ProviderKind::Openrouter => "OPENROUTER_API_KEY",
        ProviderKind::Compatible => "WHIM_PROVIDER_KEY",
    }
}
