//! Which snapshot is meant: a store, a task in it, a point in time.

use crate::backup::manifest::{Manifest, SnapshotId};
use crate::backup::objects::{Objects, OpenError};
use crate::backup::store::{self, Store, StoreError};
use crate::config::Variables;
use crate::config::settings::Backup;

/// Tasks that an error names.
const NAMED: usize = 20;

/// Why there is no such snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} is no directory: there is no backup")]
    Missing(String),
    #[error("the store holds no backup of any task")]
    Empty,
    #[error("the store holds backups of several tasks: choose one with --task: {}", .0.join(", "))]
    Several(Vec<String>),
    #[error("the store holds no complete snapshot of task {0}")]
    NoSnapshot(String),
    #[error("task {task} has no snapshot {at}; the newest are: {}", newest.join(", "))]
    NoSuch {
        task: String,
        at: String,
        newest: Vec<String>,
    },
}

/// A snapshot and the store that it lies in.
#[derive(Debug)]
pub struct Source {
    pub store: Store,
    pub manifest: Manifest,
}

/// What is written where a backup is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// A store's URL.
    Url(String),
    /// A task in the store that is configured.
    Task(String),
}

/// A URL, the absolute path of a directory, or the id of a task.
#[must_use]
pub fn parse(from: &str) -> From {
    if from.contains("://") {
        return From::Url(from.to_owned());
    }
    match url::Url::from_file_path(from) {
        Ok(url) => From::Url(url.into()),
        // Not an absolute path.
        Err(()) => From::Task(from.to_owned()),
    }
}

/// Finds it. `task`: none: the only one of the store. `at`: none: the newest.
///
/// # Errors
/// [`SourceError`].
pub async fn find(
    backup: &Backup,
    variables: &Variables,
    task: Option<&str>,
    at: Option<&str>,
) -> Result<Source, SourceError> {
    // Opening a directory makes it, which is no help to who reads.
    if let Ok(url) = url::Url::parse(backup.url.expose())
        && let Ok(path) = url.to_file_path()
        && url.scheme() == "file"
        && !path.is_dir()
    {
        return Err(SourceError::Missing(path.display().to_string()));
    }
    let objects = Objects::open(backup, variables)?;
    let task = match task {
        Some(task) => task.to_owned(),
        None => only(&objects).await?,
    };
    let store = Store::of(objects, &task)?;
    let manifest = match at {
        None => store.newest().await?,
        Some(at) => Some(chosen(&store, &task, at).await?),
    };
    let manifest = manifest.ok_or(SourceError::NoSnapshot(task))?;
    Ok(Source { store, manifest })
}

async fn only(objects: &Objects) -> Result<String, SourceError> {
    let mut tasks = store::tasks(objects, None).await?;
    match (tasks.pop(), tasks.is_empty()) {
        (None, _) => Err(SourceError::Empty),
        (Some(task), true) => Ok(task),
        (Some(last), false) => {
            tasks.push(last);
            tasks.truncate(NAMED);
            Err(SourceError::Several(tasks))
        }
    }
}

/// By its whole id, or by the beginning of one: the newest that begins so (`20261122T12`).
async fn chosen(store: &Store, task: &str, at: &str) -> Result<Manifest, SourceError> {
    let ids = store.list_manifests().await?;
    let found = ids
        .iter()
        .rev()
        .find(|id| !at.is_empty() && id.as_str().starts_with(at));
    match found {
        Some(id) => Ok(store.get_manifest(id).await?),
        None => Err(SourceError::NoSuch {
            task: task.to_owned(),
            at: at.to_owned(),
            newest: ids
                .iter()
                .rev()
                .take(5)
                .map(SnapshotId::to_string)
                .collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_paths_and_tasks_are_told_apart() {
        assert_eq!(parse("s3://bucket/x"), From::Url("s3://bucket/x".into()));
        assert_eq!(
            parse("/var/backups"),
            From::Url("file:///var/backups".into())
        );
        assert_eq!(parse("ww-12"), From::Task("ww-12".into()));
    }
}
