//! The supervisor's life: from the keeper's first words to the ordered end. The only one who knows everyone.
//!
//! 1. Hear the keeper: what it holds, what runs.
//! 2. Read what we were told: flags, variables, spec. Every mistake at once, exit 64 or 65.
//! 3. Take or make directories and sockets, open what is on disk, serve. Now `ready.json`: nothing before it waits for a
//!    network or for an fsync.
//! 4. Take up the agents of a supervisor before, or boot: the steps of [`crate::boot`], then `main`.
//! 5. Wait for the end: the keeper's word, or that of the session that the container is for.

mod task;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whim_entrypoint::wire::{
    Arguments, SUPERVISOR_DESCRIPTOR, SupervisorChannel, ToKeeper, memfd_sealed, read_memfd,
};
use whim_wire::event::kind;
use whim_wire::spec::Mode;
use whim_wire::state::{Phase, StateObject, Supervisor};

use crate::api::access::Gate;
use crate::api::{self, Api};
use crate::board::Board;
use crate::boot::{self, BootError, Grounds};
use crate::claim::Claim;
use crate::config::settings::LogFormat;
use crate::config::{Given, Request, Resolved, Settings, Variables};
use crate::conversation::reader::Conversations;
use crate::helper::Helper;
use crate::identity::Identity;
use crate::idle;
use crate::journal::{Journal, Limits};
use crate::keeper::{Exit, Keeper, KeeperError, Stopping};
use crate::listeners::{Address, Listeners, Wanted};
use crate::paths::Paths;
use crate::platform::{self, Platform};
use crate::previews::{self, Previews};
use crate::rest::{self, Rest};
use crate::rotated::Rotated;
use crate::sessions::shells::Shells;
use crate::sessions::{End, Sessions, hooks};
use crate::spending::Spending;
use crate::state::publish::{StateFiles, publish};
use crate::terminals::http::HttpState;
use crate::terminals::http::guard::Guard;
use crate::terminals::set::TerminalSet;
use crate::{files, random, terminals};

/// The step of the boot until all services listen.
pub const SERVICES: &str = "services";
/// Between two refreshes of the state object, so that its age tells a dead writer from an idle agent.
const BEAT: Duration = Duration::from_secs(2);
/// How long a failed boot may take to tell the platform.
const TELL_FAILURE: Duration = Duration::from_secs(2);
/// Kept free of the grace for our own exit after everything is flushed.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Largest argv and environment.
const ARGUMENTS: usize = 64 * 1024 * 1024;

/// How the container is to end.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Exit code, contract §8.
    pub code: u8,
    pub message: String,
}

impl Failure {
    /// # Panics
    /// Never.
    #[must_use]
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A message with all that it comes from, and what to do about a full disk.
    #[must_use]
    pub fn caused(code: u8, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some of ours say their cause themselves.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        if files::says_disk_full(&message) {
            message.push_str("; free some space there, or give it a larger disk");
        }
        Self { code, message }
    }
}

impl From<KeeperError> for Failure {
    fn from(error: KeeperError) -> Self {
        Self::new(70, error.to_string())
    }
}

/// `whim supervise`, started by the keeper only.
#[must_use]
pub fn main() -> ExitCode {
    if let Err(error) = protect() {
        complain(&format!("cannot protect its memory: {error}"));
        return ExitCode::from(70);
    }
    #[expect(
        unsafe_code,
        reason = "the channel arrives as an inherited descriptor number"
    )]
    // SAFETY: the keeper put the channel at this number for this process and nothing else here owns it.
    let channel = SupervisorChannel::new(unsafe { OwnedFd::from_raw_fd(SUPERVISOR_DESCRIPTOR) });
    let channel = match channel {
        Ok(channel) => channel,
        Err(error) => {
            complain(&format!(
                "`whim supervise` is started by `whim run` only: {error}"
            ));
            return ExitCode::from(64);
        }
    };
    // Two workers: the proxies keep two cores busy at most, and each thread has its stacks and caches.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("cannot start: {error}"));
            return ExitCode::from(70);
        }
    };
    let code = runtime.block_on(run(channel));
    // What still runs is of no use any more; a blocking read must not hold the container.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ExitCode::from(code)
}

