//! Shells of the web terminals: terminals without a session, as the agents' user, with the task's environment.
//!
//! The keeper owns them, so they live through a restart of the supervisor, and end when they are closed or the container
//! ends, not with any session.
//!
//! No two shells of one life of the keeper have the same name, over a restart of the supervisor too: a link that was given
//! away, or a request that comes late, never reaches another shell than the one it meant.

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Semaphore;
use whim_entrypoint::wire::{Io, Launch, read_memfd};

use super::launch::Ground;
use super::terminal::{self, Opening};
use crate::keeper::{Exit, Output, Process, ProcessIo};
use crate::terminals::http::{OpenRequest, ShellError, Shells as OpenShells};
use crate::terminals::old;
use crate::terminals::pty::Master;
use crate::terminals::size::Size;
use crate::terminals::source::{Source, Taken};
use crate::terminals::{Kind, Terminal, TerminalId};

/// Between HUP (as a terminal that is closed gives it) and KILL.
const GRACE: Duration = Duration::from_secs(2);
/// Longest command and directory of a request, in bytes.
const LONGEST: usize = 64 * 1024;

/// Name at the keeper of the highest number that a shell was given, in decimal digits.
const LAST: &str = "last-shell";
/// What the processes of shells are called at the keeper, before the terminal's name.
const PROCESS: &str = "shell/";

/// Opens and closes shells once the boot is done.
#[derive(Clone, Debug)]
pub struct Shells {
    ground: Arc<OnceLock<Arc<Ground>>>,
    /// The highest number that a shell was given.
    last: Arc<AtomicU32>,
    /// Whose turn it is to take the next one, until the keeper knows it.
    turn: Arc<Semaphore>,
}

impl Shells {
    /// Goes on numbering where the supervisor before stopped. `processes`: names of those that the keeper runs.
    ///
    /// # Errors
    /// When the keeper's memory cannot be read.
    pub fn new<'a>(
        held: &mut HashMap<String, OwnedFd>,
        processes: impl Iterator<Item = &'a str>,
    ) -> io::Result<Self> {
        let last = match held.remove(LAST) {
            Some(memory) => {
                let digits = read_memfd(&memory, 16)?;
                let number = String::from_utf8_lossy(&digits).parse();
                number.map_err(|_| io::Error::other("the last shell's number is none"))?
            }
            None => 0,
        };
        // One before did not tell its numbers.
        let running = processes.filter_map(|name| {
            let number = name.strip_prefix(PROCESS)?.strip_prefix("shell-")?;
            number.parse().ok()
        });
        let last = running.fold(last, u32::max);
        Ok(Self {
            ground: Arc::default(),
            last: Arc::new(AtomicU32::new(last)),
            turn: Arc::new(Semaphore::new(1)),
        })
    }

    /// A name that no shell had.
    async fn name(&self, ground: &Ground) -> Result<TerminalId, ShellError> {
        let unavailable =
            |error: &dyn std::fmt::Display| ShellError::Unavailable(error.to_string());
        let _turn = self
            .turn
            .acquire()
            .await
            .map_err(|error| unavailable(&error))?;
        loop {
            let number = self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            let id =
                TerminalId::new(&format!("shell-{number}")).map_err(|error| unavailable(&error))?;
            // A session may have such a name.
            if ground.terminals.get(&id).is_some() {
                continue;
            }
            let digits = number.to_string();
            let held = ground.keeper.hold_sealed(LAST, digits.as_bytes()).await;
            held.map_err(|error| unavailable(&error))?;
            return Ok(id);
        }
    }

    /// From now on shells can be opened on this ground.
    pub fn open_on(&self, ground: Arc<Ground>) {
        // The boot runs once; a second ground would be a fault of ours and changes nothing.
        drop(self.ground.set(ground));
    }

    /// Shells of a supervisor before this one.
    pub fn take_up(&self, process: Process) {
        let Some(ground) = self.ground.get() else {
            return;
        };
        let Some(id) = process
            .name()
            .strip_prefix(PROCESS)
            .and_then(|id| TerminalId::new(id).ok())
        else {
            return;
        };
        if let Err(error) = show(ground, id, process, terminal::SIZE, true) {
            tracing::warn!(%error, "a shell of the supervisor before cannot be shown");
        }
    }

    async fn start(&self, request: OpenRequest) -> Result<Terminal, ShellError> {
        let ground = self
            .ground
            .get()
            .ok_or_else(|| ShellError::Unavailable("the boot is not done".into()))?;
        let OpenRequest {
            command,
            cwd,
            columns,
            rows,
        } = request;
        let size = Size {
            columns: columns.unwrap_or(120),
            rows: rows.unwrap_or(40),
        }
        .clamped();
        let id = self.name(ground).await?;
        old::forget(&ground.paths.terminals(), &ground.terminals);
        let mut environment = ground.task().environment.clone();
        // By which the shells' integration knows that it is wanted, and whose history it keeps.
        environment.push(("WHIM_TERMINAL".into(), id.to_string().into()));
        let shell = environment
            .iter()
            .find(|(name, _)| name == "SHELL")
            .map(|(_, shell)| shell.clone());
        let shell = shell
            .filter(|shell| PathBuf::from(shell).is_file())
            .unwrap_or_else(|| "/bin/sh".into());
        let (program, arguments) = match command {
            Some(command) => {
                let total: usize = command.iter().map(String::len).sum();
                let Some(program) = command.first().filter(|program| !program.is_empty()) else {
                    return Err(ShellError::Invalid(
                        "command: the list is empty; name a program".into(),
                    ));
                };
                if total > LONGEST || command.iter().any(|word| word.contains('\0')) {
                    return Err(ShellError::Invalid(
                        "command: too long, or with a NUL character".into(),
                    ));
                }
                (
                    OsString::from(program),
                    command.into_iter().map(OsString::from).collect(),
                )
            }
            // Not a login shell: `/etc/profile` of Debian and others puts its own PATH in place of the image's and the
            // task's. What a login sets besides is in the environment already.
            None => {
                let name = PathBuf::from(&shell)
                    .file_name()
                    .unwrap_or_default()
                    .to_os_string();
                (shell, vec![name])
            }
        };
        let directory = cwd.map_or_else(|| ground.paths.checkout(), PathBuf::from);
        if !directory.is_absolute() {
            return Err(ShellError::Invalid(format!(
                "cwd: {} is not absolute",
                directory.display()
            )));
        }
        let launch = Launch {
            arguments,
            environment,
            directory,
            user: ground.user.clone(),
            io: Io::Terminal {
                columns: size.columns,
                rows: size.rows,
            },
            end_with_leader: false,
            oom_score_adj: Some(500),
            no_new_privs: ground.no_new_privs,
            ..Launch::of(program)
        };
        let process = ground
            .keeper
            .spawn(&format!("{PROCESS}{id}"), &launch, Vec::new())
            .await
            .map_err(|error| ShellError::Invalid(error.to_string()))?;
        show(ground, id, process, size, false)
    }

    async fn end(&self, terminal: Terminal) -> Result<(), ShellError> {
        let ground = self
            .ground
            .get()
            .ok_or_else(|| ShellError::Unavailable("the boot is not done".into()))?;
        if terminal.kind() == Kind::Agent {
            return Err(ShellError::Invalid(
                "this is a session's terminal: stop the session".into(),
            ));
        }
        if terminal.status().exit.is_none() {
            ground
                .keeper
                .end_named(&format!("{PROCESS}{}", terminal.id()), GRACE)
                .await
                .map_err(|error| ShellError::Unavailable(error.to_string()))?;
        }
        ground.terminals.remove(terminal.id());
        Ok(())
    }
}

