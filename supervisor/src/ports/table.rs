//! What listens: scans go in, changes come out. Pure; the clock is handed in.
//!
//! Keeps every listener, shows those that people care for: not our own ports, and of the kernel's ephemeral range only
//! ports that somebody named. A port that closed stays known, with its last owner and findings, so that the proxy can
//! tell "restarting" from "never heard of". Bounds: [`MAX_CLOSED`] closed ports are remembered, the one that closed
//! first is forgotten first; listeners are bounded by the scan.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::RangeInclusive;
use std::sync::Arc;

use whim_proxies::local::Server;
use whim_wire::port::{Port, PortChange};
use whim_wire::time::Time;

use super::guess;
use super::listener::{Bound, Listener};
use super::owner::Owner;

/// Most closed ports that stay known.
pub(crate) const MAX_CLOSED: usize = 256;

/// What is shown, and how.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Ports of this program: never shown, never a target.
    pub(crate) own: BTreeSet<u16>,
    /// The kernel's range for ports nobody asked for.
    pub(crate) ephemeral: RangeInclusive<u16>,
    /// Address of a preview, `{port}` standing for the number.
    pub(crate) preview: String,
    /// User of agents and shells.
    pub(crate) agents_uid: u32,
}

/// A port as the proxy needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub server: Arc<Server>,
    /// Is it in the list? Ports of the ephemeral range are once somebody named them.
    pub is_shown: bool,
}

/// Everything a reader may ask, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// What people see, by number, the address the proxy prefers first.
    pub ports: Vec<Port>,
    /// All known ports, hidden and closed ones too, ours not.
    pub targets: HashMap<u16, Target>,
    /// Where a request goes that names no port.
    pub default: Option<u16>,
}

#[derive(Debug)]
struct Entry {
    listener: Listener,
    inodes: Vec<u64>,
    owner: Option<Owner>,
    since: Time,
}

/// A port number's memory beyond its listeners.
#[derive(Debug, Default)]
struct Record {
    /// The address the proxy uses, kept until it closes.
    chosen: Option<Bound>,
    /// What visitors' requests showed about the present program.
    observed: Option<bool>,
    /// Who listens, or did last; 0: nobody ever.
    program: u64,
    /// The program that was shared.
    trusted: Option<u64>,
    /// Order of closing; none while it listens.
    closed: Option<u64>,
    /// Somebody named this port.
    named: bool,
}

#[derive(Debug)]
pub(crate) struct Table {
    policy: Policy,
    last: Vec<Listener>,
    entries: BTreeMap<Bound, Entry>,
    records: BTreeMap<u16, Record>,
    shown: BTreeMap<u16, Vec<Port>>,
    default: Option<u16>,
    closings: u64,
}

