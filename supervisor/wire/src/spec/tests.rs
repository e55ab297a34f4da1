use super::*;
use proptest::prelude::*;

/// The example of the contract, with values filled in.
const EXAMPLE: &str = r#"{"version":1,
 "task":{"id":"ww-12","title":"t","workspace":"acme","parent":null},
 "repo":{"url":"https://x/y","source_branch":"main","branch":"whim-ww-12","depth":null,"mirror":null,"trust":"full"},
 "agent":{"kind":"claude","mode":"interactive","model":"m","permission_mode":"bypass","effort":null,"prompt":"p","command":null},
 "provider":{"kind":"anthropic","upstream":null},
 "budget":{"usd":"5.00"},
 "attachments":[{"name":"01-shot.png","url":"https://x/1"}],
 "config":[{"layer":"workspace","instructions":"i","env":{"A":"1"},"env_files":{".env":"B=2"},"init_script":"true","bashrc":"alias l=ls",
            "skills":[{"name":"s","files":{"SKILL.md":"x"}}],"mcp_servers":{"x":{"command":"c","args":[],"env":{}},"y":{"url":"https://m"}},
            "plugins":{"enabled":{"p@m":true},"marketplaces":{}},"settings":{}},
           {"layer":"user"},{"layer":"workspace_user"}],
 "restore":{"from":"file:///b","mode":"fork"},
 "idle":{"after_s":900,"action":"report"},"init_timeout_s":600,
 "backup":{"url":"file:///b","interval_s":30},
 "of_a_newer_version":{"x":1}}"#;

#[test]
fn the_contracts_example_is_read() {
    let spec: Spec = serde_json::from_str(EXAMPLE).unwrap();
    assert_eq!(spec.task.id.as_deref(), Some("ww-12"));
    assert_eq!(spec.agent.permission_mode, Some(PermissionMode::Bypass));
    assert_eq!(spec.budget.usd, Some(Usd::from_nanos(5_000_000_000)));
    assert_eq!(
        spec.config.iter().map(|l| l.layer).collect::<Vec<_>>(),
        [
            LayerName::Workspace,
            LayerName::User,
            LayerName::WorkspaceUser
        ]
    );
    let servers = &spec.config[0].mcp_servers;
    assert!(matches!(&servers["x"], McpServer::Stdio { command, .. } if command == "c"));
    assert!(matches!(&servers["y"], McpServer::Http { url, .. } if url.expose() == "https://m"));
    assert_eq!(spec.restore.as_ref().unwrap().mode, RestoreMode::Fork);

    let again: Spec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(again, spec);
}

#[test]
fn only_the_version_is_needed() {
    let spec: Spec = serde_json::from_str(r#"{"version":1}"#).unwrap();
    assert_eq!(
        spec,
        Spec {
            version: 1,
            ..Spec::default()
        }
    );
    assert!(serde_json::from_str::<Spec>("{}").is_err());
}

#[test]
fn printing_a_spec_prints_no_value_that_may_be_secret() {
    let marked = EXAMPLE
        .replace(r#""A":"1""#, r#""A":"hunter2""#)
        .replace("B=2", "B=hunter2")
        .replace("https://x/y", "https://u:hunter2@x/y")
        .replace("https://x/1", "https://x/1?sig=hunter2");
    let spec: Spec = serde_json::from_str(&marked).unwrap();
    assert!(!format!("{spec:?}").contains("hunter2"));
    assert_eq!(
        serde_json::to_string(&spec)
            .unwrap()
            .matches("hunter2")
            .count(),
        4
    );
}

#[test]
fn words_go_both_ways() {
    for kind in AgentKind::ALL {
        assert_eq!(kind.as_str().parse::<AgentKind>().as_ref(), Ok(kind));
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
    assert_eq!(
        "cluade".parse::<AgentKind>().unwrap_err().to_string(),
        r#""cluade" is none of claude, codex, ccr, copilot, custom"#
    );
    assert!(LayerName::Platform < LayerName::Team && LayerName::WorkspaceUser < LayerName::Task);
}

#[test]
fn idle_action_takes_an_absolute_program_only() {
    assert_eq!("exec:/bin/x".parse(), Ok(IdleAction::Exec("/bin/x".into())));
    assert!("exec:x".parse::<IdleAction>().is_err());
    assert!("exec:".parse::<IdleAction>().is_err());
    assert!("exec:/a\0b".parse::<IdleAction>().is_err());
    assert!(serde_json::from_str::<IdleAction>(r#""sleep""#).is_err());
}

#[test]
fn amounts_are_exact() {
    for (text, nanos) in [
        ("5", 5_000_000_000),
        ("0.1", 100_000_000),
        ("0.000000001", 1),
        ("18446744073.709551615", u64::MAX),
    ] {
        assert_eq!(text.parse(), Ok(Usd::from_nanos(nanos)), "{text}");
    }
    for (text, error) in [
        ("", UsdError::NotDecimal),
        ("-1", UsdError::NotDecimal),
        ("1e3", UsdError::NotDecimal),
        (".5", UsdError::NotDecimal),
        ("5.", UsdError::NotDecimal),
        ("1.0.0", UsdError::NotDecimal),
        ("٣", UsdError::NotDecimal),
        ("0.0000000001", UsdError::TooPrecise),
        ("18446744073.709551616", UsdError::TooLarge),
        ("99999999999999999999999", UsdError::TooLarge),
    ] {
        assert_eq!(text.parse::<Usd>(), Err(error), "{text}");
    }
    assert_eq!(
        serde_json::from_str::<Usd>("0.1").unwrap().nanos(),
        100_000_000
    );
    assert_eq!(
        serde_json::from_str::<Usd>("5").unwrap().to_string(),
        "5.00"
    );
    assert!(serde_json::from_str::<Usd>("-5").is_err());
    assert!(serde_json::from_str::<Usd>("null").is_err());
}

proptest! {
    #[test]
    fn an_amount_survives_its_text(nanos: u64) {
        let usd = Usd::from_nanos(nanos);
        prop_assert_eq!(usd.to_string().parse::<Usd>(), Ok(usd));
        prop_assert!(usd.to_string().split_once('.').unwrap().1.len() >= 2);
    }
}
