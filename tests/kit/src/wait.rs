//! Waiting for conditions, never for the clock alone.
//!
//! Every wait has a limit, and one that passes says what it waited for and what it last saw. What the kernel announces
//! (a file) is waited for by inotify; what it does not (`/proc`) is looked at every few milliseconds.

use std::fmt::Debug;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// Between two looks at what nobody announces.
const LOOK: Duration = Duration::from_millis(4);

/// A condition that did not come about.
#[derive(Clone, Debug, thiserror::Error)]
#[error("waited {limit:?} in vain for {what}; last seen: {last}")]
pub struct TimedOut {
    what: String,
    limit: Duration,
    last: String,
}

impl TimedOut {
    pub(crate) fn new(what: &str, limit: Duration, last: String) -> Self {
        Self {
            what: what.to_owned(),
            limit,
            last,
        }
    }
}

/// Looks until `look` finds something.
///
/// # Errors
/// After `limit`.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, TimedOut> {
    until_ok(what, limit, || look().ok_or("nothing"))
}

/// Looks until `look` succeeds; its last error becomes part of the message.
///
/// # Errors
/// After `limit`.
pub fn until_ok<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> Result<T, TimedOut> {
    let deadline = Instant::now() + limit;
    loop {
        match look() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(TimedOut::new(what, limit, format!("{error:?}")));
            }
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// Why a file did not come.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Its directory cannot be watched.
    #[error("cannot watch {path}: {source}")]
    Watch { path: PathBuf, source: io::Error },
    /// It did not satisfy in time.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
}

/// Waits until the content of a file satisfies `look`. The nearest directory that exists is watched, so the file and its
/// directories need not exist yet.
///
/// # Errors
/// After `limit`, or when no directory above can be watched.
pub fn file<T>(
    path: &Path,
    limit: Duration,
    mut look: impl FnMut(&str) -> Option<T>,
) -> Result<T, FileError> {
    let deadline = Instant::now() + limit;
    loop {
        let directory = path
            .ancestors()
            .skip(1)
            .find(|above| above.is_dir())
            .unwrap_or_else(|| Path::new("/"));
        let failed = |source: io::Error| FileError::Watch {
            path: directory.to_owned(),
            source,
        };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).map_err(|error| failed(error.into()))?;
        let flags =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE;
        inotify
            .add_watch(directory, flags)
            .map_err(|error| failed(error.into()))?;
        // Looked at after the watch stands, so that no change falls between.
        let content = std::fs::read_to_string(path);
        if let Some(found) = content.as_deref().ok().and_then(&mut look) {
            return Ok(found);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let last = content.unwrap_or_else(|error| error.to_string());
            return Err(TimedOut::new(&path.display().to_string(), limit, last).into());
        }
        // A directory made between the look for it and the watch is seen at the next round, at the latest.
        let round = left.min(Duration::from_millis(100));
        let timeout = PollTimeout::try_from(round).unwrap_or(PollTimeout::ZERO);
        poll(
            &mut [PollFd::new(inotify.as_fd(), PollFlags::POLLIN)],
            timeout,
        )
        .map_err(|error| failed(error.into()))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_seen_when_it_appears_in_a_directory_that_was_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/whim/ready.json");
        let writer = {
            let path = path.clone();
            std::thread::spawn(move || {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, "ok").unwrap();
            })
        };
        let found = file(&path, Duration::from_secs(5), |content| {
            (content == "ok").then_some(1)
        })
        .unwrap();
        writer.join().unwrap();
        assert_eq!(found, 1);
    }

    #[test]
    fn a_wait_in_vain_says_for_what() {
        let error = until::<()>("a miracle", Duration::ZERO, || None).unwrap_err();
        assert!(error.to_string().contains("for a miracle"), "{error}");
    }
}
