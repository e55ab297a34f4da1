//! FTS5's snippets, with its marks turned into places. Pure.
//!
//! The marks are control characters, which no text in the store has (see [`super::text::clean`]).

/// Before what was found.
pub(super) const BEGIN: char = '\u{1}';
/// After it.
pub(super) const END: char = '\u{2}';
/// Where the text goes on.
pub(super) const MORE: char = '\u{3}';
/// What people see of that.
const ELLIPSIS: char = '…';

/// The snippet without marks on one line, and what was found in it: begin and end in characters.
pub(super) fn read(marked: &str) -> (String, Vec<[u32; 2]>) {
    let mut snippet = String::with_capacity(marked.len());
    let mut highlights = Vec::new();
    let mut length = 0_u32;
    let mut begun = None;
    let push = |snippet: &mut String, character: char, length: &mut u32| {
        snippet.push(character);
        *length = length.saturating_add(1);
    };
    for character in marked.chars() {
        match character {
            BEGIN => begun = Some(length),
            END => highlights.extend(begun.take().map(|begin| [begin, length])),
            MORE if length == 0 => {
                push(&mut snippet, ELLIPSIS, &mut length);
                push(&mut snippet, ' ', &mut length);
            }
            MORE => {
                if !snippet.ends_with(' ') {
                    push(&mut snippet, ' ', &mut length);
                }
                push(&mut snippet, ELLIPSIS, &mut length);
            }
            // Line ends and their indentation are one blank.
            _ if character.is_whitespace() => {
                if length > 0 && !snippet.ends_with(' ') {
                    push(&mut snippet, ' ', &mut length);
                }
            }
            _ => push(&mut snippet, character, &mut length),
        }
    }
    let kept = snippet.trim_end().len();
    snippet.truncate(kept);
    (snippet, highlights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn marks_become_places_in_characters() {
        let (snippet, highlights) = read("\u{3}\u{1}x\u{2}\u{3}");
        assert_eq!(snippet, "… x …");
        assert_eq!(highlights, [[2, 3]]);
        let (snippet, highlights) = read("über \u{1}漢字\u{2}\n\t  und \u{1}mehr\u{2}\n");
        assert_eq!(snippet, "über 漢字 und mehr");
        assert_eq!(highlights, [[5, 7], [12, 16]]);
    }

    proptest! {
        #[test]
        fn places_lie_within_the_snippet(marked in "[a \u{1}\u{2}\u{3}\nß]{0,40}") {
            let (snippet, highlights) = read(&marked);
            let length = u32::try_from(snippet.chars().count()).unwrap();
            for [begin, end] in highlights {
                // A mark around blanks only, which FTS5 never makes, may end after the last word.
                prop_assert!(begin <= end && begin <= length + 1);
            }
            prop_assert!(!snippet.contains(char::is_control));
        }
    }
}
