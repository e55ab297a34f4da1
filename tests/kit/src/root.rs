//! A directory that stands for `/`: what `whim --root` works in.
//!
//! Laid out as an image would be: `/app`, `/home/node` and `/tmp` belong to the agents' user, `/whim` and `/run` to
//! whoever runs whim. Removed when dropped.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::{User, geteuid};

/// The agents' user, as images have it.
pub const AGENTS_USER: &str = "node";

/// Why a root could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A file or directory in it.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    /// The tests need this user.
    #[error("there is no user {AGENTS_USER}; `cargo xtask test` makes one")]
    NoUser,
}

/// The directory; clones share it, so that a second life of a container can follow in it.
#[derive(Clone, Debug)]
pub struct Root {
    held: Arc<Held>,
    agents: (u32, u32),
}

#[derive(Debug)]
struct Held {
    directory: tempfile::TempDir,
    /// Mounted inside, undone before the directory is removed.
    mounts: Mutex<Vec<PathBuf>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mounts = self
            .mounts
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for path in mounts.drain(..) {
            // The namespace may be gone already, and the mount with it.
            let _gone = nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

impl Root {
    /// A root for whim run as root: agents are [`AGENTS_USER`].
    ///
    /// # Errors
    /// When there is no such user, or the directories cannot be made.
    pub fn new() -> Result<Self, RootError> {
        let agents = agents_user()?;
        let root = Self::made(agents)?;
        root.lay_out(
            agents,
            (geteuid().as_raw(), nix::unistd::getegid().as_raw()),
        )?;
        Ok(root)
    }

    /// As [`Self::new`], or as [`Self::ordinary`], the whole of it on a disk of its own of `size` bytes. Only inside
    /// [`crate::mounts::apart`].
    ///
    /// # Errors
    /// As [`Self::new`], or when it cannot be mounted.
    pub fn on_small_disk(size: u64, ordinary: bool) -> Result<Self, RootError> {
        let agents = agents_user()?;
        let root = Self::made(agents)?;
        root.mount(root.path(), size)?;
        root.mode(root.path(), 0o755)?;
        if ordinary {
            root.lay_out(agents, agents)?;
            root.own(root.path(), agents)?;
        } else {
            let host = (geteuid().as_raw(), nix::unistd::getegid().as_raw());
            root.lay_out(agents, host)?;
        }
        Ok(root)
    }

    /// A root that belongs to [`AGENTS_USER`] altogether, for whim run as an ordinary user.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn ordinary() -> Result<Self, RootError> {
        let agents = agents_user()?;
        let root = Self::made(agents)?;
        root.lay_out(agents, agents)?;
        root.own(root.path(), agents)?;
        Ok(root)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.held.directory.path()
    }

    /// A path inside, given as the contract gives it (`/app/repo`).
    #[must_use]
    pub fn at(&self, path: &str) -> PathBuf {
        self.path().join(path.trim_start_matches('/'))
    }

    /// User and group of agents.
    #[must_use]
    pub fn agents(&self) -> (u32, u32) {
        self.agents
    }

    /// Writes a file that belongs to the agents' user, and the directories above it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_as_agent(&self, path: &str, content: &str) -> Result<PathBuf, RootError> {
        let full = self.at(path);
        let missing: Vec<&Path> = full
            .ancestors()
            .skip(1)
            .take_while(|above| !above.exists())
            .collect();
        for directory in missing.into_iter().rev() {
            self.make(directory, self.agents, 0o755)?;
        }
        fs::write(&full, content).map_err(|source| failed(&full, source))?;
        self.own(&full, self.agents)?;
        Ok(full)
    }

    /// Gives a tree, such as a repository made for the agent, to the agents' user. Links are not followed.
    ///
    /// # Errors
    /// When one of its files cannot be given.
    pub fn give_to_agent(&self, path: &Path) -> Result<(), RootError> {
        give(path, self.agents)
    }

