//! What runs beneath an agent, from `/proc`.
//!
//! Reads `stat` of every process and `cmdline` of the few that are shown; both are world-readable and need no
//! capability. A [`Table`] is one look at all processes and serves every session; a [`Tree`] turns it into the
//! [`Sample`] of one session and remembers the CPU times of the look before.
//!
//! Children of an agent are its tools, but also a wrapper that started the real program, servers that live as long as
//! the agent, and what earlier turns left. What starts together with the agent is taken for part of it; for the rest,
//! the start times tell the fusion which is which.
//!
//! Bounds: at most [`MAX_PROCESSES`] processes are read and [`MAX_CHILDREN`] children reported, the newest. Processes
//! that end during the look are left out.

mod stat;
mod table;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::moment::Moment;
use super::observation::{Child, Sample};

pub use table::{Process, Table};

/// Most processes in one look.
pub const MAX_PROCESSES: usize = 16_384;
/// Most children in a sample.
pub const MAX_CHILDREN: usize = 64;

/// What starts this soon after the agent is part of it: a wrapper's real program does, a tool cannot (Claude Code needs
/// 0.5 s to its first model call).
const TOGETHER: Duration = Duration::from_millis(700);
/// Shortest time between two looks from which CPU use is computed: the kernel counts in ticks of 10 ms.
const SHORTEST: Duration = Duration::from_millis(250);
/// Ticks of `/proc` per second (`USER_HZ`, part of the ABI on all supported architectures; proc(5)).
const TICKS_PER_SECOND: u64 = 100;

/// Why the processes cannot be seen.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("cannot list {path}")]
    List {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("process {pid} is not in /proc")]
    Gone { pid: u32 },
}

/// The process at the top of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// The holder: the agent is its oldest child; what the agent left behind are the others.
    Holder(u32),
    /// The agent itself.
    Agent(u32),
}

/// The processes of one session.
#[derive(Debug)]
pub struct Tree {
    top: Top,
    before: Option<Before>,
}

#[derive(Debug)]
struct Before {
    at: Moment,
    /// Ticks of all, and of each child by identity.
    all: u64,
    children: HashMap<Identity, u64>,
    /// What was computed then, for looks that follow too soon.
    all_percent: Option<u32>,
    percent: HashMap<Identity, u32>,
}

/// Process ids are used again; start times tell the processes apart.
type Identity = (u32, Moment);

/// When a process started; `None` when it is not there.
#[must_use]
pub fn started(pid: u32) -> Option<Moment> {
    let line = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    stat::parse(&line).map(|stat| stat.started)
}

/// The same in clock ticks since boot, as `/proc/PID/stat` and Claude Code's session file have it.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    let milliseconds = started(pid)?.since_boot().as_millis();
    u64::try_from(milliseconds)
        .ok()
        .map(|milliseconds| milliseconds * TICKS_PER_SECOND / 1000)
}

impl Tree {
    #[must_use]
    pub fn new(top: Top) -> Self {
        Self { top, before: None }
    }

    /// What `table` shows of this session.
    ///
    /// # Errors
    /// When the top process, or the agent beneath a holder, is not there (any more).
    pub fn look(&mut self, table: &Table) -> Result<Sample, TreeError> {
        let (top, agent) = self.agent(table)?;
        let mut roots: Vec<&Process> = Vec::new();
        // The agent, its wrapper, its servers: their children are looked at one by one.
        let mut core = vec![agent.pid];
        if top != agent.pid {
            sort_out(table, top, top, agent, &mut core, &mut roots);
        }
        while let Some(pid) = core.pop() {
            sort_out(table, pid, top, agent, &mut core, &mut roots);
        }
        roots.sort_by_key(|root| root.started);
        let surplus = roots.len().saturating_sub(MAX_CHILDREN);
        let roots = roots.split_off(surplus);
        Ok(self.measure(table, top, &roots))
    }

    fn agent<'a>(&self, table: &'a Table) -> Result<(u32, &'a Process), TreeError> {
        match self.top {
            Top::Agent(pid) => table
                .process(pid)
                .map(|agent| (pid, agent))
                .ok_or(TreeError::Gone { pid }),
            Top::Holder(pid) => table
                .children(pid)
                .min_by_key(|child| (child.started, child.pid))
                .map(|agent| (pid, agent))
                .ok_or(TreeError::Gone { pid }),
        }
    }

    fn measure(&mut self, table: &Table, top: u32, roots: &[&Process]) -> Sample {
        let all = table.ticks_beneath(top);
        let ticks: Vec<(Identity, u64)> = (roots.iter())
            .map(|root| ((root.pid, root.started), table.ticks_beneath(root.pid)))
            .collect();
        let elapsed = self.before.as_ref().map(|before| table.at - before.at);
        let (all_percent, percents) = match (&self.before, elapsed) {
            (Some(before), Some(elapsed)) if elapsed < SHORTEST => {
                (before.all_percent, before.percent.clone())
            }
            (Some(before), Some(elapsed)) => {
                let of_child = |(identity, ticks): &(Identity, u64)| {
                    let known = before.children.get(identity);
                    // One that is new has existed for less than the time between the looks.
                    let lived = table.at - identity.1;
                    let elapsed = if known.is_some() { elapsed } else { lived };
                    let used = ticks.saturating_sub(known.copied().unwrap_or(0));
                    (elapsed >= SHORTEST).then(|| (*identity, percent(used, elapsed)))
                };
                let all = percent(all.saturating_sub(before.all), elapsed);
                (Some(all), ticks.iter().filter_map(of_child).collect())
            }
            _ => (None, HashMap::new()),
        };
        let children = roots.iter().map(|root| Child {
            pid: root.pid,
            started: root.started,
            command: table.command(table.telling(root)),
            cpu_percent: percents.get(&(root.pid, root.started)).copied(),
        });
        let sample = Sample {
            children: children.collect(),
            cpu_percent: all_percent,
        };
        if elapsed.is_none_or(|elapsed| elapsed >= SHORTEST) {
            self.before = Some(Before {
                at: table.at,
                all,
                children: ticks.into_iter().collect(),
                all_percent,
                percent: percents,
            });
        }
        sample
    }
}

/// Sorts the children of `parent` into parts of the agent and what it started.
fn sort_out<'a>(
    table: &'a Table,
    parent: u32,
    top: u32,
    agent: &Process,
    core: &mut Vec<u32>,
    roots: &mut Vec<&'a Process>,
) {
    for child in table.children(parent) {
        // A look is not taken at one instant: parents may seem to form a circle.
        if child.pid == agent.pid || child.pid == top || child.zombie {
            continue;
        }
        if child.started - agent.started <= TOGETHER {
            core.push(child.pid);
        } else {
            roots.push(child);
        }
    }
}

fn percent(ticks: u64, elapsed: Duration) -> u32 {
    let milliseconds = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let used = ticks.saturating_mul(1_000 * 100 / TICKS_PER_SECOND);
    u32::try_from(used / milliseconds).unwrap_or(u32::MAX)
}
