//! A marked part of a text file.
//!
//! Between two marker lines stands what is ours; everything outside stays as it is. Without a text the part is removed
//! again. Marker lines are comments of the file's own kind, which Markdown does not show and a shell does not read. Of a
//! start without its end (someone cut the file) only the marker is dropped: losing a person's words is worse than a line
//! too many.

const START: &str = "whim:start (this part is rewritten at each start)";
const START_PREFIX: &str = "whim:start";
const END: &str = "whim:end";

/// How the file writes comments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comment {
    /// `<!-- … -->`
    Html,
    /// `# …`
    Hash,
}

/// Where our part goes in a file that has none yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// Before everything: what the person wrote later wins.
    Start,
    /// Behind everything.
    End,
}

/// The wanted text of our part; `None` removes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub text: Option<String>,
    pub comment: Comment,
    pub position: Position,
}

impl Comment {
    fn line(self, words: &str) -> String {
        match self {
            Self::Html => format!("<!-- {words} -->"),
            Self::Hash => format!("# {words}"),
        }
    }

    fn words(self, line: &str) -> Option<&str> {
        let line = line.trim();
        match self {
            Self::Html => line.strip_prefix("<!-- ")?.strip_suffix(" -->"),
            Self::Hash => line.strip_prefix("# "),
        }
    }

    fn is_start(self, line: &str) -> bool {
        self.words(line)
            .is_some_and(|words| words.starts_with(START_PREFIX))
    }

    fn is_end(self, line: &str) -> bool {
        self.words(line) == Some(END)
    }
}

impl Block {
    /// At the end of a Markdown file.
    #[must_use]
    pub fn markdown(text: Option<String>) -> Self {
        Self {
            text,
            comment: Comment::Html,
            position: Position::End,
        }
    }

    pub(super) fn apply(&self, old: &str) -> String {
        let kept = self.without_block(old);
        let Some(text) = &self.text else {
            return kept;
        };
        let mut ours = self.comment.line(START);
        ours.push('\n');
        // A marker inside the text would end the part too early at the next start.
        let marker = |line: &&str| self.comment.is_start(line) || self.comment.is_end(line);
        for line in text.trim_end().lines().filter(|line| !marker(line)) {
            ours.push_str(line);
            ours.push('\n');
        }
        ours.push_str(&self.comment.line(END));
        ours.push('\n');
        if kept.is_empty() {
            return ours;
        }
        // Always one blank line, so that removing the part takes exactly one away again.
        match self.position {
            Position::Start => format!("{ours}\n{kept}"),
            Position::End => {
                let newline = if kept.ends_with('\n') { "" } else { "\n" };
                format!("{kept}{newline}\n{ours}")
            }
        }
    }

    /// Everything outside of our part, with the blank line beside it gone.
    fn without_block(&self, old: &str) -> String {
        let lines: Vec<&str> = old.split_inclusive('\n').collect();
        let Some(start) = lines.iter().position(|line| self.comment.is_start(line)) else {
            return old.to_owned();
        };
        let end = lines
            .iter()
            .enumerate()
            .skip(start)
            .find(|(_, line)| self.comment.is_end(line))
            .map(|(at, _)| at);
        let (before, after) = match end {
            Some(end) => (lines.get(..start), lines.get(end + 1..)),
            None => (lines.get(..start), lines.get(start + 1..)),
        };
        let mut kept: String = before.unwrap_or_default().concat();
        let after: String = after.unwrap_or_default().concat();
        let mut after = after.as_str();
        if after.trim().is_empty() && kept.ends_with("\n\n") {
            kept.pop();
        } else if kept.is_empty() && self.position == Position::Start {
            after = after.strip_prefix('\n').unwrap_or(after);
        }
        kept.push_str(after);
        kept
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str, old: &str) -> String {
        Block::markdown(Some(text.into())).apply(old)
    }

    fn removed(old: &str) -> String {
        Block::markdown(None).apply(old)
    }

    #[test]
    fn a_new_file_holds_the_part_alone() {
        let new = set("# Rules\n- be kind\n", "");
        assert_eq!(
            new,
            format!("<!-- {START} -->\n# Rules\n- be kind\n<!-- {END} -->\n")
        );
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
        let cut = format!("theirs\n<!-- {START} -->\nours\nmore of theirs\n");
        let new = set("ours", &cut);
        assert!(new.contains("more of theirs"));
        assert_eq!(new.matches(START_PREFIX).count(), 1);
    }

    #[test]
    fn markers_inside_the_text_are_dropped() {
        let new = set(&format!("a\n<!-- {END} -->\nb"), "");
        assert_eq!(new.matches(END).count(), 1);
        assert_eq!(set(&format!("a\n<!-- {END} -->\nb"), &new), new);
    }

    #[test]
    fn a_part_at_the_start_comes_and_goes_without_a_trace() {
        let block = |text: Option<&str>| Block {
            text: text.map(str::to_owned),
            comment: Comment::Hash,
            position: Position::Start,
        };
        let first = block(Some("[user]")).apply("[core]\n");
        assert_eq!(first, format!("# {START}\n[user]\n# {END}\n\n[core]\n"));
        assert_eq!(block(Some("[user]")).apply(&first), first);
        assert_eq!(block(None).apply(&first), "[core]\n");
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
