//! What is looked for: the words of a query, and what narrows it. Pure.
//!
//! A query is words, all of which must be there; `"words in quotes"` must stand side by side, and `beginning*` stands for
//! every word that begins so. Everything else is text: no word is an operator, and what is no letter or digit separates
//! words. So `src/main.rs` is found where those three words follow each other. Case and accents make no difference.
//!
//! Bounds: [`MAX_BYTES`] and [`MAX_TERMS`]; beyond them a query is refused, as is one without a letter or digit.

use jiff::Timestamp;
use whim_wire::search::Kind;

use super::when;

/// Longest query in bytes.
pub const MAX_BYTES: usize = 1000;
/// Most words and phrases: each is a walk through the index.
pub const MAX_TERMS: usize = 32;
/// Results when no limit is given.
pub const DEFAULT: usize = 20;
/// Most results: of more, the words are to be chosen better.
pub const MOST: usize = 200;

/// A mistake in what was asked: field, value, problem and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} = {given:?}: {problem}; {remedy}")]
pub struct Mistake {
    /// Name of the parameter.
    pub field: &'static str,
    /// Its value, shortened.
    pub given: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to give instead.
    pub remedy: String,
}

impl Mistake {
    fn new(field: &'static str, given: &str, problem: &str, remedy: impl Into<String>) -> Self {
        Self {
            field,
            given: given.chars().take(100).collect(),
            problem: problem.to_owned(),
            remedy: remedy.into(),
        }
    }
}

/// What is asked, as it came.
#[derive(Clone, Debug, Default)]
pub struct Asked<'a> {
    pub q: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub session: Option<&'a str>,
    pub agent: Option<&'a str>,
    pub since: Option<&'a str>,
    pub until: Option<&'a str>,
    pub limit: Option<&'a str>,
    /// `true`: in the other tasks' histories of the shared store, too.
    pub everywhere: Option<&'a str>,
}

/// A query that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub(super) terms: Vec<Term>,
    pub kind: Option<Kind>,
    pub session: Option<String>,
    pub agent: Option<String>,
    /// Milliseconds since the epoch, included.
    pub since: Option<i64>,
    /// Milliseconds since the epoch, not included.
    pub until: Option<i64>,
    pub limit: usize,
    /// In other tasks, too.
    pub everywhere: bool,
}

/// Words that stand side by side; one is a word by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    text: String,
    /// The last word may go on.
    prefix: bool,
}

impl Query {
    /// Understands what is asked. `now`: what ages count from.
    ///
    /// # Errors
    /// Every [`Mistake`] there is.
    pub fn parse(asked: &Asked<'_>, now: Timestamp) -> Result<Self, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        let terms = terms(asked.q.unwrap_or_default());
        let kind = asked.kind.map(kind).transpose();
        let name = |field, given: Option<&str>| given.map(|text| name(field, text)).transpose();
        let session = name("session", asked.session);
        let agent = name("agent", asked.agent);
        let time = |field, given: Option<&str>| {
            let parse = |text| {
                when::parse(text, now)
                    .ok_or_else(|| Mistake::new(field, text, "is no time", when::REMEDY))
            };
            given.map(parse).transpose()
        };
        let since = time("since", asked.since);
        let until = time("until", asked.until);
        let limit = asked.limit.map(limit).transpose();
        let everywhere = asked.everywhere.map(yes).transpose();
        let terms = noted(&mut mistakes, terms);
        let kind = noted(&mut mistakes, kind);
        let session = noted(&mut mistakes, session);
        let agent = noted(&mut mistakes, agent);
        let since = noted(&mut mistakes, since);
        let until = noted(&mut mistakes, until);
        let limit = noted(&mut mistakes, limit);
        let everywhere = noted(&mut mistakes, everywhere);
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            mistakes.push(Mistake::new(
                "until",
                asked.until.unwrap_or_default(),
                "is not later than `since`",
                "give a later time, or leave one of them out",
            ));
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        Ok(Self {
            terms,
            kind,
            session,
            agent,
            since,
            until,
            limit: limit.unwrap_or(DEFAULT),
            everywhere: everywhere.unwrap_or(false),
        })
    }

