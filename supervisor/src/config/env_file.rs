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

mod reader;

use std::collections::BTreeMap;

use super::names;
use reader::Reader;

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

#[cfg(test)]
mod tests;
