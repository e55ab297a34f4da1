//! Text for people: what comes from outside is escaped before it reaches a terminal.

use std::fmt::Write;

/// Escapes control and bidirectional characters, so that a title, a branch or a process name cannot move the cursor,
/// set colours or show itself in another order.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || is_bidi(character) {
            // Writing into a String cannot fail.
            let _ = write!(clean, "\\u{{{:x}}}", u32::from(character));
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Characters that change the direction or order of text (Unicode `Bidi_Control`).
fn is_bidi(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A table with aligned columns; cells are escaped.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| escape(cell)).collect())
        .collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (index, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let gap = if index == 0 { "" } else { "  " };
            let _ = write!(line, "{gap}{cell:width$}");
        }
        line.trim_end().to_owned()
    };
    let mut text = line(head.to_vec());
    text.push('\n');
    for row in &rows {
        text.push_str(&line(row.iter().map(String::as_str).collect()));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_bidi_characters_are_shown_not_obeyed() {
        assert_eq!(escape("a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert_eq!(escape("x\u{202e}y\u{9b}"), "x\\u{202e}y\\u{9b}");
        assert_eq!(escape("grün 漢 👍"), "grün 漢 👍");
    }

    #[test]
    fn columns_are_aligned() {
        let text = table(
            &["ID", "NAME"],
            &[
                vec!["1".into(), "a".into()],
                vec!["100".into(), "b\n".into()],
            ],
        );
        assert_eq!(text, "ID   NAME\n1    a\n100  b\\u{a}\n");
    }
}
