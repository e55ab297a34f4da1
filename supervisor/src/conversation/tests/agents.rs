//! What each agent's records come to.

use serde_json::json;
use whim_wire::conversation::{Part, Role, Turn};
use whim_wire::spec::AgentKind;

use super::super::lines::{Line, MAX_LINE};
use super::super::{markdown, turn};

fn read(kind: AgentKind, line: &str) -> Turn {
    let bytes = format!("{line}\n").into_bytes();
    turn(kind, &Line { offset: 10, bytes }, None)
}

fn text(text: &str) -> Part {
    Part::Text {
        text: text.into(),
        omitted_bytes: 0,
    }
}

fn notice(kind: &str, text: &str) -> Part {
    Part::Notice {
        kind: kind.into(),
        text: text.into(),
        omitted_bytes: 0,
    }
}

fn thinking(text: &str) -> Part {
    Part::Thinking {
        text: text.into(),
        omitted_bytes: 0,
    }
}

fn call(id: &str, name: &str, input: serde_json::Value) -> Part {
    Part::ToolCall {
        call_id: Some(id.into()),
        name: name.into(),
        input,
        omitted_bytes: 0,
    }
}

fn result(id: &str, text: &str, failed: Option<bool>, subagent: Option<&str>) -> Part {
    Part::ToolResult {
        call_id: Some(id.into()),
        text: text.into(),
        failed,
        subagent: subagent.map(str::to_owned),
        omitted_bytes: 0,
    }
}

#[test]
fn claudes_prompt_tool_result_and_answer() {
    let prompt = read(
        AgentKind::Claude,
        r#"{"parentUuid":"p","isSidechain":false,"type":"user","message":{"role":"user","content":"do it"},"uuid":"u","timestamp":"2026-11-22T02:52:48.446Z"}"#,
    );
    assert_eq!(
        (prompt.id.as_str(), prompt.role, prompt.offset),
        ("10", Role::User, 10)
    );
    assert_eq!(prompt.parts, [text("do it")]);
    assert_eq!(prompt.at.unwrap().to_string(), "2026-11-22T02:52:48.446Z");
    assert_eq!(
        (prompt.record_id.as_deref(), prompt.parent_id.as_deref()),
        (Some("u"), Some("p"))
    );

    let asked = read(
        AgentKind::Ccr,
        r#"{"type":"assistant","message":{"id":"msg_1","model":"claude-opus-4-8","role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"x"},{"type":"text","text":"I will."},{"type":"tool_use","id":"t1","name":"Bash","input":{"command":"ls"}}],"stop_reason":"tool_use","usage":{"input_tokens":1234,"cache_creation_input_tokens":200,"cache_read_input_tokens":1000,"output_tokens":57,"cache_creation":{"ephemeral_1h_input_tokens":50,"ephemeral_5m_input_tokens":150}}}}"#,
    );
    assert_eq!(asked.role, Role::Assistant);
    assert_eq!(
        asked.parts,
        [
            thinking("hm"),
            text("I will."),
            call("t1", "Bash", json!({"command": "ls"}))
        ]
    );
    assert_eq!(asked.generation.as_deref(), Some("msg_1"));
    assert_eq!(asked.stop_reason.as_deref(), Some("tool_use"));
    let usage = asked.usage.unwrap();
    assert_eq!(
        (
            usage.input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_5m_tokens,
            usage.cache_write_1h_tokens,
            usage.output_tokens
        ),
        (1234, 1000, 150, 50, 57)
    );

    let done = read(
        AgentKind::Claude,
        r#"{"type":"user","message":{"role":"user","content":[{"tool_use_id":"t1","type":"tool_result","content":[{"type":"text","text":"a"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"text","text":"b"}],"is_error":true}]},"toolUseResult":{"agentId":"a7"}}"#,
    );
    assert_eq!(done.role, Role::Tool);
    assert_eq!(
        done.parts,
        [
            Part::Attachment {
                name: "image/png".into()
            },
            result("t1", "a\nb", Some(true), Some("a7"))
        ]
    );
}