/// Names that the page may be asked for under, beside addresses and localhost: those of the preview's host.
fn guard(settings: &Settings) -> Guard {
    let host = settings
        .preview
        .url
        .as_deref()
        .and_then(|url| url.split_once("://"))
        .map(|(_, rest)| rest);
    let host = host
        .and_then(|rest| rest.split(['/', ':']).next())
        .and_then(|host| host.split_once('.'));
    Guard::new(host.map(|(_, parent)| format!(".{parent}")))
}

/// Nobody may read this process's memory: it holds the keys.
fn protect() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)?;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0)
}

fn complain(message: &str) {
    use std::io::Write;
    // The last place to say something; if it is closed nobody listens.
    drop(writeln!(std::io::stderr(), "whim: {message}"));
}

async fn run(channel: SupervisorChannel) -> u8 {
    let (keeper, inventory) = match Keeper::connect(channel).await {
        Ok(connected) => connected,
        Err(error) => {
            complain(&error.to_string());
            return 70;
        }
    };
    match supervise(&keeper, inventory).await {
        Ok(code) => code,
        Err(failure) => {
            complain(&failure.message);
            // Gone only if the keeper is, and then nobody is left to tell.
            drop(keeper.tell(ToKeeper::Exit { code: failure.code }).await);
            let mut stopping = keeper.stopping();
            drop(stopping.wait_for(Option::is_some).await);
            drop(keeper.tell(ToKeeper::Flushed).await);
            failure.code
        }
    }
}

/// What the keeper was started with, or was given since.
struct Told {
    given: Given,
    settings: Box<Settings>,
    variables: Variables,
}

