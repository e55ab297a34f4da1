//! `whim restore`: a backup into this root, without a supervisor.
//!
//! It runs under a keeper of its own, as the boot does, so that git and the helper work as the agents' user in the same
//! way. Where a supervisor runs it refuses: its agents work in that checkout.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, FromArgMatches as _, Parser};
use whim_entrypoint::wire::{SupervisorChannel, ToKeeper};
use whim_wire::spec::{AgentKind, RestoreMode};

use crate::boot::{self, credentials::without_login};
use crate::config::{Given, Settings, Variables};
use crate::helper::Helper;
use crate::identity::Identity;
use crate::keeper::{Inventory, Keeper};
use crate::paths::Paths;
use crate::restore::carry::{CarryError, Report, Restorer};
use crate::restore::plan::Wish;
use crate::restore::repository::RepositoryError;
use crate::restore::source::{self, From, Source, SourceError};
use crate::supervise::{self, Failure};

/// Settings of `whim run` that a restore goes by; a mistake in another one is not its business.
const KNOWN: [&str; 9] = [
    "WHIM_BACKUP_URL",
    "WHIM_BACKEND_URL",
    "WHIM_INTERNAL_API_TOKEN",
    "WHIM_INTERNAL_API_TOKEN_FILE",
    "WHIM_TASK_ID",
    "WHIM_USER",
    "WHIM_PASS_ENV",
    "WHIM_LOG",
    "WHIM_LOG_FORMAT",
];

const EXAMPLES: &str = "\
Examples:
  whim restore /var/backups/whim
  whim restore --task ww-12 --at 20261122T12 s3://history/acme
  whim restore --mode fork --branch try-again --backup s3://history/acme ww-12
  whim restore --agent codex --task ww-12 s3://history/acme

Afterwards `whim run` goes on with the conversation. Nothing that is there is overwritten. A repository that wants a
login is not cloned by this command: name a clone with --repo, or let `whim run` restore by its spec.

Exit codes: 0 restored, 64 wrong option, 65 the backup cannot be followed, 69 store, snapshot or repository cannot be
reached, 73 something is in the way, the disk is full, or it was interrupted, 78 git not usable.";

/// Put a backup into this root: the checkout, the agent's session, the histories.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RestoreOptions {
    /// The backup: URL of a store, path of a directory, or id of a task in the store of --backup
    #[arg(value_name = "FROM")]
    from: Option<String>,
    /// Prefix of every path, as given to `whim run`
    #[arg(long, env = "WHIM_ROOT", default_value = "/", value_name = "DIR")]
    root: PathBuf,
    /// The store, where FROM is a task [env: WHIM_BACKUP_URL] [default: file:// under the state directory]
    #[arg(long, value_name = "URL")]
    backup: Option<String>,
    /// The task, where the store holds several
    #[arg(long, value_name = "ID")]
    task: Option<String>,
    /// The snapshot: its id, or how it begins (20261122T12) [default: the newest complete one]
    #[arg(long, value_name = "SNAPSHOT")]
    at: Option<String>,
    /// resume: same branch and sessions; fork: a new branch and new sessions
    #[arg(long, default_value = "resume", value_name = "resume|fork")]
    mode: RestoreMode,
    /// Go on with another agent, which is told of the conversation
    #[arg(long, value_name = "KIND")]
    agent: Option<AgentKind>,
    /// Begin a new session that is told of the one before
    #[arg(long)]
    summary: bool,
    /// A fork's branch [default: a new name]
    #[arg(long, value_name = "BRANCH")]
    branch: Option<String>,
    /// Where the repository is now, in place of where it was
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Parser)]
#[command(name = "whim restore", disable_version_flag = true)]
struct Line {
    #[command(flatten)]
    options: RestoreOptions,
}

/// `whim restoring`, started by the keeper of `whim restore` only.
#[must_use]
pub fn main() -> ExitCode {
    supervise::under_keeper("whim restore", run)
}

async fn run(channel: SupervisorChannel) -> u8 {
    let (keeper, inventory) = match Keeper::connect(channel).await {
        Ok(connected) => connected,
        Err(error) => {
            complain(&error.to_string());
            return 70;
        }
    };
    let mut stopping = keeper.stopping();
    let done = tokio::select! {
        done = restore(&keeper, inventory) => done,
        _ = stopping.wait_for(Option::is_some) => {
            Err(Failure::new(73, "interrupted; the same command goes on where it stopped"))
        }
    };
    let code = match done {
        Ok(text) => {
            drop(std::io::stdout().write_all(text.as_bytes()));
            0
        }
        Err(failure) => {
            complain(&failure.message);
            failure.code
        }
    };
    // Gone only if the keeper is, and then nobody is left to tell.
    drop(keeper.tell(ToKeeper::Exit { code }).await);
    drop(stopping.wait_for(Option::is_some).await);
    drop(keeper.tell(ToKeeper::Flushed).await);
    code
}

