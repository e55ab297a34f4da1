//! The agents' user, directories, disk space and ports.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::programs::is_executable;
use super::trust::may;
use super::{Finding, Level, Subject};

/// Less than this on a file system that whim or the agent writes to: the boot would fail soon.
const DISK_FAIL: u64 = 64 * 1024 * 1024;
/// Less than this: a clone with its dependencies may not fit.
const DISK_NOTE: u64 = 1024 * 1024 * 1024;

const WRITE: u32 = 0o2;
const ENTER: u32 = 0o1;

pub(super) fn user(subject: &Subject) -> Vec<Finding> {
    let user = match &subject.user {
        Ok(user) => user,
        Err(problem) => {
            let remedy = "create it (useradd -m -s /bin/bash node), or name another with WHIM_USER";
            return vec![Finding::new(Level::Fail, "user", problem).remedy(remedy)];
        }
    };
    let mut findings = vec![Finding::ok(
        "user",
        format!(
            "{} (uid {}, home {})",
            user.name,
            user.uid,
            user.home.display()
        ),
    )];
    if user.uid == 0 {
        let text = format!("{} is root, and agents refuse to work as root", user.name);
        findings = vec![
            Finding::new(Level::Fail, "user", text).remedy("name an ordinary user with WHIM_USER"),
        ];
    }
    if !is_executable(&user.shell) {
        let text = format!("{} of {} is no program", user.shell.display(), user.name);
        findings.push(
            Finding::new(Level::Fail, "shell", text)
                .remedy("install it, or change the user's shell"),
        );
    }
    findings
}

pub(super) fn directories(subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    for place in ["/app", "/whim/state", "/run/whim", "/tmp"] {
        let path = subject.root.path(place);
        findings.push(match creatable(&path) {
            Ok(()) => Finding::ok(place, format!("{} can be written", path.display())),
            Err((at, error)) => {
                Finding::new(Level::Fail, place, format!("{}: {error}", at.display()))
                    .remedy("mount a writable volume there, or move everything with --root")
            }
        });
    }
    findings.push(home(subject));
    let state = subject.root.path("/tmp/claude_state");
    if fs::symlink_metadata(&state).is_ok_and(|found| found.is_dir()) {
        let text = format!("{} is a directory", state.display());
        findings.push(
            Finding::new(Level::Fail, "state file", text)
                .remedy("remove it; whim writes a file there"),
        );
    }
    findings
}

