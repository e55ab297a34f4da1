//! A call whose answer passes: its first byte, progress and stall, told as they happen; and whether it has gone silent.

use std::time::{Duration, Instant};

use super::activity::What;
use super::call::Call;
use super::proxy::{Counters, Limits};
use super::tap::Answer;

/// Progress is told at most this often.
const PROGRESS: Duration = Duration::from_millis(250);

/// A call and the clock of its answer.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) call: Call,
    last_byte: Instant,
    last_progress: Instant,
    last_told: Option<Instant>,
    progress: u64,
    stalled: bool,
}

/// How often [`Watch::check`] is to be called.
pub(super) fn tick(limits: &Limits) -> Duration {
    let shortest = limits.stall.min(limits.silence);
    shortest.div_f32(4.0).max(Duration::from_millis(10))
}

impl Watch {
    pub(super) fn new(call: Call) -> Self {
        let now = Instant::now();
        Self {
            call,
            last_byte: now,
            last_progress: now,
            last_told: None,
            progress: 0,
            stalled: false,
        }
    }

    /// The clock begins now: until here the call had to wait for another.
    pub(super) fn restart(&mut self) {
        let now = Instant::now();
        self.last_byte = now;
        self.last_progress = now;
    }

    /// Some bytes of the answer came, and this is what is known of it now.
    pub(super) fn passed(&mut self, bytes: u64, answer: &Answer) {
        let now = Instant::now();
        self.last_byte = now;
        if self.call.first_byte.is_none() {
            self.call.first_byte = Some(now);
            self.call.update_board(|call| call.first_byte = Some(now));
            self.call.tell(What::FirstByte);
        }
        Counters::add(&self.call.proxy().counters.bytes_down, bytes);
        if answer.progress == self.progress {
            return;
        }
        self.progress = answer.progress;
        self.last_progress = now;
        self.stalled = false;
        if self
            .last_told
            .is_none_or(|told| now.saturating_duration_since(told) >= PROGRESS)
        {
            self.last_told = Some(now);
            let output_tokens = answer.estimated_output();
            self.call.update_board(|call| {
                call.last_byte = Some(now);
                call.last_progress = Some(now);
            });
            self.call.tell(What::Progress { output_tokens });
        }
    }

    /// Tells a stall, once.
    ///
    /// # Errors
    /// How long nothing has come, when that is too long.
    pub(super) fn check(&mut self) -> Result<(), Duration> {
        let limits = self.call.proxy().limits;
        let now = Instant::now();
        let silent = now.saturating_duration_since(self.last_byte);
        if silent >= limits.silence {
            self.call.given_up = true;
            return Err(silent);
        }
        let idle = now.saturating_duration_since(self.last_progress);
        if idle >= limits.stall && !std::mem::replace(&mut self.stalled, true) {
            Counters::add(&self.call.proxy().counters.stalls, 1);
            self.call.tell(What::Stalled {
                silent_s: silent.as_secs(),
                no_progress_s: idle.as_secs(),
            });
        }
        Ok(())
    }
}
