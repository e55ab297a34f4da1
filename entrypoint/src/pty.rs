#![expect(
    unsafe_code,
    reason = "portable-pty gives raw numbers, and the slave comes from an ioctl"
)]
//! Opening a pseudo-terminal.
//!
//! portable-pty opens it; the rest is ours, because its own child would inherit our environment, and dropping its
//! writer types a newline and an end of file into the program.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use portable_pty::{MasterPty, PtySize, native_pty_system};

/// Both ends, closed on exec; the master does not block.
#[derive(Debug)]
pub(crate) struct Pty {
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

/// # Errors
/// Those of `openpty` (`ENOENT` without `/dev/ptmx`, `ENOSPC` when all are taken).
pub(crate) fn open(columns: u16, rows: u16) -> io::Result<Pty> {
    let size = PtySize {
        rows,
        cols: columns,
        pixel_width: 0,
        pixel_height: 0,
    };
    let pair = native_pty_system().openpty(size).map_err(|error| {
        let errno = Errno::last();
        io::Error::from_raw_os_error(
            error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::raw_os_error)
                .unwrap_or(errno as i32),
        )
    })?;
    let master = own(pair.master.as_ref())?;
    let slave = peer(&master)?;
    crate::descriptors::set_nonblocking(&master)?;
    Ok(Pty { master, slave })
}

fn own(master: &(dyn MasterPty + Send)) -> io::Result<OwnedFd> {
    let raw = master.as_raw_fd().ok_or(io::ErrorKind::Unsupported)?;
    // SAFETY: open as long as `master` lives, which is longer than the borrow.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    let number = fcntl(borrowed, FcntlArg::F_DUPFD_CLOEXEC(3))?;
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The slave of this master, whatever is mounted at `/dev/pts` by now (`TIOCGPTPEER`, Linux 4.13).
fn peer(master: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = (OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).bits();
    // SAFETY: an ioctl that takes an integer and returns a descriptor.
    let number =
        Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_talk_and_dropping_types_nothing() {
        let pty = open(80, 24).unwrap();
        nix::unistd::write(&pty.slave, b"hello").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(nix::unistd::read(&pty.master, &mut buffer), Ok(5));
        assert_eq!(
            nix::unistd::read(&pty.master, &mut buffer),
            Err(Errno::EAGAIN),
            "nothing was echoed"
        );
        assert!(nix::unistd::isatty(&pty.slave).unwrap());
    }
}
