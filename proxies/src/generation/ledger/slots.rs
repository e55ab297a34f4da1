//! Reservations on file: what calls in flight may cost.
//!
//! A file of [`SLOTS`] records of [`SIZE`] bytes, each a JSON object padded with spaces and ended by a newline; spaces
//! alone are a free slot. A record is written by one `pwrite` to the page cache, which a kill of the process cannot
//! tear, and neither needs nor waits for the disk. The file is allocated when it is opened, so a full disk is met then.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use whim_wire::generation::{CostSource, LedgerLine, Outcome, Usage};
use whim_wire::money::NanoUsd;
use whim_wire::time::Time;

use super::{OpenError, at};

/// Calls that can be in flight, or wait for their line to be written, at a time.
pub const SLOTS: usize = 2048;
/// Bytes of a record.
pub const SIZE: usize = 1024;
/// Bytes that are kept of each text in a record, so that it fits.
const TEXT: usize = 96;

/// What a slot says of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Id of the call.
    pub call: String,
    /// Start.
    pub at: Time,
    /// Session.
    pub session: String,
    /// Kind of agent.
    pub agent: String,
    /// Provider.
    pub provider: String,
    /// Path.
    pub path: String,
    /// Model asked for.
    pub model: Option<String>,
    /// The provider's id, once known.
    pub generation_id: Option<String>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// What it may cost.
    pub reserved_usd: NanoUsd,
    /// Calls upstream.
    pub attempts: u32,
}

impl Record {
    /// The line of a call that ended with the process that forwarded it.
    pub(super) fn into_line(self) -> LedgerLine {
        LedgerLine {
            at: self.at,
            call: self.call,
            seq: 0,
            session: self.session,
            agent: self.agent,
            provider: self.provider,
            path: self.path,
            model: self.model,
            generation_id: self.generation_id,
            upstream_request_id: None,
            status: None,
            stream: self.stream,
            ttfb_ms: None,
            duration_ms: 0,
            stop_reason: None,
            usage: Usage::default(),
            cost_usd: self.reserved_usd,
            cost_source: CostSource::Estimate,
            attempts: self.attempts,
            outcome: Outcome::UpstreamCut,
        }
    }

    fn to_bytes(&self) -> io::Result<[u8; SIZE]> {
        let mut short = self.clone();
        let texts = [
            &mut short.session,
            &mut short.agent,
            &mut short.provider,
            &mut short.path,
        ];
        let optional = [short.model.as_mut(), short.generation_id.as_mut()];
        for text in texts.into_iter().chain(optional.into_iter().flatten()) {
            // Escapes make a byte six at worst, but a name that needs them is nobody's: it is dropped to plain ASCII.
            text.retain(|c| c.is_ascii_graphic() && c != '"' && c != '\\');
            text.truncate(TEXT);
        }
        let json = serde_json::to_vec(&short)?;
        let mut record = [b' '; SIZE];
        let (text, end) = record.split_at_mut(SIZE - 1);
        end.fill(b'\n');
        let text = text.get_mut(..json.len());
        text.ok_or_else(|| io::Error::other("a reservation does not fit its slot"))?
            .copy_from_slice(&json);
        Ok(record)
    }
}

/// A slot that is taken. It stays taken when this is dropped: only [`Slots::free`] empties it.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot(u32);

/// The file and its free slots.
#[derive(Debug)]
pub struct Slots {
    file: File,
    free: Mutex<Vec<u32>>,
}

impl Slots {
    /// Opens the file and returns what it holds.
    pub(super) fn open(directory: &Path) -> Result<(Self, Vec<(Slot, Record)>), OpenError> {
        let path = directory.join("generations.reserved");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at("open", &path))?;
        let (mut free, mut left) = (Vec::with_capacity(SLOTS), Vec::new());
        let mut record = [0u8; SIZE];
        let length = file.metadata().map_err(at("examine", &path))?.len();
        let whole = usize::try_from(length).unwrap_or(usize::MAX) / SIZE;
        for index in 0..whole.min(SLOTS) {
            let slot = Slot(u32::try_from(index).unwrap_or(u32::MAX));
            file.read_exact_at(&mut record, offset(&slot))
                .map_err(at("read", &path))?;
            if record.trim_ascii().is_empty() {
                continue;
            }
            match serde_json::from_slice(&record) {
                Ok(read) => left.push((slot, read)),
                Err(error) => {
                    tracing::error!(index, %error, "a reservation cannot be read; its cost is unknown")
                }
            }
        }
        if whole < SLOTS {
            let blank = vec![b' '; (SLOTS - whole) * SIZE];
            file.write_all_at(&blank, (whole * SIZE) as u64)
                .map_err(at("allocate", &path))?;
        }
        let taken: Vec<u32> = left.iter().map(|(slot, _)| slot.0).collect();
        free.extend(
            (0..u32::try_from(SLOTS).unwrap_or(u32::MAX))
                .rev()
                .filter(|i| !taken.contains(i)),
        );
        Ok((
            Self {
                file,
                free: Mutex::new(free),
            },
            left,
        ))
    }

    pub(super) fn take(&self, record: &Record) -> io::Result<Option<Slot>> {
        let Some(index) = self.lock().pop() else {
            return Ok(None);
        };
        let slot = Slot(index);
        match self.write(&slot, record) {
            Ok(()) => Ok(Some(slot)),
            Err(error) => {
                self.lock().push(index);
                Err(error)
            }
        }
    }

    pub(super) fn write(&self, slot: &Slot, record: &Record) -> io::Result<()> {
        self.file.write_all_at(&record.to_bytes()?, offset(slot))
    }

    pub(super) fn free(&self, slot: Slot) -> io::Result<()> {
        self.file.write_all_at(&[b' '; SIZE - 1], offset(&slot))?;
        self.lock().push(slot.0);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn offset(slot: &Slot) -> u64 {
    u64::from(slot.0) * SIZE as u64
}
