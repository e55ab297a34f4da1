//! dumb-init's rules.
//!
//! The command becomes the leader of a new session (unless `-c`), with our controlling terminal if we had one, and every
//! signal goes to its whole group. Signals can be rewritten. A suspension (TSTP, TTIN, TTOU) is passed on, by default as
//! STOP, and then suspends us too. When the command ends, what is left of its session gets TERM.
//!
//! Flags, variables, exit codes and debug lines are those of dumb-init 1.2.5 (its README and tests).

use std::ffi::CString;
use std::fmt;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::ForkResult;

use super::options::{Found, Known, Options};
use super::{command_line, exec, fork, say, set_disposition};
use crate::signals::kill;
use crate::wait::{self, Dead, End};

/// The release whose interface this is.
const VERSION: &str = "1.2.5";
/// Signals that can be rewritten: 1 to this.
const LAST_SIGNAL: usize = 31;
/// Exit code when the command cannot be run.
const CANNOT_RUN: u8 = 2;

const KNOWN: [Known; 5] = [
    Known {
        letter: b'h',
        long: Some("help"),
        value: false,
    },
    Known {
        letter: b'c',
        long: Some("single-child"),
        value: false,
    },
    Known {
        letter: b'r',
        long: Some("rewrite"),
        value: true,
    },
    Known {
        letter: b'v',
        long: Some("verbose"),
        value: false,
    },
    Known {
        letter: b'V',
        long: Some("version"),
        value: false,
    },
];

const SUSPENSIONS: [i32; 3] = [libc::SIGTSTP, libc::SIGTTOU, libc::SIGTTIN];

#[derive(Debug)]
struct DumbInit {
    debug: bool,
    session: bool,
    /// By signal number: what is sent in its place, 0 for nothing.
    rewrites: [Option<i32>; LAST_SIGNAL + 1],
    /// Losing the terminal raises HUP and CONT once each; they are not for the command.
    skip_hangup: bool,
    skip_continue: bool,
    child: i32,
}

/// The command line is answered already, with this code.
struct Answered(u8);

pub(super) fn run(name: &str, arguments: &[Vec<u8>]) -> ExitCode {
    let mut init = DumbInit {
        debug: false,
        session: true,
        rewrites: [None; LAST_SIGNAL + 1],
        skip_hangup: false,
        skip_continue: false,
        child: 0,
    };
    match init
        .parse(name, arguments)
        .and_then(|command| init.supervise(&command))
    {
        Ok(code) | Err(Answered(code)) => ExitCode::from(code),
    }
}

fn error(text: fmt::Arguments<'_>) {
    say(2, &format!("[dumb-init] {text}\n"));
}

impl DumbInit {
    fn debug(&self, text: fmt::Arguments<'_>) {
        if self.debug {
            error(text);
        }
    }

    fn parse(&mut self, name: &str, arguments: &[Vec<u8>]) -> Result<Vec<CString>, Answered> {
        let mut options = Options::new(&KNOWN, arguments);
        for found in options.by_ref() {
            match found {
                Found::Option(b'h', _) => {
                    say(2, &help(name));
                    return Err(Answered(0));
                }
                Found::Option(b'V', _) => {
                    say(2, &format!("dumb-init v{VERSION}\n"));
                    return Err(Answered(0));
                }
                Found::Option(b'v', _) => self.debug = true,
                Found::Option(b'c', _) => self.session = false,
                Found::Option(b'r', value) => self.rewrite(&value.unwrap_or_default())?,
                Found::Option(..) => {}
                Found::UnknownLetter(letter) => {
                    say(
                        2,
                        &format!("{name}: invalid option -- '{}'\n", char::from(letter)),
                    );
                    return Err(Answered(1));
                }
                Found::UnknownLong(option) => {
                    say(
                        2,
                        &format!(
                            "{name}: unrecognized option '{}'\n",
                            String::from_utf8_lossy(&option)
                        ),
                    );
                    return Err(Answered(1));
                }
                Found::MissingValue(letter) => {
                    say(
                        2,
                        &format!(
                            "{name}: option requires an argument -- '{}'\n",
                            char::from(letter)
                        ),
                    );
                    return Err(Answered(1));
                }
            }
        }
        let command = command_line(options.rest());
        if command.is_empty() {
            say(
                2,
                &format!(
                    "Usage: {name} [option] program [args]\nTry {name} --help for full usage.\n"
                ),
            );
            return Err(Answered(1));
        }
        let variable = |name, value: &str| std::env::var_os(name).is_some_and(|set| set == *value);
        if variable("DUMB_INIT_DEBUG", "1") {
            self.debug = true;
            self.debug(format_args!("Running in debug mode."));
        }
        if variable("DUMB_INIT_SETSID", "0") {
            self.session = false;
            self.debug(format_args!("Not running in setsid mode."));
        }
        if self.session {
            // A group without a parent in its session cannot be stopped by these, only by STOP.
            for signal in SUSPENSIONS {
                if let Some(rewrite) = self.slot(signal) {
                    rewrite.get_or_insert(libc::SIGSTOP);
                }
            }
        }
        Ok(command)
    }

