//! What of a terminal outlives the supervisor: its screen and scrollback, on disk.
//!
//! The keeper's ring holds output only until it is acknowledged. So every byte is written here before it is
//! acknowledged, and a supervisor that comes up after a crash restores the screen at exactly the offset where the ring
//! goes on. Nothing is synced: the files need to survive this process, not the machine (the program does not survive
//! that either).
//!
//! Two files a terminal: `ID.screen`, a checkpoint (a snapshot and its offset), replaced by rename; and
//! `ID.OFFSET.tail`, what came after the checkpoint of that offset. A record of the tail is a kind (`o` output, `r`
//! size), a length (u32, big-endian) and so many bytes; one that was cut short by the crash was not acknowledged and is
//! left out.
//!
//! Bounds: a tail of [`TAIL`] bytes is followed by a new checkpoint as soon as the screen has seen all output, at the
//! latest when it has [`LONGEST_TAIL`]: until then a flood of plain text is only written, not looked at. A disk that
//! takes no more interrupts the keeping with one warning, never the terminal; a crash during that restores an older
//! screen and says what is missing. With the output that comes [`RETRY`] later or more, a new checkpoint is tried.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::screen::{Effects, MAX_LINES, Screen, SnapshotOptions};
use super::size::Size;
use super::terminal::TerminalId;

/// Tail after which a checkpoint is made when it costs nothing more.
const TAIL: u64 = 8 << 20;
/// Tail after which one is made in any case.
const LONGEST_TAIL: u64 = 32 << 20;
/// Output of the tail that is looked at together for what leaves no trace.
const TOGETHER: usize = 2 << 20;
/// Between two attempts at a disk that took no more.
const RETRY: Duration = Duration::from_secs(2);
const MAGIC: &[u8; 8] = b"whimscr1";
const OUTPUT: u8 = b'o';
const RESIZE: u8 = b'r';

/// What went wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} is not a checkpoint of a terminal")]
    Malformed { path: PathBuf },
}

/// See the module's header.
#[derive(Debug)]
pub struct Keep {
    directory: PathBuf,
    id: TerminalId,
    tail: Tail,
}

#[derive(Debug)]
enum Tail {
    Open {
        file: File,
        path: PathBuf,
        written: u64,
    },
    /// The disk took no more, the last time at this moment.
    Broken(Instant),
}

/// A terminal as an earlier supervisor left it.
#[derive(Debug)]
pub struct Restored {
    pub screen: Screen,
    /// Where the source is to go on.
    pub offset: u64,
}

fn screen_path(directory: &Path, id: &TerminalId) -> PathBuf {
    directory.join(format!("{id}.screen"))
}

/// Where a checkpoint is written before it takes its place.
fn unfinished(screen: &Path) -> PathBuf {
    screen.with_extension("screen.new")
}

fn tail_path(directory: &Path, id: &TerminalId, offset: u64) -> PathBuf {
    directory.join(format!("{id}.{offset}.tail"))
}

fn create(path: &Path) -> Result<File, KeepError> {
    // Terminals show what people type and agents read: nobody else's business.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| KeepError::Write {
            path: path.to_owned(),
            source,
        })
}

