//! What lets the agent reach beyond its user.

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

use super::run::{find, run};
use super::{Finding, Level, Subject};
use crate::config::users::{User, group_names};

const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const ENTER: u32 = 0o1;

/// Container engines: who may write to their socket is root on their machine.
pub(super) const ENGINE_SOCKETS: &[&str] = &[
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
];
/// Groups whose members are root in all but name.
const ROOT_GROUPS: &[&str] = &[
    "root", "docker", "podman", "lxd", "incus", "libvirt", "disk", "kmem", "shadow",
];
/// `sudo -n` asks nobody, so it answers at once.
const SUDO_DEADLINE: Duration = Duration::from_secs(5);
/// Where platforms put credentials into containers.
pub(super) const MOUNTED_SECRETS: &[&str] = &["/run/secrets", "/var/run/secrets"];

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let Ok(user) = &subject.user else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if user.uid == 0 {
        findings.push(
            Finding::new(
                Level::Weak,
                "agent is root",
                "agents, shells and init.sh run as root",
            )
            .remedy("set WHIM_USER to an ordinary user"),
        );
    } else if !subject.separate() {
        let text = format!(
            "agents run as {}, as whim itself does: keys in its memory are protected, its files are not",
            user.name
        );
        findings.push(
            Finding::new(Level::Weak, "same user", text)
                .remedy("start whim as root in a container"),
        );
        findings.extend(ptrace_scope(subject));
    }
    findings.extend(sudo(subject, user));
    findings.extend(groups(subject, user));
    findings.extend(open_root(subject, user));
    for path in &subject.engine_sockets {
        let open = fs::metadata(path).is_ok_and(|found| {
            found.file_type().is_socket() && reachable(path, &found, user, WRITE)
        });
        if open {
            let text = format!(
                "{} can be written by {}: it gives root on the machine behind it",
                path.display(),
                user.name
            );
            findings.push(
                Finding::new(Level::Weak, "container engine", text)
                    .remedy("do not mount it into the container"),
            );
        }
    }
    findings.extend(credentials(subject, user));
    findings.extend(cgroup(subject));
    findings
}

/// The holder finds a session's processes without a cgroup; only one that forks faster than a look at `/proc`, or kills
/// its own holder, can tell the difference.
fn cgroup(subject: &Subject) -> Option<Finding> {
    use nix::unistd::{AccessFlags, access};
    let denied = access(&subject.cgroup, AccessFlags::W_OK).err()?;
    let text = format!(
        "none can be made for a session ({}): what an agent leaves behind is found by looking for it",
        denied.desc()
    );
    Some(
        Finding::new(Level::Weak, "cgroup", text)
            .remedy("mount cgroup v2 writable, where the platform allows it"),
    )
}

/// With scope 0 a process may attach to any other of its user that is dumpable.
fn ptrace_scope(subject: &Subject) -> Option<Finding> {
    let scope = fs::read_to_string(subject.proc.join("sys/kernel/yama/ptrace_scope"));
    // Without Yama the kernel behaves as with scope 0.
    let open = scope.map_or(true, |scope| scope.trim() == "0");
    let text = "processes of one user may attach to each other";
    open.then(|| {
        Finding::new(Level::Weak, "ptrace scope", text).remedy("set kernel.yama.ptrace_scope to 1")
    })
}

fn sudo(subject: &Subject, user: &User) -> Option<Finding> {
    if user.uid == 0 || subject.no_new_privs {
        return None;
    }
    let program = find(&subject.path, "sudo")?;
    // An answer other than success is a password prompt, a refusal, or no sudo at all: all of them fine.
    let granted = run(subject, &program, &["-n", "true"], SUDO_DEADLINE)
        .is_ok_and(|answer| answer.status.success());
    let text = format!(
        "{} can become root with sudo, without a password",
        user.name
    );
    granted.then(|| {
        Finding::new(Level::Weak, "sudo", text)
            .remedy("remove the rule from sudoers, or set WHIM_NO_NEW_PRIVS=1, which disables sudo")
    })
}

