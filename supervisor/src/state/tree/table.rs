//! One look at all processes.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::state::moment::Moment;
use crate::state::observation::{MAX_TEXT, clean};

use super::{MAX_PROCESSES, TreeError, stat};

/// Longest part of a command line that is read, bytes.
const MAX_COMMAND: u64 = 4_096;
/// Depth at which a chain of wrappers is believed to be a loop.
const MAX_DEPTH: usize = 32;

/// Programs that only run another: their child tells more than they do.
const WRAPPERS: [&[u8]; 16] = [
    b"sh", b"bash", b"dash", b"zsh", b"fish", b"ash", b"env", b"sudo", b"timeout", b"nice",
    b"nohup", b"setsid", b"stdbuf", b"bwrap", b"script", b"time",
];

/// A process at the time of the look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    pub started: Moment,
    pub zombie: bool,
    pub(super) ticks: u64,
    wrapper: bool,
    name: Box<[u8]>,
}

/// All processes that were seen in one look.
#[derive(Debug)]
pub struct Table {
    /// When the look was taken.
    pub at: Moment,
    proc: PathBuf,
    processes: HashMap<u32, Process>,
    children: HashMap<u32, Vec<u32>>,
}

impl Table {
    /// Looks at `/proc`. Takes about 10 µs per process, so call it where blocking for a millisecond is allowed.
    ///
    /// # Errors
    /// When `/proc` cannot be listed.
    pub fn read(now: Moment) -> Result<Self, TreeError> {
        Self::read_from(Path::new("/proc"), now)
    }

    pub(super) fn read_from(proc: &Path, now: Moment) -> Result<Self, TreeError> {
        let failed = |source| TreeError::List {
            path: proc.to_path_buf(),
            source,
        };
        let mut table = Self {
            at: now,
            proc: proc.to_path_buf(),
            processes: HashMap::new(),
            children: HashMap::new(),
        };
        let mut line = Vec::with_capacity(512);
        for entry in std::fs::read_dir(proc).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if table.processes.len() >= MAX_PROCESSES {
                tracing::debug!(MAX_PROCESSES, "more processes than are looked at");
                break;
            }
            line.clear();
            // One that ends now is not there: no error.
            let read = File::open(proc.join(&name).join("stat"))
                .and_then(|stat| stat.take(4_096).read_to_end(&mut line));
            if let (Ok(_), Some(stat)) = (read, stat::parse(&line)) {
                table.add(pid, &stat);
            }
        }
        Ok(table)
    }

    fn add(&mut self, pid: u32, stat: &stat::Stat<'_>) {
        let process = Process {
            pid,
            parent: stat.parent,
            started: stat.started,
            zombie: matches!(stat.state, b'Z' | b'X' | b'x'),
            ticks: stat.ticks,
            wrapper: WRAPPERS.contains(&stat.name),
            name: stat.name.into(),
        };
        self.children.entry(stat.parent).or_default().push(pid);
        self.processes.insert(pid, process);
    }

    /// One process.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<&Process> {
        self.processes.get(&pid)
    }

    /// Its children, zombies too.
    pub fn children(&self, pid: u32) -> impl Iterator<Item = &Process> {
        let pids = self.children.get(&pid).map_or(&[][..], Vec::as_slice);
        pids.iter().filter_map(|pid| self.processes.get(pid))
    }

    /// CPU ticks of a process and all beneath it.
    pub(super) fn ticks_beneath(&self, pid: u32) -> u64 {
        let mut sum = 0u64;
        let mut open = vec![pid];
        // A look is not taken at one instant, so parents may seem to form a circle: nothing is counted twice.
        let mut left = self.processes.len();
        while let Some(pid) = open.pop() {
            if let Some(process) = self.processes.get(&pid) {
                sum = sum.saturating_add(process.ticks);
            }
            if left == 0 {
                break;
            }
            left -= 1;
            open.extend(self.children(pid).map(|child| child.pid));
        }
        sum
    }

    /// Of `root` and what it runs, the process that tells most: past shells and other wrappers, along the busiest.
    pub(super) fn telling<'a>(&'a self, root: &'a Process) -> &'a Process {
        let mut process = root;
        for _ in 0..MAX_DEPTH {
            if !process.wrapper {
                break;
            }
            let alive = self.children(process.pid).filter(|child| !child.zombie);
            let busiest = alive.max_by_key(|child| (self.ticks_beneath(child.pid), child.started));
            match busiest {
                Some(child) => process = child,
                None => break,
            }
        }
        process
    }

    /// The command line of a process, for people; its name where there is none.
    pub(super) fn command(&self, process: &Process) -> String {
        let path = self.proc.join(process.pid.to_string()).join("cmdline");
        let mut line = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_COMMAND).read_to_end(&mut line));
        let named = match read {
            Ok(_) if line.iter().any(|b| *b != 0) => &line,
            _ => &process.name[..],
        };
        // Arguments end in NUL, a control character.
        clean(&String::from_utf8_lossy(named), MAX_TEXT).into_owned()
    }
}
