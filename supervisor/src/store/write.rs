//! Taking rows in, each with how far its source was read.

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use whim_wire::search::Kind;
use whim_wire::time::Time;

use super::{StoreError, narrow};

/// Key of this container's task.
pub(super) const OWN: i64 = 1;

/// A task, as people know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Empty: this container's, which nobody named.
    pub id: String,
    pub title: Option<String>,
    pub workspace: Option<String>,
    pub branch: Option<String>,
}

/// Where rows come from: one file that is read from its beginning on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Id of the task; none: this container's.
    pub task: Option<String>,
    pub kind: Kind,
    /// Id of the session, or of the terminal.
    pub session: String,
    /// Kind of the agent.
    pub agent: Option<String>,
    /// What the agent calls the session.
    pub agent_session_id: Option<String>,
    /// Tells the sources of a session apart: the transcript's or the file's name.
    pub name: String,
}

/// Rows of one source.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    pub origin: Origin,
    /// The cursor that the rows follow; must be the source's present one.
    pub after: Option<String>,
    /// The source was rewritten: what was taken from it before is void. Then `after` does not matter.
    pub anew: bool,
    pub documents: Vec<Document>,
    /// How far the source is read with them.
    pub cursor: Option<String>,
    /// Further sources of the session that these rows name; they are remembered and not read yet.
    pub names: Vec<String>,
}

/// A row.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Where its record stands in the source: each place is taken once.
    pub place: u64,
    pub at: Option<Time>,
    pub text: String,
    pub what: What,
}

/// What a row is.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Turn {
        id: String,
        role: String,
        subagent: Option<String>,
    },
    Command {
        directory: String,
        exit: i32,
        duration_ms: Option<u64>,
    },
}

/// As the tables have it.
pub(super) fn number(kind: Kind) -> i64 {
    match kind {
        Kind::Conversation => 0,
        Kind::Shell => 1,
    }
}

pub(super) fn count(connection: &Connection) -> Result<u64, StoreError> {
    let count = "SELECT count(*) FROM documents";
    let count: i64 = connection.query_row(count, [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

/// Whether any text has this in it, letter by letter.
pub(super) fn contains(connection: &Connection, wanted: &str) -> Result<bool, StoreError> {
    let look = "SELECT EXISTS (SELECT 1 FROM texts WHERE instr(text, ?1) > 0)
                    OR EXISTS (SELECT 1 FROM commands WHERE instr(directory, ?1) > 0)";
    Ok(connection.query_row(look, [wanted], |row| row.get(0))?)
}

pub(super) fn describe(connection: &Connection, task: &Task) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO tasks (key, id, title, workspace, branch) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (key) DO UPDATE SET id = ?2, title = ?3, workspace = ?4, branch = ?5",
        params![OWN, task.id, task.title, task.workspace, task.branch],
    )?;
    Ok(())
}

const OF_SESSION: &str = "
    FROM sources JOIN sessions ON sessions.key = sources.session JOIN tasks ON tasks.key = sessions.task
    WHERE (?1 IS NULL AND tasks.key = 1 OR tasks.id = ?1) AND sessions.kind = ?2 AND sessions.id = ?3";

pub(super) fn cursor(
    connection: &Connection,
    origin: &Origin,
) -> Result<Option<String>, StoreError> {
    let found = connection
        .query_row(
            &format!("SELECT sources.cursor {OF_SESSION} AND sources.name = ?4"),
            params![
                origin.task,
                number(origin.kind),
                origin.session,
                origin.name
            ],
            |row| row.get::<_, Option<String>>(0),
        )
        .optional()?;
    Ok(found.flatten())
}

pub(super) fn sources(connection: &Connection, origin: &Origin) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare(&format!(
        "SELECT sources.name {OF_SESSION} ORDER BY sources.key"
    ))?;
    let names = statement.query_map(
        params![origin.task, number(origin.kind), origin.session],
        |row| row.get(0),
    )?;
    Ok(names.collect::<Result<_, _>>()?)
}

pub(super) fn append(connection: &mut Connection, batch: &Batch) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    let session = session(&transaction, &batch.origin)?;
    let source = source(&transaction, session, &batch.origin, &batch.origin.name)?;
    let present: Option<String> = transaction.query_row(
        "SELECT cursor FROM sources WHERE key = ?1",
        [source],
        |row| row.get(0),
    )?;
    if batch.anew {
        forget(&transaction, source)?;
    } else if present != batch.after {
        return Err(StoreError::Elsewhere(batch.origin.name.clone()));
    }
    rows(&transaction, source, session, &batch.documents)?;
    transaction.execute(
        "UPDATE sources SET cursor = ?2 WHERE key = ?1",
        params![source, batch.cursor],
    )?;
    for name in &batch.names {
        self::source(&transaction, session, &batch.origin, name)?;
    }
    transaction.commit()?;
    Ok(())
}

fn session(transaction: &Transaction<'_>, origin: &Origin) -> Result<i64, StoreError> {
    let task = match &origin.task {
        None => {
            transaction.execute(
                "INSERT INTO tasks (key, id) VALUES (?1, '') ON CONFLICT DO NOTHING",
                [OWN],
            )?;
            OWN
        }
        Some(id) => transaction.query_row(
            "INSERT INTO tasks (id) VALUES (?1) ON CONFLICT (id) DO UPDATE SET id = id RETURNING key",
            [id],
            |row| row.get(0),
        )?,
    };
    Ok(transaction.query_row(
        "INSERT INTO sessions (task, kind, id, agent) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (task, kind, id) DO UPDATE SET agent = excluded.agent RETURNING key",
        params![task, number(origin.kind), origin.session, origin.agent],
        |row| row.get(0),
    )?)
}

