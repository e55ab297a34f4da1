//! The end: which one of a session is the container's, and what is done before it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use whim_entrypoint::wire::ToKeeper;
use whim_wire::spec::Mode;
use whim_wire::state::{Phase, StateObject};

use super::failure::Failure;
use super::services::remove_ready;
use crate::board::Board;
use crate::boot::Grounds;
use crate::keeper::{Exit, Keeper, Stopping};
use crate::paths::Paths;
use crate::sessions::End;

/// Kept free of the grace for our own exit after everything is flushed.
const LAST_WORDS: Duration = Duration::from_millis(300);
/// Kept free of it for telling the platform what came of the last backup.
const TOLD: Duration = Duration::from_millis(500);

/// Until the session that the container is for has ended in a way that ends the container.
pub(super) async fn wait_for_end(
    ends: &mut mpsc::Receiver<(String, End)>,
    mode: Mode,
) -> Result<u8, Failure> {
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
pub(super) async fn end(
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
    // After all that is to be in it is on disk, before the platform is told the last.
    grounds.backups.finish(deadline - LAST_WORDS - TOLD).await;
    grounds.platform.drain(deadline - LAST_WORDS).await;
    remove_ready(paths);
    stop.cancel();
    tasks.close();
    drop(tokio::time::timeout_at(deadline, tasks.wait()).await);
    if let Err(error) = keeper.tell(ToKeeper::Flushed).await {
        tracing::debug!(%error, "the keeper ended first");
    }
}
