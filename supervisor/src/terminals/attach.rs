//! A terminal over a byte stream: what `whim attach` and the supervisor say to each other on the unix socket.
//!
//! A message is a kind (one byte), a length (u32, big-endian), and so many bytes. The client begins with [`Hello`]; then
//! it sends `0` input and `1` size (columns and rows, u16 big-endian each). The server sends `0` output, `3` a snapshot for
//! a cleared screen, `4` the exit (JSON), or `6` a refusal (JSON) and nothing more.
//!
//! Bounds: messages of at most [`MAX_MESSAGE`] bytes from the client; the hello within [`HELLO_WITHIN`]. A client
//! that does not read is skipped forward like every viewer, and one that takes nothing for [`STUCK`] is dropped.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::set::TerminalSet;
use super::size::Size;
use super::terminal::{Exit, Terminal, TerminalId};
use super::viewer::{Frame, ViewerInput, ViewerOptions};

/// Largest message of a client.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Largest message of the server: a snapshot without scrollback of the largest screen stays below it.
pub const MAX_ANSWER: usize = 64 << 20;
const HELLO_WITHIN: Duration = Duration::from_secs(5);
const STUCK: Duration = Duration::from_secs(600);

/// Kinds of messages.
pub mod kind {
    pub const HELLO: u8 = b'{';
    pub const INPUT: u8 = b'0';
    pub const SIZE: u8 = b'1';
    pub const OUTPUT: u8 = b'0';
    pub const SNAPSHOT: u8 = b'3';
    pub const EXIT: u8 = b'4';
    pub const REFUSED: u8 = b'6';
}

/// The client's first message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub terminal: String,
    pub size: Option<Size>,
    #[serde(default)]
    pub read_only: bool,
}

/// Why there is nothing to attach to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    #[error("there is no terminal {wanted}; there are: {}", present.join(", "))]
    Unknown {
        wanted: String,
        present: Vec<String>,
    },
    #[error("{0}")]
    Unavailable(String),
}

/// What went wrong on the stream.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    #[error("a message of {0} bytes is larger than allowed")]
    TooLarge(usize),
    #[error("a message of kind {kind} could not be understood")]
    Malformed { kind: u8 },
    #[error("the other side was silent for too long")]
    Silent,
}

/// Reads one message; `None` at the end of the stream.
///
/// # Errors
/// When the stream breaks off inside a message, or the message is larger than `most`.
pub async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    most: usize,
) -> Result<Option<(u8, Vec<u8>)>, StreamError> {
    let mut kind = [0];
    if stream.read(&mut kind).await? == 0 {
        return Ok(None);
    }
    let length = usize::try_from(stream.read_u32().await?).unwrap_or(usize::MAX);
    if length > most {
        return Err(StreamError::TooLarge(length));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let [kind] = kind;
    Ok(Some((kind, body)))
}

/// Writes one message.
///
/// # Errors
/// When the stream breaks.
pub async fn write_message(
    stream: &mut (impl AsyncWrite + Unpin),
    kind: u8,
    body: &[u8],
) -> Result<(), StreamError> {
    let length = u32::try_from(body.len()).map_err(|_| StreamError::TooLarge(body.len()))?;
    let mut message = Vec::with_capacity(5 + body.len());
    message.push(kind);
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(body);
    stream.write_all(&message).await?;
    stream.flush().await?;
    Ok(())
}

/// The size as it travels.
pub fn size_bytes(size: Size) -> [u8; 4] {
    let [a, b] = size.columns.to_be_bytes();
    let [c, d] = size.rows.to_be_bytes();
    [a, b, c, d]
}

/// Serves one client until it leaves or the terminal is over. `may_type`: what the caller's credentials allow.
///
/// # Errors
/// When the stream breaks or the client breaks its rules.
pub async fn serve<S>(stream: S, set: &TerminalSet, may_type: bool) -> Result<(), StreamError>
where
    S: AsyncRead + AsyncWrite + Send,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let first = timeout(HELLO_WITHIN, read_message(&mut reader, MAX_MESSAGE))
        .await
        .map_err(|_| StreamError::Silent)??;
    let Some((kind::HELLO, body)) = first else {
        return Err(StreamError::Malformed {
            kind: first.map_or(0, |(kind, _)| kind),
        });
    };
    let hello: Hello =
        serde_json::from_slice(&body).map_err(|_| StreamError::Malformed { kind: kind::HELLO })?;
    let found = TerminalId::new(&hello.terminal)
        .ok()
        .and_then(|id| set.get(&id));
    let Some(terminal) = found else {
        let present = set
            .list()
            .iter()
            .map(|terminal| terminal.id().to_string())
            .collect();
        let refusal = Refusal::Unknown {
            wanted: hello.terminal,
            present,
        };
        return refuse(&mut writer, &refusal).await;
    };
    attached(&terminal, &hello, may_type, &mut reader, &mut writer, set).await
}

async fn refuse(
    writer: &mut (impl AsyncWrite + Unpin),
    refusal: &Refusal,
) -> Result<(), StreamError> {
    let body = serde_json::to_vec(refusal).map_err(io::Error::other)?;
    write_message(writer, kind::REFUSED, &body).await
}

