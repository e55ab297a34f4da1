//! What the kernel and the container runtime offer. Each feature is used once, not guessed from a version.

#![expect(unsafe_code, reason = "a check must run between fork and exec")]

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::run::pidfd_open;
use super::{Finding, Level, Subject};

pub(super) fn check(subject: &Subject) -> Vec<Finding> {
    let mut findings = vec![
        feature(
            "memfd",
            "Linux 3.17",
            nix::sys::memfd::memfd_create(
                "whim-doctor",
                nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING,
            ),
        ),
        feature("pidfd", "Linux 5.3", pidfd_open(std::process::id())),
        feature(
            "subreaper",
            "Linux 3.4",
            nix::sys::prctl::get_child_subreaper(),
        ),
        feature(
            "terminals",
            "/dev/ptmx and a mounted /dev/pts",
            nix::pty::openpty(None, None),
        ),
        user_namespaces(subject),
    ];
    findings.extend(privileges(subject));
    findings.extend(hidden_processes(subject));
    findings.extend(oom_group(subject));
    findings.extend(name_service(subject));
    findings
}

fn feature<T, E: std::fmt::Display>(check: &str, needs: &str, tried: Result<T, E>) -> Finding {
    match tried {
        Ok(_) => Finding::ok(check, "works"),
        Err(error) => Finding::new(Level::Fail, check, error.to_string())
            .remedy(format!("needs {needs}, allowed by the seccomp profile")),
    }
}

/// Codex' sandbox (bubblewrap) and browsers want them; whim does not.
fn user_namespaces(subject: &Subject) -> Finding {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", ":"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/");
    if let Ok(user) = &subject.user
        && subject.uid == 0
    {
        command.gid(user.gid).uid(user.uid);
    }
    // SAFETY: runs in the child between fork and exec, where it makes one system call and allocates nothing.
    unsafe {
        command.pre_exec(|| unshare(CloneFlags::CLONE_NEWUSER).map_err(std::io::Error::from));
    }
    // A failing pre_exec is the error of spawn.
    match command.status() {
        Ok(_) => Finding::ok("user namespaces", "work for the agents' user"),
        Err(error) => Finding::new(
            Level::Note,
            "user namespaces",
            format!("not for the agents' user ({error})"),
        )
        .remedy("the sandboxes of codex and of browsers need them; run codex with full access"),
    }
}

/// What this process may do, by its `/proc/self/status`.
fn privileges(subject: &Subject) -> Vec<Finding> {
    let Ok(status) = fs::read_to_string(subject.proc.join("self/status")) else {
        let remedy = "mount proc there";
        return vec![Finding::new(Level::Fail, "/proc", "is not readable").remedy(remedy)];
    };
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let mut findings = Vec::new();
    if field("NoNewPrivs:") == Some("1") {
        let text = "is set: nothing here can gain privileges";
        findings.push(
            Finding::new(Level::Note, "no_new_privs", text).remedy("sudo and ping do not work"),
        );
    }
    // As root everything of the agents is started as their user, gets a terminal of its own, and is ended by signals.
    let needed = [(0, "CHOWN"), (5, "KILL"), (6, "SETGID"), (7, "SETUID")];
    let effective = field("CapEff:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
    if let Some(mask) = effective
        && subject.uid == 0
    {
        let missing: Vec<&str> = needed
            .iter()
            .filter(|(bit, _)| mask & (1 << bit) == 0)
            .map(|(_, name)| *name)
            .collect();
        findings.push(if missing.is_empty() {
            Finding::ok("capabilities", "enough to run agents as their user")
        } else {
            Finding::new(
                Level::Fail,
                "capabilities",
                format!("{} missing", missing.join(", ")),
            )
            .remedy("add them (docker run --cap-add), or start the container as the agents' user")
        });
    }
    findings
}

/// Processes are looked up as the agents' user; `hidepid` hides nothing of its own, but all from other users.
fn hidden_processes(subject: &Subject) -> Option<Finding> {
    let mounts = fs::read_to_string(subject.proc.join("self/mountinfo")).ok()?;
    let hidden = mounts
        .lines()
        .any(|line| line.contains(" /proc ") && line.contains("hidepid="));
    let finding = Finding::new(Level::Note, "/proc", "is mounted with hidepid");
    (hidden && !mounts.contains("hidepid=0"))
        .then(|| finding.remedy("processes of other users will not be named in the port list"))
}

/// With `memory.oom.group` the kernel kills the whole container when memory runs out, host included.
fn oom_group(subject: &Subject) -> Option<Finding> {
    let value = fs::read_to_string(subject.cgroup.join("memory.oom.group")).ok()?;
    (value.trim() == "1").then(|| {
        Finding::new(
            Level::Note,
            "memory.oom.group",
            "is 1: running out of memory ends the whole container",
        )
        .remedy("set it to 0 (Kubernetes: singleProcessOOMKill) so that only the agent is killed")
    })
}

/// Users from elsewhere than the files are not seen by a static binary that loads no NSS plug-ins.
fn name_service(subject: &Subject) -> Option<Finding> {
    let config = fs::read_to_string(subject.etc.join("nsswitch.conf")).ok()?;
    let line = config
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("passwd:"))?;
    let known = ["files", "compat", "systemd"];
    let others: Vec<&str> = line
        .split_whitespace()
        .filter(|word| !known.contains(word) && !word.starts_with('['))
        .collect();
    (!others.is_empty()).then(|| {
        Finding::new(
            Level::Note,
            "nsswitch.conf",
            format!("names users from {}", others.join(", ")),
        )
        .remedy("whim reads /etc/passwd only; the agents' user must be there")
    })
}
