//! Events on their way out: which are in the next batch, what an answer means. Pure.
//!
//! Holds what was read from the journal and not acknowledged yet, a few batches at most: the journal on disk is the
//! spool, and what does not fit here stays there until there is room.
//!
//! Every number is delivered or named as missing, in order, at least once. A batch that the platform finds unacceptable
//! is halved until one event is left; that one is named as missing, because otherwise nothing would ever follow it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::value::RawValue;
use whim_wire::platform::{BATCH_BYTES, BATCH_EVENTS, EventBatch, Numbers};

use crate::journal::{Delivery, Entry, MAX_EVENT};

/// Bytes of events in one batch: the rest of [`BATCH_BYTES`] is room for what stands around them.
const BYTES: usize = BATCH_BYTES / 2;
/// Events that may be held: two batches, so that the next one is ready when one is acknowledged.
const HELD: usize = 2 * BATCH_EVENTS;
/// Bytes of events that may be held.
const HELD_BYTES: usize = 2 * BYTES;

#[derive(Clone, Debug)]
enum Part {
    Event(Arc<Entry>),
    Missing(Numbers),
}

impl Part {
    fn last(&self) -> u64 {
        match self {
            Self::Event(entry) => entry.seq,
            Self::Missing(numbers) => numbers.last,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Event(entry) => entry.json.len(),
            Self::Missing(_) => 0,
        }
    }
}

/// A batch as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) body: Vec<u8>,
}

/// What the outbox wants after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next batch.
    GoOn,
    /// Read the journal again, after this number.
    ReadAgain { after: u64 },
    /// The answer makes no sense; try again later.
    Confused,
}

/// See the module's header.
#[derive(Debug)]
pub(super) struct Outbox {
    stream: String,
    acknowledged: u64,
    parts: VecDeque<Part>,
    bytes: usize,
    /// Most parts of one batch at the moment.
    most: usize,
    lost: u64,
}

impl Outbox {
    /// Goes on after a number that the platform acknowledged.
    pub(super) fn new(stream: String, acknowledged: u64) -> Self {
        Self {
            stream,
            acknowledged,
            parts: VecDeque::new(),
            bytes: 0,
            most: BATCH_EVENTS,
            lost: 0,
        }
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Events that will never be delivered, and were not meant to be left out.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether there is room for one more delivery of the journal.
    pub(super) fn has_room(&self) -> bool {
        self.parts.len() < HELD && self.bytes + MAX_EVENT <= HELD_BYTES
    }

    /// A whole batch waits: there is no use in waiting for more.
    pub(super) fn is_ready(&self) -> bool {
        self.parts.len() >= self.most || self.bytes >= BYTES
    }

    /// Takes the journal's next delivery. What is acknowledged already is passed over.
    pub(super) fn push(&mut self, delivery: Delivery) {
        let newest = self.newest();
        let part = match delivery {
            Delivery::Event(entry) if entry.seq > newest => Part::Event(entry),
            Delivery::Missing { first, last } if last > newest => {
                let first = first.max(newest + 1);
                self.lost += last - first + 1;
                Part::Missing(Numbers { first, last })
            }
            Delivery::Event(_) | Delivery::Missing { .. } => return,
        };
        self.bytes += part.bytes();
        self.parts.push_back(part);
    }

    fn newest(&self) -> u64 {
        self.parts.back().map_or(self.acknowledged, Part::last)
    }

    /// How many parts the next batch has.
    fn length(&self) -> usize {
        let mut bytes = 0;
        let fits = |part: &&Part| {
            bytes += part.bytes();
            bytes <= BYTES
        };
        let length = self.parts.iter().take(self.most).take_while(fits).count();
        length.max(usize::from(!self.parts.is_empty()))
    }

    /// The next batch; the same one again until there was an answer to it.
    pub(super) fn batch(&self) -> Option<Batch> {
        let length = self.length();
        let last = self.parts.get(length.checked_sub(1)?)?.last();
        let mut batch = EventBatch {
            stream: self.stream.clone(),
            first: self.acknowledged + 1,
            last,
            events: Vec::with_capacity(length),
            missing: Vec::new(),
        };
        for part in self.parts.iter().take(length) {
            match part {
                Part::Missing(numbers) => batch.missing.push(*numbers),
                Part::Event(entry) => match RawValue::from_string(entry.json.to_string()) {
                    Ok(json) => batch.events.push(json),
                    // The journal reads back only lines that parse; whatever this is, it cannot be sent.
                    Err(_) => batch.missing.push(Numbers {
                        first: entry.seq,
                        last: entry.seq,
                    }),
                },
            }
        }
        let body = serde_json::to_vec(&batch).ok()?;
        Some(Batch {
            first: batch.first,
            last,
            body,
        })
    }

    /// The platform took a batch up to `number`; none named: all of it.
    pub(super) fn taken(&mut self, batch: &Batch, number: Option<u64>) -> Next {
        let number = number.unwrap_or(batch.last);
        if number < self.acknowledged {
            // It has less than it said before.
            return self.go_back(number);
        }
        if number == self.acknowledged {
            return Next::Confused;
        }
        self.settle(number.min(batch.last));
        self.most = (self.most * 2).min(BATCH_EVENTS);
        Next::GoOn
    }

    /// The platform has the stream up to `number` only, or farther than we know. `newest`: of the journal.
    pub(super) fn conflict(&mut self, number: u64, newest: u64) -> Next {
        if number > newest || number == self.acknowledged {
            return Next::Confused;
        }
        if number < self.acknowledged {
            return self.go_back(number);
        }
        self.settle(number);
        if self.parts.is_empty() {
            // What it has beyond what is held here need not be sent.
            return Next::ReadAgain { after: number };
        }
        Next::GoOn
    }

    /// A batch is unacceptable. True: smaller ones can be tried.
    pub(super) fn refused(&mut self) -> bool {
        let length = self.length();
        if length > 1 {
            self.most = length / 2;
            return true;
        }
        if let Some(part) = self.parts.front_mut()
            && let Part::Event(entry) = part
        {
            let seq = entry.seq;
            self.bytes -= part.bytes();
            *part = Part::Missing(Numbers {
                first: seq,
                last: seq,
            });
            self.lost += 1;
            return true;
        }
        false
    }

    fn go_back(&mut self, number: u64) -> Next {
        self.parts.clear();
        self.bytes = 0;
        self.acknowledged = number;
        Next::ReadAgain { after: number }
    }

    fn settle(&mut self, number: u64) {
        while let Some(part) = self.parts.front_mut() {
            if part.last() > number {
                if let Part::Missing(numbers) = part {
                    numbers.first = numbers.first.max(number + 1);
                }
                break;
            }
            self.bytes -= part.bytes();
            self.parts.pop_front();
        }
        self.acknowledged = number;
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
