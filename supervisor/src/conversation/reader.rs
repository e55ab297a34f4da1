//! Reading conversations through the helper, a page at a time.
//!
//! Nothing is kept between pages but the places of transcripts: a page reads from its cursor on, so a transcript of any
//! length costs the memory of one page, and a reader that comes back reads only what is new.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use tokio::sync::Semaphore;
use whim_wire::conversation::Conversation;
use whim_wire::spec::AgentKind;

use super::cursor::{CHECKED, Cursor};
use super::lines::MAX_LINE;
use super::page::{Page, Wanted};
use super::place::{self, Whose, is_plain};
use crate::helper::{Helper, HelperError};
use crate::paths::Paths;

/// What `recent` means, in bytes: more than anybody reads at once, and quickly shown.
pub const RECENT: usize = 1024 * 1024;
/// Bytes of one read.
const PIECE: usize = 1024 * 1024;
/// A session's record with its full queue of prompts stays below this.
const MAX_RECORD: u64 = 128 * 1024 * 1024;
/// Places that are remembered; more than there can be sessions.
const PLACES: usize = 256;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("session {session:?} has no sub-agent {subagent:?} with a transcript")]
    NoSubagent { session: String, subagent: String },
    #[error("the transcript cannot be read: {0}")]
    Helper(#[from] HelperError),
    #[error("{path}: {source}", path = path.display())]
    Record { path: PathBuf, source: io::Error },
    #[error("reading was given up")]
    GivenUp,
}

/// What a page is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Only what is newer than this place.
    pub after: Option<Cursor>,
    /// Turns, at most.
    pub limit: usize,
    /// Bookkeeping too.
    pub all: bool,
    /// Where it begins anew: with the last [`RECENT`] bytes.
    pub recent: bool,
    pub subagent: Option<String>,
}

/// A session as its record tells it.
#[derive(Clone, Debug, Deserialize)]
pub struct Known {
    pub agent: AgentKind,
    directory: PathBuf,
    agent_session_id: Option<String>,
}

impl Known {
    /// What the agent calls the session; none until it said so.
    #[must_use]
    pub fn agent_session_id(&self) -> Option<&str> {
        self.agent_session_id.as_deref()
    }

    /// The same session with another conversation of its agent's, as before it was cleared.
    #[must_use]
    pub fn with_conversation(&self, agent_session_id: &str) -> Self {
        Self {
            agent_session_id: Some(agent_session_id.to_owned()),
            ..self.clone()
        }
    }
}

/// A page, and how far it reaches.
#[derive(Debug)]
pub struct Reached {
    pub page: Conversation,
    /// Where the next page begins in the transcript.
    pub end: u64,
    /// Length of the transcript when it was read.
    pub size: u64,
}

/// Reader of all sessions' conversations; clones share it.
#[derive(Clone, Debug)]
pub struct Conversations(Arc<Inner>);

/// By session and sub-agent: the agent's id of the session, and the transcript.
type Places = HashMap<(String, Option<String>), (String, PathBuf)>;

#[derive(Debug)]
struct Inner {
    helper: Helper,
    paths: Paths,
    /// One page at a time: its lines are the largest thing that the supervisor holds.
    turn: Semaphore,
    places: Mutex<Places>,
}

impl Conversations {
    #[must_use]
    pub fn new(helper: Helper, paths: Paths) -> Self {
        Self(Arc::new(Inner {
            helper,
            paths,
            turn: Semaphore::new(1),
            places: Mutex::default(),
        }))
    }

    /// What is on record of a session, now or from before; `None`: there is no such record.
    ///
    /// # Errors
    /// [`ReadError::Record`] when it is damaged.
    pub async fn known(&self, session: &str) -> Result<Option<Known>, ReadError> {
        if !is_plain(session) {
            return Ok(None);
        }
        let path = self.0.paths.session(session).join("session.json");
        let file = path.clone();
        let read = tokio::task::spawn_blocking(move || record(&file));
        match read.await.map_err(|_| ReadError::GivenUp)? {
            Ok(known) => Ok(known),
            Err(source) => Err(ReadError::Record { path, source }),
        }
    }