fn complain(message: &str) {
    // The last place to say something; if it is closed nobody listens.
    drop(writeln!(
        std::io::stderr(),
        "whim: {}",
        super::text::escape(message)
    ));
}

async fn restore(keeper: &Keeper, inventory: Inventory) -> Result<String, Failure> {
    let told = supervise::arguments(&inventory.held)?;
    let variables = Variables::new(told.environment);
    let options = parse(told.arguments, &variables)?;
    let (settings, task) = settings(&options, &variables)?;
    supervise::start_log(&settings);
    let identity = Identity::find(&settings)?;
    let paths = Paths::new(settings.root.as_path(), &identity.user.home);
    if tokio::net::UnixStream::connect(paths.socket())
        .await
        .is_ok()
    {
        return Err(Failure::new(
            73,
            format!(
                "whim runs in {}: stop it first, or restore into another --root",
                paths.root().display()
            ),
        ));
    }
    let Source { store, manifest } = source::find(
        &settings.backup,
        &variables,
        options.task.as_deref().or(task.as_deref()),
        options.at.as_deref(),
    )
    .await
    .map_err(|error| Failure::caused(unavailable(&error), &error))?;
    boot::directories::make(&paths, &identity)?;
    let git = boot::plain_git(keeper, &identity, &paths, &variables, &settings)
        .map_err(|error| Failure::new(73, error.to_string()))?;
    let helper = Helper::new(
        keeper.clone(),
        identity.binary.clone(),
        identity.credentials(),
    );
    let restorer = Restorer {
        git: &git,
        helper: &helper,
        paths: &paths,
        store: &store,
        manifest: &manifest,
        remote: options.repo.as_deref().map(without_login),
        branch: options.branch.clone(),
        with_state: true,
    };
    let wish = Wish {
        mode: options.mode,
        agent: options.agent,
        summary: options.summary,
    };
    let report = restorer
        .run(&wish)
        .await
        .map_err(|error| Failure::caused(failed(&error), &error))?;
    if options.json {
        return serde_json::to_string(&report)
            .map(|text| text + "\n")
            .map_err(|error| Failure::new(70, error.to_string()));
    }
    Ok(said(&report, &paths))
}

/// The line, with variables where an option is missing. The environment of this process is not that of the command.
fn parse(arguments: Vec<OsString>, variables: &Variables) -> Result<RestoreOptions, Failure> {
    let mut line: Vec<OsString> = vec!["whim restore".into()];
    let rooted = |argument: &OsString| {
        argument == "--root" || argument.to_string_lossy().starts_with("--root=")
    };
    if !arguments.iter().any(rooted)
        && let Some(root) = variables.get("WHIM_ROOT").filter(|root| !root.is_empty())
    {
        line.extend(["--root".into(), root.clone()]);
    }
    line.extend(arguments);
    let parsed = <Line as clap::CommandFactory>::command()
        .try_get_matches_from(line)
        .and_then(|matches| Line::from_arg_matches(&matches));
    let mut options = parsed
        .map_err(|error| Failure::new(64, error.to_string().trim_end().to_owned()))?
        .options;
    // The keeper went to `/`.
    if let Some(from) = variables.get("PWD") {
        let from = PathBuf::from(from);
        options.root = from.join(&options.root);
        options.from = options.from.map(|named| absolute(&from, named));
    }
    if let Some(agent @ AgentKind::Custom) = options.agent {
        return Err(Failure::new(
            64,
            format!("--agent {agent}: has no conversation to go on with"),
        ));
    }
    if options.branch.is_some() && options.mode != RestoreMode::Fork {
        return Err(Failure::new(
            64,
            "--branch: only a fork has a branch of its own; add --mode fork",
        ));
    }
    Ok(options)
}

/// FROM as it was meant in the directory that the command was given in, where it is a path: no URL, and with a `/` or
/// a `.` at its beginning, as no task's id.
fn absolute(directory: &Path, from: String) -> String {
    if from.contains("://") || !(from.contains('/') || from.starts_with('.')) {
        return from;
    }
    let path = directory.join(&from);
    let path = path.canonicalize().unwrap_or(path);
    // What is no text cannot have been named by text, but the directory may be.
    path.into_os_string().into_string().unwrap_or(from)
}

