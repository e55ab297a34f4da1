//! What narrows a query, put into the index itself: each text stands there with a few words more, its facets (task, kind,
//! session, day), in a column of their own. So a search of one session walks that session's rows, not every row that the
//! words stand in.
//!
//! Facets are joined by OR up to [`MOST`]; what is wider than that, and the milliseconds of a time, are conditions on the
//! rows that were found: most of these fit then, or only a day's are looked at.

use std::fmt::Write as _;

use rusqlite::types::Value;
use rusqlite::{Connection, ToSql, params_from_iter};

use super::StoreError;
use super::query::Query;
use super::schema::MARK;
use super::write::{OWN, number};

/// Most sessions, and most days, that are asked for as facets: each is one more list to walk along.
const MOST: usize = 32;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The day that a time lies in.
pub(super) fn day(at: i64) -> i64 {
    at.div_euclid(DAY_MS)
}

/// The facets of a row, as one text.
pub(super) fn facets(task: i64, kind: i64, session: i64, at: Option<i64>) -> String {
    let mut text = format!(
        "{} {} {}",
        of_task(task),
        of_kind(kind),
        of_session(session)
    );
    if let Some(at) = at {
        // Writing to a String cannot fail.
        let _ = write!(text, " {}", of_day(day(at)));
    }
    text
}

fn of_task(key: i64) -> String {
    format!("{MARK}t{key}")
}

fn of_kind(kind: i64) -> String {
    format!("{MARK}k{kind}")
}

fn of_session(key: i64) -> String {
    format!("{MARK}s{key}")
}

/// Days before 1970 have a letter more: a sign would part the word.
fn of_day(day: i64) -> String {
    let before = if day < 0 { "b" } else { "" };
    format!("{MARK}d{before}{}", day.unsigned_abs())
}

/// A query with what narrows it.
#[derive(Debug)]
pub(super) struct Narrowed {
    /// For FTS5.
    expression: String,
    /// Conditions on `documents`, each with `AND` before it; `?1` is the expression.
    pub(super) conditions: String,
    /// The parameters' values from `?2` on.
    values: Vec<Value>,
}

impl Narrowed {
    /// `own`: only this container's task.
    pub(super) fn of(
        connection: &Connection,
        query: &Query,
        own: bool,
    ) -> Result<Self, StoreError> {
        let mut narrowed = Self {
            expression: query.expression(),
            conditions: String::new(),
            values: Vec::new(),
        };
        if own {
            narrowed.facet([of_task(OWN)]);
        }
        if let Some(kind) = query.kind {
            narrowed.facet([of_kind(number(kind))]);
        }
        narrowed.sessions(connection, query, own)?;
        narrowed.times(connection, query)?;
        Ok(narrowed)
    }

    /// The values of all parameters, in their order.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &dyn ToSql> {
        let first: &dyn ToSql = &self.expression;
        std::iter::once(first).chain(self.values.iter().map(|value| value as &dyn ToSql))
    }

    fn sessions(
        &mut self,
        connection: &Connection,
        query: &Query,
        own: bool,
    ) -> Result<(), StoreError> {
        let asked: Vec<(&str, &String)> = [("id", &query.session), ("agent", &query.agent)]
            .into_iter()
            .filter_map(|(column, value)| Some((column, value.as_ref()?)))
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        // The values' numbers differ between the query of their own and the large one.
        let keys = |first: usize| {
            let mut wanted: Vec<String> = (first..)
                .zip(&asked)
                .map(|(number, (column, _))| format!("{column} = ?{number}"))
                .collect();
            if own {
                wanted.push(format!("task = {OWN}"));
            }
            format!("SELECT key FROM sessions WHERE {}", wanted.join(" AND "))
        };
        let values = || asked.iter().map(|(_, value)| Value::from((*value).clone()));
        let few = format!("{} LIMIT {}", keys(1), MOST + 1);
        let mut statement = connection.prepare(&few)?;
        let found = statement.query_map(params_from_iter(values()), |row| row.get(0))?;
        let found: Vec<i64> = found.collect::<Result<_, _>>()?;
        if found.len() <= MOST {
            self.facet(found.into_iter().map(of_session));
            return Ok(());
        }
        let keys = keys(self.next_number());
        self.values.extend(values());
        self.and(&format!("documents.session IN ({keys})"));
        Ok(())
    }

    fn times(&mut self, connection: &Connection, query: &Query) -> Result<(), StoreError> {
        if query.since.is_none() && query.until.is_none() {
            return Ok(());
        }
        let first = query.since.map_or(i64::MIN, day);
        // The point itself is not asked for: at midnight its day is not.
        let last = query
            .until
            .map_or(i64::MAX, |until| day(until.saturating_sub(1)));
        // Of those that there are: a range without an end has few.
        let mut statement = connection.prepare(&format!(
            "SELECT day FROM days WHERE day BETWEEN ?1 AND ?2 LIMIT {}",
            MOST + 1
        ))?;
        let days = statement.query_map([first, last], |row| row.get(0))?;
        let days: Vec<i64> = days.collect::<Result<_, _>>()?;
        let few = days.len() <= MOST;
        let whole = |day: &i64| {
            let begin = day.saturating_mul(DAY_MS);
            query.since.is_none_or(|since| since <= begin)
                && query
                    .until
                    .is_none_or(|until| begin.saturating_add(DAY_MS) <= until)
        };
        let all_whole = few && days.iter().all(whole);
        if few {
            self.facet(days.into_iter().map(of_day));
        }
        // A day that is asked for from its beginning to its end needs no look at its rows.
        if all_whole {
            return Ok(());
        }
        if let Some(since) = query.since {
            let since = self.bind(since.into());
            self.and(&format!("documents.at >= ?{since}"));
        }
        if let Some(until) = query.until {
            let until = self.bind(until.into());
            self.and(&format!("documents.at < ?{until}"));
        }
        Ok(())
    }

    /// One of these; of none, nothing fits.
    fn facet(&mut self, any: impl IntoIterator<Item = String>) {
        let any: Vec<String> = any.into_iter().collect();
        let any = if any.is_empty() {
            // No row has it.
            format!("\"{MARK}\"")
        } else {
            any.iter()
                .map(|facet| format!("\"{facet}\""))
                .collect::<Vec<_>>()
                .join(" OR ")
        };
        // Writing to a String cannot fail.
        let _ = write!(self.expression, " AND ({any})");
    }

    /// The number of the value's parameter.
    fn bind(&mut self, value: Value) -> usize {
        let number = self.next_number();
        self.values.push(value);
        number
    }

    /// The number of the next value's parameter; the first is the expression's.
    const fn next_number(&self) -> usize {
        self.values.len() + 2
    }

    fn and(&mut self, condition: &str) {
        self.conditions.push_str(" AND ");
        self.conditions.push_str(condition);
    }
}

#[cfg(test)]
mod tests {
    use whim_wire::search::Kind;

    use super::*;

    #[test]
    fn facets_are_words_and_days_have_one_each() {
        let noon = DAY_MS / 2;
        let plain = |facets: String| facets.replace(MARK, "");
        assert_eq!(plain(facets(1, number(Kind::Shell), 7, None)), "t1 k1 s7");
        assert_eq!(plain(facets(2, 0, 7, Some(noon))), "t2 k0 s7 d0");
        let before = facets(2, 0, 7, Some(noon - DAY_MS));
        assert_eq!(before.matches(MARK).count(), 4);
        assert_eq!(plain(before), "t2 k0 s7 db1");
        assert_eq!(day(DAY_MS - 1) + 1, day(DAY_MS));
    }
}