    /// A page of the session's conversation, or of a sub-agent's. No transcript yet: an empty page.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn page(
        &self,
        session: &str,
        known: &Known,
        asked: &Asked,
    ) -> Result<Reached, ReadError> {
        let _turn = self
            .0
            .turn
            .acquire()
            .await
            .map_err(|_| ReadError::GivenUp)?;
        let mut page = Conversation {
            session: session.to_owned(),
            agent: known.agent.to_string(),
            agent_session_id: known.agent_session_id.clone(),
            subagent: asked.subagent.clone(),
            // A reader that knows more than there is now goes on where it was.
            next: asked.after.as_ref().map(ToString::to_string),
            ..Conversation::default()
        };
        let empty = |page| Reached {
            page,
            end: 0,
            size: 0,
        };
        let Some(id) = known.agent_session_id.clone() else {
            return Ok(empty(page));
        };
        let whose = self.whose(known, id);
        let Some(main) = self.place(session, &whose, None).await? else {
            return Ok(empty(page));
        };
        let mut wanted = Wanted {
            kind: known.agent,
            transcript_of: None,
            only: None,
            all: asked.all,
            limit: asked.limit,
        };
        let mut inside = None;
        let (path, transcript) = match &asked.subagent {
            None => {
                page.subagents = place::subagents(&self.0.helper, known.agent, &main).await?;
                (main, whose.id.clone())
            }
            Some(subagent) => match self.place(session, &whose, Some((subagent, &main))).await? {
                Some(own) => {
                    wanted.transcript_of = Some(subagent.clone());
                    (own, format!("{}/{subagent}", whose.id))
                }
                // Those of other agents, and of earlier versions, write into their session's transcript.
                None => {
                    wanted.only = Some(subagent.clone());
                    inside = Some(subagent.clone());
                    (main, format!("{}/{subagent}", whose.id))
                }
            },
        };
        let known = page.clone();
        let mut reached = match self.read(&path, &transcript, wanted, asked, page).await {
            // Gone between the look and the reading.
            Err(ReadError::Helper(error)) if error.is_not_found() => return Ok(empty(known)),
            other => other?,
        };
        if let Some(subagent) = inside
            && asked.after.is_none()
            && reached.page.turns.is_empty()
            && !reached.page.more
        {
            return Err(ReadError::NoSubagent {
                session: session.to_owned(),
                subagent,
            });
        }
        reached.page.agent_session_id = Some(whose.id);
        Ok(reached)
    }

    /// Where the session's transcript is, or that of a sub-agent which has its own.
    ///
    /// # Errors
    /// [`ReadError::Helper`].
    pub async fn transcript(
        &self,
        session: &str,
        known: &Known,
        subagent: Option<&str>,
    ) -> Result<Option<PathBuf>, ReadError> {
        let Some(id) = known.agent_session_id.clone() else {
            return Ok(None);
        };
        let whose = self.whose(known, id);
        let main = self.place(session, &whose, None).await?;
        match (main, subagent) {
            (Some(main), Some(subagent)) => {
                self.place(session, &whose, Some((subagent, &main))).await
            }
            (main, _) => Ok(main),
        }
    }

    fn whose(&self, known: &Known, id: String) -> Whose {
        Whose {
            kind: known.agent,
            home: self.0.paths.home().to_owned(),
            cwd: known.directory.clone(),
            id,
        }
    }

    async fn read(
        &self,
        path: &Path,
        transcript: &str,
        wanted: Wanted,
        asked: &Asked,
        mut page: Conversation,
    ) -> Result<Reached, ReadError> {
        let resumed = match &asked.after {
            None => None,
            Some(cursor) => {
                let before = self.resume(path, transcript, cursor).await?;
                page.reset = before.is_none();
                before.map(|before| (cursor.offset, before))
            }
        };
        let (start, before) = match resumed {
            Some(resumed) => resumed,
            None if asked.recent => {
                let begin = self.recent(path).await?;
                page.skipped_bytes = begin.0;
                begin
            }
            None => (0, Vec::new()),
        };
        let mut collected = Page::new(wanted, start, before);
        let mut file = None;
        let (size, full) = loop {
            let from = collected.position();
            let (bytes, stamp) = self.0.helper.read_at(path, from, PIECE).await?;
            let same = file.get_or_insert((stamp.device, stamp.inode));
            if *same != (stamp.device, stamp.inode) {
                // Another file took its place meanwhile: the next page notices what that means.
                break (stamp.size, true);
            }
            if bytes.is_empty() {
                break (stamp.size, false);
            }
            // Parsing a piece takes milliseconds that others on this thread would wait for.
            let fed = tokio::task::spawn_blocking(move || {
                let full = collected.feed(&bytes);
                (collected, full)
            });
            let full;
            (collected, full) = fed.await.map_err(|_| ReadError::GivenUp)?;
            if full {
                let more = collected.left_over() || collected.position() < stamp.size;
                break (stamp.size, more);
            }
        };
        page.more = full;
        let next = collected.next(transcript);
        page.next = Some(next.to_string());
        page.turns = collected.turns;
        Ok(Reached {
            page,
            end: next.offset,
            size,
        })
    }

    /// The bytes before a cursor; `None` when it is of another transcript than there is now.
    async fn resume(
        &self,
        path: &Path,
        transcript: &str,
        cursor: &Cursor,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        if cursor.transcript != transcript {
            return Ok(None);
        }
        let length = cursor.offset.min(CHECKED as u64);
        let from = cursor.offset - length;
        let (before, _) = self.0.helper.read_at(path, from, CHECKED).await?;
        let before = before
            .get(..usize::try_from(length).unwrap_or(CHECKED))
            .map(<[u8]>::to_vec);
        Ok(before.filter(|before| cursor.fits(before)))
    }

    /// The beginning of the first line within the last [`RECENT`] bytes, and the bytes before it.
    async fn recent(&self, path: &Path) -> Result<(u64, Vec<u8>), ReadError> {
        let size = self.0.helper.stat(path).await?.stamp.size;
        // The last line may be longer than that: then more of it.
        for span in [RECENT, MAX_LINE] {
            let Some(from) = size.checked_sub(span as u64).filter(|from| *from > 0) else {
                break;
            };
            let (bytes, _) = self.0.helper.read_at(path, from, span).await?;
            // With as many bytes before it as a cursor looks at.
            let searched = bytes.get(CHECKED..).unwrap_or_default();
            let line = memchr::memchr(b'\n', searched).map(|at| CHECKED + at + 1);
            if let Some(line) = line.filter(|line| *line < bytes.len())
                && let Some(before) = bytes.get(line - CHECKED..line)
            {
                return Ok((from + line as u64, before.to_vec()));
            }
        }
        Ok((0, Vec::new()))
    }

    /// Where a transcript is, as found before or now.
    async fn place(
        &self,
        session: &str,
        whose: &Whose,
        subagent: Option<(&str, &Path)>,
    ) -> Result<Option<PathBuf>, ReadError> {
        let key = (
            session.to_owned(),
            subagent.map(|(subagent, _)| subagent.to_owned()),
        );
        let helper = &self.0.helper;
        let known = self.places().get(&key).cloned();
        if let Some((id, path)) = known
            && id == whose.id
        {
            match helper.stat(&path).await {
                Ok(_) => return Ok(Some(path)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let found = match subagent {
            None => place::find(helper, whose).await?,
            Some((subagent, main)) => place::find_subagent(helper, whose, main, subagent).await?,
        };
        if let Some(path) = &found {
            let mut places = self.places();
            if places.len() >= PLACES {
                places.clear();
            }
            places.insert(key, (whose.id.clone(), path.clone()));
        }
        Ok(found)
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Places> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Only what is needed here: the prompts in it are passed over.
fn record(path: &Path) -> io::Result<Option<Known>> {
    use io::Read;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let reader = io::BufReader::new(file.take(MAX_RECORD));
    Ok(Some(serde_json::from_reader(reader)?))
}
