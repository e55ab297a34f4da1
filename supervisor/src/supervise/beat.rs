//! The beat: the state object's age, and memory given back at rest.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::board::Board;
use crate::rest::{self, Growth, Rest};

/// Between two refreshes of the state object, so that its age tells a dead writer from an idle agent.
const BEAT: Duration = Duration::from_secs(2);

/// Until `stop`.
pub(super) async fn beat(board: Arc<Board>, stop: CancellationToken) {
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let states = board.watch();
    let mut rest = Rest::default();
    let mut growth = Growth::default();
    loop {
        tokio::select! {
            _ = beat.tick() => {
                board.refresh();
                let state = states.borrow().state;
                if rest.begins(state) {
                    rest::give_back();
                }
                growth.shrink().await;
            }
            () = stop.cancelled() => return,
        }
    }
}
