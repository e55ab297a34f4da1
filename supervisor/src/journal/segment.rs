//! The files of the journal.
//!
//! A directory of segments, each named by the number of its first event and holding one event a line. The name keeps
//! the count even where no event is left: the newest segment always exists. `lost` holds the highest number that could
//! not be written; its space is taken at the start, so that it can be said on a full disk too.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use serde::Deserialize;

use super::{Entry, Limits, MAX_EVENT};

const LOCK: &str = "lock";
const LOST: &str = "lost";
const SUFFIX: &str = ".jsonl";
/// Bytes of one page of the past, about.
const PAGE_BYTES: usize = 1024 * 1024;

/// Why the journal cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    #[error("cannot create the directory {path}")]
    CreateDirectory {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot list {path}")]
    List {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot open {path}")]
    Open {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{path} is locked: another supervisor writes this journal")]
    Locked { path: PathBuf },
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot cut the damaged end of {path}")]
    Cut {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot bring {path} to stable storage")]
    Sync {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("cannot start the journal's writer")]
    Thread { source: std::io::Error },
    #[error("the reading task ended early")]
    Task,
}

/// What opening found and mended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Bytes of incomplete or damaged lines cut off the end.
    pub cut_bytes: u64,
    /// Number of the newest event on disk; 0 for none.
    pub newest: u64,
    /// Number of the newest event that is known to be lost; 0 for none.
    pub lost_until: u64,
}

/// A page of the past.
#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<Arc<Entry>>,
    /// Events after the asked number are missing before the first entry: dropped with their file, or never written.
    pub missing: bool,
    /// The page ends where the asked range ends, not at a limit.
    pub complete: bool,
}

/// The writing side.
#[derive(Debug)]
pub(super) struct Segments {
    directory: PathBuf,
    limits: Limits,
    current: File,
    current_path: PathBuf,
    length: u64,
    /// The end of the current file is in doubt: go on in a new one.
    spoilt: bool,
    lost: File,
    _lock: Flock<File>,
}

impl Segments {
    /// The writing side, the number of the next event, and what was mended.
    pub(super) fn open(
        directory: &Path,
        limits: Limits,
    ) -> Result<(Self, u64, Repair), SegmentError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| SegmentError::CreateDirectory {
                path: directory.to_path_buf(),
                source,
            })?;
        let lock_path = directory.join(LOCK);
        let lock = Flock::lock(file(&lock_path)?, FlockArg::LockExclusiveNonblock)
            .map_err(|_| SegmentError::Locked { path: lock_path })?;
        let lost_path = directory.join(LOST);
        let lost = file(&lost_path)?;
        let lost_until = read_number(&lost, &lost_path)?;
        write_number(&lost, lost_until).map_err(|source| SegmentError::Write {
            path: lost_path,
            source,
        })?;
        let first = list(directory)?.last().copied();
        let first = first.unwrap_or_else(|| lost_until.saturating_add(1));
        let current_path = path(directory, first);
        let current = file(&current_path)?;
        let mut repair = mend(&current, &current_path)?;
        repair.newest = repair.newest.max(first.saturating_sub(1));
        repair.lost_until = lost_until;
        let next = repair.newest.max(lost_until).saturating_add(1);
        let length = (current.metadata())
            .map_err(|source| SegmentError::Read {
                path: current_path.clone(),
                source,
            })?
            .len();
        let segments = Self {
            directory: directory.to_path_buf(),
            limits,
            current,
            current_path,
            length,
            spoilt: false,
            lost,
            _lock: lock,
        };
        Ok((segments, next, repair))
    }

    /// Writes lines that belong together, the first of them numbered `first`: all of them, or none.
    pub(super) fn write(&mut self, first: u64, lines: &[u8]) -> Result<(), SegmentError> {
        let bytes = lines.len() as u64;
        let full = self.length > 0 && self.length + bytes > self.limits.segment_bytes;
        if full || self.spoilt {
            self.rotate(first)?;
        }
        if let Err(source) = self.current.write_all(lines) {
            // A part may have been written. What cannot be cut off is left behind.
            self.spoilt = self.current.set_len(self.length).is_err();
            return Err(SegmentError::Write {
                path: self.current_path.clone(),
                source,
            });
        }
        self.length += bytes;
        Ok(())
    }

    fn rotate(&mut self, first: u64) -> Result<(), SegmentError> {
        let next = path(&self.directory, first);
        let new = file(&next)?;
        // Left by an attempt that failed; nothing in it was ever delivered.
        new.set_len(0).map_err(|source| SegmentError::Cut {
            path: next.clone(),
            source,
        })?;
        self.sync()?;
        self.current = new;
        self.current_path = next;
        self.length = 0;
        self.spoilt = false;
        let present = list(&self.directory)?;
        let surplus = present.len().saturating_sub(self.limits.segments.max(1));
        for first in present.into_iter().take(surplus) {
            let path = path(&self.directory, first);
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove an old journal file");
            }
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), SegmentError> {
        (self.current.sync_data()).map_err(|source| SegmentError::Sync {
            path: self.current_path.clone(),
            source,
        })
    }

    /// Notes that numbers up to `seq` are used though their events are not on disk.
    pub(super) fn note_lost(&self, seq: u64) -> std::io::Result<()> {
        write_number(&self.lost, seq)
    }
}

