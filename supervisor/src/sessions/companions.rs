//! Processes that an agent needs beside it: started and answering before it, ended after it.

use std::time::Duration;

use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use whim_entrypoint::wire::{Io, Launch, Stdin};

use super::Ground;
use super::launch::{StartError, arguments, environment};
use crate::agents::command::Companion;
use crate::agents::locate::RealFiles;
use crate::agents::setup::Setup;
use crate::keeper::{Process, ProcessIo};
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

/// Starts the companions and waits until each answers.
pub(super) async fn start(
    ground: &Ground,
    companions: &[Companion],
    setup: &Setup,
) -> Result<Vec<Process>, StartError> {
    let mut running = Vec::new();
    for companion in companions {
        match start_one(ground, companion, setup).await {
            Ok(process) => running.push(process),
            Err(error) => {
                end(running).await;
                return Err(error);
            }
        }
    }
    Ok(running)
}

async fn start_one(
    ground: &Ground,
    companion: &Companion,
    setup: &Setup,
) -> Result<Process, StartError> {
    let command = &companion.command;
    let path = ground
        .environment
        .iter()
        .find(|(name, _)| name == "PATH")
        .map(|(_, value)| value.clone());
    let path: Vec<_> = std::env::split_paths(&path.unwrap_or_default()).collect();
    let program = companion
        .program
        .locate(&path, &setup.home, &RealFiles)?
        .path;
    let launch = Launch {
        program: program.clone().into_os_string(),
        arguments: arguments(&program, command),
        environment: environment(&ground.environment, command),
        directory: command.directory.clone(),
        user: ground.user.clone(),
        io: Io::Pipes { stdin: Stdin::Null },
        holder: true,
        end_with_leader: true,
        oom_score_adj: Some(400),
        no_new_privs: ground.no_new_privs,
        descriptors: Vec::new(),
    };
    let mut process = ground
        .keeper
        .spawn(
            &process_name(&setup.session, companion.name),
            &launch,
            Vec::new(),
        )
        .await
        .map_err(|source| StartError::Process { program, source })?;
    log(
        &mut process,
        Log::open(
            &ground.paths.logs(),
            &format!("{}-{}", setup.session, companion.name),
        ),
    );
    let mut status = process.status();
    let ready = tokio::time::timeout(companion.ready.deadline, answers(&companion.ready.url));
    let reason = tokio::select! {
        ready = ready => match ready {
            Ok(()) => return Ok(process),
            Err(_) => format!("not within {} s", companion.ready.deadline.as_secs()),
        },
        exit = status.wait_for(Option::is_some) => match exit.ok().and_then(|exit| *exit) {
            Some(exit) => format!("it ended ({exit}); see `whim logs {}-{}`", setup.session, companion.name),
            None => "the keeper is gone".into(),
        },
    };
    end(vec![process]).await;
    Err(StartError::Companion {
        name: companion.name,
        url: companion.ready.url.clone(),
        reason,
    })
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

/// Goes on with the companions that an earlier supervisor started.
pub(super) fn take_up(
    ground: &Ground,
    session: &str,
    mut companions: Vec<Process>,
) -> Vec<Process> {
    for process in &mut companions {
        let name = process.name().rsplit('/').next().unwrap_or_default();
        let name = format!("{session}-{name}");
        log(process, Log::open(&ground.paths.logs(), &name));
    }
    companions
}

/// Ends companions.
pub(super) async fn end(companions: Vec<Process>) {
    for process in companions {
        let ended = async {
            process.end(GRACE).await?;
            process.acknowledge().await
        };
        if let Err(error) = ended.await {
            tracing::warn!(name = process.name(), %error, "a companion could not be ended");
        }
    }
}

/// Asks until the address answers with success.
async fn answers(url: &str) {
    loop {
        match tokio::time::timeout(ANSWER, get(url)).await {
            Ok(Ok(status)) if status.is_success() => return,
            Ok(Ok(status)) => tracing::debug!(url, %status, "not ready"),
            Ok(Err(error)) => tracing::trace!(url, %error, "not ready"),
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
