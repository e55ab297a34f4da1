//! The ledger's files: opening, repair, appending, rotation, reading back.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use whim_wire::generation::LedgerLine;
use whim_wire::time::Time;

use super::book::{Book, Sums};
use super::{KEEP, OpenError, ROTATE, at};

const CURRENT: &str = "generations.jsonl";
const TOTALS: &str = "generations.totals.json";

/// The file that lines are appended to.
#[derive(Debug)]
pub(super) struct Log {
    directory: PathBuf,
    file: File,
    length: u64,
    /// Sums over the rotated files and the lines of this one, for the next rotation.
    sums: Sums,
}

/// What opening found.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) book: Book,
    /// Calls whose lines are on file.
    pub(super) seen: HashSet<String>,
}

pub(super) fn open(directory: &Path) -> Result<Opened, OpenError> {
    let totals_path = directory.join(TOTALS);
    let mut sums = match fs::read(&totals_path) {
        Ok(json) => match serde_json::from_slice(&json) {
            Ok(sums) => sums,
            Err(error) => {
                // Everything that is still on file is summed again.
                tracing::error!(path = %totals_path.display(), %error, "the ledger's sums cannot be read");
                Sums::default()
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Sums::default(),
        Err(error) => return Err(at("read", &totals_path)(error)),
    };
    let mut seen = HashSet::new();
    for (number, path) in rotated(directory).map_err(at("list", directory))? {
        // A crash between renaming a file and writing the sums leaves one to be summed here.
        let summed = number <= sums.rotated;
        read(&path, |line| {
            if !summed {
                sums.add(&line);
            }
            seen.insert(line.call);
        })
        .map_err(at("read", &path))?;
        sums.rotated = sums.rotated.max(number);
    }
    let path = directory.join(CURRENT);
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)
        .map_err(at("open", &path))?;
    let length = repair(&mut file).map_err(at("repair", &path))?;
    let mut book = Book::new(sums.clone());
    read(&path, |line| {
        sums.add(&line);
        seen.insert(line.call.clone());
        book.add(Arc::new(line));
    })
    .map_err(at("read", &path))?;
    let log = Log {
        directory: directory.to_owned(),
        file,
        length,
        sums,
    };
    Ok(Opened { log, book, seen })
}

/// Cuts off what follows the last newline: a line that was never whole. Returns the length.
fn repair(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = [0u8; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let size = usize::try_from(end - start).unwrap_or(block.len());
        let Some(part) = block.get_mut(..size) else {
            break;
        };
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(newline) = part.iter().rposition(|&b| b == b'\n') {
            end = start + newline as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        tracing::warn!(
            bytes = length - end,
            "the ledger's last line was torn and is cut off"
        );
        file.set_len(end)?;
    }
    Ok(end)
}

/// Rotated files, oldest first.
fn rotated(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix("generations-"))
            .and_then(|name| name.strip_suffix(".jsonl"))
            .and_then(|number| number.parse::<u64>().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn read(path: &Path, mut take: impl FnMut(LedgerLine)) -> io::Result<()> {
    let mut lines = BufReader::new(File::open(path)?);
    let (mut text, mut number) = (Vec::new(), 0u64);
    while lines.read_until(b'\n', &mut text)? > 0 {
        number += 1;
        match serde_json::from_slice(&text) {
            Ok(line) => take(line),
            Err(error) => {
                tracing::error!(path = %path.display(), number, %error, "a line of the ledger cannot be read");
            }
        }
        text.clear();
    }
    Ok(())
}

/// When the call of the first line began.
pub(super) fn first(directory: &Path) -> Option<Time> {
    let oldest = rotated(directory).ok()?.into_iter().next();
    let path = oldest.map_or_else(|| directory.join(CURRENT), |(_, path)| path);
    let mut text = Vec::new();
    let mut lines = BufReader::new(File::open(path).ok()?);
    lines.read_until(b'\n', &mut text).ok()?;
    let line: LedgerLine = serde_json::from_slice(&text).ok()?;
    Some(line.at)
}

/// Lines with numbers above `after`, from the files.
pub(super) fn page(directory: &Path, after: u64, limit: usize) -> io::Result<Vec<LedgerLine>> {
    let mut lines = Vec::new();
    let mut paths: Vec<PathBuf> = rotated(directory)?
        .into_iter()
        .map(|(_, path)| path)
        .collect();
    paths.push(directory.join(CURRENT));
    for path in paths {
        if lines.len() >= limit {
            break;
        }
        match read(&path, |line| {
            if line.seq > after && lines.len() < limit {
                lines.push(line);
            }
        }) {
            // Rotated away while the list was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(lines)
}

impl Log {
    /// Appends lines, each whole, by one write.
    pub(super) fn append(&mut self, lines: &[Arc<LedgerLine>]) -> io::Result<()> {
        let mut text = Vec::with_capacity(lines.len() * 512);
        for line in lines {
            serde_json::to_writer(&mut text, &**line)?;
            text.push(b'\n');
        }
        if self.length >= ROTATE {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(&text) {
            // A part may be on file: without it the next try would follow a torn line.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += text.len() as u64;
        for line in lines {
            self.sums.add(line);
        }
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Goes on where an earlier try failed: what was renamed then is not there to be renamed again.
    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_all()?;
        let last = rotated(&self.directory)?
            .last()
            .map_or(0, |(number, _)| *number)
            .max(self.sums.rotated);
        let current = self.directory.join(CURRENT);
        let next = self
            .directory
            .join(format!("generations-{}.jsonl", last + 1));
        let number = match fs::rename(&current, next) {
            Ok(()) => last + 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => last,
            Err(error) => return Err(error),
        };
        self.file = OpenOptions::new()
            .append(true)
            .read(true)
            .create_new(true)
            .mode(0o600)
            .open(&current)?;
        self.length = 0;
        self.sums.rotated = number;
        let temporary = self.directory.join("generations.totals.tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec(&self.sums)?)?;
        file.sync_all()?;
        fs::rename(&temporary, self.directory.join(TOTALS))?;
        let kept = rotated(&self.directory)?;
        for (_, path) in kept.iter().take(kept.len().saturating_sub(KEEP)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}
