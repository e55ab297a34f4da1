//! The master side of a PTY: typing into the program, resizing it, signalling it; and reading it where no keeper does.
//!
//! The descriptor is non-blocking. That flag belongs to the open file, so whoever shares it (the keeper) must be ready
//! for it. Closing a duplicate types nothing into the program (only `portable-pty`'s writer does).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::process::Signal;
use rustix::termios::{LocalModes, SpecialCodeIndex, Winsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::size::Size;
use super::source::{Source, Taken};

/// See the module's header.
#[derive(Debug)]
pub struct Master {
    fd: AsyncFd<OwnedFd>,
}

/// What went wrong with a PTY.
#[derive(Debug, thiserror::Error)]
pub enum PtyError {
    #[error("cannot make the terminal's descriptor {fd} non-blocking: {source}")]
    NonBlocking { fd: i32, source: io::Error },
    #[error("cannot watch the terminal's descriptor {fd}: {source}")]
    Watch { fd: i32, source: io::Error },
    #[error("cannot duplicate the terminal's descriptor {fd}: {source}")]
    Duplicate { fd: i32, source: io::Error },
}

fn watched(fd: OwnedFd, interest: Interest) -> Result<AsyncFd<OwnedFd>, PtyError> {
    let number = fd.as_raw_fd();
    rustix::io::ioctl_fionbio(&fd, true).map_err(|source| PtyError::NonBlocking {
        fd: number,
        source: source.into(),
    })?;
    #[expect(
        unsafe_code,
        reason = "registration is unsafe for types whose descriptor may change"
    )]
    // SAFETY: an `OwnedFd` names one open descriptor until it is dropped, and `AsyncFd` owns it.
    let registered = unsafe { AsyncFd::register_with_interest(fd, interest) };
    registered.map_err(|error| PtyError::Watch {
        fd: number,
        source: error.into(),
    })
}

impl Master {
    /// Takes a PTY master (a duplicate of the keeper's). Needs a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking or watched.
    pub fn new(fd: OwnedFd) -> Result<Self, PtyError> {
        Ok(Self {
            fd: watched(fd, Interest::WRITABLE)?,
        })
    }

    /// Waits until the program's side has room. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the descriptor can no longer be watched.
    pub async fn writable(&self) -> io::Result<()> {
        self.fd.writable().await?.retain_ready();
        Ok(())
    }

    /// Types as much as there is room for; `WouldBlock` when there is none.
    ///
    /// # Errors
    /// Also `EIO` once the program's side is closed.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.fd.try_io(Interest::WRITABLE, |fd| {
            rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes)).map_err(io::Error::from)
        })
    }

    /// Tells the program its window size (SIGWINCH follows when it changed).
    ///
    /// # Errors
    /// As of the ioctl.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        let window = Winsize {
            ws_row: size.rows,
            ws_col: size.columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(self.fd.get_ref(), window)?)
    }

    /// The signal that this byte makes in the terminal's present mode, if it makes one (ISIG; VINTR, VQUIT, VSUSP).
    pub fn signal_of(&self, byte: u8) -> Option<Signal> {
        let mode = rustix::termios::tcgetattr(self.fd.get_ref()).ok()?;
        if !mode.local_modes.contains(LocalModes::ISIG) {
            return None;
        }
        [
            (SpecialCodeIndex::VINTR, Signal::INT),
            (SpecialCodeIndex::VQUIT, Signal::QUIT),
            (SpecialCodeIndex::VSUSP, Signal::TSTP),
        ]
        .into_iter()
        .find(|(index, _)| mode.special_codes[*index] == byte)
        .map(|(_, signal)| signal)
    }

    /// Sends a signal to the terminal's foreground process group, as the line discipline would.
    ///
    /// # Errors
    /// When there is no such group, or it may not be signalled.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let group = rustix::termios::tcgetpgrp(self.fd.get_ref())?;
        Ok(rustix::process::kill_process_group(group, signal)?)
    }
}

/// What one read of a PTY brings at most.
const PAGE: usize = 4096;

/// A PTY read by this process itself. Output that arrived is lost when this process is killed: a container's terminals are
/// read by the keeper instead.
#[derive(Debug)]
pub struct PtySource {
    fd: AsyncFd<OwnedFd>,
    offset: u64,
}

impl PtySource {
    /// Reads from a duplicate of `master`. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated or watched.
    pub fn new(master: impl AsFd) -> Result<Self, PtyError> {
        let master = master.as_fd();
        let fd = master
            .try_clone_to_owned()
            .map_err(|source| PtyError::Duplicate {
                fd: master.as_raw_fd(),
                source,
            })?;
        Ok(Self {
            fd: watched(fd, Interest::READABLE)?,
            offset: 0,
        })
    }
}

impl Source for PtySource {
    fn offset(&self) -> u64 {
        self.offset
    }

    async fn ready(&mut self) -> io::Result<()> {
        self.fd.readable().await?.retain_ready();
        Ok(())
    }

    fn read(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<Taken> {
        let before = into.len();
        let mut ended = false;
        // A read brings a page at most: several make one frame.
        while into.len() - before < most {
            into.reserve(PAGE);
            let read = self.fd.try_io(Interest::READABLE, |fd| {
                let read = rustix::io::read(fd, rustix::buffer::spare_capacity(into));
                read.map_err(io::Error::from)
            });
            match read {
                Ok(0) => ended = true,
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Linux's way of saying that the last program's side was closed.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) =>
                {
                    ended = true;
                }
                Err(error) if into.len() == before => return Err(error),
                // It comes again with the next read.
                Err(_) => {}
            }
            break;
        }
        let bytes = into.len() - before;
        self.offset += bytes as u64;
        Ok(Taken {
            lost: 0,
            bytes,
            ended,
        })
    }

    fn acknowledge(&mut self, _: u64) {}
}