impl OpenShells for Shells {
    fn open(
        &self,
        request: OpenRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Terminal, ShellError>> + Send + '_>> {
        Box::pin(self.start(request))
    }

    fn close(
        &self,
        terminal: Terminal,
    ) -> Pin<Box<dyn Future<Output = Result<(), ShellError>> + Send + '_>> {
        Box::pin(self.end(terminal))
    }
}

/// Lists the terminal of a shell and follows it to its end.
fn show(
    ground: &Ground,
    id: TerminalId,
    mut process: Process,
    size: Size,
    adopted: bool,
) -> Result<Terminal, ShellError> {
    let unavailable = |error: &dyn std::fmt::Display| ShellError::Unavailable(error.to_string());
    let ProcessIo::Terminal { master, output } =
        std::mem::replace(&mut process.io, ProcessIo::None)
    else {
        return Err(ShellError::Unavailable(
            "the keeper gave no terminal".into(),
        ));
    };
    let master = Master::new(master).map_err(|error| unavailable(&error))?;
    let opening = Opening {
        id,
        kind: Kind::Shell,
        size,
        adopted,
    };
    let terminal = terminal::open(ground, opening, output, master, Direct)
        .ok_or_else(|| ShellError::Unavailable("no more terminals can be opened".into()))?;
    let shown = terminal.clone();
    drop(tokio::spawn(async move {
        // Ends without an answer only when the keeper is gone.
        let Ok(exit) = process.wait().await else {
            return;
        };
        let exit = match exit {
            Exit::Code(code) => crate::terminals::Exit::Code(code),
            Exit::Signal(signal) => crate::terminals::Exit::Signal(signal),
        };
        shown.exited(exit).await;
        let mut gone = process.gone();
        if gone.wait_for(|gone| *gone).await.is_ok() {
            shown.drained().await;
            drop(process.acknowledge().await);
        }
    }));
    Ok(terminal)
}

/// A ring as a terminal's source.
#[derive(Debug)]
struct Direct(Output);

impl Source for Direct {
    fn offset(&self) -> u64 {
        self.0.position()
    }

    async fn ready(&mut self) -> std::io::Result<()> {
        self.0.ready().await
    }

    fn read(&mut self, into: &mut Vec<u8>, most: usize) -> std::io::Result<Taken> {
        let before = into.len();
        let (_, lost) = self.0.read(into, most);
        let bytes = into.len() - before;
        Ok(Taken {
            lost,
            bytes,
            ended: bytes == 0 && self.0.is_over(),
        })
    }

    fn acknowledge(&mut self, offset: u64) {
        self.0.acknowledge(offset);
    }
}

#[cfg(test)]
mod tests {
    use whim_entrypoint::wire::memfd_sealed;

    use super::*;

    #[test]
    fn numbers_go_on_where_the_supervisor_before_stopped() {
        let none = Shells::new(&mut HashMap::new(), std::iter::empty()).unwrap();
        assert_eq!(none.last.load(Ordering::Relaxed), 0);
        let memory = memfd_sealed(LAST, b"41").unwrap();
        let mut held = HashMap::from([(LAST.to_owned(), memory)]);
        let shells = Shells::new(&mut held, ["shell/shell-7", "session/main"].into_iter());
        assert_eq!(shells.unwrap().last.load(Ordering::Relaxed), 41);
        let running = ["shell/shell-7", "shell/shell-12", "shell/main"].into_iter();
        let shells = Shells::new(&mut HashMap::new(), running).unwrap();
        assert_eq!(shells.last.load(Ordering::Relaxed), 12);
    }
}
