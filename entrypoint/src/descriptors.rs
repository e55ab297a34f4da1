//! Small things done to descriptors.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::stat::Mode;

pub(crate) fn set_nonblocking(fd: impl AsFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

pub(crate) fn dev_null() -> nix::Result<OwnedFd> {
    open(
        c"/dev/null",
        OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOCTTY,
        Mode::empty(),
    )
}

/// Owns a descriptor that our starter left open at a number agreed on, and closes it on exec. To be asked once for each
/// number, before anything else is opened.
///
/// # Errors
/// `EBADF` when there is none.
#[expect(unsafe_code, reason = "descriptors are inherited as numbers")]
pub(crate) fn inherited(number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: only lives for the call, which fails when there is no such descriptor.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(probe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and by the agreement above nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Standard input, output and error.
#[expect(unsafe_code, reason = "std offers them only behind locks and buffers")]
pub(crate) fn standard() -> [BorrowedFd<'static>; 3] {
    // SAFETY: start-up puts /dev/null on a closed one, and nothing ever closes them.
    [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Puts `/dev/null` on those of the standard three that are closed, so that nothing else of ours lands there.
pub(crate) fn fill_standard() {
    for number in 0..3 {
        let open = fcntl_getfd(number);
        if !open {
            // The lowest free number is the one that is closed, since those below are open by now.
            match open_null_plain() {
                Ok(()) => {}
                Err(errno) => {
                    crate::log::line(format_args!("/dev/null for descriptor {number}: {errno}"))
                }
            }
        }
    }
}

#[expect(unsafe_code, reason = "asks about a number that may be closed")]
fn fcntl_getfd(number: RawFd) -> bool {
    // SAFETY: takes integers and changes nothing.
    unsafe { nix::libc::fcntl(number, nix::libc::F_GETFD) != -1 }
}

fn open_null_plain() -> nix::Result<()> {
    let fd = open(c"/dev/null", OFlag::O_RDWR | OFlag::O_NOCTTY, Mode::empty())?;
    // It stays for the life of the process.
    let _number = std::os::fd::IntoRawFd::into_raw_fd(fd);
    Ok(())
}

/// What our starter left open from `first` on is not for our children. Not closed: it may be somebody's lock.
#[expect(unsafe_code, reason = "close_range has no wrapper")]
pub(crate) fn close_on_exec_from(first: u32) {
    let flag = nix::libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: takes integers and only sets flags.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, first, u32::MAX, flag) };
    if let Err(errno) = nix::errno::Errno::result(result) {
        crate::log::line(format_args!(
            "close_range: {errno}: inherited descriptors may reach children"
        ));
    }
}
