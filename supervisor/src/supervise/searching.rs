//! The search: its store and what feeds it.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure::{Failure, at};
use crate::backup::agent::Backups;
use crate::config::Settings;
use crate::paths::Paths;
use crate::secrets::Secrets;
use crate::store::Store;
use crate::store::feed::elsewhere::Elsewhere;
use crate::store::feed::{self, Feed, Hidden, Setup};

/// See the module's header.
#[derive(Debug)]
pub(super) struct Searching {
    pub(super) store: Store,
    pub(super) feed: Feed,
    pub(super) elsewhere: Elsewhere,
    tasks: TaskTracker,
}

impl Searching {
    /// Nothing waits for the disk here: the first job opens the store.
    pub(super) fn start(
        setup: impl FnOnce(Store, Arc<Hidden>) -> Setup,
        paths: &Paths,
        known: Arc<Secrets>,
        backups: &Backups,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        let path = paths.store();
        let store = Store::new(&path).map_err(|error| at(&path, error))?;
        let hidden = Arc::new(Hidden::new(known));
        let setup = setup(store.clone(), hidden.clone());
        let (feed, feeding) = Feed::new(setup, stop.clone());
        drop(tasks.spawn(feeding));
        Ok(Self {
            elsewhere: Elsewhere::new(store.clone(), backups.clone(), hidden),
            store,
            feed,
            tasks: tasks.clone(),
        })
    }

    /// The task is known now.
    pub(super) fn task(&self, settings: &Settings) {
        let (store, task) = (self.store.clone(), feed::task(settings));
        drop(self.tasks.spawn(async move {
            if let Err(error) = store.describe(task).await {
                tracing::warn!(%error, "the search does not know the task");
            }
        }));
    }
}
