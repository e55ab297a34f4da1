//! The files `claude_state` (one word) and `claude_state.json` (the state object) for whoever polls them.
//!
//! [`StateFiles`] replaces them: an exclusive new file beside the target, then a rename, so that a reader sees the old
//! content or the new, never none or half of it. The directory is `/tmp`, where everyone may create names: no link, FIFO
//! or foreign file is ever opened; a rename puts ours in its place. Only a directory in the way cannot be replaced.
//!
//! On a full disk they go on being replaced: beside each lies a spare file whose space is taken while there is some.
//! When no other file can be had the spare gets the content and changes places with the target, which is the next spare:
//! space is never given away, others would take it. (Who still reads the one before the last may then see the next one
//! in its place.) Where a file system cannot let two files change places, the spare is used once.
//!
//! [`publish`] keeps them current. Entering `working` is written at once; other changes at most ten times a second, the
//! newest wins; and every four seconds they are written again, so that their age tells a dead writer from a quiet agent.
//! A write that fails is logged and repeated with the next beat. Nothing is queued: a watch channel holds one value.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use whim_wire::state::{AgentState, StateObject};

/// Name of the file with the word.
pub const WORD: &str = "claude_state";
/// Name of the file with the state object.
pub const OBJECT: &str = "claude_state.json";

/// Longest age of the files, with a second to spare to the five that are promised.
const BEAT: Duration = Duration::from_secs(4);
/// Shortest time between two writes, entering `working` excepted (the fusion bounds how often that is).
const SPACING: Duration = Duration::from_millis(100);
/// Longest wait for the last write when asked to end.
const LAST_WRITE: Duration = Duration::from_secs(2);
/// Attempts at a name that nobody else has taken.
const ATTEMPTS: u32 = 16;
/// Entries that are searched for leftovers of an earlier writer.
const MAX_SEARCHED: usize = 20_000;

/// Space that is kept for the object on a full disk: 32 sessions and their reasons.
const SPARE: usize = 64 * 1024;
/// And for the word: one block of any file system.
const SPARE_WORD: usize = 64;

/// Why the state could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    #[error("cannot create the directory {path}")]
    CreateDirectory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot open the directory {path}")]
    OpenDirectory { path: PathBuf, source: Errno },
    #[error("{path} is a directory; remove it")]
    IsDirectory { path: PathBuf },
    #[error("{path} belongs to another user and the directory is sticky; remove it")]
    Foreign { path: PathBuf },
    #[error("cannot create a temporary file for {path}")]
    Create { path: PathBuf, source: Errno },
    #[error("cannot set the mode of the new {path}")]
    Mode { path: PathBuf, source: Errno },
    #[error("cannot write the new {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot rename the new {path} into place")]
    Rename { path: PathBuf, source: Errno },
    #[error("the state object cannot be written as JSON")]
    Encode(#[from] serde_json::Error),
    #[error("the writing task ended early")]
    Task,
}

impl PublishError {
    fn is_disk_full(&self) -> bool {
        let full = |errno: Errno| matches!(errno, Errno::ENOSPC | Errno::EDQUOT);
        match self {
            Self::Create { source, .. } => full(*source),
            Self::Write { source, .. } => {
                let errno = source.raw_os_error().map(Errno::from_raw);
                errno.is_some_and(full)
            }
            _ => false,
        }
    }
}

/// The two files in their directory.
#[derive(Debug)]
pub struct StateFiles {
    directory: OwnedFd,
    path: PathBuf,
    random: RandomState,
    /// By name of the file that each is for.
    spares: Mutex<BTreeMap<&'static str, (String, File)>>,
}

