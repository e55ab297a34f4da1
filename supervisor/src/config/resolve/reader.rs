//! Flag over variable: single values, checked, with every mistake kept.

use std::fmt::Display;
use std::path::Path;

use super::source::{self, FileError};
use crate::config::document::nearest;
use crate::config::mistake::{Mistake, Place};
use crate::config::options::RunOptions;
use crate::config::settings::Variables;
use crate::config::variables::VARIABLES;
use crate::config::{Secret, values};

/// Largest file with a credential, in bytes.
const MAX_SECRET_FILE: u64 = 64 * 1024;

/// Texts that may hold anything, keys too, and are not needed to find the mistake.
const UNSHOWN: &[&str] = &["WHIM_AGENT_COMMAND", "WHIM_PROMPT"];

/// Collects values and mistakes.
pub(super) struct Reader<'a> {
    pub(super) options: &'a RunOptions,
    pub(super) variables: &'a Variables,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<Mistake>,
    /// Files that were named at the start may be gone by now.
    pub(super) settled: bool,
}

/// What is wrong with a value, and what to do.
pub(super) struct Problem {
    problem: String,
    remedy: String,
}

impl Problem {
    pub(super) fn new(problem: impl Display, remedy: impl Into<String>) -> Self {
        Self {
            problem: problem.to_string(),
            remedy: remedy.into(),
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(options: &'a RunOptions, variables: &'a Variables) -> Self {
        Self {
            options,
            variables,
            mistakes: Vec::new(),
            warnings: Vec::new(),
            settled: false,
        }
    }

    pub(super) fn mistake(&mut self, place: Place, given: Option<&str>, problem: Problem) {
        let mut mistake = Mistake::new(place, problem.problem, problem.remedy);
        if let Some(given) = given {
            mistake = mistake.given(given);
        }
        self.mistakes.push(mistake);
    }

    /// A variable's text; an empty one counts as unset (compose files set `X=` for what they do not know).
    pub(super) fn variable(&mut self, name: &str) -> Option<String> {
        let value = self.variables.get(name).filter(|value| !value.is_empty())?;
        match value.to_str() {
            Some(text) => Some(text.to_owned()),
            None => {
                self.mistake(
                    Place::Variable(name.to_owned()),
                    None,
                    Problem::new("is not UTF-8", "pass text"),
                );
                None
            }
        }
    }

    /// The text of a flag, else of its variable.
    pub(super) fn text(
        &mut self,
        flag: &Option<String>,
        variable: &str,
    ) -> Option<(String, Place)> {
        if let Some(text) = flag {
            let name = VARIABLES
                .iter()
                .find(|known| known.name == variable)
                .and_then(|known| known.flag);
            return Some((
                text.clone(),
                Place::Flag(name.unwrap_or(variable).to_owned()),
            ));
        }
        let text = self.variable(variable)?;
        Some((text, Place::Variable(variable.to_owned())))
    }

    /// The checked value of a flag, else of its variable.
    pub(super) fn value<T>(
        &mut self,
        flag: &Option<String>,
        variable: &str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Option<T> {
        let (text, place) = self.text(flag, variable)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let shown = (!UNSHOWN.contains(&variable)).then_some(text.as_str());
                self.mistake(place, shown, problem);
                None
            }
        }
    }

    /// A text that only has to pass a check.
    pub(super) fn checked(
        &mut self,
        flag: &Option<String>,
        variable: &str,
        check: impl Fn(&str) -> Result<(), &'static str>,
        remedy: &str,
    ) -> Option<String> {
        self.value(flag, variable, |text| {
            check(text)
                .map(|()| text.to_owned())
                .map_err(|problem| Problem::new(problem, remedy))
        })
    }

    pub(super) fn port(&mut self, flag: &Option<String>, variable: &str, default: u16) -> u16 {
        let parse = |text: &str| {
            values::port(text)
                .map_err(|problem| Problem::new(problem, "give a number from 0 to 65535"))
        };
        self.value(flag, variable, parse).unwrap_or(default)
    }

    /// Whether a credential was given, however badly.
    pub(super) fn is_given(&self, name: &str) -> bool {
        let set = |name: &str| {
            self.variables
                .get(name)
                .is_some_and(|value| !value.is_empty())
        };
        set(name) || set(&format!("{name}_FILE"))
    }

    /// A credential from its variable or the file that `<name>_FILE` names.
    pub(super) fn secret(&mut self, name: &'static str) -> Option<Secret> {
        let file_variable = format!("{name}_FILE");
        let place = Place::Variable(name.to_owned());
        let file_place = Place::Variable(file_variable.clone());
        let direct = self.variable(name);
        let file = self.variable(&file_variable);
        let (text, place) = match (direct, file) {
            (Some(_), Some(_)) => {
                self.mistake(
                    place,
                    None,
                    Problem::new(
                        format!("is set together with {file_variable}"),
                        "keep one of them",
                    ),
                );
                return None;
            }
            (Some(text), None) => (text, place),
            (None, Some(path)) => match read_secret(Path::new(&path)) {
                Ok(text) => (text, file_place),
                Err(problem) => {
                    self.mistake(file_place, Some(&path), problem);
                    return None;
                }
            },
            (None, None) => return None,
        };
        match values::token(&text) {
            Ok(()) => Some(Secret::new(text)),
            Err(problem) => {
                self.mistake(
                    place,
                    None,
                    Problem::new(
                        problem,
                        "give the bare credential, without quotes or line breaks",
                    ),
                );
                None
            }
        }
    }

    pub(super) fn switch(&mut self, variable: &str) -> bool {
        let parse = |text: &str| {
            values::switch(text).map_err(|problem| Problem::new(problem, "use 1 or 0"))
        };
        self.value(&None, variable, parse).unwrap_or(false)
    }

    /// As [`Self::switch`], `None` where it is not given.
    pub(super) fn choice(&mut self, variable: &str) -> Option<bool> {
        let parse = |text: &str| {
            values::switch(text).map_err(|problem| Problem::new(problem, "use 1 or 0"))
        };
        self.value(&None, variable, parse)
    }
}

/// One of a set of words.
pub(super) fn word<T: Copy>(
    text: &str,
    all: &[T],
    spelled: impl Fn(T) -> &'static str,
) -> Result<T, Problem> {
    if let Some(value) = all.iter().find(|value| spelled(**value) == text) {
        return Ok(*value);
    }
    let words: Vec<&str> = all.iter().map(|value| spelled(*value)).collect();
    let remedy = match nearest(text, words.iter().copied()) {
        Some(likely) => format!("did you mean {likely}?"),
        None => "use one of these words".to_owned(),
    };
    Err(Problem::new(
        format!("is none of {}", words.join(", ")),
        remedy,
    ))
}

/// The credential in a file, without its last line's end.
fn read_secret(path: &Path) -> Result<String, Problem> {
    let remedy = "name a readable file of at most 64 KiB that holds only the credential";
    let bytes = source::open_regular(path)
        .and_then(|mut file| source::read_bounded(&mut file, MAX_SECRET_FILE))
        .map_err(|error| match error {
            FileError::Io(error) => Problem::new(
                format!(
                    "names a file that cannot be read: {}",
                    source::reason(&error)
                ),
                remedy,
            ),
            FileError::NotRegular => {
                Problem::new("names something that is no regular file", remedy)
            }
            FileError::TooLarge => Problem::new("names a file larger than 64 KiB", remedy),
        })?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Problem::new("names a file that is not UTF-8", remedy))?;
    let bare = text.strip_suffix('\n').unwrap_or(&text);
    Ok(bare.strip_suffix('\r').unwrap_or(bare).to_owned())
}