async fn supervise(keeper: &Keeper, inventory: crate::keeper::Inventory) -> Result<u8, Failure> {
    let begun = Instant::now();
    let crate::keeper::Inventory {
        hello,
        mut held,
        processes,
    } = inventory;
    let Some(told) = read(&mut held)? else {
        keeper.tell(ToKeeper::Exit { code: 0 }).await?;
        return Ok(0);
    };
    let Told {
        given,
        settings,
        variables,
    } = told;
    start_log(&settings);
    remember(keeper, &given, &settings).await?;
    keeper
        .tell(ToKeeper::Grace {
            milliseconds: milliseconds(settings.grace),
        })
        .await?;
    let identity = Identity::find(&settings)?;
    let paths = Paths::new(settings.root.as_path(), &identity.user.home);
    boot::directories::make(&paths, &identity)?;
    if hello.restarts == 0 {
        // Left by a container that was killed: it told of ports that nobody listens on.
        remove_ready(&paths);
    }

    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let state_files =
        StateFiles::open(&paths.tmp()).map_err(|error| Failure::caused(73, &error))?;
    hold_final_state(keeper, &paths).await?;
    let (journal, _repair) = Journal::open(&paths.journal(), Limits::default())
        .map_err(|error| Failure::caused(73, &error))?;
    let newest = journal.appended();
    let taken_up = processes
        .iter()
        .any(|process| crate::sessions::session_of(process.name()).is_some());
    let carried = if taken_up { last_word(&paths) } else { None };
    let supervisor = Supervisor {
        pid: std::process::id(),
        restarts: hello.restarts,
        version: env!("CARGO_PKG_VERSION").into(),
    };
    let board = Arc::new(Board::new(journal.clone(), supervisor, carried.as_ref()));
    drop(tasks.spawn(publish(
        state_files,
        board.watch(),
        stop.clone().cancelled_owned(),
    )));
    board.note(
        kind::SUPERVISOR_STARTED,
        json!({"restarts": hello.restarts, "reason": hello.reason}),
    );
    if hello.restarts > 0 {
        tracing::warn!(
            restarts = hello.restarts,
            reason = hello.reason,
            "the supervisor was started again"
        );
    }

    let (spending, activity) = Spending::open(&paths.state(), &settings)
        .map_err(|error| Failure::caused(error.code(), &error))?;
    if taken_up {
        boot::admit(&paths, &settings, &spending, hello.started_ms);
    }
    let spending = Arc::new(spending);
    let sessions = Sessions::new();
    // Not among the tasks that end with the services: it reports to the last call.
    drop(tokio::spawn(spending.clone().report(
        activity,
        sessions.clone(),
        board.clone(),
    )));
    let token = control_token(keeper, &mut held, &settings, &identity, &paths).await?;
    let preview_secret = preview_secret(keeper, &mut held, &settings).await?;
    let secrets = boot::credentials::GitCredentials::default();
    let rotated = Rotated::open(keeper.clone(), &mut held)
        .map_err(|error| Failure::new(70, error.to_string()))?;
    let rotated = Arc::new(rotated);
    // Before anything is served: no call goes out with a key that was replaced.
    rotated.keys(&spending);
    let platform = Platform::new(settings.backend.is_some());
    let (claim, mut task) = match (settings.wait_for_spec, settings.spec.is_some()) {
        (true, false) => {
            let (claim, task) = Claim::open(given.clone());
            (claim, Some(task))
        }
        _ => (Claim::none(), None),
    };
    let mut listeners = Listeners::new(held, keeper.clone());
    let bound = bind(&mut listeners, &settings, &paths).await?;
    let addresses = bound.addresses;
    let previews = Previews::start(
        previews::Setup {
            board: board.clone(),
            own: vec![
                addresses.generation,
                addresses.local,
                addresses.backup,
                addresses.ui,
            ],
            preview_url: settings.preview.url.clone(),
            secret: preview_secret,
            agents_uid: identity.uid(),
            state: &paths.state(),
        },
        &tasks,
        &stop,
    )
    .map_err(|error| Failure::new(70, error.to_string()))?;
    let ports = previews.ports();
    let terminals = TerminalSet::default();
    let shells = Shells::default();
    let gate = Arc::new(Gate {
        token: token.clone(),
        agents: identity.uid(),
        own: identity.own,
    });
    let helper = Helper::new(
        keeper.clone(),
        identity.binary.clone(),
        identity.credentials(),
    );
    let api = Arc::new(Api {
        board: board.clone(),
        sessions: sessions.clone(),
        conversations: Conversations::new(helper.clone(), paths.clone()),
        git_credentials: Arc::new(secrets),
        spending: spending.clone(),
        gate,
        claim,
        platform: platform.clone(),
        rotated: rotated.clone(),
        previews,
        terminals: terminals.clone(),
    });
    let services = Services {
        settings: &settings,
        identity: &identity,
        api: &api,
        shells: &shells,
    };
    services.serve(bound, &stop, &tasks);
    let generation = addresses.generation;
    write_ready(&paths, hello.keeper_pid, &addresses)?;
    keeper.tell(ToKeeper::Ready).await?;
    tracing::info!(
        ms = milliseconds(begun.elapsed()),
        generation = %addresses.generation, local = %addresses.local, backup = %addresses.backup, ui = %addresses.ui,
        "services listen"
    );
    announce(&settings, &token, &addresses);

    drop(tasks.spawn(beat(board.clone(), stop.clone())));
    drop(tasks.spawn(idle::persons::watch(
        board.clone(),
        terminals.clone(),
        stop.clone(),
    )));
    look_for_weaknesses(&board, &given, &variables);
    let (ended, mut ends) = mpsc::channel(64);
    let grounds = Grounds {
        keeper: keeper.clone(),
        helper,
        board: board.clone(),
        spending,
        sessions,
        terminals,
        shells,
        paths: paths.clone(),
        identity,
        variables,
        generation,
        git_credentials: api.git_credentials.clone(),
        platform: platform.clone(),
        rotated: rotated.clone(),
        ended,
        ports,
        started_ms: hello.started_ms,
    };
    let mut settings = settings;
    let mut stopping = keeper.stopping();
    let life = async {
        if let Some(task) = &mut task {
            board.phase(Phase::WaitingForSpec);
            match task.recv().await {
                Some(Resolved {
                    settings: claimed, ..
                }) => *settings = claimed,
                None => std::future::pending().await,
            }
            remember(keeper, &given, &settings).await?;
        }
        if let Some(backend) = &settings.backend {
            platform
                .open(&platform::Setup {
                    backend,
                    task: settings.task.id.as_deref(),
                    board: board.clone(),
                    state: &paths.state(),
                    newest,
                    variables: &grounds.variables,
                    stop: stop.clone(),
                })
                .map_err(|error| task::no_platform(&error))?;
            if let Some(token) = rotated.token() {
                platform.rotate(token);
            }
            platform.start(api.previews.ports());
            // A container whose agents run already has its task.
            if settings.spec.is_none() && !taken_up {
                *settings = task::fetch(&platform, &board, &given).await?;
                remember(keeper, &given, &settings).await?;
            }
        }
        let mode = settings.agent.mode;
        boot::run(&grounds, &settings, processes)
            .await
            .map_err(|error| failed(&board, &error))?;
        board.phase(Phase::Ready);
        tracing::info!(ms = milliseconds(begun.elapsed()), "ready");
        let runner = boot::idle_runner(&grounds, &settings);
        tokio::select! {
            code = wait_for_end(&mut ends, mode) => code,
            () = idle::watch(&board, &settings.idle, &runner, &grounds.terminals) => Ok(0),
        }
    };
    let ended_by_us = tokio::select! {
        code = life => Some(code),
        _ = stopping.wait_for(Option::is_some) => None,
    };
    if matches!(ended_by_us, Some(Err(_))) {
        // That the boot failed is what a platform most wants to know.
        platform
            .drain(tokio::time::Instant::now() + TELL_FAILURE)
            .await;
    }
    let ended_by_us = ended_by_us.transpose()?;
    if let Some(code) = ended_by_us {
        tracing::info!(code, "the container ends");
        keeper.tell(ToKeeper::Exit { code }).await?;
    }
    drop(stopping.wait_for(Option::is_some).await);
    let deadline = *stopping.borrow();
    end(keeper, &board, &paths, &grounds, deadline, stop, tasks).await;
    Ok(ended_by_us.unwrap_or(0))
}

