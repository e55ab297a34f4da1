//! A marked part of a text file.
//!
//! Between two marker lines stands what is ours; everything outside stays as it is. Without a text the part is removed
//! again. Marker lines are HTML comments, which Markdown does not show. Of a start without its end (someone cut the
//! file) only the marker is dropped: losing a person's words is worse than a line too many.

const START: &str = "<!-- whim:start (this part is rewritten at each start) -->";
const START_PREFIX: &str = "<!-- whim:start";
const END: &str = "<!-- whim:end -->";

/// The wanted text of our part; `None` removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub text: Option<String>,
}

impl Block {
    pub(super) fn apply(&self, old: &str) -> String {
        let kept = without_block(old);
        let Some(text) = &self.text else {
            return kept;
        };
        let mut new = kept;
        if !new.is_empty() {
            if !new.ends_with('\n') {
                new.push('\n');
            }
            // Always one, so that removing the part takes exactly one away again.
            new.push('\n');
        }
        new.push_str(START);
        new.push('\n');
        // A marker inside the text would end the part too early at the next start.
        for line in text.trim_end().lines().filter(|line| !is_marker(line)) {
            new.push_str(line);
            new.push('\n');
        }
        new.push_str(END);
        new.push('\n');
        new
    }
}

fn is_marker(line: &str) -> bool {
    let line = line.trim();
    line.starts_with(START_PREFIX) || line == END
}

/// Everything outside of our part, with the blank line before it gone.
fn without_block(old: &str) -> String {
    let lines: Vec<&str> = old.split_inclusive('\n').collect();
    let start = lines
        .iter()
        .position(|line| line.trim().starts_with(START_PREFIX));
    let Some(start) = start else {
        return old.to_owned();
    };
    let end = lines
        .iter()
        .enumerate()
        .skip(start)
        .find(|(_, line)| line.trim() == END)
        .map(|(at, _)| at);
    let (before, after) = match end {
        Some(end) => (lines.get(..start), lines.get(end + 1..)),
        None => (lines.get(..start), lines.get(start + 1..)),
    };
    let mut kept: String = before.unwrap_or_default().concat();
    let after: String = after.unwrap_or_default().concat();
    if after.trim().is_empty() && kept.ends_with("\n\n") {
        kept.pop();
    }
    kept.push_str(&after);
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str, old: &str) -> String {
        Block {
            text: Some(text.into()),
        }
        .apply(old)
    }

    fn removed(old: &str) -> String {
        Block { text: None }.apply(old)
    }

    #[test]
    fn a_new_file_holds_the_part_alone() {
        let new = set("# Rules\n- be kind\n", "");
        assert_eq!(new, format!("{START}\n# Rules\n- be kind\n{END}\n"));
    }

    #[test]
    fn the_persons_text_stays_on_both_sides() {
        let first = set("ours", "theirs");
        assert!(first.starts_with("theirs\n\n"));
        let grown = format!("{first}\nadded later\n");
        let second = set("ours, newer", &grown);
        assert!(second.contains("theirs") && second.contains("added later"));
        assert!(second.contains("ours, newer") && !second.contains("ours\n"));
        assert_eq!(second.matches(START_PREFIX).count(), 1);
    }

    #[test]
    fn removing_restores_the_old_text() {
        assert_eq!(removed(&set("ours", "theirs\n")), "theirs\n");
        assert_eq!(removed("theirs"), "theirs");
    }

    #[test]
    fn a_lost_end_marker_loses_no_words() {
        let cut = format!("theirs\n{START}\nours\nmore of theirs\n");
        let new = set("ours", &cut);
        assert!(new.contains("more of theirs"));
        assert_eq!(new.matches(START_PREFIX).count(), 1);
    }

    #[test]
    fn markers_inside_the_text_are_dropped() {
        let new = set(&format!("a\n{END}\nb"), "");
        assert_eq!(new.matches(END).count(), 1);
        assert_eq!(set(&format!("a\n{END}\nb"), &new), new);
    }

    proptest! {
        #[test]
        fn twice_is_once(old in "[a-z\n <>!-]{0,60}", text in "[a-z\n]{0,40}") {
            let once = set(&text, &old);
            prop_assert_eq!(set(&text, &once), once);
        }

        #[test]
        fn other_lines_survive(old in "([a-z]{1,8}\n){0,8}", text in "[A-Z\n]{0,40}") {
            let new = set(&text, &old);
            for line in old.lines() {
                prop_assert!(new.lines().any(|other| other == line));
            }
            prop_assert_eq!(removed(&new), old);
        }
    }
}
