//! The first moments.
//!
//! In this order, because each step protects the next: undumpable and without core files; argv and environment into a
//! sealed memfd and out of our memory; signals blocked before there is a child to miss; reaping; standard descriptors;
//! `/`. Whatever of it fails but the loop's own descriptors is said and lived with.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::time::{ClockId, clock_gettime};

use super::cgroup::Cgroups;
use super::held::Held;
use super::inventory::Outbox;
use super::output::BUFFER;
use super::shutdown::DEFAULT_GRACE;
use super::supervisor::Supervisor;
use super::table::Table;
use super::token::Token;
use super::{Identity, Keeper};
use crate::Part;
use crate::descriptors;
use crate::limits::Limits;
use crate::log;
use crate::procfs;
use crate::signals;
use crate::title::Title;
use crate::wire::{ARGUMENTS, Arguments, memfd_sealed};

/// Without these there is no keeper.
#[derive(Debug)]
pub(super) enum StartError {
    Arguments(io::Error),
    Signals(Errno),
    Epoll(Errno),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(error) => write!(f, "memfd for the arguments: {error}"),
            Self::Signals(errno) => write!(f, "signalfd: {errno}"),
            Self::Epoll(errno) => write!(f, "epoll: {errno}"),
        }
    }
}

pub(super) fn start(title: Option<Title>, part: Part) -> Result<Keeper, StartError> {
    descriptors::fill_standard();
    warn("PR_SET_DUMPABLE", nix::sys::prctl::set_dumpable(false));
    let limits = Limits::current();
    if let Ok(limits) = limits {
        warn("setrlimit", limits.harden());
    }
    let arguments = seal_arguments(title, part).map_err(StartError::Arguments)?;
    let pid = nix::unistd::getpid().as_raw();
    let ignores_hangup = procfs::status(pid).is_some_and(|status| status.ignores(libc::SIGHUP));
    let signals = signals::take_all().map_err(StartError::Signals)?;
    let init = pid == 1;
    let reaps = init
        || warn(
            "PR_SET_CHILD_SUBREAPER",
            nix::sys::prctl::set_child_subreaper(true),
        );
    if !reaps {
        log::line(format_args!(
            "neither PID 1 nor child subreaper: orphans will not be reaped"
        ));
    }
    descriptors::close_on_exec_from(3);
    warn("chdir /", nix::unistd::chdir(c"/"));
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(StartError::Epoll)?;
    let event = EpollEvent::new(EpollFlags::EPOLLIN, Token::Signals.encode());
    epoll.add(&signals, event).map_err(StartError::Epoll)?;
    let started_ms = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        let milliseconds = time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000;
        u64::try_from(milliseconds).unwrap_or(0)
    });
    Ok(Keeper {
        identity: Identity {
            part,
            pid,
            init,
            reaps,
            started_ms,
            limits: limits.ok(),
            ignores_hangup,
        },
        epoll,
        signals,
        supervisor: Supervisor::new(part, Instant::now()),
        table: Table::default(),
        held: Held::new(arguments),
        cgroups: Cgroups::new(started_ms),
        outbox: Outbox::new(),
        blocked: false,
        stop: None,
        grace: DEFAULT_GRACE,
        sweep_due: None,
        died: false,
        rest_due: None,
        buffer: vec![0; BUFFER],
    })
}

/// Says what failed; true when nothing did.
fn warn(step: &str, result: nix::Result<()>) -> bool {
    if let Err(errno) = result {
        log::line(format_args!("{step}: {errno}"));
    }
    result.is_ok()
}

fn seal_arguments(title: Option<Title>, part: Part) -> io::Result<OwnedFd> {
    let mut bytes = match &title {
        Some(title) => title.encode(2)?,
        None => {
            log::line(format_args!(
                "/proc is not mounted: arguments and environment stay visible"
            ));
            let arguments: Vec<OsString> = std::env::args_os().skip(2).collect();
            Arguments {
                arguments,
                environment: std::env::vars_os().collect(),
            }
            .encode()?
        }
    };
    let sealed = memfd_sealed(ARGUMENTS, &bytes);
    bytes.fill(0);
    // Or the compiler may leave out the filling of memory that nobody reads again.
    std::hint::black_box(&bytes);
    if let Some(title) = title {
        title.overwrite(&[OsStr::from_bytes(b"whim"), OsStr::new(part.command())]);
    }
    sealed
}
