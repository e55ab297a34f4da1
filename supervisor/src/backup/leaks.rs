//! Where in a history of git a known secret was written, from what `git log --patch` prints ([`ARGUMENTS`]). Pure.
//!
//! Looked at are messages, names of files, and what a file has after the commit: added lines and those around them. What a
//! commit takes out stands in an earlier one. A secret that is cut by the end of a line is found by its lines, see
//! `secrets::forms`.
//!
//! Within a hunk lines are counted, so no content can pass for a heading. Bounds: a heading of [`HEADING`] bytes, and
//! [`PART`] bytes of content at a time.

use std::collections::BTreeSet;

use super::mask::Masks;

/// Of `git log`, so that its output is this module's whatever the repository's configuration says. A commit begins with
/// its name and message between zero bytes, which neither can hold. Merges are shown as what they did to their first
/// parent.
pub(super) const ARGUMENTS: [&str; 21] = [
    "-c",
    "diff.suppressBlankEmpty=false",
    "-c",
    "log.showRoot=true",
    "-c",
    "core.quotePath=false",
    "log",
    "--patch",
    "--format=format:%x00%H%x00%B%x00",
    "--diff-merges=first-parent",
    "--text",
    "--unified=3",
    "--no-ext-diff",
    "--no-textconv",
    "--no-renames",
    "--no-color",
    "--no-show-signature",
    "--no-notes",
    "--no-relative",
    "--src-prefix=a/",
    "--dst-prefix=b/",
];

/// Longest line of a heading: a path has 4096 bytes, each of which may be written as four.
const HEADING: usize = 64 * 1024;
/// Content that is looked through at once.
const PART: usize = 64 * 1024;

/// A place with a secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leak {
    pub(super) commit: String,
    /// `None`: the commit's message.
    pub(super) path: Option<String>,
}

/// What was printed is not what [`ARGUMENTS`] ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("git's list of changes cannot be understood")]
pub(super) struct Unclear;

/// Where in the output it is.
#[derive(Debug)]
enum At {
    /// At the beginning of a line, or within the line that was begun.
    Heading(Vec<u8>),
    Name(Vec<u8>),
    Message,
    /// Lines that are to come of the file before and after, and whether the line is looked at: `None` at its beginning.
    Hunk(u64, u64, Option<bool>),
}

/// Looks through the output as it comes.
#[derive(Debug)]
pub(super) struct Looking<'a> {
    masks: &'a Masks,
    at: At,
    commit: String,
    path: Option<String>,
    /// Content that was not looked through yet, after as much as a secret's beginning may take.
    text: Vec<u8>,
    found: BTreeSet<Leak>,
}

impl<'a> Looking<'a> {
    pub(super) fn new(masks: &'a Masks) -> Self {
        Self {
            masks,
            at: At::Heading(Vec::new()),
            commit: String::new(),
            path: None,
            text: Vec::new(),
            found: BTreeSet::new(),
        }
    }

