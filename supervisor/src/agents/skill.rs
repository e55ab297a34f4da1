//! A skill as every agent reads it: a `SKILL.md` with front matter that names and describes it. Pure.
//!
//! The agents' own rules: Claude Code calls a skill by its directory (`/name`) and lists it by its description; Codex takes
//! none whose front matter lacks `name` or `description`; both know the members in the spelling with dashes, where a
//! platform's form has underscores. So a single file of any name becomes the `SKILL.md`, and of its front matter only what
//! is needed is changed: lines, never values. What cannot be front matter (no end) is text.

use std::collections::BTreeMap;

/// The file that agents read first.
const MAIN: &str = "SKILL.md";
/// Longest description that is made of a text, in characters; the agents have it in each request.
const DESCRIPTION: usize = 200;

/// Members that are written with underscores elsewhere.
const RENAMED: [(&str, &str); 4] = [
    ("user_invocable", "user-invocable"),
    ("argument_hint", "argument-hint"),
    ("allowed_tools", "allowed-tools"),
    ("disable_model_invocation", "disable-model-invocation"),
];

/// The files to write for a skill of this name, by path beneath its directory.
#[must_use]
pub(super) fn files(name: &str, given: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut files = given.clone();
    if !files.contains_key(MAIN)
        && files.len() == 1
        && let Some((_, text)) = files.pop_first()
    {
        files.insert(MAIN.to_owned(), text);
    }
    if let Some(text) = files.get_mut(MAIN) {
        *text = normal(name, text);
    }
    files
}

fn normal(name: &str, text: &str) -> String {
    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let (front, body) = split(&text).unwrap_or(("", text.as_str()));
    let mut lines: Vec<String> = Vec::new();
    let mut described = false;
    let mut of_name = false;
    for line in front.lines() {
        let Some(key) = key(line) else {
            // Belongs to the member before it.
            if !of_name {
                lines.push(line.to_owned());
            }
            continue;
        };
        of_name = key == "name";
        if of_name {
            continue;
        }
        described |= key == "description";
        let renamed = RENAMED.iter().find(|(old, _)| *old == key);
        lines.push(match renamed {
            Some((old, new)) => line.replacen(old, new, 1),
            None => line.to_owned(),
        });
    }
    // By its directory, whatever it calls itself: that is how people call it.
    let mut own = vec![format!("name: {name}")];
    if !described {
        own.push(format!("description: {}", quoted(&description(name, body))));
    }
    own.extend(lines);
    let body = body.trim_start_matches('\n');
    format!("---\n{}\n---\n\n{body}", own.join("\n"))
}

/// Front matter and what follows it.
fn split(text: &str) -> Option<(&str, &str)> {
    let rest = text.strip_prefix("---\n")?;
    if let Some(body) = rest.strip_prefix("---\n") {
        return Some(("", body));
    }
    let (front, body) = rest
        .split_once("\n---\n")
        .or_else(|| Some((rest.strip_suffix("\n---")?, "")))?;
    Some((front, body))
}

/// The member that a line of front matter begins, if it does.
fn key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(':')?;
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

/// The first words of a text: its heading, or its first line.
fn description(name: &str, body: &str) -> String {
    let lines = body.lines().map(|line| line.trim_start_matches('#').trim());
    let first = lines.into_iter().find(|line| !line.is_empty());
    first
        .unwrap_or(name)
        .chars()
        .filter(|letter| !letter.is_control())
        .take(DESCRIPTION)
        .collect()
}

/// In double quotes, which YAML reads as JSON does.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn main_of(text: &str) -> String {
        let files = files(
            "review",
            &BTreeMap::from([("any.md".to_owned(), text.to_owned())]),
        );
        assert_eq!(files.len(), 1);
        files[MAIN].clone()
    }

    #[test]
    fn a_text_becomes_a_skill() {
        assert_eq!(
            main_of("# Review \"it\"\n\nLook.\n"),
            "---\nname: review\ndescription: \"Review \\\"it\\\"\"\n---\n\n# Review \"it\"\n\nLook.\n"
        );
        assert_eq!(
            main_of(""),
            "---\nname: review\ndescription: \"review\"\n---\n\n"
        );
    }

    #[test]
    fn front_matter_is_kept_and_completed() {
        let text = "---\r\nname: Other\r\ndescription: >\r\n  long\r\n  text\r\nuser_invocable: false\r\nallowed_tools:\r\n  - Bash\r\nx_y: 1\r\n---\r\nBody\r\n";
        assert_eq!(
            main_of(text),
            "---\nname: review\ndescription: >\n  long\n  text\nuser-invocable: false\nallowed-tools:\n  - Bash\nx_y: 1\n---\n\nBody\n"
        );
        // Without an end it is no front matter.
        assert!(main_of("---\nname: x\n").ends_with("\n---\n\n---\nname: x\n"));
        assert_eq!(
            main_of("---\n---\nB"),
            "---\nname: review\ndescription: \"B\"\n---\n\nB"
        );
    }

    #[test]
    fn only_a_lone_file_is_renamed() {
        let given = BTreeMap::from([
            ("SKILL.md", "x"),
            ("more/a.md", "---\nuser_invocable: 1\n---\n"),
        ]);
        let given = given
            .into_iter()
            .map(|(path, text)| (path.to_owned(), text.to_owned()));
        let files = files("s", &given.collect());
        assert_eq!(files["more/a.md"], "---\nuser_invocable: 1\n---\n");
        assert!(files[MAIN].ends_with("\n\nx"));
    }

    proptest! {
        #[test]
        fn any_text_gets_front_matter_that_yaml_reads_and_twice_changes_nothing(
            front in prop::option::of("([a-z_]{1,8}: [a-z0-9]{0,6}\n){0,4}"),
            body in "\\PC{0,40}(\n\\PC{0,40}){0,3}",
        ) {
            // Nobody may write the same member twice.
            let keys: Vec<&str> = front.as_deref().unwrap_or_default().lines().filter_map(key).collect();
            let mut unique = keys.clone();
            unique.sort_unstable();
            unique.dedup();
            prop_assume!(unique.len() == keys.len());
            let text = match &front {
                Some(front) => format!("---\n{front}---\n{body}"),
                None => body,
            };
            let once = main_of(&text);
            prop_assert_eq!(&main_of(&once), &once);
            let (front, _) = split(&once).unwrap();
            let read: serde_json::Value = serde_norway::from_str(front).unwrap();
            prop_assert_eq!(&read["name"], "review");
            prop_assert!(read.get("description").is_some());
        }
    }
}
