//! The store's file: its tables, and what is done with a file that is not as it should be.
//!
//! Everything in it is made from transcripts and histories, so nothing is ever repaired or carried over: a file that is
//! damaged or of a later version is set aside (`store.db.aside`, the last one only), one of an earlier version removed,
//! and a new one begun.
//!
//! - `documents` is narrow, so that filters walk few pages; `texts` holds the words. FTS5 has the texts as external
//!   content: one copy of each, which snippets need. Beside the text it has the row's facets (`super::narrow`), and lists
//!   of its own for beginnings of two and three letters, which would be made of thousands of words' lists otherwise.
//! - `days`: which days there are rows of; one more than there are does no harm.
//! - `sources` remembers how far each file was read. It is written in the transaction that writes the rows, so a crash
//!   neither loses nor doubles any.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::StoreError;

/// "whim" in ASCII: tells our files from others' (<https://sqlite.org/pragma.html#pragma_application_id>).
const APPLICATION: i32 = 0x7768_696d;
/// Raised whenever the tables or what is put into them changes.
pub(super) const VERSION: i32 = 2;
/// Largest file, in pages of 4 KiB: 4 GiB. Beyond it nothing is taken in any more.
const MAX_PAGES: u32 = 1 << 20;
/// Nobody else opens the file; a person's `sqlite3` may.
const BUSY: Duration = Duration::from_secs(2);

/// Pages in memory while rows are taken in, in KiB: each is written once.
pub(super) const SMALL: &str = "PRAGMA cache_size = -2048; PRAGMA shrink_memory;";
/// While something is searched: the same pages are looked at again and again. Until the next rows come.
pub(super) const LARGE: &str = "PRAGMA cache_size = -16384;";

/// Begins a facet, and never a word: texts have no control characters. So words are looked for without saying where,
/// which would cost a third more.
pub(super) const MARK: char = '\u{1f}';

const TABLES: &str = "
    CREATE TABLE tasks (
        key INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, title TEXT, workspace TEXT, branch TEXT);
    CREATE TABLE sessions (
        key INTEGER PRIMARY KEY, task INTEGER NOT NULL REFERENCES tasks, kind INTEGER NOT NULL, id TEXT NOT NULL,
        agent TEXT, UNIQUE (task, kind, id));
    CREATE TABLE sources (
        key INTEGER PRIMARY KEY, session INTEGER NOT NULL REFERENCES sessions, name TEXT NOT NULL,
        agent_session_id TEXT, cursor TEXT, UNIQUE (session, name));
    CREATE TABLE documents (
        key INTEGER PRIMARY KEY, source INTEGER NOT NULL REFERENCES sources, place INTEGER NOT NULL,
        session INTEGER NOT NULL REFERENCES sessions, at INTEGER, UNIQUE (source, place));
    CREATE TABLE turns (
        key INTEGER PRIMARY KEY REFERENCES documents, id TEXT NOT NULL, role TEXT NOT NULL, subagent TEXT);
    CREATE TABLE commands (
        key INTEGER PRIMARY KEY REFERENCES documents, directory TEXT NOT NULL, exit INTEGER NOT NULL,
        duration_ms INTEGER);
    CREATE TABLE texts (
        key INTEGER PRIMARY KEY REFERENCES documents, text TEXT NOT NULL, facets TEXT NOT NULL);
    CREATE TABLE days (day INTEGER PRIMARY KEY);
    CREATE VIRTUAL TABLE found USING fts5 (
        text, facets, content = 'texts', content_rowid = 'key', prefix = '2 3',
        tokenize = \"unicode61 remove_diacritics 2 tokenchars '\u{1f}'\");
";

/// An open file.
#[derive(Debug)]
pub(super) struct Db {
    path: PathBuf,
    /// Device and inode: another file may come into its place.
    file: (u64, u64),
    pub(super) connection: Connection,
}

/// How an opening went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The file was there and is good.
    Good,
    /// It was not there, or of an earlier version.
    Fresh,
    /// It was damaged, or of a later version, and lies aside.
    Aside,
}

impl Db {
    /// Opens the file, or begins it anew.
    pub(super) fn open(path: &Path) -> Result<(Self, Found), StoreError> {
        let present = path.try_exists().map_err(file_error(path))?;
        if present {
            match Self::there(path) {
                Ok(Some(db)) => return Ok((db, Found::Good)),
                Ok(None) => clear(path)?,
                Err(error) if error.is_damage() => {
                    tracing::warn!(%error, aside = %aside(path).display(), "the store is set aside and made anew");
                    set_aside(path)?;
                    return Ok((Self::fresh(path)?, Found::Aside));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((Self::fresh(path)?, Found::Fresh))
    }

    /// The file that is there; `None`: of an earlier version, or begun and not finished.
    fn there(path: &Path) -> Result<Option<Self>, StoreError> {
        let db = Self::connect(path)?;
        let number = |name| {
            let read = |row: &rusqlite::Row<'_>| row.get(0);
            db.connection
                .pragma_query_value::<i32, _>(None, name, read)
                .map_err(StoreError::from)
        };
        let application = number("application_id")?;
        let version = number("user_version")?;
        if application == 0 && version == 0 {
            return Ok(None);
        }
        if application != APPLICATION || version > VERSION {
            return Err(StoreError::Foreign {
                path: path.to_owned(),
                version,
            });
        }
        Ok((version == VERSION).then_some(db))
    }

    fn fresh(path: &Path) -> Result<Self, StoreError> {
        // Left by a file that somebody took away.
        for beside in beside(path) {
            remove(&beside)?;
        }
        let mut db = Self::connect(path)?;
        let transaction = db.connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
        Ok(db)
    }

    fn connect(path: &Path) -> Result<Self, StoreError> {
        let failed = file_error(path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(&failed)?;
        file.set_permissions(Permissions::from_mode(0o600))
            .map_err(&failed)?;
        let identity = identity(&file).map_err(&failed)?;
        drop(file);
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        // What a power cut takes is read again: the cursor goes with the rows.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA temp_store = MEMORY;
             PRAGMA journal_size_limit = 16777216;",
        )?;
        connection.execute_batch(SMALL)?;
        connection.pragma_update(None, "max_page_count", MAX_PAGES)?;
        Ok(Self {
            path: path.to_owned(),
            file: identity,
            connection,
        })
    }

    /// Whether the file is still the one that lies there.
    pub(super) fn is_there(&self) -> bool {
        std::fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == self.file && there.len() > 0)
    }
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> StoreError {
    move |source| StoreError::File {
        path: path.to_owned(),
        source,
    }
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// What SQLite writes beside a file.
fn beside(path: &Path) -> [PathBuf; 2] {
    ["-wal", "-shm"].map(|end| with_end(path, end))
}

/// Where a file goes that cannot be used.
pub(super) fn aside(path: &Path) -> PathBuf {
    with_end(path, ".aside")
}

/// Nobody may have the file open: the last one to close it would remove the next one's log.
pub(super) fn set_aside(path: &Path) -> Result<(), StoreError> {
    match std::fs::rename(path, aside(path)) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(file_error(path)(error)),
    }
    for beside in beside(path) {
        remove(&beside)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(file_error(path)(error)),
    }
}

/// Whether SQLite says that the file is not what it should be.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Takes the file away. Nobody may have it open.
pub(super) fn clear(path: &Path) -> Result<(), StoreError> {
    remove(path)?;
    for beside in beside(path) {
        remove(&beside)?;
    }
    Ok(())
}