    /// Whether words that stand side by side are all that is asked for.
    pub(super) fn is_one_phrase(&self) -> bool {
        let words = |term: &Term| {
            let words = term.text.split(|c: char| !c.is_alphanumeric());
            words.filter(|word| !word.is_empty()).count()
        };
        matches!(self.terms.as_slice(), [term] if words(term) > 1)
    }

    /// The query in the words of FTS5: quoted strings joined by AND, a star after those that may go on.
    #[must_use]
    pub fn expression(&self) -> String {
        let mut expression = String::new();
        for term in &self.terms {
            if !expression.is_empty() {
                expression.push_str(" AND ");
            }
            expression.push('"');
            // Doubled inside quotes, as in SQL; there are none in a term, and none would do harm.
            expression.push_str(&term.text.replace('"', "\"\""));
            expression.push('"');
            if term.prefix {
                expression.push('*');
            }
        }
        expression
    }
}

/// What was understood; else a mistake more, and nothing.
fn noted<T: Default>(mistakes: &mut Vec<Mistake>, part: Result<T, Mistake>) -> T {
    part.unwrap_or_else(|mistake| {
        mistakes.push(mistake);
        T::default()
    })
}

fn terms(given: &str) -> Result<Vec<Term>, Mistake> {
    let wrong = |problem: &str, remedy: &str| Err(Mistake::new("q", given, problem, remedy));
    if given.len() > MAX_BYTES {
        return wrong(
            &format!("is longer than {MAX_BYTES} bytes"),
            "search for fewer words",
        );
    }
    let mut terms = Vec::new();
    // Every second piece stands in quotes.
    let mut pieces = given.split('"').enumerate().peekable();
    while let Some((number, piece)) = pieces.next() {
        if number % 2 == 0 {
            terms.extend(
                piece
                    .split(|c: char| c.is_whitespace() || c.is_control())
                    .filter_map(term),
            );
            continue;
        }
        let Some((_, after)) = pieces.peek() else {
            return wrong(
                "has a quotation mark that is not closed",
                "close it, or leave it out",
            );
        };
        let mut phrase = term(piece);
        if let Some(phrase) = &mut phrase {
            phrase.prefix |= after.starts_with('*');
        }
        terms.extend(phrase);
    }
    if terms.is_empty() {
        return wrong(
            "has no letter or digit to search for",
            "give words, a \"phrase\", or the beginning of a word as begin*",
        );
    }
    if terms.len() > MAX_TERMS {
        return wrong(
            &format!("has more than {MAX_TERMS} words"),
            "search for fewer words, or for a \"phrase\"",
        );
    }
    Ok(terms)
}

/// `None`: nothing in it can be found.
fn term(text: &str) -> Option<Term> {
    let prefix = text.ends_with('*');
    // FTS5 reads its expressions up to a NUL.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = text.chars().map(plain).collect();
    let text = text.trim_end_matches('*').trim();
    // `a.*` begins with nothing: only a word can go on.
    let goes_on = text.chars().next_back().is_some_and(char::is_alphanumeric);
    text.contains(char::is_alphanumeric).then(|| Term {
        text: text.to_owned(),
        prefix: prefix && goes_on,
    })
}

fn kind(given: &str) -> Result<Kind, Mistake> {
    match given {
        "conversation" => Ok(Kind::Conversation),
        "shell" => Ok(Kind::Shell),
        _ => Err(Mistake::new(
            "kind",
            given,
            "is no kind of history",
            "give conversation or shell",
        )),
    }
}

/// Ids and names of agents: whether there are such is for the store to know.
fn name(field: &'static str, given: &str) -> Result<String, Mistake> {
    let good = !given.is_empty() && given.len() <= 128 && !given.contains(char::is_control);
    if good {
        Ok(given.to_owned())
    } else {
        let remedy = match field {
            "agent" => "give claude, codex, ccr, copilot or custom",
            _ => "give a session's id, as `main`, or a terminal's, as `shell-1`",
        };
        Err(Mistake::new(field, given, "is no name", remedy))
    }
}

