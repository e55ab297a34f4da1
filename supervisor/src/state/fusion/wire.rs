//! The model calls of one session, folded.
//!
//! Side calls are dropped at the door. At most [`MAX_CALLS`] calls are followed; beyond, the oldest is given up, so that
//! ends lost upstream cannot pile up.

use std::collections::{BTreeMap, VecDeque};

use crate::state::moment::Moment;
use crate::state::observation::{Generation, Stop};

use super::timers::{Dated, advance, update};

const MAX_CALLS: usize = 256;

#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) started: Moment,
    pub(super) progressed: Option<Moment>,
}

#[derive(Debug, Default)]
pub(super) struct Wire {
    pub(super) in_flight: BTreeMap<u64, Call>,
    /// Ends may overtake starts.
    ended: VecDeque<u64>,
    pub(super) last_start: Option<Moment>,
    pub(super) last_end: Option<Dated<End>>,
    pub(super) progress: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) stop: Stop,
    /// When the call that ended had started.
    pub(super) started: Moment,
}

impl Wire {
    pub(super) fn observe(&mut self, at: Moment, call: u64, event: &Generation) {
        match event {
            Generation::Started { side: true } => self.bury(call),
            Generation::Started { side: false } => self.start(at, call),
            Generation::Progress => {
                if let Some(call) = self.in_flight.get_mut(&call) {
                    advance(&mut call.progressed, at);
                    advance(&mut self.progress, at);
                }
            }
            Generation::Ended(stop) => {
                match self.in_flight.remove(&call) {
                    Some(known) => self.end(at, *stop, known),
                    // Answered without a call to the provider, so it never started.
                    None if *stop == Stop::Refused && !self.ended.contains(&call) => {
                        let known = Call {
                            started: at,
                            progressed: None,
                        };
                        self.end(at, *stop, known);
                    }
                    None => {}
                }
                self.bury(call);
            }
        }
    }

    fn start(&mut self, at: Moment, call: u64) {
        if self.ended.contains(&call) || self.in_flight.contains_key(&call) {
            return;
        }
        if self.in_flight.len() >= MAX_CALLS {
            let oldest = self.in_flight.iter().min_by_key(|(_, call)| call.started);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.in_flight.remove(&oldest);
            }
        }
        let started = Call {
            started: at,
            progressed: None,
        };
        self.in_flight.insert(call, started);
        advance(&mut self.last_start, at);
        advance(&mut self.progress, at);
    }

    /// The proxy's own list of calls in flight at `at`: events were lost.
    pub(super) fn reconcile(&mut self, at: Moment, in_flight: &[(u64, Moment)]) {
        let listed = |id: &u64| in_flight.iter().any(|(call, _)| call == id);
        let gone: Vec<u64> = (self.in_flight.iter())
            .filter(|(id, call)| call.started < at && !listed(id))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if let Some(known) = self.in_flight.remove(&id) {
                self.end(at, Stop::Limit, known);
            }
            self.bury(id);
        }
        for (id, started) in in_flight {
            self.start((*started).min(at), *id);
        }
    }

    fn end(&mut self, at: Moment, stop: Stop, call: Call) {
        let started = call.started;
        update(&mut self.last_end, at, End { stop, started });
        advance(&mut self.progress, at);
    }

    fn bury(&mut self, call: u64) {
        if !self.ended.contains(&call) {
            self.ended.push_back(call);
        }
        if self.ended.len() > MAX_CALLS {
            self.ended.pop_front();
        }
    }

    /// Start of the newest call in flight.
    pub(super) fn newest(&self) -> Option<Moment> {
        self.in_flight.values().map(|call| call.started).max()
    }

    /// The model asked for a tool and was not called since: when the call that asked had started. Agents may run a
    /// tool before the answer is complete.
    pub(super) fn tool_asked(&self) -> Option<Moment> {
        let end = self.last_end.as_ref()?;
        let unanswered = self.last_start.is_none_or(|start| start <= end.at);
        (end.value.stop == Stop::Tool && unanswered).then_some(end.value.started)
    }

    /// The last end, if nothing is in flight and nothing started since.
    pub(super) fn rest(&self) -> Option<&Dated<End>> {
        let end = self.last_end.as_ref()?;
        (self.in_flight.is_empty() && self.last_start.is_none_or(|start| start <= end.at))
            .then_some(end)
    }
}
