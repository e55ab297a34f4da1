//! Which of an agent's tools does what the script wants.
//!
//! Tools are chosen from those that the request offers, so that one script serves every agent:
//!
//! | wish | Claude Code (and CCR) | Codex | Copilot |
//! |---|---|---|---|
//! | shell | `Bash {command, description}` | `exec_command {cmd}`, or `exec` (JavaScript) | `bash {command, description, mode, initial_wait}` |
//! | read | `Read {file_path}` | by shell | `view {path}` |
//! | write | `Write {file_path, content}` | by shell | `create {path, file_text}` |
//! | edit | `Edit {file_path, old_string, new_string}` | by shell | `edit {path, old_str, new_str}` |
//!
//! File tools want absolute paths: they are used where the agent's instructions name its directory, else the shell is.
//! Claude Code edits or replaces only a file that it has read before; scripts read first.

use serde_json::{Value, json};

use super::conversation::{Conversation, Dialect};
use super::script::ToolCall;

/// A call as an agent understands it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call {
    /// Unique; comes back with the result.
    pub(super) id: String,
    pub(super) name: String,
    /// Arguments; a string is a free-form call.
    pub(super) input: Value,
}

/// Chooses the tool.
pub(super) fn resolve(wish: &ToolCall, conversation: &Conversation, id: String) -> Call {
    let (name, input) = match wish {
        ToolCall::Named { name, input } => (name.as_str(), input.clone()),
        ToolCall::Shell(command) => shell(conversation, command),
        ToolCall::Read(path) => file(conversation, path, |name, path| match name {
            "Read" => Some(json!({"file_path": path})),
            "view" => Some(json!({"path": path})),
            _ => None,
        })
        .unwrap_or_else(|| shell(conversation, &format!("cat {}", quoted(path)))),
        ToolCall::Write { path, content } => file(conversation, path, |name, path| match name {
            "Write" => Some(json!({"file_path": path, "content": content})),
            "create" => Some(json!({"path": path, "file_text": content})),
            _ => None,
        })
        .unwrap_or_else(|| {
            shell(
                conversation,
                &format!("printf %s {} > {}", quoted(content), quoted(path)),
            )
        }),
        ToolCall::Edit { path, old, new } => file(conversation, path, |name, path| match name {
            "Edit" => Some(json!({"file_path": path, "old_string": old, "new_string": new})),
            "edit" => Some(json!({"path": path, "old_str": old, "new_str": new})),
            _ => None,
        })
        .unwrap_or_else(|| shell(conversation, &edit_by_shell(path, old, new))),
    };
    Call {
        id,
        name: name.to_owned(),
        input,
    }
}

fn shell<'a>(conversation: &'a Conversation, command: &str) -> (&'a str, Value) {
    let shaped = |name: &str| match name {
        "Bash" => Some(json!({"command": command, "description": summary(command)})),
        "bash" => Some(
            json!({"command": command, "description": summary(command), "mode": "sync", "initial_wait": 30}),
        ),
        "exec_command" => Some(json!({"cmd": command})),
        // Codex's newer models have no shell but a JavaScript interpreter, in which the shell is a function.
        "exec" if conversation.dialect == Dialect::Responses => {
            let call = format!(
                "const done = await tools.exec_command({});",
                json!({"cmd": command})
            );
            Some(format!("{call}\ntext(done.output ?? done);").into())
        }
        "shell" => Some(json!({"command": ["sh", "-c", command]})),
        _ => None,
    };
    let offered = conversation
        .tools
        .iter()
        .find_map(|name| shaped(name).map(|input| (name.as_str(), input)));
    offered.unwrap_or_else(|| {
        (
            "Bash",
            json!({"command": command, "description": summary(command)}),
        )
    })
}

fn file<'a>(
    conversation: &'a Conversation,
    path: &str,
    shaped: impl Fn(&str, &str) -> Option<Value>,
) -> Option<(&'a str, Value)> {
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{}/{path}", conversation.cwd.as_ref()?)
    };
    conversation
        .tools
        .iter()
        .find_map(|name| shaped(name, &path).map(|input| (name.as_str(), input)))
}

/// Replaces a passage with awk, which every base image has; the passage travels in the environment, uninterpreted.
fn edit_by_shell(path: &str, old: &str, new: &str) -> String {
    let program = r#"{ text = text $0 "\n" } END { at = index(text, ENVIRON["OLD"]); if (!at) exit 1; printf "%s", substr(text, 1, at - 1) ENVIRON["NEW"] substr(text, at + length(ENVIRON["OLD"])) }"#;
    let path = quoted(path);
    format!(
        "OLD={} NEW={} awk '{program}' {path} > {path}.new && cat {path}.new > {path} && rm {path}.new",
        quoted(old),
        quoted(new),
    )
}

/// A shell word.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn summary(command: &str) -> String {
    let words = command
        .split_whitespace()
        .take(4)
        .collect::<Vec<_>>()
        .join(" ");
    format!("Run {words}")
}

#[cfg(test)]
mod tests {
    use super::super::conversation::{Agent, Dialect};
    use super::*;

    fn offering(tools: Value, cwd: Option<&str>) -> Conversation {
        let mut conversation =
            Conversation::read(Dialect::Anthropic, Agent::Other, &json!({"tools": tools}));
        conversation.cwd = cwd.map(String::from);
        conversation
    }

    #[test]
    fn each_agent_gets_its_own_shell() {
        let shell = |name: &str| {
            let conversation = offering(json!([{"name": "other"}, {"name": name}]), None);
            resolve(&ToolCall::Shell("ls".into()), &conversation, "1".into())
        };
        assert_eq!(shell("exec_command").input, json!({"cmd": "ls"}));
        assert_eq!(shell("Bash").input["command"], "ls");
        assert_eq!(shell("bash").input["mode"], "sync");
    }

    #[test]
    fn without_a_directory_files_go_through_the_shell() {
        let read = ToolCall::Read("it's".into());
        let conversation = offering(json!([{"name": "Read"}, {"name": "Bash"}]), None);
        assert_eq!(
            resolve(&read, &conversation, "1".into()).input["command"],
            r"cat 'it'\''s'"
        );
        let conversation = offering(
            json!([{"name": "Read"}, {"name": "Bash"}]),
            Some("/app/repo"),
        );
        assert_eq!(
            resolve(&read, &conversation, "1".into()).input,
            json!({"file_path": "/app/repo/it's"})
        );
    }

    #[test]
    fn the_shell_edit_replaces_exactly_one_passage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a b.sh");
        std::fs::write(&path, "one\n$(two) 'x'\nthree\n").unwrap();
        let command = edit_by_shell(path.to_str().unwrap(), "$(two) 'x'", "2 & \\1");
        assert!(
            std::process::Command::new("sh")
                .arg("-c")
                .arg(&command)
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "one\n2 & \\1\nthree\n"
        );
        assert!(
            !std::process::Command::new("sh")
                .arg("-c")
                .arg(&command)
                .status()
                .unwrap()
                .success()
        );
    }
}