impl StateFiles {
    /// Opens (or creates, mode 1777) `directory` and removes what a killed writer left.
    ///
    /// # Errors
    /// When there is no such directory to be had, or a directory is in the place of one of the files.
    pub fn open(directory: &Path) -> Result<Self, PublishError> {
        let path = directory.to_path_buf();
        if !directory.exists() {
            create_sticky(directory).map_err(|source| PublishError::CreateDirectory {
                path: path.clone(),
                source,
            })?;
        }
        // The directory's own name may be a link of the image; only names inside it are anyone's to make.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = nix::fcntl::open(&path, flags, Mode::empty()).map_err(|source| {
            PublishError::OpenDirectory {
                path: path.clone(),
                source,
            }
        })?;
        let files = Self {
            directory,
            path,
            random: RandomState::new(),
            spares: Mutex::default(),
        };
        for name in [WORD, OBJECT] {
            if files.is_directory(name) {
                return Err(PublishError::IsDirectory {
                    path: files.path.join(name),
                });
            }
        }
        files.clean();
        Ok(files)
    }

    /// Replaces both files, the word first: that is what is polled.
    ///
    /// # Errors
    /// The first step that failed; the files then have their old content, or the word its new and the object its old.
    pub fn write(&self, state: &StateObject) -> Result<(), PublishError> {
        let mut object = serde_json::to_vec(state)?;
        object.push(b'\n');
        self.replace(WORD, format!("{}\n", state.state).as_bytes())?;
        self.replace(OBJECT, &object)
    }

    fn replace(&self, name: &'static str, content: &[u8]) -> Result<(), PublishError> {
        let made = self.create(name).and_then(|(temporary, mut file)| {
            let filled = self.fill(name, &mut file, content);
            if filled.is_err() {
                self.remove(&temporary);
            }
            filled.map(|()| (temporary, file))
        });
        match made {
            Err(error) if error.is_disk_full() => self.replace_by_spare(name, content, error),
            Err(error) => Err(error),
            Ok((temporary, file)) => {
                let replaced = self.finish(name, &temporary, &file);
                match &replaced {
                    Ok(()) => self.provide_spare(name),
                    Err(_) => self.remove(&temporary),
                }
                replaced
            }
        }
    }

    /// Gives the new file its mode and its name.
    fn finish(&self, name: &str, temporary: &str, file: &File) -> Result<(), PublishError> {
        self.open_to_all(name, file)?;
        let to = &self.directory;
        renameat(to, temporary, to, name).map_err(|source| self.refused(name, source))
    }

    fn open_to_all(&self, name: &str, file: &File) -> Result<(), PublishError> {
        // Explicit, because the umask is the caller's.
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IROTH;
        fchmod(file, mode).map_err(|source| PublishError::Mode {
            path: self.path.join(name),
            source,
        })
    }

    /// `full`: why no new file was to be had.
    fn replace_by_spare(
        &self,
        name: &'static str,
        content: &[u8],
        full: PublishError,
    ) -> Result<(), PublishError> {
        let Some((temporary, mut file)) = self.spares().remove(name) else {
            return Err(full);
        };
        let filled = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(content))
            .and_then(|()| file.set_len(content.len() as u64));
        if let Err(source) = filled {
            // For what is shorter it has the space.
            self.spares().insert(name, (temporary, file));
            let path = self.path.join(name);
            return Err(PublishError::Write { path, source });
        }
        self.open_to_all(name, &file)?;
        let here = &self.directory;
        let exchange = RenameFlags::RENAME_EXCHANGE;
        match renameat2(here, temporary.as_str(), here, name, exchange) {
            Ok(()) => self.keep(name, temporary),
            // There is none yet, or the file system knows no exchange.
            Err(_) => {
                if let Err(error) = self.finish(name, &temporary, &file) {
                    self.remove(&temporary);
                    return Err(error);
                }
                self.provide_spare(name);
            }
        }
        Ok(())
    }

    /// Makes what the target was the next spare, if it is ours.
    fn keep(&self, name: &'static str, temporary: String) {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = openat(&self.directory, temporary.as_str(), flags, Mode::empty());
        let ours = |file: &File| {
            let metadata = file.metadata();
            metadata.is_ok_and(|meta| {
                meta.is_file() && meta.uid() == geteuid().as_raw() && meta.nlink() == 1
            })
        };
        match opened.map(File::from) {
            Ok(file) if ours(&file) => {
                self.spares().insert(name, (temporary, file));
            }
            _ => self.remove(&temporary),
        }
    }

    /// Takes space for the next replacement on a full disk, as far as there is some.
    fn provide_spare(&self, name: &'static str) {
        if self.spares().contains_key(name) {
            return;
        }
        let Ok((temporary, mut file)) = self.create(name) else {
            return;
        };
        let space = if name == WORD { SPARE_WORD } else { SPARE };
        let space = [0; SPARE].get(..space).unwrap_or_default();
        if self.fill(name, &mut file, space).is_ok() {
            self.spares().insert(name, (temporary, file));
        } else {
            self.remove(&temporary);
        }
    }

    fn spares(&self) -> MutexGuard<'_, BTreeMap<&'static str, (String, File)>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, temporary: &str) {
        let removed = unlinkat(&self.directory, temporary, UnlinkatFlags::NoRemoveDir);
        if let Err(error) = removed {
            tracing::warn!(file = temporary, %error, "a temporary file stays behind");
        }
    }

    fn create(&self, name: &str) -> Result<(String, File), PublishError> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut attempt = 0;
        loop {
            // Not to be guessed, so that nobody can keep every name taken.
            let nonce = self.random.hash_one((Instant::now(), attempt));
            let temporary = format!(".{name}.{nonce:016x}.tmp");
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            match openat(&self.directory, temporary.as_str(), flags, mode) {
                Ok(file) => return Ok((temporary, File::from(file))),
                Err(Errno::EEXIST) if attempt < ATTEMPTS => attempt += 1,
                Err(source) => {
                    return Err(PublishError::Create {
                        path: self.path.join(name),
                        source,
                    });
                }
            }
        }
    }

    fn fill(&self, name: &str, file: &mut File, content: &[u8]) -> Result<(), PublishError> {
        file.write_all(content)
            .map_err(|source| PublishError::Write {
                path: self.path.join(name),
                source,
            })
    }

    fn refused(&self, name: &str, source: Errno) -> PublishError {
        let path = self.path.join(name);
        match source {
            Errno::EISDIR | Errno::ENOTEMPTY | Errno::EEXIST if self.is_directory(name) => {
                PublishError::IsDirectory { path }
            }
            Errno::EPERM | Errno::EACCES => PublishError::Foreign { path },
            source => PublishError::Rename { path, source },
        }
    }

    fn is_directory(&self, name: &str) -> bool {
        fstatat(&self.directory, name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
        })
    }

    /// Removes temporary files of an earlier writer of this user. There is one writer at a time.
    fn clean(&self) {
        // Through the descriptor: the path may name another directory by now.
        let listed = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
        let Ok(entries) = std::fs::read_dir(listed) else {
            return;
        };
        let owner = geteuid().as_raw();
        for entry in entries.take(MAX_SEARCHED).flatten() {
            let name = entry.file_name();
            let ours = name.to_str().is_some_and(is_temporary)
                && (entry.metadata()).is_ok_and(|meta| meta.is_file() && meta.uid() == owner);
            if ours {
                match unlinkat(
                    &self.directory,
                    name.as_os_str(),
                    UnlinkatFlags::NoRemoveDir,
                ) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(error) => {
                        tracing::warn!(file = ?name, %error, "cannot remove a leftover file");
                    }
                }
            }
        }
    }
}

