//! Who listens: from the inode of a socket to the process that holds it, its arguments and its session.
//!
//! Done for sockets not seen before only, all of them in one walk over `/proc/PID/fd`, newest processes first. Of a
//! server and its workers the oldest that holds the socket is named. Root without `CAP_SYS_PTRACE` (a container's
//! default) may not look into another user's process, but the same user may (`ptrace(2)`, `PTRACE_MODE_FSCREDS`): the
//! calling thread takes the file-system ids of each process's owner while it looks, so it must be a thread of its own.
//! Bounds: [`MAX_LINKS`] descriptors per walk; a socket whose owner is not found by then has none.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use whim_wire::port::PortProcess;

/// Most descriptors that one walk looks at: a fraction of a second.
const MAX_LINKS: usize = 200_000;
/// Longest chain of parents that is followed.
const MAX_ANCESTORS: usize = 64;

/// The process behind a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) process: PortProcess,
    /// Start of the process in clock ticks since boot: with the pid, its identity.
    pub(crate) start: u64,
    pub(crate) session: Option<String>,
}

/// Which session a process belongs to, if it is a session's holder.
pub(crate) type SessionOf<'a> = &'a dyn Fn(u32) -> Option<String>;

/// A view of the processes, usually of `/proc`.
#[derive(Debug)]
pub(crate) struct Processes {
    root: PathBuf,
}

/// What `/proc/PID/stat` says that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    start: u64,
}

impl Processes {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Does the process still live?
    pub(crate) fn is(&self, pid: u32, start: u64) -> bool {
        self.stat(pid).is_some_and(|stat| stat.start == start)
    }

    /// Owners of the sockets `wanted` (inode and the socket's uid). What is not in the answer has none that may be seen.
    pub(crate) fn owners(
        &self,
        wanted: &[(u64, u32)],
        session_of: SessionOf<'_>,
    ) -> HashMap<u64, Owner> {
        let mut holders: HashMap<u64, u32> = HashMap::new();
        if wanted.is_empty() {
            return HashMap::new();
        }
        let inodes: Vec<u64> = wanted.iter().map(|(inode, _)| *inode).collect();
        let mut candidates = self.processes();
        // A server usually still has the uid with which it made its socket; those that changed it come second.
        candidates.sort_by_key(|(pid, uid, _)| {
            let likely = wanted.iter().any(|(_, owner)| owner == uid);
            (!likely, std::cmp::Reverse(*pid))
        });
        let mut links = 0;
        for (pid, uid, gid) in candidates {
            let _identity = FileIdentity::take(uid, gid);
            self.each_socket(pid, &mut links, |inode| {
                if inodes.contains(&inode) {
                    holders.entry(inode).or_insert(pid);
                }
                holders.len() < inodes.len()
            });
            if holders.len() >= inodes.len() {
                break;
            }
            if links > MAX_LINKS {
                tracing::warn!(links, "too many descriptors to find who listens");
                break;
            }
        }
        holders
            .into_iter()
            .filter_map(|(inode, pid)| {
                let pid = self.oldest_holder(pid, inode);
                Some((inode, self.owner(pid, session_of)?))
            })
            .collect()
    }

    fn processes(&self) -> Vec<(u32, u32, u32)> {
        let Ok(entries) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        entries
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                let metadata = entry.metadata().ok()?;
                Some((pid, metadata.uid(), metadata.gid()))
            })
            .collect()
    }

    /// Calls `see` with the inode of each socket of the process until it returns false.
    fn each_socket(&self, pid: u32, links: &mut usize, mut see: impl FnMut(u64) -> bool) {
        // Gone or not ours to see: it has no sockets for us.
        let Ok(descriptors) = fs::read_dir(self.path(pid, "fd")) else {
            return;
        };
        for descriptor in descriptors.flatten() {
            *links += 1;
            let Ok(target) = fs::read_link(descriptor.path()) else {
                continue;
            };
            if let Some(inode) = socket_inode(&target)
                && !see(inode)
            {
                return;
            }
        }
    }

    fn holds(&self, pid: u32, inode: u64) -> bool {
        let Ok(metadata) = fs::metadata(self.root.join(pid.to_string())) else {
            return false;
        };
        let _identity = FileIdentity::take(metadata.uid(), metadata.gid());
        let (mut links, mut held) = (0, false);
        self.each_socket(pid, &mut links, |seen| {
            held |= seen == inode;
            !held
        });
        held
    }

    /// A forked worker shares its parent's socket; people know the parent.
    fn oldest_holder(&self, pid: u32, inode: u64) -> u32 {
        let mut holder = pid;
        for _ in 0..MAX_ANCESTORS {
            match self.stat(holder) {
                Some(stat) if stat.parent > 1 && self.holds(stat.parent, inode) => {
                    holder = stat.parent;
                }
                _ => break,
            }
        }
        holder
    }

    fn owner(&self, pid: u32, session_of: SessionOf<'_>) -> Option<Owner> {
        let stat = self.stat(pid)?;
        let name = fs::read(self.path(pid, "comm")).ok()?;
        let arguments = fs::read(self.path(pid, "cmdline")).unwrap_or_default();
        Some(Owner {
            process: PortProcess {
                pid,
                name: String::from_utf8_lossy(&name).trim_end().to_owned(),
                command: command_line(&arguments),
            },
            start: stat.start,
            session: self.session(pid, session_of),
        })
    }

    fn session(&self, pid: u32, session_of: SessionOf<'_>) -> Option<String> {
        let mut ancestor = pid;
        for _ in 0..MAX_ANCESTORS {
            if let Some(session) = session_of(ancestor) {
                return Some(session);
            }
            ancestor = self.stat(ancestor)?.parent;
            if ancestor <= 1 {
                return None;
            }
        }
        None
    }

    /// Parent and start from `/proc/PID/stat` (fields 4 and 22). The name, field 2, may contain anything, so fields are
    /// counted from its closing parenthesis.
    fn stat(&self, pid: u32) -> Option<Stat> {
        let text = fs::read(self.path(pid, "stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        Some(Stat {
            parent: fields.nth(1)?.parse().ok()?,
            start: fields.nth(17)?.parse().ok()?,
        })
    }

    fn path(&self, pid: u32, name: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(name)
    }
}

