//! Environment files in `.env` syntax. Pure; nothing is ever run.
//!
//! ```text
//! # a comment                      blank lines and comments are skipped
//! NAME=value                       spaces around the value are not part of it, nor is ` # a comment` behind it
//! export NAME=value                the word is allowed
//! NAME='literal $text'             as it stands, over several lines if need be
//! NAME="line\nline $OTHER"         \n \r \t \" \\ \$ \` are escapes, other backslashes stay; over several lines
//! NAME=$OTHER/${THIRD:-default}    interpolated, also in double quotes; \$ is a dollar sign
//! ```
//!
//! Interpolation knows what was set further up in the file, in files before it, by the layers' `env`, and the container's
//! own variables as far as agents get them. An unknown name is empty; `${N:-x}` is `x` when `N` is unknown or empty,
//! `${N-x}` when it is unknown. `$(command)` and backticks are plain text.
//!
//! Bounds: a value is at most what execve takes (128 KiB with its name), all values together at most
//! [`MAX_TOTAL`] bytes, so that a file which doubles a variable with every line ends in a mistake, not in memory.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use super::names;

/// Most bytes of names and values that the files of a task may come to; the kernel gives arguments and environment
/// together 2 MiB (a quarter of the default stack limit), and the rest of the environment needs its share.
pub const MAX_TOTAL: usize = 1024 * 1024;

/// Something wrong in a file, with the line it begins on (from 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineMistake {
    pub line: usize,
    /// Completes "it …".
    pub problem: String,
    pub remedy: &'static str,
}

/// `NAME=value` of a file, not interpolated yet. `Debug` does not show the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Assignment {
    pub name: String,
    pub line: usize,
    value: Vec<Piece>,
}

impl std::fmt::Debug for Assignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}=<hidden> (line {})", self.name, self.line)
    }
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable {
        name: String,
        default: Option<Default>,
    },
}

#[derive(Clone, PartialEq, Eq)]
struct Default {
    text: String,
    /// `:-`: also in place of an empty value.
    for_empty: bool,
}

/// Orders files as they are read: `.env` first, then by name.
pub fn sort_names<S: AsRef<str>>(names: &mut [S]) {
    names.sort_by(|a, b| {
        let key = |name: &S| (name.as_ref() != ".env", name.as_ref().to_owned());
        key(a).cmp(&key(b))
    });
}

/// Reads a file; what is wrong does not hide the rest.
pub fn parse(text: &str) -> (Vec<Assignment>, Vec<LineMistake>) {
    let text = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .replace("\r\n", "\n");
    let mut reader = Reader {
        rest: text.chars().peekable(),
        line: 1,
    };
    let (mut assignments, mut mistakes) = (Vec::new(), Vec::new());
    while reader.rest.peek().is_some() {
        let line = reader.line;
        match reader.statement() {
            Ok(Some((name, value))) => assignments.push(Assignment { name, line, value }),
            Ok(None) => {}
            Err((problem, remedy)) => {
                mistakes.push(LineMistake {
                    line,
                    problem,
                    remedy,
                });
                reader.skip_line();
            }
        }
    }
    (assignments, mistakes)
}

/// Interpolates in order. `known` answers for names that the file has not set itself.
pub fn evaluate(
    assignments: &[Assignment],
    known: impl Fn(&str) -> Option<String>,
) -> (BTreeMap<String, String>, Vec<LineMistake>) {
    let mut values: BTreeMap<String, String> = BTreeMap::new();
    let mut mistakes = Vec::new();
    let mut total = 0;
    for assignment in assignments {
        let mut value = String::new();
        for piece in &assignment.value {
            match piece {
                Piece::Text(text) => value.push_str(text),
                Piece::Variable { name, default } => {
                    let found = values.get(name).cloned().or_else(|| known(name));
                    match (found, default) {
                        (Some(found), Some(default)) if default.for_empty && found.is_empty() => {
                            value.push_str(&default.text)
                        }
                        (Some(found), _) => value.push_str(&found),
                        (None, Some(default)) => value.push_str(&default.text),
                        (None, None) => {}
                    }
                }
            }
            if value.len() > names::MAX_VARIABLE {
                break;
            }
        }
        if let Err(problem) = names::variable_value(&assignment.name, &value) {
            let problem = format!("sets {} to a value that {problem}", assignment.name);
            mistakes.push(LineMistake {
                line: assignment.line,
                problem,
                remedy: "put long values into a file",
            });
            continue;
        }
        total += assignment.name.len() + value.len() + 2;
        if total > MAX_TOTAL {
            let problem = "brings the file's values over 1 MiB".to_owned();
            mistakes.push(LineMistake {
                line: assignment.line,
                problem,
                remedy: "put long values into files",
            });
            break;
        }
        values.insert(assignment.name.clone(), value);
    }
    (values, mistakes)
}

/// Shell text that exports exactly these values in any POSIX shell: each in single quotes, so that sourcing it cannot
/// run anything.
pub fn to_shell<'a>(values: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in values {
        out.push_str("export ");
        out.push_str(name);
        out.push_str("='");
        out.push_str(&value.replace('\'', r"'\''"));
        out.push_str("'\n");
    }
    out
}

type Problem = (String, &'static str);

struct Reader<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next()?;
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn skip_line(&mut self) {
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
    fn statement(&mut self) -> Result<Option<(String, Vec<Piece>)>, Problem> {
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

#[cfg(test)]
mod tests;
