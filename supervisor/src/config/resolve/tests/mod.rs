mod credentials;

use super::*;
use crate::config::values::StoreKind;
use crate::config::variables::VARIABLES;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use whim_wire::spec::{AgentKind, IdleAction, Mode, ProviderKind};

/// Reads one setting as text.
type Get = fn(&Settings) -> String;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    Variables::new(
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
    )
}

fn run(arguments: &[&str], environment: &[(&str, &str)], stdin: &str) -> Result<Resolved, Invalid> {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    match read(&arguments, variables(environment), &mut stdin.as_bytes())? {
        Request::Run(resolved) => Ok(*resolved),
        Request::Help(_) => panic!("help"),
    }
}

fn settings(arguments: &[&str], environment: &[(&str, &str)]) -> Settings {
    match run(arguments, environment, "") {
        Ok(resolved) => resolved.settings,
        Err(invalid) => panic!("{invalid}"),
    }
}

fn invalid(arguments: &[&str], environment: &[(&str, &str)]) -> (u8, Vec<String>) {
    let invalid = run(arguments, environment, "").unwrap_err();
    (
        invalid.exit_code(),
        invalid.mistakes.iter().map(ToString::to_string).collect(),
    )
}

#[test]
fn nothing_given_is_the_documented_default() {
    let settings = settings(&[], &[("ANTHROPIC_API_KEY", "k")]);
    assert_eq!(settings.root.path("/whim/state"), Path::new("/whim/state"));
    assert_eq!(
        (settings.agent.kind, settings.agent.mode),
        (AgentKind::Claude, Mode::Interactive)
    );
    assert_eq!(settings.provider.kind, Some(ProviderKind::Anthropic));
    assert_eq!(
        settings.ports,
        settings::Ports {
            generation: 3001,
            local: 8080,
            backup: 8081,
            ui: 7681
        }
    );
    assert_eq!(settings.bind.to_string(), "::");
    assert_eq!(
        (
            settings.grace.as_secs(),
            settings.idle.after.map(|t| t.as_secs())
        ),
        (8, Some(900))
    );
    assert_eq!(settings.idle.action, IdleAction::Report);
    assert_eq!(settings.backup.url.expose(), "file:///whim/state/backup");
    assert_eq!(
        (settings.user.as_str(), settings.log.filter.as_str()),
        ("node", "info")
    );
    assert_eq!(settings.init_timeout.as_secs(), 600);
    assert_eq!(settings.prices, Path::new("/whim/prices.json"));
    assert!(
        settings.repo.is_none()
            && settings.budget.is_none()
            && settings.caps == settings::Caps::default()
            && settings.backend.is_none()
            && !settings.wait_for_spec
    );
}

#[test]
fn the_websocket_by_variable_over_spec_over_what_is_known() {
    let spec = r#"{"version":1,"provider":{"websocket":true}}"#;
    let given = |environment: &[(&str, &str)]| settings(&["--spec", spec], environment).provider;
    assert_eq!(given(&[]).websocket, Some(true));
    assert_eq!(
        given(&[("WHIM_UPSTREAM_WEBSOCKET", "0")]).websocket,
        Some(false)
    );
    assert_eq!(settings(&[], &[]).provider.websocket, None);
    let (code, _) = invalid(&[], &[("WHIM_UPSTREAM_WEBSOCKET", "maybe")]);
    assert_eq!(code, 64);
}

