//! The directories of the layout.
//!
//! What is ours is made by us, root's and closed; what is the agents' is given to them when it is made. A directory that
//! is there is left as it is, but `/app` must be theirs: the checkout is made in it.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use crate::identity::Identity;
use crate::paths::Paths;
use crate::supervise::Failure;

/// Makes what is missing.
///
/// # Errors
/// 73 with the path and the reason.
pub fn make(paths: &Paths, identity: &Identity) -> Result<(), Failure> {
    let ours = [
        (paths.whim(), 0o755),
        (paths.state(), 0o700),
        (paths.logs(), 0o700),
        (paths.sessions(), 0o700),
        (paths.env_files(), 0o755),
        (paths.run(), 0o755),
    ];
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| {
            let remedy = match error.kind() {
                io::ErrorKind::ReadOnlyFilesystem => {
                    "; put the layout elsewhere with --root, on a file system that can be written"
                }
                io::ErrorKind::PermissionDenied => {
                    "; start as root, or put the layout into a directory of yours with --root"
                }
                _ => "",
            };
            let message = format!(
                "directory {} cannot be had: {error}{remedy}",
                path.display()
            );
            Failure::caused(73, &io::Error::new(error.kind(), message))
        }
    };
    for (path, mode) in &ours {
        own(path, *mode).map_err(failed(path))?;
    }
    let tmp = paths.tmp();
    if !tmp.is_dir() {
        own(&tmp, 0o1777).map_err(failed(&tmp))?;
    }
    for path in [paths.app(), paths.home().to_owned()] {
        theirs(&path, identity, path == paths.app()).map_err(failed(&path))?;
    }
    Ok(())
}

/// A directory of ours. One that belongs to somebody else would let them put theirs in its place.
fn own(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)?;
    let directory = open(path)?;
    let metadata = directory.metadata()?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other(format!(
            "it belongs to uid {}, not to us",
            metadata.uid()
        )));
    }
    if metadata.permissions().mode() & 0o7777 != mode {
        directory.set_permissions(Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// A directory of the agents'. `take`: also when it is there and somebody else's.
fn theirs(path: &Path, identity: &Identity, take: bool) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let made = match DirBuilder::new().mode(0o755).create(path) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    if !identity.is_split() || !(made || take) {
        return Ok(());
    }
    // By descriptor, and not through a link: its parent is root's, so it stays what was opened.
    let directory = open(path)?;
    let metadata = directory.metadata()?;
    if metadata.uid() != identity.user.uid && (made || metadata.uid() == 0) {
        fchown(&directory, Some(identity.user.uid), Some(identity.user.gid))?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    let flags = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_NOFOLLOW;
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
}
