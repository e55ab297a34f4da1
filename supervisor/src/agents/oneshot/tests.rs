use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(kind: AgentKind, lines: &[Value]) -> Outcome {
    let mut reader = Reader::new(kind);
    for line in lines {
        reader.feed(format!("{line}\n").as_bytes());
    }
    reader.finish()
}

fn claude_turn() -> Vec<Value> {
    vec![
        json!({"type": "system", "subtype": "init", "session_id": "s1"}),
        json!({"type": "assistant", "session_id": "s1", "parent_tool_use_id": null,
               "message": {"content": [{"type": "text", "text": "Working on it."}]}}),
        json!({"type": "assistant", "session_id": "s1", "parent_tool_use_id": "toolu_1",
               "message": {"content": [{"type": "text", "text": "a subagent speaks"}]}}),
        json!({"type": "result", "subtype": "success", "is_error": false, "api_error_status": null,
               "result": "All done.", "session_id": "s1",
               "usage": {"input_tokens": 2468, "cache_creation_input_tokens": 400,
                         "cache_read_input_tokens": 2000, "output_tokens": 114}}),
    ]
}

#[test]
fn claudes_result_is_read() {
    let outcome = read(AgentKind::Claude, &claude_turn());
    assert_eq!(outcome.text.as_deref(), Some("All done."));
    assert_eq!(outcome.agent_session.as_deref(), Some("s1"));
    assert_eq!(
        outcome.usage,
        Usage {
            input_tokens: 2468,
            output_tokens: 114,
            cache_read_tokens: 2000,
            cache_write_tokens: 400
        }
    );
    assert!(outcome.finished && !outcome.is_error);
    assert_eq!(outcome.exit_code(Exit::Code(0), false), 0);
}

#[test]
fn a_run_cut_before_its_result_keeps_what_the_agent_said() {
    let outcome = read(AgentKind::Claude, &claude_turn()[..3]);
    assert_eq!(outcome.text.as_deref(), Some("Working on it."));
    assert!(!outcome.finished);
    assert_eq!(outcome.exit_code(Exit::Signal(15), false), 143);
}

#[test]
fn claudes_failed_call_is_an_error_in_spite_of_its_success() {
    let outcome = read(
        AgentKind::Ccr,
        &[
            json!({"type": "result", "subtype": "success", "is_error": true, "api_error_status": 402,
                  "result": "API Error: 402 budget spent", "session_id": "s"}),
        ],
    );
    assert_eq!(outcome.api_status, Some(402));
    assert_eq!(
        outcome.error.as_deref(),
        Some("API Error: 402 budget spent")
    );
    assert_eq!(outcome.exit_code(Exit::Code(1), false), 1);
    assert_eq!(outcome.exit_code(Exit::Code(1), true), BUDGET_EXIT);
}

#[test]
fn an_interrupted_claude_does_not_pass_for_a_good_end() {
    let outcome = read(
        AgentKind::Claude,
        &[
            json!({"type": "result", "subtype": "error_during_execution", "is_error": true,
                  "errors": ["aborted"], "session_id": "s"}),
        ],
    );
    assert_eq!(outcome.error.as_deref(), Some("aborted"));
    assert_eq!(outcome.exit_code(Exit::Code(0), false), 1);
}

#[test]
fn codexs_turn_is_read() {
    let outcome = read(
        AgentKind::Codex,
        &[
            json!({"type": "thread.started", "thread_id": "t1"}),
            json!({"type": "item.completed", "item": {"type": "error", "message": "Model metadata not found"}}),
            json!({"type": "error", "message": "Reconnecting... 1/5 (unexpected status 500)"}),
            json!({"type": "item.completed", "item": {"type": "agent_message", "text": "First."}}),
            json!({"type": "item.completed", "item": {"type": "agent_message", "text": "All done."}}),
            json!({"type": "turn.completed", "usage": {"input_tokens": 4468, "cached_input_tokens": 2000,
                   "cache_write_input_tokens": 0, "output_tokens": 114, "reasoning_output_tokens": 14}}),
        ],
    );
    assert_eq!(outcome.text.as_deref(), Some("All done."));
    assert_eq!(outcome.agent_session.as_deref(), Some("t1"));
    assert_eq!(outcome.usage.input_tokens, 2468);
    assert!(outcome.finished && !outcome.is_error);
}