impl Table {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            last: Vec::new(),
            entries: BTreeMap::new(),
            records: BTreeMap::new(),
            shown: BTreeMap::new(),
            default: None,
            closings: 0,
        }
    }

    /// Is this sorted scan the same as the one before?
    pub(crate) fn is_same(&self, scan: &[Listener]) -> bool {
        self.last == scan
    }

    /// Sockets of a scan whose owner was never looked for, with their uid.
    pub(crate) fn unattributed(&self, scan: &[Listener]) -> Vec<(u64, u32)> {
        scan.iter()
            .filter(|listener| !self.policy.own.contains(&listener.port))
            .filter(|listener| self.last.binary_search(listener).is_err())
            .map(|listener| (listener.inode, listener.uid))
            .collect()
    }

    /// Sockets whose known owner no longer lives by `is_alive(pid, start)`.
    pub(crate) fn orphaned(&self, is_alive: impl Fn(u32, u64) -> bool) -> Vec<(u64, u32)> {
        self.entries
            .values()
            .filter(|entry| {
                entry
                    .owner
                    .as_ref()
                    .is_some_and(|owner| !is_alive(owner.process.pid, owner.start))
            })
            .map(|entry| (entry.listener.inode, entry.listener.uid))
            .collect()
    }

    /// A new scan, sorted, with the owners found for its sockets.
    pub(crate) fn scanned(
        &mut self,
        scan: Vec<Listener>,
        mut owners: HashMap<u64, Owner>,
        at: Time,
    ) -> Vec<(PortChange, Port)> {
        let mut entries: BTreeMap<Bound, Entry> = BTreeMap::new();
        for listener in &scan {
            if self.policy.own.contains(&listener.port) {
                continue;
            }
            let entry = entries.entry(listener.bound()).or_insert_with(|| Entry {
                listener: *listener,
                inodes: Vec::new(),
                owner: None,
                since: at,
            });
            entry.inodes.push(listener.inode);
            if entry.owner.is_none() {
                entry.owner = owners.remove(&listener.inode);
            }
        }
        for (bound, entry) in &mut entries {
            let Some(before) = self.entries.remove(bound) else {
                continue;
            };
            if before
                .inodes
                .iter()
                .any(|inode| entry.inodes.contains(inode))
            {
                entry.since = before.since;
                entry.owner = match (entry.owner.take(), before.owner) {
                    // A worker that joined on the same address does not rename the server.
                    (Some(found), Some(known)) if entry.inodes.len() > before.inodes.len() => {
                        drop(found);
                        Some(known)
                    }
                    (Some(found), _) => Some(found),
                    (None, known) => known,
                };
            }
        }
        self.entries = entries;
        self.last = scan;
        self.settle();
        self.diff()
    }

    /// A port that a terminal printed or a person asked for: shown even in the ephemeral range.
    pub(crate) fn named(&mut self, port: u16) -> Vec<(PortChange, Port)> {
        self.record(port).named = true;
        self.forget_oldest();
        self.diff()
    }

    /// What a visitor's request showed.
    pub(crate) fn observed(&mut self, port: u16, http: bool) -> Vec<(PortChange, Port)> {
        if let Some(record) = self.records.get_mut(&port) {
            record.observed = Some(http);
        }
        self.diff()
    }

    /// The program that listens now is the one meant by a share.
    pub(crate) fn confirmed(&mut self, port: u16) -> Vec<(PortChange, Port)> {
        if let Some(record) = self.records.get_mut(&port) {
            record.trusted = Some(record.program);
        }
        self.diff()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            ports: self.shown.values().flatten().cloned().collect(),
            targets: self
                .records
                .iter()
                .filter(|(_, record)| record.program != 0)
                .map(|(port, record)| (*port, self.target(*port, record)))
                .collect(),
            default: self.default,
        }
    }

    fn record(&mut self, port: u16) -> &mut Record {
        self.records.entry(port).or_default()
    }

    fn listening(&self, port: u16) -> impl Iterator<Item = &Entry> {
        let first = Bound {
            port,
            address: std::net::Ipv4Addr::UNSPECIFIED.into(),
            interface: 0,
        };
        self.entries
            .range(first..)
            .take_while(move |(bound, _)| bound.port == port)
            .map(|(_, entry)| entry)
    }

    /// Brings the records in line with the entries.
    fn settle(&mut self) {
        let open: BTreeSet<u16> = self.entries.keys().map(|bound| bound.port).collect();
        for port in &open {
            let kept = self
                .records
                .get(port)
                .and_then(|record| record.chosen)
                .filter(|bound| self.entries.contains_key(bound));
            let best = self
                .listening(*port)
                .min_by_key(|entry| entry.listener.rank());
            let Some(entry) = kept.and_then(|bound| self.entries.get(&bound)).or(best) else {
                continue;
            };
            let (chosen, program) = (entry.listener.bound(), program(entry));
            let record = self.record(*port);
            if record.program != program {
                record.observed = None;
            }
            record.chosen = Some(chosen);
            record.program = program;
            record.closed = None;
        }
        let mut closings = self.closings;
        for (port, record) in &mut self.records {
            if !open.contains(port) && record.closed.is_none() {
                closings += 1;
                record.closed = Some(closings);
                record.chosen = None;
            }
        }
        self.closings = closings;
        self.forget_oldest();
        self.default = self.choose_default();
    }

    fn forget_oldest(&mut self) {
        let mut closed: Vec<(u64, u16)> = self
            .records
            .iter()
            .filter(|(_, record)| record.chosen.is_none())
            .map(|(port, record)| (record.closed.unwrap_or(0), *port))
            .collect();
        let excess = closed.len().saturating_sub(MAX_CLOSED);
        closed.sort_unstable();
        for (_, port) in closed.into_iter().take(excess) {
            self.records.remove(&port);
        }
    }

    fn is_visible(&self, port: u16) -> bool {
        !self.policy.ephemeral.contains(&port)
            || self.records.get(&port).is_some_and(|record| record.named)
    }

    fn http(&self, port: u16, owner: Option<&Owner>) -> Option<bool> {
        self.records
            .get(&port)
            .and_then(|record| record.observed)
            .or_else(|| guess::http(port, owner.map(|owner| &owner.process)))
    }

    /// Stays with a port that listens; leaves a closed one when another could serve.
    fn choose_default(&self) -> Option<u16> {
        if let Some(port) = self.default
            && self.listening(port).next().is_some()
        {
            return Some(port);
        }
        self.entries
            .values()
            .filter(|entry| self.is_visible(entry.listener.port))
            .filter(|entry| {
                entry.listener.uid == self.policy.agents_uid
                    || entry
                        .owner
                        .as_ref()
                        .is_some_and(|owner| owner.session.is_some())
            })
            .filter_map(|entry| {
                let http = self.http(entry.listener.port, entry.owner.as_ref());
                (http != Some(false)).then_some((http.is_none(), entry.since, entry.listener.port))
            })
            .min()
            .map(|(_, _, port)| port)
            .or_else(|| self.default.filter(|port| self.records.contains_key(port)))
    }

    fn target(&self, port: u16, record: &Record) -> Target {
        let v4_taken = self
            .listening(port)
            .any(|entry| entry.listener.takes_v4_loopback());
        let chosen = record.chosen.and_then(|bound| self.entries.get(&bound));
        let server = Server {
            port,
            addresses: chosen
                .map(|entry| entry.listener.dial(v4_taken))
                .unwrap_or_default(),
            program: record.program,
            http: self.http(port, chosen.and_then(|entry| entry.owner.as_ref())),
        };
        Target {
            server: Arc::new(server),
            is_shown: self.is_visible(port),
        }
    }

    fn view(&self) -> BTreeMap<u16, Vec<Port>> {
        let mut view: BTreeMap<u16, Vec<(bool, u8, Port)>> = BTreeMap::new();
        for (bound, entry) in &self.entries {
            let number = bound.port;
            if !self.is_visible(number) {
                continue;
            }
            let record = self.records.get(&number);
            let chosen = record.is_some_and(|record| record.chosen == Some(*bound));
            let port = Port {
                port: number,
                address: bound.address,
                family: entry.listener.family(),
                dual: entry.listener.dual,
                process: entry.owner.as_ref().map(|owner| owner.process.clone()),
                uid: entry.listener.uid,
                session: entry.owner.as_ref().and_then(|owner| owner.session.clone()),
                since: entry.since,
                preview: self.policy.preview.replace("{port}", &number.to_string()),
                http: self.http(number, entry.owner.as_ref()),
                exposed: entry.listener.exposed(),
                taken_over: record.is_some_and(|record| {
                    record
                        .trusted
                        .is_some_and(|trusted| trusted != record.program)
                }),
            };
            view.entry(number)
                .or_default()
                .push((!chosen, entry.listener.rank(), port));
        }
        view.into_iter()
            .map(|(number, mut ports)| {
                ports.sort_by_key(|(other, rank, _)| (*other, *rank));
                (number, ports.into_iter().map(|(_, _, port)| port).collect())
            })
            .collect()
    }

    /// What is shown now against what was shown before, in order of number.
    fn diff(&mut self) -> Vec<(PortChange, Port)> {
        let now = self.view();
        let mut changes = Vec::new();
        for (number, ports) in &now {
            let change = match self.shown.get(number) {
                None => PortChange::Opened,
                Some(before) if before != ports => PortChange::Changed,
                Some(_) => continue,
            };
            changes.extend(ports.first().map(|port| (change, port.clone())));
        }
        for (number, ports) in &self.shown {
            if !now.contains_key(number) {
                changes.extend(ports.first().map(|port| (PortChange::Closed, port.clone())));
            }
        }
        self.shown = now;
        changes
    }
}

/// The same for a restart of the same command by the same user, and for nothing else.
fn program(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.listener.uid.hash(&mut hasher);
    if let Some(owner) = &entry.owner {
        owner.process.name.hash(&mut hasher);
        owner.process.command.hash(&mut hasher);
    }
    // 0 means nobody.
    hasher.finish().max(1)
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