/// Each option is given in all ways there are, and each time the stronger one counts.
#[test]
fn flag_over_variable_over_spec_over_default() {
    let spec = r#"{"version":1,"task":{"id":"spec"},"repo":{"url":"/spec","source_branch":"spec","branch":"spec","mirror":"/mirror"},
        "agent":{"kind":"codex","mode":"sticky","model":"spec","permission_mode":"plan","effort":"spec","prompt":"spec"},
        "provider":{"kind":"openai","upstream":"http://spec"},"budget":{"usd":"1","tokens":1,"requests_per_minute":1,"minutes":1},"idle":{"after_s":1,"action":"exit"},
        "backup":{"url":"file:///spec"}}"#;
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &str, &str, Get)] = &[
        ("--task-id", "WHIM_TASK_ID", "flag", "variable", "spec", |s| s.task.id.clone().unwrap_or_default()),
        ("--repo", "WHIM_REPO_URL", "/flag", "/variable", "/spec", |s| s.repo.as_ref().map(|r| r.url.expose().to_owned()).unwrap_or_default()),
        ("--source-branch", "WHIM_SOURCE_BRANCH", "flag", "variable", "spec", |s| s.repo.as_ref().and_then(|r| r.source_branch.clone()).unwrap_or_default()),
        ("--branch", "WHIM_BRANCH", "flag", "variable", "spec", |s| s.repo.as_ref().and_then(|r| r.branch.clone()).unwrap_or_default()),
        ("--agent", "WHIM_AGENT", "ccr", "copilot", "codex", |s| s.agent.kind.to_string()),
        ("--mode", "WHIM_MODE", "oneshot", "interactive", "sticky", |s| s.agent.mode.to_string()),
        ("--model", "WHIM_MODEL", "flag", "variable", "spec", |s| s.agent.model.clone().unwrap_or_default()),
        ("--permission-mode", "WHIM_PERMISSION_MODE", "bypass", "default", "plan", |s| s.agent.permission_mode.map(|m| m.to_string()).unwrap_or_default()),
        ("--effort", "WHIM_EFFORT", "flag", "variable", "spec", |s| s.agent.effort.clone().unwrap_or_default()),
        ("", "WHIM_PROMPT", "flag", "variable", "spec", |s| s.agent.prompt.clone().unwrap_or_default()),
        ("--provider", "WHIM_PROVIDER", "openrouter", "anthropic", "openai", |s| s.provider.kind.map(|k| k.to_string()).unwrap_or_default()),
        ("--upstream", "WHIM_UPSTREAM_URL", "http://flag", "http://variable", "http://spec", |s| s.provider.upstream.as_ref().map(|u| u.expose().to_owned()).unwrap_or_default()),
        ("--budget-usd", "WHIM_BUDGET_USD", "3.00", "2.00", "1.00", |s| s.budget.map(|u| u.to_string()).unwrap_or_default()),
        ("--cap-tokens", "WHIM_CAP_TOKENS", "3", "2", "1", |s| s.caps.tokens.map(|n| n.to_string()).unwrap_or_default()),
        ("--cap-requests-per-minute", "WHIM_CAP_RPM", "3", "2", "1", |s| s.caps.requests_per_minute.map(|n| n.to_string()).unwrap_or_default()),
        ("--cap-minutes", "WHIM_CAP_MINUTES", "3", "2", "1", |s| s.caps.minutes.map(|n| n.to_string()).unwrap_or_default()),
        ("--idle-after", "WHIM_IDLE_AFTER_S", "3", "2", "1", |s| s.idle.after.map(|t| t.as_secs().to_string()).unwrap_or_default()),
        ("--idle-action", "WHIM_IDLE_ACTION", "exec:/flag", "report", "exit", |s| s.idle.action.to_string()),
        ("--backup", "WHIM_BACKUP_URL", "file:///flag", "file:///variable", "file:///spec", |s| s.backup.url.expose().to_owned()),
    ];
    for (flag, variable, by_flag, by_variable, by_spec, get) in cases {
        let flags = |given: bool| match (given, flag.is_empty()) {
            (false, _) => vec!["--spec", spec],
            (true, true) => vec!["--spec", spec, by_flag],
            (true, false) => vec!["--spec", spec, flag, by_flag],
        };
        assert_eq!(
            &get(&settings(&flags(true), &[(variable, by_variable)])),
            by_flag,
            "{flag}"
        );
        assert_eq!(
            &get(&settings(&flags(false), &[(variable, by_variable)])),
            by_variable,
            "{variable}"
        );
        assert_eq!(
            &get(&settings(&flags(false), &[(variable, "")])),
            by_spec,
            "{variable} is empty"
        );
    }
    let other = settings(&["--spec", spec, "--repo", "/flag"], &[]);
    assert_eq!(
        other.repo.unwrap().mirror,
        None,
        "the mirror is the other repository's"
    );
}

