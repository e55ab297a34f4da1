//! The boot: what is done before the agent starts, in order, each step named in `phase` and safe to repeat.
//!
//! ```text
//! take up what an earlier supervisor left → repository → environment → init → agent
//! ```
//! The services listen already. A supervisor that dies in a step is followed by one that does the step again; steps that
//! are done are remembered for the life of the keeper, so that an init script does not run twice. After a restart of the
//! container everything is looked at again: what is there stays, the agent resumes its own session.

pub mod again;
mod agents;
mod attached;
pub mod credentials;
pub mod directories;
mod error;
pub mod git;
pub mod home;
pub mod init_script;
mod left;
mod old;
mod progress;
pub mod repository;
pub mod restored;
mod setup;
mod shell;
pub mod written;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use whim_proxies::local::preview_environment;
use whim_wire::event::kind;
use whim_wire::spec::{AgentKind, InitUser, Sensitive, Trust};
use whim_wire::state::Phase;

use crate::attachments::{self, Attachments};
use crate::backup::code::Limits;
use crate::backup::snapshot::{Clean, Snapshots};
use crate::board::Board;
use crate::config::environment::{self, Environment};
use crate::config::{Settings, Variables};
use crate::helper::Helper;
use crate::identity::Identity;
use crate::keeper::{Keeper, Process};
use crate::paths::Paths;
use crate::platform::Platform;
use crate::ports::PortsHandle;
use crate::rotated::Rotated;
use crate::secrets::Secrets;
use crate::sessions::shells::Shells;
use crate::sessions::{self, End, Ground, MAIN, Plan, Record, Sessions};
use crate::spending::Spending;
use crate::terminals::set::TerminalSet;
pub use agents::admit;
pub use error::BootError;

use credentials::{GitCredentials, Remote};
use git::Git;
use init_script::Part;
use left::Processes;
use progress::Progress;
use repository::{Checked, Checkout};
pub use written::Written;

/// What the boot works with.
#[derive(Debug)]
pub struct Grounds {
    pub keeper: Keeper,
    pub helper: Helper,
    /// What is ours in the agents' files.
    pub written: Arc<Written>,
    pub board: Arc<Board>,
    pub attachments: Arc<Attachments>,
    pub spending: Arc<Spending>,
    pub sessions: Sessions,
    pub terminals: TerminalSet,
    pub shells: Shells,
    pub paths: Paths,
    pub identity: Identity,
    /// The container's own environment.
    pub variables: Variables,
    /// Address of the generation proxy.
    pub generation: SocketAddr,
    pub git_credentials: Arc<GitCredentials>,
    pub platform: Platform,
    pub rotated: Arc<Rotated>,
    pub secrets: Arc<Secrets>,
    pub ended: mpsc::Sender<(String, End)>,
    pub backups: crate::backup::agent::Backups,
    pub ports: PortsHandle,
    /// When the keeper started: names its life.
    pub started_ms: u64,
}

/// Runs the steps that are not done, and starts or takes up the sessions.
///
/// # Errors
/// [`BootError`] of the first step that fails.
pub async fn run(
    grounds: &Grounds,
    settings: &Settings,
    processes: Vec<Process>,
) -> Result<(), BootError> {
    let mut left = Processes::sort(processes);
    left.end_others().await;
    grounds.spending.task(settings)?;
    grounds.rotated.keys(&grounds.spending);
    let provider = reach(grounds, settings, left.sessions.is_empty());
    let git = git_for(grounds, settings);
    let environment = environment_for(grounds, settings, &mut Vec::new());
    if !is_untrusted(settings) {
        login(grounds, settings, false);
    }
    let mut attached = None;
    if left.sessions.is_empty() {
        attached = steps(grounds, settings, &git, &environment, &mut left.inits).await?;
    } else {
        login_again(grounds, settings);
        tracing::info!(
            sessions = left.sessions.len(),
            "taking up the agents of the supervisor before"
        );
    }
    for process in std::mem::take(&mut left.inits).into_values() {
        init_script::tend(process, &grounds.paths.logs());
    }
    let shells = std::mem::take(&mut left.shells);
    agents::agents(
        grounds,
        settings,
        git,
        environment,
        attached,
        left,
        provider,
    )
    .await?;
    for process in shells {
        grounds.shells.take_up(process);
    }
    Ok(())
}

/// Resolves when the provider answered, or is given up. Dropped: nobody waits for it, and it is watched on.
type Reaching = oneshot::Receiver<Result<(), BootError>>;

