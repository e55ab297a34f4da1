//! The output of a process, read from the ring that the keeper fills.
//!
//! Offsets are absolute byte positions since the process began. What was acknowledged is gone for the next supervisor;
//! so a consumer acknowledges only what it has put where it belongs.

use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use whim_entrypoint::ring::RingReader;

use crate::readiness;

/// Most bytes in one [`Chunk`]: enough to keep up with a flood, small enough to stay fair to others on the runtime.
const CHUNK: usize = 64 * 1024;

/// One piece of output.
#[derive(Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Absolute offset of the first byte.
    pub start: u64,
    /// Bytes that were dropped just before this piece, because no supervisor read for too long.
    pub lost: u64,
    pub bytes: Vec<u8>,
}

/// Reader of one ring; the single consumer of it.
#[derive(Debug)]
pub struct Output {
    ring: RingReader,
    event: AsyncFd<OwnedFd>,
    gone: watch::Receiver<bool>,
    position: u64,
    /// The keeper hung up.
    abandoned: bool,
}

impl Output {
    /// `memory`, `data`, `space`: the ring's descriptors. Reading goes on where the last supervisor acknowledged.
    pub(super) fn new(
        memory: &OwnedFd,
        data: OwnedFd,
        space: OwnedFd,
        gone: watch::Receiver<bool>,
    ) -> std::io::Result<Self> {
        let event = readiness::register(data.try_clone()?, Interest::READABLE)?;
        let ring = RingReader::new(memory, data, space)?;
        let position = ring.acknowledged();
        Ok(Self {
            ring,
            event,
            gone,
            position,
            abandoned: false,
        })
    }

    /// Offset of the next byte that [`Output::next`] returns, if none is lost.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Waits until there is something to read or the output has ended. May be dropped while it waits.
    ///
    /// # Errors
    /// When the eventfd cannot be polled.
    pub async fn ready(&mut self) -> std::io::Result<()> {
        loop {
            // Ask for the end before looking at the ring: `gone` is set after the last byte was written.
            let ended = *self.gone.borrow_and_update();
            if self.ring.head() > self.position || ended {
                return Ok(());
            }
            tokio::select! {
                ready = self.event.readable() => {
                    let mut ready = ready?;
                    // The counter first: what is written after it makes the descriptor readable again.
                    self.ring.clear_data()?;
                    ready.clear_ready();
                }
                // The keeper is gone: nothing more will come.
                changed = self.gone.changed() => if changed.is_err() {
                    self.abandoned = true;
                    return Ok(());
                },
            }
        }
    }

    /// Everything before this offset is known already.
    pub fn go_on_at(&mut self, offset: u64) {
        self.position = offset.max(self.ring.oldest());
    }

    /// Everything was read and nothing will follow.
    #[must_use]
    pub fn is_over(&self) -> bool {
        (*self.gone.borrow() || self.abandoned) && self.ring.head() <= self.position
    }

    /// The next piece, or `None` when the process and all it left have ended and everything was read.
    ///
    /// # Errors
    /// When the eventfd cannot be polled.
    pub async fn next(&mut self) -> std::io::Result<Option<Chunk>> {
        loop {
            if let Some(chunk) = self.take() {
                return Ok(Some(chunk));
            }
            if self.is_over() {
                return Ok(None);
            }
            self.ready().await?;
        }
    }

    /// What is there now, without waiting.
    pub fn take(&mut self) -> Option<Chunk> {
        let mut bytes = Vec::new();
        let (start, lost) = self.read(&mut bytes, CHUNK);
        (!bytes.is_empty()).then_some(Chunk { start, lost, bytes })
    }

    /// Appends at most `most` bytes without waiting; returns the offset of the first and how many were lost before it.
    pub fn read(&mut self, into: &mut Vec<u8>, most: usize) -> (u64, u64) {
        let outcome = self.ring.read_from(self.position, into, most);
        if outcome.end() <= self.position {
            return (self.position, 0);
        }
        let lost = outcome.start.saturating_sub(self.position);
        self.position = outcome.end();
        (outcome.start, lost)
    }

    /// Everything before `offset` has been put where it belongs.
    pub fn acknowledge(&self, offset: u64) {
        if let Err(error) = self.ring.acknowledge(offset) {
            tracing::error!(%error, "the keeper cannot be told that there is room");
        }
    }
}
