//! Processes that an agent needs beside it: started and answering before it, watched while it runs, ended after it.
//!
//! Each has a task of its own that starts it again when it ends while the agent goes on, as often as an agent itself is
//! ([`RestartPolicy`]); the agent's calls fail meanwhile, and it tries them again. The keeper holds them, so they outlive
//! the supervisor; the next one takes them up by their names.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use whim_entrypoint::wire::Launch;
use whim_wire::event::kind;

use super::Ground;
use super::launch::{StartError, arguments, environment};
use crate::agents::command::Companion;
use crate::agents::locate::RealFiles;
use crate::agents::restart::{self, Decision, RestartPolicy};
use crate::agents::setup::Setup;
use crate::clock::boot_now;
use crate::keeper::{Exit, Process, ProcessIo};
use crate::logs::Log;

/// Between two knocks at a companion that does not listen yet: it gives no other sign.
const KNOCK: Duration = Duration::from_millis(100);
/// For one answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Between TERM and KILL at its end.
const GRACE: Duration = Duration::from_secs(2);

/// Name of a companion's process at the keeper.
fn process_name(session: &str, name: &str) -> String {
    format!("session/{session}/{name}")
}

/// The session whose companion runs under this name at the keeper.
#[must_use]
pub(crate) fn session_of_companion(process: &str) -> Option<&str> {
    let (session, name) = process.strip_prefix("session/")?.split_once('/')?;
    (!session.is_empty() && !name.is_empty()).then_some(session)
}

/// The companions of a running agent. Dropping it leaves them as they are.
#[derive(Debug, Default)]
pub(super) struct Companions {
    guards: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Companions {
    /// Starts the companions and waits until each answers.
    pub(super) async fn start(
        ground: &Arc<Ground>,
        wanted: Vec<Companion>,
        setup: &Setup,
    ) -> Result<Self, StartError> {
        let mut companions = Self::default();
        for companion in wanted {
            let guard = Guard::new(ground, companion, setup);
            match guard.start_ready().await {
                Ok(process) => companions.guard(guard, Some(process)),
                Err(error) => {
                    companions.end().await;
                    return Err(error);
                }
            }
        }
        Ok(companions)
    }

    /// Takes up what an earlier supervisor started, beside the agent that still runs. One that is gone is started, one
    /// that is not wanted is ended.
    pub(super) async fn take_up(
        ground: &Arc<Ground>,
        wanted: Vec<Companion>,
        setup: &Setup,
        mut left: Vec<Process>,
    ) -> Self {
        let mut companions = Self::default();
        for companion in wanted {
            let guard = Guard::new(ground, companion, setup);
            let place = left.iter().position(|known| known.name() == guard.name);
            let mut process = place.map(|place| left.swap_remove(place));
            if let Some(process) = &mut process {
                guard.log(process);
                guard.note(
                    "companion taken up",
                    kind::COMPANION_STARTED,
                    &json!({"pid": process.pid()}),
                );
            }
            companions.guard(guard, process);
        }
        for process in left {
            end(process).await;
        }
        companions
    }

    fn guard(&mut self, guard: Guard, process: Option<Process>) {
        let stop = self.stop.clone();
        self.guards.push(tokio::spawn(guard.run(process, stop)));
    }

    /// Ends all of them.
    pub(super) async fn end(self) {
        self.stop.cancel();
        for guard in self.guards {
            if let Err(error) = guard.await {
                tracing::error!(%error, "a companion's task failed");
            }
        }
    }
}

/// What watches one companion.
struct Guard {
    ground: Arc<Ground>,
    companion: Companion,
    setup: Setup,
    /// At the keeper.
    name: String,
}

impl Guard {
    fn new(ground: &Arc<Ground>, companion: Companion, setup: &Setup) -> Self {
        Self {
            ground: ground.clone(),
            name: process_name(&setup.session, companion.name),
            companion,
            setup: setup.clone(),
        }
    }

