//! The supervisor's life: from the keeper's first words to the ordered end. The only one who knows everyone.
//!
//! 1. Hear the keeper: what it holds, what runs.
//! 2. Read what we were told: flags, variables, spec. Every mistake at once, exit 64 or 65.
//! 3. Take or make directories and sockets, open what is on disk, serve. Now `ready.json`: nothing before it waits for a
//!    network or for an fsync.
//! 4. Take up the agents of a supervisor before, or boot: the steps of [`crate::boot`], then `main`.
//! 5. Wait for the end: the keeper's word, or that of the session that the container is for.

mod backups;
mod beat;
mod end;
mod failure;
mod last_word;
mod log;
mod searching;
mod secrets;
mod services;
mod task;
mod told;

use std::os::fd::{FromRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whim_entrypoint::wire::{SUPERVISOR_DESCRIPTOR, SupervisorChannel, ToKeeper};
use whim_wire::event::kind;
use whim_wire::state::{Phase, Supervisor};

use crate::api::Api;
use crate::api::access::Gate;
use crate::attachments::{self, Attachments};
use crate::backup::agent::Backups;
use crate::board::Board;
use crate::boot::{self, BootError, Grounds};
use crate::claim::{Claim, Claimed};
use crate::config::{Given, Secret, Settings, Variables};
use crate::conversation::reader::Conversations;
use crate::helper::Helper;
use crate::identity::Identity;
use crate::idle;
use crate::journal::{Journal, Limits};
use crate::keeper::Keeper;
use crate::listeners::Listeners;
use crate::paths::Paths;
use crate::platform::{self, Platform};
use crate::previews::{self, Previews};
use crate::reload::Reload;
use crate::rotated::Rotated;
use crate::secrets::Secrets;
use crate::sessions::Sessions;
use crate::sessions::shells::Shells;
use crate::spending::Spending;
use crate::state::publish::{StateFiles, publish};
use crate::store::feed;
use crate::terminals::set::TerminalSet;
pub use failure::Failure;
pub use services::Addresses;

use beat::beat;
use end::{end, wait_for_end};
use last_word::{hold_final_state, last_word};
pub(crate) use log::start_log;
use searching::Searching;
use secrets::{control_token, preview_secret};
use services::{Services, announce, bind, remove_ready, write_ready};
pub(crate) use told::arguments;
use told::{Told, interrupted_reload, read, remember};

/// The step of the boot until all services listen.
pub const SERVICES: &str = "services";
/// How long a failed boot may take to tell the platform.
const TELL_FAILURE: Duration = Duration::from_secs(2);

/// `whim supervise`, started by the keeper only.
#[must_use]
pub fn main() -> ExitCode {
    under_keeper("whim run", run)
}

/// Does `work` on the channel to the keeper that started this process; its answer is the exit code. `command`: who starts
/// such a keeper.
pub(crate) fn under_keeper<F: Future<Output = u8>>(
    command: &str,
    work: impl FnOnce(SupervisorChannel) -> F,
) -> ExitCode {
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
            complain(&format!("it is started by `{command}` only: {error}"));
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
    let code = runtime.block_on(work(channel));
    // What still runs is of no use any more; a blocking read must not hold the container.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ExitCode::from(code)
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

    let (spending, activity) = Spending::open(&paths.state(), &settings, &variables)
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
    let own_secrets = [
        Secret::new(token.clone()),
        Secret::new(String::from_utf8_lossy(&preview_secret).into_owned()),
    ];
    let secrets = boot::credentials::GitCredentials::default();
    let rotated = Rotated::open(keeper.clone(), &mut held)
        .map_err(|error| Failure::new(70, error.to_string()))?;
    let rotated = Arc::new(rotated);
    // Before anything is served: no call goes out with a key that was replaced.
    rotated.keys(&spending);
    let platform = Platform::new(settings.backend.is_some());
    let backups = Backups::default();
    let (claim, mut task) = match (settings.wait_for_spec, settings.spec.is_some()) {
        (true, false) => {
            let (claim, task) = Claim::open(given.clone());
            (claim, Some(task))
        }
        _ => (Claim::none(), None),
    };
    let under_way = interrupted_reload(&mut held)?;
    let names = processes.iter().map(crate::keeper::Process::name);
    let shells =
        Shells::new(&mut held, names).map_err(|error| Failure::new(70, error.to_string()))?;
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
            local: addresses.local,
            preview_url: settings.preview.url.clone(),
            limits: settings.preview.limits.clone(),
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
    let conversations = Conversations::new(helper.clone(), paths.clone());
    let git_credentials = Arc::new(secrets);
    let known = Secrets::new(own_secrets, git_credentials.clone(), rotated.clone());
    known.learn(&settings);
    let known = Arc::new(known);
    let fed_by = |store, secrets| feed::Setup {
        store,
        conversations: conversations.clone(),
        helper: helper.clone(),
        board: board.clone(),
        paths: paths.clone(),
        secrets,
    };
    let searching = Searching::start(fed_by, &paths, known.clone(), &backups, &tasks, &stop)?;
    let attachments = Arc::new(Attachments::open(attachments::Setup {
        helper: helper.clone(),
        board: board.clone(),
        variables: variables.clone(),
        directory: paths.attachments(),
        record: paths.attachments_record(),
    }));
    let api = Arc::new(Api {
        board: board.clone(),
        attachments: attachments.clone(),
        sessions: sessions.clone(),
        conversations,
        git_credentials,
        spending: spending.clone(),
        gate,
        claim,
        reload: Arc::new(Reload::default()),
        platform: platform.clone(),
        rotated: rotated.clone(),
        previews,
        terminals: terminals.clone(),
        backups: backups.clone(),
        store: searching.store.clone(),
        feed: searching.feed.clone(),
        elsewhere: searching.elsewhere.clone(),
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
    let grounds = Arc::new(Grounds {
        keeper: keeper.clone(),
        helper,
        written: Arc::new(boot::Written::open(paths.written())),
        board: board.clone(),
        attachments,
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
        secrets: known.clone(),
        ended,
        backups,
        ports,
        started_ms: hello.started_ms,
    });
    let mut settings = settings;
    let mut stopping = keeper.stopping();
    let life = async {
        if let Some(task) = &mut task {
            board.phase(Phase::WaitingForSpec);
            let Some(Claimed {
                resolved,
                remembered,
            }) = task.recv().await
            else {
                return std::future::pending().await;
            };
            *settings = resolved.settings;
            remember(keeper, &given, &settings).await?;
            // Who claimed may have left.
            remembered.send(()).ok();
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
        known.learn(&settings);
        searching.task(&settings);
        let mode = settings.agent.mode;
        boot::run(&grounds, &settings, processes)
            .await
            .map_err(|error| failed(&board, &error))?;
        // Before the word: whoever waits for it may ask for a backup.
        backups::start(&grounds, &settings, known.clone(), &stop);
        api.reload
            .open(grounds.clone(), &given, &settings, under_way)
            .await;
        board.phase(Phase::Ready);
        tracing::info!(ms = milliseconds(begun.elapsed()), "ready");
        let (reload, booted) = (api.reload.clone(), Arc::new(Settings::clone(&settings)));
        let in_force = move || reload.settings().unwrap_or_else(|| booted.clone());
        let runner = boot::idle_runner(&grounds, in_force);
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

fn failed(board: &Board, error: &BootError) -> Failure {
    board.phase(Phase::Failed {
        step: error.step().into(),
        error: error.to_string(),
    });
    Failure::caused(error.code(), error)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
