//! Shells of the web terminals: terminals without a session, as the agents' user, with the task's environment.
//!
//! The keeper owns them, so they live through a restart of the supervisor, and end when they are closed or the container
//! ends, not with any session.

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use whim_entrypoint::wire::{Io, Launch};

use super::launch::Ground;
use super::terminal::{self, Opening};
use crate::keeper::{Exit, Output, Process, ProcessIo};
use crate::terminals::http::{OpenRequest, ShellError, Shells as OpenShells};
use crate::terminals::pty::Master;
use crate::terminals::size::Size;
use crate::terminals::source::{Source, Taken};
use crate::terminals::{Kind, Terminal, TerminalId};

/// Between HUP (as a terminal that is closed gives it) and KILL.
const GRACE: Duration = Duration::from_secs(2);
/// Longest command and directory of a request, in bytes.
const LONGEST: usize = 64 * 1024;

/// Opens and closes shells once the boot is done.
#[derive(Clone, Debug, Default)]
pub struct Shells {
    ground: Arc<OnceLock<Arc<Ground>>>,
}

impl Shells {
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
            .strip_prefix("shell/")
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
        let name = ground.terminals.next_shell();
        let id = name.id().clone();
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
            program,
            arguments,
            environment,
            directory,
            user: ground.user.clone(),
            io: Io::Terminal {
                columns: size.columns,
                rows: size.rows,
            },
            holder: true,
            end_with_leader: false,
            oom_score_adj: Some(500),
            no_new_privs: ground.no_new_privs,
            descriptors: Vec::new(),
        };
        let process = ground
            .keeper
            .spawn(&format!("shell/{id}"), &launch, Vec::new())
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
                .end_named(&format!("shell/{}", terminal.id()), GRACE)
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
