//! Keys and the providers that they are for.

use super::*;

#[test]
fn credentials_come_from_variables_or_files_and_never_show() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"from-file\n").unwrap();
    let path = file.path().to_str().unwrap();
    let settings = settings(
        &[],
        &[
            ("ANTHROPIC_API_KEY_FILE", path),
            ("CLAUDE_CODE_OAUTH_TOKEN", "oauth"),
            ("WHIM_CONTROL_TOKEN_FILE", path),
            ("WHIM_PREVIEW_SECRET", "preview"),
        ],
    );
    let credentials = &settings.provider.credentials;
    assert!(
        matches!(credentials.main(ProviderKind::Anthropic), Some(settings::Credential::ApiKey(key)) if key.expose() == "from-file")
    );
    assert_eq!(
        settings.control_token.as_ref().unwrap().expose(),
        "from-file"
    );
    let shown = format!("{settings:?}");
    assert!(
        !shown.contains("from-file") && !shown.contains("oauth\"") && !shown.contains("preview\""),
        "{shown}"
    );

    let generic = self::settings(
        &[],
        &[
            ("OPENROUTER_API_KEY", "own"),
            ("WHIM_PROVIDER_KEY", "generic"),
            ("WHIM_AGENT", "ccr"),
        ],
    );
    let credentials = &generic.provider.credentials;
    assert!(
        matches!(credentials.main(ProviderKind::Openrouter), Some(settings::Credential::ApiKey(key)) if key.expose() == "generic")
    );
    assert!(
        matches!(credentials.of(ProviderKind::Openrouter), Some(settings::Credential::ApiKey(key)) if key.expose() == "own")
    );
}

#[test]
fn a_credential_file_must_be_small_regular_and_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(
        &fifo,
        nix::sys::stat::Mode::S_IRUSR | nix::sys::stat::Mode::S_IWUSR,
    )
    .unwrap();
    for (path, part) in [
        (
            file("large", &vec![b'x'; 64 * 1024 + 1]),
            "larger than 64 KiB",
        ),
        (file("binary", b"\xff"), "not UTF-8"),
        (file("lines", b"a\nb\n"), "visible ASCII"),
        (file("empty", b"\n"), "is empty"),
        (fifo, "no regular file"),
        (directory.path().to_owned(), "no regular file"),
    ] {
        let (code, mistakes) = invalid(&[], &[("WHIM_PROVIDER_KEY_FILE", path.to_str().unwrap())]);
        assert!(
            code == 64 && mistakes.len() == 1 && mistakes[0].contains(part),
            "{part}: {mistakes:?}"
        );
    }
    let crlf = file("crlf", b"key\r\n");
    let settings = settings(&[], &[("WHIM_PROVIDER_KEY_FILE", crlf.to_str().unwrap())]);
    assert_eq!(
        settings.provider.credentials.provider_key.unwrap().expose(),
        "key"
    );
}

#[test]
fn each_agent_has_its_provider() {
    for (agent, keys, expected) in [
        (
            "claude",
            vec![("OPENAI_API_KEY", "k")],
            Some(ProviderKind::Anthropic),
        ),
        ("codex", vec![], Some(ProviderKind::Openai)),
        ("ccr", vec![], Some(ProviderKind::Openrouter)),
        ("copilot", vec![], Some(ProviderKind::Openai)),
        (
            "copilot",
            vec![("ANTHROPIC_API_KEY", "k")],
            Some(ProviderKind::Anthropic),
        ),
        ("custom", vec![], None),
        (
            "custom",
            vec![("OPENROUTER_API_KEY", "k")],
            Some(ProviderKind::Openrouter),
        ),
    ] {
        let settings = settings(&["--agent", agent, "--agent-command", r#"["sh"]"#], &keys);
        assert_eq!(settings.provider.kind, expected, "{agent}");
    }
    let (code, mistakes) = invalid(&["--provider", "compatible"], &[]);
    assert!(
        code == 64 && mistakes[0].starts_with("--upstream: is missing"),
        "{mistakes:?}"
    );
    let (_, mistakes) = invalid(&["--agent", "custom"], &[]);
    assert!(
        mistakes[0].starts_with("--agent-command: is missing"),
        "{mistakes:?}"
    );
    let (_, mistakes) = invalid(&["--mode", "sticky"], &[]);
    assert!(
        mistakes[0].starts_with("[PROMPT]: is missing for the mode sticky"),
        "{mistakes:?}"
    );
}

#[test]
fn doubts_are_warnings() {
    let resolved = run(
        &["--spec", r#"{"version":1,"budgt":1}"#],
        &[
            ("WHIM_BUDGT_USD", "5"),
            ("WHIM_CONTROL_TOKEN", "short"),
            ("WHIM_ATTACHMENTS", "x"),
        ],
        "",
    )
    .unwrap();
    let all: Vec<String> = resolved.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(all.len(), 4, "{all:#?}");
    assert!(all.iter().any(|w| {
        w.contains("WHIM_BUDGT_USD: is no variable of whim; did you mean WHIM_BUDGET_USD?")
    }));
    assert!(
        all.iter()
            .any(|w| w.contains("ANTHROPIC_API_KEY: is missing"))
    );
    assert!(all.iter().any(|w| w.contains("guessed")));
}
