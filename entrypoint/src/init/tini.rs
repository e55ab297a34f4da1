//! tini's rules, for `tini` and `whim init`.
//!
//! The command gets a process group of its own, and the terminal if there is one. Every signal but faults and terminal
//! access is forwarded, to the command or with `-g` to its group. Ends when the command ends, with its code, 128 + N for
//! signal N, or 0 for a code given with `-e`.
//!
//! Flags, variables, exit codes and the streams of messages are those of tini 0.19 (its README and manual).

use std::ffi::CString;
use std::fmt;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::signal::{SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::SignalFd;
use nix::unistd::{ForkResult, Pid};

use super::options::{Found, Known, Options};
use super::{command_line, exec, fork, restore_pipe, say, set_disposition};
use crate::descriptors::standard;
use crate::signals::{FAULTS, kill};
use crate::wait::{self, Dead, End};

/// The release whose behaviour this is.
const VERSION: &str = "0.19.0";
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

const KNOWN: [Known; 8] = {
    const fn flag(letter: u8, value: bool) -> Known {
        Known {
            letter,
            long: None,
            value,
        }
    }
    [
        flag(b'h', false),
        flag(b's', false),
        flag(b'p', true),
        flag(b'v', false),
        flag(b'w', false),
        flag(b'g', false),
        flag(b'e', true),
        flag(b'l', false),
    ]
};

/// Levels of messages; 0 are fatal ones and always said.
const WARNING: i32 = 1;
const INFO: i32 = 2;
const DEBUG: i32 = 3;
const TRACE: i32 = 4;

#[derive(Debug)]
struct Tini {
    name: &'static str,
    verbosity: i32,
    subreaper: bool,
    death_signal: Option<Signal>,
    group: bool,
    warn_on_reap: bool,
    /// Codes that count as 0.
    expected: [bool; 256],
}

/// What we were started with and the command gets back.
struct Inherited {
    mask: SigSet,
    background_read: SigAction,
    background_write: SigAction,
}

/// The command line is answered already, with this code.
struct Answered(u8);

pub(super) fn run(name: &'static str, arguments: &[Vec<u8>]) -> ExitCode {
    let mut tini = Tini {
        name,
        verbosity: WARNING,
        subreaper: false,
        death_signal: None,
        group: false,
        warn_on_reap: false,
        expected: [false; 256],
    };
    match tini
        .parse(arguments)
        .and_then(|command| tini.supervise(&command))
    {
        Ok(code) | Err(Answered(code)) => ExitCode::from(code),
    }
}

impl Tini {
    fn log(&self, level: i32, text: fmt::Arguments<'_>) {
        if level > self.verbosity {
            return;
        }
        let (stream, label) = match level {
            0 => (2, "FATAL"),
            WARNING => (2, "WARN "),
            INFO => (1, "INFO "),
            DEBUG => (1, "DEBUG"),
            _ => (1, "TRACE"),
        };
        say(
            stream,
            &format!("[{label} {} ({})] {text}\n", self.name, std::process::id()),
        );
    }

    fn fatal(&self, text: fmt::Arguments<'_>) -> Answered {
        self.log(0, text);
        Answered(1)
    }

    fn parse(&mut self, arguments: &[Vec<u8>]) -> Result<Vec<CString>, Answered> {
        if let [only] = arguments
            && only == b"--version"
        {
            say(1, &format!("{}\n", version(self.name)));
            return Err(Answered(0));
        }
        let mut options = Options::new(&KNOWN, arguments);
        for found in options.by_ref() {
            match found {
                Found::Option(b'h', _) => {
                    say(1, &usage(self.name));
                    return Err(Answered(0));
                }
                Found::Option(b'l', _) => {
                    say(1, LICENSE);
                    return Err(Answered(0));
                }
                Found::Option(b's', _) => self.subreaper = true,
                Found::Option(b'v', _) => self.verbosity += 1,
                Found::Option(b'w', _) => self.warn_on_reap = true,
                Found::Option(b'g', _) => self.group = true,
                Found::Option(b'p', Some(value)) => self.death_signal = Some(self.signal(&value)?),
                Found::Option(b'e', Some(value)) => self.expect(&value)?,
                Found::Option(..) => {}
                Found::UnknownLetter(letter) => {
                    say(
                        2,
                        &format!(
                            "{}: unknown option -{}\n{}",
                            self.name,
                            char::from(letter),
                            usage(self.name)
                        ),
                    );
                    return Err(Answered(1));
                }
                Found::MissingValue(letter) => {
                    say(
                        2,
                        &format!(
                            "{}: -{} needs a value\n{}",
                            self.name,
                            char::from(letter),
                            usage(self.name)
                        ),
                    );
                    return Err(Answered(1));
                }
                // There are no long options here, so none is parsed.
                Found::UnknownLong(_) => return Err(Answered(1)),
            }
        }
        let command = command_line(options.rest());
        if command.is_empty() {
            say(2, &usage(self.name));
            return Err(Answered(1));
        }
        self.subreaper |= std::env::var_os("TINI_SUBREAPER").is_some();
        self.group |= std::env::var_os("TINI_KILL_PROCESS_GROUP").is_some();
        if let Some(value) = std::env::var_os("TINI_VERBOSITY") {
            // As atoi: what is no number is 0.
            self.verbosity = value
                .to_str()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
        }
        Ok(command)
    }

    fn signal(&self, value: &[u8]) -> Result<Signal, Answered> {
        let text = String::from_utf8_lossy(value);
        text.parse()
            .map_err(|_| self.fatal(format_args!("-p takes the name of a signal, not {text}")))
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Answered> {
        let text = String::from_utf8_lossy(value);
        let slot = text
            .trim_start()
            .parse::<u8>()
            .ok()
            .and_then(|code| self.expected.get_mut(usize::from(code)));
        match slot {
            Some(slot) => {
                *slot = true;
                Ok(())
            }
            None => Err(self.fatal(format_args!("-e takes a code from 0 to 255, not {text}"))),
        }
    }

    fn supervise(&self, command: &[CString]) -> Result<u8, Answered> {
        let (signals, inherited) = take_signals()
            .map_err(|errno| self.fatal(format_args!("cannot set up signals: {errno}")))?;
        if let Some(signal) = self.death_signal {
            prctl::set_pdeathsig(signal).map_err(|errno| {
                self.fatal(format_args!("cannot set the parent death signal: {errno}"))
            })?;
        }
        if self.subreaper {
            prctl::set_child_subreaper(true).map_err(|errno| {
                self.fatal(format_args!("cannot become a child subreaper: {errno}"))
            })?;
            self.log(TRACE, format_args!("Registered as child subreaper"));
        }
        self.check_reaping();
        let child = match fork() {
            Ok(ForkResult::Parent { child }) => child.as_raw(),
            Ok(ForkResult::Child) => return Ok(self.become_command(command, &inherited)),
            Err(errno) => return Err(self.fatal(format_args!("fork: {errno}"))),
        };
        let program = command
            .first()
            .map(|word| word.to_string_lossy())
            .unwrap_or_default();
        self.log(INFO, format_args!("Started {program} with pid {child}"));
        loop {
            self.forward(&signals, child)?;
            if let Some(end) = self.reap(child) {
                return Ok(self.code(end));
            }
        }
    }

    fn check_reaping(&self) {
        let reaps = std::process::id() == 1 || prctl::get_child_subreaper().unwrap_or(false);
        if !reaps {
            self.log(
                WARNING,
                format_args!(
                    "{0} is neither PID 1 nor a child subreaper: orphans go to another process, so zombie reaping won't \
                     work here.\nRun {0} as PID 1, or make it a subreaper with -s or TINI_SUBREAPER in its environment.",
                    self.name
                ),
            );
        }
    }

    /// In the child; gives the exit code if the command cannot be run.
    fn become_command(&self, command: &[CString], inherited: &Inherited) -> u8 {
        if let Err(Answered(code)) = self.isolate() {
            return code;
        }
        if let Err(errno) = inherited.restore() {
            self.log(0, format_args!("cannot restore signals: {errno}"));
            return 1;
        }
        let errno = exec(command);
        let program = command
            .first()
            .map(|word| word.to_string_lossy())
            .unwrap_or_default();
        self.log(0, format_args!("exec {program} failed: {}", errno.desc()));
        match errno {
            Errno::ENOENT => NOT_FOUND,
            Errno::EACCES => NOT_EXECUTABLE,
            _ => 1,
        }
    }

    /// A process group of its own, which becomes the terminal's foreground group. Done by the child, so that an init
    /// under an init cannot put it back; SIGTTOU, which that would raise, is ignored by now.
    fn isolate(&self) -> Result<(), Answered> {
        nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0))
            .map_err(|errno| self.fatal(format_args!("setpgid: {errno}")))?;
        let [input, ..] = standard();
        match nix::unistd::tcsetpgrp(input, nix::unistd::getpgrp()) {
            Ok(()) => Ok(()),
            // No terminal, or none that is ours: nothing to hand over.
            Err(errno @ (Errno::ENOTTY | Errno::ENXIO)) => {
                self.log(DEBUG, format_args!("no terminal to hand over: {errno}"));
                Ok(())
            }
            Err(errno) => Err(self.fatal(format_args!("tcsetpgrp: {errno}"))),
        }
    }

    /// Waits for a signal and passes it on.
    fn forward(&self, signals: &SignalFd, child: i32) -> Result<(), Answered> {
        let signal = match signals.read_signal() {
            Ok(Some(info)) => i32::try_from(info.ssi_signo).unwrap_or(0),
            Ok(None) | Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(self.fatal(format_args!("waiting for a signal: {errno}"))),
        };
        if signal == libc::SIGCHLD {
            self.log(DEBUG, format_args!("Received SIGCHLD"));
            return Ok(());
        }
        self.log(DEBUG, format_args!("Passing on signal {signal}"));
        match kill(if self.group { -child } else { child }, signal) {
            Ok(()) => Ok(()),
            Err(Errno::ESRCH) => {
                self.log(
                    WARNING,
                    format_args!("The command was dead when signal {signal} came"),
                );
                Ok(())
            }
            Err(errno) => Err(self.fatal(format_args!("passing on signal {signal}: {errno}"))),
        }
    }

    fn reap(&self, child: i32) -> Option<End> {
        let mut end = None;
        loop {
            let pid = match wait::dead_child() {
                Dead::Child(pid) => pid,
                Dead::None => {
                    self.log(TRACE, format_args!("No child to reap"));
                    return end;
                }
                Dead::NoChildren => {
                    self.log(TRACE, format_args!("No child to wait for"));
                    return end;
                }
            };
            let status = wait::reap(pid)?;
            self.log(DEBUG, format_args!("Reaped child with pid {pid}"));
            if pid == child {
                end = Some(End::from_raw(status));
            } else if self.warn_on_reap {
                self.log(
                    WARNING,
                    format_args!("Reaped zombie process with pid={pid}"),
                );
            }
        }
    }

    fn code(&self, end: End) -> u8 {
        self.log(INFO, format_args!("The command ended: {end:?}"));
        let code = end.exit_code();
        let expected = self
            .expected
            .get(usize::from(code))
            .copied()
            .unwrap_or(false);
        if expected { 0 } else { code }
    }
}

