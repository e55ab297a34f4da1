//! Building a file piece by piece and putting it where nothing is.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};

/// See [`super::protocol::Action::Put`]. The piece file has a fixed name, so that a repetition after a crash begins anew
/// and leaves nothing behind.
pub(crate) fn put(path: &Path, mode: u32, offset: u64, last: bool, body: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(Errno::EINVAL)?;
    let name = path.file_name().ok_or(Errno::EINVAL)?.to_string_lossy();
    let pieces = path.with_file_name(format!(".{name}.whim-part"));
    if offset == 0 {
        fs::create_dir_all(directory)?;
        if fs::symlink_metadata(path).is_ok() {
            return Err(Errno::EEXIST.into());
        }
        match fs::remove_file(&pieces) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(offset == 0)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .mode(0o600)
        .open(&pieces)?;
    if file.metadata()?.len() != offset {
        return Err(Errno::ESTALE.into());
    }
    file.write_all_at(body, offset)?;
    if !last {
        return Ok(());
    }
    file.flush()?;
    file.sync_all()?;
    file.set_permissions(Permissions::from_mode(mode))?;
    renameat2(
        AT_FDCWD,
        &pieces,
        AT_FDCWD,
        path,
        RenameFlags::RENAME_NOREPLACE,
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_a_file_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b/c.jsonl");
        put(&path, 0o640, 0, false, b"one ").unwrap();
        assert!(!path.exists());
        // Said twice, as after a crash of the one who asks.
        let again = put(&path, 0o640, 0, false, b"one ");
        again.unwrap();
        put(&path, 0o640, 4, true, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o640
        );
        let refused = put(&path, 0o640, 0, true, b"x").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one two");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_the_way_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        let path = directory.path().join("link");
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(put(&path, 0o600, 0, true, b"x").is_err());
        let pieces = directory.path().join(".file.whim-part");
        std::os::unix::fs::symlink(&target, &pieces).unwrap();
        put(&directory.path().join("file"), 0o600, 0, true, b"x").unwrap();
        assert!(!target.exists());
        std::os::unix::fs::symlink(&target, directory.path().join(".more.whim-part")).unwrap();
        assert!(put(&directory.path().join("more"), 0o600, 1, true, b"x").is_err());
        assert!(!target.exists());
    }

    #[test]
    fn a_piece_that_does_not_follow_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        put(&path, 0o600, 0, false, b"abc").unwrap();
        assert!(put(&path, 0o600, 2, true, b"x").is_err());
        assert!(!path.exists());
    }
}
