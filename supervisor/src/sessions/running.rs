//! A session's running agent: its process, its terminal or pipes, and the sources that watch it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use whim_wire::spec::AgentKind;
use whim_wire::state::AgentState;

use super::companions::Companions;
use super::evidence::Evidence;
use super::launch::Ground;
use super::oneshot::{Capture, Finished};
use super::record::Record;
use super::tap::{self, Tap};
use super::terminal::{self, Opening};
use super::transcript::Follower;
use crate::agents::observe::startup::{Startup, Step};
use crate::agents::observe::{session_file, transcript};
use crate::agents::prompt::PromptRules;
use crate::agents::setup::{Setup, Surface};
use crate::clock::boot_now;
use crate::helper::{Change, Helper};
use crate::keeper::{Exit, Output, Process, ProcessIo};
use crate::logs::Log;
use crate::state::observation::Observation;
use crate::state::tree::{Table, Top, Tree};
use crate::terminals::pty::Master;
use crate::terminals::{Kind, Terminal, TerminalId, Typed};

/// Between two looks at the processes beneath an agent at work.
const LOOK: Duration = Duration::from_secs(1);
/// The same beneath one at rest: what it left running is a reason to stay awake, not one to hurry.
const LOOK_IDLE: Duration = Duration::from_secs(5);
/// Between two looks at the screen while a dialog is open and its options are not read yet.
const LOOK_DIALOG: Duration = Duration::from_millis(250);
/// Between two looks at the screen for the dialogs of the start, while it changes or shows one.
const LOOK_STARTUP: Duration = Duration::from_millis(250);
/// For the end of output after the end of the process.
const LAST_OUTPUT: Duration = Duration::from_secs(3);

/// What happened to it.
#[derive(Debug)]
pub(super) enum Event {
    Evidence(Evidence),
    /// A dialog of the agent's start wants something.
    Startup(Step),
    Exited(Exit),
}

