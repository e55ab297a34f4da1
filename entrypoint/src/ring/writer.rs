//! The keeper's end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;

use super::HEADER_SIZE;
use super::header::HeaderMap;

/// Writes into a ring of its own.
///
/// The data is written with `pwrite` and never mapped here, so that full rings do not count as the keeper's memory.
#[derive(Debug)]
pub struct RingWriter {
    memory: OwnedFd,
    data: EventFd,
    space: EventFd,
    header: HeaderMap,
    capacity: u64,
    head: u64,
    oldest: u64,
    /// The highest plausible value that the reader published.
    tail: u64,
    lost: u64,
}

impl RingWriter {
    /// A new ring whose memory can neither shrink nor grow. `capacity` in bytes, rounded up to 4096.
    ///
    /// # Errors
    /// Those of `memfd_create`, `ftruncate`, `F_ADD_SEALS`, `mmap` and `eventfd`.
    pub fn new(name: &str, capacity: u64) -> io::Result<Self> {
        let capacity = capacity.max(1).next_multiple_of(4096);
        let memory = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let size = i64::try_from(HEADER_SIZE + capacity).map_err(io::Error::other)?;
        ftruncate(&memory, size)?;
        fcntl(
            &memory,
            FcntlArg::F_ADD_SEALS(
                SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL,
            ),
        )?;
        let header = HeaderMap::new(&memory)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            memory,
            data: EventFd::from_flags(flags)?,
            space: EventFd::from_flags(flags)?,
            header,
            capacity,
            head: 0,
            oldest: 0,
            tail: 0,
            lost: 0,
        })
    }

    /// Memory, data eventfd, space eventfd: what a [`RingReader`](super::RingReader) is made of.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 3] {
        [self.memory.as_fd(), self.data.as_fd(), self.space.as_fd()]
    }

    /// Readable once a reader acknowledged while we waited.
    pub fn space_fd(&self) -> BorrowedFd<'_> {
        self.space.as_fd()
    }

    /// Bytes that can be written without losing unacknowledged ones.
    pub fn room(&mut self) -> u64 {
        let published = self.header.get().tail.load(SeqCst);
        // A tail that goes back or lies in the future is a reader's mistake, not an acknowledgement.
        if published > self.tail && published <= self.head {
            self.tail = published;
        }
        self.capacity.saturating_sub(self.head - self.tail)
    }

    /// Offset up to which a reader has acknowledged.
    pub fn acknowledged(&mut self) -> u64 {
        self.room();
        self.tail
    }

    /// Asks to be woken by [`space_fd`](Self::space_fd) at the next acknowledgement. False: there is room by now, go on.
    pub fn wait_for_room(&mut self) -> bool {
        let header = self.header.get();
        header.waiting.store(1, SeqCst);
        // The reader stores `tail` and then looks at `waiting`; we do it the other way round. So one of us sees the other.
        if self.room() == 0 {
            return true;
        }
        self.header.get().waiting.store(0, SeqCst);
        false
    }

    /// Takes note of a wake-up from [`space_fd`](Self::space_fd).
    pub fn woken(&mut self) {
        self.header.get().waiting.store(0, SeqCst);
        if let Err(error) = self.space.read()
            && error != Errno::EAGAIN
        {
            crate::log::line(format_args!("read of a ring's eventfd: {error}"));
        }
    }

    /// Makes room for at least `bytes` by giving up the oldest unacknowledged bytes. They are counted as lost once newer
    /// ones take their place.
    pub fn make_room(&mut self, bytes: u64) {
        let missing = bytes.min(self.capacity).saturating_sub(self.room());
        self.tail += missing;
        self.lost += missing;
        self.header.get().lost.store(self.lost, SeqCst);
    }

    /// Appends as much of `bytes` as there is [`room`](Self::room) for, and says how much that was. Call
    /// [`publish`](Self::publish) when a batch is complete.
    ///
    /// # Errors
    /// Those of `pwrite` on a memfd (`ENOMEM`, `ENOSPC` at a memory limit); then nothing was appended.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.room().min(bytes.len() as u64);
        let bytes = bytes
            .get(..usize::try_from(count).unwrap_or(usize::MAX))
            .unwrap_or(bytes);
        let oldest = (self.head + count)
            .saturating_sub(self.capacity)
            .max(self.oldest);
        if oldest > self.oldest {
            // Before the bytes are touched, so that a reader who copied them meanwhile sees that they were not stable.
            self.oldest = oldest;
            self.header.get().oldest.store(oldest, SeqCst);
        }
        let position = self.head % self.capacity;
        let before_wrap = usize::try_from(self.capacity - position)
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let (first, second) = bytes.split_at(before_wrap);
        self.write_at(position, first)?;
        self.write_at(0, second)?;
        self.head += count;
        self.header.get().head.store(self.head, SeqCst);
        Ok(bytes.len())
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut position = i64::try_from(HEADER_SIZE + position).map_err(io::Error::other)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = match pwrite(&self.memory, rest, position) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            rest = rest.get(written..).unwrap_or_default();
            position += i64::try_from(written).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Wakes the reader.
    pub fn publish(&self) {
        // EAGAIN: the counter is full, so the reader has been woken long ago.
        if let Err(error) = self.data.write(1)
            && error != Errno::EAGAIN
        {
            crate::log::line(format_args!("write to a ring's eventfd: {error}"));
        }
    }

    /// Bytes written since the start.
    pub fn head(&self) -> u64 {
        self.head
    }
}