fn groups(subject: &Subject, user: &User) -> Option<Finding> {
    let group = fs::read_to_string(subject.etc.join("group")).ok()?;
    let mine: BTreeSet<&str> = group_names(&group)
        .filter(|(gid, _)| user.groups.contains(gid))
        .map(|(_, name)| name)
        .collect();
    let strong: Vec<&str> = ROOT_GROUPS
        .iter()
        .copied()
        .filter(|name| mine.contains(name))
        .collect();
    (user.uid != 0 && !strong.is_empty()).then(|| {
        let text = format!(
            "{} is in {}, whose members can become root",
            user.name,
            strong.join(", ")
        );
        Finding::new(Level::Weak, "groups", text).remedy("remove the user from the group")
    })
}

/// With an empty password field, `su` asks for none.
fn open_root(subject: &Subject, user: &User) -> Option<Finding> {
    if user.uid == 0 || subject.no_new_privs {
        return None;
    }
    let password = |file: &str| -> Option<String> {
        let text = fs::read_to_string(subject.etc.join(file)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("root:"))?;
        Some(line.split(':').next()?.to_owned())
    };
    // `x` in passwd leads to shadow, which only root can read.
    let field = password("passwd")
        .filter(|field| field != "x")
        .or_else(|| password("shadow"))?;
    let text = "root has an empty password";
    field
        .is_empty()
        .then(|| Finding::new(Level::Weak, "root account", text).remedy("lock it (passwd -l root)"))
}

fn credentials(subject: &Subject, user: &User) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mounted = subject
        .mounted_secrets
        .iter()
        .flat_map(|directory| files_under(directory));
    for path in subject.credentials.iter().cloned().chain(mounted) {
        let readable = fs::metadata(&path)
            .is_ok_and(|found| found.is_file() && reachable(&path, &found, user, READ));
        if readable {
            let text = format!("{} can be read by {}", path.display(), user.name);
            findings.push(
                Finding::new(Level::Weak, "credential file", text)
                    .remedy("make it root's, mode 0400"),
            );
        }
    }
    findings.dedup();
    findings
}

/// Files of a directory and of the directories in it; secrets of platforms lie no deeper than that, and a bound keeps a
/// strange mount from taking long.
fn files_under(directory: &Path) -> Vec<std::path::PathBuf> {
    const MOST: usize = 100;
    let list = |directory: &Path| -> Vec<std::path::PathBuf> {
        fs::read_dir(directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .take(MOST)
            .collect()
    };
    let mut files = Vec::new();
    for path in list(directory) {
        if path.is_dir() {
            for inner in list(&path) {
                if inner.is_dir() {
                    files.extend(list(&inner))
                } else {
                    files.push(inner)
                }
            }
        } else {
            files.push(path);
        }
    }
    files.truncate(MOST);
    files
}

/// Whether the user may do this (`rwx` as 4, 2, 1) to the file by its mode; access lists are not looked at.
pub(super) fn may(file: &Metadata, user: &User, wanted: u32) -> bool {
    let mode = file.mode();
    let granted = if user.uid == 0 {
        // Root needs some execute bit to execute, and nothing else.
        return wanted & ENTER == 0 || file.is_dir() || mode & 0o111 != 0;
    } else if file.uid() == user.uid {
        mode >> 6
    } else if user.groups.contains(&file.gid()) {
        mode >> 3
    } else {
        mode
    };
    granted & wanted == wanted
}

/// Whether the user may do this to the file and enter every directory above it.
fn reachable(path: &Path, file: &Metadata, user: &User, wanted: u32) -> bool {
    // Symbolic links are resolved first: the mode of what they lead through counts.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    may(file, user, wanted)
        && real
            .ancestors()
            .skip(1)
            .all(|above| fs::metadata(above).is_ok_and(|found| may(&found, user, ENTER)))
}
