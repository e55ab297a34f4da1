//! A conversation as Markdown, for people: what was said as text, everything else folded or fenced.

use std::fmt::Write;

use whim_wire::conversation::{Part, Role, Turn};

/// The head of a conversation.
#[must_use]
pub fn head(session: &str, agent: &str) -> String {
    format!("# Conversation of {session} ({agent})\n")
}

/// The head of a sub-agent's part.
#[must_use]
pub fn subagent(id: &str) -> String {
    format!("\n---\n\n# Sub-agent {}\n", line(id))
}

/// One turn. Turns that hold nothing for people (counts of tokens) come to nothing.
#[must_use]
pub fn turn(turn: &Turn) -> String {
    let mut body = String::new();
    for part in &turn.parts {
        // Writing into a String cannot fail.
        let _ = part_to(&mut body, part, turn.role);
    }
    if body.is_empty() {
        return body;
    }
    let who = match turn.role {
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Tool => "Tool",
        Role::System => "System",
        Role::Record | Role::Unknown => "Record",
    };
    let mut head = format!("\n## {who}");
    let details = [
        turn.subagent
            .as_ref()
            .map(|id| format!("sub-agent {}", line(id))),
        turn.at.map(|at| at.to_string()),
        turn.model.as_deref().map(line),
    ];
    for detail in details.into_iter().flatten() {
        head.push_str(" · ");
        head.push_str(&detail);
    }
    head.push('\n');
    head + &body
}

fn part_to(out: &mut String, part: &Part, role: Role) -> std::fmt::Result {
    match part {
        // What the program adds is long and is not what was said.
        Part::Text {
            text,
            omitted_bytes,
        } if role == Role::System => folded(out, "Instructions", text, *omitted_bytes),
        Part::Text {
            text,
            omitted_bytes,
        } => {
            writeln!(out, "\n{}", text.trim_end())?;
            missing(out, *omitted_bytes)
        }
        Part::Thinking { text, .. } if text.is_empty() => Ok(()),
        Part::Thinking {
            text,
            omitted_bytes,
        } => folded(out, "Thinking", text, *omitted_bytes),
        Part::ToolCall {
            name,
            input,
            omitted_bytes,
            ..
        } => {
            let text = match input {
                serde_json::Value::String(text) => text.clone(),
                other => serde_json::to_string_pretty(other).unwrap_or_default(),
            };
            writeln!(out, "\n**{}**", line(name))?;
            fenced(out, "json", &text)?;
            missing(out, *omitted_bytes)
        }
        Part::ToolResult {
            text,
            failed,
            omitted_bytes,
            ..
        } => {
            let title = if *failed == Some(true) {
                "Result (failed)"
            } else {
                "Result"
            };
            folded(out, title, text, *omitted_bytes)
        }
        Part::Subagent {
            id, name, state, ..
        } => writeln!(
            out,
            "\n*sub-agent {}* {} ({})",
            line(state),
            line(name),
            line(id)
        ),
        Part::Attachment { name } => writeln!(out, "\n[attachment: {}]", line(name)),
        Part::Notice {
            kind,
            text,
            omitted_bytes,
        } if text.contains('\n') => folded(out, &line(kind), text, *omitted_bytes),
        Part::Notice { kind, text, .. } => {
            writeln!(out, "\n*{}* {}", line(kind), text.trim())
        }
        Part::Raw {
            text,
            omitted_bytes,
        } => folded(out, "Record", text, *omitted_bytes),
    }
}

/// `title` is ours or was cut to one line.
fn folded(out: &mut String, title: &str, text: &str, omitted: u64) -> std::fmt::Result {
    writeln!(out, "\n<details><summary>{title}</summary>")?;
    fenced(out, "", text)?;
    missing(out, omitted)?;
    writeln!(out, "\n</details>")
}

/// A fence is longer than any run of backticks inside it.
fn fenced(out: &mut String, language: &str, text: &str) -> std::fmt::Result {
    let mut longest = 0;
    let mut run = 0;
    for character in text.chars() {
        run = if character == '`' { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    let fence = "`".repeat((longest + 1).max(3));
    writeln!(out, "\n{fence}{language}\n{}\n{fence}", text.trim_end())
}

fn missing(out: &mut String, omitted: u64) -> std::fmt::Result {
    if omitted > 0 {
        writeln!(out, "\n[{omitted} bytes left out]")?;
    }
    Ok(())
}

/// A name of the agent's within a line: no markup, no line end.
fn line(name: &str) -> String {
    name.chars()
        .map(|character| match character {
            '<' | '>' | '`' | '*' => ' ',
            character if character.is_control() => ' ',
            character => character,
        })
        .collect()
}
