//! The keeper: PID 1 of the container, owner of agents and terminals; the holder of a session; the init for one command;
//! and the [`wire`] and [`ring`] between keeper and supervisor.
//!
//! One binary is all of them. [`dispatch`] comes first in `main`, before anything else touches memory or the environment.

mod descriptors;
mod holder;
mod init;
mod keeper;
mod limits;
mod log;
mod procfs;
mod pty;
pub mod resident;
pub mod ring;
mod signals;
mod spawn;
mod title;
mod tree;
mod wait;
pub mod wire;

use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use init::Personality;
use title::Title;

/// Runs the part of the program that argv asks for when it is one of ours: `run`, `restore`, `hold`, `init`, or any command
/// line under the names `tini`, `tini-static` and `dumb-init`. `None` for everything else, and for `run` and `restore` that
/// only ask for help or the version: then the command line of the supervisor's crate goes on.
///
/// To be called first in `main`, with one thread.
#[must_use]
#[expect(
    unsafe_code,
    reason = "argv and environment are taken over where they lie"
)]
pub fn dispatch() -> Option<ExitCode> {
    // SAFETY: called once, first in `main`; argv and environment are read by nobody else in `run`.
    let title = unsafe { Title::find() };
    let role = match &title {
        Some(title) => role(title.arguments()),
        None => {
            let arguments: Vec<_> = std::env::args_os().collect();
            role(arguments.iter().map(|text| text.as_bytes()))
        }
    };
    match role? {
        Role::Keeper(part) => Some(keeper::run(title, part)),
        Role::Holder => Some(holder::run()),
        Role::Init(personality) => {
            let skip = usize::from(personality == Personality::Whim);
            Some(init::run(
                personality,
                std::env::args_os().skip(skip).collect(),
            ))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Keeper(Part),
    Holder,
    Init(Personality),
}

/// What the keeper's supervisor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Run,
    /// Work that ends by itself, and that no agent is there for.
    Restore,
}

impl Part {
    /// Name of the command.
    const fn command(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Restore => "restore",
        }
    }

    /// First argument of the supervisor.
    const fn supervisor(self) -> &'static str {
        match self {
            Self::Run => "supervise",
            Self::Restore => "restoring",
        }
    }
}

fn role<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<Role> {
    let name = arguments.next()?;
    match name.rsplit(|byte| *byte == b'/').next()? {
        b"tini" | b"tini-static" => return Some(Role::Init(Personality::Tini)),
        b"dumb-init" => return Some(Role::Init(Personality::DumbInit)),
        _ => {}
    }
    match arguments.next()? {
        name @ (b"run" | b"restore") => {
            let part = if name == b"run" {
                Part::Run
            } else {
                Part::Restore
            };
            let asks =
                |argument: &[u8]| matches!(argument, b"-h" | b"--help" | b"--version" | b"-V");
            let only_asks = arguments
                .take_while(|argument| *argument != b"--")
                .any(asks);
            (!only_asks).then_some(Role::Keeper(part))
        }
        b"hold" => Some(Role::Holder),
        b"init" => Some(Role::Init(Personality::Whim)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Option<Role> {
        role(line.split(' ').map(str::as_bytes))
    }

    #[test]
    fn names_and_subcommands_choose_the_role() {
        assert_eq!(
            of("/usr/bin/whim run --repo x prompt"),
            Some(Role::Keeper(Part::Run))
        );
        assert_eq!(of("whim run -- --help"), Some(Role::Keeper(Part::Run)));
        assert_eq!(
            of("whim restore /backups"),
            Some(Role::Keeper(Part::Restore))
        );
        assert_eq!(of("whim restore --help"), None);
        assert_eq!(of("whim run --repo x --help"), None);
        assert_eq!(of("whim run --version"), None);
        assert_eq!(of("whim hold main"), Some(Role::Holder));
        assert_eq!(of("whim init -- run"), Some(Role::Init(Personality::Whim)));
        assert_eq!(
            of("/sbin/tini -- whim run"),
            Some(Role::Init(Personality::Tini))
        );
        assert_eq!(of("tini-static run"), Some(Role::Init(Personality::Tini)));
        assert_eq!(of("dumb-init"), Some(Role::Init(Personality::DumbInit)));
        assert_eq!(of("whim status"), None);
        assert_eq!(of("whim"), None);
    }
}
