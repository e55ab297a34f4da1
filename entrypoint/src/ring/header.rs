#![expect(
    unsafe_code,
    reason = "memory shared with another process is mapped and reinterpreted"
)]
//! The mapped memory: the header's counters, and the data area for those who read it.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::HEADER_SIZE;

/// Bytes of the header that are mapped: one page, so that it costs the keeper one.
const MAPPED_HEADER: usize = 4096;

/// What both ends share. Every field is written by one side only.
#[repr(C)]
pub(super) struct Header {
    /// Writer: bytes written since the start.
    pub(super) head: AtomicU64,
    /// Writer: offset of the first byte that is still in the data area; moved before a byte is overwritten.
    pub(super) oldest: AtomicU64,
    /// Writer: bytes that were overwritten without having been acknowledged.
    pub(super) lost: AtomicU64,
    /// Writer: 1 while it waits for an acknowledgement, see [`super::RingReader::acknowledge`].
    pub(super) waiting: AtomicU32,
    _reserved: AtomicU32,
    /// Reader: everything before this offset is recorded.
    pub(super) tail: AtomicU64,
}

/// A mapping that is undone on drop.
#[derive(Debug)]
struct Mapping {
    address: NonNull<c_void>,
    length: usize,
}

impl Mapping {
    fn new(fd: impl AsFd, offset: u64, length: usize, protection: ProtFlags) -> io::Result<Self> {
        let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing of ours.
        let address = unsafe { mmap(None, size, protection, MapFlags::MAP_SHARED, fd, offset) }?;
        Ok(Self { address, length })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new`, and the borrows given out end with `self`.
        if let Err(error) = unsafe { munmap(self.address, self.length) } {
            crate::log::line(format_args!("munmap of a ring: {error}"));
        }
    }
}

// SAFETY: the mapping is not bound to the thread that made it; what is in it is reached through atomics or copied out
// as plain bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared references only copy bytes out.
unsafe impl Sync for Mapping {}

/// The header, mapped for reading and writing.
#[derive(Debug)]
pub(super) struct HeaderMap(Mapping);

impl HeaderMap {
    pub(super) fn new(fd: impl AsFd) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Mapping::new(fd, 0, MAPPED_HEADER, protection).map(Self)
    }

    pub(super) fn get(&self) -> &Header {
        // SAFETY: the mapping is a page, thus aligned and large enough; the memfd is sealed against shrinking, thus every
        // byte stays backed; all-zero and any other bytes are valid atomics.
        unsafe { self.0.address.cast::<Header>().as_ref() }
    }
}

/// The data area, mapped for reading.
#[derive(Debug)]
pub(super) struct DataMap(Mapping);

impl DataMap {
    pub(super) fn new(fd: impl AsFd, capacity: u64) -> io::Result<Self> {
        let length = usize::try_from(capacity).map_err(io::Error::other)?;
        Mapping::new(fd, HEADER_SIZE, length, ProtFlags::PROT_READ).map(Self)
    }

    /// Appends `length` bytes from `position` to `into`; what lies beyond the area is left out.
    pub(super) fn copy(&self, position: usize, length: usize, into: &mut Vec<u8>) {
        let length = length.min(self.0.length.saturating_sub(position));
        into.reserve(length);
        // SAFETY: `position + length` is within the mapping.
        let source = unsafe { self.0.address.cast::<u8>().add(position) };
        // SAFETY: `reserve` made room for `length` bytes behind the vector's end.
        let target = unsafe { into.as_mut_ptr().add(into.len()) };
        // SAFETY: source and target are valid for `length` bytes and distinct. The other process may write the source
        // meanwhile; the caller checks `oldest` afterwards and throws away what was not stable.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), target, length) };
        // SAFETY: those bytes were just written.
        unsafe { into.set_len(into.len() + length) };
    }
}
