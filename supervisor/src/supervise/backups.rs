//! The start of the backup agent: the store that it writes to, and what it may know.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::backup::{self};
use crate::boot::{self, Grounds};
use crate::config::Settings;
use crate::config::values::StoreKind;
use crate::secrets::Secrets;

/// From now on the history is saved. Without it the agent works all the same, and the state says so.
pub(super) fn start(
    grounds: &Grounds,
    settings: &Settings,
    secrets: Arc<Secrets>,
    stop: &CancellationToken,
) {
    let mut store = settings.backup.clone();
    if let (StoreKind::Backend, Some(backend)) = (store.kind, &settings.backend) {
        let token = grounds.rotated.token();
        let token = token.unwrap_or_else(|| backend.token.clone());
        store
            .environment
            .insert(backup::platform::TOKEN.to_owned(), token);
    }
    let setup = backup::agent::Setup {
        settings: store,
        variables: grounds.variables.clone(),
        task: settings
            .task
            .id
            .clone()
            .unwrap_or_else(|| backup::NAMELESS.to_owned()),
        helper: grounds.helper.clone(),
        paths: grounds.paths.clone(),
        board: grounds.board.clone(),
        snapshots: boot::snapshots(grounds, settings),
        rotated: grounds.rotated.clone(),
        secrets,
        stop: stop.clone(),
    };
    if let Err(error) = grounds.backups.start(setup) {
        tracing::error!(%error, "nothing is backed up");
        let standing = whim_wire::state::Backup {
            error: Some(error.to_string()),
            ..whim_wire::state::Backup::default()
        };
        grounds.board.backup(standing);
    }
}