impl Keep {
    /// Begins to keep a terminal whose screen stands at `offset`. Replaces what was kept under its name.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn begin(
        directory: &Path,
        id: &TerminalId,
        screen: &mut Screen,
        offset: u64,
    ) -> Result<Self, KeepError> {
        let mut keep = Self::later(directory, id);
        keep.start(screen, offset)?;
        Ok(keep)
    }

    /// Begins when the disk takes it.
    #[must_use]
    pub fn later(directory: &Path, id: &TerminalId) -> Self {
        Self {
            directory: directory.to_owned(),
            id: id.clone(),
            tail: Tail::Broken(Instant::now()),
        }
    }

    fn start(&mut self, screen: &mut Screen, offset: u64) -> Result<(), KeepError> {
        let path = tail_path(&self.directory, &self.id, offset);
        let file = create(&path)?;
        if let Err(error) = self.write_screen(screen, offset) {
            // Without the checkpoint it belongs to, it would be one more with each attempt.
            remove_file(&path);
            return Err(error);
        }
        for old in tails(&self.directory, &self.id) {
            if old != path {
                remove_file(&old);
            }
        }
        self.tail = Tail::Open {
            file,
            path,
            written: 0,
        };
        Ok(())
    }

    /// The terminal as it was kept, if it was. Call before [`Keep::begin`].
    ///
    /// # Errors
    /// When there are files and they cannot be read.
    pub fn restore(directory: &Path, id: &TerminalId) -> Result<Option<Restored>, KeepError> {
        let path = screen_path(directory, id);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(KeepError::Read { path, source }),
        };
        let (offset, size, snapshot) =
            parse_checkpoint(&bytes).ok_or(KeepError::Malformed { path })?;
        let mut screen = Screen::new(size);
        let mut effects = Effects::default();
        screen.feed(snapshot, &mut effects);
        let mut restored = Restored { screen, offset };
        let path = tail_path(directory, id, offset);
        match File::open(&path) {
            Ok(file) => restored
                .replay(BufReader::new(file))
                .map_err(|source| KeepError::Read { path, source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(KeepError::Read { path, source }),
        }
        Ok(Some(restored))
    }

    /// Forgets a terminal.
    pub fn remove(directory: &Path, id: &TerminalId) {
        let screen = screen_path(directory, id);
        remove_file(&unfinished(&screen));
        remove_file(&screen);
        for path in tails(directory, id) {
            remove_file(&path);
        }
    }

    pub(super) fn output(&mut self, bytes: &[u8]) -> Result<(), KeepError> {
        self.record(OUTPUT, bytes)
    }

    pub(super) fn resize(&mut self, size: Size) -> Result<(), KeepError> {
        self.record(RESIZE, &super::attach::size_bytes(size))
    }

    /// Fails once, then waits for the next checkpoint.
    fn record(&mut self, kind: u8, body: &[u8]) -> Result<(), KeepError> {
        let Tail::Open {
            file,
            path,
            written,
        } = &mut self.tail
        else {
            return Ok(());
        };
        let mut write = || {
            let length = u32::try_from(body.len()).map_err(io::Error::other)?;
            let mut record = Vec::with_capacity(5 + body.len());
            record.push(kind);
            record.extend_from_slice(&length.to_be_bytes());
            record.extend_from_slice(body);
            file.write_all(&record)?;
            Ok(5 + u64::from(length))
        };
        match write() {
            Ok(more) => {
                *written += more;
                Ok(())
            }
            Err(source) => {
                let path = path.clone();
                self.tail = Tail::Broken(Instant::now());
                Err(KeepError::Write { path, source })
            }
        }
    }

    /// Whether it is time for a new [`Keep::checkpoint`], if the screen has seen all output: the tail is long, or the disk
    /// may take something again.
    pub(super) fn is_due(&self) -> bool {
        self.is_longer_than(TAIL)
    }

    /// Whether the screen is to see all output now, for a new [`Keep::checkpoint`].
    pub(super) fn is_overdue(&self) -> bool {
        self.is_longer_than(LONGEST_TAIL)
    }

    fn is_longer_than(&self, most: u64) -> bool {
        match &self.tail {
            Tail::Open { written, .. } => *written >= most,
            Tail::Broken(since) => since.elapsed() >= RETRY,
        }
    }

    /// Starts over from this screen, which stands at `offset`.
    pub(super) fn checkpoint(&mut self, screen: &mut Screen, offset: u64) -> Result<(), KeepError> {
        let broken = matches!(self.tail, Tail::Broken(_));
        match self.start(screen, offset) {
            Ok(()) if broken => {
                tracing::info!(terminal = %self.id, "the screen is kept for the next supervisor again");
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(error) => {
                self.tail = Tail::Broken(Instant::now());
                if broken { Ok(()) } else { Err(error) }
            }
        }
    }

    fn write_screen(&self, screen: &mut Screen, offset: u64) -> Result<(), KeepError> {
        let size = screen.size();
        let snapshot = screen.snapshot(SnapshotOptions {
            rows: size.rows,
            lines: MAX_LINES,
            skipped: 0,
        });
        let path = screen_path(&self.directory, &self.id);
        let temporary = unfinished(&path);
        let mut file = create(&temporary)?;
        let mut head = MAGIC.to_vec();
        head.extend_from_slice(&offset.to_be_bytes());
        head.extend_from_slice(&super::attach::size_bytes(size));
        file.write_all(&head)
            .and_then(|()| file.write_all(&snapshot))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(|source| {
                remove_file(&temporary);
                KeepError::Write { path, source }
            })
    }
}

impl Restored {
    fn replay(&mut self, mut tail: impl Read) -> io::Result<()> {
        let mut output = Vec::new();
        while let Some((kind, length)) = record_head(&mut tail)? {
            let before = output.len();
            let read = (&mut tail).take(length).read_to_end(&mut output)?;
            if (read as u64) < length {
                output.truncate(before);
                break;
            }
            if kind != OUTPUT {
                let body = output.split_off(before);
                self.show(&mut output);
                if let (RESIZE, Some(size)) = (kind, parse_size(&body)) {
                    self.screen.resize(size);
                }
            } else if output.len() >= TOGETHER {
                self.skip(&mut output);
                if output.len() >= TOGETHER / 2 {
                    self.show(&mut output);
                }
            }
        }
        self.show(&mut output);
        Ok(())
    }

    fn skip(&mut self, output: &mut Vec<u8>) {
        let gone = self.screen.without_trace(output);
        output.drain(..gone);
        self.offset += gone as u64;
    }

    fn show(&mut self, output: &mut Vec<u8>) {
        self.skip(output);
        // What the output told the state, it told the supervisor before this one.
        self.screen.feed(output, &mut Effects::default());
        self.offset += output.len() as u64;
        output.clear();
    }
}

/// Kind and length of the next record; nothing at the end, also when it cuts the head short.
fn record_head(tail: &mut impl Read) -> io::Result<Option<(u8, u64)>> {
    let mut head = [0; 5];
    match tail.read_exact(&mut head) {
        Ok(()) => {
            let [kind, length @ ..] = head;
            Ok(Some((kind, u64::from(u32::from_be_bytes(length)))))
        }
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse_size(bytes: &[u8]) -> Option<Size> {
    let [a, b, c, d] = *bytes else { return None };
    Some(
        Size {
            columns: u16::from_be_bytes([a, b]),
            rows: u16::from_be_bytes([c, d]),
        }
        .clamped(),
    )
}

fn parse_checkpoint(bytes: &[u8]) -> Option<(u64, Size, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (offset, rest) = rest.split_first_chunk::<8>()?;
    let (size, snapshot) = rest.split_at_checked(4)?;
    Some((u64::from_be_bytes(*offset), parse_size(size)?, snapshot))
}

fn tails(directory: &Path, id: &TerminalId) -> Vec<PathBuf> {
    let prefix = format!("{id}.");
    let Ok(entries) = std::fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(Result::ok)
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.strip_prefix(&prefix)
                .and_then(|rest| rest.strip_suffix(".tail"))
                .is_some_and(|offset| offset.bytes().all(|byte| byte.is_ascii_digit()))
        })
        .map(|entry| entry.path())
        .collect()
}

fn remove_file(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(path = %path.display(), %error, "an old file of a terminal stays");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> TerminalId {
        TerminalId::new("shell-1").unwrap()
    }

    const SMALL: Size = Size {
        columns: 30,
        rows: 5,
    };

    #[test]
    fn a_screen_comes_back_where_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let mut screen = Screen::new(SMALL);
        let mut effects = Effects::default();
        let mut keep = Keep::begin(directory.path(), &id(), &mut screen, 1000).unwrap();
        let wider = Size {
            columns: 50,
            rows: 8,
        };
        for part in [
            &b"one\r\n\x1b[31mtwo"[..],
            b" and more\r\n",
            b"\x1b[?1049hfull screen\x1b[38;5",
        ] {
            keep.output(part).unwrap();
            screen.feed(part, &mut effects);
        }
        keep.resize(wider).unwrap();
        screen.resize(wider);
        keep.output(b";9mcolour").unwrap();
        screen.feed(b";9mcolour", &mut effects);
        let mut restored = Keep::restore(directory.path(), &id()).unwrap().unwrap();
        let options = SnapshotOptions {
            rows: 8,
            lines: MAX_LINES,
            skipped: 0,
        };
        assert_eq!(restored.screen.snapshot(options), screen.snapshot(options));
        assert_eq!(restored.offset, 1000 + 14 + 11 + 24 + 9);
    }

    #[test]
    fn a_record_cut_by_the_crash_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let mut screen = Screen::new(SMALL);
        let mut keep = Keep::begin(directory.path(), &id(), &mut screen, 0).unwrap();
        keep.output(b"kept").unwrap();
        keep.output(b"half").unwrap();
        let path = tails(directory.path(), &id()).remove(0);
        let length = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 2)
            .unwrap();
        let restored = Keep::restore(directory.path(), &id()).unwrap().unwrap();
        assert_eq!(restored.offset, 4);
        assert_eq!(restored.screen.text().lines().next(), Some("kept"));
    }

    #[test]
    fn a_disk_that_took_no_more_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut screen = Screen::new(SMALL);
        let mut keep = Keep::later(directory.path(), &id());
        keep.output(b"lost").unwrap();
        screen.feed(b"lost", &mut Effects::default());
        assert!(Keep::restore(directory.path(), &id()).unwrap().is_none());
        let count = || std::fs::read_dir(directory.path()).unwrap().count();
        for offset in 0..3 {
            // Takes the file and none of its bytes, as a full disk does.
            let full = unfinished(&screen_path(directory.path(), &id()));
            std::os::unix::fs::symlink("/dev/full", full).unwrap();
            keep.tail = Tail::Broken(Instant::now().checked_sub(RETRY).unwrap());
            assert!(keep.is_due());
            keep.checkpoint(&mut screen, offset).unwrap();
            assert!(matches!(keep.tail, Tail::Broken(_)));
            assert_eq!(count(), 0);
        }
        keep.tail = Tail::Broken(Instant::now().checked_sub(RETRY).unwrap());
        assert!(keep.is_due());
        keep.checkpoint(&mut screen, 4).unwrap();
        assert_eq!(count(), 2);
        keep.output(b" and found").unwrap();
        let restored = Keep::restore(directory.path(), &id()).unwrap().unwrap();
        assert_eq!(restored.offset, 14);
        assert!(restored.screen.text().contains("lost and found"));
    }

    #[test]
    fn a_flood_comes_back_as_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let mut screen = Screen::new(SMALL);
        let mut keep = Keep::begin(directory.path(), &id(), &mut screen, 0).unwrap();
        let mut written = 0;
        // Over the resize as well, and with a coloured line in the middle.
        for number in 0..90_000 {
            let pen = if number == 45_000 { "\x1b[31m" } else { "" };
            let line = format!("{pen}{number} {}\r\n", "x".repeat(number % 70));
            keep.output(line.as_bytes()).unwrap();
            screen.feed(line.as_bytes(), &mut Effects::default());
            written += line.len() as u64;
            if number == 60_000 {
                let wider = Size {
                    columns: 50,
                    rows: 8,
                };
                keep.resize(wider).unwrap();
                screen.resize(wider);
            }
        }
        let mut restored = Keep::restore(directory.path(), &id()).unwrap().unwrap();
        let options = SnapshotOptions {
            rows: 8,
            lines: MAX_LINES,
            skipped: 0,
        };
        assert_eq!(restored.offset, written);
        assert!(restored.screen.snapshot(options) == screen.snapshot(options));
    }

    #[test]
    fn checkpoints_bound_the_tail_and_replace_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let mut screen = Screen::new(SMALL);
        let mut keep = Keep::begin(directory.path(), &id(), &mut screen, 0).unwrap();
        let line = vec![b'x'; 1 << 16];
        let mut offset = 0;
        while !keep.is_due() {
            keep.output(&line).unwrap();
            offset += line.len() as u64;
        }
        assert!(!keep.is_overdue());
        screen.feed(b"at the checkpoint", &mut Effects::default());
        keep.checkpoint(&mut screen, offset).unwrap();
        assert_eq!(tails(directory.path(), &id()).len(), 1);
        let restored = Keep::restore(directory.path(), &id()).unwrap().unwrap();
        assert_eq!(restored.offset, offset);
        assert!(restored.screen.text().contains("at the checkpoint"));
        Keep::remove(directory.path(), &id());
        assert!(Keep::restore(directory.path(), &id()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
