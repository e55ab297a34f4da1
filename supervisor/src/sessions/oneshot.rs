//! A run without a terminal: its input, its structured output, its result.
//!
//! The output is kept as it comes in the session's directory (`output.jsonl`) and read for the result beside. Both
//! streams are always drained, so that the agent never waits for us; what cannot be written to disk is said once.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use whim_entrypoint::wire::ToKeeper;
use whim_wire::spec::AgentKind;

use super::evidence::Evidence;
use crate::agents::oneshot::{Outcome, Reader};
use crate::keeper::{Keeper, Output, Process, ProcessIo};
use crate::logs::Log;
use crate::state::observation::Observation;

/// Name of the kept output in the session's directory.
const OUTPUT: &str = "output.jsonl";

/// What a run came to.
#[derive(Debug, Default)]
pub(super) struct Finished {
    pub(super) outcome: Option<Outcome>,
}

/// Reads a run's output to its end.
#[derive(Debug)]
pub(super) struct Capture {
    finished: oneshot::Receiver<Outcome>,
}

impl Capture {
    pub(super) fn start(
        agent: AgentKind,
        stdout: Output,
        stderr: Output,
        log: Log,
        directory: &Path,
        evidence: mpsc::Sender<Evidence>,
    ) -> Self {
        let (sender, finished) = oneshot::channel();
        let kept = keep(directory);
        drop(tokio::spawn(async move {
            let reader = read(agent, stdout, kept, evidence);
            let (outcome, ()) = tokio::join!(reader, drain(stderr, log));
            // Nobody waits when the supervisor ends.
            drop(sender.send(outcome));
        }));
        Self { finished }
    }

    pub(super) async fn finish(self) -> Finished {
        Finished {
            outcome: self.finished.await.ok(),
        }
    }
}

fn keep(directory: &Path) -> Option<std::fs::File> {
    let opened = std::fs::create_dir_all(directory).and_then(|()| {
        std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(directory.join(OUTPUT))
    });
    opened
        .inspect_err(|error| tracing::error!(%error, "the run's output is not kept"))
        .ok()
}

async fn read(
    agent: AgentKind,
    mut stdout: Output,
    mut kept: Option<std::fs::File>,
    evidence: mpsc::Sender<Evidence>,
) -> Outcome {
    let mut reader = Reader::new(agent);
    while let Ok(Some(chunk)) = stdout.next().await {
        reader.feed(&chunk.bytes);
        if let Some(file) = &mut kept
            && let Err(error) = file.write_all(&chunk.bytes)
        {
            tracing::error!(%error, "the rest of the run's output is not kept");
            kept = None;
        }
        stdout.acknowledge(stdout.position());
        // Lost when the session is behind: more output follows, or the end.
        drop(evidence.try_send(Evidence::now(Observation::Output {
            bytes: chunk.bytes.len(),
        })));
    }
    reader.finish()
}

async fn drain(mut stderr: Output, mut log: Log) {
    while let Ok(Some(chunk)) = stderr.next().await {
        log.append(&chunk.bytes);
        stderr.acknowledge(stderr.position());
    }
}

/// Writes the standard input of a process and closes it.
pub(super) fn feed(keeper: &Keeper, process: &mut Process, input: Vec<u8>) {
    let ProcessIo::Pipes { stdin, .. } = &mut process.io else {
        return;
    };
    let Some(descriptor) = stdin.take() else {
        return;
    };
    let (keeper, id) = (keeper.clone(), process.id());
    drop(tokio::spawn(async move {
        match tokio::net::unix::pipe::Sender::from_owned_fd(descriptor) {
            Ok(mut pipe) => {
                if let Err(error) = pipe.write_all(&input).await {
                    tracing::warn!(%error, "the agent did not read its input");
                }
            }
            Err(error) => tracing::error!(%error, "the agent's input cannot be written"),
        }
        // The keeper's copy is the last one.
        drop(
            keeper
                .tell(ToKeeper::Release {
                    name: format!("stdin:{}", id.0),
                })
                .await,
        );
    }));
}