/// At most `limit` events with numbers above `after` and up to `until`.
pub(super) fn read(
    directory: &Path,
    after: u64,
    until: u64,
    limit: usize,
) -> Result<Page, SegmentError> {
    let mut page = Page::default();
    let firsts = list(directory)?;
    // The last segment that starts at or before the first wanted event, and all later ones.
    let wanted = after.saturating_add(1);
    let start = firsts
        .partition_point(|first| *first <= wanted)
        .saturating_sub(1);
    let mut bytes = 0;
    for first in firsts.into_iter().skip(start) {
        let path = path(directory, first);
        let segment = match File::open(&path) {
            Ok(segment) => segment,
            // Dropped since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(source) => return Err(SegmentError::Open { path, source }),
        };
        let mut lines = BufReader::new(segment);
        while let Some(line) = next_line(&mut lines).map_err(|source| SegmentError::Read {
            path: path.clone(),
            source,
        })? {
            let Some(entry) = parse(&line) else {
                continue;
            };
            if entry.seq <= after {
                continue;
            }
            if entry.seq > until {
                page.complete = true;
                return Ok(page);
            }
            if page.entries.len() >= limit || bytes >= PAGE_BYTES {
                return Ok(page);
            }
            page.missing |= page.entries.is_empty() && entry.seq != wanted;
            bytes += line.len();
            page.entries.push(Arc::new(entry));
        }
    }
    page.complete = true;
    page.missing |= page.entries.is_empty() && wanted <= until;
    Ok(page)
}

/// The next complete line; an incomplete one is being written and no part of the past yet.
fn next_line(lines: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let bound = (MAX_EVENT + 1) as u64;
    lines.take(bound).read_until(b'\n', &mut line)?;
    if line.pop() == Some(b'\n') {
        return Ok(Some(line));
    }
    if (line.len() as u64) < bound - 1 {
        return Ok(None);
    }
    // Longer than any event: damaged. Skip to its end without holding it.
    lines.skip_until(b'\n')?;
    Ok(Some(Vec::new()))
}

fn parse(line: &[u8]) -> Option<Entry> {
    #[derive(Deserialize)]
    struct Head<'a> {
        seq: u64,
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    let json = std::str::from_utf8(line).ok()?;
    let head: Head<'_> = serde_json::from_str(json).ok()?;
    Some(Entry {
        seq: head.seq,
        kind: head.kind.into(),
        json: json.into(),
    })
}

/// Cuts off what follows the last good line and finds the newest number. Leaves the file positioned at its end.
fn mend(mut segment: &File, path: &Path) -> Result<Repair, SegmentError> {
    let read = |source| SegmentError::Read {
        path: path.to_path_buf(),
        source,
    };
    let mut lines = BufReader::new(segment);
    let mut repair = Repair::default();
    let mut good = 0u64;
    let mut seen = 0u64;
    loop {
        let before = lines.stream_position().map_err(read)?;
        let Some(line) = next_line(&mut lines).map_err(read)? else {
            seen = seen.max(before);
            break;
        };
        seen = lines.stream_position().map_err(read)?;
        if let Some(entry) = parse(&line) {
            repair.newest = repair.newest.max(entry.seq);
            good = seen;
        }
    }
    let length = segment.metadata().map_err(read)?.len();
    if good < length.max(seen) {
        repair.cut_bytes = length - good;
        segment.set_len(good).map_err(|source| SegmentError::Cut {
            path: path.to_path_buf(),
            source,
        })?;
    }
    segment.seek(SeekFrom::End(0)).map_err(read)?;
    Ok(repair)
}

/// First numbers of the segments, rising.
fn list(directory: &Path) -> Result<Vec<u64>, SegmentError> {
    let failed = |source| SegmentError::List {
        path: directory.to_path_buf(),
        source,
    };
    let mut firsts = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let first = (name.to_str())
            .and_then(|name| name.strip_suffix(SUFFIX))
            .filter(|digits| digits.len() == 20)
            .and_then(|digits| digits.parse::<u64>().ok());
        firsts.extend(first);
    }
    firsts.sort_unstable();
    Ok(firsts)
}

fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}{SUFFIX}"))
}

fn file(path: &Path) -> Result<File, SegmentError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|source| SegmentError::Open {
            path: path.to_path_buf(),
            source,
        })
}

fn read_number(file: &File, path: &Path) -> Result<u64, SegmentError> {
    let mut text = String::new();
    let read = file.take(64).read_to_string(&mut text);
    read.map_err(|source| SegmentError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(text.trim().parse().unwrap_or(0))
}

fn write_number(file: &File, number: u64) -> std::io::Result<()> {
    file.write_all_at(format!("{number:020}\n").as_bytes(), 0)
}
