//! Logs of what runs beside the agent: the clone, the init script, the agents' error output.
//!
//! One file a name under the state directory, `NAME.log`. At [`LIMIT`] it becomes `NAME.log.1`, replacing the older one:
//! at most twice the limit on disk, and the newest part is always whole. A log that cannot be written costs one warning
//! and never the work that it is about; once the disk takes something again, a line says how much is missing.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Size in bytes at which a log is rotated.
const LIMIT: u64 = 4 * 1024 * 1024;

/// An open log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    /// Bytes that the disk did not take.
    missing: u64,
}

impl Log {
    /// Opens `NAME.log` in `directory`, which must be ours alone.
    #[must_use]
    pub fn open(directory: &Path, name: &str) -> Self {
        let path = directory.join(format!("{name}.log"));
        let mut log = Self {
            path,
            file: None,
            size: 0,
            missing: 0,
        };
        log.reopen();
        log
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends what a process printed.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.size >= LIMIT {
            let older = self.path.with_extension("log.1");
            if let Err(error) = std::fs::rename(&self.path, &older) {
                tracing::warn!(path = %self.path.display(), %error, "log not rotated");
            }
            self.reopen();
        }
        if self.file.is_none() {
            self.reopen();
        }
        let Some(file) = &mut self.file else {
            self.missing += bytes.len() as u64;
            return;
        };
        let gap = match self.missing {
            0 => Vec::new(),
            missing => format!("\n[{missing} bytes are missing: the disk was full]\n").into_bytes(),
        };
        match file.write_all(&[&gap, bytes].concat()) {
            Ok(()) => {
                self.size += (gap.len() + bytes.len()) as u64;
                self.missing = 0;
            }
            Err(error) => {
                if self.missing == 0 {
                    tracing::warn!(path = %self.path.display(), %error, "log with a gap from here");
                }
                self.missing += bytes.len() as u64;
                // A part of it may have been written.
                if let Err(error) = file.set_len(self.size) {
                    tracing::debug!(path = %self.path.display(), %error, "a part of a line stays");
                }
            }
        }
    }

    fn reopen(&mut self) {
        match open(&self.path) {
            Ok((file, size)) => {
                self.file = Some(file);
                self.size = size;
            }
            Err(error) => {
                if self.missing == 0 {
                    tracing::warn!(path = %self.path.display(), %error, "log not opened");
                }
                self.file = None;
            }
        }
    }
}

fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Keeps the last bytes of an output, for the message that says why it failed.
#[derive(Debug)]
pub struct Tail {
    bytes: Vec<u8>,
    limit: usize,
}

impl Tail {
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let excess = self.bytes.len().saturating_sub(self.limit);
        self.bytes.drain(..excess);
    }

    /// The last `count` lines, without a line that the bound cut in two unless it is the only one.
    #[must_use]
    pub fn lines(&self, count: usize) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let lines: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .collect();
        let skip = lines.len().saturating_sub(count);
        lines.into_iter().skip(skip).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_rotated_and_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path(), "init");
        let block = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            log.append(&block);
        }
        log.append(b"last\n");
        let size = |name: &str| {
            std::fs::metadata(directory.path().join(name))
                .unwrap()
                .len()
        };
        assert!(size("init.log") <= LIMIT + (1 << 20));
        assert!(size("init.log.1") <= LIMIT + (1 << 20));
        assert!(
            std::fs::read(directory.path().join("init.log"))
                .unwrap()
                .ends_with(b"last\n")
        );
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let mut tail = Tail::new(16);
        for line in ["one\n", "two\n", "three\n", "\n", "four\n"] {
            tail.push(line.as_bytes());
        }
        assert_eq!(tail.lines(2), "three\nfour");
    }
}