    /// Until it is told to end the companion, or the companion ended too often.
    async fn run(self, mut process: Option<Process>, stop: CancellationToken) {
        let mut policy = RestartPolicy::new();
        loop {
            let began = boot_now().since_boot();
            let running = match process.take() {
                Some(running) => Ok(running),
                None => match self.start().await {
                    Ok(started) => {
                        let ready = tokio::select! {
                            ready = self.ready(&started) => ready,
                            () = stop.cancelled() => return end(started).await,
                        };
                        match ready {
                            Ok(()) => Ok(started),
                            Err(error) => {
                                end(started).await;
                                Err(error)
                            }
                        }
                    }
                    Err(error) => Err(error),
                },
            };
            let ended = match running {
                Ok(running) => {
                    let exit = tokio::select! {
                        exit = running.wait() => exit.ok(),
                        () = stop.cancelled() => None,
                    };
                    end(running).await;
                    match exit {
                        Some(exit) => exit.to_string(),
                        // Told to, or the keeper is gone.
                        None => return,
                    }
                }
                Err(error) => error.to_string(),
            };
            if stop.is_cancelled() || self.ground.keeper.stopping().borrow().is_some() {
                return;
            }
            // However it ended: nobody asked for it.
            let now = boot_now().since_boot();
            let decision = policy.ended(restart::Exit::Code(1), false, began, false, now);
            let returns = matches!(decision, Decision::Restart { .. });
            self.note(
                "companion ended",
                kind::COMPANION_EXITED,
                &json!({"how": ended, "returns": returns}),
            );
            let Decision::Restart { after, .. } = decision else {
                tracing::error!(
                    name = self.name,
                    how = ended,
                    "ended too often: the agent goes on without it"
                );
                return;
            };
            tokio::select! {
                () = tokio::time::sleep(after) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn note(&self, message: &'static str, kind: &'static str, fields: &serde_json::Value) {
        tracing::info!(name = self.name, %fields, message);
        let mut event = fields.clone();
        if let Some(members) = event.as_object_mut() {
            members.insert("session".into(), json!(self.setup.session));
            members.insert("name".into(), json!(self.companion.name));
        }
        self.ground.board.note(kind, event);
    }

    async fn start(&self) -> Result<Process, StartError> {
        let command = &self.companion.command;
        let ground = &self.ground;
        let task = ground.task();
        let path = task
            .environment
            .iter()
            .find(|(name, _)| name == "PATH")
            .map(|(_, value)| value.clone());
        let path: Vec<_> = std::env::split_paths(&path.unwrap_or_default()).collect();
        let program = self
            .companion
            .program
            .locate(&path, &self.setup.home, &RealFiles)?
            .path;
        let launch = Launch {
            arguments: arguments(&program, command),
            environment: environment(&task.environment, command),
            directory: command.directory.clone(),
            user: ground.user.clone(),
            oom_score_adj: Some(400),
            no_new_privs: ground.no_new_privs,
            ..Launch::of(&program)
        };
        let mut process = ground
            .keeper
            .spawn(&self.name, &launch, Vec::new())
            .await
            .map_err(|source| StartError::Process { program, source })?;
        self.log(&mut process);
        Ok(process)
    }

    /// Starts it and waits until it answers.
    async fn start_ready(&self) -> Result<Process, StartError> {
        let process = self.start().await?;
        match self.ready(&process).await {
            Ok(()) => Ok(process),
            Err(error) => {
                end(process).await;
                Err(error)
            }
        }
    }

    /// Waits until it answers.
    async fn ready(&self, process: &Process) -> Result<(), StartError> {
        let ready = &self.companion.ready;
        let mut status = process.status();
        let answered = tokio::time::timeout(ready.deadline, answers(&ready.url));
        let reason = tokio::select! {
            answered = answered => match answered {
                Ok(()) => {
                    let pid = json!({"pid": process.pid()});
                    self.note("companion started", kind::COMPANION_STARTED, &pid);
                    return Ok(());
                }
                Err(_) => format!("not within {} s", ready.deadline.as_secs()),
            },
            exit = status.wait_for(Option::is_some) => match exit.ok().and_then(|exit| *exit) {
                Some(exit) => self.ended_early(exit),
                None => "the keeper is gone".into(),
            },
        };
        Err(StartError::Companion {
            name: self.companion.name,
            url: ready.url.clone(),
            reason,
        })
    }

    fn ended_early(&self, exit: Exit) -> String {
        format!("it ended ({exit}); see `whim logs {}`", self.log_name())
    }

    fn log_name(&self) -> String {
        format!("{}-{}", self.setup.session, self.companion.name)
    }

    fn log(&self, process: &mut Process) {
        log(
            process,
            Log::open(&self.ground.paths.logs(), &self.log_name()),
        );
    }
}

/// Copies what a process prints into a log until it ends.
pub(super) fn log(process: &mut Process, mut log: Log) {
    let ProcessIo::Pipes {
        mut stdout,
        mut stderr,
        ..
    } = std::mem::replace(&mut process.io, ProcessIo::None)
    else {
        return;
    };
    tokio::spawn(async move {
        let (mut out, mut err) = (true, true);
        while out || err {
            tokio::select! {
                chunk = stdout.next(), if out => match chunk {
                    Ok(Some(chunk)) => { log.append(&chunk.bytes); stdout.acknowledge(stdout.position()); }
                    Ok(None) | Err(_) => out = false,
                },
                chunk = stderr.next(), if err => match chunk {
                    Ok(Some(chunk)) => { log.append(&chunk.bytes); stderr.acknowledge(stderr.position()); }
                    Ok(None) | Err(_) => err = false,
                },
            }
        }
    });
}

/// Ends a companion and all it left, and lets the keeper forget it.
async fn end(process: Process) {
    let ended = async {
        process.end(GRACE).await?;
        process.acknowledge().await
    };
    if let Err(error) = ended.await {
        tracing::warn!(name = process.name(), %error, "a companion could not be ended");
    }
}

/// Asks until the address answers with success.
async fn answers(url: &str) {
    loop {
        match tokio::time::timeout(ANSWER, get(url)).await {
            Ok(Ok(status)) if status.is_success() => return,
            Ok(Ok(status)) => tracing::debug!(url, %status, "not ready"),
            Ok(Err(error)) => tracing::debug!(url, %error, "not ready"),
            Err(_) => tracing::debug!(url, "slow"),
        }
        tokio::time::sleep(KNOCK).await;
    }
}

async fn get(url: &str) -> Result<http::StatusCode, Box<dyn std::error::Error + Send + Sync>> {
    let uri: http::Uri = url.parse()?;
    let authority = uri.authority().ok_or("no host")?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    drop(tokio::spawn(connection));
    let path = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let request = http::Request::get(path)
        .header(http::header::HOST, authority.as_str())
        .body(Empty::<bytes::Bytes>::new())?;
    Ok(sender.send_request(request).await?.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn companions_are_known_by_their_names() {
        let name = process_name("main", "router");
        assert_eq!(session_of_companion(&name), Some("main"));
        for other in ["session/main", "session/main/", "session//x", "shell/1/x"] {
            assert_eq!(session_of_companion(other), None, "{other}");
        }
    }
}