    fn slot(&mut self, signal: i32) -> Option<&mut Option<i32>> {
        self.rewrites.get_mut(usize::try_from(signal).ok()?)
    }

    fn rewrite(&mut self, value: &[u8]) -> Result<(), Answered> {
        let pair = parse_pair(&String::from_utf8_lossy(value));
        let last = i32::try_from(LAST_SIGNAL).unwrap_or(0);
        match pair {
            Some((from, to)) if (1..=last).contains(&from) && (0..=last).contains(&to) => {
                if let Some(slot) = self.slot(from) {
                    *slot = Some(to);
                }
                Ok(())
            }
            _ => {
                say(
                    2,
                    &format!(
                        "Usage: -r option takes <signum>:<signum>, where <signum> is between 1 and {LAST_SIGNAL}.\n\
                         This option can be specified multiple times.\n\
                         Use --help for full usage.\n"
                    ),
                );
                Err(Answered(1))
            }
        }
    }

    fn supervise(&mut self, command: &[CString]) -> Result<u8, Answered> {
        let signals = take_signals().map_err(|errno| {
            error(format_args!("Unable to set up signals: {errno}."));
            Answered(1)
        })?;
        if self.session {
            self.leave_terminal();
        }
        match fork() {
            Ok(ForkResult::Parent { child }) => self.child = child.as_raw(),
            Ok(ForkResult::Child) => return Ok(self.become_command(command)),
            Err(errno) => {
                error(format_args!("Unable to fork: {errno}. Exiting."));
                return Err(Answered(1));
            }
        }
        self.debug(format_args!("Child spawned with PID {}.", self.child));
        if let Err(errno) = nix::unistd::chdir(c"/") {
            self.debug(format_args!("Unable to chdir(\"/\"): {errno}."));
        }
        loop {
            match signals.read_signal() {
                Ok(Some(info)) => {
                    if let Some(code) = self.handle(i32::try_from(info.ssi_signo).unwrap_or(0)) {
                        return Ok(code);
                    }
                }
                Ok(None) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    error(format_args!(
                        "Unable to wait for signals: {errno}. Exiting."
                    ));
                    return Err(Answered(1));
                }
            }
        }
    }

    /// Gives up the controlling terminal, so that the command's session can take it.
    #[expect(unsafe_code, reason = "TIOCNOTTY has no wrapper")]
    fn leave_terminal(&mut self) {
        // SAFETY: an ioctl without argument on standard input.
        let result = unsafe { libc::ioctl(0, libc::TIOCNOTTY) };
        if let Err(errno) = Errno::result(result) {
            self.debug(format_args!(
                "Unable to detach from controlling tty: {errno}."
            ));
        } else if nix::unistd::getsid(None) == Ok(nix::unistd::getpid()) {
            self.debug(format_args!(
                "Detached from controlling tty, ignoring the first SIGHUP and SIGCONT we receive."
            ));
            (self.skip_hangup, self.skip_continue) = (true, true);
        } else {
            self.debug(format_args!(
                "Detached from controlling tty, but was not session leader."
            ));
        }
    }

    /// In the child; gives the exit code if the command cannot be run.
    #[expect(unsafe_code, reason = "TIOCSCTTY has no wrapper")]
    fn become_command(&self, command: &[CString]) -> u8 {
        for signal in Signal::iterator() {
            // KILL and STOP are refused, and are what they are.
            let _refused = set_disposition(signal, SigHandler::SigDfl);
        }
        if let Err(errno) = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None) {
            error(format_args!("Unable to unblock signals: {errno}. Exiting."));
            return 1;
        }
        if self.session {
            if let Err(errno) = nix::unistd::setsid() {
                error(format_args!("Unable to setsid: {errno}. Exiting."));
                return 1;
            }
            // SAFETY: an ioctl on standard input that takes an integer.
            let result = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
            if let Err(errno) = Errno::result(result) {
                self.debug(format_args!(
                    "Unable to attach to controlling tty: {errno}."
                ));
            }
            self.debug(format_args!("setsid complete."));
        }
        let errno = exec(command);
        let program = command
            .first()
            .map(|word| word.to_string_lossy())
            .unwrap_or_default();
        error(format_args!("{program}: {}", errno.desc()));
        CANNOT_RUN
    }

    /// The exit code once the command ended.
    fn handle(&mut self, signal: i32) -> Option<u8> {
        self.debug(format_args!("Received signal {signal}."));
        let skip = match signal {
            libc::SIGHUP => &mut self.skip_hangup,
            libc::SIGCONT => &mut self.skip_continue,
            _ => &mut false,
        };
        if std::mem::take(skip) {
            self.debug(format_args!("Ignoring tty hand-off signal {signal}."));
        } else if signal == libc::SIGCHLD {
            return self.reap();
        } else {
            self.forward(signal);
            if SUSPENSIONS.contains(&signal) {
                self.debug(format_args!("Suspending self due to TTY signal."));
                // STOP of oneself cannot fail; as PID 1 it has no effect.
                let _stopped = kill(nix::unistd::getpid().as_raw(), libc::SIGSTOP);
            }
        }
        None
    }

    fn forward(&self, signal: i32) {
        let rewrite = usize::try_from(signal)
            .ok()
            .and_then(|number| *self.rewrites.get(number)?);
        if let Some(to) = rewrite {
            self.debug(format_args!("Translating signal {signal} to {to}."));
        }
        let signal = rewrite.unwrap_or(signal);
        if signal == 0 {
            self.debug(format_args!(
                "Not forwarding signal {signal} to children (ignored)."
            ));
            return;
        }
        // ESRCH: nobody is left to hear it, which is no mistake.
        let _unheard = kill(
            if self.session {
                -self.child
            } else {
                self.child
            },
            signal,
        );
        self.debug(format_args!("Forwarded signal {signal} to children."));
    }

    fn reap(&self) -> Option<u8> {
        while let Dead::Child(pid) = wait::dead_child() {
            let end = End::from_raw(wait::reap(pid)?);
            match end {
                End::Code(code) => {
                    self.debug(format_args!(
                        "A child with PID {pid} exited with exit status {code}."
                    ));
                }
                End::Signal(signal) => {
                    self.debug(format_args!(
                        "A child with PID {pid} was terminated by signal {signal}."
                    ));
                }
            }
            if pid == self.child {
                self.forward(libc::SIGTERM);
                self.debug(format_args!(
                    "Child exited with status {}. Goodbye.",
                    end.exit_code()
                ));
                return Some(end.exit_code());
            }
        }
        None
    }
}