#[test]
fn options_without_a_place_in_the_spec() {
    #[rustfmt::skip]
    let cases: &[(&str, &str, &str, &str, Get)] = &[
        ("--root", "WHIM_ROOT", "/flag", "/variable", |s| s.root.as_path().display().to_string()),
        ("--grace", "WHIM_GRACE_S", "20", "30", |s| s.grace.as_secs().to_string()),
        ("--generation-port", "WHIM_GENERATION_PORT", "0", "5", |s| s.ports.generation.to_string()),
        ("--local-port", "WHIM_LOCAL_PORT", "0", "5", |s| s.ports.local.to_string()),
        ("--backup-port", "WHIM_BACKUP_PORT", "0", "5", |s| s.ports.backup.to_string()),
        ("--ui-port", "WHIM_UI_PORT", "0", "5", |s| s.ports.ui.to_string()),
        ("--bind", "WHIM_BIND", "127.0.0.1", "0.0.0.0", |s| s.bind.to_string()),
        ("--log", "WHIM_LOG", "debug", "whim::ports=trace,info", |s| s.log.filter.clone()),
        ("--preview-url", "WHIM_PREVIEW_URL", "https://{port}-a.x/", "https://{port}-b.x/", |s| s.preview.url.clone().unwrap_or_default()),
        ("--unknown-model", "WHIM_UNKNOWN_MODEL", "dearest", "refuse", |s| format!("{:?}", s.unknown_model).to_lowercase()),
    ];
    for (flag, variable, by_flag, by_variable, get) in cases {
        assert_eq!(
            &get(&settings(&[flag, by_flag], &[(variable, by_variable)])),
            by_flag,
            "{flag}"
        );
        assert_eq!(
            &get(&settings(&[], &[(variable, by_variable)])),
            by_variable,
            "{variable}"
        );
    }
    let settings = settings(
        &[],
        &[
            ("WHIM_USER", "dev"),
            ("WHIM_LOG_FORMAT", "json"),
            ("WHIM_PASS_ENV", "A, B,"),
            ("WHIM_NO_NEW_PRIVS", "1"),
        ],
    );
    assert_eq!(settings.user, "dev");
    assert_eq!(settings.log.format, settings::LogFormat::Json);
    assert_eq!(settings.pass_env, BTreeSet::from(["A".into(), "B".into()]));
    assert!(settings.no_new_privs);
}

#[test]
fn every_mistake_of_every_source_is_told_in_one_run() {
    let (code, mistakes) = invalid(
        &[
            "--nonsense",
            "--agent",
            "cluade",
            "--ui-port",
            "8080",
            "--grace",
            "1",
            "--bind",
            "here",
            "--prices",
            "/nonexistent",
        ],
        &[
            (
                "WHIM_SPEC",
                r#"{"version":1,"repo":{"url":"ext::x"},"budget":{"usd":5}}"#,
            ),
            ("WHIM_BUDGET_USD", "five"),
            ("WHIM_BACKEND_URL", "http://u:hunter2@api"),
            ("WHIM_LOG", "]["),
            ("WHIM_LOG_FORMAT", "xml"),
            ("WHIM_CONTROL_TOKEN", "hunter2 hunter2"),
            ("ANTHROPIC_API_KEY_FILE", "/nonexistent"),
            ("OPENAI_API_KEY", "hunter2"),
            ("OPENAI_API_KEY_FILE", "/x"),
        ],
    );
    let all = mistakes.join("\n");
    assert_eq!(code, 64);
    for part in [
        "--nonsense: is no option",
        "--agent = \"cluade\": is none of claude, codex, ccr, copilot, custom; did you mean claude?",
        "--ui-port = \"8080\": is the port of --local-port too",
        "--grace = \"1\": is out of range",
        "--bind = \"here\"",
        "--prices = \"/nonexistent\"",
        "spec /repo/url = \"ext::x\"",
        "WHIM_BUDGET_USD = \"five\": is not a decimal amount",
        "--task-id: is missing for the backend",
        "WHIM_INTERNAL_API_TOKEN: is missing",
        "WHIM_LOG = \"][\"",
        "WHIM_LOG_FORMAT = \"xml\"",
        "WHIM_CONTROL_TOKEN: contains something else",
        "ANTHROPIC_API_KEY_FILE = \"/nonexistent\": names a file that cannot be read",
        "OPENAI_API_KEY: is set together with OPENAI_API_KEY_FILE",
    ] {
        assert!(all.contains(part), "{part} in\n{all}");
    }
    assert_eq!(mistakes.len(), 15, "{all}");
    assert!(!all.contains("hunter2"));
}