    /// Takes more of it.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Unclear> {
        while let Some(&first) = bytes.first() {
            match std::mem::replace(&mut self.at, At::Message) {
                At::Heading(line) if line.is_empty() && first == 0 => {
                    self.at = At::Name(Vec::new());
                    bytes = bytes.get(1..).unwrap_or_default();
                }
                At::Heading(mut line) => {
                    let (part, rest) = until(bytes, b'\n');
                    line.extend_from_slice(part);
                    if line.len() > HEADING {
                        return Err(Unclear);
                    }
                    self.at = match rest {
                        Some(_) => self.heading(&line)?,
                        None => At::Heading(line),
                    };
                    bytes = rest.unwrap_or_default();
                }
                At::Name(mut name) => {
                    let (part, rest) = until(bytes, 0);
                    name.extend_from_slice(part);
                    if name.len() > HEADING {
                        return Err(Unclear);
                    }
                    self.at = match rest {
                        Some(_) => {
                            self.commit = String::from_utf8(name).map_err(|_| Unclear)?;
                            self.path = None;
                            At::Message
                        }
                        None => At::Name(name),
                    };
                    bytes = rest.unwrap_or_default();
                }
                At::Message => {
                    let (part, rest) = until(bytes, 0);
                    self.take(part);
                    if rest.is_some() {
                        self.end();
                        self.at = At::Heading(Vec::new());
                    }
                    bytes = rest.unwrap_or_default();
                }
                At::Hunk(old, new, None) => {
                    self.at = match first {
                        b'+' => At::Hunk(old, new.checked_sub(1).ok_or(Unclear)?, Some(true)),
                        b'-' => At::Hunk(old.checked_sub(1).ok_or(Unclear)?, new, Some(false)),
                        b' ' => At::Hunk(
                            old.checked_sub(1).ok_or(Unclear)?,
                            new.checked_sub(1).ok_or(Unclear)?,
                            Some(true),
                        ),
                        // "No newline at end of file".
                        b'\\' => At::Hunk(old, new, Some(false)),
                        _ => return Err(Unclear),
                    };
                    bytes = bytes.get(1..).unwrap_or_default();
                }
                At::Hunk(old, new, Some(looked_at)) => {
                    let (part, rest) = until(bytes, b'\n');
                    if looked_at {
                        self.take(part);
                    }
                    self.at = match rest {
                        None => At::Hunk(old, new, Some(looked_at)),
                        Some(_) if (old, new) == (0, 0) => {
                            self.end();
                            At::Heading(Vec::new())
                        }
                        Some(_) => {
                            if looked_at {
                                self.take(b"\n");
                            }
                            At::Hunk(old, new, None)
                        }
                    };
                    bytes = rest.unwrap_or_default();
                }
            }
        }
        Ok(())
    }

    /// What was found, at the output's end.
    pub(super) fn finish(mut self) -> Result<BTreeSet<Leak>, Unclear> {
        self.end();
        match self.at {
            At::Heading(line) if line.is_empty() => Ok(self.found),
            _ => Err(Unclear),
        }
    }

    /// A line outside of hunks, and what comes after it.
    fn heading(&mut self, line: &[u8]) -> Result<At, Unclear> {
        if let Some(path) = line.strip_prefix(b"+++ ") {
            let path = unquoted(path).ok_or(Unclear)?;
            // Of a file that was taken out.
            self.path = (path != b"/dev/null").then(|| {
                let name = path.strip_prefix(b"b/").unwrap_or(&path);
                String::from_utf8_lossy(name).into_owned()
            });
            self.take(&path);
            self.end();
        } else if line.starts_with(b"@@ ") {
            let (old, new) = counts(line).ok_or(Unclear)?;
            if (old, new) != (0, 0) {
                return Ok(At::Hunk(old, new, None));
            }
        }
        Ok(At::Heading(Vec::new()))
    }

    fn take(&mut self, text: &[u8]) {
        for part in text.chunks(PART) {
            self.text.extend_from_slice(part);
            if self.text.len() >= PART {
                self.look();
                let kept = self.masks.longest().saturating_sub(1);
                self.text.drain(..self.text.len().saturating_sub(kept));
            }
        }
    }

    fn end(&mut self) {
        self.look();
        self.text.clear();
    }

    fn look(&mut self) {
        if self.masks.are_in(&self.text) {
            self.found.insert(Leak {
                commit: self.commit.clone(),
                path: self.path.clone(),
            });
        }
    }
}

/// What stands before the byte, and what after it; `None`: it does not come.
fn until(bytes: &[u8], end: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(end, bytes) {
        Some(at) => (
            bytes.get(..at).unwrap_or_default(),
            Some(bytes.get(at + 1..).unwrap_or_default()),
        ),
        None => (bytes, None),
    }
}

/// Lines before and after, of `@@ -1,2 +3,4 @@`; a count that is not told is one.
fn counts(line: &[u8]) -> Option<(u64, u64)> {
    let line = std::str::from_utf8(
        line.get(..line.len().min(80))?
            .split(|byte| *byte == b'@')
            .nth(2)?,
    );
    let mut ranges = line.ok()?.trim().split(' ');
    let mut count = |sign| {
        let range = ranges.next()?.strip_prefix(sign)?;
        match range.split_once(',') {
            Some((_, count)) => count.parse().ok(),
            None => Some(1),
        }
    };
    Some((count('-')?, count('+')?))
}

/// A path as git prints it: with quotes where a byte in it is written as in C, with a tab after it where it has a blank.
fn unquoted(path: &[u8]) -> Option<Vec<u8>> {
    let Some(quoted) = path.strip_prefix(b"\"") else {
        return Some(path.strip_suffix(b"\t").unwrap_or(path).to_vec());
    };
    let mut bytes = quoted.iter().copied();
    let mut plain = Vec::new();
    loop {
        match bytes.next()? {
            b'"' => return Some(plain),
            b'\\' => plain.push(match bytes.next()? {
                b'a' => 7,
                b'b' => 8,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 11,
                b'f' => 12,
                b'r' => b'\r',
                high @ b'0'..=b'3' => {
                    let mut digit = || bytes.next().filter(|byte| (b'0'..=b'7').contains(byte));
                    let (middle, low) = (digit()? - b'0', digit()? - b'0');
                    (high - b'0') * 64 + middle * 8 + low
                }
                other => other,
            }),
            other => plain.push(other),
        }
    }
}

