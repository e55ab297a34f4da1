//! The keeper's own lines on standard error.
//!
//! One `write` a line, of at most [`MAX_LINE`] bytes (the rest is cut). A reader of our stderr that has stopped must not
//! stop PID 1, so a line that cannot be taken at once is dropped and the next one says how many were.

use std::fmt::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest line in bytes; below `PIPE_BUF`, so that lines of several writers do not mix.
const MAX_LINE: usize = 1024;

static DROPPED: AtomicU32 = AtomicU32::new(0);

struct Line {
    bytes: [u8; MAX_LINE],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte is kept for the newline.
        let room = (MAX_LINE - 1).saturating_sub(self.length);
        let text = text.as_bytes();
        let taken = text.get(..room).unwrap_or(text);
        if let Some(target) = self.bytes.get_mut(self.length..self.length + taken.len()) {
            target.copy_from_slice(taken);
            self.length += taken.len();
        }
        Ok(())
    }
}

/// Says one line.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let dropped = DROPPED.swap(0, Ordering::Relaxed);
    let mut line = Line {
        bytes: [0; MAX_LINE],
        length: 0,
    };
    let written = if dropped == 0 {
        write!(line, "whim keeper: {text}")
    } else {
        write!(line, "whim keeper: ({dropped} lines dropped) {text}")
    };
    if written.is_err() || !emit(&mut line) {
        DROPPED.fetch_add(dropped.saturating_add(1), Ordering::Relaxed);
    }
}

fn emit(line: &mut Line) -> bool {
    if let Some(end) = line.bytes.get_mut(line.length) {
        *end = b'\n';
        line.length += 1;
    }
    let stderr = stderr();
    let mut ready = [PollFd::new(stderr, PollFlags::POLLOUT)];
    if !matches!(poll(&mut ready, PollTimeout::ZERO), Ok(1)) {
        return false;
    }
    let bytes = line.bytes.get(..line.length).unwrap_or_default();
    nix::unistd::write(stderr, bytes).is_ok()
}

#[expect(
    unsafe_code,
    reason = "standard error has no owner in std that can be borrowed without its lock"
)]
fn stderr() -> BorrowedFd<'static> {
    // SAFETY: descriptor 2 is open for the whole life of the process: `start` puts /dev/null on a closed one.
    unsafe { BorrowedFd::borrow_raw(2) }
}