/// Why nothing could be typed.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeysError {
    #[error("the session has no terminal")]
    NoTerminal,
    #[error(transparent)]
    Type(#[from] crate::terminals::TypeError),
    #[error(transparent)]
    Keeper(#[from] crate::keeper::KeeperError),
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Running {
    process: Process,
    companions: Companions,
    terminal: Option<Terminal>,
    capture: Option<Capture>,
    status: watch::Receiver<Option<Exit>>,
    evidence: mpsc::Receiver<Evidence>,
    tree: Tree,
    looks: Interval,
    looks_idle: bool,
    dialog_looks: Interval,
    dialog_open: bool,
    startup: Startup,
    startup_looks: Interval,
    /// Bytes that were printed before the last of these looks.
    startup_seen: u64,
    typed: Option<watch::Receiver<Typed>>,
    file: Option<FileWatch>,
    transcript: Option<Follower>,
    home: PathBuf,
    rules: PromptRules,
}

/// Claude Code's session file.
#[derive(Debug)]
struct FileWatch {
    helper: Helper,
    changes: broadcast::Receiver<Change>,
    path: PathBuf,
    pid: u32,
    start_ticks: u64,
    /// Not read yet.
    fresh: bool,
}

impl Running {
    pub(super) async fn new(
        ground: &Arc<Ground>,
        record: &Record,
        setup: &Setup,
        mut process: Process,
        companions: Companions,
        surface: Surface,
        adopted: bool,
    ) -> Self {
        let (sender, evidence) = mpsc::channel(tap::WAITING);
        let io = std::mem::replace(&mut process.io, ProcessIo::None);
        let pid = u32::try_from(process.pid()).unwrap_or_default();
        let agent = crate::agents::of(record.agent);
        let followed = surface == Surface::Terminal && agent.watch(setup).transcript;
        let transcript = followed.then(|| {
            let since = crate::state::tree::started(pid).unwrap_or_else(boot_now);
            Follower::start(&ground.helper, record.agent, since, sender.clone())
        });
        let mut terminal = None;
        let mut capture = None;
        match (surface, io) {
            (_, ProcessIo::Terminal { master, output }) => match Master::new(master) {
                Ok(master) => {
                    terminal = open_terminal(ground, record, adopted, output, master, sender)
                }
                Err(error) => tracing::error!(%error, "the session's terminal cannot be used"),
            },
            (_, ProcessIo::Pipes { stdout, stderr, .. }) => {
                let log = Log::open(&ground.paths.logs(), &format!("{}-stderr", record.id));
                let directory = ground.paths.session(&record.id);
                capture = Some(Capture::start(
                    record.agent,
                    stdout,
                    stderr,
                    log,
                    &directory,
                    sender,
                ));
            }
            (_, ProcessIo::None) => {}
        }
        let status = process.status();
        let file = match record.agent {
            AgentKind::Claude | AgentKind::Ccr if terminal.is_some() => {
                FileWatch::start(&ground.helper, setup, pid).await
            }
            _ => None,
        };
        // One that an earlier supervisor saw past its start has none any more.
        let starts = match &record.verdict {
            Some(last) if adopted => {
                matches!(last.state, AgentState::Starting | AgentState::NeedsInput)
            }
            _ => true,
        };
        let dialogs = match terminal {
            Some(_) if starts => agent.startup_dialogs(setup),
            _ => Vec::new(),
        };
        let typed = terminal.as_ref().map(Terminal::typed);
        let mut running = Self {
            process,
            companions,
            terminal,
            capture,
            status,
            evidence,
            tree: Tree::new(Top::Agent(pid)),
            looks: every(LOOK),
            looks_idle: false,
            dialog_looks: every(LOOK_DIALOG),
            dialog_open: false,
            startup: Startup::new(dialogs),
            startup_looks: every(LOOK_STARTUP),
            startup_seen: 0,
            typed,
            file,
            transcript,
            home: setup.home.clone(),
            rules: agent.prompt_rules(),
        };
        running.follow(record);
        running
    }

    /// Follows the conversation that the record names now.
    pub(super) fn follow(&mut self, record: &Record) {
        let (Some(follower), Some(id)) = (&mut self.transcript, &record.agent_session_id) else {
            return;
        };
        let told = record.transcript.as_deref();
        if let Some(path) = transcript::place(record.agent, &self.home, &record.directory, id, told)
        {
            follower.follow(path);
        }
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn terminal(&self) -> Option<&Terminal> {
        self.terminal.as_ref()
    }

    pub(super) fn terminal_id(&self) -> Option<String> {
        self.terminal
            .as_ref()
            .map(|terminal| terminal.id().to_string())
    }

    /// The next thing that happens. Safe to drop at any time.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                biased;
                Some(evidence) = self.evidence.recv() => return Event::Evidence(evidence),
                exit = exited(&mut self.status) => return Event::Exited(exit),
                _ = self.looks.tick() => if let Some(evidence) = self.look() {
                    return Event::Evidence(evidence);
                },
                _ = self.dialog_looks.tick(), if self.dialog_open => if let Some(terminal) = &self.terminal
                    && let Ok(screen) = terminal.text().await
                {
                    let lines = screen.text.lines().map(str::to_owned).collect();
                    return Event::Evidence(Evidence::Screen(lines));
                },
                _ = self.startup_looks.tick(), if !self.startup.is_over() => {
                    if let Some(step) = self.look_for_dialogs().await {
                        return Event::Startup(step);
                    }
                }
                typed = typed(&mut self.typed) => return Event::Evidence(Evidence::Typed(typed)),
                changed = changed(&mut self.file) => if changed && let Some(file) = &self.file {
                    return Event::Evidence(file.read().await);
                },
            }
        }
    }

    fn look(&mut self) -> Option<Evidence> {
        let sample = Table::read(boot_now()).and_then(|table| self.tree.look(&table));
        match sample {
            Ok(sample) => Some(Evidence::now(Observation::Tree(sample))),
            Err(error) => {
                tracing::debug!(%error, "the agent's processes were not read");
                None
            }
        }
    }

    async fn look_for_dialogs(&mut self) -> Option<Step> {
        let terminal = self.terminal.as_ref()?;
        let printed = terminal.offset();
        if printed == self.startup_seen && !self.startup.is_open() {
            return None;
        }
        let screen = terminal.text().await.ok()?;
        self.startup_seen = printed;
        let step = self.startup.look(&screen.text, boot_now().since_boot());
        (step != Step::Nothing).then_some(step)
    }

    /// A dialog of the start is on the screen.
    pub(super) fn in_startup_dialog(&self) -> bool {
        self.startup.is_open()
    }

    /// A prompt is on its way: the start is over.
    pub(super) fn started_up(&mut self) -> Step {
        self.startup.end()
    }

    /// How often to look, by what the agent does.
    pub(super) fn pace(&mut self, state: AgentState, dialog_unread: bool) {
        self.dialog_open = state == AgentState::NeedsInput && dialog_unread;
        let idle = state == AgentState::Idle;
        if idle != self.looks_idle {
            self.looks_idle = idle;
            self.looks = every(if idle { LOOK_IDLE } else { LOOK });
        }
    }

    /// Types keys into the terminal.
    pub(super) async fn keys(&self, keys: Vec<u8>) -> Result<(), KeysError> {
        let terminal = self.terminal.as_ref().ok_or(KeysError::NoTerminal)?;
        Ok(terminal.type_bytes(keys).await?)
    }

    /// Interrupts the turn: by the agent's key in a terminal, by a signal without one.
    pub(super) async fn interrupt(&self) -> Result<(), KeysError> {
        if self.terminal.is_some() {
            return self.keys(self.rules.interrupt.to_vec()).await;
        }
        Ok(self.process.signal(nix::libc::SIGINT, false).await?)
    }

    /// After the exit: takes the last output in, ends what was beside the agent, and lets the keeper forget it.
    pub(super) async fn close(self, exit: Exit) -> Finished {
        let Self {
            process,
            companions,
            terminal,
            capture,
            ..
        } = self;
        if let Some(terminal) = &terminal {
            terminal.exited(terminal_exit(exit)).await;
        }
        companions.end().await;
        let mut gone = process.gone();
        let finished = match capture {
            Some(capture) => tokio::time::timeout(LAST_OUTPUT, capture.finish())
                .await
                .unwrap_or_default(),
            None => Finished::default(),
        };
        // The holder ends what the agent left; its own deadlines bound this.
        if gone.wait_for(|gone| *gone).await.is_ok() {
            if let Some(terminal) = &terminal {
                terminal.drained().await;
            }
            if let Err(error) = process.acknowledge().await {
                tracing::warn!(%error, "the keeper keeps an ended agent");
            }
        }
        finished
    }
}

