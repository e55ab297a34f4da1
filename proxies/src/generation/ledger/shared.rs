//! A file as shared memory: what is stored survives the process, and storing waits for no disk.
//!
//! A `pwrite` may wait for a page that is being written back or for a commit of the file system's journal, and did, for
//! seconds, on a busy machine; a store to a mapped page meets that at most once per write-back of the page.
#![expect(
    unsafe_code,
    reason = "stores to mapped memory go through a raw pointer"
)]

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{Ordering, compiler_fence};

use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// The first bytes of a file, mapped.
#[derive(Debug)]
pub(super) struct Shared {
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and lives until the drop.
unsafe impl Send for Shared {}
// SAFETY: `store` writes through a raw pointer and nothing reads; callers own the ranges they write (a slot each).
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps a file, which must be allocated to this length: a hole that cannot be filled would end the process.
    pub(super) fn map(file: &File, length: NonZeroUsize) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self { start, length })
    }

    /// Stores bytes so that a kill at any moment leaves the old first byte or all of the new ones: the first goes last.
    pub(super) fn store(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let end = offset
            .checked_add(bytes.len())
            .filter(|end| *end <= self.length.get());
        let (Some(_), Some((first, rest))) = (end, bytes.split_first()) else {
            return Err(io::Error::other("a store outside the mapping"));
        };
        let start = self.start.cast::<u8>();
        // SAFETY: offset + 1 is within the mapping or at its end, checked above.
        let after = unsafe { start.add(offset + 1) };
        // SAFETY: `rest` fits behind `after`, checked above, and is no part of the mapping.
        unsafe { after.copy_from_nonoverlapping(NonNull::from(rest).cast(), rest.len()) };
        // A kill stops this thread between two instructions; their order is the compiler's to keep.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: offset is within the mapping, checked above.
        let at = unsafe { start.add(offset) };
        // SAFETY: as above; this slot's owner is the only one who writes here.
        unsafe { at.write_volatile(*first) };
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, and nothing refers to it any more.
        let unmapped = unsafe { munmap(self.start, self.length.get()) };
        if let Err(error) = unmapped {
            tracing::error!(%error, "munmap");
        }
    }
}
