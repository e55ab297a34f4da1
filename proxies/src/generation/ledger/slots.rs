//! Reservations on file: what calls in flight may cost.
//!
//! A file of [`SLOTS`] slots, each of two records of [`SIZE`] bytes: a JSON object padded with spaces and ended by a
//! newline, or, if it does not begin with `{`, nothing. A slot that is rewritten writes its other record and counts
//! `turn` up; the higher one that can be read counts, so a kill in the middle of a store leaves the one before. Records
//! are stored through shared memory, which survives the process and waits for no disk. The file is allocated when it is
//! opened, so a full disk is met then.

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;
use whim_wire::generation::{CostSource, LedgerLine, Outcome, Usage};
use whim_wire::money::NanoUsd;
use whim_wire::time::Time;

use super::shared::Shared;
use super::{OpenError, at};

/// Calls that can be in flight, or wait for their line to be written, at a time.
pub const SLOTS: usize = 2048;
/// Bytes of a record.
pub const SIZE: usize = 1024;
/// Bytes of a slot.
const PAIR: usize = 2 * SIZE;
/// Bytes that are kept of each text in a record, so that it fits.
const TEXT: usize = 96;

/// What a slot says of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// Id of the call.
    pub call: Cow<'a, str>,
    /// Start.
    pub at: Time,
    /// Session.
    pub session: Cow<'a, str>,
    /// Kind of agent.
    pub agent: Cow<'a, str>,
    /// Provider.
    pub provider: Cow<'a, str>,
    /// Path.
    pub path: Cow<'a, str>,
    /// Model asked for.
    pub model: Option<Cow<'a, str>>,
    /// The provider's id, once known.
    pub generation_id: Option<Cow<'a, str>>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// What it may cost.
    pub reserved_usd: NanoUsd,
    /// Calls upstream.
    pub attempts: u32,
    /// Which of a slot's records is the later one.
    #[serde(default)]
    pub turn: u32,
}

impl Record<'_> {
    /// The line of a call that ended with the process that forwarded it.
    pub(super) fn into_line(self) -> LedgerLine {
        LedgerLine {
            at: self.at,
            call: self.call.into_owned(),
            seq: 0,
            session: self.session.into_owned(),
            agent: self.agent.into_owned(),
            provider: self.provider.into_owned(),
            path: self.path.into_owned(),
            model: self.model.map(Cow::into_owned),
            generation_id: self.generation_id.map(Cow::into_owned),
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

    fn to_bytes(&self, turn: u32) -> io::Result<[u8; SIZE]> {
        let mut short = self.clone();
        short.turn = turn;
        let texts = [
            &mut short.session,
            &mut short.agent,
            &mut short.provider,
            &mut short.path,
        ];
        let optional = [short.model.as_mut(), short.generation_id.as_mut()];
        for text in texts.into_iter().chain(optional.into_iter().flatten()) {
            // Escapes make a byte six at worst, but a name that needs them is nobody's: it is dropped to plain ASCII.
            let fits = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
            if text.len() > TEXT || !text.chars().all(fits) {
                *text = text.chars().filter(|c| fits(*c)).take(TEXT).collect();
            }
        }
        let mut record = [b' '; SIZE];
        let (mut text, end) = record.split_at_mut(SIZE - 1);
        end.fill(b'\n');
        // What does not fit its slot is an error of the writing.
        serde_json::to_writer(&mut text, &short)?;
        Ok(record)
    }
}

/// A slot that is taken. It stays taken when this is dropped: only [`Slots::free`] empties it.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot {
    index: usize,
    turn: u32,
}

impl Slot {
    /// Where the record of a turn stands.
    const fn offset(&self, turn: u32) -> usize {
        self.index * PAIR + (turn as usize % 2) * SIZE
    }
}

/// The file and its free slots.
#[derive(Debug)]
pub struct Slots {
    memory: Shared,
    free: Mutex<Vec<usize>>,
    freed: Notify,
}

impl Slots {
    /// Opens the file and returns what it holds.
    pub(super) fn open(
        directory: &Path,
    ) -> Result<(Self, Vec<(Slot, Record<'static>)>), OpenError> {
        const LENGTH: NonZeroUsize = NonZeroUsize::new(SLOTS * PAIR).unwrap();
        let path = directory.join("generations.reserved");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at("open", &path))?;
        let mut held = Vec::new();
        (&file)
            .take(LENGTH.get() as u64)
            .read_to_end(&mut held)
            .map_err(at("read", &path))?;
        if held.len() < LENGTH.get() {
            let blank = vec![b' '; LENGTH.get() - held.len()];
            file.write_all_at(&blank, held.len() as u64)
                .map_err(at("allocate", &path))?;
        }
        let memory = Shared::map(&file, LENGTH).map_err(at("map", &path))?;
        let (mut free, mut left) = ((0..SLOTS).rev().collect::<Vec<_>>(), Vec::new());
        for (index, pair) in held.chunks(PAIR).enumerate() {
            let records = pair.chunks(SIZE).filter(|record| record.starts_with(b"{"));
            let read = records.filter_map(|record| match serde_json::from_slice::<Record<'_>>(record) {
                Ok(record) => Some(record),
                Err(error) => {
                    tracing::warn!(index, %error, "a reservation was torn; the one before it counts");
                    None
                }
            });
            if let Some(record) = read.max_by_key(|record| record.turn) {
                free.retain(|free| *free != index);
                let turn = record.turn;
                left.push((Slot { index, turn }, record));
            }
        }
        let slots = Self {
            memory,
            free: Mutex::new(free),
            freed: Notify::new(),
        };
        Ok((slots, left))
    }

    /// Waits until one is free, at most so long.
    pub(super) async fn room(&self, most: Duration) {
        // Nearly always so, and then no timer is made.
        if !self.lock().is_empty() {
            return;
        }
        let free = async {
            while self.lock().is_empty() {
                // A slot that became free since then is a permit that waits here.
                self.freed.notified().await;
            }
        };
        // Who waited in vain is told so when it asks for a slot.
        let _waited = timeout(most, free).await;
    }

    pub(super) fn take(&self, record: &Record<'_>) -> io::Result<Option<Slot>> {
        let Some(index) = self.lock().pop() else {
            return Ok(None);
        };
        let slot = Slot { index, turn: 0 };
        match self.store(&slot, record) {
            Ok(()) => Ok(Some(slot)),
            Err(error) => {
                self.lock().push(index);
                Err(error)
            }
        }
    }

    pub(super) fn write(&self, slot: &mut Slot, record: &Record<'_>) -> io::Result<()> {
        slot.turn = slot.turn.wrapping_add(1);
        // What stands there is older by two: it goes before its bytes are overwritten.
        self.memory.store(slot.offset(slot.turn), b" ")?;
        self.store(slot, record)
    }

    fn store(&self, slot: &Slot, record: &Record<'_>) -> io::Result<()> {
        self.memory
            .store(slot.offset(slot.turn), &record.to_bytes(slot.turn)?)
    }

    pub(super) fn free(&self, slot: Slot) -> io::Result<()> {
        // The older record first: alone it would count as the latest.
        self.memory
            .store(slot.offset(slot.turn.wrapping_add(1)), b" ")?;
        self.memory.store(slot.offset(slot.turn), b" ")?;
        self.lock().push(slot.index);
        self.freed.notify_one();
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