/// Reads what we were told. `None`: help was asked for and printed.
fn read(held: &mut HashMap<String, OwnedFd>) -> Result<Option<Told>, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(70, format!("the keeper's arguments: {error}"))
    };
    // Standard input is read, files may be gone: a later supervisor goes by what the first one understood.
    if let Some(settled) = held.get("settled") {
        let bytes = read_memfd(settled, ARGUMENTS).map_err(|error| broken(&error))?;
        let (given, spec) = Given::from_settled(&bytes).map_err(|error| broken(&error))?;
        let resolved = given
            .resolve(spec.as_deref())
            .map_err(|error| broken(&error))?;
        let variables = container(held)?;
        return Ok(Some(Told {
            given,
            settings: Box::new(resolved.settings),
            variables,
        }));
    }
    let arguments = held.get("arguments").ok_or_else(|| broken(&"missing"))?;
    let bytes = read_memfd(arguments, ARGUMENTS).map_err(|error| broken(&error))?;
    let arguments = Arguments::decode(&bytes).map_err(|error| broken(&error))?;
    let variables = Variables::new(arguments.environment);
    let given = match Given::parse(&arguments.arguments, variables.clone()) {
        Ok(given) => given,
        Err(help) => {
            use std::io::Write;
            drop(std::io::stdout().write_all(help.as_bytes()));
            return Ok(None);
        }
    };
    let first = crate::config::read(
        &arguments.arguments,
        variables.clone(),
        &mut std::io::stdin().lock(),
    );
    let resolved = match first {
        Ok(Request::Run(resolved)) => Ok(*resolved),
        Ok(Request::Help(_)) => return Ok(None),
        Err(invalid) => Err(invalid),
    };
    match resolved {
        Ok(Resolved { settings, warnings }) => {
            for warning in warnings {
                complain(&format!("warning: {warning}"));
            }
            Ok(Some(Told {
                given,
                settings: Box::new(settings),
                variables,
            }))
        }
        Err(invalid) => Err(Failure::new(invalid.exit_code(), invalid.to_string())),
    }
}

/// A file or directory of the layout that cannot be had.
fn at(path: &std::path::Path, error: std::io::Error) -> Failure {
    let message = format!("{} cannot be had: {error}", path.display());
    Failure::caused(73, &std::io::Error::new(error.kind(), message))
}

fn start_log(settings: &Settings) {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_new(&settings.log.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // Set once in this process; a second setting would be a fault of ours and changes nothing.
    let set = match settings.log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => {
            use std::io::IsTerminal;
            builder
                .with_ansi(std::io::stderr().is_terminal())
                .try_init()
        }
    };
    drop(set);
}

/// The keeper writes the last word when we cannot any more.
async fn hold_final_state(keeper: &Keeper, paths: &Paths) -> Result<(), Failure> {
    let directory = std::fs::File::open(paths.tmp()).map_err(|error| at(&paths.tmp(), error))?;
    Ok(keeper.hold("final-state-dir", directory.as_fd()).await?)
}

