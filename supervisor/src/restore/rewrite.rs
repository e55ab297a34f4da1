//! What a session's files say about where it lives, said anew. Pure, and by the piece.
//!
//! Codex (0.169.0) and Copilot (1.0.102) resume in the directory that their session recorded, or ask about it, whatever
//! directory they are started in. So in a root with another checkout its path is replaced, in the agent's own records of
//! its session only: what was said stays as it was said. A copied session's id is replaced there, too.
//!
//! Bound: a line longer than [`MAX_LINE`] passes as it is; the agents' own records are far shorter.

use crate::conversation::lines::MAX_LINE;

/// How far into a line its type stands.
const HEAD: usize = 512;

/// What is replaced, and in which lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// What stands there, and what takes its place.
    pub pairs: Vec<(String, String)>,
    /// Only in lines that hold one of these near their beginning; empty: in all.
    pub only: &'static [&'static str],
}

/// One file that is being rewritten.
#[derive(Debug)]
pub struct Rewriter<'a> {
    rewrite: &'a Rewrite,
    pending: Vec<u8>,
    /// In a line that is too long.
    passing: bool,
}

impl<'a> Rewriter<'a> {
    #[must_use]
    pub fn new(rewrite: &'a Rewrite) -> Self {
        Self {
            rewrite,
            pending: Vec::new(),
            passing: false,
        }
    }

    /// Takes a piece in; what is done so far comes out.
    pub fn feed(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(piece.len());
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let ends = part.ends_with(b"\n");
            if self.passing {
                out.extend_from_slice(part);
            } else {
                self.pending.extend_from_slice(part);
                if self.pending.len() > MAX_LINE {
                    out.append(&mut self.pending);
                    self.passing = true;
                } else if ends {
                    self.line(&mut out);
                }
            }
            self.passing &= !ends;
        }
        out
    }

    /// The last line, where no line end follows.
    pub fn end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.line(&mut out);
        out
    }

    fn line(&mut self, out: &mut Vec<u8>) {
        let line = std::mem::take(&mut self.pending);
        let head = line.get(..HEAD).unwrap_or(&line);
        let holds = |word: &&str| memchr::memmem::find(head, word.as_bytes()).is_some();
        if !self.rewrite.only.is_empty() && !self.rewrite.only.iter().any(holds) {
            out.extend_from_slice(&line);
            return;
        }
        let pairs = self.rewrite.pairs.iter();
        out.extend(pairs.fold(line, |line, (old, new)| replaced(&line, old, new)));
    }
}

fn replaced(line: &[u8], old: &str, new: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = memchr::memmem::find(rest, old.as_bytes()).filter(|_| !old.is_empty()) {
        let (before, after) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(new.as_bytes());
        rest = after.get(old.len()..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewrite() -> Rewrite {
        Rewrite {
            pairs: vec![("\"/old\"".into(), "\"/new\"".into())],
            only: &["\"type\":\"session_meta\""],
        }
    }

    #[test]
    fn only_the_agents_own_records_are_rewritten() {
        let rewrite = rewrite();
        let mut rewriter = Rewriter::new(&rewrite);
        let text = "{\"type\":\"session_meta\",\"cwd\":\"/old\"}\n{\"type\":\"said\",\"text\":\"\\\"/old\\\"\",\"x\":\"/old\"}\n";
        let mut out = rewriter.feed(text.as_bytes());
        out.extend(rewriter.feed(b"{\"type\":\"session_meta\",\"cwd\":\"/old\"}"));
        out.extend(rewriter.end());
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"type\":\"session_meta\",\"cwd\":\"/new\"}\n{\"type\":\"said\",\"text\":\"\\\"/old\\\"\",\"x\":\"/old\"}\n\
             {\"type\":\"session_meta\",\"cwd\":\"/new\"}"
        );
    }

    #[test]
    fn a_line_without_end_passes_in_bounded_memory() {
        let rewrite = rewrite();
        let mut rewriter = Rewriter::new(&rewrite);
        let piece = vec![b'x'; 1024 * 1024];
        let mut bytes = 0;
        for _ in 0..20 {
            bytes += rewriter.feed(&piece).len();
            assert!(rewriter.pending.len() <= MAX_LINE);
        }
        bytes += rewriter.feed(b"\n").len();
        let own = rewriter.feed(b"{\"type\":\"session_meta\",\"cwd\":\"/old\"}\n");
        assert!(String::from_utf8(own).unwrap().contains("/new"));
        assert_eq!(bytes, 20 * 1024 * 1024 + 1);
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(lines in prop::collection::vec("[a-z\"/:]{0,20}|\"/old\"", 0..20), cuts in prop::collection::vec(0..400_usize, 0..8)) {
            let rewrite = Rewrite { only: &[], ..rewrite() };
            let text = lines.join("\n").into_bytes();
            let mut whole = Rewriter::new(&rewrite);
            let mut expected = whole.feed(&text);
            expected.extend(whole.end());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let mut cut = Rewriter::new(&rewrite);
            let mut out: Vec<u8> = cuts.windows(2).flat_map(|pair| cut.feed(&text[pair[0]..pair[1]])).collect();
            out.extend(cut.end());
            prop_assert_eq!(out, expected);
        }
    }
}
