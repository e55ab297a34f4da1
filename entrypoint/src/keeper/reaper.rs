//! Taking away the dead, ours and everybody else's.
//!
//! The only place that waits in the keeper, so each status has one owner. A zombie is looked at before it is reaped:
//! until then its pid is its own, and routing by pid cannot mix up two processes.

use std::time::Instant;

use super::Keeper;
use super::process::Role;
use super::supervisor::Outcome;
use crate::wait::{self, Dead};

impl Keeper {
    /// Reaps until nobody is dead.
    pub(super) fn reap(&mut self, now: Instant) {
        while let Dead::Child(pid) = wait::dead_child() {
            self.died = true;
            if self.supervisor.pid() == Some(pid) {
                let Some(status) = wait::reap(pid) else {
                    return;
                };
                // What it said before it died still counts.
                while self.listen_to_supervisor(now) {}
                self.supervisor_ended(status, now);
                continue;
            }
            let owner = self.table.owner(pid);
            if let Some((slot, role)) = owner
                && let Some(process) = self.table.get(slot)
            {
                process.before_reaping(role);
            }
            let Some(status) = wait::reap(pid) else {
                return;
            };
            if let Some((slot, role)) = owner {
                self.process_ended(slot, role, status, now);
            }
        }
    }

    fn supervisor_ended(&mut self, status: i32, now: Instant) {
        match self.supervisor.ended(status, now) {
            Outcome::Again if self.stop.is_some() => self.supervisor_ended_while_stopping(now),
            Outcome::Again => {}
            Outcome::GiveUp(code) => self.stop_in_order(0, code, now),
        }
    }

    fn process_ended(&mut self, slot: u32, role: Role, status: i32, now: Instant) {
        if let Some(process) = self.table.get(slot) {
            process.child_ended(role, status, &self.epoll);
        }
        self.settle(slot, now);
    }

    /// Does what is due for endings that are the keeper's own.
    pub(super) fn step_endings(&mut self, now: Instant) {
        let died = self.died;
        for slot in 0..self.table.end() {
            let Some(process) = self.table.get(slot) else {
                continue;
            };
            if process.due().is_some_and(|due| now >= due) {
                process.force(now);
            }
            let Some(mut sweep) = process.sweep.take() else {
                continue;
            };
            let known = self.own_children();
            let own = self.identity.pid;
            let Some(process) = self.table.get(slot) else {
                continue;
            };
            let due = sweep.step(now, died, || {
                let (child, leader) = (process.child(), process.pid());
                let holder = process.holder.as_ref();
                holder.map_or_else(Vec::new, |holder| {
                    holder.remains(child, leader, own, &known)
                })
            });
            match due {
                Some(due) => {
                    process.sweep = Some(sweep);
                    self.sweep_due = Some(self.sweep_due.map_or(due, |earlier| earlier.min(due)));
                }
                None => {
                    process.swept();
                    self.settle(slot, now);
                }
            }
        }
    }

    /// Children that were started on purpose.
    fn own_children(&self) -> Vec<i32> {
        let of_processes = self
            .table
            .iter()
            .flat_map(|process| [process.child(), process.adopted_leader()]);
        of_processes
            .flatten()
            .chain(self.supervisor.pid())
            .collect()
    }
}
