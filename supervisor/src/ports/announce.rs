//! When a change becomes an event. Pure; the clock is handed in.
//!
//! The first opening of a port is announced at once. A port that closed within [`BRIEF`] of opening is announced again
//! only after it has been open for [`SETTLED`]; if it closes before, nobody hears of it. More than [`BURST`] changes
//! within [`WINDOW`] become one event with a count and the first of them. Bounds: a summary lists
//! [`PortsEvent::LISTED`] changes and counts the rest; [`MAX_BRIEF`] flapping ports are remembered, beyond that a port
//! counts as well-behaved.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use whim_wire::event::{Draft, DraftError, kind};
use whim_wire::port::{Port, PortChange, PortEvent, PortsEvent, PortsEventEntry};
use whim_wire::time::Time;

pub(crate) const BRIEF: Duration = Duration::from_millis(50);
pub(crate) const SETTLED: Duration = Duration::from_millis(100);
pub(crate) const WINDOW: Duration = Duration::from_millis(100);
pub(crate) const BURST: usize = 10;
const MAX_BRIEF: usize = 1024;

/// What to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    One(PortChange, Port),
    Many(PortsEvent),
}

impl Notice {
    /// As an event for the journal.
    ///
    /// # Errors
    /// When the payload cannot be written as JSON; none of its types can fail to be.
    pub fn draft(&self, at: Time) -> Result<Draft, DraftError> {
        match self {
            Self::One(change, port) => {
                let kind = match change {
                    PortChange::Opened => kind::PORT_OPENED,
                    PortChange::Changed => kind::PORT_CHANGED,
                    PortChange::Closed => kind::PORT_CLOSED,
                };
                Draft::new(kind, at, &PortEvent { port: port.clone() })
            }
            Self::Many(event) => Draft::new(kind::PORTS_CHANGED, at, event),
        }
    }
}

/// A port that has opened at least once and is followed until it has closed in an orderly way.
#[derive(Debug)]
struct Life {
    opened: Instant,
    /// It opened again after a brief life and is not announced yet: its newest view.
    held: Option<Port>,
    /// It closed too soon and is closed now.
    brief: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Announcer {
    lives: HashMap<u16, Life>,
    /// Times of the changes that were announced one by one.
    recent: VecDeque<Instant>,
    /// While set, changes are collected until then.
    collecting: Option<Instant>,
    collected: Vec<PortsEventEntry>,
    count: u64,
}

impl Announcer {
    /// Takes the changes of one moment.
    pub(crate) fn push(&mut self, changes: Vec<(PortChange, Port)>, now: Instant) -> Vec<Notice> {
        let mut passed = Vec::with_capacity(changes.len());
        for (change, port) in changes {
            if let Some(change) = self.filter(change, &port, now) {
                passed.push((change, port));
            }
        }
        self.limit(passed, now)
    }

    /// What has become due by itself.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Notice> {
        let mut settled = Vec::new();
        for life in self.lives.values_mut() {
            if life.held.is_some() && now >= life.opened + SETTLED {
                settled.extend(life.held.take().map(|port| (PortChange::Opened, port)));
            }
        }
        settled.sort_by_key(|(_, port)| port.port);
        self.limit(settled, now)
    }

    /// When [`Self::due`] should be asked next.
    pub(crate) fn next(&self) -> Option<Instant> {
        let held = self
            .lives
            .values()
            .filter(|life| life.held.is_some())
            .map(|life| life.opened + SETTLED);
        held.chain(self.collecting.filter(|_| self.count > 0)).min()
    }

    /// Nothing may be published now: collect until there is room.
    pub(crate) fn hold_back(&mut self, notices: Vec<Notice>, now: Instant) {
        let later = std::mem::take(&mut self.collected);
        let later_count = std::mem::take(&mut self.count);
        for notice in notices {
            match notice {
                Notice::One(change, port) => self.collect(change, port),
                Notice::Many(event) => {
                    let unlisted = event.count.saturating_sub(event.ports.len() as u64);
                    for entry in event.ports {
                        self.collect(entry.change, entry.port);
                    }
                    self.count += unlisted;
                }
            }
        }
        let unlisted = later_count.saturating_sub(later.len() as u64);
        for entry in later {
            self.collect(entry.change, entry.port);
        }
        self.count += unlisted;
        self.collecting = Some(now + WINDOW);
    }

    fn filter(&mut self, change: PortChange, port: &Port, now: Instant) -> Option<PortChange> {
        match change {
            PortChange::Opened => {
                let was_brief = self.lives.get(&port.port).is_some_and(|life| life.brief);
                self.lives.insert(
                    port.port,
                    Life {
                        opened: now,
                        held: was_brief.then(|| port.clone()),
                        brief: false,
                    },
                );
                (!was_brief).then_some(change)
            }
            PortChange::Changed => match self.lives.get_mut(&port.port) {
                Some(life) if life.held.is_some() => {
                    life.held = Some(port.clone());
                    None
                }
                _ => Some(change),
            },
            PortChange::Closed => {
                let known = self.lives.len();
                let life = self.lives.get_mut(&port.port)?;
                let unheard = life.held.take().is_some();
                let brief = now.duration_since(life.opened) <= BRIEF || unheard;
                if brief && known <= MAX_BRIEF {
                    life.brief = true;
                } else {
                    self.lives.remove(&port.port);
                }
                (!unheard).then_some(change)
            }
        }
    }

    fn limit(&mut self, changes: Vec<(PortChange, Port)>, now: Instant) -> Vec<Notice> {
        let mut notices = self.end_of_window(now);
        if changes.is_empty() {
            return notices;
        }
        while self
            .recent
            .front()
            .is_some_and(|at| now.duration_since(*at) >= WINDOW)
        {
            self.recent.pop_front();
        }
        if self.collecting.is_none() && self.recent.len() + changes.len() <= BURST {
            for (change, port) in changes {
                self.recent.push_back(now);
                notices.push(Notice::One(change, port));
            }
            return notices;
        }
        for (change, port) in changes {
            self.collect(change, port);
        }
        if self.collecting.is_none() {
            match self.recent.front() {
                // The rest of a window in which some went out one by one.
                Some(first) => self.collecting = Some(*first + WINDOW),
                None => {
                    notices.extend(self.flush());
                    self.collecting = Some(now + WINDOW);
                }
            }
        }
        notices
    }

    fn end_of_window(&mut self, now: Instant) -> Vec<Notice> {
        if self.collecting.is_none_or(|end| now < end) {
            return Vec::new();
        }
        if self.count > BURST as u64 {
            self.collecting = Some(now + WINDOW);
            return self.flush().into_iter().collect();
        }
        self.collecting = None;
        self.recent.clear();
        self.count = 0;
        std::mem::take(&mut self.collected)
            .into_iter()
            .map(|entry| {
                self.recent.push_back(now);
                Notice::One(entry.change, entry.port)
            })
            .collect()
    }

    fn collect(&mut self, change: PortChange, port: Port) {
        self.count += 1;
        if self.collected.len() < PortsEvent::LISTED {
            self.collected.push(PortsEventEntry { change, port });
        }
    }

    fn flush(&mut self) -> Option<Notice> {
        let count = std::mem::take(&mut self.count);
        let ports = std::mem::take(&mut self.collected);
        (count > 0).then_some(Notice::Many(PortsEvent { count, ports }))
    }
}

#[cfg(test)]
#[path = "announce_tests.rs"]
mod tests;
