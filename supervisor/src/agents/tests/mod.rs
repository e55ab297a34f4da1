mod files;
mod plugins;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use whim_wire::spec::{McpServer, PermissionMode, Plugins, ProviderKind, Skill};

use super::setup::{Conversation, HookTransport, SessionToken, Surface};
use super::*;

const TOKEN: &str = "whim-main-0123456789";

fn setup() -> Setup {
    Setup {
        home: "/home/node".into(),
        checkout: "/app/repo".into(),
        app: "/app".into(),
        session: "main".into(),
        proxy: "http://127.0.0.1:3001".into(),
        token: SessionToken::new(TOKEN),
        provider: ProviderKind::Compatible,
        websockets: Vec::new(),
        model: None,
        permission: None,
        effort: None,
        instructions: None,
        mcp_servers: BTreeMap::new(),
        skills: Vec::new(),
        plugins: Plugins::default(),
        settings: serde_json::Map::new(),
        trusted: true,
        root: false,
        sandbox: true,
        hooks: Some(HookTransport {
            program: "/usr/local/bin/whim".into(),
            socket: "/run/whim/hook.sock".into(),
        }),
        router_port: 3456,
        custom: vec!["bash".into(), "-l".into()],
    }
}

/// A setup that the agent can have.
fn possible(kind: AgentKind) -> Setup {
    Setup {
        model: matches!(kind, AgentKind::Ccr | AgentKind::Copilot).then(|| "gpt-5.1".to_owned()),
        ..setup()
    }
}

fn start(surface: Surface, prompt: Option<&str>) -> Start {
    Start {
        surface,
        conversation: Conversation::New {
            id: "11111111-2222-4333-8444-555555555555".into(),
        },
        prompt: prompt.map(str::to_owned),
    }
}

fn command(setup: &Setup, kind: AgentKind, start: &Start) -> Command {
    of(kind).command(setup, start).unwrap()
}

fn variable<'a>(command: &'a Command, name: &str) -> Option<&'a str> {
    let mut values = command
        .environment
        .iter()
        .filter(|(variable, _)| variable == name);
    let value = values.next().map(|(_, value)| value.as_str());
    assert!(values.next().is_none(), "{name} twice");
    value
}

/// Applies the edits to a fresh home; twice, which must change nothing.
fn prepared(setup: &Setup, kind: AgentKind) -> BTreeMap<PathBuf, String> {
    let mut files: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for round in 0..2 {
        for edit in of(kind).files(setup) {
            let new = edit
                .apply(files.get(&edit.path).map(Vec::as_slice))
                .unwrap();
            assert!(round == 0 || new.is_none(), "{edit:?} changes again");
            if let Some(new) = new {
                files.insert(edit.path, new);
            }
        }
    }
    files
        .into_iter()
        .map(|(path, content)| (path, String::from_utf8(content).unwrap()))
        .collect()
}

fn json_of(files: &BTreeMap<PathBuf, String>, path: &str) -> Value {
    serde_json::from_str(&files[Path::new(path)]).unwrap()
}

#[test]
fn every_kind_has_its_agent() {
    for &kind in AgentKind::ALL {
        assert_eq!(of(kind).kind(), kind);
    }
}

#[test]
fn the_token_reaches_the_environment_and_nothing_else() {
    for &kind in AgentKind::ALL {
        let setup = possible(kind);
        for surface in [Surface::Terminal, Surface::Pipes] {
            let command = command(&setup, kind, &start(surface, Some("do it")));
            assert!(
                command.environment.iter().any(|(_, value)| value == TOKEN),
                "{kind}: no token"
            );
            assert!(!command.arguments.iter().any(|word| word.contains(TOKEN)));
            assert!(!format!("{command:?} {setup:?}").contains(TOKEN));
        }
        for companion in of(kind).companions(&setup) {
            assert!(!format!("{companion:?}").contains(TOKEN));
        }
        for (path, content) in prepared(&setup, kind) {
            assert!(!content.contains(TOKEN), "{}", path.display());
        }
    }
}

#[test]
fn every_provider_variable_of_the_container_is_removed_or_ours() {
    let claude = command(&setup(), AgentKind::Claude, &start(Surface::Terminal, None));
    for name in [
        "ANTHROPIC_API_KEY",
        "CLAUDE_CODE_OAUTH_TOKEN",
        "CLAUDE_CODE_USE_BEDROCK",
    ] {
        assert!(claude.unset.contains(&name));
    }
    for &kind in AgentKind::ALL {
        let command = command(&possible(kind), kind, &start(Surface::Terminal, None));
        let set: BTreeSet<_> = command
            .environment
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert!(
            command.unset.iter().all(|name| !set.contains(name)),
            "{kind}"
        );
    }
}

