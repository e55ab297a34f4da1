//! A platform's API, as the host's contract describes it: the reference that the client is tested against.
//!
//! It goes by `openapi/platform.json` of the wire crate: a path, a method, a field or a value that is not in the document
//! is a violation, as are a missing or wrong token, gaps, and repetitions that say something else. Violations are
//! answered with an error and kept for the test to look at. It can be told to be slow, to refuse, to fail before or after
//! it did its work, to lose its newest events, and to go away.
//!
//! Runs on a thread of its own and stops when dropped.

mod books;
mod objects;
mod schema;
mod serve;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::background::Background;
use crate::wait::TimedOut;
pub use books::{Books, Call, Stream, Taken, Trouble};

/// The document.
const DOCUMENT: &str = include_str!("../../../../supervisor/wire/openapi/platform.json");
/// A path before the API's own, so that a client that drops it is found out.
const PREFIX: &str = "/api/internal";

#[derive(Debug)]
pub(super) struct Shared {
    books: Mutex<Books>,
    changed: Condvar,
    document: Value,
    task: String,
    /// Platforms of the workspace's other tasks.
    beside: Mutex<Vec<Arc<Self>>>,
    begun: Instant,
}

impl Shared {
    /// Those whose task is in the same workspace.
    fn beside(&self) -> Vec<Arc<Self>> {
        let beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner);
        beside.clone()
    }

    /// A test that panicked left the books as they were.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A platform, serving until dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: Mutex<Option<JoinHandle<()>>>,
    // Dropped last: its tasks hold `shared`.
    background: Background,
}

impl Backend {
    /// Serves the API of one task on a free loopback port.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start(task: &str, token: &str) -> io::Result<Self> {
        let document = serde_json::from_str(DOCUMENT)?;
        let books = Books {
            token: token.to_owned(),
            ..Books::default()
        };
        let shared = Arc::new(Shared {
            books: Mutex::new(books),
            changed: Condvar::new(),
            document,
            task: task.to_owned(),
            beside: Mutex::default(),
            begun: Instant::now(),
        });
        let background = Background::start("backend")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let backend = Self {
            address: listener.local_addr()?,
            shared,
            serving: Mutex::new(None),
            background,
        };
        backend.serve(listener)?;
        Ok(backend)
    }

    fn serve(&self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let _entered = self.background.handle().enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let task = self
            .background
            .handle()
            .spawn(serve::serve(listener, Arc::clone(&self.shared)));
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(())
    }

    /// What goes into `--backend`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{PREFIX}", self.address)
    }

    /// Goes away: nobody listens, and every connection is closed.
    pub fn leave(&self) {
        let task = self
            .serving
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            task.abort();
            // Cancelled, as was asked for; with it the listener and all connections are dropped.
            let gone = self.background.run(async move { drop(task.await) });
            debug_assert!(gone.is_some(), "the thread lives as long as this");
        }
    }

    /// Is back at the same address.
    ///
    /// # Errors
    /// When the port was taken meanwhile.
    pub fn come_back(&self) -> io::Result<()> {
        self.serve(TcpListener::bind(self.address)?)
    }

    /// The next `times` calls of this kind go wrong.
    pub fn trouble(&self, call: Call, trouble: Trouble, times: usize) {
        let mut books = self.shared.books();
        let queue = books.troubles.entry(call).or_default();
        queue.extend(std::iter::repeat_n(trouble, times));
    }

    /// Nothing goes wrong any more.
    pub fn recover(&self) {
        self.shared.books().troubles.clear();
    }

    /// The other's task is of the same workspace: its backups can be read here, too.
    pub fn share(&self, other: &Self) {
        let beside = self.shared.beside.lock();
        let mut beside = beside.unwrap_or_else(PoisonError::into_inner);
        beside.push(Arc::clone(&other.shared));
    }

    /// The spec of the task; 404 without one.
    pub fn set_spec(&self, spec: Value) {
        self.shared.books().spec = Some(spec);
    }

    /// Gives logins to git from now on, each with another password ([`Books::password`]) and this life.
    pub fn give_logins(&self, username: &str, life: Duration) {
        self.shared.books().login = Some((username.to_owned(), life));
    }

    /// Only this token is good from now on; the others are refused with 401, which is no violation.
    pub fn set_token(&self, token: &str) {
        token.clone_into(&mut self.shared.books().token);
    }

    /// Loses all events above this number, as a backend does that was restored from yesterday.
    pub fn rewind(&self, number: u64) {
        self.shared.books().rewind(number);
    }

    /// Looks at the books.
    pub fn look<T>(&self, at: impl FnOnce(&Books) -> T) -> T {
        at(&self.shared.books())
    }

    /// Rules that were broken.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.look(|books| books.violations.clone())
    }

    /// Waits until `seen` finds what it looks for in the books.
    ///
    /// # Errors
    /// After `limit`, naming `what` and the calls there were.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut seen: impl FnMut(&Books) -> Option<T>,
    ) -> Result<T, TimedOut> {
        let deadline = Instant::now() + limit;
        let mut books = self.shared.books();
        loop {
            if let Some(found) = seen(&books) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let line = |taken: &Taken| {
                    let Taken {
                        call,
                        status,
                        at_ms,
                        ..
                    } = taken;
                    format!("{at_ms} ms {call:?} {status}")
                };
                let calls: Vec<String> = books.calls.iter().rev().take(40).map(line).collect();
                let last = format!("{}; violations {:?}", calls.join("; "), books.violations);
                return Err(TimedOut::new(what, limit, last));
            }
            books = self
                .shared
                .changed
                .wait_timeout(books, left)
                .map_or_else(|error| error.into_inner().0, |(books, _)| books);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that `value` refers to.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member.as_str().filter(|_| name == "$ref") {
                        Some(reference) => found.push(reference),
                        None => references(member, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_document_is_whole_and_every_operation_of_it_is_served() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut served = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            assert!(path.starts_with("/tasks/{id}/"), "{path}");
            for operation in operations.as_object().unwrap().values() {
                let name = operation["operationId"].as_str().unwrap();
                served.push(Call::of(name).unwrap_or_else(|| panic!("{name} is not served")));
            }
        }
        served.sort_unstable();
        let all = [
            Call::Spec,
            Call::Events,
            Call::Ports,
            Call::GitCredentials,
            Call::Workspace,
            Call::BackupList,
            Call::BackupGet,
            Call::BackupPut,
            Call::BackupDelete,
        ];
        assert_eq!(served, all);
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn what_the_backend_answers_is_in_the_document() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let answer = serde_json::json!({"acknowledged": 3});
        let schema = serde_json::json!({"$ref": "#/components/schemas/Acknowledgement"});
        assert_eq!(
            schema::check(&document, &schema, &answer),
            Vec::<String>::new()
        );
        let schema = serde_json::json!({"$ref": "#/components/schemas/GitLogin"});
        let answer = serde_json::json!({"username": "u", "password": "p", "expires_at": "2026-11-22T03:04:05.678Z"});
        assert_eq!(
            schema::check(&document, &schema, &answer),
            Vec::<String>::new()
        );
    }
}