#[test]
fn claudes_program_is_told_from_the_person() {
    for (line, role, part) in [
        (
            r#"{"type":"user","isMeta":true,"message":{"role":"user","content":"caveat"}}"#,
            Role::System,
            text("caveat"),
        ),
        (
            r#"{"type":"user","isCompactSummary":true,"message":{"role":"user","content":"so far"}}"#,
            Role::System,
            notice("compaction", "so far"),
        ),
        (
            r#"{"type":"system","subtype":"compact_boundary","content":"Conversation compacted"}"#,
            Role::System,
            notice("compaction", "Conversation compacted"),
        ),
        (
            r#"{"type":"user","message":{"role":"user","content":[{"type":"text","text":"[Request interrupted by user]"}]}}"#,
            Role::System,
            notice("interrupted", "[Request interrupted by user]"),
        ),
        (
            r#"{"type":"assistant","isApiErrorMessage":true,"message":{"model":"<synthetic>","content":[{"type":"text","text":"API Error: 529"}]}}"#,
            Role::System,
            notice("error", "API Error: 529"),
        ),
        (
            r#"{"type":"attachment","attachment":{"type":"queued_command","prompt":"and then this"}}"#,
            Role::User,
            text("and then this"),
        ),
    ] {
        let turn = read(AgentKind::Claude, line);
        assert_eq!((turn.role, &turn.parts), (role, &vec![part]), "{line}");
        assert!(turn.model.is_none() && turn.usage.is_none());
    }
}

#[test]
fn a_subagents_turns_name_it() {
    let inside = read(
        AgentKind::Claude,
        r#"{"type":"user","isSidechain":true,"agentId":"a2","message":{"content":"x"}}"#,
    );
    assert_eq!(inside.subagent.as_deref(), Some("a2"));
    let bytes = b"{\"type\":\"user\",\"message\":{\"content\":\"x\"}}\n".to_vec();
    let own = turn(AgentKind::Claude, &Line { offset: 5, bytes }, Some("a2"));
    assert_eq!(
        (own.id.as_str(), own.subagent.as_deref()),
        ("a2:5", Some("a2"))
    );
    let copilot = read(
        AgentKind::Copilot,
        r#"{"type":"assistant.message","data":{"content":"hi","parentToolCallId":"call_1"}}"#,
    );
    assert_eq!(copilot.subagent.as_deref(), Some("call_1"));
}