#[test]
fn claude_starts_without_dialogs_on_a_fresh_home() {
    let mut setup = setup();
    setup.permission = Some(PermissionMode::Bypass);
    let files = prepared(&setup, AgentKind::Claude);
    assert_eq!(
        json_of(&files, "/home/node/.claude.json"),
        json!({"hasCompletedOnboarding": true, "projects": {"/app/repo": {"hasTrustDialogAccepted": true}}})
    );
    let settings = json_of(&files, "/home/node/.claude/settings.json");
    assert_eq!(settings["skipDangerousModePermissionPrompt"], true);
    assert_eq!(settings["enableAllProjectMcpServers"], true);
    assert!(settings.get("hooks").is_none());

    let command = command(
        &setup,
        AgentKind::Claude,
        &start(Surface::Terminal, Some("-v /x")),
    );
    assert!(
        command
            .arguments
            .contains(&"--dangerously-skip-permissions".to_owned())
    );
    let end = &command.arguments[command.arguments.len() - 2..];
    assert_eq!(end, ["--", "-v /x"]);
    assert_eq!(command.prompt, PromptRoute::Given);
    assert_eq!(
        variable(&command, "ANTHROPIC_BASE_URL"),
        Some("http://127.0.0.1:3001")
    );
    assert_eq!(
        variable(&command, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"),
        Some("1")
    );
    assert_eq!(variable(&command, "WHIM_SESSION"), Some("main"));
    assert_eq!(variable(&command, "IS_SANDBOX"), None);

    setup.root = true;
    let command = super::tests::command(&setup, AgentKind::Claude, &start(Surface::Terminal, None));
    assert_eq!(variable(&command, "IS_SANDBOX"), Some("1"));
    assert_eq!(command.notes.len(), 1);
}

#[test]
fn what_a_person_wrote_into_claudes_files_stays() {
    let edits = of(AgentKind::Claude).files(&setup());
    let old = br#"{"numStartups":7,"projects":{"/app/repo":{"lastCost":0.5},"/other":{"hasTrustDialogAccepted":false}}}"#;
    let new = edits[0].apply(Some(old)).unwrap().unwrap();
    let new: Value = serde_json::from_slice(&new).unwrap();
    assert_eq!(new["numStartups"], 7);
    assert_eq!(new["projects"]["/app/repo"]["lastCost"], 0.5);
    assert_eq!(new["projects"]["/other"]["hasTrustDialogAccepted"], false);
}

#[test]
fn oneshot_commands_take_the_prompt_from_standard_input() {
    for (kind, words) in [
        (
            AgentKind::Claude,
            &["-p", "--output-format", "stream-json", "--verbose"][..],
        ),
        (
            AgentKind::Ccr,
            &["-p", "--output-format", "stream-json", "--verbose"],
        ),
        (AgentKind::Codex, &["exec", "--json", "-"]),
        (AgentKind::Copilot, &["--output-format", "json"]),
    ] {
        let command = command(
            &possible(kind),
            kind,
            &start(Surface::Pipes, Some("a prompt")),
        );
        assert_eq!(command.stdin.as_deref(), Some(&b"a prompt"[..]), "{kind}");
        assert!(!command.arguments.iter().any(|word| word == "a prompt"));
        for word in words {
            assert!(
                command.arguments.iter().any(|other| other == word),
                "{kind}: {word}"
            );
        }
    }
}

#[test]
fn a_prompt_too_long_for_an_argument_goes_through_the_terminal() {
    let long = "x".repeat(command::MAX_PROMPT_ARGUMENT + 1);
    for &kind in AgentKind::ALL {
        let command = command(
            &possible(kind),
            kind,
            &start(Surface::Terminal, Some(&long)),
        );
        assert_eq!(command.prompt, PromptRoute::Terminal, "{kind}");
        assert!(!command.arguments.contains(&long));
        assert!(command.stdin.is_none());
    }
}

#[test]
fn a_fork_names_the_session_that_it_begins_with() {
    for surface in [Surface::Terminal, Surface::Pipes] {
        let fork = Start {
            conversation: Conversation::Fork {
                from: "the-id".into(),
                id: "new-id".into(),
            },
            ..start(surface, Some("go on"))
        };
        for (kind, words) in [
            (
                AgentKind::Claude,
                &[
                    "--resume",
                    "the-id",
                    "--fork-session",
                    "--session-id",
                    "new-id",
                ][..],
            ),
            (AgentKind::Codex, &["fork", "the-id"]),
        ] {
            assert!(super::of(kind).forks());
            let command = command(&possible(kind), kind, &fork);
            let named = command
                .arguments
                .windows(words.len())
                .any(|window| window == words);
            assert!(named, "{kind}: {:?}", command.arguments);
        }
    }
    assert!(!super::of(AgentKind::Copilot).forks());
}

#[test]
fn resuming_names_the_agents_own_session() {
    let resume = Start {
        conversation: Conversation::Resume {
            id: "the-id".into(),
        },
        ..start(Surface::Terminal, None)
    };
    for (kind, words) in [
        (AgentKind::Claude, &["--resume", "the-id"][..]),
        (AgentKind::Ccr, &["--resume", "the-id"]),
        (AgentKind::Codex, &["resume", "the-id"]),
        (AgentKind::Copilot, &["--resume=the-id"]),
    ] {
        let command = command(&possible(kind), kind, &resume);
        assert!(
            command
                .arguments
                .windows(words.len())
                .any(|window| window == words),
            "{kind}: {:?}",
            command.arguments
        );
    }
}

/// Every combination of agent and mode: its arguments, or the remedy of the refusal.
#[test]
fn permission_modes_are_mapped_or_refused_by_name() {
    use PermissionMode::{AcceptEdits, Bypass, Default, Plan};
    type Row = (
        AgentKind,
        [(PermissionMode, Result<&'static str, &'static str>); 4],
    );
    let table: [Row; 4] = [
        (
            AgentKind::Claude,
            [
                (Default, Ok("--permission-mode default")),
                (AcceptEdits, Ok("--permission-mode acceptEdits")),
                (Plan, Ok("--permission-mode plan")),
                (Bypass, Ok("--dangerously-skip-permissions")),
            ],
        ),
        (
            AgentKind::Codex,
            [
                (
                    Default,
                    Ok("-c approval_policy=\"on-request\" -c sandbox_mode=\"workspace-write\""),
                ),
                (
                    AcceptEdits,
                    Ok("-c approval_policy=\"on-request\" -c sandbox_mode=\"workspace-write\""),
                ),
                (Plan, Err("use `default`")),
                (Bypass, Ok("--dangerously-bypass-approvals-and-sandbox")),
            ],
        ),
        (
            AgentKind::Copilot,
            [
                (Default, Ok("")),
                (AcceptEdits, Ok("--allow-tool=write")),
                (Plan, Ok("--mode plan")),
                (Bypass, Ok("--allow-all")),
            ],
        ),
        (
            AgentKind::Custom,
            [
                (Default, Err("agent.command")),
                (AcceptEdits, Err("agent.command")),
                (Plan, Err("agent.command")),
                (Bypass, Err("agent.command")),
            ],
        ),
    ];
    for (kind, modes) in table {
        for (mode, expected) in modes {
            let setup = Setup {
                permission: Some(mode),
                ..possible(kind)
            };
            let command = of(kind).command(&setup, &start(Surface::Terminal, None));
            match (command, expected) {
                (Ok(command), Ok(words)) => {
                    assert!(command.arguments.join(" ").contains(words), "{kind} {mode}");
                }
                (Err(error), Err(remedy)) => {
                    let text = error.to_string();
                    assert!(
                        text.contains(remedy) && text.contains("agent.permission_mode"),
                        "{text}"
                    );
                    assert!(text.contains(mode.as_str()), "{text}");
                }
                (command, _) => panic!("{kind} {mode}: {command:?}"),
            }
        }
    }
}

#[test]
fn codex_without_a_sandbox_refuses_what_would_need_it() {
    let setup = Setup {
        sandbox: false,
        permission: Some(PermissionMode::Default),
        ..setup()
    };
    let error = of(AgentKind::Codex).check(&setup).remove(0).to_string();
    assert!(
        error.contains("user namespaces") && error.contains("`bypass`"),
        "{error}"
    );
    let own = Setup {
        permission: None,
        ..setup
    };
    let command = command(&own, AgentKind::Codex, &start(Surface::Terminal, None));
    assert!(
        command
            .arguments
            .contains(&"sandbox_mode=\"danger-full-access\"".to_owned())
    );
    assert_eq!(command.notes.len(), 1);
}

#[test]
fn codex_uses_the_websocket_of_its_own_provider_only() {
    let setup = Setup {
        provider: ProviderKind::Openai,
        websockets: vec![ProviderKind::Openai],
        ..setup()
    };
    let tries = |setup: &Setup| {
        let command = command(setup, AgentKind::Codex, &start(Surface::Terminal, None));
        let told = |argument: &String| argument.contains("supports_websockets = true");
        command.arguments.iter().any(told)
    };
    assert!(tries(&setup));
    let other = Setup {
        provider: ProviderKind::Compatible,
        ..setup
    };
    assert!(!tries(&other));
}

#[test]
fn wire_formats_that_do_not_meet_are_refused() {
    for (kind, provider, possible_pair) in [
        (AgentKind::Claude, ProviderKind::Anthropic, true),
        (AgentKind::Claude, ProviderKind::Openai, false),
        (AgentKind::Claude, ProviderKind::Openrouter, true),
        (AgentKind::Codex, ProviderKind::Anthropic, false),
        (AgentKind::Codex, ProviderKind::Openai, true),
        (AgentKind::Ccr, ProviderKind::Anthropic, false),
        (AgentKind::Ccr, ProviderKind::Openrouter, true),
        (AgentKind::Copilot, ProviderKind::Anthropic, true),
        (AgentKind::Copilot, ProviderKind::Openai, true),
        (AgentKind::Custom, ProviderKind::Openai, true),
    ] {
        let setup = Setup {
            provider,
            ..possible(kind)
        };
        let found = of(kind).check(&setup);
        assert_eq!(
            found.is_empty(),
            possible_pair,
            "{kind} {provider}: {found:?}"
        );
        assert!(found.iter().all(|found| found.field == "provider.kind"));
    }
}

#[test]
fn efforts_are_mapped_or_refused_with_the_known_ones() {
    for (kind, words) in [
        (AgentKind::Claude, "--effort high"),
        (AgentKind::Ccr, "--effort high"),
        (AgentKind::Codex, "-c model_reasoning_effort=\"high\""),
        (AgentKind::Copilot, "--reasoning-effort high"),
    ] {
        let high = Setup {
            effort: Some("high".into()),
            ..possible(kind)
        };
        let command = command(&high, kind, &start(Surface::Terminal, None));
        assert!(command.arguments.join(" ").contains(words), "{kind}");
        let odd = Setup {
            effort: Some("heroic".into()),
            ..possible(kind)
        };
        let text = of(kind).check(&odd).remove(0).to_string();
        assert!(
            text.contains("agent.effort `heroic`") && text.contains("medium"),
            "{text}"
        );
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let setup = Setup {
        model: Some("m".into()),
        permission: Some(PermissionMode::Plan),
        effort: Some("high".into()),
        custom: Vec::new(),
        ..setup()
    };
    assert_eq!(of(AgentKind::Custom).check(&setup).len(), 4);
}

#[test]
fn the_router_stands_between_claude_and_the_proxy() {
    let setup = Setup {
        provider: ProviderKind::Openrouter,
        model: Some("anthropic/claude-sonnet-4.5".into()),
        ..setup()
    };
    let files = prepared(&setup, AgentKind::Ccr);
    let config = json_of(&files, "/home/node/.claude-code-router/config.json");
    assert_eq!(
        config["Providers"][0]["api_base_url"],
        "http://127.0.0.1:3001/api/v1/chat/completions"
    );
    assert_eq!(
        config["Router"]["background"],
        "whim,anthropic/claude-sonnet-4.5"
    );
    let command = command(&setup, AgentKind::Ccr, &start(Surface::Terminal, None));
    assert_eq!(
        variable(&command, "ANTHROPIC_BASE_URL"),
        Some("http://127.0.0.1:3456")
    );
    assert!(!command.arguments.contains(&"--model".to_owned()));
    let companions = of(AgentKind::Ccr).companions(&setup);
    assert_eq!(companions[0].ready.url, "http://127.0.0.1:3456/health");
    let second = Setup {
        session: "two".into(),
        router_port: 3999,
        ..setup
    };
    assert!(prepared(&second, AgentKind::Ccr).contains_key(Path::new(
        "/home/node/.local/state/whim/ccr/two/.claude-code-router/config.json"
    )));
}

#[test]
fn an_outer_proxy_never_sees_loopback() {
    assert_eq!(no_proxy(None), "127.0.0.1,localhost,::1");
    assert_eq!(
        no_proxy(Some(" a.example, localhost ,")),
        "a.example,localhost,127.0.0.1,::1"
    );
}
