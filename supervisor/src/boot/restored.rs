//! The boot's own restore, from `spec.restore`: once for a root, before the checkout.
//!
//! Ledger and journal are open already, so they are carried on instead of put in their places: the calls of before count
//! in the spend and under the cap, and events go on with higher numbers than the task's platform has seen. The events
//! themselves stay in the backup.

use serde_json::json;
use whim_wire::event::kind;
use whim_wire::generation::LedgerLine;
use whim_wire::spec::{Restore, RestoreMode};

use super::git::Git;
use super::{Grounds, credentials};
use crate::backup::manifest::{File, Kind, Manifest};
use crate::backup::store::{Reader, StoreError};
use crate::config::settings::{Backup, Settings};
use crate::config::values;
use crate::restore::carry::{CarryError, Report, Restorer};
use crate::restore::plan::Wish;
use crate::restore::source::{self, From, Source, SourceError};

/// Largest file of ledger or journal: both rotate long before.
const LARGEST: u64 = 64 * 1024 * 1024;

/// Why the task could not be restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("restore.from: {0}")]
    From(&'static str),
    #[error("restore.from: {0}")]
    Source(#[from] SourceError),
    #[error("restore: {0}")]
    Carry(#[from] CarryError),
    #[error("restore: {0}")]
    Store(#[from] StoreError),
    #[error("restore: the ledger cannot be carried on: {0}")]
    Ledger(String),
}

impl RestoreError {
    /// Exit code, contract §8.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::From(_) => 65,
            Self::Source(_) | Self::Store(_) | Self::Carry(CarryError::Store(_)) => 69,
            Self::Carry(CarryError::Repository(error)) if error.is_remote() => 69,
            Self::Carry(CarryError::Plan(_) | CarryError::Code(_) | CarryError::NoBundle) => 65,
            Self::Carry(_) | Self::Ledger(_) => 73,
        }
    }
}

/// What was restored into this root, now or before; `None`: nothing.
pub(super) async fn take_up(
    grounds: &Grounds,
    settings: &Settings,
    git: &Git,
) -> Result<Option<Report>, RestoreError> {
    let known = Report::read(&grounds.paths)?;
    let Some(wanted) = &settings.restore else {
        return Ok(known);
    };
    if known.is_some() {
        return Ok(known);
    }
    let (backup, task) = place(&settings.backup, wanted)?;
    let Source { store, manifest } = source::find(
        &backup,
        &grounds.variables,
        task.as_deref().or(wanted.task.as_deref()),
        wanted.at.as_deref(),
    )
    .await?;
    let repo = settings.repo.as_ref();
    let restorer = Restorer {
        git,
        helper: &grounds.helper,
        paths: &grounds.paths,
        store: &store,
        manifest: &manifest,
        remote: repo.map(|repo| credentials::without_login(repo.url.expose())),
        branch: repo.and_then(|repo| repo.branch.clone()),
        with_state: false,
    };
    let wish = Wish {
        mode: wanted.mode,
        agent: Some(settings.agent.kind),
        summary: wanted.summary,
    };
    let mut reader = store.reader(&manifest);
    if wanted.mode == RestoreMode::Resume {
        spending(grounds, &manifest, &mut reader).await?;
        numbers(grounds, &manifest, &mut reader).await?;
    }
    let report = restorer.run(&wish).await?;
    for note in &report.notes {
        tracing::warn!(note, "restored");
    }
    grounds.board.note(kind::TASK_RESTORED, json!(report));
    Ok(Some(report))
}

/// The store that is meant, and the task where one is named.
fn place(configured: &Backup, wanted: &Restore) -> Result<(Backup, Option<String>), RestoreError> {
    match source::parse(wanted.from.expose()) {
        From::Task(task) => Ok((configured.clone(), Some(task))),
        From::Url(url) => {
            let kind = values::store(&url).map_err(RestoreError::From)?;
            let backup = Backup {
                url: url.into(),
                kind,
                ..configured.clone()
            };
            Ok((backup, None))
        }
    }
}

/// Calls of before, each once however often this is repeated.
async fn spending<'a>(
    grounds: &Grounds,
    manifest: &'a Manifest,
    reader: &mut Reader<'a>,
) -> Result<(), RestoreError> {
    let lines = |file: &&File| file.kind == Kind::Ledger && file.path.ends_with(".jsonl");
    let mut files: Vec<&File> = manifest.files.iter().filter(lines).collect();
    // `generations-2.jsonl` before `generations-10.jsonl`, the current one last.
    files.sort_by_key(|file| {
        let name = file.path.trim_end_matches(".jsonl");
        let number = name
            .rsplit_once('-')
            .and_then(|(_, number)| number.parse::<u64>().ok());
        number.unwrap_or(u64::MAX)
    });
    for file in files {
        let content = reader.whole(file, LARGEST).await?;
        let lines: Vec<LedgerLine> = content
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect();
        let carried = grounds.spending.proxy().carry_on(lines).await;
        carried.map_err(|error| RestoreError::Ledger(error.to_string()))?;
    }
    Ok(())
}

/// Events go on after the last one that was saved.
async fn numbers<'a>(
    grounds: &Grounds,
    manifest: &'a Manifest,
    reader: &mut Reader<'a>,
) -> Result<(), RestoreError> {
    #[derive(serde::Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let segments = manifest
        .files
        .iter()
        .filter(|file| file.kind == Kind::Journal);
    // Segments are named by the number of their first event.
    let Some(last) = segments.max_by(|one, other| one.path.cmp(&other.path)) else {
        return Ok(());
    };
    let content = reader.whole(last, LARGEST).await?;
    let numbered = |line| serde_json::from_slice::<Numbered>(line).ok();
    let newest = content
        .split(|byte| *byte == b'\n')
        .rev()
        .find_map(numbered);
    if let Some(Numbered { seq }) = newest {
        grounds.board.journal().go_on_after(seq);
    }
    Ok(())
}
