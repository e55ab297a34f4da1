//! Records a terminal as asciicast v3, for people (`whim logs main --cast`, any asciinema player).
//!
//! The recorder is a viewer like any other: it never slows the program, and output that it cannot take in time shows as a
//! marker `skipped N bytes` followed by the screen as it then was.
//!
//! Bounds: [`RATE`] bytes a second are recorded on average (bursts of [`BURST`]); the file is closed at [`SEGMENT`]
//! bytes and a new one begins with the screen; one older segment (`ID.1.cast`) is kept. A disk that takes no more
//! ends it with an error; whoever wants the rest records anew.
//!
//! Source of the format: asciinema's documentation of asciicast v3 (header line; events `[interval, code, data]` with
//! codes `o`, `r`, `m`, `x`).

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::TerminalId;
use super::size::Size;
use super::terminal::{Exit, Terminal};
use super::viewer::{Frame, ViewerOptions};

/// Bytes of output recorded each second, in the long run.
const RATE: u64 = 1 << 20;
const BURST: u64 = 8 << 20;
/// Size of one file.
const SEGMENT: u64 = 16 << 20;

/// Why a recording ended early.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("cannot write the recording {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Terminal(#[from] super::TerminalError),
}

/// The present and the older segment of a terminal's recording, oldest first.
#[must_use]
pub fn files(directory: &Path, name: &TerminalId) -> [PathBuf; 2] {
    [
        directory.join(format!("{name}.1.cast")),
        directory.join(format!("{name}.cast")),
    ]
}

/// Records until the terminal is over.
///
/// # Errors
/// When the file cannot be written.
pub async fn record(terminal: Terminal, directory: PathBuf) -> Result<(), RecordError> {
    let [older, path] = files(&directory, terminal.id());
    // What was printed before this came belongs to it, as it was printed; a later file begins with the screen.
    let mut from = terminal.holds_its_beginning().then_some(0);
    loop {
        let options = ViewerOptions {
            read_only: true,
            counted: false,
            resume: from.take(),
            ..ViewerOptions::default()
        };
        let mut viewer = terminal.attach(options).await?;
        if path.exists() {
            std::fs::rename(&path, &older).map_err(|source| RecordError::Write {
                path: older.clone(),
                source,
            })?;
        }
        let mut cast = Cast::create(&path, terminal.status().size, &terminal.status().title)
            .map_err(|source| RecordError::Write {
                path: path.clone(),
                source,
            })?;
        let mut budget = Budget::new();
        let written = loop {
            let Some(frame) = viewer.next().await else {
                return Ok(());
            };
            let taken = match &frame {
                Frame::Output { bytes, .. } | Frame::Snapshot { bytes, .. } => bytes.len() as u64,
                _ => 0,
            };
            let over = matches!(frame, Frame::Exit(_));
            if let Err(source) = cast.frame(frame) {
                break Err(source);
            }
            if over {
                return Ok(());
            }
            if cast.written >= SEGMENT {
                break Ok(());
            }
            budget.spend(taken).await;
        };
        written.map_err(|source| RecordError::Write {
            path: path.clone(),
            source,
        })?;
    }
}

/// Allows bursts and holds the average down.
struct Budget {
    left: u64,
    at: Instant,
}

impl Budget {
    fn new() -> Self {
        Self {
            left: BURST,
            at: Instant::now(),
        }
    }

    async fn spend(&mut self, bytes: u64) {
        let now = Instant::now();
        let gained = u64::try_from(now.duration_since(self.at).as_millis()).unwrap_or(u64::MAX);
        self.left = self
            .left
            .saturating_add(gained.saturating_mul(RATE / 1000))
            .min(BURST);
        self.at = now;
        if bytes > self.left {
            // While this sleeps the output goes on, and the viewer is skipped forward.
            sleep(Duration::from_millis((bytes - self.left) * 1000 / RATE)).await;
        }
        self.left = self.left.saturating_sub(bytes);
    }
}

/// One file.
struct Cast {
    file: File,
    written: u64,
    last: Instant,
    size: Size,
    /// The beginning of a character: events hold whole ones.
    partial: Vec<u8>,
}

