//! Starting a session's agent: preparing its home, finding its program, and asking the keeper for the process.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use whim_entrypoint::wire::{Credentials, Io, Launch, Stdin};
use whim_wire::spec::{AgentKind, Mode};
use whim_wire::state::SessionState;

use super::actor::{Actor, End, Input};
use super::companions::Companions;
use super::record::{Chosen, Record};
use super::{MAIN, NewSession, SessionError, Sessions, beginning, worktree};
use crate::agents::command::{Command, PromptRoute};
use crate::agents::locate::RealFiles;
use crate::agents::setup::{Conversation, Setup, Start, Surface};
use crate::agents::{self, Impossible};
use crate::board::Board;
use crate::boot::Written;
use crate::boot::git::{Git, GitError};
use crate::boot::home::{self, HomeError};
use crate::config::layers::Configuration;
use crate::helper::Helper;
use crate::keeper::{Keeper, KeeperError, Process};
use crate::listeners;
use crate::paths::Paths;
use crate::ports::PortsHandle;
use crate::spending::{self, Spending};
use crate::terminals::set::TerminalSet;

/// How much likelier than its host an agent is to be killed when memory runs out.
const OOM_SCORE: i32 = 500;
/// Size of a terminal until a viewer brings its own: wide enough that agents do not fold their output.
pub(super) const COLUMNS: u16 = 120;
pub(super) const ROWS: u16 = 40;

/// What every session stands on.
#[derive(Debug)]
pub struct Ground {
    pub sessions: Sessions,
    pub board: Arc<Board>,
    pub keeper: Keeper,
    pub helper: Helper,
    pub git: Git,
    pub terminals: TerminalSet,
    pub spending: Arc<Spending>,
    pub paths: Paths,
    pub user: Option<Credentials>,
    /// What is ours in the agents' files.
    pub written: Arc<Written>,
    /// What the next agents and shells are started with; a reload puts another in its place.
    pub task: Mutex<Arc<Task>>,
    pub no_new_privs: bool,
    pub agent: AgentKind,
    pub mode: Mode,
    /// The container's life, as the keeper numbers it.
    pub life: u64,
    /// Told when a session ends for good.
    pub ended: mpsc::Sender<(String, End)>,
    /// Looks for listeners at once when a terminal prints an address.
    pub ports: PortsHandle,
}

/// What the layers say, as it is used.
#[derive(Debug)]
pub struct Task {
    /// Environment of the agents' processes, layers merged, without what the agent itself adds.
    pub environment: Vec<(OsString, OsString)>,
    /// The task's setup; sessions differ from it by what they were started with.
    pub setup: Setup,
    pub configuration: Arc<Configuration>,
}

impl Ground {
    /// What is to be started with now.
    #[must_use]
    pub fn task(&self) -> Arc<Task> {
        self.task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on agents and shells start with this.
    pub fn reload(&self, task: Task) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(task);
    }
}

