//! Views of `/proc`: who is there, whose child it is, what it holds.
//!
//! Everything here is a look at one moment; a process may be gone when the answer is read, which is never an error but
//! the absence of an answer. Field meanings: proc(5).

use std::fs;
use std::path::PathBuf;

/// A process as `/proc/PID/stat` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    /// At most 15 bytes.
    pub name: String,
    /// `R` `S` `D` `T` `t` `Z` …
    pub state: char,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// Device number of the controlling terminal, 0 if none.
    pub terminal: i32,
    /// Clock ticks of user and system time together.
    pub cpu_ticks: u64,
    /// Clock ticks since boot; with the pid it names a process for good.
    pub started: u64,
}

/// The process with this id.
#[must_use]
pub fn process(pid: i32) -> Option<Process> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// All processes.
#[must_use]
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(process)
        .collect()
}

/// The children of a process, of all its threads.
#[must_use]
pub fn children(pid: i32) -> Vec<Process> {
    all()
        .into_iter()
        .filter(|process| process.parent == pid)
        .collect()
}

/// All that descend from a process, nearest first, without it.
#[must_use]
pub fn descendants(pid: i32) -> Vec<Process> {
    let mut rest = all();
    let mut family = vec![pid];
    let mut found = Vec::new();
    while let Some(parent) = family.pop() {
        let (children, others) = rest
            .into_iter()
            .partition(|process| process.parent == parent);
        rest = others;
        let children: Vec<Process> = children;
        family.extend(children.iter().map(|child| child.pid));
        found.extend(children);
    }
    found
}

/// The zombies among the descendants of a process.
#[must_use]
pub fn zombies(pid: i32) -> Vec<Process> {
    descendants(pid)
        .into_iter()
        .filter(|process| process.state == 'Z')
        .collect()
}

/// Whether a process is there and has not ended.
#[must_use]
pub fn alive(pid: i32) -> bool {
    process(pid).is_some_and(|process| !matches!(process.state, 'Z' | 'X'))
}

/// The arguments of a process; empty for zombies and kernel threads.
#[must_use]
pub fn arguments(pid: i32) -> Vec<String> {
    strings(pid, "cmdline")
}

/// The environment a process was started with, as far as it may be read and was not overwritten.
#[must_use]
pub fn environment(pid: i32) -> Vec<String> {
    strings(pid, "environ")
}

/// Living processes one of whose arguments contains `text`.
#[must_use]
pub fn with_argument(text: &str) -> Vec<Process> {
    all()
        .into_iter()
        .filter(|process| {
            arguments(process.pid)
                .iter()
                .any(|argument| argument.contains(text))
        })
        .collect()
}

/// Living processes that were started with this variable set to this value.
#[must_use]
pub fn with_variable(name: &str, value: &str) -> Vec<Process> {
    let wanted = format!("{name}={value}");
    all()
        .into_iter()
        .filter(|process| environment(process.pid).contains(&wanted))
        .collect()
}

/// A field of `/proc/PID/status`, trimmed: `VmRSS`, `SigIgn`, `CapEff`, `Uid`, `NSpid` …
#[must_use]
pub fn status(pid: i32, field: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

/// A field of `/proc/PID/status` that is given in kB.
#[must_use]
pub fn kilobytes(pid: i32, field: &str) -> Option<u64> {
    status(pid, field)?.strip_suffix("kB")?.trim().parse().ok()
}

/// The open descriptors of a process and what they stand for.
#[must_use]
pub fn descriptors(pid: i32) -> Vec<(i32, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let mut open: Vec<(i32, PathBuf)> = entries
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                fs::read_link(entry.path()).ok()?,
            ))
        })
        .collect();
    open.sort_unstable();
    open
}

fn strings(pid: i32, file: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let parts = bytes
        .split(|&byte| byte == 0)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

/// The name may contain anything, also parentheses: it ends at the last one.
fn parse_stat(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Numbered from the state on, which is field 3 of proc(5).
    let field = |number: usize| fields.get(number - 3).copied();
    let ticks = |number: usize| field(number)?.parse::<u64>().ok();
    Some(Process {
        pid: pid.parse().ok()?,
        name: name.to_owned(),
        state: field(3)?.chars().next()?,
        parent: field(4)?.parse().ok()?,
        group: field(5)?.parse().ok()?,
        session: field(6)?.parse().ok()?,
        terminal: field(7)?.parse().ok()?,
        cpu_ticks: ticks(14)? + ticks(15)?,
        started: ticks(22)?,
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_parentheses_is_read() {
        let line = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 99 0 0";
        let process = parse_stat(line).unwrap();
        assert_eq!(
            (
                process.name.as_str(),
                process.parent,
                process.cpu_ticks,
                process.started
            ),
            ("a) b (c)", 1, 11, 99)
        );
    }

    #[test]
    fn a_child_is_found_by_everything_it_has() {
        let mut child = Command::new("sleep")
            .arg("30.0625")
            .env("KIT_TEST", "here")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let found = crate::wait::until(
            "the child's exec",
            std::time::Duration::from_secs(5),
            || {
                with_argument("30.0625")
                    .into_iter()
                    .find(|process| process.pid == pid)
            },
        );
        assert_eq!(found.unwrap().parent, own);
        assert!(children(own).iter().any(|process| process.pid == pid));
        assert!(
            with_variable("KIT_TEST", "here")
                .iter()
                .any(|process| process.pid == pid)
        );
        assert_eq!(descriptors(pid)[0], (0, PathBuf::from("/dev/null")));
        assert!(kilobytes(pid, "VmRSS").unwrap() > 0);
        child.kill().unwrap();
        crate::wait::until("the zombie", std::time::Duration::from_secs(5), || {
            zombies(own).into_iter().find(|process| process.pid == pid)
        })
        .unwrap();
        assert!(!alive(pid));
        child.wait().unwrap();
        assert_eq!(process(pid), None);
    }
}
