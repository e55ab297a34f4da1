//! All processes, by slot.
//!
//! At most [`MAX_PROCESSES`]; another one is refused. A slot is free again once its process is acknowledged.

use super::process::{Process, Role};
use crate::wire::ProcessId;

/// Most processes at a time, ended ones that nobody has acknowledged included.
pub(super) const MAX_PROCESSES: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Table {
    slots: Vec<Option<Process>>,
}

impl Table {
    /// `None` when the table is full.
    pub(super) fn insert(&mut self, process: Process) -> Option<u32> {
        let free = self.slots.iter().position(Option::is_none);
        let index = match free {
            Some(index) => index,
            None if self.slots.len() < MAX_PROCESSES => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        *self.slots.get_mut(index)? = Some(process);
        u32::try_from(index).ok()
    }

    pub(super) fn full(&self) -> bool {
        self.slots.len() >= MAX_PROCESSES && self.slots.iter().all(Option::is_some)
    }

    pub(super) fn get(&mut self, slot: u32) -> Option<&mut Process> {
        self.slots.get_mut(usize::try_from(slot).ok()?)?.as_mut()
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Process> {
        self.slots.get_mut(usize::try_from(slot).ok()?)?.take()
    }

    pub(super) fn find(&mut self, id: ProcessId) -> Option<(u32, &mut Process)> {
        self.iter_mut().find(|(_, process)| process.id == id)
    }

    /// Whose child `pid` is.
    pub(super) fn owner(&mut self, pid: i32) -> Option<(u32, Role)> {
        self.iter_mut()
            .find_map(|(slot, process)| Some((slot, process.role(pid)?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Process)> {
        (0..)
            .zip(&mut self.slots)
            .filter_map(|(slot, process)| Some((slot, process.as_mut()?)))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.slots.iter().flatten()
    }

    /// One slot above the highest in use.
    pub(super) fn end(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }
}