/// Why an agent could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Impossible(#[from] Impossible),
    #[error(transparent)]
    NotFound(#[from] agents::locate::NotFound),
    #[error("the agent's files cannot be prepared: {0}")]
    Home(#[from] HomeError),
    #[error("the agent's worktree cannot be made: {0}")]
    Worktree(#[from] GitError),
    #[error("{program} cannot be started: {source}", program = program.display())]
    Process {
        program: PathBuf,
        source: KeeperError,
    },
    #[error("{name} did not answer on {url}: {reason}")]
    Companion {
        name: &'static str,
        url: String,
        reason: String,
    },
    #[error("{path} cannot be written: {source}", path = path.display())]
    Record {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl StartError {
    /// The agent, or what it needs, is not there or not usable: exit code 78.
    #[must_use]
    pub fn is_unusable(&self) -> bool {
        use nix::errno::Errno;
        match self {
            Self::NotFound(_) => true,
            Self::Process {
                source: KeeperError::Spawn { source, .. },
                ..
            } => {
                let errno = source.raw_os_error().map(Errno::from_raw);
                matches!(
                    errno,
                    Some(
                        Errno::ENOENT
                            | Errno::EACCES
                            | Errno::ENOEXEC
                            | Errno::ENOTDIR
                            | Errno::EPERM
                    )
                )
            }
            _ => false,
        }
    }
}

/// A session that is to be started, or taken up.
#[derive(Debug)]
pub struct Plan {
    pub record: Record,
    pub setup: Setup,
    /// The first prompt.
    pub prompt: Option<String>,
}

/// What an earlier supervisor started for a session.
#[derive(Debug)]
pub struct Adopted {
    pub process: Process,
    pub companions: Vec<Process>,
}

/// A running agent.
#[derive(Debug)]
pub(super) struct Launched {
    pub process: Process,
    pub companions: Companions,
    pub surface: Surface,
    pub prompt: PromptRoute,
}

/// Starts `main`, or another session with its own record.
pub(crate) fn start(
    ground: &Arc<Ground>,
    plan: Plan,
    adopted: Option<Adopted>,
    inbox: mpsc::Receiver<Input>,
) -> Ready {
    let (ready, answer) = oneshot::channel();
    let actor = Actor::new(ground.clone(), plan, inbox);
    drop(tokio::spawn(actor.run(adopted, ready)));
    Ready(answer)
}

/// Resolves when the agent runs, or says why not.
#[derive(Debug)]
pub(crate) struct Ready(oneshot::Receiver<Result<(), StartError>>);

impl Ready {
    /// # Errors
    /// [`StartError`]; a session that ended meanwhile counts as started.
    pub(crate) async fn wait(self) -> Result<(), StartError> {
        self.0.await.unwrap_or(Ok(()))
    }
}

/// Starts a session beside `main`.
pub(super) async fn beside(
    ground: &Arc<Ground>,
    id: &str,
    new: NewSession,
    inbox: mpsc::Receiver<Input>,
) -> Result<SessionState, SessionError> {
    let started = |error: StartError| match error {
        StartError::Impossible(impossible) => SessionError::Invalid(impossible.to_string()),
        other => SessionError::Start(other.to_string()),
    };
    let directory = worktree::make(ground, id)
        .await
        .map_err(|error| started(error.into()))?;
    let task = &ground.task().setup;
    let path = ground.paths.session(id);
    let known = Record::read(&path).map_err(|error| SessionError::Start(error.to_string()))?;
    // One that came out of a backup, and was not asked for another agent.
    let known = known.filter(|record| {
        record.awaits_start() && new.agent.is_none_or(|agent| agent == record.agent)
    });
    let agent = known.as_ref().map(|record| record.agent);
    let agent = agent.or(new.agent).unwrap_or(ground.agent);
    let same_agent = agent == ground.agent;
    let inherited = |value: &Option<String>| value.clone().filter(|_| same_agent);
    let mut record = Record::new(id, agent, Mode::Interactive, directory, ground.life);
    if let Some(known) = known {
        record.agent_session_id = known.agent_session_id;
        record.restored = known.restored;
    }
    record.chosen = Some(Chosen {
        provider: if same_agent {
            task.provider
        } else {
            spending::natural(agent)
        },
        model: new.model.or_else(|| inherited(&task.model)),
        effort: new.effort.or_else(|| inherited(&task.effort)),
        permission: new.permission_mode.or(task.permission),
        command: new.command.unwrap_or_else(|| task.custom.clone()),
    });
    // Each session's router has its own.
    record.router_port = listeners::free_port();
    let setup = record.setup(task);
    let plan = Plan {
        record,
        setup,
        prompt: new.prompt,
    };
    start(ground, plan, None, inbox)
        .wait()
        .await
        .map_err(started)?;
    let found = ground
        .board
        .sessions()
        .into_iter()
        .find(|session| session.id == id);
    found.ok_or(SessionError::Gone)
}

/// Whether the session's agent could be started: what is asked of it, and its program.
///
/// # Errors
/// [`StartError::Impossible`], [`StartError::NotFound`].
pub(crate) fn check(ground: &Ground, plan: &Plan) -> Result<(), StartError> {
    let conversation = Conversation::New {
        id: super::record::fresh_id(),
    };
    let prompt = plan.prompt.as_deref();
    let command = command(&plan.setup, &plan.record, prompt, conversation)?;
    locate(ground, plan.record.agent, &command, &plan.setup)?;
    Ok(())
}

fn surface(record: &Record) -> Surface {
    if record.mode == Mode::Oneshot {
        Surface::Pipes
    } else {
        Surface::Terminal
    }
}

fn command(
    setup: &Setup,
    record: &Record,
    prompt: Option<&str>,
    conversation: Conversation,
) -> Result<Command, agents::Impossible> {
    let start = Start {
        surface: surface(record),
        conversation,
        prompt: prompt.map(str::to_owned),
    };
    agents::of(record.agent).command(setup, &start)
}

/// Prepares the home and starts companions and agent.
///
/// # Errors
/// [`StartError`]; what was started before the failure is ended again.
pub(super) async fn launch(
    ground: &Arc<Ground>,
    setup: &Setup,
    record: &Record,
    prompt: Option<&str>,
    first: bool,
) -> Result<Launched, StartError> {
    let agent = agents::of(record.agent);
    let conversation = beginning::conversation(ground, record, first).await;
    let command = command(setup, record, prompt, conversation)?;
    let program = locate(ground, record.agent, &command, setup)?;
    home::apply_noted(&ground.helper, &agent.files(setup), &ground.written).await?;
    let wanted = agent.plugins(setup);
    super::plugins::install(ground, setup, &program, &command, wanted).await;
    let companions = Companions::start(ground, agent.companions(setup), setup).await?;
    let launch = Launch {
        arguments: arguments(&program, &command),
        environment: environment(&ground.task().environment, &command),
        directory: command.directory.clone(),
        user: ground.user.clone(),
        io: match command.surface {
            Surface::Terminal => Io::Terminal {
                columns: COLUMNS,
                rows: ROWS,
            },
            Surface::Pipes if command.stdin.is_some() => Io::Pipes { stdin: Stdin::Pipe },
            Surface::Pipes => Io::Pipes { stdin: Stdin::Null },
        },
        oom_score_adj: Some(OOM_SCORE),
        no_new_privs: ground.no_new_privs,
        ..Launch::of(&program)
    };
    for note in &command.notes {
        tracing::info!(session = record.id, note);
    }
    let mut process = match ground
        .keeper
        .spawn(&process_name(&record.id), &launch, Vec::new())
        .await
    {
        Ok(process) => process,
        Err(error) => {
            companions.end().await;
            return Err(StartError::Process {
                program,
                source: error,
            });
        }
    };
    if let Some(input) = command.stdin {
        super::oneshot::feed(&ground.keeper, &mut process, input);
    }
    Ok(Launched {
        process,
        companions,
        surface: surface(record),
        prompt: command.prompt,
    })
}

/// How the first prompt reached an agent that an earlier supervisor started, and had no time to note.
///
/// # Errors
/// [`Impossible`], which that supervisor would have met.
pub(super) async fn route(
    ground: &Ground,
    setup: &Setup,
    record: &Record,
    prompt: &str,
) -> Result<PromptRoute, Impossible> {
    let conversation = beginning::conversation(ground, record, true).await;
    Ok(command(setup, record, Some(prompt), conversation)?.prompt)
}

/// Name of a session's process at the keeper.
#[must_use]
pub(super) fn process_name(session: &str) -> String {
    format!("session/{session}")
}

/// The session whose agent runs under this name at the keeper.
#[must_use]
pub fn session_of(process: &str) -> Option<&str> {
    process
        .strip_prefix("session/")
        .filter(|id| !id.contains('/'))
}

pub(super) fn locate(
    ground: &Ground,
    kind: AgentKind,
    command: &Command,
    setup: &Setup,
) -> Result<PathBuf, agents::locate::NotFound> {
    let agent = agents::of(kind);
    match agent.program() {
        Some(program) => {
            let path = variable(&ground.task().environment, "PATH").unwrap_or_default();
            let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
            Ok(program.locate(&path, &setup.home, &RealFiles)?.path)
        }
        None => Ok(command.program.clone()),
    }
}

pub(super) fn arguments(program: &Path, command: &Command) -> Vec<OsString> {
    std::iter::once(program.as_os_str().to_owned())
        .chain(command.arguments.iter().map(OsString::from))
        .collect()
}

/// The session's environment with the agent's own additions.
pub(super) fn environment(
    base: &[(OsString, OsString)],
    command: &Command,
) -> Vec<(OsString, OsString)> {
    let mut all: BTreeMap<OsString, OsString> = base.iter().cloned().collect();
    for name in &command.unset {
        all.remove(OsStr::new(name));
    }
    for (name, value) in &command.environment {
        all.insert(name.into(), value.into());
    }
    all.into_iter().collect()
}

fn variable(environment: &[(OsString, OsString)], name: &str) -> Option<OsString> {
    environment
        .iter()
        .find(|(present, _)| present == name)
        .map(|(_, value)| value.clone())
}

/// Whether this is the session that the container is for.
#[must_use]
pub fn is_main(session: &str) -> bool {
    session == MAIN
}
