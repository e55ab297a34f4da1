//! The last word in the state file, when nobody else is left to write it.

use std::io;
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};

const NAME: &str = "claude_state";
const TEMPORARY: &str = ".claude_state.whim-keeper";

/// Makes `claude_state` in `directory` read `stopped`: an exclusive temporary file, mode 0644, renamed into place, so that
/// no link that an agent may have left there is followed and no reader sees half a word.
///
/// # Errors
/// Those of `openat`, `write` and `renameat`.
pub(super) fn write_stopped(directory: impl AsFd) -> io::Result<()> {
    let directory = directory.as_fd();
    // A leftover of a keeper that was killed right here; whatever it is, it is not what we are about to write.
    match unlinkat(directory, TEMPORARY, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(directory, TEMPORARY, flags, Mode::from_bits_truncate(0o644))?;
    fchmod(&file, Mode::from_bits_truncate(0o644))?;
    let written = nix::unistd::write(&file, b"stopped\n");
    let renamed = written.and_then(|_| renameat(directory, TEMPORARY, directory, NAME));
    if renamed.is_err() {
        // The first error is the one to report.
        let _removed = unlinkat(directory, TEMPORARY, UnlinkatFlags::NoRemoveDir);
    }
    Ok(renamed?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn links_that_lie_in_wait_are_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, directory.path().join(NAME)).unwrap();
        symlink(&victim, directory.path().join(TEMPORARY)).unwrap();
        write_stopped(fs::File::open(directory.path()).unwrap()).unwrap();
        assert_eq!(
            fs::read_to_string(directory.path().join(NAME)).unwrap(),
            "stopped\n"
        );
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let metadata = fs::symlink_metadata(directory.path().join(NAME)).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o644);
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            2,
            "no temporary file is left"
        );
    }
}