/// Blocks everything; a blocked signal is delivered to the signalfd even where it was ignored.
fn take_signals() -> nix::Result<SignalFd> {
    let set = SigSet::all();
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&set), None)?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)
}

/// Two integers around a colon; what follows the second is not looked at, as with scanf.
fn parse_pair(text: &str) -> Option<(i32, i32)> {
    let (from, to) = text.split_once(':')?;
    let to = to.trim_start();
    let digits = to
        .bytes()
        .skip(usize::from(to.starts_with(['+', '-'])))
        .take_while(u8::is_ascii_digit)
        .count();
    let length = digits + usize::from(to.starts_with(['+', '-']));
    Some((
        from.trim_start().parse().ok()?,
        to.get(..length)?.parse().ok()?,
    ))
}

fn help(name: &str) -> String {
    let own = env!("CARGO_PKG_VERSION");
    format!(
        "dumb-init v{VERSION} (whim {own})\n\
         Usage: {name} [option] command [[arg] ...]\n\
         \n\
         Starts the command, passes signals on to it and reaps every orphan: an init for containers.\n\
         \n\
         Options:\n\
         \x20  -c, --single-child   signals go to the command alone, not to its whole session\n\
         \x20  -r, --rewrite s:r    pass on signal number r when s comes; 0 passes on nothing; may be repeated\n\
         \x20  -v, --verbose        say on standard error what happens\n\
         \x20  -h, --help           this text\n\
         \x20  -V, --version        the version\n\
         \n\
         Environment:\n\
         \x20  DUMB_INIT_DEBUG=1    as --verbose\n\
         \x20  DUMB_INIT_SETSID=0   as --single-child\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_as_scanf_does() {
        assert_eq!(parse_pair("15:2"), Some((15, 2)));
        assert_eq!(parse_pair(" 15: 2x"), Some((15, 2)));
        for wrong in ["", "15", "15:", "15::2", "x:2", "15:x"] {
            assert_eq!(parse_pair(wrong), None, "{wrong}");
        }
    }
}
