use std::fmt;

use serde::ser::{Serialize, SerializeStruct as _, Serializer};

use super::document::parent;
use super::redact::printable;

/// Exit code of `whim run` when a flag or a variable is wrong (also together with a bad spec).
pub const EXIT_USAGE: u8 = 64;
/// Exit code of `whim run` when only the spec is unreadable or invalid.
pub const EXIT_SPEC: u8 = 65;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A flag or positional argument, as people write it: `--ui-port`.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A JSON pointer into the spec; empty for the spec as a whole.
    Spec(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Variable(name) => f.write_str(&printable(name)),
            Self::Spec(pointer) if pointer.is_empty() => f.write_str("spec"),
            Self::Spec(pointer) => write!(f, "spec {}", printable(pointer)),
        }
    }
}

/// One thing that is wrong, or (in a list of warnings) doubtful: where, what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    pub place: Place,
    /// The value, already fit to be printed; `None` for secrets and for what is missing.
    pub given: Option<String>,
    /// Completes "it …": `is no port`.
    pub problem: String,
    /// An imperative: `give a number from 0 to 65535`.
    pub remedy: String,
}

impl Mistake {
    pub fn new(place: Place, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            place,
            given: None,
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Whether it may follow from one of these: a member of the same object of the spec is wrong already.
    pub fn is_beside(&self, others: &[Self]) -> bool {
        let around = |mistake: &Self| match &mistake.place {
            Place::Spec(pointer) => parent(pointer).map(str::to_owned),
            Place::Flag(_) | Place::Variable(_) => None,
        };
        let own = around(self);
        own.is_some() && others.iter().any(|other| around(other) == own)
    }

    /// Adds the value, redacted and escaped. Never call it for a secret.
    #[must_use]
    pub fn given(mut self, value: &str) -> Self {
        self.given = Some(printable(value));
        self
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.place)?;
        if let Some(given) = &self.given {
            write!(f, " = \"{given}\"")?;
        }
        write!(f, ": {}; {}", self.problem, self.remedy)
    }
}

impl Serialize for Mistake {
    /// `{"pointer","value","problem","remedy"}`; for flags and variables `"name"` in place of `"pointer"`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Mistake", 4)?;
        match &self.place {
            Place::Spec(pointer) => object.serialize_field("pointer", pointer)?,
            Place::Flag(name) | Place::Variable(name) => object.serialize_field("name", name)?,
        }
        object.serialize_field("value", &self.given)?;
        object.serialize_field("problem", &self.problem)?;
        object.serialize_field("remedy", &self.remedy)?;
        object.end()
    }
}

/// All mistakes of one run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// Never empty.
    pub mistakes: Vec<Mistake>,
}

impl Invalid {
    /// 65 when nothing but the spec is wrong, else 64.
    pub fn exit_code(&self) -> u8 {
        if self
            .mistakes
            .iter()
            .all(|mistake| matches!(mistake.place, Place::Spec(_)))
        {
            EXIT_SPEC
        } else {
            EXIT_USAGE
        }
    }
}

impl fmt::Display for Invalid {
    /// One line per mistake.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, mistake) in self.mistakes.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}