/// The state object that the supervisor before wrote last.
fn last_word(paths: &Paths) -> Option<StateObject> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(paths.tmp().join("claude_state.json"))
        .ok()?;
    let metadata = file.metadata().ok()?;
    // Ours, and not something that the agent put there.
    let own = metadata.is_file() && metadata.uid() == nix::unistd::geteuid().as_raw();
    own.then(|| serde_json::from_reader(std::io::BufReader::new(file)).ok())?
}

async fn control_token(
    keeper: &Keeper,
    held: &mut HashMap<String, OwnedFd>,
    settings: &Settings,
    identity: &Identity,
    paths: &Paths,
) -> Result<String, Failure> {
    let token = match (&settings.control_token, held.remove("control-token")) {
        (Some(token), _) => token.expose().to_owned(),
        (None, Some(held)) => {
            let bytes =
                read_memfd(&held, 4096).map_err(|error| Failure::new(70, error.to_string()))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        (None, None) => {
            let token = random::token();
            let memfd = memfd_sealed("control-token", token.as_bytes());
            keeper
                .hold(
                    "control-token",
                    memfd.map_err(|error| Failure::new(73, error.to_string()))?,
                )
                .await?;
            token
        }
    };
    let path = paths.control_token();
    if identity.is_split() {
        files::ensure(&path, 0o600, format!("{token}\n").as_bytes())
            .map_err(|error| at(&path, error))?;
    }
    Ok(token)
}

/// The router's secret: as given, or random and kept by the keeper, so that links outlive this supervisor.
async fn preview_secret(
    keeper: &Keeper,
    held: &mut HashMap<String, OwnedFd>,
    settings: &Settings,
) -> Result<Vec<u8>, Failure> {
    let internal = |error: std::io::Error| Failure::new(70, error.to_string());
    if let Some(secret) = &settings.preview.secret {
        return Ok(secret.expose().as_bytes().to_vec());
    }
    if let Some(secret) = held.remove("preview-secret") {
        return read_memfd(&secret, 4096).map_err(internal);
    }
    let secret = random::token().into_bytes();
    keeper
        .hold(
            "preview-secret",
            memfd_sealed("preview-secret", &secret).map_err(internal)?,
        )
        .await?;
    Ok(secret)
}

/// Where the services are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub generation: SocketAddr,
    pub local: SocketAddr,
    pub backup: SocketAddr,
    pub ui: SocketAddr,
}

/// Every socket, bound.
struct Bound {
    addresses: Addresses,
    generation: Vec<TcpListener>,
    local: Vec<TcpListener>,
    backup: Vec<TcpListener>,
    ui: Vec<TcpListener>,
    socket: UnixListener,
    hooks: UnixListener,
}

async fn bind(
    listeners: &mut Listeners,
    settings: &Settings,
    paths: &Paths,
) -> Result<Bound, Failure> {
    let taken = |error: crate::listeners::ListenError| Failure::new(73, error.to_string());
    let broken = |error: std::io::Error| Failure::new(70, error.to_string());
    let given = Address::Given(settings.bind);
    let ports = settings.ports;
    let mut addresses = Vec::new();
    let mut bound = Vec::new();
    for (name, flag, port, address) in [
        (
            "generation",
            "--generation-port",
            ports.generation,
            Address::Loopback,
        ),
        ("local", "--local-port", ports.local, given),
        ("backup", "--backup-port", ports.backup, given),
        ("ui", "--ui-port", ports.ui, given),
    ] {
        let sockets = listeners
            .tcp(Wanted {
                name,
                flag,
                port,
                address,
            })
            .await
            .map_err(taken)?;
        let first = sockets
            .first()
            .ok_or_else(|| Failure::new(70, "nothing bound"))?;
        addresses.push(first.local_addr().map_err(broken)?);
        let sockets: std::io::Result<Vec<TcpListener>> =
            sockets.into_iter().map(TcpListener::from_std).collect();
        bound.push(sockets.map_err(broken)?);
    }
    let socket = listeners.unix(&paths.socket()).await.map_err(taken)?;
    let hooks = listeners.unix(&paths.hooks()).await.map_err(taken)?;
    let ([generation, local, backup, ui], [generation_at, local_at, backup_at, ui_at]) =
        (exactly(bound)?, exactly(addresses)?);
    Ok(Bound {
        addresses: Addresses {
            generation: generation_at,
            local: local_at,
            backup: backup_at,
            ui: ui_at,
        },
        generation,
        local,
        backup,
        ui,
        socket: UnixListener::from_std(socket).map_err(broken)?,
        hooks: UnixListener::from_std(hooks).map_err(broken)?,
    })
}