    /// Mounts a file system of its own, of `size` bytes, over a directory of it, which keeps its owner and mode; what was
    /// in it is hidden. Only inside [`crate::mounts::apart`].
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn small_disk(&self, path: &str, size: u64) -> Result<(), RootError> {
        let full = self.at(path);
        let before = fs::metadata(&full).map_err(|source| failed(&full, source))?;
        self.mount(&full, size)?;
        self.mode(&full, before.permissions().mode() & 0o7777)?;
        self.own(&full, (before.uid(), before.gid()))
    }

    fn mount(&self, full: &Path, size: u64) -> Result<(), RootError> {
        crate::mounts::tmpfs(full, size).map_err(|source| failed(full, source))?;
        let mounts = self.held.mounts.lock();
        mounts
            .unwrap_or_else(PoisonError::into_inner)
            .push(full.to_owned());
        Ok(())
    }

    fn made(agents: (u32, u32)) -> Result<Self, RootError> {
        let directory = tempfile::Builder::new().prefix("whim-").tempdir();
        let directory = directory.map_err(|source| failed(&std::env::temp_dir(), source))?;
        let mounts = Mutex::default();
        let held = Arc::new(Held { directory, mounts });
        let root = Self { held, agents };
        // Temporary directories are private; the agents' user must get through.
        root.mode(root.path(), 0o755)?;
        Ok(root)
    }

    fn lay_out(&self, agents: (u32, u32), host: (u32, u32)) -> Result<(), RootError> {
        for (path, owner, mode) in [
            ("app", agents, 0o755),
            ("home", host, 0o755),
            ("home/node", agents, 0o755),
            ("run", host, 0o755),
            ("whim", host, 0o755),
            ("tmp", host, 0o1777),
        ] {
            self.make(&self.path().join(path), owner, mode)?;
        }
        Ok(())
    }

    fn make(&self, path: &Path, owner: (u32, u32), mode: u32) -> Result<(), RootError> {
        fs::create_dir(path).map_err(|source| failed(path, source))?;
        self.mode(path, mode)?;
        self.own(path, owner)
    }

    #[expect(clippy::unused_self, reason = "reads as the other steps do")]
    fn mode(&self, path: &Path, mode: u32) -> Result<(), RootError> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
            .map_err(|source| failed(path, source))
    }

    #[expect(clippy::unused_self, reason = "reads as the other steps do")]
    fn own(&self, path: &Path, (user, group): (u32, u32)) -> Result<(), RootError> {
        chown(path, Some(user), Some(group)).map_err(|source| failed(path, source))
    }
}

/// Gives a tree to this user and group. Links are not followed.
///
/// # Errors
/// When one of its files cannot be given.
pub fn give(path: &Path, (user, group): (u32, u32)) -> Result<(), RootError> {
    let meta = fs::symlink_metadata(path).map_err(|source| failed(path, source))?;
    if meta.is_dir() {
        for entry in fs::read_dir(path).map_err(|source| failed(path, source))? {
            give(
                &entry.map_err(|source| failed(path, source))?.path(),
                (user, group),
            )?;
        }
    }
    lchown(path, Some(user), Some(group)).map_err(|source| failed(path, source))
}

/// The ids of [`AGENTS_USER`]; one's own when not root, because no other can be taken on.
///
/// # Errors
/// When there is no such user.
pub fn agents_user() -> Result<(u32, u32), RootError> {
    if !geteuid().is_root() {
        return Ok((geteuid().as_raw(), nix::unistd::getegid().as_raw()));
    }
    let user = User::from_name(AGENTS_USER)
        .ok()
        .flatten()
        .ok_or(RootError::NoUser)?;
    Ok((user.uid.as_raw(), user.gid.as_raw()))
}

fn failed(path: &Path, source: io::Error) -> RootError {
    RootError::File {
        path: path.to_owned(),
        source,
    }
}
