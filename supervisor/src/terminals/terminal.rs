//! A handle of a terminal, cheap to clone: what it is, how it stands, and the ways to it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::backlog::Backlog;
use super::engine::{Attach, COMMANDS, Command, Engine, ScreenText};
use super::input::{self, TypeError};
use super::keep::Keep;
use super::pty::Master;
use super::screen::Screen;
use super::size::{Size, ViewerId};
use super::source::Source;
use super::typed::Typed;
use super::viewer::{Viewer, ViewerOptions};

/// Most viewers of one terminal.
pub const MAX_VIEWERS: usize = 512;
/// How long an engine may take to answer before the asker gives up.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The name of a terminal in addresses: `main`, `shell-1`. Lower-case letters, digits and hyphens, at most 64.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TerminalId(Arc<str>);

/// Not a terminal's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a terminal's name has 1 to 64 lower-case letters, digits and hyphens and begins with a letter"
)]
pub struct BadTerminalId;

impl TerminalId {
    /// # Errors
    /// When `name` has other characters, is empty or too long.
    pub fn new(name: &str) -> Result<Self, BadTerminalId> {
        let begins = name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase());
        let fits = name.len() <= 64
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if begins && fits {
            Ok(Self(name.into()))
        } else {
            Err(BadTerminalId)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TerminalId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl TryFrom<String> for TerminalId {
    type Error = BadTerminalId;
    fn try_from(name: String) -> Result<Self, BadTerminalId> {
        Self::new(&name)
    }
}

impl From<TerminalId> for String {
    fn from(id: TerminalId) -> Self {
        id.0.as_ref().to_owned()
    }
}

/// Whose terminal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Agent,
    Shell,
}

/// How the program of a terminal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// From a raw wait status.
    pub fn from_status(status: i32) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        let status = std::process::ExitStatus::from_raw(status);
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Code(0),
        }
    }
}

impl fmt::Display for Exit {
    /// `exit 3`, `signal TERM`: the reason of the Close frame (CONTRACT §6c).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => {
                    let name = signal.as_str();
                    write!(
                        formatter,
                        "signal {}",
                        name.strip_prefix("SIG").unwrap_or(name)
                    )
                }
                Err(_) => write!(formatter, "signal {number}"),
            },
        }
    }
}

/// How a terminal stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub title: String,
    pub size: Size,
    pub owner: Option<ViewerId>,
    pub viewers: usize,
    pub exit: Option<Exit>,
}

/// What the output or the end of a terminal tells the supervisor, in order of appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    Title(String),
    /// An operating system command (OSC 133, 633, 7501, 9, 777, …): body without introducer and terminator, at most 4 KiB.
    /// Anyone who can print can send one.
    Osc(Vec<u8>),
    Bell,
    /// An address of a local server was printed.
    Listen(u16),
    Ended,
}

/// Viewers that are gone and not yet forgotten by the engine. Bounded by the number of viewers.
#[derive(Debug, Default)]
pub(super) struct Detached {
    viewers: Mutex<Vec<ViewerId>>,
    notify: Notify,
}

impl Detached {
    pub(super) fn add(&self, viewer: ViewerId) {
        self.viewers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(viewer);
        self.notify.notify_one();
    }

    pub(super) fn take(&self) -> Vec<ViewerId> {
        std::mem::take(&mut self.viewers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn notified(&self) {
        self.notify.notified().await;
    }
}

/// What engine, handles and viewers share. The lock on the backlog is held for a copy only, never across a wait.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: TerminalId,
    kind: Kind,
    pub(super) backlog: Mutex<Backlog>,
    /// Offset behind the newest byte in the backlog.
    pub(super) head: watch::Sender<u64>,
    pub(super) status: watch::Sender<Status>,
    pub(super) typed: watch::Sender<Typed>,
    pub(super) detached: Detached,
    pub(super) signals_dropped: AtomicU64,
    /// Permits for bytes that wait to be typed.
    pub(super) input_room: Arc<Semaphore>,
    began: Instant,
    output_ms: AtomicU64,
    input_ms: AtomicU64,
    next_viewer: AtomicU64,
}

impl Shared {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    pub(super) fn touch_output(&self) {
        self.output_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    pub(super) fn touch_input(&self) {
        self.input_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn since(&self, mark: &AtomicU64) -> Option<Duration> {
        match mark.load(Ordering::Relaxed) {
            0 => None,
            ms => Some(
                self.began
                    .elapsed()
                    .saturating_sub(Duration::from_millis(ms)),
            ),
        }
    }
}

/// See the module's header.
#[derive(Clone, Debug)]
pub struct Terminal {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Sender<Command>,
}

/// How a terminal begins.
#[derive(Debug)]
pub struct TerminalOptions {
    pub id: TerminalId,
    pub kind: Kind,
    pub size: Size,
    /// Takes titles, OSC, bells and printed addresses; signals that find it full are dropped and counted.
    pub signals: Option<mpsc::Sender<Signal>>,
    /// Where the screen is kept for the next supervisor, see [`Keep`].
    pub keep: Option<Keep>,
}

/// Why a terminal did not answer.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    #[error("terminal {0} is gone")]
    Gone(TerminalId),
    #[error("terminal {0} did not answer within 5 s")]
    Slow(TerminalId),
    #[error("terminal {0} has as many viewers as it may have ({MAX_VIEWERS})")]
    TooManyViewers(TerminalId),
}

impl Terminal {
    /// Starts the engine of a terminal on the present runtime. It runs until every handle is gone.
    pub fn start<S: Source>(options: TerminalOptions, source: S, master: Master) -> Self {
        let screen = Screen::new(options.size);
        Self::start_with(options, source, master, screen)
    }