/// The four services' parts, in order.
fn exactly<T>(parts: Vec<T>) -> Result<[T; 4], Failure> {
    parts
        .try_into()
        .map_err(|_| Failure::new(70, "a service is missing"))
}

/// What the services are made of.
struct Services<'a> {
    settings: &'a Settings,
    identity: &'a Identity,
    api: &'a Arc<Api>,
    shells: &'a Shells,
}

impl Services<'_> {
    fn serve(&self, bound: Bound, stop: &CancellationToken, tasks: &TaskTracker) {
        let Self {
            settings,
            identity,
            api,
            shells,
        } = self;
        let proxy = api.spending.proxy();
        let until = stop.clone().cancelled_owned();
        drop(tasks.spawn(async move {
            if let Err(error) =
                whim_proxies::generation::proxy::serve(bound.generation, proxy, until).await
            {
                tracing::error!(%error, "the generation proxy ended");
            }
        }));
        api.previews.serve(bound.local, tasks, stop);
        let pages = terminals::http::router(HttpState {
            set: api.terminals.clone(),
            access: api.gate.terminals(),
            guard: guard(settings),
            shells: Arc::new((*shells).clone()),
        });
        for listener in bound.backup {
            drop(tasks.spawn(api::serve::tcp(listener, api::machine(api), stop.clone())));
        }
        for listener in bound.ui {
            drop(tasks.spawn(api::serve::tcp(
                listener,
                api::whole(api, pages.clone()),
                stop.clone(),
            )));
        }
        drop(tasks.spawn(api::serve::unix(
            bound.socket,
            api::whole(api, pages),
            stop.clone(),
        )));
        let hooks = hooks::serve(
            bound.hooks,
            api.sessions.clone(),
            identity.uid(),
            identity.own,
            stop.clone(),
        );
        drop(tasks.spawn(hooks));
    }
}

fn write_ready(paths: &Paths, keeper_pid: i32, addresses: &Addresses) -> Result<(), Failure> {
    let ready = json!({
        "pid": keeper_pid,
        "generation": addresses.generation.to_string(),
        "local": addresses.local.to_string(),
        "backup": addresses.backup.to_string(),
        "ui": addresses.ui.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let path = paths.ready();
    files::ensure(&path, 0o644, format!("{ready}\n").as_bytes()).map_err(|error| at(&path, error))
}

fn remove_ready(paths: &Paths) {
    match std::fs::remove_file(paths.ready()) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "ready.json stays"),
    }
}

/// The random token is shown to a person at a terminal only: a log keeps it for ever.
fn announce(settings: &Settings, token: &str, addresses: &Addresses) {
    use std::io::{IsTerminal, Write};
    if settings.control_token.is_none() && std::io::stderr().is_terminal() {
        let port = addresses.ui.port();
        drop(writeln!(
            std::io::stderr(),
            "whim: open http://127.0.0.1:{port}/#token={token}"
        ));
    }
}

/// Tells the board what weakens the separation of agent and host, beside everything else: it reads files and asks sudo.
fn look_for_weaknesses(board: &Arc<Board>, given: &Given, variables: &Variables) {
    let (board, given, variables) = (board.clone(), given.clone(), variables.clone());
    drop(tokio::task::spawn_blocking(move || {
        // Mistakes in the configuration were told before anything was started.
        let (subject, _) = crate::doctor::Subject::new(&given, &variables);
        let found = crate::doctor::weaknesses(&subject);
        board.weaknesses(found.iter().map(crate::doctor::Finding::short).collect());
    }));
}

async fn beat(board: Arc<Board>, stop: CancellationToken) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let states = board.watch();
    let mut rest = Rest::default();
    loop {
        tokio::select! {
            _ = beat.tick() => {
                board.refresh();
                let state = states.borrow().state;
                if rest.begins(state) {
                    rest::give_back();
                }
            }
            () = stop.cancelled() => return,
        }
    }
}