/// Settings as `whim run` would have them in this root, and the task that FROM names.
fn settings(
    options: &RestoreOptions,
    variables: &Variables,
) -> Result<(Settings, Option<String>), Failure> {
    let (url, task) = match options.from.as_deref().map(source::parse) {
        Some(From::Url(url)) => (Some(url), None),
        Some(From::Task(task)) => (options.backup.clone(), Some(task)),
        None if options.backup.is_some() => (options.backup.clone(), None),
        None => {
            let message =
                "say what is to be restored: URL of a store, path of a directory, or id of a task";
            return Err(Failure::new(64, message));
        }
    };
    let mut arguments: Vec<OsString> = vec!["--root".into(), options.root.clone().into()];
    if let Some(url) = url {
        arguments.extend(["--backup".into(), url.into()]);
    }
    let known = variables.iter().filter(|(name, _)| {
        let name = name.to_string_lossy();
        !name.starts_with("WHIM_") || KNOWN.contains(&name.as_ref())
    });
    let known = Variables::new(known.map(|(name, value)| (name.clone(), value.clone())));
    let given = Given::parse(&arguments, known).map_err(|help| Failure::new(64, help))?;
    let resolved = given
        .resolve(None)
        .map_err(|invalid| Failure::new(64, invalid.to_string()))?;
    Ok((resolved.settings, task))
}

fn unavailable(error: &SourceError) -> u8 {
    use crate::backup::store::StoreError;
    match error {
        SourceError::Open(_) | SourceError::Several(_) => 64,
        SourceError::Store(StoreError::Manifest { .. } | StoreError::Task(_)) => 65,
        _ => 69,
    }
}

fn failed(error: &CarryError) -> u8 {
    use crate::backup::store::StoreError;
    use crate::boot::git::GitError;
    match error {
        CarryError::Plan(_)
        | CarryError::Code(_)
        | CarryError::NoBundle
        | CarryError::Repository(
            RepositoryError::Invalid(_) | RepositoryError::Incomplete { .. },
        )
        | CarryError::Store(StoreError::Segment { .. } | StoreError::Checksum { .. }) => 65,
        CarryError::Repository(RepositoryError::Git(GitError::Missing { .. })) => 78,
        CarryError::Repository(RepositoryError::BranchExists { .. }) => 64,
        CarryError::Repository(error) if error.is_remote() => 69,
        CarryError::Store(_) => 69,
        CarryError::Repository(_)
        | CarryError::Helper(_)
        | CarryError::InTheWay { .. }
        | CarryError::State { .. } => 73,
    }
}

fn said(report: &Report, paths: &Paths) -> String {
    let mut text = format!(
        "restored  task {}, snapshot {} ({})\n",
        report.task, report.snapshot, report.mode
    );
    let branch = report
        .branch
        .as_ref()
        .map(|branch| format!(", branch {branch}"))
        .unwrap_or_default();
    let agent = report.agent.as_deref().unwrap_or("the agent");
    let id = report.agent_session_id.as_deref().unwrap_or_default();
    let session = match report.session.as_str() {
        "resume" => format!("{agent} goes on with session {id}"),
        "fork" => format!("{agent} forks the session at its start"),
        "told" => format!("{agent} begins a new session and is told of the one before"),
        _ => "a new one begins".into(),
    };
    // Writing into a String cannot fail.
    let _ = writeln!(text, "checkout  {}{branch}", paths.checkout().display());
    let _ = writeln!(text, "session   {session}");
    let _ = writeln!(text, "files     {} ({} bytes)", report.files, report.bytes);
    for note in &report.notes {
        let _ = writeln!(text, "note      {note}");
    }
    text.lines()
        .map(|line| super::text::escape(line) + "\n")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_may_be_named_from_where_the_command_is_given() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(here.join("old/backups")).unwrap();
        let below = |path: &str| format!("file://{}", here.join(path).display());
        for (from, url, task) in [
            ("./old/backups", Some(below("old/backups")), None),
            ("old/../old/backups", Some(below("old/backups")), None),
            ("../nowhere/x", None, None),
            (".", Some(format!("file://{}", here.display())), None),
            ("/var/backups", Some("file:///var/backups".into()), None),
            ("s3://b/x", Some("s3://b/x".into()), None),
            ("ww-12", None, Some("ww-12")),
        ] {
            let variables = Variables::new([("PWD".into(), here.clone().into())]);
            let options = parse(vec![from.into()], &variables).unwrap();
            let (settings, named) = settings(&options, &variables).unwrap();
            assert_eq!(named.as_deref(), task, "{from}");
            if let Some(url) = url {
                assert_eq!(settings.backup.url.expose(), url, "{from}");
            }
        }
    }
}