fn socket_inode(target: &Path) -> Option<u64> {
    target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

fn command_line(arguments: &[u8]) -> String {
    let text = String::from_utf8_lossy(arguments);
    let mut line = text.trim_end_matches('\0').replace('\0', " ");
    if line.len() > PortProcess::COMMAND_MAX {
        let cut = line.floor_char_boundary(PortProcess::COMMAND_MAX);
        line.truncate(cut);
    }
    line
}

/// The calling thread looks at files as another user until this is dropped. Nothing happens where that is not allowed
/// (not root) or not needed.
#[derive(Debug)]
struct FileIdentity {
    previous: Option<(Uid, Gid)>,
}

impl FileIdentity {
    fn take(uid: u32, gid: u32) -> Self {
        if uid == nix::unistd::geteuid().as_raw() || !nix::unistd::geteuid().is_root() {
            return Self { previous: None };
        }
        // The group first: once the user is another one, the kernel would refuse it.
        let group = setfsgid(Gid::from_raw(gid));
        let user = setfsuid(Uid::from_raw(uid));
        Self {
            previous: Some((user, group)),
        }
    }
}

impl Drop for FileIdentity {
    fn drop(&mut self) {
        if let Some((user, group)) = self.previous {
            setfsuid(user);
            setfsgid(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::AsRawFd;

    fn inode(socket: &TcpListener) -> u64 {
        fs::metadata(format!("/proc/self/fd/{}", socket.as_raw_fd()))
            .unwrap()
            .ino()
    }

    #[test]
    fn finds_this_process_and_its_session_by_an_ancestor() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = [(inode(&socket), nix::unistd::geteuid().as_raw())];
        let me = std::process::id();
        let parent = std::os::unix::process::parent_id();
        let processes = Processes::new("/proc".into());
        let found = processes.owners(&wanted, &|pid| (pid == parent).then(|| "main".to_owned()));
        let owner = &found[&wanted[0].0];
        assert_eq!(owner.process.pid, me);
        assert_eq!(owner.session.as_deref(), Some("main"));
        assert!(processes.is(me, owner.start));
        assert!(!processes.is(me, owner.start + 1));
        assert!(!owner.process.command.is_empty());
    }

    /// Also with a container's default capabilities, which lack `CAP_SYS_PTRACE`: run the tests under
    /// `setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace`.
    #[test]
    fn finds_another_users_process() {
        use std::io::BufRead;
        use std::os::unix::process::CommandExt;
        if !nix::unistd::geteuid().is_root() {
            // Another user's processes are then hidden by the kernel, and nothing can be done about it.
            return;
        }
        let program = "import socket,time\ns=socket.socket()\ns.bind(('127.0.0.1',0))\ns.listen()\n\
                       print(s.getsockname()[1],flush=True)\ntime.sleep(60)";
        let mut child = std::process::Command::new("python3")
            .args(["-c", program])
            .uid(1001)
            .gid(1001)
            .current_dir("/")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port: u16 = line.trim().parse().unwrap();
        let listener = super::super::diag::Diag::open()
            .unwrap()
            .scan()
            .unwrap()
            .into_iter()
            .find(|listener| listener.port == port)
            .unwrap();
        assert_eq!(listener.uid, 1001);
        // On a thread of its own, as the monitor does it: afterwards its ids are what they were.
        let (found, ids) = std::thread::spawn(move || {
            let processes = Processes::new("/proc".into());
            let found = processes.owners(&[(listener.inode, listener.uid)], &|_| None);
            let status = fs::read_to_string("/proc/thread-self/status").unwrap();
            let ids = status
                .lines()
                .find(|line| line.starts_with("Uid:"))
                .unwrap()
                .to_owned();
            (found, ids)
        })
        .join()
        .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found[&listener.inode].process.pid, child.id());
        assert_eq!(
            ids.split_ascii_whitespace().skip(1).collect::<Vec<_>>(),
            ["0"; 4]
        );
    }

    #[test]
    fn a_socket_that_nobody_holds_has_no_owner() {
        let processes = Processes::new("/proc".into());
        assert!(processes.owners(&[(u64::MAX, 0)], &|_| None).is_empty());
    }

    #[test]
    fn fields_are_counted_behind_any_name() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("7");
        fs::create_dir(&directory).unwrap();
        let fields: Vec<String> = (3..=30).map(|n| n.to_string()).collect();
        fs::write(
            directory.join("stat"),
            format!("7 (a) R 1 (b)) {}", fields.join(" ")),
        )
        .unwrap();
        let stat = Processes::new(root.path().into()).stat(7).unwrap();
        assert_eq!((stat.parent, stat.start), (4, 22));
    }

    #[test]
    fn long_commands_are_cut_between_characters() {
        let line = command_line("ä".repeat(1000).as_bytes());
        assert!(line.len() <= PortProcess::COMMAND_MAX && line.chars().all(|c| c == 'ä'));
        assert_eq!(command_line(b"node\0a b\0"), "node a b");
    }
}