/// Has the provider asked beside everything else, so that a wrong key is told before the agent stumbles over it. One that
/// is not there at all fails the boot, but not for a custom agent: whether that calls models is not known.
fn reach(grounds: &Grounds, settings: &Settings, boot: bool) -> Reaching {
    let silent = settings.agent.kind == AgentKind::Custom;
    let kind = setup::provider(settings);
    let (spending, board) = (grounds.spending.clone(), grounds.board.clone());
    let (reached, reaching) = oneshot::channel();
    // Ends with the runtime: it owes nobody anything.
    drop(tokio::spawn(async move {
        let (outcome, found) = if boot && !silent {
            match spending.reach(kind, &board).await {
                Ok(found) => (Ok(()), found),
                Err(error) => (Err(BootError::Unreachable(error)), None),
            }
        } else {
            (Ok(()), None)
        };
        // Who waits for a failure ends the container; if nobody does, it may come back.
        drop(reached.send(outcome));
        spending.watch(kind, silent, found, &board).await;
    }));
    reaching
}

/// Every step before the agent; what its first prompt says of the attachments.
async fn steps(
    grounds: &Grounds,
    settings: &Settings,
    git: &Git,
    environment: &Environment,
    inits: &mut BTreeMap<String, Process>,
) -> Result<Option<String>, BootError> {
    let mut progress = Progress::read(&grounds.paths.state(), grounds.started_ms);
    // Beside the other steps: they need neither each other's network nor each other's files.
    let attached = attached::fetch(grounds, settings);
    let mut step = Step {
        grounds,
        begun: Instant::now(),
        name: "",
    };
    step.begin("repository");
    if !progress.is_done("repository") {
        repository(grounds, settings, git).await?;
        progress.done("repository");
    } else {
        login_again(grounds, settings);
    }
    step.begin("credentials");
    identify(grounds, settings, git).await?;
    step.begin("environment");
    write_environment(grounds, settings).await?;
    step.begin("init");
    if !progress.is_done("init") {
        init_scripts(grounds, settings, environment, inits, &mut progress).await?;
        progress.done("init");
    }
    step.begin("attachments");
    let attached = attached.await.unwrap_or_else(|error| {
        tracing::error!(%error, "the attachments' task ended");
        Vec::new()
    });
    step.begin("agent");
    Ok(attachments::paragraph(&attached))
}

/// Names the step in the phase and logs how long the one before took.
struct Step<'a> {
    grounds: &'a Grounds,
    begun: Instant,
    name: &'static str,
}

impl Step<'_> {
    fn begin(&mut self, name: &'static str) {
        if !self.name.is_empty() {
            tracing::info!(
                step = self.name,
                ms = self.begun.elapsed().as_millis(),
                "done"
            );
        }
        self.name = name;
        self.begun = Instant::now();
        self.grounds
            .board
            .phase(Phase::Booting { step: name.into() });
    }
}

/// The checkout is done, but the login was in the memory of the supervisor before.
fn login_again(grounds: &Grounds, settings: &Settings) {
    login(grounds, settings, true);
    let trusted = settings.repo.as_ref().filter(|_| !is_untrusted(settings));
    let remote = trusted.and_then(|repo| Remote::parse(repo.url.expose()));
    let Some((remote, _)) = remote else { return };
    let (platform, credentials) = (grounds.platform.clone(), grounds.git_credentials.clone());
    // The agent runs already: nothing here waits for the platform.
    drop(tokio::spawn(async move {
        platform.keep_login(&remote, &credentials).await;
    }));
}