impl Inherited {
    fn restore(&self) -> nix::Result<()> {
        restore_pipe()?;
        set_disposition(Signal::SIGTTIN, self.background_read.handler())?;
        set_disposition(Signal::SIGTTOU, self.background_write.handler())?;
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None)
    }
}

/// Blocks what is to be forwarded. Terminal access is ignored instead: the terminal is the command's, and a line of ours
/// must not stop us.
fn take_signals() -> nix::Result<(SignalFd, Inherited)> {
    let mut set = SigSet::all();
    for signal in FAULTS.into_iter().chain([Signal::SIGTTIN, Signal::SIGTTOU]) {
        set.remove(signal);
    }
    let mut mask = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), Some(&mut mask))?;
    let background_read = set_disposition(Signal::SIGTTIN, SigHandler::SigIgn)?;
    let background_write = set_disposition(Signal::SIGTTOU, SigHandler::SigIgn)?;
    let signals = SignalFd::with_flags(&set, nix::sys::signalfd::SfdFlags::SFD_CLOEXEC)?;
    Ok((
        signals,
        Inherited {
            mask,
            background_read,
            background_write,
        },
    ))
}

fn version(name: &str) -> String {
    let own = env!("CARGO_PKG_VERSION");
    if name == "tini" {
        format!("tini version {VERSION} (whim {own})")
    } else {
        format!("{name} {own}")
    }
}

