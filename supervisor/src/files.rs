//! Files of our own, in directories that only we can change: written whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
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