async fn repository(grounds: &Grounds, settings: &Settings, git: &Git) -> Result<(), BootError> {
    let directory = grounds.paths.checkout();
    let made = grounds.helper.make_directory(&directory, 0o755).await;
    made.map_err(|source| BootError::Directory {
        path: directory.clone(),
        source,
    })?;
    if settings.repo.is_none() && settings.restore.is_none() {
        return Ok(());
    }
    let configuration = grounds.paths.git_configuration();
    git::write_configuration(&configuration, grounds.paths.home()).map_err(|source| {
        BootError::Environment {
            path: configuration,
            source,
        }
    })?;
    let Some(repo) = &settings.repo else {
        restored::take_up(grounds, settings, git).await?;
        return Ok(());
    };
    login(grounds, settings, false);
    if let Some((remote, _)) = Remote::parse(repo.url.expose()) {
        grounds
            .platform
            .keep_login(&remote, &grounds.git_credentials)
            .await;
    }
    let mirror = repo.mirror.as_ref().map(Sensitive::expose);
    if let Some((remote, Some((username, password)))) = mirror.and_then(Remote::parse) {
        grounds
            .git_credentials
            .set_mirror(remote, username, password);
    }
    let restored = restored::take_up(grounds, settings, git).await?;
    let has_code = restored.is_some_and(|restored| restored.code);
    let checkout = Checkout {
        directory,
        url: credentials::without_login(repo.url.expose()),
        mirror: mirror.map(credentials::without_login),
        source_branch: repo.source_branch.clone(),
        // A restored checkout stays on the branch that it came back with.
        branch: repo.branch.clone().filter(|_| !has_code),
        depth: repo.depth,
    };
    let checked = checkout.run(git, &grounds.helper).await;
    grounds.git_credentials.forget_mirror();
    match checked? {
        Checked::Fresh {
            branch,
            start,
            missing,
        } => {
            tracing::info!(branch, start, "checked out");
            if !missing.is_empty() {
                grounds
                    .board
                    .note(kind::SUBMODULES_MISSING, json!({"paths": missing}));
            }
        }
        Checked::Kept => tracing::info!("the checkout is as it was left"),
        Checked::Empty { branch } => tracing::info!(branch, "the repository is empty"),
    }
    if is_untrusted(settings) {
        login(grounds, settings, true);
    }
    Ok(())
}

fn is_untrusted(settings: &Settings) -> bool {
    let repo = settings.repo.as_ref();
    repo.is_some_and(|repo| repo.trust == Trust::Untrusted)
}

/// Holds the login for git: that of the repository's URL, and over it the one that was given since. Of an untrusted
/// repository that is `fetched`, none from then on: what it makes an agent do must not push with it.
fn login(grounds: &Grounds, settings: &Settings, fetched: bool) {
    if fetched && is_untrusted(settings) {
        grounds.platform.end_login();
        grounds.git_credentials.close();
        return;
    }
    let url = settings.repo.as_ref().map(|repo| repo.url.expose());
    if let Some((remote, Some((username, password)))) = url.and_then(Remote::parse) {
        grounds.git_credentials.set(remote, username, password);
    }
    grounds.rotated.login(&grounds.git_credentials);
}

/// Name, address and credential helper for the agents' own git, where nobody set them.
async fn identify(grounds: &Grounds, settings: &Settings, git: &Git) -> Result<(), BootError> {
    let edit = setup::git_configuration(&grounds.paths, settings, git);
    home::apply(&grounds.helper, &[edit])
        .await
        .map_err(BootError::Credentials)
}

async fn write_environment(grounds: &Grounds, settings: &Settings) -> Result<(), BootError> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| BootError::Environment { path, source }
    };
    let (files, _) = again::ours(grounds, settings);
    for file in &files {
        again::put(grounds, file).map_err(failed(&file.path))?;
    }
    old::own_files(grounds, &files);
    shell::write(&grounds.paths)
        .map_err(|(path, source)| BootError::Environment { path, source })?;
    // There before the first shell is, so that what it runs is noticed.
    let histories = grounds.paths.histories();
    if let Err(error) = grounds.helper.make_directory(&histories, 0o700).await {
        tracing::warn!(%error, "shells may have no history");
    }
    let edits = shell::start_files(&grounds.paths, shell::is_installed);
    home::apply(&grounds.helper, &edits)
        .await
        .map_err(BootError::Shell)
}

async fn init_scripts(
    grounds: &Grounds,
    settings: &Settings,
    environment: &Environment,
    left: &mut BTreeMap<String, Process>,
    progress: &mut Progress,
) -> Result<(), BootError> {
    let scripts = &settings.configuration.init_scripts;
    let present = grounds.paths.init_script();
    let run = |index: usize, script: PathBuf, user: InitUser| init_script::Run {
        name: format!("{}{index}", init_script::PREFIX),
        script,
        directory: grounds.paths.checkout(),
        user: if user == InitUser::Root {
            None
        } else {
            grounds.identity.credentials()
        },
        environment: environment.clone().into_pairs(),
        limit: settings.init_timeout,
        log_directory: grounds.paths.logs(),
    };
    if scripts.is_empty() {
        // One that the image brings.
        if present.is_file() {
            let script = run(0, present, InitUser::User);
            let adopted = left.remove(&script.name);
            script.run(&grounds.keeper, adopted).await?;
        }
        return Ok(());
    }
    // Parts of one user share a shell; where the user changes, a new one begins.
    let mut groups: Vec<(InitUser, Vec<Part>)> = Vec::new();
    for (layer, script) in scripts {
        let part = Part {
            layer: layer.to_string(),
            script: script.text.clone(),
        };
        match groups.last_mut() {
            Some((user, parts)) if *user == script.user => parts.push(part),
            _ => groups.push((script.user, vec![part])),
        }
    }
    let single = groups.len() == 1;
    for (index, (user, parts)) in groups.into_iter().enumerate() {
        let script = if single {
            present.clone()
        } else {
            grounds.paths.init_parts().join(format!("{index}.sh"))
        };
        let run = run(index, script, user);
        if progress.is_done(&run.name) {
            continue;
        }
        let adopted = left.remove(&run.name);
        if adopted.is_none() {
            let directory = grounds.paths.init_parts().join(index.to_string());
            init_script::write(&parts, &run.script, &directory)?;
        }
        run.run(&grounds.keeper, adopted).await?;
        progress.done(&run.name);
    }
    Ok(())
}

