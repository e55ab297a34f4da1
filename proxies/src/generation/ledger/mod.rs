//! The ledger: a line per call, and spend that no crash loses.
//!
//! Owns three things in the directory it is handed:
//! - `generations.jsonl`, a JSON object per model call, each written whole by one append; at [`ROTATE`] bytes it is
//!   renamed to `generations-<n>.jsonl`, and the newest [`KEEP`] of those are kept;
//! - `generations.totals.json`, the sums over all rotated files, so that a start reads one file only and sums outlive
//!   the files they came from;
//! - `generations.reserved`, slots that hold what calls in flight may cost (see [`slots`]).
//!
//! Promises: a call is in a slot before it goes upstream and leaves it only when its line is on file, so a kill at any
//! moment loses no spend: what is found in a slot at the next start becomes a line of outcome `upstream_cut` at its
//! reservation. A torn last line is cut off; its call is still in its slot.
//!
//! Bounds: [`slots::SLOTS`] calls at a time hold a slot, further ones wait for [`ROOM_WITHIN`] (a disk may take a moment
//! to rotate) and are refused with 503 then. Writing happens on a thread
//! of its own behind a queue as long as there are slots (lines of refused calls, which hold none and cost nothing, are
//! left out and counted when it is full), so forwarding never waits for a disk. A write that fails is tried again every
//! second; meanwhile the calls keep their slots, and no more than a queue's length of the refused ones' lines wait.

mod book;
mod files;
mod shared;
pub mod slots;
mod writer;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use whim_wire::generation::{LedgerLine, Outcome, Spend, Totals};
use whim_wire::money::NanoUsd;
use whim_wire::time::Time;

use book::Book;
use slots::{Slot, Slots};
use writer::{Message, Writer};

/// Bytes at which the file is rotated.
pub const ROTATE: u64 = 16 << 20;
/// How long a call waits for a slot.
const ROOM_WITHIN: Duration = Duration::from_secs(2);
/// Rotated files that are kept.
pub const KEEP: usize = 32;
/// Lines of another ledger that are taken in at a time: the queue has room for more.
const CARRIED: usize = 32;
/// Lines that are kept in memory for lists.
pub const RECENT: usize = 512;

/// Why the ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("ledger: cannot {step} {path}")]
pub struct OpenError {
    step: &'static str,
    path: PathBuf,
    source: io::Error,
}

pub(super) fn at(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError {
        step,
        path: path.to_owned(),
        source,
    }
}

/// The ledger's end failed.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    /// A write did.
    #[error("the ledger cannot be written")]
    Write(#[source] io::Error),
    /// The writer is gone.
    #[error("the ledger is closed")]
    Closed,
}

/// An open ledger.
#[derive(Debug)]
pub struct Ledger {
    book: Mutex<Book>,
    slots: Arc<Slots>,
    queue: SyncSender<Message>,
    directory: PathBuf,
    writer: Option<JoinHandle<()>>,
    left_out: Arc<AtomicU64>,
}

impl Ledger {
    /// Opens (and repairs, and settles what a crash left open) the ledger in a directory.
    ///
    /// # Errors
    /// [`OpenError`] names the step and the path.
    pub fn open(directory: &Path) -> Result<Self, OpenError> {
        std::fs::create_dir_all(directory).map_err(at("make", directory))?;
        let files::Opened {
            log,
            book: mut replayed,
            seen,
        } = files::open(directory)?;
        let (slots, left) = Slots::open(directory)?;
        let mut owed = Vec::new();
        for (slot, record) in left {
            if seen.contains(&*record.call) {
                let freed = slots.free(slot);
                freed.map_err(at("clear a reservation in", directory))?;
            } else {
                let line = Arc::new(replayed.number(record.into_line()));
                replayed.add(Arc::clone(&line));
                owed.push(Message::Line(line, Some(slot)));
            }
        }
        let slots = Arc::new(slots);
        // Room for each slot's line, and some for those of refused calls.
        let (queue, messages) = sync_channel(writer::WAITING);
        let left_out = Arc::new(AtomicU64::new(0));
        let writer = Writer::new(log, Arc::clone(&slots), messages, Arc::clone(&left_out));
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .stack_size(256 << 10);
        let writer = thread
            .spawn(move || writer.run())
            .map_err(at("start a writer for", directory))?;
        let ledger = Self {
            book: Mutex::new(replayed),
            slots,
            queue,
            directory: directory.to_owned(),
            writer: Some(writer),
            left_out,
        };
        // As all lines go: a full disk keeps the calls in their slots and stops nothing.
        for line in owed {
            ledger.send(line);
        }
        Ok(ledger)
    }

    /// Waits for a free slot, if all are taken, before a call is read. A call on a WebSocket does not wait: frames of
    /// other calls come behind it.
    pub async fn room(&self) {
        self.slots.room(ROOM_WITHIN).await;
    }

