//! Sums over all lines, and the newest of them.
//!
//! Bounded: at most [`KEYS`] sessions, models and days are told apart; what comes after is summed as `(other)`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use jiff::tz::Offset;
use serde::{Deserialize, Serialize};
use whim_wire::generation::{DayTotals, LedgerLine, ModelTotals, SessionTotals, Spend, Totals};
use whim_wire::money::NanoUsd;

use super::RECENT;

/// Keys of each kind.
const KEYS: usize = 1024;

/// The sums, as they stand in `generations.totals.json` for the rotated files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sums {
    pub(super) total: Totals,
    pub(super) by_session: BTreeMap<String, Totals>,
    pub(super) by_model: BTreeMap<String, Totals>,
    pub(super) by_day: BTreeMap<String, Totals>,
    /// Number of the last line that is in here.
    pub(super) seq: u64,
    /// Number of the last rotated file that is in here.
    pub(super) rotated: u64,
}

fn entry<'m>(map: &'m mut BTreeMap<String, Totals>, key: &str) -> &'m mut Totals {
    let known = map.len() < KEYS || map.contains_key(key);
    map.entry(if known { key } else { "(other)" }.to_owned())
        .or_default()
}

impl Sums {
    /// Adds a line.
    pub(super) fn add(&mut self, line: &LedgerLine) {
        self.seq = self.seq.max(line.seq);
        self.total.add(line);
        for totals in self.keyed(line) {
            totals.add(line);
        }
    }

    fn keyed(&mut self, line: &LedgerLine) -> [&mut Totals; 3] {
        let day = Offset::UTC
            .to_datetime(line.at.timestamp())
            .date()
            .to_string();
        [
            entry(&mut self.by_session, &line.session),
            entry(
                &mut self.by_model,
                line.model.as_deref().unwrap_or("(unknown)"),
            ),
            entry(&mut self.by_day, &day),
        ]
    }
}

/// Sums and newest lines.
#[derive(Debug, Default)]
pub(super) struct Book {
    sums: Sums,
    recent: VecDeque<Arc<LedgerLine>>,
}

impl Book {
    pub(super) fn new(sums: Sums) -> Self {
        Self {
            sums,
            recent: VecDeque::new(),
        }
    }

    /// Gives a line its number.
    pub(super) fn number(&mut self, mut line: LedgerLine) -> LedgerLine {
        self.sums.seq += 1;
        line.seq = self.sums.seq;
        line
    }

    pub(super) fn add(&mut self, line: Arc<LedgerLine>) {
        self.sums.add(&line);
        self.keep(line);
    }

    /// Corrects a line that was added; `new` has a number of its own, above all others.
    pub(super) fn replace(&mut self, old: &LedgerLine, new: Arc<LedgerLine>) {
        let correct = |totals: &mut Totals, line: &LedgerLine| {
            totals.usd = totals
                .usd
                .saturating_sub(old.cost_usd)
                .saturating_add(line.cost_usd);
            totals.usage.replace(&old.usage, &line.usage);
        };
        correct(&mut self.sums.total, &new);
        // The key of the old model: a correction changes what a call cost, not where it is counted.
        for totals in self.sums.keyed(old) {
            correct(totals, &new);
        }
        self.recent.retain(|line| line.seq != old.seq);
        self.keep(new);
    }

    fn keep(&mut self, line: Arc<LedgerLine>) {
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }

    /// None if memory does not reach back to `after`.
    pub(super) fn page(&self, after: Option<u64>, limit: usize) -> Option<Vec<LedgerLine>> {
        let Some(after) = after else {
            let skip = self.recent.len().saturating_sub(limit);
            let newest = self.recent.iter().skip(skip);
            return Some(newest.map(|line| (**line).clone()).collect());
        };
        let oldest = self
            .recent
            .front()
            .map_or(self.sums.seq + 1, |line| line.seq);
        if after + 1 < oldest && oldest > 1 {
            return None;
        }
        Some(
            self.recent
                .iter()
                .filter(|line| line.seq > after)
                .take(limit)
                .map(|line| (**line).clone())
                .collect(),
        )
    }

    pub(super) fn session(&self, id: &str) -> Totals {
        self.sums.by_session.get(id).copied().unwrap_or_default()
    }

    pub(super) fn spend(&self, budget: Option<NanoUsd>, reserved: NanoUsd) -> Spend {
        let Sums {
            total,
            by_session,
            by_model,
            by_day,
            ..
        } = self.sums.clone();
        let session = |(session, totals)| SessionTotals { session, totals };
        Spend {
            budget_usd: budget,
            reserved_usd: reserved,
            totals: total,
            by_session: by_session.into_iter().map(session).collect(),
            by_model: by_model
                .into_iter()
                .map(|(model, totals)| ModelTotals { model, totals })
                .collect(),
            by_day: by_day
                .into_iter()
                .map(|(day, totals)| DayTotals { day, totals })
                .collect(),
        }
    }
}
