//! Follows the file in which an agent writes its conversation, for the few records that nothing else tells.
//!
//! The file belongs to the agents' user, so the helper reads it, from where it was read last; a change of its directory
//! says when. The file or the directories above it may come later: the nearest directory that is there is watched then.
//! Records from before the agent's start (a resumed conversation) are passed over. Bounds: [`BACK`] bytes are looked at
//! in a file that is there already, [`CHUNK`] at a time, one line of at most [`transcript::MAX_LINE`] is kept, and
//! [`PLACES`] files are followed in one run of the agent.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use whim_wire::spec::AgentKind;

use super::evidence::Evidence;
use crate::agents::observe::transcript::{self, Entry, Lines};
use crate::clock::boot_now;
use crate::helper::{Change, Helper, Stamp};
use crate::state::moment::Moment;

/// How far back from its end a file is looked at first: what an earlier supervisor had not read yet.
const BACK: u64 = 1024 * 1024;
/// Bytes of one read.
const CHUNK: usize = 256 * 1024;
/// Files in one run. An agent has one conversation, a few when it clears it; more are no conversations.
const PLACES: u32 = 32;
/// After the helper failed: nothing tells when it is well again.
const AGAIN: Duration = Duration::from_secs(5);

/// The task that follows; ends when dropped.
#[derive(Debug)]
pub(super) struct Follower {
    place: watch::Sender<Option<PathBuf>>,
    places: u32,
    _task: AbortOnDropHandle<()>,
}

impl Follower {
    /// `since`: when the agent's process started.
    pub(super) fn start(
        helper: &Helper,
        kind: AgentKind,
        since: Moment,
        evidence: mpsc::Sender<Evidence>,
    ) -> Self {
        let (place, places) = watch::channel(None);
        let following = Following {
            helper: helper.clone(),
            // Before anything is watched, so that no change is missed.
            changes: helper.changes(),
            kind,
            since,
            evidence,
        };
        Self {
            place,
            places: 0,
            _task: AbortOnDropHandle::new(tokio::spawn(following.run(places))),
        }
    }

    /// The conversation is in this file from now on.
    pub(super) fn follow(&mut self, path: PathBuf) {
        if self.place.borrow().as_ref() == Some(&path) || self.places == PLACES {
            return;
        }
        self.places += 1;
        self.place.send_replace(Some(path));
    }
}

struct Following {
    helper: Helper,
    changes: broadcast::Receiver<Change>,
    kind: AgentKind,
    since: Moment,
    evidence: mpsc::Sender<Evidence>,
}

/// Nobody listens any more.
struct Over;

