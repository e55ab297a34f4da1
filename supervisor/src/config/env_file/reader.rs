//! Characters to assignments.

use std::iter::Peekable;
use std::str::Chars;

use super::{Default, Piece};
use crate::config::names;

pub(super) type Problem = (String, &'static str);

pub(super) struct Reader<'a> {
    pub(super) rest: Peekable<Chars<'a>>,
    pub(super) line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    pub(super) fn skip_line(&mut self) {
        while self.next().is_some_and(|c| c != '\n') {}
    }

    fn skip_blanks(&mut self) {
        while self
            .rest
            .next_if(|c| *c != '\n' && c.is_whitespace())
            .is_some()
        {}
    }

    /// One line, or several with a quoted value, with its newline. `None`: nothing on it. After an error the reader is
    /// at most at the end of the line, never beyond.
    pub(super) fn statement(&mut self) -> Result<Option<(String, Vec<Piece>)>, Problem> {
        self.skip_blanks();
        match self.rest.peek() {
            None | Some('\n' | '#') => {
                self.skip_line();
                return Ok(None);
            }
            Some(_) => {}
        }
        let mut name = self.word();
        if name == "export" && self.rest.peek().is_some_and(|c| *c == ' ' || *c == '\t') {
            self.skip_blanks();
            name = self.word();
        }
        self.skip_blanks();
        // The text itself is never shown: a stray line may be part of a secret (a PEM block without quotes).
        if self.rest.next_if_eq(&'=').is_none() {
            return Err((
                "has no `=` after its first word".to_owned(),
                "write NAME=value, or begin a comment with #",
            ));
        }
        names::variable(&name).map_err(|problem| {
            (
                format!("has a name that {problem}"),
                "use letters, digits and _",
            )
        })?;
        let adjacent = self.rest.peek().is_some_and(|c| !c.is_whitespace());
        self.skip_blanks();
        let value = match self.rest.peek() {
            // `NAME= # comment` is empty, `NAME=#1` is not.
            Some('#') if !adjacent => {
                self.skip_line();
                return Ok(Some((name, Vec::new())));
            }
            Some('\'') => self.single_quoted()?,
            Some('"') => self.double_quoted()?,
            _ => return Ok(Some((name, self.plain()))),
        };
        self.skip_blanks();
        match self.rest.peek() {
            None | Some('\n' | '#') => {
                self.skip_line();
                Ok(Some((name, value)))
            }
            Some(_) => Err((
                "has text after the closing quote".to_owned(),
                "quote the whole value, or none of it",
            )),
        }
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| *c != '=' && !c.is_whitespace()) {
            word.push(c);
        }
        word
    }

    fn single_quoted(&mut self) -> Result<Vec<Piece>, Problem> {
        let mut ahead = self.rest.clone();
        ahead.next();
        if !ahead.any(|c| c == '\'') {
            return Err(unclosed('\''));
        }
        self.next();
        let mut text = String::new();
        while let Some(c) = self.next() {
            if c == '\'' {
                break;
            }
            text.push(c);
        }
        Ok(vec![Piece::Text(text)])
    }

    fn double_quoted(&mut self) -> Result<Vec<Piece>, Problem> {
        let mut ahead = self.rest.clone();
        ahead.next();
        if !closes(ahead) {
            return Err(unclosed('"'));
        }
        self.next();
        let mut pieces = Pieces::default();
        while let Some(c) = self.next() {
            match c {
                '"' => break,
                '\\' => match self.next() {
                    Some('n') => pieces.push('\n'),
                    Some('r') => pieces.push('\r'),
                    Some('t') => pieces.push('\t'),
                    Some(c @ ('"' | '\\' | '$' | '`')) => pieces.push(c),
                    // A line that goes on, as in a shell.
                    Some('\n') => {}
                    Some(c) => {
                        pieces.push('\\');
                        pieces.push(c);
                    }
                    None => pieces.push('\\'),
                },
                '$' => self.variable(&mut pieces),
                c => pieces.push(c),
            }
        }
        Ok(pieces.finish())
    }

    fn plain(&mut self) -> Vec<Piece> {
        let mut pieces = Pieces::default();
        let mut blanks = String::new();
        while let Some(c) = self.next() {
            if c == '\n' {
                break;
            }
            if c.is_whitespace() {
                blanks.push(c);
                continue;
            }
            if c == '#' && !blanks.is_empty() {
                self.skip_line();
                break;
            }
            // Blanks within the value stay, those behind it do not.
            blanks.drain(..).for_each(|blank| pieces.push(blank));
            match c {
                '\\' if self.rest.next_if_eq(&'$').is_some() => pieces.push('$'),
                '$' => self.variable(&mut pieces),
                c => pieces.push(c),
            }
        }
        pieces.finish()
    }

    /// What follows a dollar sign; anything that is no variable is the plain text it looks like.
    fn variable(&mut self, pieces: &mut Pieces) {
        let mut ahead = self.rest.clone();
        let braced = ahead.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(c) = ahead.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        let mut default = None;
        if braced {
            let for_empty = ahead.next_if_eq(&':').is_some();
            if ahead.next_if_eq(&'-').is_some() {
                let mut text = String::new();
                while let Some(c) = ahead.next_if(|c| *c != '}' && *c != '\n' && *c != '"') {
                    text.push(c);
                }
                default = Some(Default { text, for_empty });
            }
            if ahead.next_if_eq(&'}').is_none() || (for_empty && default.is_none()) {
                name.clear();
            }
        }
        if names::variable(&name).is_err() {
            pieces.push('$');
            return;
        }
        self.rest = ahead;
        pieces.variable(name, default);
    }
}

/// Whether a double-quoted value, entered behind its first quote, ends.
fn closes(mut ahead: Peekable<Chars<'_>>) -> bool {
    while let Some(c) = ahead.next() {
        match c {
            '"' => return true,
            '\\' => {
                ahead.next();
            }
            _ => {}
        }
    }
    false
}

fn unclosed(quote: char) -> Problem {
    (
        format!("has a {quote} that is never closed"),
        "close the quote, or escape it within double quotes",
    )
}

#[derive(std::default::Default)]
struct Pieces {
    done: Vec<Piece>,
    text: String,
}

impl Pieces {
    fn push(&mut self, c: char) {
        self.text.push(c);
    }

    fn variable(&mut self, name: String, default: Option<Default>) {
        self.flush();
        self.done.push(Piece::Variable { name, default });
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.done.push(Piece::Text(std::mem::take(&mut self.text)));
        }
    }

    fn finish(mut self) -> Vec<Piece> {
        self.flush();
        self.done
    }
}