#[test]
fn a_log_filter_is_levels_of_modules() {
    for (filter, good) in [
        ("info", true),
        ("WARN", true),
        ("whim::ports=debug,info", true),
        ("waarn", false),
        ("whim::ports=loud", false),
        ("whim::ports", false),
        ("=info", false),
        ("info,", false),
    ] {
        let resolved = run(&[], &[("WHIM_LOG", filter)], "");
        assert_eq!(resolved.is_ok(), good, "{filter}");
    }
}

#[test]
fn a_bad_spec_alone_is_65() {
    for (arguments, environment) in [
        (vec!["--spec", "/nonexistent"], vec![]),
        (vec!["--spec", "/"], vec![]),
        (vec![], vec![("WHIM_SPEC", "{")]),
        (
            vec![],
            vec![("WHIM_SPEC", r#"{"version":1,"agent":{"kind":"x"}}"#)],
        ),
        (vec!["--spec", "-"], vec![]),
    ] {
        let (code, mistakes) = invalid(&arguments, &environment);
        assert_eq!((code, mistakes.len()), (65, 1), "{mistakes:?}");
    }
    // No follow-up mistakes about what the spec would have said.
    let (code, mistakes) = invalid(
        &["--spec", "{", "--mode", "oneshot"],
        &[
            ("WHIM_BACKEND_URL", "http://b"),
            ("WHIM_INTERNAL_API_TOKEN", "t"),
        ],
    );
    assert_eq!((code, mistakes.len()), (65, 1), "{mistakes:?}");
    assert_eq!(
        invalid(&["--spec", "/nonexistent", "--ui-port", "x"], &[]).0,
        64
    );
}

#[test]
fn the_spec_comes_from_a_file_inline_or_standard_input() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(br#"{"version":1,"task":{"id":"f"}}"#)
        .unwrap();
    let path = file.path().to_str().unwrap();
    assert_eq!(
        settings(&["--spec", path], &[]).task.id.as_deref(),
        Some("f")
    );
    assert_eq!(
        settings(&[], &[("WHIM_SPEC", path)]).task.id.as_deref(),
        Some("f")
    );
    assert_eq!(
        settings(&[], &[("WHIM_SPEC", r#" {"version":1,"task":{"id":"i"}}"#)])
            .task
            .id
            .as_deref(),
        Some("i")
    );
    let resolved = run(&["--spec", "-"], &[], r#"{"version":1,"task":{"id":"s"}}"#).unwrap();
    assert_eq!(resolved.settings.task.id.as_deref(), Some("s"));
    assert_eq!(resolved.settings.spec.unwrap().version, 1);
}

#[test]
fn a_warm_container_resolves_again_when_its_spec_arrives() {
    let arguments: Vec<OsString> = ["--wait-for-spec", "--mode", "oneshot"]
        .iter()
        .map(OsString::from)
        .collect();
    let given = Given::parse(&arguments, variables(&[("WHIM_MODEL", "variable")])).unwrap();
    assert_eq!(given.spec_source(), None);
    let waiting = given.resolve(None).unwrap().settings;
    assert!(waiting.wait_for_spec && waiting.agent.prompt.is_none());
    let text = br#"{"version":1,"task":{"id":"ww-1"},"repo":{"url":"/r"},"agent":{"prompt":"p\r\nq","model":"spec"}}"#;
    let claimed = given.resolve(Some(text)).unwrap().settings;
    assert!(!claimed.wait_for_spec);
    assert_eq!(claimed.agent.prompt.as_deref(), Some("p\nq"));
    assert_eq!(claimed.agent.model.as_deref(), Some("variable"));
    assert_eq!(claimed.repo.unwrap().branch.as_deref(), Some("whim-ww-1"));
    assert_eq!(
        given
            .resolve(Some(br#"{"version":1}"#))
            .unwrap_err()
            .exit_code(),
        64,
        "oneshot without a prompt"
    );
    assert_eq!(
        invalid(&["--wait-for-spec", "--spec", "{\"version\":1}"], &[]).0,
        64
    );
}

#[test]
fn the_store_gets_its_variables() {
    let settings = settings(
        &["--backup", "s3://bucket/x"],
        &[
            ("AWS_ACCESS_KEY_ID", "id"),
            ("AWS_ENDPOINT_URL", "http://minio"),
            ("AZURE_X", "y"),
            ("PATH", "/bin"),
        ],
    );
    assert_eq!(settings.backup.kind, StoreKind::S3);
    assert_eq!(
        settings.backup.environment.keys().collect::<Vec<_>>(),
        ["AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL"]
    );
    let (_, mistakes) = invalid(&["--backup", "https://api.example.com/x"], &[]);
    assert!(
        mistakes[0].starts_with("--backend: is missing"),
        "{mistakes:?}"
    );
}

#[test]
fn a_root_moves_the_layout_and_nothing_else() {
    let settings = settings(&["--root", "/r/x", "--backup", "file:///elsewhere"], &[]);
    assert_eq!(
        settings.root.path("/whim/state"),
        Path::new("/r/x/whim/state")
    );
    assert_eq!(settings.prices, Path::new("/r/x/whim/prices.json"));
    assert_eq!(settings.backup.url.expose(), "file:///elsewhere");
    assert!(
        self::settings(&["--root", "here"], &[])
            .root
            .as_path()
            .is_absolute()
    );
}

#[test]
fn variables_that_are_not_text_are_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let bad = OsString::from_vec(vec![0xff]);
    let given = Given::parse(
        &[],
        Variables::new([("WHIM_MODEL".into(), bad.clone()), ("OTHER".into(), bad)]),
    )
    .unwrap();
    let mistakes = given.resolve(None).unwrap_err().mistakes;
    assert_eq!(
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["WHIM_MODEL: is not UTF-8; pass text"]
    );
}

#[test]
fn help_is_asked_for() {
    assert!(
        matches!(read(&["-h".into()], variables(&[]), &mut "".as_bytes()), Ok(Request::Help(text)) if text.contains("WHIM_ROOT"))
    );
}

#[test]
fn what_only_the_values_show_has_its_pointer_too() {
    let bomb = format!("A=0123456789abcdef\n{}", "A=$A$A\n".repeat(14));
    let spec = serde_json::json!({"version":1,"config":[{"layer":"user"},{"layer":"team","env_files":{".env":bomb}}]});
    let (code, mistakes) = invalid(&["--spec", &spec.to_string()], &[]);
    assert_eq!(code, 65);
    assert!(
        mistakes[0].starts_with("spec /config/1/env_files/.env: line 14 sets A to a value"),
        "{mistakes:?}"
    );
}

#[test]
fn prompts_and_commands_are_not_shown() {
    let (_, mistakes) = invalid(&["--agent-command", "hunter2", "hunter2\u{1b}"], &[]);
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(!mistakes.join("").contains("hunter2"));
}

#[test]
fn passing_a_credential_on_is_warned_about() {
    let resolved = run(
        &[],
        &[
            ("ANTHROPIC_API_KEY", "k"),
            ("WHIM_PASS_ENV", "FOO,ANTHROPIC_API_KEY"),
        ],
        "",
    )
    .unwrap();
    let all: Vec<String> = resolved.warnings.iter().map(ToString::to_string).collect();
    assert!(
        all.len() == 1 && all[0].contains("shows agents the credential ANTHROPIC_API_KEY"),
        "{all:?}"
    );
}

#[test]
fn the_specs_init_user_reaches_the_layers_that_may() {
    let spec = r#"{"version":1,"init_user":"root","config":[{"layer":"team","init_script":"x"},{"layer":"user","init_script":"x"}]}"#;
    let scripts = settings(&["--spec", spec], &[]).configuration.init_scripts;
    let users: Vec<&str> = scripts
        .values()
        .map(|script| script.user.as_str())
        .collect();
    assert_eq!(users, ["root", "user"]);
}

proptest::proptest! {
    /// Whatever is given: an answer, never a panic, and no mistake without a remedy.
    #[test]
    fn any_input_has_an_answer(
        arguments in proptest::collection::vec("--(ui-port|grace|bind|spec|repo|agent|mode|budget-usd)|[a-z0-9:/.{}@-]{0,6}", 0..6),
        names in proptest::collection::vec((0..VARIABLES.len(), "\\PC{0,8}"), 0..6),
        stdin in "\\PC{0,20}",
    ) {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).filter(|argument| !argument.starts_with("-h")).collect();
        let environment: Vec<(&str, &str)> = names.iter().map(|(index, value)| (VARIABLES[*index].name, value.as_str())).collect();
        if let Err(invalid) = run(&arguments, &environment, &stdin) {
            proptest::prop_assert!(!invalid.mistakes.is_empty());
            for mistake in &invalid.mistakes {
                proptest::prop_assert!(!mistake.problem.is_empty() && !mistake.remedy.is_empty());
                proptest::prop_assert!(!mistake.to_string().contains(char::is_control), "{:?}", mistake.to_string());
            }
        }
    }
}

#[test]
fn a_later_supervisor_needs_no_file() {
    use std::os::unix::ffi::OsStringExt as _;
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.into_os_string()
    };
    let arguments: Vec<OsString> = [
        "--spec".into(),
        "-".into(),
        "--prices".into(),
        file("prices", "{}"),
    ]
    .into();
    let variables = Variables::new([
        ("ANTHROPIC_API_KEY_FILE".into(), file("key", "from-file\n")),
        ("WHIM_CONTROL_TOKEN".into(), "0123456789abcdef".into()),
        ("ODD".into(), OsString::from_vec(vec![0xff, b'x'])),
    ]);
    let given = Given::parse(&arguments, variables).unwrap();
    let text = br#"{"version":1,"task":{"id":"t"},"config":[{"layer":"user","env":{"A":"1"},"mcp_servers":{"x":{"command":"c"}}}]}"#;
    let first = given.resolve(Some(text)).unwrap();
    let bytes = given.settle(first.settings.spec.as_ref()).unwrap();
    drop(directory);

    let (given, spec) = Given::from_settled(&bytes).unwrap();
    let second = given.resolve(spec.as_deref()).unwrap();
    assert_eq!(second.settings.spec, first.settings.spec);
    assert_eq!(second.settings.prices, first.settings.prices);
    assert_eq!(
        second
            .settings
            .provider
            .credentials
            .anthropic_api_key
            .unwrap()
            .expose(),
        "from-file"
    );
    assert_eq!(
        second.settings.control_token.unwrap().expose(),
        "0123456789abcdef"
    );
    assert_eq!(
        given.variables.get("ODD").unwrap(),
        &OsString::from_vec(vec![0xff, b'x'])
    );
    assert!(!format!("{given:?}").contains("0123456789abcdef"));
    assert!(matches!(
        Given::from_settled(b"x"),
        Err(SettledError::Format(_))
    ));
}
