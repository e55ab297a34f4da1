//! Sends a body at the script's pace, and goes wrong where the script says so.
//!
//! One task per answer; it hands writes over one at a time, so nothing is buffered beyond the one in flight. It ends
//! when everything was taken, the fault happened, or the client has gone, and says which. A stall, a hang and a closed
//! gate end after [`PATIENCE`] at the latest.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::record::Outcome;
use super::script::{Fault, Pace};

/// Longer than any agent waits for a silent provider (10 minutes).
const PATIENCE: Duration = Duration::from_secs(900);

/// Ends a connection in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("the script cuts the answer here")]
pub(super) struct Cut;

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// A body whose writes come from a [`Play`].
#[derive(Debug)]
pub(super) struct Played(mpsc::Receiver<Result<Bytes, Cut>>);

impl Body for Played {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        self.0
            .poll_recv(context)
            .map(|write| write.map(|write| write.map(Frame::data)))
    }
}

/// What to send and how.
#[derive(Debug)]
pub(super) struct Play {
    pub(super) writes: Vec<Bytes>,
    pub(super) pace: Pace,
    pub(super) fault: Option<Fault>,
    pub(super) gate: Option<String>,
    /// The error event of [`Fault::Error`].
    pub(super) error: Option<Bytes>,
    /// A second descriptor of the connection, for a reset.
    pub(super) connection: Arc<OwnedFd>,
}

enum End {
    Left,
    Fault,
}

impl Play {
    /// The body, and the sender's end of it for [`Self::run`].
    pub(super) fn body() -> (mpsc::Sender<Result<Bytes, Cut>>, Played) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Played(receiver))
    }

    /// Sends; `sent` is told every write that the connection took.
    pub(super) async fn run(
        mut self,
        sender: mpsc::Sender<Result<Bytes, Cut>>,
        gates: watch::Receiver<super::shared::Gates>,
        sent: impl FnMut(&Bytes),
    ) -> Outcome {
        let connection = Arc::clone(&self.connection);
        let reset = matches!(self.fault, Some(Fault::Reset { .. }));
        self.split();
        let end = self.send(&sender, gates, sent).await;
        match end {
            Ok(()) => return Outcome::Complete,
            Err(End::Left) => return Outcome::ClientLeft,
            Err(End::Fault) => {}
        }
        if reset {
            // With a linger time of zero the last close of a TCP socket sends RST in place of FIN.
            let linger = nix::libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            if setsockopt(&connection, sockopt::Linger, &linger).is_err() {
                return Outcome::ClientLeft;
            }
        }
        // Whether the connection still wanted to hear of it makes no difference: it ends.
        drop(sender.send(Err(Cut)).await);
        Outcome::Fault
    }

    fn split(&mut self) {
        if let Some(size) = self.pace.split.filter(|&size| size > 0) {
            let split = |write: &Bytes| {
                write
                    .chunks(size)
                    .map(Bytes::copy_from_slice)
                    .collect::<Vec<_>>()
            };
            self.writes = self.writes.iter().flat_map(split).collect();
        }
    }

    async fn send(
        self,
        sender: &mpsc::Sender<Result<Bytes, Cut>>,
        mut gates: watch::Receiver<super::shared::Gates>,
        mut sent: impl FnMut(&Bytes),
    ) -> Result<(), End> {
        let pause = async |ms: u64| match ms {
            0 => Ok(()),
            ms => {
                tokio::select! { () = sleep(Duration::from_millis(ms)) => Ok(()), () = sender.closed() => Err(End::Left) }
            }
        };
        let mut write = async |write: Bytes| {
            sender
                .send(Ok(write.clone()))
                .await
                .map_err(|_| End::Left)?;
            sent(&write);
            Ok(())
        };
        pause(self.pace.first_event_ms).await?;
        for (at, event) in self.writes.into_iter().enumerate() {
            match &self.fault {
                Some(Fault::Cut { after } | Fault::Reset { after }) if at >= *after => {
                    return Err(End::Fault);
                }
                Some(Fault::Stall { after }) if at >= *after => {
                    // Until the client gives up; a client that never does is cut.
                    return Err(timeout(PATIENCE, sender.closed())
                        .await
                        .map_or(End::Fault, |()| End::Left));
                }
                Some(Fault::Error { after, .. }) if at >= *after => {
                    return match self.error {
                        Some(error) => write(error).await,
                        None => Err(End::Fault),
                    };
                }
                _ => {}
            }
            if at > 0 {
                pause(self.pace.between_ms).await?;
            }
            write(event).await?;
            if let Some(gate) = self.gate.as_ref().filter(|_| at == 0) {
                let opened = gates.wait_for(|open| open.contains(gate));
                tokio::select! {
                    opened = timeout(PATIENCE, opened) => drop(opened.map_err(|_| End::Fault)?.map_err(|_| End::Fault)?),
                    () = sender.closed() => return Err(End::Left),
                }
            }
        }
        match self.fault {
            // Fewer writes than the script thought: the fault still happens.
            Some(Fault::Cut { .. } | Fault::Reset { .. }) => Err(End::Fault),
            Some(Fault::Stall { .. }) => Err(timeout(PATIENCE, sender.closed())
                .await
                .map_or(End::Fault, |()| End::Left)),
            _ => Ok(()),
        }
    }
}
