//! A ring whose reader is killed at any instruction.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use nix::fcntl::{FcntlArg, fcntl};
use whim_entrypoint::ring::RingWriter;

use crate::support::*;

const TOTAL: u64 = 4_000_000;
const KILLS: u64 = 150;

fn byte(offset: u64) -> u8 {
    (offset.wrapping_mul(2_654_435_761) >> 13) as u8
}

fn place(numbers: [i32; 4]) -> std::io::Result<()> {
    for (number, target) in numbers.into_iter().zip(3..) {
        #[expect(unsafe_code, reason = "the targets are free numbers of a child")]
        // SAFETY: nothing in the child owns the targets.
        let result = unsafe { nix::libc::dup2(number, target) };
        nix::errno::Errno::result(result)?;
    }
    Ok(())
}

fn start_reader(descriptors: &[OwnedFd; 4]) -> std::process::Child {
    let numbers = descriptors.each_ref().map(AsRawFd::as_raw_fd);
    let mut command = Command::new(binary());
    command.arg("drain");
    #[expect(unsafe_code, reason = "descriptors are placed between fork and exec")]
    // SAFETY: dup2 is async-signal-safe.
    unsafe {
        command.pre_exec(move || place(numbers));
    }
    command.spawn().unwrap()
}

/// A copy at a number that is no target.
fn far(fd: BorrowedFd<'_>) -> OwnedFd {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(100)).unwrap();
    #[expect(unsafe_code, reason = "fcntl gives a number")]
    // SAFETY: just made, owned by nobody else.
    unsafe {
        OwnedFd::from_raw_fd(number)
    }
}

#[test]
fn killed_readers_lose_nothing() {
    let mut ring = RingWriter::new("test", 64 * 1024).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let [memory, data, space] = ring.descriptors().map(far);
    let descriptors = [memory, data, space, far(file.as_fd())];
    let mut reader = start_reader(&descriptors);
    let mut kills = 0;
    while ring.head() < TOTAL {
        let start = ring.head();
        let bytes: Vec<u8> = (start..TOTAL.min(start + 5000)).map(byte).collect();
        let written = ring.write(&bytes).unwrap();
        ring.publish();
        if written == 0 && ring.wait_for_room() {
            assert!(
                readable(ring.space_fd(), Instant::now() + PATIENCE),
                "the reader does not read"
            );
            ring.woken();
        }
        if ring.acknowledged() * KILLS / TOTAL > kills {
            reader.kill().unwrap();
            reader.wait().unwrap();
            kills += 1;
            reader = start_reader(&descriptors);
        }
    }
    eventually("all is acknowledged", || ring.acknowledged() == TOTAL);
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(kills >= KILLS / 2, "{kills}");
    let content = fs::read(file.path()).unwrap();
    assert_eq!(content.len() as u64, TOTAL);
    let wrong = content
        .iter()
        .zip(0..)
        .find(|(found, offset)| **found != byte(*offset));
    assert_eq!(wrong, None);
}
