//! What of the program's own file counts as this process's memory.
//!
//! The kernel maps code in advance: sixteen pages around each fault, and whole folios where the file system has them. So
//! a process of a large binary counts megabytes that it ran once, at its start, or never. Taking those mappings back
//! frees nothing that is in use: what is needed again is mapped again from the page cache, in about a microsecond.

use std::io;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MmapAdvise, madvise};

/// Takes back the mappings of code and constants. The pages that the loader changed (relocated data) are in writable
/// segments, as are all variables, and stay.
///
/// # Errors
/// What `madvise(2)` says; nothing is lost then.
#[expect(
    unsafe_code,
    reason = "the program's own headers are read where the kernel says they lie"
)]
pub fn forget_code() -> io::Result<()> {
    let (address, count) = (
        told_at_start(libc::AT_PHDR)?,
        told_at_start(libc::AT_PHNUM)?,
    );
    let first = std::ptr::with_exposed_provenance::<libc::Elf64_Phdr>(address);
    if first.is_null() {
        return Ok(());
    }
    // SAFETY: the kernel says that this many headers of the running program lie there, and nobody writes to them.
    let headers = unsafe { std::slice::from_raw_parts(first, count) };
    let own = headers.iter().find(|header| header.p_type == libc::PT_PHDR);
    // Position-independent: addresses in the file count from where it was put.
    let base = match own {
        Some(own) => address.wrapping_sub(size(own.p_vaddr)?),
        None => 0,
    };
    let page = page_size()?;
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = base.wrapping_add(size(header.p_vaddr)?);
        // A last page that is shared with the next segment stays.
        let end = start.wrapping_add(size(header.p_filesz)?) & !(page - 1);
        let start = start & !(page - 1);
        let Some(at) = NonNull::new(std::ptr::with_exposed_provenance_mut(start)) else {
            continue;
        };
        if end > start {
            // SAFETY: a private mapping of the program's file that is never written: the same content comes back at the
            // next access, also to the code that runs now.
            unsafe { madvise(at, end - start, MmapAdvise::MADV_DONTNEED) }?;
        }
    }
    Ok(())
}

/// A value that the kernel passed to the program at its start.
#[expect(unsafe_code, reason = "getauxval has no wrapper")]
fn told_at_start(kind: libc::c_ulong) -> io::Result<usize> {
    // SAFETY: only looks a number up; one that is not there is 0.
    size(unsafe { libc::getauxval(kind) })
}

fn size(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(io::Error::other)
}

/// How far below the present frame a deep call may have reached.
const DEEPEST: usize = 256 * 1024;

/// Gives back the stack below the caller's frame, which deep calls have touched and left. For programs with one thread
/// and no signal handlers.
///
/// # Errors
/// What `madvise(2)` says; nothing is lost then.
#[expect(
    unsafe_code,
    reason = "what is below the stack pointer belongs to nobody"
)]
pub(crate) fn forget_stack() -> io::Result<()> {
    let here = 0_u8;
    let page = page_size()?;
    // Two pages for this frame, the call below it and the red zone.
    let end = ((&raw const here).expose_provenance() & !(page - 1)).saturating_sub(2 * page);
    let start = end.saturating_sub(DEEPEST);
    let Some(at) = NonNull::new(std::ptr::with_exposed_provenance_mut(start)) else {
        return Ok(());
    };
    // SAFETY: below the stack pointer nothing is kept between two calls, and nothing else is ever mapped so near below a
    // main thread's stack: the kernel keeps a gap of a megabyte there.
    match unsafe { madvise(at, end - start, MmapAdvise::MADV_DONTNEED) } {
        // The stack has not grown so far: what there is of it was given back.
        Ok(()) | Err(Errno::ENOMEM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// In bytes; a power of two.
fn page_size() -> io::Result<usize> {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)?;
    size.and_then(|size| usize::try_from(size).ok())
        .filter(|size| size.is_power_of_two())
        .ok_or_else(|| io::Error::other("the page size is not known"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident pages of files, in kB.
    fn of_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("RssFile:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn code_is_given_back_and_runs_on() {
        let before = of_files();
        forget_code().unwrap();
        let after = of_files();
        assert!(after < before, "{after} kB of {before} kB");
        // Constants and relocated tables are what they were.
        assert_eq!(
            format!("{:?}", (1, "x", Some(2.5))),
            "(1, \"x\", Some(2.5))"
        );
    }
}
