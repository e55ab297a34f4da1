//! `whim backup now|list|verify` and `whim purge`.
//!
//! `now` asks the supervisor. The others ask it too, and where none runs, or with `--backup`, they read the store
//! themselves.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Args, Subcommand};
use http::Method;
use serde_json::Value;

use super::client::ClientError;
use super::text::escape;
use super::{CliError, Outcome, Place};
use crate::backup::manifest::SnapshotId;
use crate::backup::objects::Objects;
use crate::backup::platform;
use crate::backup::store::{self, Store};
use crate::backup::verify::{self, Summary, Verified};
use crate::config::environment::is_store_variable;
use crate::config::settings::{BACKUP_INTERVAL, Backup};
use crate::config::values::{self, StoreKind};
use crate::config::{Secret, Variables};

pub(super) const EXAMPLES: &str = "\
Examples:
  whim backup now
  whim backup list
  whim backup verify
  whim backup list --backup s3://bucket/history --task ww-12
  whim backup verify --backup file:///mnt/history --task ww-12 --at 20261122T030405.678Z-0123abcd

Exit codes: 0 all complete records are in the store, or the snapshot came back whole; 1 not; 4 no whim runs here.";

/// Snapshots that `list` shows.
const SHOWN: usize = 50;

/// A store that is read without a supervisor.
#[derive(Clone, Debug, Args)]
pub(super) struct From {
    /// Read this store instead of asking the supervisor; credentials come from the environment (AWS_*, GOOGLE_*, AZURE_*).
    #[arg(long, value_name = "URL")]
    backup: Option<String>,
    /// The task; needed where the store has several.
    #[arg(long, value_name = "ID")]
    task: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Back up now; 0 once every complete record that existed is in the store.
    Now {
        /// The answer as JSON.
        #[arg(long)]
        json: bool,
    },
    /// The task's newest snapshots.
    List {
        #[command(flatten)]
        from: From,
        #[arg(long)]
        json: bool,
    },
    /// Read a snapshot back and check every byte.
    Verify {
        #[command(flatten)]
        from: From,
        /// Which one; the newest if it is left out.
        #[arg(long, value_name = "SNAPSHOT")]
        at: Option<String>,
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn run(place: &Place, command: Command) -> Result<Outcome, CliError> {
    match command {
        Command::Now { json } => now(place, json).await,
        Command::List { from, json } => {
            let listed = list(place, &from).await?;
            let text = if json {
                lines(&listed)?
            } else {
                table(&listed)
            };
            Ok(Outcome::text(text))
        }
        Command::Verify { from, at, json } => {
            let verified = verify(place, &from, at).await?;
            let text = if json {
                lines(std::slice::from_ref(&verified))?
            } else {
                said(&verified)
            };
            Ok(Outcome {
                code: u8::from(!verified.ok),
                text,
                error: None,
            })
        }
    }
}

async fn now(place: &Place, json: bool) -> Result<Outcome, CliError> {
    let taken: Value = place
        .client()
        .call(Method::POST, "/v1/backups", None)
        .await?;
    if json {
        return Ok(Outcome::text(format!("{taken}\n")));
    }
    let word = |name: &str| taken.get(name).cloned().unwrap_or_default();
    let text = match word("snapshot").as_str() {
        None => "nothing to save yet\n".to_owned(),
        Some(snapshot) if word("taken") == true => format!(
            "{snapshot}: {} files, {} new bytes\n",
            word("files"),
            word("new_bytes")
        ),
        Some(snapshot) => format!("{snapshot}: nothing changed since\n"),
    };
    Ok(Outcome::text(text))
}

async fn list(place: &Place, from: &From) -> Result<Vec<Summary>, CliError> {
    if from.backup.is_none() {
        let path = format!("/v1/backups?limit={SHOWN}");
        match place.client().get::<Value>(&path).await {
            Ok(mut answer) => {
                let listed = answer.get_mut("backups").map(Value::take);
                let listed = serde_json::from_value(listed.unwrap_or_default());
                return listed.map_err(|error| ClientError::Json(error).into());
            }
            Err(ClientError::NotRunning { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let store = open(place, from).await?;
    let listed = verify::list(&store, SHOWN).await;
    listed.map_err(|error| CliError::Backup(error.to_string()))
}

async fn verify(place: &Place, from: &From, at: Option<String>) -> Result<Verified, CliError> {
    let wrong = |error: &dyn std::fmt::Display| CliError::Backup(error.to_string());
    let at = at.map(|at| at.parse::<SnapshotId>()).transpose();
    let at = at.map_err(|error| wrong(&error))?;
    if from.backup.is_none() {
        let path = match &at {
            Some(at) => format!("/v1/backups/verify?at={at}"),
            None => "/v1/backups/verify".to_owned(),
        };
        match place.client().call(Method::POST, &path, None).await {
            Err(ClientError::NotRunning { .. }) => {}
            answer => return Ok(answer?),
        }
    }
    let store = open(place, from).await?;
    let verified = verify::verify(&store, at.as_ref()).await;
    let verified = verified.map_err(|error| wrong(&error))?;
    verified
        .ok_or_else(|| CliError::Backup(format!("there is no snapshot of task {}", store.task())))
}

pub(super) async fn purge(place: &Place, from: &From, yes: bool) -> Result<Outcome, CliError> {
    if !yes {
        let error = "this removes all snapshots of the task for good; say --yes".to_owned();
        return Ok(Outcome::failure(64, error));
    }
    let objects = if from.backup.is_none() {
        let client = place.client();
        let answer: Value = client.call(Method::DELETE, "/v1/backups", None).await?;
        answer.get("objects").and_then(Value::as_u64).unwrap_or(0)
    } else {
        let store = open(place, from).await?;
        let purged = store.purge().await;
        purged.map_err(|error| CliError::Backup(error.to_string()))? as u64
    };
    Ok(Outcome::text(format!("{objects} objects removed\n")))
}

/// The store itself: of `--backup`, else of the variable, else the one under the root.
async fn open(place: &Place, from: &From) -> Result<Store, CliError> {
    let wrong = |error: &dyn std::fmt::Display| CliError::Backup(error.to_string());
    let variables = Variables::new(std::env::vars_os());
    let named = variables
        .get("WHIM_BACKUP_URL")
        .and_then(|url| url.to_str())
        .map(str::to_owned);
    let own = || {
        let directory = std::path::absolute(place.paths().backup()).ok()?;
        url::Url::from_file_path(directory).ok().map(String::from)
    };
    let url = from
        .backup
        .clone()
        .or(named)
        .or_else(own)
        .unwrap_or_default();
    let kind = values::store(&url).map_err(|problem| {
        CliError::Backup(format!("--backup {problem}; {}", values::STORE_REMEDY))
    })?;
    if kind == StoreKind::File {
        // Reading makes no directories.
        let path = url::Url::parse(&url)
            .ok()
            .and_then(|url| url.to_file_path().ok());
        if let Some(path) = path.filter(|path| !path.is_dir()) {
            return Err(CliError::Backup(format!(
                "{}: there is no such store",
                path.display()
            )));
        }
    }
    let settings = Backup {
        url: url.into(),
        kind,
        interval: BACKUP_INTERVAL,
        recordings: false,
        code: false,
        environment: credentials(kind, &variables),
    };
    let objects = Objects::open(&settings, &variables).map_err(|error| wrong(&error))?;
    let task = match &from.task {
        Some(task) => task.clone(),
        None => the_only(
            &store::tasks(&objects, None)
                .await
                .map_err(|error| wrong(&error))?,
        )?,
    };
    Store::of(objects, &task).map_err(|error| wrong(&error))
}

fn credentials(kind: StoreKind, variables: &Variables) -> BTreeMap<String, Secret> {
    let given = variables.iter().filter_map(|(name, value)| {
        let (name, value) = (name.to_str()?, value.to_str()?);
        let wanted = is_store_variable(kind, name)
            || (kind == StoreKind::Backend && name == platform::TOKEN);
        wanted.then(|| (name.to_owned(), Secret::new(value.to_owned())))
    });
    given.collect()
}

fn the_only(tasks: &[String]) -> Result<String, CliError> {
    match tasks {
        [task] => Ok(task.clone()),
        [] => Err(CliError::Backup("the store has no snapshots".into())),
        several => Err(CliError::Backup(format!(
            "the store has several tasks; name one with --task: {}",
            several.join(", ")
        ))),
    }
}

fn lines<T: serde::Serialize>(values: &[T]) -> Result<String, CliError> {
    let mut text = String::new();
    for value in values {
        text.push_str(&serde_json::to_string(value).map_err(ClientError::Json)?);
        text.push('\n');
    }
    Ok(text)
}

fn table(listed: &[Summary]) -> String {
    if listed.is_empty() {
        return "no snapshots yet\n".to_owned();
    }
    let mut text = format!(
        "{:<29}  {:<10}  {:>6}  {:>12}  {:>12}\n",
        "SNAPSHOT", "REASON", "FILES", "BYTES", "STORED"
    );
    for summary in listed {
        let damaged = match summary.damaged {
            0 => String::new(),
            damaged => format!("  {damaged} damaged beside good ones"),
        };
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{:<29}  {:<10}  {:>6}  {:>12}  {:>12}{damaged}",
            escape(&summary.id),
            escape(&summary.reason),
            summary.files,
            summary.bytes,
            summary.stored_bytes
        );
    }
    text
}

fn said(verified: &Verified) -> String {
    let mut text = format!(
        "{} of task {}: {} files, {} bytes, {}\n",
        escape(&verified.snapshot),
        escape(&verified.task),
        verified.files,
        verified.bytes,
        if verified.ok {
            "all as they went in"
        } else {
            "NOT WHOLE"
        }
    );
    for damaged in &verified.damaged {
        let _ = writeln!(
            text,
            "  {}: {}",
            escape(&damaged.path),
            escape(&damaged.error)
        );
    }
    text
}
