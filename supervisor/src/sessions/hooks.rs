//! The agents' hooks: a unix socket on which each hook writes one line and hangs up.
//!
//! The keeper holds the listener, so that lines sent while the supervisor restarts wait in the kernel. What comes is the
//! agent's word: it is parsed within bounds, attributed to the session it names, and never believed against stronger
//! evidence. Bounds: [`READERS`] lines are read at once, [`PATIENCE`] for each; a sender beyond that waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Sessions;
use super::evidence::Evidence;
use crate::agents::hook::{MAX_RECORD, parse};
use crate::clock::boot_now;

/// Hooks of one agent come one after the other; this many agents and subagents may speak at once.
const READERS: usize = 32;
/// The line is there when the sender connects; longer takes only who wants to hold the place.
const PATIENCE: Duration = Duration::from_secs(2);

/// Serves until the shutdown. `agents` and `own`: the uids that may report.
pub async fn serve(
    listener: UnixListener,
    sessions: Sessions,
    agents: u32,
    own: u32,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(READERS));
    loop {
        let place = tokio::select! {
            place = places.clone().acquire_owned() => place,
            () = shutdown.cancelled() => return,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let uid = stream.peer_cred().map(|peer| peer.uid());
                if !uid.is_ok_and(|uid| uid == agents || uid == own) {
                    tracing::warn!("a hook of another user was turned away");
                    continue;
                }
                let sessions = sessions.clone();
                drop(tokio::spawn(async move {
                    if let Err(error) = read(stream, &sessions).await {
                        tracing::warn!(%error, "hook not understood");
                    }
                    drop(place);
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "hooks cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn read(
    stream: UnixStream,
    sessions: &Sessions,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut line = Vec::new();
    let mut reader = BufReader::new(stream.take(MAX_RECORD as u64 + 1));
    tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let event = parse(&line)?;
    // Not what it says: prompts and the input of tools have no place in a log.
    tracing::debug!(session = event.session, agent = ?event.agent, "hook");
    let session = event.session.clone();
    let evidence = Evidence::Hook {
        at: boot_now(),
        event: Box::new(event),
    };
    tokio::time::timeout(PATIENCE, sessions.tell(&session, evidence)).await?;
    Ok(())
}
