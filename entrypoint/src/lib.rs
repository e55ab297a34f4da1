//! The keeper: PID 1 of the container, owner of agents and terminals; the holder of a session; the init for one command;
//! and the [`wire`] and [`ring`] between keeper and supervisor.
//!
//! One binary is all of them. [`dispatch`] comes first in `main`, before anything else touches memory or the environment.

mod descriptors;
mod holder;
mod keeper;
mod limits;
mod log;
mod procfs;
mod pty;
pub mod ring;
mod signals;
mod spawn;
mod title;
mod tree;
mod wait;
pub mod wire;

use std::process::ExitCode;

use title::Title;

/// Runs the part of the program that argv asks for when it is one of ours: `run`, `hold`. `None` for everything else, and
/// for `run` that only asks for help or the version: then the command line of the supervisor's crate goes on.
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
            use std::os::unix::ffi::OsStrExt;
            let arguments: Vec<_> = std::env::args_os().collect();
            role(arguments.iter().map(|text| text.as_bytes()))
        }
    };
    match role? {
        Role::Keeper => Some(keeper::run(title)),
        Role::Holder => Some(holder::run()),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Role {
    Keeper,
    Holder,
}

fn role<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<Role> {
    let _name = arguments.next()?;
    match arguments.next()? {
        b"run" => {
            let asks =
                |argument: &[u8]| matches!(argument, b"-h" | b"--help" | b"--version" | b"-V");
            let only_asks = arguments
                .take_while(|argument| *argument != b"--")
                .any(asks);
            (!only_asks).then_some(Role::Keeper)
        }
        b"hold" => Some(Role::Holder),
        _ => None,
    }
}