fn source(
    transaction: &Transaction<'_>,
    session: i64,
    origin: &Origin,
    name: &str,
) -> Result<i64, StoreError> {
    Ok(transaction.query_row(
        "INSERT INTO sources (session, name, agent_session_id) VALUES (?1, ?2, ?3)
         ON CONFLICT (session, name) DO UPDATE SET agent_session_id = excluded.agent_session_id RETURNING key",
        params![session, name, origin.agent_session_id],
        |row| row.get(0),
    )?)
}

fn rows(
    transaction: &Transaction<'_>,
    source: i64,
    session: i64,
    documents: &[Document],
) -> Result<(), StoreError> {
    let (task, kind): (i64, i64) = transaction.query_row(
        "SELECT task, kind FROM sessions WHERE key = ?1",
        [session],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let mut document = transaction.prepare(
        "INSERT INTO documents (source, place, session, at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING",
    )?;
    let mut text =
        transaction.prepare("INSERT INTO texts (key, text, facets) VALUES (?1, ?2, ?3)")?;
    let mut found =
        transaction.prepare("INSERT INTO found (rowid, text, facets) VALUES (?1, ?2, ?3)")?;
    let mut day =
        transaction.prepare("INSERT INTO days (day) VALUES (?1) ON CONFLICT DO NOTHING")?;
    let mut turn = transaction
        .prepare("INSERT INTO turns (key, id, role, subagent) VALUES (?1, ?2, ?3, ?4)")?;
    let mut command = transaction.prepare(
        "INSERT INTO commands (key, directory, exit, duration_ms) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for row in documents {
        let at = row.at.map(Time::as_millisecond);
        if document.execute(params![source, signed(row.place), session, at])? == 0 {
            continue;
        }
        let key = transaction.last_insert_rowid();
        let facets = narrow::facets(task, kind, session, at);
        text.execute(params![key, row.text, facets])?;
        found.execute(params![key, row.text, facets])?;
        if let Some(at) = at {
            day.execute([narrow::day(at)])?;
        }
        match &row.what {
            What::Turn { id, role, subagent } => {
                turn.execute(params![key, id, role, subagent])?;
            }
            What::Command {
                directory,
                exit,
                duration_ms,
            } => {
                command.execute(params![key, directory, exit, duration_ms.map(signed)])?;
            }
        }
    }
    Ok(())
}

/// Whether there is anything of other tasks.
pub(super) fn has_others(connection: &Connection) -> Result<bool, StoreError> {
    let look = "SELECT EXISTS (SELECT 1 FROM tasks WHERE key <> ?1)";
    Ok(connection.query_row(look, [OWN], |row| row.get(0))?)
}

/// Ids of the other tasks of which something is there.
pub(super) fn others(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare("SELECT id FROM tasks WHERE key <> ?1 ORDER BY id")?;
    let ids = statement.query_map([OWN], |row| row.get(0))?;
    Ok(ids.collect::<Result<_, _>>()?)
}

/// Takes all rows of another task away.
pub(super) fn forget_task(connection: &mut Connection, id: &str) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    let sources: Vec<i64> = {
        let mut statement = transaction.prepare(
            "SELECT sources.key FROM sources JOIN sessions ON sessions.key = sources.session
             JOIN tasks ON tasks.key = sessions.task WHERE tasks.id = ?1 AND tasks.key <> ?2",
        )?;
        let keys = statement.query_map(params![id, OWN], |row| row.get(0))?;
        keys.collect::<Result<_, _>>()?
    };
    for source in sources {
        forget(&transaction, source)?;
        transaction.execute("DELETE FROM sources WHERE key = ?1", [source])?;
    }
    transaction.execute(
        "DELETE FROM sessions WHERE task IN (SELECT key FROM tasks WHERE id = ?1 AND key <> ?2)",
        params![id, OWN],
    )?;
    transaction.execute(
        "DELETE FROM tasks WHERE id = ?1 AND key <> ?2",
        params![id, OWN],
    )?;
    transaction.commit()?;
    Ok(())
}

/// Bytes of the file.
pub(super) fn bytes(connection: &Connection) -> Result<u64, StoreError> {
    let size = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size";
    let size: i64 = connection.query_row(size, [], |row| row.get(0))?;
    Ok(size.unsigned_abs())
}

/// Takes all rows of a source away. The index has no texts of its own, so it is told which words go.
fn forget(transaction: &Transaction<'_>, source: i64) -> Result<(), StoreError> {
    for statement in [
        "INSERT INTO found (found, rowid, text, facets)
         SELECT 'delete', texts.key, texts.text, texts.facets FROM texts JOIN documents USING (key) WHERE source = ?1",
        "DELETE FROM texts WHERE key IN (SELECT key FROM documents WHERE source = ?1)",
        "DELETE FROM turns WHERE key IN (SELECT key FROM documents WHERE source = ?1)",
        "DELETE FROM commands WHERE key IN (SELECT key FROM documents WHERE source = ?1)",
        "DELETE FROM documents WHERE source = ?1",
    ] {
        transaction.execute(statement, [source])?;
    }
    Ok(())
}

/// SQLite has signed numbers only; no file is that long, and no command ran that long.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
