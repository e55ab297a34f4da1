//! Mounts that only one test sees: small disks.
//!
//! [`apart`] gives the test a thread with a mount namespace of its own; everything that is started from that thread lives
//! in it too, and it ends with them. Needs root.

use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs a test on a thread with a mount namespace of its own; its panic is the caller's.
///
/// # Errors
/// When there can be no such thread or namespace.
pub fn apart<T: Send>(test: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            // Or what is mounted here would be mounted everywhere.
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            Ok(test())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A file system in memory, of `size` bytes.
///
/// # Errors
/// When it cannot be mounted.
pub fn tmpfs(path: &Path, size: u64) -> io::Result<()> {
    let options = format!("size={size},mode=1777");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        flags,
        Some(options.as_str()),
    )?)
}

/// Gives a [`tmpfs`] another size.
///
/// # Errors
/// When it is no tmpfs, or holds more than that already.
pub fn resize(path: &Path, size: u64) -> io::Result<()> {
    let options = format!("size={size}");
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some(options.as_str());
    Ok(mount(None::<&str>, path, None::<&str>, flags, options)?)
}