const LICENSE: &str = "whim is distributed under the Apache License, Version 2.0.\n\
                       It contains no code of tini; it follows tini's interface.\n";

fn usage(name: &str) -> String {
    format!(
        "{version}\n\
         Usage: {name} [OPTIONS] [--] COMMAND [ARGS...]\n\
         \n\
         Runs COMMAND under the supervision of a valid init process: signals are passed on to it, every orphan is\n\
         reaped, and its exit code is ours (128 + N if it ended by signal N).\n\
         \n\
         Options:\n\
         \x20 -s          become a child subreaper, when this is not PID 1\n\
         \x20 -g          pass signals on to the command's whole process group\n\
         \x20 -w          warn about each orphan that is reaped\n\
         \x20 -p SIGNAL   get SIGNAL (SIGTERM, ...) when our own parent dies\n\
         \x20 -e CODE     exit with 0 when the command exits with CODE; may be repeated\n\
         \x20 -v          more verbose; up to three times\n\
         \x20 -h          this text\n\
         \x20 -l          the license\n\
         \x20 --version   the version\n\
         \n\
         Environment:\n\
         \x20 TINI_SUBREAPER            set: as -s\n\
         \x20 TINI_KILL_PROCESS_GROUP   set: as -g\n\
         \x20 TINI_VERBOSITY            level of messages, 0 to 4 (default 1)\n",
        version = version(name)
    )
}
