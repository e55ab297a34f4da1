//! Files that people attach to a task: fetched from signed links at the start and while it runs, or sent by the page.
//!
//! They lie in `/app/attachments`, outside of the checkout, readable and never executable, written whole by the agents'
//! user. What was stored is remembered in one small file under the state directory, without its links, so that numbers
//! and the list outlive supervisor and container. A link that does not work stops nothing: it is told by name, in the
//! list, in an event and to the agent.
//!
//! Bounds: [`MOST`] files lie there at a time, each of at most [`fetch::MOST_BYTES`]; [`CALLS`] calls are under way, one
//! more is refused; [`AT_ONCE`] links of a call are fetched at once, and a file on its way to the disk is there three
//! times: so this holds at most `CALLS × (AT_ONCE + 2) × MOST_BYTES` in memory.

mod executable;
pub mod fetch;
mod name;
mod record;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};
use whim_proxies::http::dial::{DialError, Dialer};
use whim_wire::attachment::{Attachment, Origin};
use whim_wire::event::kind;
use whim_wire::spec;
use whim_wire::time::Time;

use crate::board::Board;
use crate::clock;
use crate::config::{Variables, names, printable};
use crate::helper::{Helper, HelperError};
use crate::outbound;
use fetch::FetchError;
use record::Record;

/// Files that may lie there at a time: the platform's documented limit of a task.
pub const MOST: usize = 10;
/// Calls under way; each may hold a few files in memory.
const CALLS: usize = 2;
/// Links of one call that are fetched at once.
const AT_ONCE: usize = 3;
/// For each step of dialling.
const STEP: Duration = Duration::from_secs(15);
/// Names that are tried: each was taken between looking and writing.
const TRIES: usize = 8;

/// Why a file is not there.
#[derive(Debug, thiserror::Error)]
pub enum AttachmentError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the way out cannot be used: {0}")]
    Outbound(DialError),
    #[error("{MOST} files are attached already; delete one in {directory} first", directory = .0.display())]
    Full(PathBuf),
    #[error("the file is .{0}; programs are not taken")]
    Extension(&'static str),
    #[error("the file is {0}; programs are not taken")]
    Content(&'static str),
    #[error("the file is larger than {} MB", fetch::MOST_BYTES >> 20)]
    TooLarge,
    #[error("it cannot be stored: {0}")]
    Store(#[from] HelperError),
    #[error("every name that was tried was taken meanwhile")]
    Names,
}

impl AttachmentError {
    /// A stable word for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Fetch(FetchError::Url(_) | FetchError::Redirect(_) | FetchError::Redirects) => {
                "link"
            }
            Self::Fetch(FetchError::Forbidden) => "forbidden",
            Self::Fetch(FetchError::Expired(_)) => "expired",
            Self::Fetch(FetchError::TooLarge) | Self::TooLarge => "too-large",
            Self::Fetch(FetchError::Executable(_)) | Self::Extension(_) | Self::Content(_) => {
                "executable"
            }
            Self::Fetch(_) | Self::Outbound(_) => "unreachable",
            Self::Full(_) => "full",
            Self::Store(_) | Self::Names => "store",
        }
    }
}

/// What the attachments stand on.
#[derive(Debug)]
pub struct Setup {
    pub helper: Helper,
    pub board: Arc<Board>,
    /// The container's environment: the way out.
    pub variables: Variables,
    /// Where the files go.
    pub directory: PathBuf,
    /// Our own file about them.
    pub record: PathBuf,
}

/// See the module's header.
#[derive(Debug)]
pub struct Attachments {
    setup: Setup,
    dialer: OnceCell<Dialer>,
    calls: Semaphore,
    books: Mutex<Books>,
}

/// What is there, and how many files are on their way to it.
#[derive(Debug)]
struct Books {
    record: Record,
    coming: usize,
}

/// A place among the [`MOST`], until the file is in the record or is not coming.
#[derive(Debug)]
struct Place<'a>(&'a Attachments);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut books = self.0.books();
        books.coming = books.coming.saturating_sub(1);
    }
}

/// The permission to work on one call.
#[derive(Debug)]
pub struct Turn<'a>(#[expect(dead_code, reason = "given back when dropped")] SemaphorePermit<'a>);