impl Following {
    async fn run(mut self, mut places: watch::Receiver<Option<PathBuf>>) {
        loop {
            let place = places.borrow_and_update().clone();
            let Some(path) = place else {
                if places.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                Over = self.follow(&path) => return,
                changed = places.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn follow(&mut self, path: &Path) -> Over {
        let mut reader = Reader::default();
        loop {
            let watched = self.watch(path).await;
            if self.read(path, &mut reader).await.is_err() {
                return Over;
            }
            let Some(watched) = watched else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            if self.changed(path, &watched).await.is_err() {
                return Over;
            }
        }
    }

    /// Watches the file's directory, or the nearest one above it that is there.
    async fn watch(&self, path: &Path) -> Option<PathBuf> {
        let mut before = None;
        loop {
            let nearest = self.nearest(path).await?;
            // One farther down may have been made before this one was watched.
            if path.parent() == Some(&nearest) || before.as_ref() == Some(&nearest) {
                return Some(nearest);
            }
            before = Some(nearest);
        }
    }

    async fn nearest(&self, path: &Path) -> Option<PathBuf> {
        for directory in path.ancestors().skip(1) {
            match self.helper.watch(directory).await {
                Ok(()) => return Some(directory.to_owned()),
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    tracing::warn!(%error, "the agent's transcript cannot be followed");
                    return None;
                }
            }
        }
        None
    }

    /// Waits until the file may have grown.
    async fn changed(&mut self, path: &Path, watched: &Path) -> Result<(), Over> {
        let own = path.parent() == Some(watched);
        let name = path.file_name();
        loop {
            match self.changes.recv().await {
                Ok(change) if change.directory == watched => {
                    let ours = change.name.is_empty()
                        || name.is_some_and(|name| name == change.name.as_str());
                    if ours || !own {
                        break;
                    }
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => break,
                Err(broadcast::error::RecvError::Closed) => return Err(Over),
            }
        }
        // One look covers whatever else was told by now.
        while self.changes.try_recv().is_ok() {}
        Ok(())
    }

    /// Reads what is new.
    async fn read(&self, path: &Path, reader: &mut Reader) -> Result<(), Over> {
        loop {
            let (bytes, stamp) = match self.helper.read_at(path, reader.offset, CHUNK).await {
                Ok(read) => read,
                Err(error) => {
                    if !error.is_not_found() {
                        tracing::debug!(%error, "transcript");
                    }
                    return Ok(());
                }
            };
            let full = bytes.len() == CHUNK;
            match reader.take(self.kind, &bytes, &stamp) {
                Taken::Elsewhere => continue,
                Taken::Entries(entries) => {
                    for entry in entries {
                        self.tell(entry, reader.caught_up).await?;
                    }
                }
            }
            if !full {
                reader.caught_up = true;
                return Ok(());
            }
        }
    }

    async fn tell(&self, entry: Entry, caught_up: bool) -> Result<(), Over> {
        let now = boot_now();
        let at = match entry.at {
            Some(at) => crate::state::clock::moment(at, now, jiff::Timestamp::now()),
            None if caught_up => now,
            // It may be as old as the file.
            None => return Ok(()),
        };
        if at < self.since {
            return Ok(());
        }
        let record = entry.record;
        let evidence = Evidence::Record { at, record };
        self.evidence.send(evidence).await.map_err(|_| Over)
    }
}

/// How far a file is read.
#[derive(Debug, Default)]
struct Reader {
    /// Device and inode.
    file: Option<(u64, u64)>,
    offset: u64,
    lines: Lines,
    /// Its end was reached once: what follows is new.
    caught_up: bool,
}

/// What a read came to.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Entries(Vec<Entry>),
    /// It is to be read from another offset.
    Elsewhere,
}

impl Reader {
    /// `bytes` of the file at the present offset.
    fn take(&mut self, kind: AgentKind, bytes: &[u8], stamp: &Stamp) -> Taken {
        let file = Some((stamp.device, stamp.inode));
        if self.file != file || stamp.size < self.offset {
            // Another file, or one that was cut: its last records may be old ones again, their dates tell.
            let begin = stamp.size.saturating_sub(BACK);
            let here = self.offset == begin;
            *self = Self {
                file,
                offset: begin,
                lines: if begin == 0 {
                    Lines::default()
                } else {
                    Lines::in_the_middle()
                },
                caught_up: false,
            };
            if !here {
                return Taken::Elsewhere;
            }
        }
        self.offset += bytes.len() as u64;
        let mut entries = Vec::new();
        self.lines.feed(bytes, |line| {
            entries.extend(transcript::entry(kind, line));
        });
        Taken::Entries(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::observe::transcript::Record;

    const ABORT: &[u8] = b"{\"type\":\"abort\",\"data\":{}}\n";

    fn stamp(inode: u64, size: u64) -> Stamp {
        Stamp {
            device: 1,
            inode,
            size,
            modified: 0,
        }
    }

    fn count(taken: &Taken) -> usize {
        match taken {
            Taken::Entries(entries) => {
                assert!(
                    entries
                        .iter()
                        .all(|entry| entry.record == Record::Interrupted)
                );
                entries.len()
            }
            Taken::Elsewhere => panic!("to be read elsewhere"),
        }
    }

    #[test]
    fn each_record_is_told_once_as_the_file_grows() {
        let mut reader = Reader::default();
        let length = ABORT.len() as u64;
        let mut take =
            |bytes: &[u8], size| count(&reader.take(AgentKind::Copilot, bytes, &stamp(1, size)));
        assert_eq!(take(ABORT, length), 1);
        assert_eq!(take(b"", length), 0);
        assert_eq!(take(&ABORT[..9], length + 9), 0);
        assert_eq!(take(&ABORT[9..], 2 * length), 1);
    }

    #[test]
    fn a_long_file_is_looked_at_from_near_its_end() {
        let mut reader = Reader::default();
        let long = stamp(1, BACK + 500);
        assert_eq!(
            reader.take(AgentKind::Copilot, ABORT, &long),
            Taken::Elsewhere
        );
        assert_eq!(reader.offset, 500);
        // The first line there is the rest of one.
        let twice = [ABORT, ABORT].concat();
        assert_eq!(count(&reader.take(AgentKind::Copilot, &twice, &long)), 1);
    }

    #[test]
    fn a_file_that_was_replaced_or_cut_is_read_anew() {
        let mut reader = Reader::default();
        let length = ABORT.len() as u64;
        assert_eq!(
            count(&reader.take(AgentKind::Copilot, ABORT, &stamp(1, length))),
            1
        );
        for other in [stamp(2, length), stamp(2, length - 1)] {
            assert_eq!(
                reader.take(AgentKind::Copilot, b"", &other),
                Taken::Elsewhere
            );
            assert_eq!(reader.offset, 0);
            assert_eq!(count(&reader.take(AgentKind::Copilot, ABORT, &other)), 1);
        }
    }
}