async fn attached(
    terminal: &Terminal,
    hello: &Hello,
    may_type: bool,
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    set: &TerminalSet,
) -> Result<(), StreamError> {
    let options = ViewerOptions {
        size: hello.size,
        read_only: hello.read_only || !may_type,
        resume: None,
        lines: 0,
        counted: true,
    };
    let mut viewer = match terminal.attach(options).await {
        Ok(viewer) => viewer,
        Err(error) => return refuse(writer, &Refusal::Unavailable(error.to_string())).await,
    };
    let input = viewer.input();
    let restarting = set.restarting();
    let write = async {
        while let Some(frame) = viewer.next().await {
            let sent = match frame {
                Frame::Output { bytes, .. } => {
                    timeout(STUCK, write_message(writer, kind::OUTPUT, &bytes)).await
                }
                Frame::Snapshot { bytes, .. } => {
                    timeout(STUCK, write_message(writer, kind::SNAPSHOT, &bytes)).await
                }
                Frame::Exit(exit) => {
                    let body = serde_json::to_vec(&exit).map_err(io::Error::other)?;
                    timeout(STUCK, write_message(writer, kind::EXIT, &body)).await
                }
                Frame::Title(_) | Frame::Size { .. } => Ok(Ok(())),
            };
            sent.map_err(|_| StreamError::Silent)??;
        }
        Ok(())
    };
    tokio::select! {
        done = read_input(reader, &input) => done,
        done = write => done,
        // The client sees the end of the stream without an exit and may come again.
        () = restarting.cancelled() => Ok(()),
    }
}

async fn read_input(
    reader: &mut (impl AsyncRead + Unpin),
    input: &ViewerInput,
) -> Result<(), StreamError> {
    while let Some((kind, body)) = read_message(reader, MAX_MESSAGE).await? {
        match (kind, body.as_slice()) {
            (kind::INPUT, bytes) => input.send(bytes).await,
            (kind::SIZE, &[a, b, c, d]) => {
                let size = Size {
                    columns: u16::from_be_bytes([a, b]),
                    rows: u16::from_be_bytes([c, d]),
                };
                input.resize(size).await;
            }
            (kind, _) => return Err(StreamError::Malformed { kind }),
        }
    }
    Ok(())
}

/// Reads the exit out of its message.
///
/// # Errors
/// When it is not one.
pub fn exit(body: &[u8]) -> Result<Exit, StreamError> {
    serde_json::from_slice(body).map_err(|_| StreamError::Malformed { kind: kind::EXIT })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminals::Kind;
    use crate::terminals::tests::Program;

    async fn connect(program: &Program, hello: Hello) -> tokio::io::DuplexStream {
        let set = TerminalSet::default();
        set.add(program.terminal.clone()).unwrap();
        let (mut client, server) = tokio::io::duplex(4096);
        tokio::spawn(async move { serve(server, &set, true).await });
        let body = serde_json::to_vec(&hello).unwrap();
        write_message(&mut client, kind::HELLO, &body)
            .await
            .unwrap();
        client
    }

    fn hello(terminal: &str, read_only: bool) -> Hello {
        Hello {
            terminal: terminal.into(),
            size: Some(Size {
                columns: 70,
                rows: 20,
            }),
            read_only,
        }
    }

    async fn until(client: &mut tokio::io::DuplexStream, wanted: &str) -> String {
        let mut text = String::new();
        while !text.contains(wanted) {
            let message = timeout(Duration::from_secs(20), read_message(client, MAX_ANSWER)).await;
            let (_, body) = message
                .expect("20 s of silence")
                .unwrap()
                .expect("the stream ended");
            text.push_str(&String::from_utf8_lossy(&body));
        }
        text
    }

    #[tokio::test]
    async fn types_resizes_and_hears_of_the_end() {
        let mut program = Program::start(
            "main",
            Kind::Agent,
            "echo ready; read x; stty size; echo got $x; exit 7",
        );
        let mut client = connect(&program, hello("main", false)).await;
        until(&mut client, "ready").await;
        let size = size_bytes(Size {
            columns: 61,
            rows: 17,
        });
        write_message(&mut client, kind::SIZE, &size).await.unwrap();
        let mut status = program.terminal.watch();
        status
            .wait_for(|status| status.size.columns == 61)
            .await
            .unwrap();
        write_message(&mut client, kind::INPUT, b"hello\r")
            .await
            .unwrap();
        assert!(until(&mut client, "got hello").await.contains("17 61"));
        program.reap();
        until(&mut client, r#"{"code":7}"#).await;
        assert!(
            read_message(&mut client, MAX_ANSWER)
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn an_unknown_terminal_is_refused_by_name() {
        let program = Program::start("main", Kind::Agent, "read x");
        let mut client = connect(&program, hello("shell-9", false)).await;
        let (kind, body) = read_message(&mut client, MAX_ANSWER)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(kind, kind::REFUSED);
        let refusal: Refusal = serde_json::from_slice(&body).unwrap();
        let expected = Refusal::Unknown {
            wanted: "shell-9".into(),
            present: vec!["main".into()],
        };
        assert_eq!(refusal, expected);
    }

    #[tokio::test]
    async fn read_only_changes_nothing() {
        let program = Program::start(
            "main",
            Kind::Agent,
            "echo ready; while read x; do echo got $x; done",
        );
        let mut client = connect(&program, hello("main", true)).await;
        until(&mut client, "ready").await;
        write_message(&mut client, kind::INPUT, b"evil\r")
            .await
            .unwrap();
        write_message(&mut client, kind::SIZE, &[0, 9, 0, 9])
            .await
            .unwrap();
        // Both are served in order, so the reply to the second shows that the first was taken.
        program
            .terminal
            .type_bytes(b"good\r".to_vec())
            .await
            .unwrap();
        assert!(!until(&mut client, "got good").await.contains("evil"));
        assert_eq!(program.terminal.status().size.columns, 80);
    }
}
