//! `whim attach`: this terminal becomes a viewer of one in the container.
//!
//! It owns the terminal that it runs in from [`attach`] until it returns: raw mode before, everything restored after, also
//! on an error, a signal or a panic. What the program prints passes [`filter`], so that it cannot reach the clipboard or
//! send this terminal commands that it does not need. `Ctrl-\ d` detaches; `Ctrl-\` twice types one.
//!
//! Bounds: 16 reads of keys wait for the connection; the filter holds one sequence of at most 4 KiB.

mod detach;
mod filter;
mod raw;

use std::io::{self, Read as _, Write as _};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use self::detach::DetachKey;
use self::filter::Filter;
use self::raw::RawMode;
use crate::terminals::Exit;
use crate::terminals::attach::{self, Hello, MAX_ANSWER, Refusal, StreamError, kind};

/// What to attach to, and how.
#[derive(Clone, Debug)]
pub(super) struct AttachOptions {
    pub terminal: String,
    pub read_only: bool,
}

/// How an attachment ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// With the detach key, or because this terminal went away.
    Detached,
    /// The program ended.
    Ended(Exit),
    /// The supervisor closed the connection: it restarts. Attaching again goes on where this ended.
    Interrupted,
    Refused(Refusal),
}

/// Why attaching failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error("standard input is not a terminal; attach needs one (with docker: exec -it)")]
    NotATerminal,
    #[error("the terminal cannot be set to raw mode: {0}")]
    RawMode(io::Error),
    #[error("signals cannot be received: {0}")]
    Signals(io::Error),
    #[error("the terminal cannot be written: {0}")]
    Output(io::Error),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

struct Signals {
    window: Signal,
    ends: [Signal; 3],
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            window: signal(SignalKind::window_change())?,
            ends: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
                signal(SignalKind::interrupt())?,
            ],
        })
    }

    async fn end(ends: &mut [Signal; 3]) {
        let [terminate, hangup, interrupt] = ends;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Shows the terminal behind `stream` in this process's terminal until one of them ends.
///
/// # Errors
/// When this is no terminal, or the connection breaks.
pub(super) async fn attach<S>(stream: S, options: AttachOptions) -> Result<Outcome, AttachError>
where
    S: AsyncRead + AsyncWrite,
{
    let mut signals = Signals::new().map_err(AttachError::Signals)?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    let hello = Hello {
        terminal: options.terminal,
        size: raw::size(),
        read_only: options.read_only,
    };
    let body =
        serde_json::to_vec(&hello).map_err(|error| StreamError::from(io::Error::other(error)))?;
    let mut raw = RawMode::enter()?;
    attach::write_message(&mut writer, kind::HELLO, &body).await?;
    let mut keys = keys();
    let mut detach = DetachKey::default();
    let mut screen = Show {
        filter: Filter::default(),
        begun: false,
    };
    let receive = async {
        while let Some((kind, body)) = attach::read_message(&mut reader, MAX_ANSWER).await? {
            match kind {
                kind::OUTPUT => screen.output(&body)?,
                kind::SNAPSHOT => screen.snapshot(&body)?,
                kind::EXIT => return Ok(Outcome::Ended(attach::exit(&body)?)),
                kind::REFUSED => {
                    let refusal =
                        serde_json::from_slice(&body).map_err(|_| StreamError::Malformed {
                            kind: kind::REFUSED,
                        })?;
                    return Ok(Outcome::Refused(refusal));
                }
                // Of a newer server.
                _ => {}
            }
        }
        Ok::<_, AttachError>(Outcome::Interrupted)
    };
    let send = async {
        loop {
            tokio::select! {
                bytes = keys.recv() => {
                    let Some(bytes) = bytes else { return Ok(Outcome::Detached) };
                    let (typed, detached) = detach.take(&bytes);
                    if !typed.is_empty() {
                        attach::write_message(&mut writer, kind::INPUT, &typed).await?;
                    }
                    if detached {
                        return Ok(Outcome::Detached);
                    }
                }
                _ = signals.window.recv() => {
                    if let Some(size) = raw::size() {
                        attach::write_message(&mut writer, kind::SIZE, &attach::size_bytes(size)).await?;
                    }
                }
            }
        }
    };
    let outcome = tokio::select! {
        outcome = receive => outcome,
        outcome = send => outcome,
        () = Signals::end(&mut signals.ends) => Ok(Outcome::Detached),
    };
    raw.used = screen.begun;
    drop(raw);
    outcome
}

/// Reads the keys on a thread of its own: a terminal's descriptor must not be made non-blocking, the shell shares it.
/// The thread ends with the process, or when nobody takes its keys any more.
fn keys() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default().to_vec();
                    if sender.blocking_send(bytes).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}

struct Show {
    filter: Filter,
    begun: bool,
}

impl Show {
    fn write(bytes: &[u8]) -> Result<(), AttachError> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(AttachError::Output)
    }

    fn output(&mut self, bytes: &[u8]) -> Result<(), AttachError> {
        let mut shown = Vec::with_capacity(bytes.len());
        self.filter.pass(bytes, &mut shown);
        Self::write(&shown)
    }

    fn snapshot(&mut self, bytes: &[u8]) -> Result<(), AttachError> {
        self.begun = true;
        self.filter = Filter::default();
        Self::write(raw::RESTORE)?;
        Self::write(b"\x1b[H\x1b[2J")?;
        self.output(bytes)
    }
}
