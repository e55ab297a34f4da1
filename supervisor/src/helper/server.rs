//! The helper process: reads a request, does it, answers; reports changes in watched directories in between.
//!
//! Synchronous, one thread. Ends when the supervisor's end of the socket closes. Opens everything without blocking and
//! touches regular files only, so that a FIFO or a device in a file's place is an error and not a hang.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::signal::{SigSet, Signal};

use super::protocol::{
    Action, Answer, Entry, EntryKind, MAX_BODY, MAX_ENTRIES, MAX_JSON, NO_SIZE, Reply, Request,
    SOCKET, Stamp, encode, lengths,
};
use super::put;

/// Most watched directories; the kernel's own limit is far higher, a runaway request is refused here.
const MAX_WATCHES: usize = 512;
/// Deepest tree that is walked: agents nest their files four deep.
const MAX_DEPTH: usize = 16;

/// `whim helper`: serves until its socket closes.
#[must_use]
pub fn main() -> ExitCode {
    // Nobody of the same user may look into it or trace it; it holds nothing secret, but its answers are relied on.
    if nix::sys::prctl::set_dumpable(false).is_err() {
        return ExitCode::from(70);
    }
    #[expect(
        unsafe_code,
        reason = "the socket arrives as an inherited descriptor number"
    )]
    // SAFETY: the keeper put the socket at this number for this process and nothing else here owns it.
    let socket = UnixStream::from(unsafe { OwnedFd::from_raw_fd(SOCKET) });
    // The container's end begins with TERM to all; what is saved then is read by us. The end of the socket is ours.
    let asked: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]
        .into_iter()
        .collect();
    if asked.thread_block().is_err() {
        return ExitCode::from(70);
    }
    match serve(socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(70),
    }
}

pub(super) struct Watches {
    inotify: Inotify,
    directories: HashMap<WatchDescriptor, PathBuf>,
}

impl Watches {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self {
            inotify,
            directories: HashMap::new(),
        })
    }
}

