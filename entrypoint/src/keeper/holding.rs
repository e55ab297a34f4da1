//! The keeper's side of a holder, and what is left of a session without one.

use super::cgroup::Cgroup;
use crate::holder::report::HolderHandle;
use crate::procfs::{self, Stat};
use crate::tree::Snapshot;

/// The subreaper above a process.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) handle: HolderHandle,
    /// Its own start time and the user it runs as, to tell what it leaves behind from strangers.
    start: u64,
    uid: u32,
    pub(super) alive: bool,
    cgroup: Option<Cgroup>,
}

impl Holder {
    /// Of the process `pid` that runs as `uid`.
    pub(super) fn new(handle: HolderHandle, pid: i32, uid: u32, cgroup: Option<Cgroup>) -> Self {
        Self {
            handle,
            start: procfs::stat(pid).map_or(0, |stat| stat.start),
            uid,
            alive: true,
            cgroup,
        }
    }

    /// A living leader that is not in the cgroup could not join it, and what it starts is not there either.
    pub(super) fn leader_started(&mut self, leader: i32) {
        let lives = procfs::stat(leader).is_some_and(|stat| stat.alive());
        let outside = |cgroup: &Cgroup| !cgroup.contains(leader);
        if lives && self.cgroup.as_ref().is_some_and(outside) {
            self.cgroup = None;
        }
    }

    /// KILL to all that is in the cgroup, if there is one.
    pub(super) fn kill_cgroup(&self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// What is left: all below the living holder `child`; or, when it was killed, what the kernel gave to us (`own`)
    /// then. With a cgroup that is its members. Without, it cannot be told for certain from an orphan of somebody else's,
    /// so it has to be younger than the holder and of the same user or session. `known`: children that were started on
    /// purpose.
    pub(super) fn remains(
        &self,
        child: Option<i32>,
        leader: i32,
        own: i32,
        known: &[i32],
    ) -> Vec<Stat> {
        let snapshot = Snapshot::take();
        if let (true, Some(child)) = (self.alive, child) {
            return snapshot.below(child);
        }
        let members = self.cgroup.as_ref().map(Cgroup::members);
        let belongs = |pid: i32| match &members {
            Some(members) => members.contains(&pid),
            None => procfs::status(pid).is_some_and(|status| status.uid == self.uid),
        };
        let of_session = |stat: &Stat| {
            !known.contains(&stat.pid)
                && ((leader != 0 && stat.session == leader) || belongs(stat.pid))
        };
        let left_behind = |stat: &Stat| {
            let ours = stat.parent == own && stat.start >= self.start;
            ours && (stat.pid == leader || of_session(stat))
        };
        let roots: Vec<i32> = snapshot
            .living()
            .filter(|stat| left_behind(stat))
            .map(|stat| stat.pid)
            .collect();
        let below = |stat: &&Stat| {
            roots
                .iter()
                .any(|root| stat.pid == *root || snapshot.is_below(stat.pid, *root))
        };
        snapshot.living().filter(below).copied().collect()
    }
}