/// What was understood outlives this supervisor in the keeper's memory.
async fn remember(keeper: &Keeper, given: &Given, settings: &Settings) -> Result<(), Failure> {
    let internal = |error: &dyn std::fmt::Display| Failure::new(70, error.to_string());
    let bytes = given
        .settle(settings.spec.as_ref())
        .map_err(|error| internal(&error))?;
    let memfd = memfd_sealed("settled", &bytes).map_err(|error| internal(&error))?;
    Ok(keeper.hold("settled", memfd).await?)
}

/// The container's own environment, as the keeper received it.
fn container(held: &HashMap<String, OwnedFd>) -> Result<Variables, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(70, format!("the keeper's arguments: {error}"))
    };
    let arguments = held.get("arguments").ok_or_else(|| broken(&"missing"))?;
    let bytes = read_memfd(arguments, ARGUMENTS).map_err(|error| broken(&error))?;
    let arguments = Arguments::decode(&bytes).map_err(|error| broken(&error))?;
    Ok(Variables::new(arguments.environment))
}

fn failed(board: &Board, error: &BootError) -> Failure {
    board.phase(Phase::Failed {
        step: error.step().into(),
        error: error.to_string(),
    });
    Failure::caused(error.code(), error)
}

/// Until the session that the container is for has ended in a way that ends the container.
async fn wait_for_end(ends: &mut mpsc::Receiver<(String, End)>, mode: Mode) -> Result<u8, Failure> {
    while let Some((session, end)) = ends.recv().await {
        if !crate::sessions::is_main(&session) {
            continue;
        }
        match (mode, end) {
            (Mode::Oneshot, End::BudgetSpent) => return Ok(75),
            (Mode::Oneshot, End::Exit(exit)) => return Ok(exit.code()),
            (Mode::Oneshot, End::Well)
            | (Mode::Interactive, End::Well | End::Exit(Exit::Code(0))) => return Ok(0),
            (Mode::Interactive, End::Exit(exit)) => return Ok(exit.code()),
            // Stays up as `stopped`: for a person to look, or for a follow-up.
            (Mode::Sticky, _) | (_, End::GaveUp) | (Mode::Interactive, End::BudgetSpent) => {}
        }
    }
    std::future::pending().await
}

/// The ordered end: everything owed goes to disk, the last word is written, the keeper is told.
async fn end(
    keeper: &Keeper,
    board: &Arc<Board>,
    paths: &Paths,
    grounds: &Grounds,
    stopping: Option<Stopping>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let deadline = stopping.map_or_else(
        || tokio::time::Instant::now() + Duration::from_secs(5),
        |stopping| stopping.deadline,
    );
    if !matches!(board.current_phase(), Phase::Failed { .. }) {
        board.phase(Phase::Stopping);
    }
    // The sessions' ends are evidence still to come: the keeper ends them by itself, within the grace.
    let agents_end = async {
        let mut states = board.watch();
        let done = |object: &Arc<StateObject>| {
            object
                .sessions
                .iter()
                .all(|session| session.state == whim_wire::state::AgentState::Stopped)
        };
        drop(states.wait_for(done).await);
    };
    drop(tokio::time::timeout_at(deadline - LAST_WORDS, agents_end).await);
    board.stopped();
    let flush = async {
        if let Err(error) = grounds.spending.proxy().flush().await {
            tracing::error!(%error, "the ledger's end is not on disk");
        }
        if let Err(error) = board.journal().flush(Duration::from_secs(2)).await {
            tracing::error!(%error, "the journal's end is not on disk");
        }
    };
    if tokio::time::timeout_at(deadline - LAST_WORDS, flush)
        .await
        .is_err()
    {
        tracing::error!("the time was over before everything was on disk");
    }
    // The final backup's place: after all that is to be in it is on disk, before the platform is told the last.
    grounds.platform.drain(deadline - LAST_WORDS).await;
    remove_ready(paths);
    stop.cancel();
    tasks.close();
    drop(tokio::time::timeout_at(deadline, tasks.wait()).await);
    if let Err(error) = keeper.tell(ToKeeper::Flushed).await {
        tracing::debug!(%error, "the keeper ended first");
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
