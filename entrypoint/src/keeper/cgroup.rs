//! A cgroup for each session, where one may be made.
//!
//! A help and no need: the holder finds descendants without it. But when an agent kills its own holder, membership tells
//! for certain what was the session's, and `cgroup.kill` (Linux 5.14) ends what forks faster than a look at `/proc`.
//! Usually not available: container runtimes mount the hierarchy read-only. Only version 2 is used; no controller is
//! enabled, so limits and accounting of the container are unchanged.

use std::cell::RefCell;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::log;

/// Where ours are made, if anywhere.
#[derive(Debug)]
pub(super) struct Cgroups {
    /// Looked for when the first one is wanted, so that starting up does not wait for it.
    base: Option<Option<PathBuf>>,
    /// Tells ours from those of another keeper in the same cgroup.
    label: u64,
    busy: Busy,
}

/// Directories that could not be removed yet: the kernel counts a member until it is reaped. At most as many as there are
/// processes; tried again with each new cgroup and at the end.
type Busy = Rc<RefCell<Vec<PathBuf>>>;

/// One of them; removed on drop, when it is empty.
#[derive(Debug)]
pub(super) struct Cgroup {
    directory: PathBuf,
    procs: OwnedFd,
    busy: Busy,
}

impl Cgroups {
    pub(super) fn new(label: u64) -> Self {
        Self {
            base: None,
            label,
            busy: Busy::default(),
        }
    }

    /// Removes what could not be removed before.
    fn sweep(&self) {
        self.busy
            .borrow_mut()
            .retain(|directory| matches!(remove(directory), Removal::Busy));
    }

    /// `None` when none can be made; what is missing now is not tried again.
    pub(super) fn create(&mut self, number: u64) -> Option<Cgroup> {
        self.sweep();
        let base = self.base.get_or_insert_with(find_base).as_ref()?;
        let directory = base.join(format!("whim-{}-{number}", self.label));
        match Cgroup::create(directory, self.busy.clone()) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                let expected = matches!(
                    error.kind(),
                    io::ErrorKind::ReadOnlyFilesystem
                        | io::ErrorKind::PermissionDenied
                        | io::ErrorKind::NotFound
                );
                if !expected {
                    log::line(format_args!(
                        "sessions get no cgroup: {}: {error}",
                        base.display()
                    ));
                }
                self.base = Some(None);
                None
            }
        }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.sweep();
    }
}

enum Removal {
    Done,
    Busy,
}

fn remove(directory: &Path) -> Removal {
    match fs::remove_dir(directory) {
        Ok(()) => Removal::Done,
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Removal::Busy,
        Err(error) => {
            log::line(format_args!("{}: {error}", directory.display()));
            Removal::Done
        }
    }
}

fn find_base() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    base(&mounts, &own)
}

/// Our own cgroup's directory: the mount of version 2 and our path within it.
fn base(mounts: &str, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (root, mount) = mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        kind.starts_with("cgroup2 ")
            .then(|| Some((fields.next()?, fields.next()?)))?
    })?;
    let within = Path::new(path).strip_prefix(root).ok()?;
    Some(Path::new(mount).join(within))
}

impl Cgroup {
    fn create(directory: PathBuf, busy: Busy) -> io::Result<Self> {
        fs::create_dir(&directory)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        match open(&directory.join("cgroup.procs"), flags, Mode::empty()) {
            Ok(procs) => Ok(Self {
                directory,
                procs,
                busy,
            }),
            Err(errno) => {
                let _removed = fs::remove_dir(&directory);
                Err(errno.into())
            }
        }
    }

    /// `cgroup.procs`, open for writing: the kernel checks the permission of who opened it, so the agents' user can join.
    pub(super) fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }

    /// Whether `pid` is in it.
    pub(super) fn contains(&self, pid: i32) -> bool {
        self.members().contains(&pid)
    }

    pub(super) fn members(&self) -> Vec<i32> {
        match fs::read_to_string(self.directory.join("cgroup.procs")) {
            Ok(text) => text.lines().filter_map(|line| line.parse().ok()).collect(),
            Err(error) => {
                log::line(format_args!("{}: {error}", self.directory.display()));
                Vec::new()
            }
        }
    }

    /// KILL to all members at one moment. Older kernels have no such file; then the caller's own way has to do.
    pub(super) fn kill(&self) {
        let path = self.directory.join("cgroup.kill");
        let Ok(path) = CString::new(path.into_os_string().into_encoded_bytes()) else {
            return;
        };
        let result = open(
            path.as_c_str(),
            OFlag::O_WRONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        match result.and_then(|file| nix::unistd::write(file, b"1")) {
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(errno) => log::line(format_args!(
                "{}: cgroup.kill: {errno}",
                self.directory.display()
            )),
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if matches!(remove(&self.directory), Removal::Busy) {
            self.busy
                .borrow_mut()
                .push(std::mem::take(&mut self.directory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_directory_is_the_mount_and_our_path_in_it() {
        let hybrid = "31 20 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime \
                      shared:9 - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/a\n0::/user/b\n";
        assert_eq!(
            base(hybrid, own),
            Some("/sys/fs/cgroup/unified/user/b".into())
        );
        let container = "5 1 0:2 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        assert_eq!(
            base(container, "0::/docker/x\n"),
            Some("/sys/fs/cgroup".into())
        );
        assert_eq!(base(container, "0::/elsewhere\n"), None);
        assert_eq!(base("", own), None);
    }
}
