//! The supervisor's end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::stat::fstat;

use super::HEADER_SIZE;
use super::header::{DataMap, HeaderMap};

/// What [`RingReader::read_from`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOutcome {
    /// Absolute offset of the first byte given. With `length` 0: where to ask next.
    pub start: u64,
    /// Bytes appended to the buffer.
    pub length: usize,
    /// Bytes between the offset asked for and `start`: overwritten before they were read, lost for good.
    pub skipped: u64,
}

impl ReadOutcome {
    /// Absolute offset behind the last byte given: where to ask next.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.length as u64
    }
}

/// Reads a ring made by a [`RingWriter`](super::RingWriter) in another process.
///
/// Reading changes nothing: until [`acknowledge`](Self::acknowledge) the bytes are there for a successor.
#[derive(Debug)]
pub struct RingReader {
    header: HeaderMap,
    bytes: DataMap,
    data: OwnedFd,
    space: OwnedFd,
    capacity: u64,
}

impl RingReader {
    /// From the three descriptors in the order of the message that brought them.
    ///
    /// # Errors
    /// `InvalidData` when the memory could shrink under us or is too small; those of `fcntl`, `fstat` and `mmap`.
    pub fn new(memory: &OwnedFd, data: OwnedFd, space: OwnedFd) -> io::Result<Self> {
        let seals = SealFlag::from_bits_truncate(fcntl(memory, FcntlArg::F_GET_SEALS)?);
        let size = u64::try_from(fstat(memory)?.st_size).unwrap_or(0);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || size <= HEADER_SIZE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not the memory of a ring",
            ));
        }
        let capacity = size - HEADER_SIZE;
        Ok(Self {
            header: HeaderMap::new(memory)?,
            bytes: DataMap::new(memory, capacity)?,
            data,
            space,
            capacity,
        })
    }

    /// Size of the data area in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes written since the program's start.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.header.get().head.load(SeqCst)
    }

    /// Offset of the oldest byte that can still be read; may be acknowledged already.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        let head = self.head();
        self.header
            .get()
            .oldest
            .load(SeqCst)
            .clamp(head.saturating_sub(self.capacity), head)
    }

    /// Offset acknowledged last, by us or a predecessor: where a new supervisor goes on.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.header.get().tail.load(SeqCst).min(self.head())
    }

    /// Unacknowledged bytes that were given up since the start.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.header.get().lost.load(SeqCst)
    }

    /// Appends at most `max` bytes from the absolute `offset` on. An offset before [`oldest`](Self::oldest) is moved
    /// there and the difference reported as skipped; one in the future gives nothing.
    pub fn read_from(&self, offset: u64, into: &mut Vec<u8>, max: usize) -> ReadOutcome {
        let head = self.head();
        let start = offset.max(self.oldest()).min(head.max(offset));
        let length = head
            .saturating_sub(start)
            .min(self.capacity)
            .min(max as u64);
        let begin = into.len();
        let position = start % self.capacity;
        let before_wrap = length.min(self.capacity - position);
        // All three are at most the capacity, which is mapped and so fits a usize.
        let [position, first, second] = [position, before_wrap, length - before_wrap].map(to_size);
        self.bytes.copy(position, first, into);
        self.bytes.copy(0, second, into);
        // The copy must be complete before we ask which of it was overwritten meanwhile.
        fence(SeqCst);
        let stable = self
            .header
            .get()
            .oldest
            .load(SeqCst)
            .clamp(start, start + length);
        let torn = to_size(stable - start);
        into.drain(begin..begin + torn.min(into.len() - begin));
        ReadOutcome {
            start: stable,
            length: into.len() - begin,
            skipped: stable.saturating_sub(offset),
        }
    }

    /// Everything before `offset` is recorded: the writer may reuse its place. Going back or beyond
    /// [`head`](Self::head) has no effect.
    ///
    /// # Errors
    /// Those of writing the eventfd, which is written only while the writer waits for room.
    pub fn acknowledge(&self, offset: u64) -> io::Result<()> {
        let header = self.header.get();
        let offset = offset.min(self.head());
        if offset <= header.tail.load(SeqCst) {
            return Ok(());
        }
        header.tail.store(offset, SeqCst);
        if header.waiting.load(SeqCst) != 0 {
            match nix::unistd::write(&self.space, &1_u64.to_ne_bytes()) {
                Ok(_) | Err(Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Becomes readable when bytes were written; see [`clear_data`](Self::clear_data).
    #[must_use]
    pub fn data_fd(&self) -> BorrowedFd<'_> {
        self.data.as_fd()
    }

    /// Makes [`data_fd`](Self::data_fd) unreadable until the next write. To be called before looking at
    /// [`head`](Self::head).
    ///
    /// # Errors
    /// Those of reading an eventfd, except that it was not readable.
    pub fn clear_data(&self) -> io::Result<()> {
        match nix::unistd::read(&self.data, &mut [0; 8]) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn to_size(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