fn serve(mut socket: UnixStream) -> io::Result<()> {
    let mut watches = Watches::new()?;
    loop {
        let (readable, changed) = {
            let mut descriptors = [
                PollFd::new(socket.as_fd(), PollFlags::POLLIN),
                PollFd::new(watches.inotify.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut descriptors, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let [socket, inotify] = descriptors;
            (
                socket.any().unwrap_or(false),
                inotify.any().unwrap_or(false),
            )
        };
        if changed {
            report_changes(&mut socket, &mut watches)?;
        }
        if readable {
            let Some((request, body)) = receive(&mut socket)? else {
                return Ok(());
            };
            let (answer, content) = match perform(&request.action, &body, &mut watches) {
                Ok(done) => done,
                Err(error) => (failed(&error), Vec::new()),
            };
            let id = request.id;
            let frame = encode(&Reply { id, answer }, &content);
            // Too long for one answer is the question's fault, and no reason to leave all others without one.
            let frame = frame.or_else(|_| {
                let answer = failed(&Errno::EMSGSIZE.into());
                encode(&Reply { id, answer }, &[])
            });
            socket.write_all(&frame?)?;
        }
    }
}

fn receive(socket: &mut UnixStream) -> io::Result<Option<(Request, Vec<u8>)>> {
    let mut header = [0; 8];
    match socket.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let (json, body) = lengths(header)?;
    let mut part = vec![0; json];
    socket.read_exact(&mut part)?;
    let mut content = vec![0; body];
    socket.read_exact(&mut content)?;
    Ok(Some((serde_json::from_slice(&part)?, content)))
}

fn report_changes(socket: &mut UnixStream, watches: &mut Watches) -> io::Result<()> {
    let events = match watches.inotify.read_events() {
        Ok(events) => events,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    for event in events {
        let lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
        let directories: Vec<&PathBuf> = if lost {
            watches.directories.values().collect()
        } else {
            watches.directories.get(&event.wd).into_iter().collect()
        };
        let name = event
            .name
            .as_ref()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        for directory in directories {
            let answer = Answer::Changed {
                directory: directory.clone(),
                name: name.clone(),
            };
            socket.write_all(&encode(&Reply { id: 0, answer }, &[])?)?;
        }
        // The directory is gone, and its watch with it: it no longer counts.
        if event.mask.contains(AddWatchFlags::IN_IGNORED) {
            watches.directories.remove(&event.wd);
        }
    }
    Ok(())
}

pub(super) fn failed(error: &io::Error) -> Answer {
    Answer::Failed {
        errno: error.raw_os_error().unwrap_or(Errno::EIO as i32),
        message: error.to_string(),
    }
}

/// Does one action; what the loop above does, and a helper that is no process.
pub(super) fn perform(
    action: &Action,
    body: &[u8],
    watches: &mut Watches,
) -> io::Result<(Answer, Vec<u8>)> {
    let answer = match action {
        Action::Read {
            path,
            offset,
            limit,
        } => {
            return read(open_regular(path, OFlag::empty())?, *offset, *limit);
        }
        Action::ReadPlain {
            path,
            offset,
            limit,
        } => {
            return read(open_regular(path, OFlag::O_NOFOLLOW)?, *offset, *limit);
        }
        Action::Tree { path } => tree(path)?,
        Action::Write { path, mode, expect } => Answer::Written {
            stamp: write(path, *mode, *expect, body)?,
        },
        Action::List { path } => list(path)?,
        Action::Stat { path } => {
            let metadata = fs::metadata(path)?;
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            Answer::Entry {
                entry: entry(name, &metadata),
            }
        }
        Action::Canonicalize { path } => Answer::Path {
            path: fs::canonicalize(path)?,
        },
        Action::MakeDirectory { path, mode } => {
            fs::create_dir_all(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
            Answer::Done
        }
        Action::Remove { path } => {
            fs::remove_file(path)?;
            Answer::Done
        }
        Action::RemoveDirectory { path } => {
            fs::remove_dir(path)?;
            Answer::Done
        }
        Action::RemoveTree { path } => match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => Answer::Done,
        },
        Action::Put {
            path,
            mode,
            offset,
            last,
        } => {
            put::put(path, *mode, *offset, *last, body)?;
            Answer::Done
        }
        Action::Sizes { directory } => return Ok((Answer::Sizes, sizes(directory, body))),
        Action::Watch { directory } => {
            if watches.directories.len() >= MAX_WATCHES {
                return Err(Errno::ENOSPC.into());
            }
            let flags = AddWatchFlags::IN_CLOSE_WRITE
                | AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_MOVED_TO
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_MOVED_FROM
                | AddWatchFlags::IN_ONLYDIR;
            let descriptor = watches.inotify.add_watch(directory, flags)?;
            watches.directories.insert(descriptor, directory.clone());
            Answer::Done
        }
    };
    Ok((answer, Vec::new()))
}

/// See [`Action::Sizes`].
fn sizes(directory: &Path, names: &[u8]) -> Vec<u8> {
    let size = |name: &[u8]| {
        let path = directory.join(OsStr::from_bytes(name));
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_file() || metadata.is_symlink() => metadata.len(),
            Ok(_) | Err(_) => NO_SIZE,
        }
    };
    names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .flat_map(|name| size(name).to_le_bytes())
        .collect()
}

fn read(
    (mut file, stamp): (File, Stamp),
    offset: u64,
    limit: usize,
) -> io::Result<(Answer, Vec<u8>)> {
    file.seek(SeekFrom::Start(offset))?;
    let mut content = Vec::new();
    file.take(limit.min(MAX_BODY) as u64)
        .read_to_end(&mut content)?;
    Ok((Answer::Content { stamp }, content))
}

fn open_regular(path: &Path, more: OFlag) -> io::Result<(File, Stamp)> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | more;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(if metadata.is_dir() {
            Errno::EISDIR.into()
        } else {
            Errno::EINVAL.into()
        });
    }
    Ok((file, stamp(&metadata)))
}