#[test]
fn codexs_prompt_tool_result_answer_and_tokens() {
    let person = r#"{"timestamp":"2026-11-22T03:06:37.788Z","ordinal":7,"type":"response_item","payload":{"type":"message","id":"m1","role":"user","content":[{"type":"input_text","text":"do it"}],"internal_chat_message_metadata_passthrough":{"content_item_kinds":["user.text"]}}}"#;
    let prompt = read(AgentKind::Codex, person);
    assert_eq!(
        (prompt.role, &prompt.parts),
        (Role::User, &vec![text("do it")])
    );
    assert_eq!(prompt.record, "response_item/message");
    assert_eq!(prompt.record_id.as_deref(), Some("m1"));

    let added = person.replace("user.text", "environments.environment_context");
    assert_eq!(read(AgentKind::Codex, &added).role, Role::System);
    let earlier = r#"{"type":"response_item","payload":{"type":"message","role":"user","content":[{"type":"input_text","text":"<environment_context>"}]}}"#;
    assert_eq!(read(AgentKind::Codex, earlier).role, Role::System);

    let asked = read(
        AgentKind::Codex,
        r#"{"ordinal":9,"type":"response_item","payload":{"type":"function_call","name":"exec_command","arguments":"{\"cmd\": \"ls\"}","call_id":"c1"}}"#,
    );
    assert_eq!(
        asked.parts,
        [call("c1", "exec_command", json!({"cmd": "ls"}))]
    );
    let done = read(
        AgentKind::Codex,
        r#"{"ordinal":12,"type":"response_item","payload":{"type":"function_call_output","call_id":"c1","output":"Process exited with code 2\nOutput:\nx"}}"#,
    );
    assert_eq!(done.role, Role::Tool);
    assert_eq!(
        done.parts,
        [result(
            "c1",
            "Process exited with code 2\nOutput:\nx",
            Some(true),
            None
        )]
    );
    let spawned = read(
        AgentKind::Codex,
        r#"{"type":"response_item","payload":{"type":"function_call_output","call_id":"c2","output":"{\"agent_id\":\"t-9\"}"}}"#,
    );
    assert_eq!(
        spawned.parts,
        [result("c2", r#"{"agent_id":"t-9"}"#, None, Some("t-9"))]
    );
    let started = read(
        AgentKind::Codex,
        r#"{"ordinal":15,"type":"event_msg","payload":{"type":"item_completed","item":{"type":"SubAgentActivity","id":"c3","kind":"started","agent_thread_id":"t-10","agent_path":"/root/sub"}}}"#,
    );
    let began = Part::Subagent {
        id: "t-10".into(),
        call_id: Some("c3".into()),
        name: "/root/sub".into(),
        state: "started".into(),
    };
    assert_eq!((started.role, started.parts), (Role::System, vec![began]));
    let told = r#"{"type":"response_item","payload":{"type":"agent_message","author":"/root","recipient":"/root/sub","content":[{"type":"input_text","text":"go on"},{"type":"encrypted_content","encrypted_content":"xx"}]}}"#;
    let task = read(AgentKind::Codex, told);
    assert_eq!(
        (task.role, task.parts),
        (Role::User, vec![text("go on"), notice("encrypted", "")])
    );
    let report = told.replace(r#""author":"/root""#, r#""author":"/root/sub/x""#);
    assert_eq!(read(AgentKind::Codex, &report).role, Role::Tool);
    let script = read(
        AgentKind::Codex,
        r#"{"type":"response_item","payload":{"type":"custom_tool_call_output","call_id":"c4","output":[{"type":"input_text","text":"Script failed\nOutput:"},{"type":"input_text","text":"TypeError"}]}}"#,
    );
    assert_eq!(
        script.parts,
        [result(
            "c4",
            "Script failed\nOutput:\nTypeError",
            Some(true),
            None
        )]
    );
    let tokens = read(
        AgentKind::Codex,
        r#"{"ordinal":10,"type":"token_usage_record","payload":{"response_id":"r1","usage":{"input_tokens":2234,"cached_input_tokens":1000,"cache_write_input_tokens":4,"output_tokens":57,"reasoning_output_tokens":7}}}"#,
    );
    assert_eq!((tokens.role, tokens.parts.len()), (Role::Assistant, 0));
    let usage = tokens.usage.unwrap();
    assert_eq!(
        (
            usage.input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_5m_tokens,
            usage.output_tokens,
            usage.reasoning_tokens
        ),
        (1230, 1000, 4, 57, 7)
    );
    let thought = read(
        AgentKind::Codex,
        r#"{"type":"response_item","payload":{"type":"reasoning","summary":[{"type":"summary_text","text":"plan"}],"content":null,"encrypted_content":"xx"}}"#,
    );
    assert_eq!(thought.parts, [thinking("plan")]);
    let aborted = read(
        AgentKind::Codex,
        r#"{"type":"event_msg","payload":{"type":"turn_aborted","reason":"interrupted"}}"#,
    );
    assert_eq!(aborted.parts, [notice("interrupted", "interrupted")]);
}

#[test]
fn codexs_tokens_are_counted_once() {
    let line = r#"{"ORDINAL"type":"event_msg","payload":{"type":"token_count","info":{"last_token_usage":{"input_tokens":5,"output_tokens":1}}}}"#;
    let now = read(AgentKind::Codex, &line.replace("ORDINAL", "ordinal\":1,"));
    assert_eq!((now.role, now.usage), (Role::Record, None));
    let earlier = read(AgentKind::Codex, &line.replace("\"ORDINAL", ""));
    assert_eq!(earlier.usage.unwrap().input_tokens, 5);
}

#[test]
fn copilots_prompt_tool_result_answer_and_tokens() {
    let prompt = read(
        AgentKind::Copilot,
        r#"{"type":"user.message","data":{"content":"do it","transformedContent":"x"},"id":"e1","timestamp":"2026-11-22T03:15:11.541Z","parentId":"e0"}"#,
    );
    assert_eq!(
        (prompt.role, &prompt.parts),
        (Role::User, &vec![text("do it")])
    );
    assert_eq!(prompt.record_id.as_deref(), Some("e1"));
    let asked = read(
        AgentKind::Copilot,
        r#"{"type":"assistant.message","data":{"model":"gpt-4.1","content":"","toolRequests":[{"toolCallId":"c1","name":"bash","arguments":{"command":"ls"}}],"apiCallId":"g1"}}"#,
    );
    assert_eq!(asked.parts, [call("c1", "bash", json!({"command": "ls"}))]);
    assert_eq!(asked.generation.as_deref(), Some("g1"));
    let done = read(
        AgentKind::Copilot,
        r#"{"type":"tool.execution_complete","data":{"toolCallId":"c1","success":true,"result":{"content":"a b"}}}"#,
    );
    assert_eq!(
        (done.role, done.parts),
        (Role::Tool, vec![result("c1", "a b", Some(false), None)])
    );
    let failed = read(
        AgentKind::Copilot,
        r#"{"type":"tool.execution_complete","agentId":"a1","data":{"toolCallId":"c2","success":true,"shellExecution":{"exitCode":3},"result":{"content":"x"}}}"#,
    );
    assert_eq!(failed.parts, [result("c2", "x", Some(true), None)]);
    assert_eq!(failed.subagent.as_deref(), Some("a1"));
    let tokens = read(
        AgentKind::Copilot,
        r#"{"type":"session.usage_record","data":{"usage":{"model":"gpt-4.1","inputTokens":2234,"outputTokens":57,"cacheReadTokens":1000,"cacheWriteTokens":0,"apiCallId":"g1"}}}"#,
    );
    assert_eq!(tokens.generation.as_deref(), Some("g1"));
    assert_eq!(tokens.usage.unwrap().input_tokens, 1234);
}

#[test]
fn what_is_not_known_is_kept_and_bookkeeping_is_told_from_it() {
    for (kind, line, role) in [
        (
            AgentKind::Claude,
            r#"{"type":"hologram","x":1}"#,
            Role::Unknown,
        ),
        (
            AgentKind::Claude,
            r#"{"type":"last-prompt","lastPrompt":"x"}"#,
            Role::Record,
        ),
        (
            AgentKind::Codex,
            r#"{"type":"response_item","payload":{"type":"hologram"}}"#,
            Role::Unknown,
        ),
        (
            AgentKind::Codex,
            r#"{"type":"event_msg","payload":{"type":"item_completed"}}"#,
            Role::Record,
        ),
        (
            AgentKind::Copilot,
            r#"{"type":"hologram.shown","data":{}}"#,
            Role::Unknown,
        ),
        (
            AgentKind::Copilot,
            r#"{"type":"assistant.turn_end","data":{}}"#,
            Role::Record,
        ),
        (AgentKind::Claude, "not JSON", Role::Unknown),
        (AgentKind::Custom, r#"{"type":"user"}"#, Role::Unknown),
        (AgentKind::Claude, "", Role::Record),
    ] {
        let turn = read(kind, line);
        let kept = Part::Raw {
            text: line.into(),
            omitted_bytes: 0,
        };
        assert_eq!((turn.role, turn.parts), (role, vec![kept]), "{line}");
    }
    let strange = read(
        AgentKind::Claude,
        r#"{"type":"assistant","message":{"content":[{"type":"hologram","x":1}]}}"#,
    );
    assert!(matches!(&strange.parts[..], [Part::Raw { text, .. }] if text.contains("hologram")));
}

#[test]
fn what_is_long_is_cut_and_says_so() {
    let long = "é".repeat(Part::TEXT_MAX);
    let line = json!({"type": "user", "message": {"content": long}}).to_string();
    let cut = read(AgentKind::Claude, &line);
    let [
        Part::Text {
            text,
            omitted_bytes,
        },
    ] = &cut.parts[..]
    else {
        panic!("{:?}", cut.parts)
    };
    assert_eq!(text.len(), Part::TEXT_MAX);
    assert_eq!(*omitted_bytes, Part::TEXT_MAX as u64);

    let line = json!({"type": "hologram", "x": long}).to_string();
    let raw = read(AgentKind::Claude, &line);
    assert!(matches!(&raw.parts[..], [Part::Raw { text, omitted_bytes }]
            if text.len() <= Part::RAW_MAX && *omitted_bytes == (line.len() - text.len()) as u64));

    // Many blocks of much text stay within the bound of a turn, and so does one call's input.
    let blocks: Vec<_> = (0..2000)
        .map(|_| json!({"type": "text", "text": "x".repeat(2000)}))
        .collect();
    let line = json!({"type": "assistant", "message": {"content": blocks}}).to_string();
    assert!(line.len() < MAX_LINE);
    let many = read(AgentKind::Claude, &line);
    assert!(serde_json::to_string(&many).unwrap().len() < 1_200_000);
    assert!(
        matches!(many.parts.last(), Some(Part::Notice { kind, text, .. }) if kind == "more_parts" && text == "1500")
    );
    let line = json!({"type": "assistant", "message": {"content": [{"type": "tool_use", "id": "t", "name": "Write", "input": {"content": long}}]}}).to_string();
    let call = read(AgentKind::Claude, &line);
    assert!(
        matches!(&call.parts[..], [Part::ToolCall { input, omitted_bytes, .. }]
            if input.as_str().is_some_and(|input| input.starts_with("{\"content\"")) && *omitted_bytes > 0)
    );
}

/// A record can be made to be costly: nesting must not use up the stack.
#[test]
fn deep_nesting_is_kept_and_harms_nobody() {
    let deep = "[".repeat(1_000_000);
    let closed = format!("{deep}{}", "]".repeat(1_000_000));
    for inside in [&deep, &closed] {
        for kind in [AgentKind::Claude, AgentKind::Codex, AgentKind::Copilot] {
            let record = format!(
                r#"{{"type":"user","message":{{"content":{inside}}},"payload":{inside},"data":{inside}}}"#
            );
            assert_eq!(read(kind, inside).role, Role::Unknown);
            assert!(!read(kind, &record).parts.is_empty(), "{kind}");
        }
    }
    let call = format!(
        r#"{{"type":"assistant","message":{{"content":[{{"type":"tool_use","id":"t","name":"X","input":{closed}}}]}}}}"#
    );
    let turn = read(AgentKind::Claude, &call);
    assert!(
        matches!(&turn.parts[..], [Part::ToolCall { input, omitted_bytes, .. }]
            if input.is_string() && *omitted_bytes > 1_900_000)
    );
}

#[test]
fn markdown_shows_what_was_said_and_folds_the_rest() {
    let turns = [
        r#"{"type":"user","message":{"content":"do it"},"timestamp":"2026-11-22T02:52:48.446Z"}"#,
        r#"{"type":"assistant","message":{"model":"m","content":[{"type":"thinking","thinking":"hm"},{"type":"tool_use","id":"t","name":"Bash","input":{"command":"ls"}}]}}"#,
        r#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"t","content":"```\nx\n```"}]}}"#,
        r#"{"type":"assistant","message":{"model":"m","content":[{"type":"text","text":"Done."}]}}"#,
    ];
    let text: String = turns
        .iter()
        .map(|line| markdown::turn(&read(AgentKind::Claude, line)))
        .collect();
    let expected = "
## User · 2026-11-22T02:52:48.446Z

do it

## Assistant · m

<details><summary>Thinking</summary>

```
hm
```

</details>

**Bash**

```json
{
  \"command\": \"ls\"
}
```

## Tool

<details><summary>Result</summary>

````
```
x
```
````

</details>

## Assistant · m

Done.
";
    assert_eq!(text, expected);
}
