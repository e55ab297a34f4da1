//! What calls are doing, for whoever decides whether the agent works.
//!
//! Two views of the same facts: a bounded channel of events, and a board of the calls in flight. Forwarding never
//! waits for a reader: an event that does not fit is dropped and counted, and the reader, seeing the count change,
//! looks at the board, which is always right.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc;
use whim_wire::generation::{Outcome, Usage};
use whim_wire::money::NanoUsd;

use super::budget::Warning;

/// What a call is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The agent's turn.
    Turn,
    /// Housekeeping beside it, such as a title: no sign of work.
    Side,
    /// The provider's model shortens the conversation.
    Compaction,
}

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Activity {
    /// Id of the call; rises.
    pub call: u64,
    /// Session of the token.
    pub session: Arc<str>,
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A call was admitted.
    Started {
        /// What for.
        purpose: Purpose,
        /// Model asked for.
        model: Option<String>,
        /// The agent's own id of its session, where it sends one.
        agent_session: Option<String>,
    },
    /// The first byte of its answer came.
    FirstByte,
    /// The model generated something; told at most every 250 ms.
    Progress {
        /// Output tokens so far, estimated.
        output_tokens: u64,
    },
    /// Nothing was generated for a while, though the connection stands.
    Stalled {
        /// Seconds without a byte.
        silent_s: u64,
        /// Seconds without generated content; comments and pings do not count.
        no_progress_s: u64,
    },
    /// It ended.
    Finished {
        /// How.
        outcome: Outcome,
        /// The provider's word.
        stop_reason: Option<String>,
        /// The agent is to run a tool now.
        tool_use: bool,
        /// Tokens.
        usage: Usage,
        /// Cost.
        cost: NanoUsd,
        /// Error that the provider sent.
        error: Option<String>,
    },
    /// A cap or limit answered instead of a provider.
    Refused {
        /// It may pass at another try soon: too many calls in a minute.
        again: bool,
        /// The sentence that the agent got.
        message: String,
    },
    /// The spend passed a share of the cap.
    Budget(Warning),
}

/// A call in flight.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Session of the token.
    pub session: Arc<str>,
    /// What for.
    pub purpose: Purpose,
    /// Since when.
    pub started: Instant,
    /// First byte of the answer.
    pub first_byte: Option<Instant>,
    /// Last byte of the answer.
    pub last_byte: Option<Instant>,
    /// Last generated content.
    pub last_progress: Option<Instant>,
}

/// The board and the channel.
#[derive(Debug)]
pub struct Board {
    sender: Option<mpsc::Sender<Activity>>,
    dropped: AtomicU64,
    calls: Mutex<HashMap<u64, InFlight>>,
}

impl Board {
    /// A board; events go to `sender`, if anybody listens.
    #[must_use]
    pub fn new(sender: Option<mpsc::Sender<Activity>>) -> Self {
        Self {
            sender,
            dropped: AtomicU64::new(0),
            calls: Mutex::default(),
        }
    }

    /// Calls in flight, by id.
    #[must_use]
    pub fn in_flight(&self) -> Vec<(u64, InFlight)> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let mut calls: Vec<_> = calls.iter().map(|(id, call)| (*id, call.clone())).collect();
        calls.sort_unstable_by_key(|(id, _)| *id);
        calls
    }

    /// Events that did not fit. When this changes, look at the board.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, call: u64, session: &Arc<str>, at: Instant, what: What) {
        if let Some(sender) = &self.sender {
            let activity = Activity {
                call,
                session: Arc::clone(session),
                at,
                what,
            };
            if sender.try_send(activity).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn start(&self, call: u64, in_flight: InFlight) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.insert(call, in_flight);
    }

    pub(super) fn update(&self, call: u64, change: impl FnOnce(&mut InFlight)) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(in_flight) = calls.get_mut(&call) {
            change(in_flight);
        }
    }

    pub(super) fn end(&self, call: u64) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.remove(&call);
    }
}