impl Drop for StateFiles {
    fn drop(&mut self) {
        for (temporary, _) in std::mem::take(&mut *self.spares()).into_values() {
            self.remove(&temporary);
        }
    }
}

/// A stand-in for `/tmp`, open to everyone whatever the umask.
fn create_sticky(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    std::fs::set_permissions(directory, Permissions::from_mode(0o1777))
}

fn is_temporary(name: &str) -> bool {
    [WORD, OBJECT].into_iter().any(|target| {
        name.strip_prefix('.')
            .and_then(|name| name.strip_prefix(target))
            .and_then(|name| name.strip_prefix('.'))
            .and_then(|name| name.strip_suffix(".tmp"))
            .is_some_and(|nonce| nonce.len() == 16 && nonce.bytes().all(|b| b.is_ascii_hexdigit()))
    })
}

/// Keeps the files current until `shutdown`, then writes the newest value once more. Send the final state before: this
/// task does not know whether the container ends or only its supervisor.
pub async fn publish(
    files: StateFiles,
    mut states: watch::Receiver<Arc<StateObject>>,
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut writer = Writer {
        files: Arc::new(files),
        failing: false,
    };
    let mut word = None;
    let mut next = Instant::now();
    loop {
        let open = tokio::select! {
            () = &mut shutdown => break,
            changed = states.changed() => changed.is_ok(),
            _ = beat.tick() => true,
        };
        if !open {
            break;
        }
        // Newer values during the wait replace this one; only entering `working` cuts it short.
        let urgent = |state: &Arc<StateObject>| {
            state.state == AgentState::Working && word != Some(AgentState::Working)
        };
        let stopped = tokio::select! {
            () = &mut shutdown => true,
            _ = timeout_at(next, states.wait_for(urgent)) => false,
        };
        if stopped {
            break;
        }
        let state = Arc::clone(&states.borrow_and_update());
        word = Some(state.state);
        writer.write(state).await;
        next = Instant::now() + SPACING;
    }
    let last = Arc::clone(&states.borrow_and_update());
    if tokio::time::timeout(LAST_WRITE, writer.write(last))
        .await
        .is_err()
    {
        tracing::error!(
            waited_s = LAST_WRITE.as_secs(),
            "gave up waiting for the last write of the state files"
        );
    }
}

/// Writes away from the runtime's threads: a full or hanging disk must not stop anything else.
struct Writer {
    files: Arc<StateFiles>,
    failing: bool,
}

impl Writer {
    async fn write(&mut self, state: Arc<StateObject>) {
        let files = Arc::clone(&self.files);
        let written = tokio::task::spawn_blocking(move || {
            files.write(&state.seen_at(Timestamp::now().into()))
        })
        .await
        .unwrap_or(Err(PublishError::Task));
        match written {
            Ok(()) => self.failing = false,
            // Once a failure, not once a beat.
            Err(error) if !self.failing => {
                self.failing = true;
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the state files are out of date");
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests;
