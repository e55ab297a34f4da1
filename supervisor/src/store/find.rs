//! From a query to an answer, in two steps: candidates with scores, then what is shown of the best.
//!
//! Candidates are ranked by BM25, equal ones (to a thousandth) by their time. Of more than [`CANDIDATES`] the last taken
//! in are ranked: words that stand everywhere say little, and weighing each of a hundred thousand places takes longer
//! than anybody wants to wait. The total counts all of them.
//!
//! Where all that is asked for is one phrase, the candidates come by their time alone: BM25 would count the phrase through
//! the whole index once more to weigh it against others, of which there are none.

use std::fmt::Write as _;

use rusqlite::{Connection, Row, params_from_iter};
use whim_wire::search::{Answer, Hit, Kind};
use whim_wire::time::Time;

use super::narrow::Narrowed;
use super::query::Query;
use super::snippet::{self, BEGIN, END, MORE};
use super::write::{self, OWN, number};
use super::{StoreError, query};

/// Most places that are weighed: 10 ms.
pub(super) const CANDIDATES: usize = 5_000;
/// Words of a snippet.
const WORDS: usize = 24;

/// A place that fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub(super) key: i64,
    /// Of the best: 1; higher is better.
    pub(super) score: f64,
    at: Option<i64>,
}

pub(super) fn search(connection: &Connection, query: &Query) -> Result<Answer, StoreError> {
    // One view for both steps, whatever is written meanwhile.
    let view = connection.unchecked_transaction()?;
    let (candidates, total) = candidates(connection, query)?;
    let best: Vec<Candidate> = candidates.into_iter().take(query.limit).collect();
    let results = present(connection, query, &best)?;
    view.finish()?;
    Ok(Answer {
        results,
        total,
        complete: true,
    })
}

/// What fits, best first, and how many there are in all.
pub(super) fn candidates(
    connection: &Connection,
    query: &Query,
) -> Result<(Vec<Candidate>, u64), StoreError> {
    // Where there are no others, nothing is to be told apart.
    let own = !query.everywhere && write::has_others(connection)?;
    let narrowed = Narrowed::of(connection, query, own)?;
    // The order of a cross join is kept: the words first, the rows that they are in after that.
    let from = format!(
        "FROM found CROSS JOIN documents ON documents.key = found.rowid WHERE found MATCH ?1{}",
        narrowed.conditions
    );
    // What a facet weighs is nothing.
    let weight = if query.is_one_phrase() {
        "-1.0"
    } else {
        "bm25(found, 1.0, 0.0)"
    };
    let mut statement = connection.prepare(&format!(
        "SELECT found.rowid, {weight}, documents.at {from} ORDER BY found.rowid DESC LIMIT {CANDIDATES}"
    ))?;
    let read = |row: &Row<'_>| {
        Ok(Candidate {
            key: row.get(0)?,
            // FTS5's is the better the lower it is.
            score: -row.get::<_, f64>(1)?,
            at: row.get(2)?,
        })
    };
    let found = statement.query_map(params_from_iter(narrowed.parameters()), read)?;
    let mut found: Vec<Candidate> = found.collect::<Result<_, _>>()?;
    let mut total = found.len() as u64;
    if found.len() == CANDIDATES {
        let from = if narrowed.conditions.is_empty() {
            "FROM found WHERE found MATCH ?1"
        } else {
            &from
        };
        let count: i64 = connection.query_row(
            &format!("SELECT count(*) {from}"),
            params_from_iter(narrowed.parameters()),
            |row| row.get(0),
        )?;
        total = count.unsigned_abs();
    }
    // BM25's numbers mean nothing by themselves, and are tiny for a word that stands in most rows.
    let best = found.iter().map(|candidate| candidate.score);
    let best = best.fold(f64::MIN_POSITIVE, f64::max);
    for candidate in &mut found {
        candidate.score = (candidate.score / best * 1000.0).round() / 1000.0;
    }
    found.sort_by(|a, b| {
        b.score
            .total_cmp(&a.score)
            .then_with(|| b.at.cmp(&a.at))
            .then_with(|| b.key.cmp(&a.key))
    });
    Ok((found, total))
}

/// What is shown of the candidates, in their order.
fn present(
    connection: &Connection,
    query: &Query,
    best: &[Candidate],
) -> Result<Vec<Hit>, StoreError> {
    debug_assert!(best.len() <= query::MOST, "bounded by the query");
    let mut keys = String::new();
    for candidate in best {
        let comma = if keys.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(keys, "{comma}{}", candidate.key);
    }
    let (Some(first), Some(last)) = (
        best.iter().map(|candidate| candidate.key).min(),
        best.iter().map(|candidate| candidate.key).max(),
    ) else {
        return Ok(Vec::new());
    };
    // One walk from the first to the last, however many rows: the plus keeps FTS5 from one walk for each of them.
    let mut statement = connection.prepare(&format!(
        "SELECT found.rowid, snippet(found, 0, ?2, ?3, ?4, {WORDS}), sessions.kind, sessions.id, sessions.agent,
                tasks.key, tasks.id, sources.agent_session_id, documents.at, turns.id, turns.role, turns.subagent,
                commands.directory, commands.exit, commands.duration_ms
         FROM found CROSS JOIN documents ON documents.key = found.rowid
         JOIN sources ON sources.key = documents.source
         JOIN sessions ON sessions.key = sources.session
         JOIN tasks ON tasks.key = sessions.task
         LEFT JOIN turns ON turns.key = documents.key
         LEFT JOIN commands ON commands.key = documents.key
         WHERE found MATCH ?1 AND found.rowid BETWEEN {first} AND {last} AND +found.rowid IN ({keys})"
    ))?;
    let values = [
        query.expression(),
        BEGIN.to_string(),
        END.to_string(),
        MORE.to_string(),
    ];
    let rows = statement.query_map(values, |row| Ok((row.get::<_, i64>(0)?, hit(row)?)))?;
    let mut hits: std::collections::HashMap<i64, Hit> = rows.collect::<Result<_, _>>()?;
    let shown = best.iter().filter_map(|candidate| {
        let hit = hits.remove(&candidate.key)?;
        Some(Hit {
            score: candidate.score,
            ..hit
        })
    });
    Ok(shown.collect())
}

fn hit(row: &Row<'_>) -> rusqlite::Result<Hit> {
    let (snippet, highlights) = snippet::read(&row.get::<_, String>(1)?);
    let kind = if row.get::<_, i64>(2)? == number(Kind::Shell) {
        Kind::Shell
    } else {
        Kind::Conversation
    };
    let own = row.get::<_, i64>(5)? == OWN;
    let at: Option<i64> = row.get(8)?;
    Ok(Hit {
        kind,
        session: row.get(3)?,
        task: if own { None } else { row.get(6)? },
        agent_session_id: row.get(7)?,
        agent: row.get(4)?,
        at: at
            .and_then(|at| jiff::Timestamp::from_millisecond(at).ok())
            .map(Time::from),
        role: row.get(10)?,
        turn: row.get(9)?,
        subagent: row.get(11)?,
        snippet,
        highlights,
        score: 0.0,
        exit: row.get(13)?,
        directory: row.get(12)?,
        duration_ms: row.get::<_, Option<i64>>(14)?.map(i64::unsigned_abs),
    })
}