/// How the program of `--idle-action` is run, with the environment of what is in force then.
#[must_use]
pub fn idle_runner(
    grounds: &Arc<Grounds>,
    in_force: impl Fn() -> Arc<Settings> + Send + Sync + 'static,
) -> crate::idle::Runner {
    let environment = {
        let grounds = grounds.clone();
        move || environment_for(&grounds, &in_force(), &mut Vec::new()).into_pairs()
    };
    crate::idle::Runner {
        keeper: grounds.keeper.clone(),
        backups: grounds.backups.clone(),
        user: grounds.identity.credentials(),
        environment: Box::new(environment),
        directory: grounds.paths.checkout(),
        logs: grounds.paths.logs(),
    }
}

fn git_for(grounds: &Grounds, settings: &Settings) -> Git {
    let environment = environment_for(grounds, settings, &mut Vec::new());
    Git {
        runner: git::Runner::Keeper(grounds.keeper.clone()),
        user: grounds.identity.credentials(),
        environment: setup::plain(&environment),
        credential_helper: setup::credential_helper(&grounds.identity.binary, &grounds.paths),
        configuration: grounds.paths.git_configuration(),
    }
}

/// How the work tree is saved; `None`: it is not to be.
#[must_use]
pub fn snapshots(grounds: &Grounds, settings: &Settings) -> Option<Snapshots> {
    settings.backup.code.then(|| Snapshots {
        git: git_for(grounds, settings),
        helper: grounds.helper.clone(),
        checkout: grounds.paths.checkout(),
        scratch: grounds.paths.home().join(".cache/whim/snapshot.git"),
        limits: Limits::default(),
        clean: Clean::default(),
    })
}

/// Git as the boot runs it, without a supervisor that could be asked for a login.
///
/// # Errors
/// When its configuration cannot be written.
pub fn plain_git(
    keeper: &Keeper,
    identity: &Identity,
    paths: &Paths,
    variables: &Variables,
    settings: &Settings,
) -> std::io::Result<Git> {
    let configuration = paths.git_configuration();
    git::write_configuration(&configuration, paths.home())?;
    let mut user = identity.user.clone();
    user.home = paths.home().to_owned();
    let built = environment::build(
        variables,
        settings.backup.kind,
        &settings.pass_env,
        &settings.configuration,
        &user,
    );
    Ok(Git {
        runner: git::Runner::Keeper(keeper.clone()),
        user: identity.credentials(),
        environment: setup::plain(&built.environment),
        credential_helper: setup::credential_helper(&identity.binary, paths),
        configuration,
    })
}

/// The environment of the agents' processes; `files` gets the environment files as shell text.
fn environment_for(
    grounds: &Grounds,
    settings: &Settings,
    files: &mut Vec<(String, String)>,
) -> Environment {
    let mut user = grounds.identity.user.clone();
    user.home = grounds.paths.home().to_owned();
    let built = environment::build(
        &grounds.variables,
        settings.backup.kind,
        &settings.pass_env,
        &settings.configuration,
        &user,
    );
    for mistake in built.mistakes {
        tracing::warn!(%mistake, "environment");
    }
    // Without these the dev servers of the usual frameworks refuse the name of a preview.
    let mut environment = built.environment;
    for (name, value) in settings
        .preview
        .url
        .as_deref()
        .map(preview_environment)
        .unwrap_or_default()
    {
        if environment.get(&name).is_none() {
            environment.set(name, value);
        }
    }
    files.extend(
        built
            .files
            .iter()
            .map(|(name, values)| (name.clone(), values.to_shell())),
    );
    environment
}