fn write(path: &Path, mode: u32, expect: Option<Option<Stamp>>, body: &[u8]) -> io::Result<Stamp> {
    let directory = path.parent().ok_or(Errno::EINVAL)?;
    fs::create_dir_all(directory)?;
    // Through a symlink the target is replaced, so that a link into a dotfiles checkout survives.
    let target = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
        Err(error) => return Err(error),
    };
    let present = match fs::metadata(&target) {
        Ok(metadata) if metadata.is_file() => Some(stamp(&metadata)),
        Ok(_) => return Err(Errno::EINVAL.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if expect.is_some_and(|expected| expected != present) {
        return Err(Errno::ESTALE.into());
    }
    let name = target
        .file_name()
        .ok_or(Errno::EINVAL)?
        .to_string_lossy()
        .into_owned();
    let temporary = target.with_file_name(format!(".{name}.whim-{}", std::process::id()));
    let result = replace(&temporary, &target, mode, body);
    if result.is_err() {
        // The error that is reported is the one above; a left-over is overwritten by nobody and found by its name.
        drop(fs::remove_file(&temporary));
    }
    result
}

fn replace(temporary: &Path, target: &Path, mode: u32, body: &[u8]) -> io::Result<Stamp> {
    drop(fs::remove_file(temporary));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(temporary)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(body)?;
    let stamp = stamp(&file.metadata()?);
    fs::rename(temporary, target)?;
    Ok(stamp)
}

/// What still fits into one answer.
struct Room {
    entries: usize,
    bytes: usize,
}

impl Room {
    /// JSON of an entry beside its name, at most.
    const ENTRY: usize = 256;

    fn new() -> Self {
        Self {
            entries: MAX_ENTRIES,
            bytes: MAX_JSON - 2 * Self::ENTRY,
        }
    }

    fn take(&mut self, name: &str) -> bool {
        // Control characters take six bytes each.
        let name = if name.contains(|c: char| c.is_control() || c == '"' || c == '\\') {
            6 * name.len()
        } else {
            name.len()
        };
        let left = self.bytes.checked_sub(name + Self::ENTRY);
        let (true, Some(left)) = (self.entries > 0, left) else {
            return false;
        };
        self.entries -= 1;
        self.bytes = left;
        true
    }
}

fn list(path: &Path) -> io::Result<Answer> {
    let mut entries = Vec::new();
    let mut cut = false;
    let mut room = Room::new();
    for item in fs::read_dir(path)? {
        let item = item?;
        // An entry that vanished since it was listed is not there.
        let Ok(metadata) = item.metadata() else {
            continue;
        };
        let name = item.file_name().to_string_lossy().into_owned();
        if !room.take(&name) {
            cut = true;
            break;
        }
        entries.push(entry(name, &metadata));
    }
    Ok(Answer::Entries { entries, cut })
}

/// Everything below a directory.
pub(super) fn tree(root: &Path) -> io::Result<Answer> {
    let mut leaves = Vec::new();
    let mut directories = Vec::new();
    let mut cut = false;
    let mut room = Room::new();
    let mut open = vec![(String::new(), 0)];
    while let Some((below, depth)) = open.pop() {
        let items = match fs::read_dir(root.join(&below)) {
            Ok(items) => items,
            Err(error) if below.is_empty() => return Err(error),
            // Removed since it was seen, or closed to us: what is in it is not there.
            Err(_) => continue,
        };
        for item in items.flatten() {
            // Names that are no text are nobody's transcripts.
            let (Ok(name), Ok(metadata)) = (item.file_name().into_string(), item.metadata()) else {
                continue;
            };
            let path = if below.is_empty() {
                name
            } else {
                format!("{below}/{name}")
            };
            if !room.take(&path) {
                cut = true;
            } else if !metadata.is_dir() {
                leaves.push(entry(path, &metadata));
            } else if depth < MAX_DEPTH {
                open.push((path, depth + 1));
            }
        }
        directories.push(below);
    }
    Ok(Answer::Tree {
        leaves,
        directories,
        cut,
    })
}

fn entry(name: String, metadata: &fs::Metadata) -> Entry {
    let kind = match metadata.file_type() {
        kind if kind.is_file() => EntryKind::File,
        kind if kind.is_dir() => EntryKind::Directory,
        kind if kind.is_symlink() => EntryKind::Link,
        _ => EntryKind::Other,
    };
    Entry {
        name,
        kind,
        stamp: stamp(metadata),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
    }
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_one_answer_is_cut_and_told() {
        let directory = tempfile::tempdir().unwrap();
        // Written in JSON with six bytes for each of theirs, 1,700 such names are more than an answer may have.
        let name = "\u{1}".repeat(250);
        let below = directory.path().join("x".repeat(250));
        fs::create_dir(&below).unwrap();
        for number in 0..3000 {
            File::create(below.join(format!("{number:04}-{name}"))).unwrap();
        }
        for answer in [list(&below).unwrap(), tree(directory.path()).unwrap()] {
            let (entries, cut) = match &answer {
                Answer::Entries { entries, cut } => (entries.len(), *cut),
                Answer::Tree { leaves, cut, .. } => (leaves.len(), *cut),
                other => panic!("{other:?}"),
            };
            assert!(cut && entries > 1000, "{entries}");
            encode(&Reply { id: 1, answer }, &[]).unwrap();
        }
    }

    #[test]
    fn an_ordinary_directory_is_told_whole() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..100 {
            File::create(directory.path().join(number.to_string())).unwrap();
        }
        let answer = list(directory.path()).unwrap();
        assert!(matches!(answer, Answer::Entries { entries, cut: false } if entries.len() == 100));
    }
}