impl Attachments {
    /// Reads what was stored before; a damaged record is begun anew.
    #[must_use]
    pub fn open(setup: Setup) -> Self {
        let record = Record::read(&setup.record);
        Self {
            setup,
            dialer: OnceCell::new(),
            calls: Semaphore::new(CALLS),
            books: Mutex::new(Books { record, coming: 0 }),
        }
    }

    /// A turn, unless as many calls as may be are under way.
    #[must_use]
    pub fn turn(&self) -> Option<Turn<'_>> {
        self.calls.try_acquire().ok().map(Turn)
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.setup.directory
    }

    /// What was attached and is still there, and what of the last calls failed.
    pub async fn list(&self) -> Vec<Attachment> {
        let looked = clock::now();
        let present = self.present().await;
        let mut books = self.books();
        // Without the listing all that is remembered is told: better than nothing.
        if let Ok(present) = present {
            books.record.retain(&present, looked);
        }
        books.record.all().to_vec()
    }

    /// Fetches what the spec names and is not there from an earlier start; what came of each.
    pub async fn of_spec(&self, wanted: &[spec::Attachment]) -> Vec<Attachment> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let known = self.list().await;
        let there = |given: &str| {
            let given = printable(given);
            known.iter().find(move |known| {
                known.origin == Origin::Spec && known.given == given && known.error.is_none()
            })
        };
        let (old, new): (Vec<_>, Vec<_>) = wanted
            .iter()
            .partition(|wanted| there(&wanted.name).is_some());
        let new: Vec<_> = new.into_iter().cloned().collect();
        let mut all: Vec<Attachment> = old
            .into_iter()
            .filter_map(|old| there(&old.name).cloned())
            .collect();
        all.extend(self.fetch(&new, Origin::Spec).await);
        all
    }

    /// Fetches links and stores what comes, in the order given; what came of each.
    pub async fn fetch(&self, wanted: &[spec::Attachment], origin: Origin) -> Vec<Attachment> {
        let gets: Vec<_> = wanted.iter().map(|wanted| self.get(wanted)).collect();
        let mut fetched = stream::iter(gets).buffered(AT_ONCE);
        let mut all = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let Some(bytes) = fetched.next().await else {
                break;
            };
            let stored = match bytes {
                Ok(bytes) => self.keep(&wanted.name, bytes, origin).await,
                Err(error) => Err(error),
            };
            all.push(self.told(&wanted.name, stored, origin));
        }
        all
    }

    /// Stores a file that was sent.
    pub async fn send(&self, given: &str, bytes: Vec<u8>) -> Attachment {
        let stored = self.keep(given, bytes, Origin::Upload).await;
        self.told(given, stored, Origin::Upload)
    }

    async fn get(&self, wanted: &spec::Attachment) -> Result<Vec<u8>, AttachmentError> {
        if let Some(extension) = executable::by_name(&name::shown(&wanted.name)) {
            return Err(AttachmentError::Extension(extension));
        }
        let dialer = self.dialer.get_or_try_init(|| async {
            outbound::dialer(&self.setup.variables, STEP)
                .map(|dialer| dialer.only_to(names::is_public))
        });
        let dialer = dialer.await.map_err(AttachmentError::Outbound)?;
        Ok(fetch::fetch(dialer, wanted.url.expose()).await?)
    }

    async fn keep(
        &self,
        given: &str,
        bytes: Vec<u8>,
        origin: Origin,
    ) -> Result<Attachment, AttachmentError> {
        if bytes.len() > fetch::MOST_BYTES {
            return Err(AttachmentError::TooLarge);
        }
        if let Some(what) = executable::by_content(&bytes) {
            return Err(AttachmentError::Content(what));
        }
        let directory = &self.setup.directory;
        self.setup.helper.make_directory(directory, 0o755).await?;
        let size = bytes.len() as u64;
        let looked = clock::now();
        let _place = self.place(&self.present().await?, looked)?;
        for _ in 0..TRIES {
            // A number that another call takes meanwhile shows when the file is written.
            let present = self.present().await?;
            let taken: Vec<u32> = present
                .iter()
                .filter_map(|name| name::number(name))
                .collect();
            let name = name::stored(given, &taken);
            if let Some(extension) = executable::by_name(&name) {
                return Err(AttachmentError::Extension(extension));
            }
            let path = directory.join(&name);
            let written = self
                .setup
                .helper
                .write(&path, 0o644, Some(None), bytes.clone());
            match written.await {
                Ok(()) => {
                    let stored = Attachment {
                        name,
                        given: printable(given),
                        path: Some(path.to_string_lossy().into_owned()),
                        bytes: Some(size),
                        at: clock::now(),
                        origin,
                        error: None,
                        word: None,
                    };
                    self.remember(stored.clone());
                    return Ok(stored);
                }
                Err(error) if error.is_stale() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(AttachmentError::Names)
    }

    /// Names of the files that lie there.
    async fn present(&self) -> Result<Vec<String>, HelperError> {
        match self.setup.helper.list(&self.setup.directory).await {
            Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// The outcome as it is told, in the event, too.
    fn told(
        &self,
        given: &str,
        outcome: Result<Attachment, AttachmentError>,
        origin: Origin,
    ) -> Attachment {
        match outcome {
            Ok(stored) => {
                let event = json!({"name": stored.name, "path": stored.path, "bytes": stored.bytes, "origin": origin});
                self.setup.board.note(kind::ATTACHMENT_STORED, event);
                stored
            }
            Err(error) => {
                let failed = Attachment {
                    name: name::shown(given),
                    given: printable(given),
                    path: None,
                    bytes: None,
                    at: clock::now(),
                    origin,
                    error: Some(error.to_string()),
                    word: Some(error.word().to_owned()),
                };
                tracing::warn!(name = failed.name, %error, "an attachment is not there");
                let event = json!({"name": failed.name, "word": failed.word, "error": failed.error, "origin": origin});
                self.setup.board.note(kind::ATTACHMENT_FAILED, event);
                self.remember(failed.clone());
                failed
            }
        }
    }

    fn place(&self, present: &[String], looked: Time) -> Result<Place<'_>, AttachmentError> {
        let mut books = self.books();
        books.record.retain(present, looked);
        if books.record.stored().count() + books.coming >= MOST {
            return Err(AttachmentError::Full(self.setup.directory.clone()));
        }
        books.coming += 1;
        Ok(Place(self))
    }

    fn remember(&self, new: Attachment) {
        let mut books = self.books();
        books.record.add(new);
        if let Err(error) = books.record.write(&self.setup.record) {
            tracing::error!(%error, "the list of attachments is not saved");
        }
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the agent is told about them: a paragraph for a prompt. `None`: there is nothing to tell.
#[must_use]
pub fn paragraph(all: &[Attachment]) -> Option<String> {
    let there: Vec<&str> = all
        .iter()
        .filter_map(|attachment| attachment.path.as_deref())
        .collect();
    let failed: Vec<String> = all
        .iter()
        .filter_map(|attachment| {
            Some(format!(
                "{}: {}",
                attachment.name,
                attachment.error.as_ref()?
            ))
        })
        .collect();
    let list = |title: &str, lines: Vec<&str>| {
        let lines: String = lines
            .into_iter()
            .map(|line| format!("\n- {line}"))
            .collect();
        (!lines.is_empty()).then(|| format!("{title}{lines}"))
    };
    let parts = [
        list("Attached files:", there),
        list(
            "Files that could not be attached:",
            failed.iter().map(String::as_str).collect(),
        ),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(name: &str, error: Option<&str>) -> Attachment {
        Attachment {
            name: name.into(),
            given: name.into(),
            path: error.is_none().then(|| format!("/app/attachments/{name}")),
            bytes: Some(1),
            at: clock::now(),
            origin: Origin::Spec,
            error: error.map(str::to_owned),
            word: None,
        }
    }

    #[test]
    fn the_agent_is_told_what_is_there_and_what_is_not() {
        assert_eq!(paragraph(&[]), None);
        let all = [
            attachment("01-a.png", None),
            attachment("b.pdf", Some("the link has expired")),
        ];
        assert_eq!(
            paragraph(&all).unwrap(),
            "Attached files:\n- /app/attachments/01-a.png\n\nFiles that could not be attached:\n- b.pdf: the link has expired"
        );
    }
}