    /// As [`Terminal::start`], with the screen as an earlier supervisor left it. `source` goes on right behind it.
    pub fn start_with<S: Source>(
        options: TerminalOptions,
        source: S,
        master: Master,
        screen: Screen,
    ) -> Self {
        let TerminalOptions {
            id,
            kind,
            size: _,
            signals,
            keep,
        } = options;
        let offset = source.offset();
        let status = Status {
            title: screen.title().to_owned(),
            size: screen.size(),
            owner: None,
            viewers: 0,
            exit: None,
        };
        let shared = Arc::new(Shared {
            id,
            kind,
            backlog: Mutex::new(Backlog::at(offset)),
            head: watch::Sender::new(offset),
            status: watch::Sender::new(status),
            typed: watch::Sender::new(Typed::default()),
            detached: Detached::default(),
            signals_dropped: AtomicU64::new(0),
            input_room: Arc::new(Semaphore::new(input::LIMIT)),
            began: Instant::now(),
            output_ms: AtomicU64::new(0),
            input_ms: AtomicU64::new(0),
            next_viewer: AtomicU64::new(1),
        });
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let engine = Engine::new(
            Arc::clone(&shared),
            source,
            master,
            receiver,
            signals,
            keep,
            screen,
        );
        tokio::spawn(engine.run());
        Self { shared, commands }
    }

    pub fn id(&self) -> &TerminalId {
        &self.shared.id
    }

    pub fn kind(&self) -> Kind {
        self.shared.kind
    }

    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Follows [`Terminal::status`].
    pub fn watch(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Follows what is typed.
    pub fn typed(&self) -> watch::Receiver<Typed> {
        self.shared.typed.subscribe()
    }

    /// Time since the program last printed.
    pub fn since_output(&self) -> Option<Duration> {
        self.shared.since(&self.shared.output_ms)
    }

    /// Time since a person last typed.
    pub fn since_input(&self) -> Option<Duration> {
        self.shared.since(&self.shared.input_ms)
    }

    /// Bytes printed since the terminal began.
    pub fn offset(&self) -> u64 {
        *self.shared.head.borrow()
    }

    /// Signals nobody took in time.
    pub fn signals_dropped(&self) -> u64 {
        self.shared.signals_dropped.load(Ordering::Relaxed)
    }

    async fn ask<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<T>,
    ) -> Result<T, TerminalError> {
        let gone = || TerminalError::Gone(self.id().clone());
        let asked = async {
            self.commands.send(command).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())
        };
        tokio::time::timeout(ANSWER_WITHIN, asked)
            .await
            .map_err(|_| TerminalError::Slow(self.id().clone()))?
    }

    /// Whether all that was ever printed is still in the backlog.
    pub(super) fn holds_its_beginning(&self) -> bool {
        let backlog = self.shared.backlog.lock();
        backlog.unwrap_or_else(PoisonError::into_inner).start() == 0
    }

    /// Lets someone watch, and type unless read-only.
    ///
    /// # Errors
    /// When the terminal is gone, overloaded or has [`MAX_VIEWERS`].
    pub async fn attach(&self, options: ViewerOptions) -> Result<Viewer, TerminalError> {
        if self.shared.status.borrow().viewers >= MAX_VIEWERS {
            return Err(TerminalError::TooManyViewers(self.id().clone()));
        }
        let viewer = ViewerId(self.shared.next_viewer.fetch_add(1, Ordering::Relaxed));
        // From here on the viewer is forgotten by the engine even if this future is dropped.
        let ticket = super::viewer::Ticket::new(self.clone(), viewer);
        let (reply, answer) = oneshot::channel();
        let attach = Attach {
            viewer,
            size: options.size.map(Size::clamped),
            read_only: options.read_only,
            resume: options.resume,
            lines: options.lines,
            counted: options.counted,
        };
        let attached = self.ask(Command::Attach(attach, reply), answer).await?;
        Ok(Viewer::new(ticket, options.read_only, attached))
    }

    /// Types bytes as they are, behind what already waits; returns when the last one is typed.
    ///
    /// # Errors
    /// When the terminal ended first, or an interrupt key cancelled what was waiting.
    pub async fn type_bytes(&self, bytes: Vec<u8>) -> Result<(), TypeError> {
        let (done, typed) = oneshot::channel();
        let permits = u32::try_from(bytes.len().min(input::LIMIT)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.shared.input_room)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| TypeError::Ended)?;
        let piece = input::Piece {
            bytes,
            permit: Some(permit),
            done: Some(done),
        };
        self.commands
            .send(Command::Type(piece))
            .await
            .map_err(|_| TypeError::Ended)?;
        typed.await.unwrap_or(Err(TypeError::Ended))
    }

    /// The visible screen.
    ///
    /// # Errors
    /// When the terminal is gone or overloaded.
    pub async fn text(&self) -> Result<ScreenText, TerminalError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Text(reply), answer).await
    }

    /// The program ended. What it printed last is still delivered, for at most 2 s.
    pub async fn exited(&self, exit: Exit) {
        // A terminal that is gone needs no exit.
        drop(self.commands.send(Command::Exited(exit)).await);
    }

    /// All output is in the source; after [`Terminal::exited`] this ends the terminal at once.
    pub async fn drained(&self) {
        drop(self.commands.send(Command::Drained).await);
    }
}
