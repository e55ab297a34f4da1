//! `whim init -- COMMAND`: an init for one command, and the same under the names `tini` and `dumb-init`.
//!
//! Owns what both of those programs do: start the command, forward signals, reap everything, end with the command's
//! status. Where they differ (flags, process group or session, what happens with job control) each has its module.
//!
//! Promises: what the command inherits is what we were started with: environment, working directory, descriptors, and
//! under tini's rules signal mask and dispositions too.
//!
//! A difference to builds of tini against glibc, on purpose: options end at the first word that is none, as with musl or
//! `POSIXLY_CORRECT`, so that `tini ls -l` runs `ls -l`.

mod dumb_init;
mod options;
mod tini;

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::ForkResult;

/// Under which name we run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Personality {
    /// `whim init`.
    Whim,
    Tini,
    DumbInit,
}

/// Runs the command to its end. `arguments` with argv\[0] (`init` left out).
pub(crate) fn run(personality: Personality, arguments: Vec<OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter().map(OsStringExt::into_vec);
    let name = arguments.next().unwrap_or_default();
    let name = String::from_utf8_lossy(&name).into_owned();
    let arguments: Vec<Vec<u8>> = arguments.collect();
    match personality {
        Personality::Whim => tini::run("whim init", &arguments),
        Personality::Tini => tini::run("tini", &arguments),
        Personality::DumbInit => dumb_init::run(&name, &arguments),
    }
}

/// Writes to a standard stream. Nobody is left to tell when that fails.
fn say(descriptor: usize, text: &str) {
    let [_, output, error] = crate::descriptors::standard();
    let _unheard = nix::unistd::write(
        if descriptor == 1 { output } else { error },
        text.as_bytes(),
    );
}

/// A command line for exec. Arguments cannot hold a zero byte: they came from one.
fn command_line(words: &[Vec<u8>]) -> Vec<CString> {
    words
        .iter()
        .filter_map(|word| CString::new(word.clone()).ok())
        .collect()
}

#[expect(unsafe_code, reason = "fork")]
fn fork() -> nix::Result<ForkResult> {
    // SAFETY: this process has one thread, so the child may do whatever the parent may.
    unsafe { nix::unistd::fork() }
}

/// Becomes the command, found as the shell finds it. Returns only if that fails.
fn exec(command: &[CString]) -> Errno {
    let Some(program) = command.first() else {
        return Errno::ENOENT;
    };
    let Err(errno) = nix::unistd::execvp(program, command);
    errno
}

fn set_disposition(signal: Signal, handler: SigHandler) -> nix::Result<SigAction> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    #[expect(unsafe_code, reason = "nix cannot know what a handler does")]
    // SAFETY: only ever called with SIG_DFL and SIG_IGN, which run no code of ours.
    unsafe {
        sigaction(signal, &action)
    }
}

/// Whether SIGPIPE was ignored when we were started. Rust's runtime ignores it before `main`, so it is asked earlier.
static IGNORED_PIPE: AtomicBool = AtomicBool::new(false);

#[expect(
    unsafe_code,
    reason = "runs before main, from the section that the loader calls"
)]
mod before_main {
    use super::*;

    #[used]
    // SAFETY: an `.init_array` entry is a pointer to a C function; ours touches nothing that is not ready before `main`.
    #[unsafe(link_section = ".init_array")]
    static NOTE_PIPE: extern "C" fn() = note_pipe;

    extern "C" fn note_pipe() {
        // SAFETY: all-zero bytes are a valid sigaction.
        let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: asks only; `old` is valid for writing.
        let asked = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut old) };
        IGNORED_PIPE.store(
            asked == 0 && old.sa_sigaction == libc::SIG_IGN,
            Ordering::Relaxed,
        );
    }
}

/// Gives SIGPIPE back what we were started with.
fn restore_pipe() -> nix::Result<()> {
    let ignored = IGNORED_PIPE.load(Ordering::Relaxed);
    set_disposition(
        Signal::SIGPIPE,
        if ignored {
            SigHandler::SigIgn
        } else {
            SigHandler::SigDfl
        },
    )
    .map(drop)
}