    /// Takes a slot for a call that is about to go upstream; none when all are taken.
    ///
    /// # Errors
    /// The slot cannot be written.
    pub fn reserve(&self, record: &slots::Record<'_>) -> io::Result<Option<Slot>> {
        self.slots.take(record)
    }

    /// Rewrites a slot: the call may cost more now, or has an id to ask the provider about.
    ///
    /// # Errors
    /// The slot cannot be written.
    pub fn update(&self, slot: &mut Slot, record: &slots::Record<'_>) -> io::Result<()> {
        self.slots.write(slot, record)
    }

    /// Counts a call that ended and writes its line; its slot is free once that is on file. Returns the line's number.
    pub fn settle(&self, line: LedgerLine, slot: Option<Slot>) -> u64 {
        let mut book = self.lock();
        let line = Arc::new(book.number(line));
        let seq = line.seq;
        book.add(Arc::clone(&line));
        // Sent under the lock, so that lines are on file in the order of their numbers.
        self.send(Message::Line(line, slot));
        seq
    }

    /// Counts a call whose cost is still being asked for. It keeps its slot; [`Self::finish`] writes its line.
    pub fn settle_provisionally(&self, line: LedgerLine) -> LedgerLine {
        let mut book = self.lock();
        let line = book.number(line);
        book.add(Arc::new(line.clone()));
        line
    }

    /// Replaces a provisional line by the final one, and writes that. It gets a new number: who follows the ledger by
    /// numbers and has passed the provisional line sees the final one.
    pub fn finish(&self, provisional: &LedgerLine, line: LedgerLine, slot: Option<Slot>) {
        let mut book = self.lock();
        let line = Arc::new(book.number(line));
        book.replace(provisional, Arc::clone(&line));
        self.send(Message::Line(line, slot));
    }

    fn send(&self, message: Message) {
        match self.queue.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(Message::Line(line, None)))
                if line.outcome == Outcome::Refused =>
            {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(
                    call = line.call,
                    "the ledger is behind: the line of a refused call is left out"
                );
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                tracing::error!(
                    "the ledger's writer does not take lines; they are settled at the next start"
                );
            }
        }
    }

    /// Everything settled so far is on stable storage when this returns.
    ///
    /// # Errors
    /// [`FlushError`].
    pub async fn flush(&self) -> Result<(), FlushError> {
        let (done, wait) = oneshot::channel();
        let mut message = Message::Flush(done);
        // The queue is bounded and its writer never stops taking, so this waits for writes at most.
        while let Err(error) = self.queue.try_send(message) {
            message = match error {
                TrySendError::Full(message) => message,
                TrySendError::Disconnected(_) => return Err(FlushError::Closed),
            };
            tokio::task::yield_now().await;
        }
        wait.await
            .map_err(|_| FlushError::Closed)?
            .map_err(FlushError::Write)
    }

    /// Takes lines of another ledger in, those whose calls are not here; `taken` sees each of them, once. In batches that
    /// the queue has room for.
    ///
    /// # Errors
    /// [`FlushError`]; what `taken` saw until then counts.
    pub async fn carry_on(
        &self,
        lines: Vec<LedgerLine>,
        mut taken: impl FnMut(&LedgerLine),
    ) -> Result<usize, FlushError> {
        let here = self.page(Some(0), usize::MAX).map_err(FlushError::Write)?;
        let mut known: HashSet<String> = here.into_iter().map(|line| line.call).collect();
        let mut new = Vec::new();
        for line in lines {
            if known.insert(line.call.clone()) {
                new.push(line);
            }
        }
        for batch in new.chunks(CARRIED) {
            for line in batch {
                self.settle(line.clone(), None);
                taken(line);
            }
            self.flush().await?;
        }
        Ok(new.len())
    }

    /// Lines of refused calls that are not on file, since the disk did not keep up.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// When the oldest call that is on file began; none before the first.
    #[must_use]
    pub fn first(&self) -> Option<Time> {
        files::first(&self.directory)
    }

    /// Sums of one session; nothing for one that is not known or not told apart.
    #[must_use]
    pub fn session(&self, id: &str) -> Totals {
        self.lock().session(id)
    }

    /// Sums by session, model and day.
    #[must_use]
    pub fn spend(&self, budget: Option<NanoUsd>, reserved: NanoUsd) -> Spend {
        self.lock().spend(budget, reserved)
    }

    /// Lines with numbers above `after`, oldest first; without it the newest. At most `limit`. Reads files when
    /// memory does not reach back far enough, so call it where blocking is allowed.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn page(&self, after: Option<u64>, limit: usize) -> io::Result<Vec<LedgerLine>> {
        if let Some(lines) = self.lock().page(after, limit) {
            return Ok(lines);
        }
        files::page(&self.directory, after.unwrap_or(0), limit)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // Closing the queue ends the writer after what is in it; without a receiver the replacement is never used.
        let (closed, _) = sync_channel(0);
        self.queue = closed;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the ledger's writer panicked");
        }
    }
}

#[cfg(test)]
mod tests;
