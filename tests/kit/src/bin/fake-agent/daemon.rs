//! Processes that stay behind.
//!
//! A daemon is this program again: it first leaves its parent the way it was told, then does its steps.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use crate::step::Way;

/// First argument of a process that is to become a daemon; the second is the way.
pub(crate) const BECOME: &str = "--become";

/// Starts one. Those that leave in two strides are waited for until the first stride is over.
pub(crate) fn start(way: Way, steps: &[String]) -> io::Result<()> {
    let mut command = itself(way, steps)?;
    let mut child = command.spawn()?;
    match way {
        Way::Plain | Way::Setsid => say(child.id()),
        Way::Double | Way::Scrub => child.wait().map(drop),
    }
}

/// Leaves the parent. True: this process is the daemon and does the steps that are left in `arguments`.
pub(crate) fn detach(arguments: &mut Vec<String>) -> io::Result<bool> {
    let way = arguments
        .first()
        .and_then(|word| Way::parse(word))
        .unwrap_or(Way::Plain);
    arguments.drain(..1.min(arguments.len()));
    if way != Way::Plain {
        nix::unistd::setsid()?;
    }
    if matches!(way, Way::Plain | Way::Setsid) {
        return Ok(true);
    }
    let mut command = itself(Way::Plain, arguments)?;
    if way == Way::Scrub {
        command.env_clear();
    }
    say(command.spawn()?.id())?;
    Ok(false)
}

/// Starts `number` children that stay.
pub(crate) fn children(number: u64) -> io::Result<()> {
    (0..number).try_for_each(|_| start(Way::Plain, &[]))
}

/// Starts `number` processes whose parent ends at once and which then end themselves.
pub(crate) fn orphans(number: u64) -> io::Result<()> {
    // One shell forks them all, so that it is quick: each is left behind by a subshell.
    let script = format!("i=0; while [ $i -lt {number} ]; do (sleep 0.01 &) ; i=$((i+1)); done");
    let status = Command::new("sh")
        .arg("-c")
        .arg(script)
        .stdin(Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the shell of the orphans ended with {status}"
        )))
    }
}

fn itself(way: Way, steps: &[String]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(BECOME).arg(way.word()).stdin(Stdio::null());
    if steps.is_empty() {
        command.arg("forever");
    }
    command.args(steps);
    Ok(command)
}

fn say(pid: u32) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "daemon {pid}")?;
    out.flush()
}
