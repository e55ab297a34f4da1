//! The search: its store, what feeds it, and the secrets that both keep out.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::failure::{Failure, at};
use crate::config::Settings;
use crate::store::Store;
use crate::store::feed::{self, Feed, Secrets, Setup};

/// See the module's header.
#[derive(Debug)]
pub(super) struct Searching {
    pub(super) store: Store,
    pub(super) feed: Feed,
    secrets: Arc<Secrets>,
    tasks: TaskTracker,
}

impl Searching {
    /// Nothing waits for the disk here: the first job opens the store.
    pub(super) fn start(
        setup: impl FnOnce(Store, Arc<Secrets>) -> Setup,
        path: &std::path::Path,
        secrets: Secrets,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        let store = Store::new(path).map_err(|error| at(path, error))?;
        let secrets = Arc::new(secrets);
        let setup = setup(store.clone(), secrets.clone());
        let (feed, feeding) = Feed::new(setup, stop.clone());
        drop(tasks.spawn(feeding));
        Ok(Self {
            store,
            feed,
            secrets,
            tasks: tasks.clone(),
        })
    }

    /// The task is known now. Before its agent starts, which could repeat one of its secrets.
    pub(super) fn task(&self, settings: &Settings) {
        self.secrets.learn_settings(settings);
        let (store, task) = (self.store.clone(), feed::task(settings));
        drop(self.tasks.spawn(async move {
            if let Err(error) = store.describe(task).await {
                tracing::warn!(%error, "the search does not know the task");
            }
        }));
    }
}