fn yes(given: &str) -> Result<bool, Mistake> {
    match given {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(Mistake::new(
            "everywhere",
            given,
            "is neither true nor false",
            "give true to search other tasks, too",
        )),
    }
}

fn limit(given: &str) -> Result<usize, Mistake> {
    match given.parse::<usize>() {
        Ok(limit) if limit >= 1 => Ok(limit.min(MOST)),
        _ => Err(Mistake::new(
            "limit",
            given,
            "is no number of results",
            format!("give 1 to {MOST}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(asked: &Asked<'_>) -> Result<Query, Vec<Mistake>> {
        Query::parse(asked, "2026-11-22T12:00:00Z".parse().unwrap())
    }

    fn expression(q: &str) -> Result<String, String> {
        let asked = Asked {
            q: Some(q),
            ..Asked::default()
        };
        parse(&asked)
            .map(|query| query.expression())
            .map_err(|mistakes| mistakes[0].problem.clone())
    }

    #[test]
    fn words_phrases_and_beginnings() {
        for (given, meant) in [
            ("one two", r#""one" AND "two""#),
            (r#""one two" three"#, r#""one two" AND "three""#),
            ("begin*", r#""begin"*"#),
            (r#""one two*""#, r#""one two"*"#),
            (r#""one two"*"#, r#""one two"*"#),
            ("src/main.rs", r#""src/main.rs""#),
            ("a AND NOT b", r#""a" AND "AND" AND "NOT" AND "b""#),
            ("NEAR(a b)", r#""NEAR(a" AND "b)""#),
            ("text:x ^y -z", r#""text:x" AND "^y" AND "-z""#),
            ("a.* b", r#""a." AND "b""#),
            ("*", "has no letter or digit to search for"),
            ("", "has no letter or digit to search for"),
            ("!? \"-\"", "has no letter or digit to search for"),
            ("a\0b", r#""a" AND "b""#),
            ("\"a\0b\"", r#""a b""#),
            ("say \"x", "has a quotation mark that is not closed"),
        ] {
            let found = expression(given);
            let found = found.unwrap_or_else(|problem| problem);
            assert_eq!(found, meant, "{given}");
        }
        assert!(expression(&"a ".repeat(MAX_TERMS + 1)).is_err());
        assert!(expression(&"a".repeat(MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn every_mistake_is_named_with_its_field_and_remedy() {
        let asked = Asked {
            q: None,
            kind: Some("mail"),
            session: Some(""),
            agent: Some("a\nb"),
            since: Some("soon"),
            until: Some("later"),
            limit: Some("0"),
            everywhere: Some("perhaps"),
        };
        let mistakes = parse(&asked).unwrap_err();
        let fields: Vec<&str> = mistakes.iter().map(|mistake| mistake.field).collect();
        assert_eq!(
            fields,
            [
                "q",
                "kind",
                "session",
                "agent",
                "since",
                "until",
                "limit",
                "everywhere"
            ]
        );
        assert!(mistakes.iter().all(|mistake| !mistake.remedy.is_empty()));
        let asked = Asked {
            q: Some("x"),
            since: Some("1h"),
            until: Some("2h"),
            ..Asked::default()
        };
        assert_eq!(parse(&asked).unwrap_err()[0].field, "until");
    }

    #[test]
    fn limits_are_kept() {
        let with = |limit| {
            let asked = Asked {
                q: Some("x"),
                limit: Some(limit),
                ..Asked::default()
            };
            parse(&asked).map(|query| query.limit)
        };
        assert_eq!(with("7"), Ok(7));
        assert_eq!(with("100000"), Ok(MOST));
        assert!(with("-1").is_err() && with("x").is_err());
    }

    proptest! {
        #[test]
        fn quotes_are_always_balanced(q in ".{0,80}|[a\"* ()^:-]{0,40}") {
            if let Ok(expression) = expression(&q) {
                prop_assert_eq!(expression.matches('"').count() % 2, 0);
            }
        }
    }
}