#[test]
fn codexs_failure_carries_the_status() {
    let message = "unexpected status 400 Bad Request: budget spent, url: http://127.0.0.1";
    let outcome = read(
        AgentKind::Codex,
        &[json!({"type": "turn.failed", "error": {"message": message}})],
    );
    assert!(outcome.is_error);
    assert_eq!(outcome.api_status, Some(400));
    assert_eq!(outcome.exit_code(Exit::Code(1), true), BUDGET_EXIT);
}

#[test]
fn copilots_result_is_read() {
    let outcome = read(
        AgentKind::Copilot,
        &[
            json!({"type": "assistant.message", "data": {"content": "All done."}}),
            json!({"type": "assistant.message", "data": {"content": ""}}),
            json!({"type": "session.usage_record", "data": {"usage": {"inputTokens": 2234, "outputTokens": 57, "cacheReadTokens": 1000, "cacheWriteTokens": 0}}}),
            json!({"type": "result", "sessionId": "c1", "exitCode": 0}),
        ],
    );
    assert_eq!(outcome.text.as_deref(), Some("All done."));
    assert_eq!(outcome.agent_session.as_deref(), Some("c1"));
    assert_eq!(outcome.usage.input_tokens, 1234);
    assert!(!outcome.is_error);

    let outcome = read(
        AgentKind::Copilot,
        &[
            json!({"type": "session.error", "data": {"message": "402 budget spent", "statusCode": 402}}),
            json!({"type": "result", "sessionId": "c1", "exitCode": 1}),
        ],
    );
    assert_eq!((outcome.is_error, outcome.api_status), (true, Some(402)));
    assert_eq!(outcome.error.as_deref(), Some("402 budget spent"));
}

#[test]
fn a_custom_commands_output_is_its_text() {
    let mut reader = Reader::new(AgentKind::Custom);
    reader.feed(b"hello\n");
    reader.feed("wörld".as_bytes());
    assert_eq!(reader.finish().text.as_deref(), Some("hello\nwörld"));
    let mut reader = Reader::new(AgentKind::Custom);
    for _ in 0..10 {
        reader.feed(&vec![b'x'; MAX_TEXT]);
    }
    assert_eq!(reader.finish().text.unwrap().len(), MAX_TEXT);
}

#[test]
fn an_endless_line_is_passed_over_and_the_next_read() {
    let mut reader = Reader::new(AgentKind::Claude);
    for _ in 0..10 {
        reader.feed(&vec![b'x'; MAX_LINE / 4]);
    }
    assert!(reader.line.capacity() <= 2 * MAX_LINE);
    reader.feed(b"\n");
    for line in claude_turn() {
        reader.feed(format!("{line}\n").as_bytes());
    }
    let outcome = reader.finish();
    assert_eq!(outcome.skipped_lines, 1);
    assert_eq!(outcome.text.as_deref(), Some("All done."));
}

#[test]
fn what_is_no_json_and_a_last_line_without_newline_do_not_matter() {
    let mut reader = Reader::new(AgentKind::Codex);
    reader.feed(b"WARNING: something\n\n[1]\n");
    reader.feed(br#"{"type":"thread.started","thread_id":"t"}"#);
    assert_eq!(reader.finish().agent_session.as_deref(), Some("t"));
}

proptest! {
    #[test]
    fn pieces_make_no_difference(cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10)) {
        let output: String = claude_turn().iter().map(|line| format!("{line}\n")).collect();
        let output = output.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(output.len())).collect();
        cuts.extend([0, output.len()]);
        cuts.sort_unstable();
        let mut reader = Reader::new(AgentKind::Claude);
        for cut in cuts.windows(2) {
            reader.feed(&output[cut[0]..cut[1]]);
        }
        prop_assert_eq!(reader.finish(), read(AgentKind::Claude, &claude_turn()));
    }
}
