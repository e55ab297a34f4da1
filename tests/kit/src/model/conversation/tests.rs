//! Conversations as the agents send them.

use serde_json::json;

use super::*;

fn anthropic(messages: Value) -> Conversation {
    let body =
        json!({"model": "m", "stream": true, "messages": messages, "tools": [{"name": "Bash"}]});
    Conversation::read(Dialect::Anthropic, Agent::Claude, &body)
}

#[test]
fn a_reminder_is_not_a_prompt() {
    let seen = anthropic(json!([
        {"role": "user", "content": [
            {"type": "text", "text": "<system-reminder>\ncontext\n</system-reminder>\n"},
            {"type": "text", "text": "fix the test"},
            {"type": "text", "text": "<system-reminder>more</system-reminder>"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "Bash", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "ok 1"},
            {"type": "text", "text": "<system-reminder>x</system-reminder>"}]},
    ]));
    assert_eq!(
        (seen.prompt.as_str(), seen.round, seen.last_result.as_str()),
        ("fix the test", 1, "ok 1")
    );
    assert!(!seen.title);
}

#[test]
fn a_prompt_after_an_interrupt_starts_its_own_rounds() {
    let seen = anthropic(json!([
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "Bash", "input": {}}]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "a", "content": "stopped"},
            {"type": "text", "text": "[Request interrupted by user for tool use]"},
            {"type": "text", "text": "second"}]},
    ]));
    assert_eq!((seen.prompt.as_str(), seen.round), ("second", 0));
}

#[test]
fn parallel_calls_are_one_round() {
    let body = json!({"model": "m", "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "<environment_context>\n<cwd>/app/repo</cwd>\n</environment_context>"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
        {"type": "function_call", "name": "exec_command", "call_id": "1", "arguments": "{}"},
        {"type": "function_call", "name": "exec_command", "call_id": "2", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {"type": "function_call_output", "call_id": "2", "output": "two"},
        {"type": "reasoning"},
        {"type": "function_call", "name": "exec_command", "call_id": "3", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "3", "output": "three"}],
        "tools": [{"type": "function", "name": "exec_command"}, {"type": "local_shell"}]});
    let seen = Conversation::read(Dialect::Responses, Agent::Codex, &body);
    assert_eq!(
        (seen.prompt.as_str(), seen.round, seen.last_result.as_str()),
        ("go", 2, "three")
    );
    assert_eq!(seen.cwd.as_deref(), Some("/app/repo"));
    assert_eq!(seen.tools, ["exec_command", "local_shell"]);
}

#[test]
fn a_title_request_is_told_by_its_schema() {
    let body = json!({"model": "m", "tools": [], "messages": [{"role": "user", "content": "fix"}],
        "output_config": {"format": {"type": "json_schema", "schema": {"properties": {"title": {}}}}}});
    assert!(Conversation::read(Dialect::Anthropic, Agent::Claude, &body).title);
}

#[test]
fn a_title_is_of_what_the_agent_quotes() {
    let quoted =
        "<session>\nfix it\n</session>\n\nWrite the title in the language the user wrote in.";
    assert_eq!(titled(quoted), "fix it");
    assert_eq!(
        titled("Generate a title.\n\nUser prompt:\nfix it"),
        "fix it"
    );
    assert_eq!(titled("fix it"), "fix it");
}

#[test]
fn chat_counts_replies_with_tool_calls() {
    let body = json!({"model": "m", "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "<current_datetime>now</current_datetime>\n\nhello there"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]},
        {"role": "tool", "tool_call_id": "1", "content": "out"}]});
    let seen = Conversation::read(Dialect::Chat, Agent::Copilot, &body);
    assert_eq!(
        (seen.prompt.as_str(), seen.round, seen.last_result.as_str()),
        ("hello there", 1, "out")
    );
}

#[test]
fn tools_that_come_with_the_conversation_are_on_offer() {
    let exec = json!({"type": "custom", "name": "exec"});
    let namespace = json!({"type": "namespace", "name": "functions", "tools": [exec]});
    let body = json!({"model": "m", "input": [{"type": "additional_tools", "role": "developer", "tools": [namespace]}]});
    let seen = Conversation::read(Dialect::Responses, Agent::Codex, &body);
    assert_eq!(seen.tools, ["exec"]);
}
