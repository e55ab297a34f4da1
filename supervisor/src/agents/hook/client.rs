//! The hook command's own work: read standard input, send one line, be gone.
//!
//! The only part of the agents' room that does I/O; it runs in a process of its own, started by the agent's CLI. The
//! CLI waits for it, so everything has a deadline and nothing is tried twice: a line that cannot be sent at once is
//! dropped, the state then comes from the other sources.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, send, socket,
};

use super::{MAX_PAYLOAD, record};

/// How long standard input may take to end. CLIs write it at once; the shortest patience of one is 3 s.
pub const READ_DEADLINE: Duration = Duration::from_secs(1);
/// How long the socket may refuse bytes.
pub const SEND_DEADLINE: Duration = Duration::from_millis(200);

/// Why a line was not sent. The hook command ends well all the same.
#[derive(Debug, thiserror::Error)]
pub enum HookSendError {
    #[error("standard input: {0}")]
    Read(#[source] io::Error),
    #[error("{step} {path}: {errno}", path = path.display())]
    Socket {
        step: &'static str,
        path: std::path::PathBuf,
        #[source]
        errno: Errno,
    },
    #[error("{path} took no more bytes for {SEND_DEADLINE:?}", path = path.display())]
    Stuck { path: std::path::PathBuf },
}

/// Reads the payload from `input` and sends the line for it to `path`.
///
/// # Errors
/// When reading or sending failed; a hook command reports it to nobody, tests and logs may.
pub fn run(
    agent: &str,
    event: &str,
    session: &str,
    input: impl AsFd + io::Read,
    path: &Path,
) -> Result<(), HookSendError> {
    let payload = read_payload(input).map_err(HookSendError::Read)?;
    send_line(&record(agent, event, session, &payload), path)
}

/// Everything up to the end of the input, the deadline or [`MAX_PAYLOAD`], whichever comes first.
fn read_payload(mut input: impl AsFd + io::Read) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + READ_DEADLINE;
    let mut payload = Vec::new();
    let mut piece = [0; 64 * 1024];
    while payload.len() < MAX_PAYLOAD {
        if !wait(input.as_fd(), PollFlags::POLLIN, deadline)? {
            break;
        }
        let length = input.by_ref().read(&mut piece)?;
        if length == 0 {
            break;
        }
        payload.extend_from_slice(piece.get(..length).unwrap_or_default());
    }
    Ok(payload)
}

fn send_line(line: &[u8], path: &Path) -> Result<(), HookSendError> {
    let failed = |step| {
        move |errno| HookSendError::Socket {
            step,
            path: path.to_owned(),
            errno,
        }
    };
    // Non-blocking: with a full backlog connect would wait for a supervisor that may be gone.
    let socket: OwnedFd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )
    .map_err(failed("socket for"))?;
    let address = UnixAddr::new(path).map_err(failed("address"))?;
    connect(socket.as_raw_fd(), &address).map_err(failed("connect to"))?;
    let deadline = Instant::now() + SEND_DEADLINE;
    let mut rest = line;
    while !rest.is_empty() {
        match send(socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
            Ok(length) => rest = rest.get(length..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let ready = wait(socket.as_fd(), PollFlags::POLLOUT, deadline)
                    .map_err(|error| failed("wait for")(errno_of(&error)))?;
                if !ready {
                    return Err(HookSendError::Stuck {
                        path: path.to_owned(),
                    });
                }
            }
            Err(errno) => return Err(failed("send to")(errno)),
        }
    }
    Ok(())
}

/// Waits until the descriptor is ready; false at the deadline.
fn wait(
    descriptor: std::os::fd::BorrowedFd<'_>,
    flags: PollFlags,
    deadline: Instant,
) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(descriptor, flags)], timeout) {
            Ok(0) if left.is_zero() => return Ok(false),
            // Rounded down to whole milliseconds: once more.
            Ok(0) => {}
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::super::{MAX_RECORD, Signal, parse};
    use super::*;

    fn socket_path() -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hook.sock");
        (directory, path)
    }

    fn input(payload: &[u8]) -> UnixStream {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(payload).unwrap();
        reader
    }

    #[test]
    fn a_line_waits_for_a_supervisor_that_is_not_there_yet() {
        let (_directory, path) = socket_path();
        let listener = UnixListener::bind(&path).unwrap();
        let payload = br#"{"session_id":"s","prompt":"do it"}"#;
        // Nobody accepts while it is sent.
        run("claude", "UserPromptSubmit", "main", input(payload), &path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut line = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut line).unwrap();
        let event = parse(&line).unwrap();
        assert_eq!(event.session, "main");
        assert_eq!(
            event.signal,
            Signal::PromptSubmitted {
                text: "do it".into()
            }
        );
    }

    #[test]
    fn the_longest_line_fits_a_socket_nobody_reads() {
        let (_directory, path) = socket_path();
        let _listener = UnixListener::bind(&path).unwrap();
        send_line(&vec![b'x'; MAX_RECORD], &path).unwrap();
    }

    #[test]
    fn nothing_listens_nothing_waits() {
        let (_directory, path) = socket_path();
        let started = Instant::now();
        let error = run("claude", "Stop", "main", input(b"{}"), &path).unwrap_err();
        assert!(
            matches!(
                error,
                HookSendError::Socket {
                    step: "connect to",
                    ..
                }
            ),
            "{error}"
        );
        assert!(started.elapsed() < READ_DEADLINE);
    }

    #[test]
    fn a_full_backlog_is_given_up_at_once() {
        use nix::sys::socket::{Backlog, bind, listen};
        let (_directory, path) = socket_path();
        let full = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::empty(),
            None,
        )
        .unwrap();
        bind(full.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&full, Backlog::new(0).unwrap()).unwrap();
        let mut kept = Vec::new();
        let refused = loop {
            let client = UnixStream::pair().unwrap();
            kept.push(client);
            match send_line(b"x\n", &path) {
                Ok(()) => assert!(kept.len() < 16, "the backlog never fills"),
                Err(error) => break error,
            }
        };
        assert!(
            matches!(
                refused,
                HookSendError::Socket {
                    errno: Errno::EAGAIN,
                    ..
                }
            ),
            "{refused}"
        );
    }

    #[test]
    fn an_input_that_never_ends_is_cut_at_the_deadline() {
        let (_directory, path) = socket_path();
        let listener = UnixListener::bind(&path).unwrap();
        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(br#"{"session_id":"s"}"#).unwrap();
        run("codex", "Stop", "main", reader, &path).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut line = Vec::new();
        BufReader::new(stream).read_until(b'\n', &mut line).unwrap();
        assert_eq!(parse(&line).unwrap().agent_session.as_deref(), Some("s"));
        drop(writer);
    }
}
