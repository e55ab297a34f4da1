//! One watched session: its fusion, its process tree, and what was last told of it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use whim_wire::event::Draft;

use crate::state::fusion::{Fusion, Verdict};
use crate::state::moment::Moment;
use crate::state::observation::Observation;
use crate::state::tree::{Table, Top, Tree};

use super::object::{Since, changed_session};

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: Arc<str>,
    pub(super) fusion: Fusion,
    tree: Option<Tree>,
    told: Option<Verdict>,
    pub(super) since: Option<Since>,
}

impl Session {
    pub(super) fn new(id: Arc<str>, fusion: Fusion) -> Self {
        Self {
            // Of a resumed session, the earlier supervisor told.
            told: fusion.last().cloned(),
            id,
            fusion,
            tree: None,
            since: None,
        }
    }

    pub(super) fn look_beneath(&mut self, top: Option<Top>) {
        self.tree = top.map(Tree::new);
    }

    pub(super) fn look_interval(&self) -> Option<Duration> {
        self.tree.as_ref().and_then(|_| self.fusion.tree_interval())
    }

    pub(super) fn look(&mut self, table: &Table, now: Moment) {
        let Some(tree) = &mut self.tree else {
            return;
        };
        match tree.look(table) {
            Ok(sample) => self
                .fusion
                .observe(table.at, now, Observation::Tree(sample)),
            // Its end is reported by who waits for it.
            Err(error) => tracing::debug!(session = &*self.id, %error, "no look at the processes"),
        }
    }

    /// Judges; the event, if that is news.
    pub(super) fn judge(&mut self, now: Moment, wall: Timestamp) -> Option<Draft> {
        let verdict = self.fusion.evaluate(now);
        let since = self
            .since
            .get_or_insert_with(|| Since::new(verdict.since, wall));
        since.update(verdict.since, now, wall);
        let news = (self.told.as_ref()).is_none_or(|told| verdict.differs(told));
        if !news {
            return None;
        }
        let draft = changed_session(&self.id, &verdict, since.wall(), wall);
        self.told = Some(verdict);
        draft
    }
}
