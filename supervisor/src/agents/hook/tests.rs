use proptest::prelude::*;

use serde_json::{Value, json};

use super::super::setup::HookTransport;
use super::wiring::{codex_trust, shell_command};
use super::*;

fn transport() -> HookTransport {
    HookTransport {
        program: "/usr/local/bin/whim".into(),
        socket: "/run/whim/hook.sock".into(),
    }
}

fn heard(agent: &str, event: &str, payload: &Value) -> HookEvent {
    parse(&record(
        agent,
        event,
        "main",
        payload.to_string().as_bytes(),
    ))
    .unwrap()
}

#[test]
fn the_codex_hash_is_the_one_that_codex_computes() {
    // From an independent implementation; Codex 0.169.0 runs hooks with such a hash without its review dialog.
    assert_eq!(
        codex_trust("stop", "/usr/local/bin/hook Stop"),
        "sha256:6615bcf4de3a3fa32d55298e1e1c2a23e8e1ccad02ef4f7c3bed53b4b882f72a"
    );
}

#[test]
fn codex_trusts_each_hook_under_its_own_key() {
    let overrides = codex_overrides(&transport());
    let (_, state) = overrides.last().unwrap();
    let state = state.as_inline_table().unwrap();
    assert_eq!(state.len(), CODEX_EVENTS.len());
    for (event, key) in CODEX_EVENTS {
        let hook = &overrides
            .iter()
            .find(|(name, _)| *name == format!("hooks.{event}"))
            .unwrap()
            .1;
        let command = hook
            .as_array()
            .unwrap()
            .get(0)
            .unwrap()
            .as_inline_table()
            .unwrap()["hooks"]
            .as_array()
            .unwrap()
            .get(0)
            .unwrap()
            .as_inline_table()
            .unwrap()["command"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(command.contains(&format!("hook codex {event} ")));
        let trust = state[&format!("/<session-flags>/config.toml:{key}:0:0")]
            .as_inline_table()
            .unwrap();
        assert_eq!(
            trust["trusted_hash"].as_str().unwrap(),
            codex_trust(key, &command)
        );
    }
}

#[test]
fn every_command_succeeds_in_a_shell_even_without_the_binary() {
    let missing = HookTransport {
        program: "/no such/it's gone/whim".into(),
        ..transport()
    };
    let command = shell_command(&missing.program, "claude", "Stop");
    let output = std::process::Command::new("sh")
        .args(["-c", &command])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn payloads_of_three_agents_become_the_same_words() {
    let claude = heard(
        "claude",
        "PreToolUse",
        &json!({"session_id": "s", "transcript_path": "/t.jsonl", "tool_name": "Bash",
                "tool_input": {"command": "cargo\n test", "description": "d"}, "tool_use_id": "toolu_1"}),
    );
    assert_eq!(claude.agent_session.as_deref(), Some("s"));
    assert_eq!(claude.transcript, Some("/t.jsonl".into()));
    let tool = |id: Option<&str>, name: &str, detail: &str| Tool {
        id: id.map(str::to_owned),
        name: name.into(),
        detail: detail.into(),
    };
    assert_eq!(
        claude.signal,
        Signal::ToolStarted(tool(Some("toolu_1"), "Bash", "cargo test"))
    );
    let copilot = heard(
        "copilot",
        "permissionRequest",
        &json!({"sessionId": "c", "toolName": "bash", "toolInput": {"command": "ls"}, "permissionSuggestions": []}),
    );
    assert_eq!(copilot.agent_session.as_deref(), Some("c"));
    assert_eq!(
        copilot.signal,
        Signal::PermissionAsked(tool(None, "bash", "ls"))
    );
    let codex = heard(
        "codex",
        "Interrupt",
        &json!({"session_id": "x", "turn_id": "t"}),
    );
    assert_eq!(codex.signal, Signal::Interrupted);
}

#[test]
fn words_for_every_event_that_is_asked_for() {
    let events = CLAUDE_EVENTS
        .iter()
        .chain(COPILOT_EVENTS.iter())
        .copied()
        .chain(CODEX_EVENTS.iter().map(|(event, _)| *event));
    for event in events {
        let heard = heard("claude", event, &json!({"tool_name": "T"}));
        assert_ne!(heard.signal, Signal::Other, "{event}");
    }
    assert_eq!(
        heard("claude", "FromTheFuture", &json!({})).signal,
        Signal::Other
    );
}

#[test]
fn questions_come_with_their_choices() {
    let asked = heard(
        "claude",
        "PreToolUse",
        &json!({"tool_name": "AskUserQuestion", "tool_input": {"questions": [
            {"question": "Which?", "header": "H", "multiSelect": true,
             "options": [{"label": "A", "description": "a"}, {"label": "B", "description": "b"}]}]}}),
    );
    assert_eq!(
        asked.signal,
        Signal::QuestionAsked {
            tool: Tool {
                name: "AskUserQuestion".into(),
                ..Tool::default()
            },
            questions: vec![Question {
                text: "Which?".into(),
                options: vec!["A".into(), "B".into()],
                several: true,
            }]
        }
    );
    let asked = heard(
        "copilot",
        "preToolUse",
        &json!({"toolName": "ask_user", "toolArgs": {"question": "Why?", "choices": ["x", "y"]}}),
    );
    assert!(
        matches!(&asked.signal, Signal::QuestionAsked { questions, .. } if questions[0].options == ["x", "y"])
    );
}

#[test]
fn copilots_form_is_a_question() {
    let form = |fields: Value| {
        json!({"toolName": "ask_user", "toolArgs": {"message": "Which?", "requestedSchema": {
            "type": "object", "properties": fields}}})
    };
    let asked = |fields: Value| match heard("copilot", "preToolUse", &form(fields)).signal {
        Signal::QuestionAsked { questions, .. } => questions[0].clone(),
        other => panic!("{other:?}"),
    };
    let one = asked(json!({"c": {"type": "string", "enum": ["Red", "Blue"]}}));
    assert_eq!((one.text.as_str(), one.several), ("Which?", false));
    assert_eq!(one.options, ["Red", "Blue"]);
    let titled = asked(json!({"c": {"oneOf": [{"const": "r", "title": "Red"}]}}));
    assert_eq!(titled.options, ["Red"]);
    assert!(asked(json!({"a": {}, "b": {}})).several);
}

#[test]
fn a_subagents_events_are_marked() {
    let event = heard(
        "claude",
        "PostToolUseFailure",
        &json!({"agent_id": "a1", "is_interrupt": true}),
    );
    assert_eq!(event.subagent.as_deref(), Some("a1"));
    assert!(matches!(
        event.signal,
        Signal::ToolEnded {
            failed: true,
            interrupted: true,
            ..
        }
    ));
}

#[test]
fn a_huge_payload_becomes_a_short_line() {
    let big = "é\u{1b}[31m".repeat(5_000);
    let payload = json!({
        "session_id": "s",
        "tool_name": "Write",
        "tool_response": big,
        "tool_input": {"file_path": "/x", "content": big, "many": vec![big.clone(); 100]},
        "permission_suggestions": vec![json!({"a": big}); 40],
    });
    let line = record(
        "claude",
        "PostToolUse",
        "main",
        payload.to_string().as_bytes(),
    );
    assert!(line.len() <= MAX_RECORD, "{}", line.len());
    assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
    let event = parse(&line).unwrap();
    assert_eq!(event.agent_session.as_deref(), Some("s"));
}

#[test]
fn lines_of_others_are_refused() {
    for (line, part) in [
        (&b"{"[..], "no JSON"),
        (b"{\"v\":2}", "version"),
        (
            b"{\"v\":1,\"session\":\"m\",\"event\":\"Stop\"}",
            "no agent",
        ),
        (b"{\"v\":1,\"agent\":\"emacs\"}", "emacs"),
        (
            b"{\"v\":1,\"agent\":\"claude\",\"event\":\"Stop\"}",
            "no session",
        ),
    ] {
        let error = parse(line).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert!(matches!(
        parse(&vec![b' '; MAX_RECORD + 1]),
        Err(HookError::TooLong(_))
    ));
}

#[test]
fn details_stay_on_one_line() {
    assert_eq!(
        tool_detail(&json!({"command": ["git", "push"]})),
        "git push"
    );
    assert_eq!(one_line("a\u{1b}[2J\r\nb\tc", 100), "a [2J b c");
    assert_eq!(one_line(&"x".repeat(300), 10).chars().count(), 10);
}

proptest! {
    #[test]
    fn anything_is_recorded_and_read_back(payload in prop::collection::vec(any::<u8>(), 0..400), session in "\\PC{0,20}") {
        let event = parse(&record("codex", "Stop", &session, &payload)).unwrap();
        prop_assert_eq!(event.session, session);
    }

    #[test]
    fn garbage_never_panics(line in prop::collection::vec(any::<u8>(), 0..200)) {
        drop(parse(&line));
    }
}
