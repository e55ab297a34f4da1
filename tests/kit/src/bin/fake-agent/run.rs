//! Does the steps.

use std::future::pending;
use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::daemon;
use crate::keyboard::{Keyboard, Typed, print};
use crate::model::Conversation;
use crate::step::{Step, StepError};

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error(transparent)]
    Step(#[from] StepError),
    #[error("{step}: {source}")]
    Io { step: String, source: io::Error },
    #[error(transparent)]
    Turn(#[from] crate::model::TurnError),
}

/// Exit code and last words, when a trap is sprung.
type Sprung = (u8, String);

/// Everything that lasts from step to step.
#[derive(Debug)]
struct Agent {
    conversation: Conversation,
    /// A trap ends the program, so one place is enough.
    springs: mpsc::Sender<Sprung>,
    listeners: tokio::task::JoinSet<()>,
}

/// Does all steps; the exit code.
pub(crate) async fn all(steps: Vec<Step>) -> Result<u8, RunError> {
    let (springs, mut sprung) = mpsc::channel(1);
    let mut agent = Agent {
        conversation: Conversation::default(),
        springs,
        listeners: tokio::task::JoinSet::new(),
    };
    let work = async {
        for step in steps {
            if let Some(code) = Box::pin(agent.perform(step)).await? {
                return Ok(code);
            }
        }
        Ok(0)
    };
    tokio::select! {
        code = work => code,
        Some((code, words)) = sprung.recv() => {
            print(words.as_bytes()).map_err(|source| RunError::Io { step: "trap".into(), source })?;
            Ok(code)
        }
    }
}

impl Agent {
    /// One step; the exit code if it is the last.
    async fn perform(&mut self, step: Step) -> Result<Option<u8>, RunError> {
        let name = format!("{step:?}");
        let failed = |source| RunError::Io {
            step: name.clone(),
            source,
        };
        match step {
            Step::Print(text) => print(format!("{text}\n").as_bytes()).map_err(failed)?,
            Step::Write(bytes) => print(&bytes).map_err(failed)?,
            Step::Count(lines, every) => {
                for number in 1..=lines {
                    print(format!("line {number}\n").as_bytes()).map_err(failed)?;
                    sleep(Duration::from_millis(every)).await;
                }
            }
            Step::Flood(lines) => flood(lines).map_err(failed)?,
            Step::Prompts => return Box::pin(self.prompts()).await,
            Step::Ask(prompt) => {
                self.conversation
                    .turn(&prompt, |text| print(text.as_bytes()))
                    .await?
            }
            Step::Daemon(way, steps) => daemon::start(way, &steps).map_err(failed)?,
            Step::Children(number) => daemon::children(number).map_err(failed)?,
            Step::Orphans(number) => daemon::orphans(number).map_err(failed)?,
            Step::Shell(command) => {
                let mut shell = tokio::process::Command::new("sh");
                let status = shell
                    .arg("-c")
                    .arg(command)
                    .stdin(Stdio::null())
                    .status()
                    .await
                    .map_err(failed)?;
                print(format!("sh: {status}\n").as_bytes()).map_err(failed)?;
            }
            Step::Listen(port) => self.listen(port).await.map_err(failed)?,
            Step::Burn(ms) => burn(Duration::from_millis(ms)).await,
            Step::Sleep(ms) => sleep(Duration::from_millis(ms)).await,
            Step::Forever => pending().await,
            Step::EndOfInput => {
                let mut keyboard = Keyboard::open().map_err(failed)?;
                while keyboard.next().await.is_some() {}
            }
            Step::Ignore(signal) => on(signal, None).map_err(failed)?,
            Step::Trap(signal, code, text) => {
                on(signal, Some((self.springs.clone(), (code, text)))).map_err(failed)?;
            }
            Step::Kill(signal) => raise(signal).map_err(|error| failed(error.into()))?,
            Step::Crash => std::process::abort(),
            Step::Exit(code) => return Ok(Some(code)),
            Step::Size => {
                let output = std::process::Command::new("stty")
                    .arg("size")
                    .output()
                    .map_err(failed)?;
                let size = String::from_utf8_lossy(&output.stdout).into_owned();
                let (rows, columns) = size.trim().split_once(' ').unwrap_or(("0", "0"));
                print(format!("size {columns} {rows}\n").as_bytes()).map_err(failed)?;
            }
            Step::Environment => {
                for (name, value) in std::env::vars_os() {
                    let line = format!("{}={}\n", name.to_string_lossy(), value.to_string_lossy());
                    print(line.as_bytes()).map_err(failed)?;
                }
            }
        }
        Ok(None)
    }

    /// Prompt after prompt. What is typed during a turn is taken after it; an interrupt ends the turn.
    async fn prompts(&mut self) -> Result<Option<u8>, RunError> {
        let failed = |source| RunError::Io {
            step: "prompts".into(),
            source,
        };
        let mut keyboard = Keyboard::open().map_err(failed)?;
        let mut waiting = std::collections::VecDeque::new();
        loop {
            if keyboard.is_terminal() {
                print("\x1b]0;✳ fake-agent\x07> ".as_bytes()).map_err(failed)?;
            }
            let prompt = match waiting.pop_front() {
                Some(prompt) => prompt,
                None => match keyboard.next().await {
                    Some(Typed::Prompt(prompt)) => prompt,
                    Some(Typed::Interrupt) => continue,
                    None => return Ok(None),
                },
            };
            if let Some(line) = prompt.strip_prefix('/') {
                if let Some(code) = Box::pin(self.perform(Step::parse(line)?)).await? {
                    return Ok(Some(code));
                }
                continue;
            }
            print(
                format!(
                    "\x1b]0;⠂ fake-agent\x07[prompt {} bytes] {prompt}\n",
                    prompt.len()
                )
                .as_bytes(),
            )
            .map_err(failed)?;
            let turn = self
                .conversation
                .turn(&prompt, |text| print(text.as_bytes()));
            tokio::pin!(turn);
            let words = loop {
                tokio::select! {
                    done = &mut turn => break done.map_or_else(|error| format!("[failed] {error}\n"), |()| "[done]\n".into()),
                    typed = keyboard.next() => match typed {
                        Some(Typed::Prompt(prompt)) => waiting.push_back(prompt),
                        Some(Typed::Interrupt) => break "[interrupted]\n".to_owned(),
                        None => break (&mut turn).await.map_or_else(|error| format!("[failed] {error}\n"), |()| "[done]\n".into()),
                    },
                }
            };
            print(words.as_bytes()).map_err(failed)?;
        }
    }

    async fn listen(&mut self, port: u16) -> io::Result<()> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        print(format!("listening {}\n", listener.local_addr()?.port()).as_bytes())?;
        self.listeners.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                const ANSWER: &[u8] =
                    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
                // A caller that has gone wants no answer.
                drop(stream.write_all(ANSWER).await);
            }
        });
        Ok(())
    }
}

/// Catches a signal from now on: does nothing, or springs the trap.
fn on(which: Signal, trap: Option<(mpsc::Sender<Sprung>, Sprung)>) -> io::Result<()> {
    let mut caught = signal(SignalKind::from_raw(which as i32))?;
    drop(tokio::spawn(async move {
        while caught.recv().await.is_some() {
            if let Some((springs, sprung)) = trap {
                // Full means that another trap is ending the program already.
                drop(springs.try_send(sprung));
                return;
            }
        }
    }));
    Ok(())
}

fn flood(lines: u64) -> io::Result<()> {
    use std::io::Write;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for number in 1..=lines {
        writeln!(out, "line {number}")?;
    }
    out.flush()
}

async fn burn(time: Duration) {
    let (done, over) = oneshot::channel();
    let started = Instant::now();
    drop(std::thread::spawn(move || {
        while started.elapsed() < time {
            std::hint::spin_loop();
        }
        // Nobody waits any more when the program ends.
        let _unwanted = done.send(());
    }));
    // An error means that the thread is gone, and with it the burning.
    drop(over.await);
}