impl Cast {
    fn create(path: &Path, size: Size, title: &str) -> io::Result<Self> {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let mut cast = Self {
            file,
            written: 0,
            last: Instant::now(),
            size,
            partial: Vec::new(),
        };
        let header = json!({
            "version": 3,
            "term": {"cols": size.columns, "rows": size.rows, "type": "xterm-256color"},
            "timestamp": jiff::Timestamp::now().as_second(),
            "title": title,
        });
        cast.line(&header.to_string())?;
        Ok(cast)
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(b'\n');
        self.file.write_all(&bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn event(&mut self, code: &str, data: &str) -> io::Result<()> {
        let now = Instant::now();
        let interval = now.duration_since(self.last).as_millis();
        self.last = now;
        let seconds = interval / 1000;
        let data = serde_json::to_string(data)?;
        self.line(&format!(
            "[{seconds}.{:03}, \"{code}\", {data}]",
            interval % 1000
        ))
    }

    fn frame(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Output { bytes, .. } => self.output(&bytes),
            Frame::Snapshot { bytes, skipped, .. } => {
                if skipped > 0 {
                    self.event("m", &format!("skipped {skipped} bytes"))?;
                    self.partial.clear();
                    self.output(b"\x1bc")?;
                }
                self.output(&bytes)
            }
            Frame::Size { size, .. } if size != self.size => {
                self.size = size;
                self.event("r", &format!("{}x{}", size.columns, size.rows))
            }
            Frame::Exit(Exit::Code(code)) => self.event("x", &code.to_string()),
            // As a shell reports it.
            Frame::Exit(Exit::Signal(signal)) => self.event("x", &(128 + signal).to_string()),
            Frame::Size { .. } | Frame::Title(_) => Ok(()),
        }
    }

    fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.partial.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.partial);
        let mut text = String::with_capacity(all.len());
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            // At the very end it may be the beginning of a character; a recording of anything else is lossy.
            if chunks.peek().is_none() && invalid.len() < 4 && is_beginning(invalid) {
                self.partial = invalid.to_vec();
            } else if !invalid.is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        if text.is_empty() {
            Ok(())
        } else {
            self.event("o", &text)
        }
    }
}

fn is_beginning(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => false,
        Err(error) => error.error_len().is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminals::Kind;
    use crate::terminals::tests::Program;

    #[tokio::test]
    async fn what_was_printed_before_is_recorded_as_it_was_printed() {
        let directory = tempfile::tempdir().unwrap();
        let script = "printf '\\033]133;A\\033\\\\done'; read x";
        let mut program = Program::start("main", Kind::Agent, script);
        while !program.terminal.text().await.unwrap().text.contains("done") {
            tokio::task::yield_now().await;
        }
        program.terminal.type_bytes(b"\r".to_vec()).await.unwrap();
        program.reap();
        let path = directory.path().to_owned();
        record(program.terminal.clone(), path).await.unwrap();
        let [_, path] = files(directory.path(), program.terminal.id());
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(r"\u001b]133;A\u001b\\done"), "{text}");
    }

    #[tokio::test]
    async fn a_recording_plays_back_to_the_same_screen() {
        let directory = tempfile::tempdir().unwrap();
        let script =
            "printf 'h\\303'; sleep 0.1; printf '\\251llo \\033[31mred\\033[m\\n'; read x; exit 5";
        let mut program = Program::start("main", Kind::Agent, script);
        let path = directory.path().to_owned();
        let recording = tokio::spawn(record(program.terminal.clone(), path));
        while !program.terminal.text().await.unwrap().text.contains("red") {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            program.terminal.status().viewers,
            0,
            "the recorder is not a person"
        );
        program.terminal.type_bytes(b"\r".to_vec()).await.unwrap();
        program.reap();
        tokio::time::timeout(Duration::from_secs(20), recording)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        let [_, path] = files(directory.path(), program.terminal.id());
        let text = std::fs::read_to_string(path).unwrap();
        let mut lines = text.lines();
        let header: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        assert_eq!(
            (&header["version"], &header["term"]["cols"]),
            (&json!(3), &json!(80))
        );
        let mut screen = crate::terminals::screen::Screen::new(Size::DEFAULT);
        let mut last = String::new();
        for line in lines {
            let event: (f64, String, String) = serde_json::from_str(line).unwrap();
            if event.1 == "o" {
                screen.feed(
                    event.2.as_bytes(),
                    &mut crate::terminals::screen::Effects::default(),
                );
            }
            last = format!("{} {}", event.1, event.2);
        }
        assert_eq!(screen.text(), program.terminal.text().await.unwrap().text);
        assert!(screen.text().contains("héllo red"));
        assert_eq!(last, "x 5");
    }
}
