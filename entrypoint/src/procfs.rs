//! What `/proc` says about processes.
//!
//! Reads into buffers on the stack; `stat` and `status` are readable for every user, so this works without
//! `CAP_SYS_PTRACE`, which a default container lacks.

use std::ffi::CStr;
use std::fmt::Write;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Most processes taken from one scan; a fork bomb beyond it is met again by the next scan.
const MAX_PROCESSES: usize = 65_536;

/// A line of `/proc/PID/stat`, see proc_pid_stat(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    /// `Z` zombie, `X` dead, `T` stopped, …
    pub(crate) state: u8,
    pub(crate) parent: i32,
    pub(crate) session: i32,
    /// Clock ticks after boot: with the pid it names a process for ever.
    pub(crate) start: u64,
}

impl Stat {
    pub(crate) fn alive(&self) -> bool {
        !matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Reads a small file whole; `None` when it cannot be opened or read. What does not fit the buffer is left out.
pub(crate) fn read_into<'a>(path: &CStr, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let fd = open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match nix::unistd::read(&fd, rest) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return None,
        }
    }
    buffer.get(..length)
}

/// A null-terminated path on the stack.
struct Path {
    bytes: [u8; 40],
    length: usize,
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        // The last byte stays zero.
        if end >= self.bytes.len() {
            return Err(std::fmt::Error);
        }
        self.bytes
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

fn read_process<'a>(pid: i32, file: &str, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut path = Path {
        bytes: [0; 40],
        length: 0,
    };
    write!(path, "/proc/{pid}/{file}").ok()?;
    read_into(CStr::from_bytes_until_nul(&path.bytes).ok()?, buffer)
}

/// `None` when there is no such process (any more), or when its parent reaps it at this moment: such a line is full of
/// defaults, its parent 0 and its session -1 (`do_task_stat` without `lock_task_sighand`, fs/proc/array.c; seen on 6.18
/// for one in 500 reads of a child that is being reaped).
pub(crate) fn stat(pid: i32) -> Option<Stat> {
    // The longest line: 52 fields of at most 20 digits and a name.
    let mut buffer = [0; 1280];
    parse_stat(read_process(pid, "stat", &mut buffer)?)
}

fn parse_stat(line: &[u8]) -> Option<Stat> {
    let text = |bytes| std::str::from_utf8(bytes).ok();
    let open = line.iter().position(|byte| *byte == b'(')?;
    // The name may contain anything, spaces and parentheses too; the last one ends it.
    let close = line.iter().rposition(|byte| *byte == b')')?;
    let pid = text(line.get(..open)?)?.trim().parse().ok()?;
    let mut fields = text(line.get(close + 1..)?)?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    if session == -1 {
        return None;
    }
    let start = fields.nth(15)?.parse().ok()?;
    Some(Stat {
        pid,
        state,
        parent,
        session,
        start,
    })
}

/// Every process that can be seen, by rising pid.
pub(crate) fn scan() -> Vec<Stat> {
    let entries = match std::fs::read_dir("/proc") {
        Ok(entries) => entries,
        Err(error) => {
            crate::log::line(format_args!("cannot look for processes: /proc: {error}"));
            return Vec::new();
        }
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut all: Vec<Stat> = pids.filter_map(stat).take(MAX_PROCESSES).collect();
    all.sort_unstable_by_key(|process| process.pid);
    all
}

/// Fields of `/proc/PID/status`, see proc_pid_status(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// Real user id.
    pub(crate) uid: u32,
    /// Bit `n - 1` is set when signal `n` is ignored.
    ignored: u64,
}

impl Status {
    pub(crate) fn ignores(&self, signal: i32) -> bool {
        u32::try_from(signal - 1).is_ok_and(|bit| {
            self.ignored
                .checked_shr(bit)
                .is_some_and(|mask| mask & 1 == 1)
        })
    }
}

pub(crate) fn status(pid: i32) -> Option<Status> {
    let mut buffer = [0; 4096];
    parse_status(read_process(pid, "status", &mut buffer)?)
}

fn parse_status(bytes: &[u8]) -> Option<Status> {
    let text = String::from_utf8_lossy(bytes);
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let uid = field("Uid:")?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()?;
    let ignored = u64::from_str_radix(field("SigIgn:")?, 16).ok()?;
    Some(Status { uid, ignored })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_is_skipped() {
        let line =
            b"42 (a) R 1 (b) S 7 40 41 34816 42 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 1000 10\n";
        let stat = parse_stat(line).unwrap();
        assert_eq!(
            stat,
            Stat {
                pid: 42,
                state: b'S',
                parent: 7,
                session: 41,
                start: 12345
            }
        );
        assert_eq!(parse_stat(b"42 (cut"), None);
    }

    #[test]
    fn one_that_is_being_reaped_is_gone() {
        let line = b"26279 (race) Z 0 -1 -1 0 -1 4227148 17 0 0 0 0 0 0 0 20 0 0 0 2420648 0 0\n";
        assert_eq!(parse_stat(line), None);
    }

    #[test]
    fn we_find_ourselves() {
        let pid = nix::unistd::getpid().as_raw();
        let own = stat(pid).unwrap();
        assert_eq!(own.parent, nix::unistd::getppid().as_raw());
        assert!(
            scan()
                .iter()
                .any(|process| process.pid == pid && process.start == own.start)
        );
        assert_eq!(status(pid).unwrap().uid, nix::unistd::getuid().as_raw());
    }

    #[test]
    fn ignored_signals_are_read_from_the_mask() {
        let status =
            parse_status(b"Name:\tbash\nUid:\t1001\t1001\t1001\t1001\nSigIgn:\t0000000000384004\n")
                .unwrap();
        assert!(status.ignores(nix::libc::SIGTERM) && status.ignores(nix::libc::SIGQUIT));
        assert!(!status.ignores(nix::libc::SIGHUP) && !status.ignores(0));
        assert_eq!(status.uid, 1001);
    }
}
