//! Sealed memfds: bytes that travel as a descriptor and that nobody can change afterwards.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::sys::uio::pread;

/// A memfd that holds `bytes` for ever: no writing, shrinking or growing, for us neither.
///
/// # Errors
/// Those of `memfd_create`, `write` and `F_ADD_SEALS`.
pub fn memfd_sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let written = nix::unistd::write(&fd, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    let all = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(all))?;
    Ok(fd)
}

/// Content of a memfd, from its start whatever its file position is.
///
/// # Errors
/// `InvalidData` when it is larger than `max` bytes or not sealed against writing (its sender could still change it
/// while we read), and those of `fstat` and `pread`.
pub fn read_memfd(fd: impl AsFd, max: usize) -> io::Result<Vec<u8>> {
    let seals = SealFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GET_SEALS)?);
    if !seals.contains(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "memfd is not sealed",
        ));
    }
    let size = usize::try_from(fstat(fd.as_fd())?.st_size).unwrap_or(usize::MAX);
    if size > max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("memfd has {size} bytes, at most {max} fit"),
        ));
    }
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let offset = i64::try_from(filled).map_err(io::Error::other)?;
        match pread(fd.as_fd(), rest, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_read_whole_and_cannot_be_changed() {
        let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        let fd = memfd_sealed("test", &bytes).unwrap();
        assert_eq!(read_memfd(&fd, bytes.len()).unwrap(), bytes);
        assert_eq!(nix::unistd::write(&fd, b"x"), Err(nix::errno::Errno::EPERM));
        assert_eq!(
            read_memfd(&fd, 10).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }

    #[test]
    fn an_unsealed_memfd_is_refused() {
        let fd = memfd_create("test", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert_eq!(
            read_memfd(&fd, 10).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
