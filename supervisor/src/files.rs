//! Files of our own, in directories that only we can change: written whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Replaces a file: a temporary file beside it, then a rename, so that no reader sees a part of it and a full disk leaves
/// the old one.
///
/// # Errors
/// Those of the file system; the old file is then as it was.
pub fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let result = replace(&temporary, path, mode, content);
    if result.is_err() {
        // The first error is the one that is told.
        drop(fs::remove_file(&temporary));
    }
    result
}

/// Whether the words of an error, the system's or git's, tell of a disk or quota that is used up.
#[must_use]
pub fn says_disk_full(message: &str) -> bool {
    [
        "No space left on device",
        "Disk quota exceeded",
        // Git's own, of a file that is shorter than what it wrote.
        "Out of diskspace",
    ]
    .iter()
    .any(|words| message.contains(words))
}

/// As [`write`], where the file may be as it should be already: then a full disk does not matter.
///
/// # Errors
/// As [`write`].
pub fn ensure(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let as_wanted = || {
        let file = OpenOptions::new().read(true).open(path)?;
        let metadata = file.metadata()?;
        let plain = metadata.is_file() && metadata.len() == content.len() as u64;
        let mut present = Vec::new();
        (&file)
            .take(content.len() as u64 + 1)
            .read_to_end(&mut present)?;
        let same_mode = metadata.permissions().mode() & 0o7777 == mode;
        io::Result::Ok(plain && same_mode && present == content)
    };
    match as_wanted() {
        Ok(true) => Ok(()),
        // What cannot be read is replaced.
        Ok(false) | Err(_) => write(path, mode, content),
    }
}

fn replace(temporary: &Path, path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(temporary)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_file_that_is_as_wanted_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        ensure(&path, 0o600, b"one").unwrap();
        let inode = || fs::metadata(&path).unwrap().ino();
        let first = inode();
        ensure(&path, 0o600, b"one").unwrap();
        assert_eq!(inode(), first);
        ensure(&path, 0o644, b"one").unwrap();
        ensure(&path, 0o644, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
    }
}