/// Whether this process can write in the directory, or make it.
fn creatable(path: &Path) -> Result<(), (PathBuf, String)> {
    for ancestor in path.ancestors() {
        match fs::metadata(ancestor) {
            Ok(found) if found.is_dir() => {
                let probe = tempfile_in(ancestor);
                return probe.map_err(|error| (ancestor.to_owned(), error.to_string()));
            }
            Ok(_) => return Err((ancestor.to_owned(), "is no directory".to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err((ancestor.to_owned(), error.to_string())),
        }
    }
    Err((path.to_owned(), "has no parent".to_owned()))
}

/// Makes a file and removes it: permissions, read-only mounts, quotas and full disks all show.
fn tempfile_in(directory: &Path) -> std::io::Result<()> {
    let path = directory.join(format!(".whim-doctor-{}", std::process::id()));
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path);
    made.and_then(|mut file| std::io::Write::write_all(&mut file, b"x"))?;
    fs::remove_file(&path)
}

/// The home, as far as it is there: the boot makes what is missing and gives it to the user.
fn home(subject: &Subject) -> Finding {
    let Ok(user) = &subject.user else {
        return Finding::new(
            Level::Note,
            "home",
            "not looked at, because the user is unknown",
        );
    };
    let home = &user.home;
    let checked = match fs::metadata(home) {
        Err(error) if error.kind() == ErrorKind::NotFound => match creatable(home) {
            Ok(()) => return Finding::ok("home", format!("{} will be made", home.display())),
            Err((at, error)) => Err(format!(
                "is missing, and cannot be made in {}: {error}",
                at.display()
            )),
        },
        Err(error) => Err(error.to_string()),
        Ok(found) => {
            let read_only =
                statvfs(home).is_ok_and(|system| system.flags().contains(FsFlags::ST_RDONLY));
            match (found.is_dir(), may(&found, user, WRITE | ENTER), read_only) {
                (false, ..) => Err("is no directory".to_owned()),
                (_, false, _) => Err(format!("{} cannot write there", user.name)),
                (_, _, true) => Err("lies on a read-only file system".to_owned()),
                _ => Ok(()),
            }
        }
    };
    match checked {
        Ok(()) => Finding::ok(
            "home",
            format!("{} can be written by {}", home.display(), user.name),
        ),
        Err(problem) => Finding::new(
            Level::Fail,
            "home",
            format!("{}: {problem}", home.display()),
        )
        .remedy(format!("make it and give it to {}", user.name)),
    }
}

pub(super) fn disk(subject: &Subject) -> Vec<Finding> {
    let home = subject
        .user
        .as_ref()
        .map_or_else(|_| PathBuf::from("/home"), |user| user.home.clone());
    let mut seen = Vec::new();
    let mut findings = Vec::new();
    let places = ["/app", "/whim/state", "/tmp"].map(|place| subject.root.path(place));
    for path in places.into_iter().chain([home]) {
        let Some(existing) = path.ancestors().find(|ancestor| ancestor.exists()) else {
            continue;
        };
        let Ok(system) = statvfs(existing) else {
            continue;
        };
        if seen.contains(&system.filesystem_id()) {
            continue;
        }
        seen.push(system.filesystem_id());
        let free = system
            .blocks_available()
            .saturating_mul(system.fragment_size());
        let text = format!(
            "{} MiB free at {}",
            free / (1024 * 1024),
            existing.display()
        );
        let no_inodes = system.files() > 0 && system.files_available() < 1000;
        findings.push(match (free, no_inodes) {
            (_, true) => Finding::new(
                Level::Fail,
                "disk",
                format!("fewer than 1000 inodes free at {}", existing.display()),
            )
            .remedy("remove files, or use a larger volume"),
            (..DISK_FAIL, _) => Finding::new(Level::Fail, "disk", text)
                .remedy("free some space, or use a larger volume"),
            (..DISK_NOTE, _) => Finding::new(Level::Note, "disk", text)
                .remedy("a repository with its dependencies may not fit"),
            _ => Finding::ok("disk", text),
        });
    }
    findings
}

pub(super) fn ports(subject: &Subject) -> Vec<Finding> {
    if let Some(pid) = running(subject) {
        return vec![Finding::ok(
            "ports",
            format!("held by the whim that runs here (pid {pid})"),
        )];
    }
    let loopback = [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    let services = [
        ("generation", subject.ports.generation, &loopback[..]),
        ("local", subject.ports.local, &[subject.bind][..]),
        ("backup", subject.ports.backup, &[subject.bind][..]),
        ("ui", subject.ports.ui, &[subject.bind][..]),
    ];
    services
        .into_iter()
        .map(|(name, port, addresses)| self::port(name, port, addresses))
        .collect()
}

fn port(name: &str, port: u16, addresses: &[IpAddr]) -> Finding {
    let check = format!("port {port}");
    let flag = format!("--{name}-port");
    let mut bound = 0;
    let mut missing = Vec::new();
    for address in addresses {
        match TcpListener::bind(SocketAddr::new(*address, port)) {
            Ok(_) => bound += 1,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::AddrNotAvailable | ErrorKind::Unsupported
                ) =>
            {
                missing.push(*address)
            }
            // EAFNOSUPPORT has no kind of its own.
            Err(error) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
                missing.push(*address)
            }
            Err(error) => {
                let text = format!("{}: {error}", SocketAddr::new(*address, port));
                return Finding::new(Level::Fail, check, text)
                    .remedy(format!("end what uses it, or give {flag}"));
            }
        }
    }
    // Without IPv6, `[::]` becomes 0.0.0.0.
    let falls_back = missing.contains(&IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    match (bound, falls_back) {
        (0, true) => self::port(name, port, &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)]),
        (0, false) => Finding::new(Level::Fail, check, "this machine has no such address")
            .remedy("give another --bind"),
        _ => Finding::ok(check, format!("free for {name}")),
    }
}

/// The pid of a whim that runs under this root, by its `ready.json`.
fn running(subject: &Subject) -> Option<u64> {
    let ready = fs::read(subject.root.path("/run/whim/ready.json")).ok()?;
    let pid = serde_json::from_slice::<serde_json::Value>(&ready)
        .ok()?
        .get("pid")?
        .as_u64()?;
    subject.proc.join(pid.to_string()).exists().then_some(pid)
}
