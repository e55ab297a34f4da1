//! File names of attachments. Pure.
//!
//! A name comes from whoever made the file. What is stored is shown in terminals, typed into shells and put into prompts,
//! so it has no directory, no control or direction-changing character, no white space and no leading dot or dash, begins
//! with a number that no other attachment has (`01-shot.png`), and fits a directory entry (255 bytes).

/// Longest name of a directory entry, in bytes.
const MAX_NAME: usize = 255;
/// Longest extension that is kept when a name is cut, in bytes.
const MAX_EXTENSION: usize = 16;

/// The name to store a file under. `taken`: the numbers that are used. A number that the name brings is kept while it is
/// free.
#[must_use]
pub(super) fn stored(given: &str, taken: &[u32]) -> String {
    let clean = clean(given);
    let (number, rest) = match numbered(&clean) {
        Some((number, rest)) if !taken.contains(&number) => (number, rest),
        Some((_, rest)) => (free(taken), rest),
        None => (free(taken), clean.as_str()),
    };
    let rest = if rest.is_empty() { "file" } else { rest };
    let prefix = format!("{number:02}-");
    let room = MAX_NAME.saturating_sub(prefix.len());
    format!("{prefix}{}", cut(rest, room))
}

/// A given name as it may be shown: of a file that is not stored.
#[must_use]
pub(super) fn shown(given: &str) -> String {
    let clean = clean(given);
    if clean.is_empty() {
        return "file".to_owned();
    }
    cut(&clean, MAX_NAME)
}

/// The number at the beginning of a stored name.
#[must_use]
pub(super) fn number(stored: &str) -> Option<u32> {
    numbered(stored).map(|(number, _)| number)
}

fn free(taken: &[u32]) -> u32 {
    (1..).find(|number| !taken.contains(number)).unwrap_or(1)
}

/// `01-rest`: two digits, not 00.
fn numbered(name: &str) -> Option<(u32, &str)> {
    let (digits, rest) = name.split_once('-')?;
    let two = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = digits.parse().ok().filter(|number| *number > 0)?;
    two.then_some((number, rest.trim_start_matches(['.', '-'])))
}

fn clean(given: &str) -> String {
    let last = given
        .trim_end_matches(['/', '\\'])
        .rsplit(['/', '\\'])
        .next()
        .unwrap_or_default();
    let mut clean = String::with_capacity(last.len());
    for letter in last.chars().filter(|letter| !is_hidden(*letter)) {
        // What a shell or a Windows machine would take for something else.
        let letter = match letter {
            letter if letter.is_whitespace() => '-',
            '<' | '>' | ':' | '"' | '|' | '?' | '*' | '\'' | '`' | '$' | '&' | ';' | '!' => '_',
            letter => letter,
        };
        if !(letter == '-' && clean.ends_with('-')) {
            clean.push(letter);
        }
    }
    clean
        .trim_start_matches(['.', '-'])
        .trim_end_matches(['.', '-'])
        .to_owned()
}

/// Characters that do not show, or change how others show: controls, format characters that turn or join text, and the
/// byte order mark.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || matches!(
            letter,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// The beginning of a name, with its extension, in at most `room` bytes.
fn cut(name: &str, room: usize) -> String {
    if name.len() <= room {
        return name.to_owned();
    }
    let extension = name
        .rfind('.')
        .and_then(|at| name.get(at..))
        .filter(|extension| extension.len() <= MAX_EXTENSION)
        .unwrap_or_default();
    let mut end = room.saturating_sub(extension.len()).min(name.len());
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", name.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_cleaned_and_numbered() {
        for (given, taken, wanted) in [
            ("shot.png", &[][..], "01-shot.png"),
            ("shot.png", &[1, 2], "03-shot.png"),
            ("a b  c.txt", &[2], "01-a-b-c.txt"),
            ("../../etc/passwd", &[], "01-passwd"),
            ("C:\\Users\\me\\plan.pdf", &[], "01-plan.pdf"),
            ("dir/", &[], "01-dir"),
            ("", &[], "01-file"),
            ("...", &[], "01-file"),
            ("-rf", &[], "01-rf"),
            (".bashrc", &[], "01-bashrc"),
            ("evil\u{202e}gnp.exe", &[], "01-evilgnp.exe"),
            ("a\u{1b}[31m\n.txt", &[], "01-a[31m.txt"),
            ("$(id).txt", &[], "01-_(id).txt"),
            // The platform's own numbers stay while they are free.
            ("03-a.png", &[], "03-a.png"),
            ("03-a.png", &[3], "01-a.png"),
            ("01-shot.png", &[1], "02-shot.png"),
            ("00-a", &[], "01-00-a"),
            ("2024-plan.md", &[], "01-2024-plan.md"),
            ("05-", &[], "01-05"),
            ("Übersicht.pdf", &[], "01-Übersicht.pdf"),
        ] {
            assert_eq!(stored(given, taken), wanted, "{given:?} {taken:?}");
        }
    }

    #[test]
    fn a_long_name_is_cut_before_its_extension() {
        let name = stored(&format!("{}.jpeg", "ä".repeat(300)), &[]);
        assert!(name.len() <= 255 && name.len() > 250, "{}", name.len());
        assert!(name.ends_with("ä.jpeg"));
    }

    proptest! {
        #[test]
        fn any_name_becomes_one_safe_directory_entry(given in any::<String>(), taken in prop::collection::vec(1u32..99, 0..10)) {
            let name = stored(&given, &taken);
            prop_assert!(name.len() <= 255);
            prop_assert!(!name.contains(['/', '\\', '\0', '\n', '\'', '`', '$']));
            prop_assert!(!name.chars().any(|letter| letter.is_control() || letter.is_whitespace() || is_hidden(letter)));
            let own = number(&name);
            prop_assert!(own.is_some_and(|own| own > 0 && !taken.contains(&own)), "{name}");
            prop_assert!(crate::config::names::file_name(&name).is_ok());
        }

        #[test]
        fn names_in_a_row_never_collide(given in prop::collection::vec("(0[0-3]-)?[ab. /]{0,3}", 0..12)) {
            let mut names: Vec<String> = Vec::new();
            for given in given {
                let taken: Vec<u32> = names.iter().filter_map(|name| number(name)).collect();
                names.push(stored(&given, &taken));
            }
            let mut unique = names.clone();
            unique.sort();
            unique.dedup();
            prop_assert_eq!(unique.len(), names.len());
        }
    }
}