/// The session's terminal.
fn open_terminal(
    ground: &Ground,
    record: &Record,
    adopted: bool,
    output: Output,
    master: Master,
    evidence: mpsc::Sender<Evidence>,
) -> Option<Terminal> {
    let id = TerminalId::new(&record.id)
        .inspect_err(|error| tracing::error!(session = record.id, %error, "no terminal"))
        .ok()?;
    let opening = Opening {
        id,
        kind: Kind::Agent,
        size: terminal::SIZE,
        adopted,
    };
    terminal::open(ground, opening, output, master, |output| {
        Tap::new(output, evidence)
    })
}

fn terminal_exit(exit: Exit) -> crate::terminals::Exit {
    match exit {
        Exit::Code(code) => crate::terminals::Exit::Code(code),
        Exit::Signal(signal) => crate::terminals::Exit::Signal(signal),
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn exited(status: &mut watch::Receiver<Option<Exit>>) -> Exit {
    let exit = status
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|exit| *exit);
    match exit {
        Some(exit) => exit,
        // The keeper is gone: the container ends.
        None => std::future::pending().await,
    }
}

/// The newest count; what came between two looks is in it.
async fn typed(typed: &mut Option<watch::Receiver<Typed>>) -> Typed {
    match typed {
        Some(receiver) => match receiver.changed().await {
            Ok(()) => *receiver.borrow_and_update(),
            // The terminal is gone: nobody types any more.
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn changed(file: &mut Option<FileWatch>) -> bool {
    let Some(file) = file else {
        return std::future::pending().await;
    };
    if std::mem::take(&mut file.fresh) {
        return true;
    }
    match file.changes.recv().await {
        Ok(change) => {
            let ours = change.name.is_empty()
                || file
                    .path
                    .file_name()
                    .is_some_and(|name| name == change.name.as_str());
            ours && file.path.parent() == Some(change.directory.as_path())
        }
        Err(broadcast::error::RecvError::Lagged(_)) => true,
        Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
    }
}

impl FileWatch {
    async fn start(helper: &Helper, setup: &Setup, pid: u32) -> Option<Self> {
        let directory = session_file::directory(setup);
        let start_ticks = crate::state::tree::start_ticks(pid)?;
        let changes = helper.changes();
        let watching = async {
            helper.make_directory(&directory, 0o700).await?;
            helper.watch(&directory).await
        };
        match watching.await {
            // What it says now counts as a change.
            Ok(()) => Some(Self {
                helper: helper.clone(),
                changes,
                path: session_file::path(setup, pid),
                pid,
                start_ticks,
                fresh: true,
            }),
            Err(error) => {
                tracing::warn!(%error, "the agent's own state file cannot be watched");
                None
            }
        }
    }

    async fn read(&self) -> Evidence {
        let at = boot_now();
        let file = match self
            .helper
            .read_optional(&self.path, session_file::MAX_FILE)
            .await
        {
            Ok(Some((content, _))) => {
                match session_file::parse(&content, self.pid, self.start_ticks) {
                    Ok(file) => Some(file),
                    // Caught half-written; the change that completes it follows.
                    Err(session_file::SessionFileError::NotJson(_)) => {
                        return Evidence::Screen(Vec::new());
                    }
                    Err(error) => {
                        tracing::debug!(%error, "session file");
                        None
                    }
                }
            }
            Ok(None) => None,
            Err(error) => {
                tracing::debug!(%error, "session file");
                None
            }
        };
        Evidence::File { at, file }
    }
}
