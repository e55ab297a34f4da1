//! What of a turn can be found: the words of all its parts, cleaned and cut. Pure.

use serde_json::Value;
use whim_wire::conversation::{Part, Role, Turn};

/// Longest text of one turn or command in the index, in bytes. What follows stands in the transcript; a result that long
/// is a listing or a log.
pub(super) const MAX_TEXT: usize = 64 * 1024;
/// Deepest input of a tool that is looked into.
const DEPTH: usize = 16;

/// The turn's text; empty: there is nothing in it to be found.
pub(super) fn of_turn(turn: &Turn) -> String {
    let mut text = String::new();
    if turn.role == Role::Record {
        return text;
    }
    for part in &turn.parts {
        match part {
            Part::Text { text: said, .. }
            | Part::Thinking { text: said, .. }
            | Part::ToolResult { text: said, .. }
            | Part::Notice { text: said, .. }
            | Part::Raw { text: said, .. } => line(&mut text, said),
            Part::ToolCall { name, input, .. } => {
                line(&mut text, name);
                strings(&mut text, input, DEPTH);
            }
            Part::Attachment { name } | Part::Subagent { name, .. } => line(&mut text, name),
        }
        if text.len() >= MAX_TEXT {
            break;
        }
    }
    clean(&text)
}

fn line(text: &mut String, said: &str) {
    if said.is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push('\n');
    }
    // Twice the bound: cleaning takes some away.
    let end = said.floor_char_boundary(2 * MAX_TEXT);
    text.push_str(said.get(..end).unwrap_or_default());
}

/// The strings in a tool's input, as they are meant and not as JSON escapes them.
fn strings(text: &mut String, value: &Value, depth: usize) {
    if depth == 0 || text.len() >= MAX_TEXT {
        return;
    }
    match value {
        Value::String(said) => line(text, said),
        Value::Number(number) => line(text, &number.to_string()),
        Value::Array(values) => {
            for value in values {
                strings(text, value, depth - 1);
            }
        }
        Value::Object(fields) => {
            for value in fields.values() {
                strings(text, value, depth - 1);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// Without control characters and the escape sequences of terminals, and not longer than [`MAX_TEXT`].
pub(super) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len().min(MAX_TEXT));
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if clean.len() + character.len_utf8() > MAX_TEXT {
            break;
        }
        match character {
            '\n' | '\t' => clean.push(character),
            '\u{1b}' => match characters.peek() {
                // A control sequence ends with the first character from `@` on (ECMA-48, 5.4).
                Some('[') => {
                    characters.next();
                    while characters
                        .next_if(|next| (' '..='?').contains(next))
                        .is_some()
                    {}
                    characters.next_if(|next| ('@'..='~').contains(next));
                }
                // A command to the terminal ends with BEL or ST (ECMA-48, 8.3.89).
                Some(']') => {
                    while characters
                        .next_if(|next| !matches!(next, '\u{7}' | '\u{1b}' | '\n'))
                        .is_some()
                    {}
                    if characters.next_if_eq(&'\u{7}').is_none()
                        && characters.next_if_eq(&'\u{1b}').is_some()
                    {
                        characters.next_if_eq(&'\\');
                    }
                }
                _ => {}
            },
            _ if character.is_control() => clean.push(' '),
            _ => clean.push(character),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn turn(parts: Value) -> Turn {
        serde_json::from_value(json!({
            "id": "0", "offset": 0, "bytes": 1, "role": "assistant", "at": null, "record": "assistant", "parts": parts,
        }))
        .unwrap()
    }

    #[test]
    fn every_part_can_be_found() {
        let parts = json!([
            {"type": "text", "text": "said"},
            {"type": "thinking", "text": "thought"},
            {"type": "tool_call", "call_id": "c", "name": "Bash", "input": {"command": "grep \"x\"", "list": ["one", 2]}},
            {"type": "tool_result", "call_id": "c", "text": "printed", "failed": null},
            {"type": "attachment", "name": "image/png"},
            {"type": "notice", "kind": "error", "text": "noticed"},
        ]);
        let text = of_turn(&turn(parts));
        assert_eq!(
            text,
            "said\nthought\nBash\ngrep \"x\"\none\n2\nprinted\nimage/png\nnoticed"
        );
    }

    #[test]
    fn a_terminals_colours_do_not_stick_to_words() {
        assert_eq!(
            clean("\u{1b}[1;31merror\u{1b}[0m: x\u{1b}]0;title\u{7}y\u{1b}]8;;u\u{1b}\\z"),
            "error: xyz"
        );
        assert_eq!(clean("a\u{1}b\r\nc\td\0e\u{1b}"), "a b \nc\td e");
    }

    proptest! {
        #[test]
        fn no_mark_survives_and_the_bound_is_kept(text: String, many in 0..3_usize) {
            let text = text.repeat(1 + many * 20_000);
            let clean = clean(&text);
            prop_assert!(clean.len() <= MAX_TEXT);
            prop_assert!(!clean.contains(|c: char| c.is_control() && c != '\n' && c != '\t'));
        }
    }
}