/// Of commits with their parents, `<commit> <parent>…` a line and parents first: those that are or come after a leaking
/// one.
pub(super) fn tainted<'l>(listing: &'l str, leaking: &BTreeSet<&str>) -> BTreeSet<&'l str> {
    let mut tainted = BTreeSet::new();
    for line in listing.lines() {
        let mut names = line.split(' ');
        let Some(commit) = names.next() else { continue };
        if leaking.contains(commit) || names.any(|parent| tainted.contains(parent)) {
            tainted.insert(commit);
        }
    }
    tainted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Secret;

    fn masks() -> Masks {
        Masks::new(&[Secret::new("hunter2-hunter2".to_owned())])
    }

    fn found(output: &[u8]) -> Result<Vec<(String, Option<String>)>, Unclear> {
        let masks = masks();
        let mut looking = Looking::new(&masks);
        looking.push(output)?;
        let found = looking.finish()?.into_iter();
        Ok(found.map(|leak| (leak.commit, leak.path)).collect())
    }

    const OUTPUT: &str = "\0c2\0Message with hunter2-hunter2\n\0\n\ndiff --git a/a b/a\nindex 1..2 100644\n--- a/a\n+++ b/a\n\
        @@ -1,2 +1,2 @@ fn\n kept\n-hunter2-hunter2\n+other\n\n\0c1\0Fine\n\0\n\
        diff --git a/a b/a\n--- /dev/null\n+++ b/a b\t\n@@ -0,0 +1,3 @@\n+++ b/other\n+@@ -1 +1 @@\n+x hunter2-hunter2 y\n\
        \\ No newline at end of file\ndiff --git \"a/\\303\\251\\\"\" \"b/\\303\\251\\\"\"\n--- /dev/null\n+++ \"b/\\303\\251\\\"\"\n\
        @@ -0,0 +1 @@\n+hunter2-hunter2\n";

    #[test]
    fn messages_and_what_was_added_are_looked_at() {
        let path = |path: &str| Some(path.to_owned());
        assert_eq!(
            found(OUTPUT.as_bytes()).unwrap(),
            [
                ("c1".to_owned(), path("a b")),
                ("c1".to_owned(), path("é\"")),
                ("c2".to_owned(), None),
            ]
        );
        assert_eq!(found(b"").unwrap(), []);
    }

    #[test]
    fn names_of_files_are_looked_at() {
        let output = b"\0c\0m\0\ndiff --git a/x b/x\n--- /dev/null\n+++ b/hunter2-hunter2.txt\n@@ -0,0 +1 @@\n+x\n";
        assert_eq!(found(output).unwrap().len(), 1);
    }

    #[test]
    fn what_is_cut_or_no_such_output_is_not_taken_for_clean() {
        for output in [
            &b"\0c1"[..],
            b"\0c1\0mess",
            b"\0c\0m\0\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-x\n",
            b"\0c\0m\0\n+++ b/x\n@@ -1 +1 @@\n?x\n",
            b"\0c\0m\0\n+++ b/x\n@@ -x +1 @@\n+x\n",
        ] {
            assert_eq!(found(output), Err(Unclear), "{output:?}");
        }
    }

    #[test]
    fn a_long_line_hides_nothing_where_it_is_cut() {
        let line = format!(
            "{}hunter2-hunter2{}",
            "x".repeat(PART - 5),
            "y".repeat(PART)
        );
        let output = format!("\0c\0m\0\n+++ b/x\n@@ -0,0 +1 @@\n+{line}\n");
        assert_eq!(found(output.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn what_comes_after_a_leak_is_tainted() {
        let listing = "a\nb a\nc a\nd b c\ne c\n";
        let tainted = tainted(listing, &BTreeSet::from(["b"]));
        assert_eq!(tainted.into_iter().collect::<Vec<_>>(), ["b", "d"]);
    }

    proptest! {
        #[test]
        fn parts_make_no_difference(cuts in proptest::collection::vec(0..OUTPUT.len(), 0..9)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            let masks = masks();
            let mut looking = Looking::new(&masks);
            let mut from = 0;
            for cut in cuts.into_iter().chain([OUTPUT.len()]) {
                looking.push(&OUTPUT.as_bytes()[from..cut]).unwrap();
                from = cut;
            }
            prop_assert_eq!(looking.finish().unwrap().len(), 3);
        }

        #[test]
        fn any_bytes_are_handled(output in "[\0\n+@ 01,-]{0,60}") {
            found(output.as_bytes()).ok();
        }
    }
}
