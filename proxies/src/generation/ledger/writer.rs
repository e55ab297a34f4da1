//! The thread that writes lines.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;
use whim_wire::generation::{LedgerLine, Outcome};

use super::files::Log;
use super::slots::{SLOTS, Slot, Slots};

/// How long a line waits for others, so that a burst of calls costs one write and one wake-up.
const GATHER: Duration = Duration::from_millis(2);
/// Lines of one write.
const BATCH: usize = 256;
const RETRY: Duration = Duration::from_secs(1);
/// Lines that wait for a write, beyond which those that cost nothing are left out: as many as the queue holds.
pub(super) const WAITING: usize = SLOTS + 64;

/// What the thread is asked for.
pub(super) enum Message {
    /// Write a line, then free its slot.
    Line(Arc<LedgerLine>, Option<Slot>),
    /// Everything before this is on stable storage.
    Flush(oneshot::Sender<io::Result<()>>),
}

pub(super) struct Writer {
    log: Log,
    slots: Arc<Slots>,
    messages: Receiver<Message>,
    lines: Vec<Arc<LedgerLine>>,
    done: Vec<Slot>,
    flushes: Vec<oneshot::Sender<io::Result<()>>>,
    left_out: Arc<AtomicU64>,
}

impl Writer {
    /// `left_out` counts the lines that were not written.
    pub(super) const fn new(
        log: Log,
        slots: Arc<Slots>,
        messages: Receiver<Message>,
        left_out: Arc<AtomicU64>,
    ) -> Self {
        Self {
            log,
            slots,
            messages,
            lines: Vec::new(),
            done: Vec::new(),
            flushes: Vec::new(),
            left_out,
        }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while let Ok(first) = self.messages.recv() {
            self.take(first);
            // Not waiting on the queue: each line would wake this thread, which costs the sender more than the line.
            std::thread::sleep(GATHER);
            while self.lines.len() < BATCH
                && let Ok(message) = self.messages.try_recv()
            {
                self.take(message);
            }
            self.write(true);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Line(line, None)
                if line.outcome == Outcome::Refused && self.lines.len() >= WAITING =>
            {
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
            Message::Line(line, slot) => {
                self.lines.push(line);
                self.done.extend(slot);
            }
            Message::Flush(done) => self.flushes.push(done),
        }
    }

    fn write(&mut self, open: bool) {
        while !self.lines.is_empty() {
            let Err(error) = self.log.append(&self.lines) else {
                break;
            };
            tracing::error!(%error, "the ledger cannot be written; trying again in 1 s");
            let failed = |done: oneshot::Sender<io::Result<()>>| {
                // Whoever asked may have left.
                let _left = done.send(Err(io::Error::new(error.kind(), error.to_string())));
            };
            self.flushes.drain(..).for_each(failed);
            if !open {
                // The reservations stay on file and are settled at the next start.
                return;
            }
            // More lines may come meanwhile, bounded by slots and by [`WAITING`]; the queue's end ends the waiting.
            match self.messages.recv_timeout(RETRY) {
                Ok(message) => {
                    self.take(message);
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.write(false),
            }
        }
        self.lines.clear();
        for slot in self.done.drain(..) {
            if let Err(error) = self.slots.free(slot) {
                tracing::error!(%error, "a reservation cannot be cleared; its call is known by its id at the next start");
            }
        }
        for done in self.flushes.drain(..) {
            let _left = done.send(self.log.sync());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{files, tests::line};
    use super::*;

    #[test]
    fn lines_that_cost_nothing_do_not_pile_up() {
        let dir = tempfile::tempdir().unwrap();
        let log = files::open(dir.path()).unwrap().log;
        let (slots, _) = Slots::open(dir.path()).unwrap();
        let (_queue, messages) = std::sync::mpsc::sync_channel(1);
        let left_out = Arc::new(AtomicU64::new(0));
        let mut writer = Writer::new(log, Arc::new(slots), messages, Arc::clone(&left_out));
        for n in 0..WAITING + 9 {
            let refused = LedgerLine {
                outcome: Outcome::Refused,
                ..line(&format!("c{n}"), 0)
            };
            writer.take(Message::Line(Arc::new(refused), None));
        }
        writer.take(Message::Line(Arc::new(line("paid", 1)), None));
        assert_eq!(
            writer.lines.len(),
            WAITING + 1,
            "what costs is never left out"
        );
        assert_eq!(left_out.load(Ordering::Relaxed), 9);
    }
}
