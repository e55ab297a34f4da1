//! Time as the rules see it: whether a wait is over, and if not, when it will be.
//!
//! Every rule that depends on time asks [`Timers::over`]; so the earliest moment at which any answer changes is known,
//! and a verdict holds until then.

use std::collections::VecDeque;
use std::time::Duration;

use crate::state::moment::Moment;

/// Most gaps that are remembered; the oldest is forgotten, which can only end a long wait early.
const MAX_GAPS: usize = 32;

/// Time in which nobody could make progress: the machine or the supervisor stood still.
#[derive(Debug, Default)]
pub(super) struct Lost(VecDeque<(Moment, Moment)>);

impl Lost {
    pub(super) fn add(&mut self, from: Moment, to: Moment) {
        if self.0.len() >= MAX_GAPS {
            self.0.pop_front();
        }
        self.0.push_back((from, to));
    }

    /// How much was lost between two moments.
    fn between(&self, from: Moment, to: Moment) -> Duration {
        let gaps = self.0.iter();
        gaps.map(|(start, end)| (*end).min(to) - (*start).max(from))
            .sum()
    }
}

#[derive(Debug)]
pub(super) struct Timers<'a> {
    pub(super) now: Moment,
    lost: &'a Lost,
    due: Option<Moment>,
}

impl<'a> Timers<'a> {
    pub(super) fn at(now: Moment, lost: &'a Lost) -> Self {
        Self {
            now,
            lost,
            due: None,
        }
    }

    /// Whether `wait` has passed since `from`, lost time not counted.
    pub(super) fn over(&mut self, from: Moment, wait: Duration) -> bool {
        let end = from + wait + self.lost.between(from, self.now);
        if self.now >= end {
            return true;
        }
        self.due = Some(self.due.map_or(end, |due| due.min(end)));
        false
    }

    /// The earliest end of a wait that was not over.
    pub(super) fn due(&self) -> Option<Moment> {
        self.due
    }
}

/// A value with the moment it became true; an older one never replaces a newer one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dated<T> {
    pub(super) at: Moment,
    pub(super) value: T,
}

/// Takes `value` unless something newer is known. Equal dates: the later arrival counts.
pub(super) fn update<T>(slot: &mut Option<Dated<T>>, at: Moment, value: T) {
    if slot.as_ref().is_none_or(|known| known.at <= at) {
        *slot = Some(Dated { at, value });
    }
}

/// Moves `slot` forward to `at`, never back.
pub(super) fn advance(slot: &mut Option<Moment>, at: Moment) {
    *slot = (*slot).max(Some(at));
}
