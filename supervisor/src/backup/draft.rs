//! One backup under way: what changed is read, masked, hashed, packed and put.
//!
//! Nothing of it is in the index before it is all in the store: a backup that fails half way is as if it had not been
//! begun. Memory: a chunk of a file, an open segment and one on its way.

pub mod bundle;
mod saved;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::task::JoinHandle;

use super::collect::{CollectError, Collector, Found, MAX_LINES, MAX_WHOLE, Shape};
use super::cut;
use super::guard::{self, Records};
use super::hash::Running;
use super::index::{Copy, Entry, Held, Key, TAIL};
use super::manifest::{Kind, Segment};
use super::mask::Masks;
use super::pack::{self, Packed, Packer};
use super::sink::{Sink, SinkError};
use super::store::{StoreError, hex};
use crate::helper::Stamp;

/// What is read of a file at once.
const CHUNK: usize = 4 * 1024 * 1024;

/// From so many pieces on, a file's small ones are joined.
const PIECES: usize = 64;

/// Why a backup failed.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("compressing: {0}")]
    Compress(io::Error),
}

/// A file that did not take the place of its saved copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    pub key: Key,
    pub reason: String,
}

/// A changed file; its new pieces belong to the copy that is alive.
#[derive(Debug)]
struct Change {
    entry: Entry,
    fresh: Vec<Packed>,
}

/// See the module's header.
#[derive(Debug)]
pub struct Draft<'a> {
    collector: &'a Collector,
    masks: &'a Masks,
    sink: &'a mut Sink,
    packer: Packer,
    on_its_way: Option<JoinHandle<io::Result<(Segment, Bytes)>>>,
    sealed: Vec<Segment>,
    changes: BTreeMap<Key, Change>,
    /// Entries that only look different: no snapshot is worth taking for them.
    pub looks: BTreeMap<Key, Entry>,
    pub guarded: Vec<Guarded>,
    /// Files that were never saved and cannot be read.
    pub unreadable: Vec<Guarded>,
    /// Bytes of files that were read.
    pub read: u64,
    /// Bytes of files that are new in the snapshot.
    pub fresh: u64,
    /// Bytes of small pieces that became larger ones.
    pub joined: u64,
    /// Bytes put.
    pub put: u64,
}

/// What came of a look at a file's end.
enum Grown {
    /// The copy is now the file.
    Yes,
    /// What is saved is not what the file begins with.
    Mismatch,
}

/// Whether a damaged file is a good one again.
enum Recovered<'e> {
    /// It is, with these new pieces.
    Good(Box<Copy>, Vec<Packed>),
    /// It is not; what is known of it now.
    No(Box<Cow<'e, Entry>>),
}

impl<'a> Draft<'a> {
    pub fn new(collector: &'a Collector, masks: &'a Masks, sink: &'a mut Sink) -> Self {
        Self {
            collector,
            masks,
            sink,
            packer: Packer::default(),
            on_its_way: None,
            sealed: Vec::new(),
            changes: BTreeMap::new(),
            looks: BTreeMap::new(),
            guarded: Vec::new(),
            unreadable: Vec::new(),
            read: 0,
            fresh: 0,
            joined: 0,
            put: 0,
        }
    }

    /// Looks at a file; `before` is what is saved of it.
    ///
    /// # Errors
    /// [`DraftError`] when the backup cannot go on. What is wrong with the file itself is noted.
    pub async fn take(&mut self, found: &Found, before: Option<&Entry>) -> Result<(), DraftError> {
        if !found.regular {
            if let Some(before) = before {
                self.trouble(
                    &found.key,
                    before,
                    "it became a symlink or another special file",
                );
            }
            return Ok(());
        }
        if let Some(before) = before
            && before.trouble.is_none()
            && before.mode == found.mode
            && before.live().seen == Some(found.stamp)
        {
            return Ok(());
        }
        let limit = match found.shape {
            Shape::Lines => MAX_LINES,
            Shape::Whole => MAX_WHOLE,
        };
        if found.stamp.size > limit {
            self.unreadable.push(Guarded {
                key: found.key.clone(),
                reason: format!("it has more than {limit} bytes"),
            });
            return Ok(());
        }
        let taken = match found.shape {
            Shape::Lines => self.take_lines(found, before).await,
            Shape::Whole => self.take_whole(found, before).await,
        };
        match (taken, before) {
            (Err(DraftError::Collect(error)), before) if error.is_of_the_file() => {
                let reason = format!("it cannot be read: {error}");
                match before {
                    Some(before) => self.trouble(&found.key, before, &reason),
                    None => self.unreadable.push(Guarded {
                        key: found.key.clone(),
                        reason,
                    }),
                }
                Ok(())
            }
            (taken, _) => taken,
        }
    }

    /// The file is not there, or not as a file; what is saved of it stays.
    pub fn trouble(&mut self, key: &Key, before: &Entry, reason: &str) {
        if before.trouble.as_deref() == Some(reason) {
            return;
        }
        self.guarded.push(Guarded {
            key: key.clone(),
            reason: reason.to_owned(),
        });
        let entry = Entry {
            trouble: Some(reason.to_owned()),
            ..before.clone()
        };
        self.looks.insert(key.clone(), entry);
    }

    async fn take_lines(
        &mut self,
        found: &Found,
        before: Option<&Entry>,
    ) -> Result<(), DraftError> {
        let Some(before) = before else {
            let mut copy = Copy::default();
            let mut fresh = Vec::new();
            self.grow(found, &mut copy, &mut fresh, None).await?;
            if copy.bytes > 0 {
                self.change(found, entry(found, copy), fresh);
            }
            return Ok(());
        };
        let before = match self.recovered(found, before).await? {
            Recovered::Good(copy, fresh) => {
                self.change(found, entry(found, *copy), fresh);
                return Ok(());
            }
            Recovered::No(before) => *before,
        };
        let before = &*before;
        let live = before.live();
        let same = live.seen.is_some_and(|seen| {
            (seen.device, seen.inode) == (found.stamp.device, found.stamp.inode)
        });
        if same && live.hash.is_some() && found.stamp.size >= live.bytes {
            let mut copy = live.clone();
            let mut fresh = Vec::new();
            if let Grown::Yes = self.grow(found, &mut copy, &mut fresh, None).await? {
                self.join(&mut copy, &mut fresh).await?;
                self.keep_on(found, before, copy, fresh);
                return Ok(());
            }
        }
        if let Some((hash, tail)) = self.scan(found, live, None).await? {
            let mut copy = Copy {
                hash: Some(hash),
                tail: Some(tail),
                ..live.clone()
            };
            let mut fresh = Vec::new();
            if let Grown::Yes = self.grow(found, &mut copy, &mut fresh, None).await? {
                self.keep_on(found, before, copy, fresh);
                return Ok(());
            }
        }
        let mut copy = Copy::default();
        let mut fresh = Vec::new();
        // Of the very bytes that are saved: another look at the file may be one at another file.
        let mut records = Records::default();
        let taken = is_guarded(found.kind).then_some(&mut records);
        self.grow(found, &mut copy, &mut fresh, taken).await?;
        let verdict = if is_guarded(found.kind) {
            self.judge(&before.good, records).await
        } else {
            Ok(())
        };
        self.rewritten(found, before, copy, fresh, verdict);
        Ok(())
    }

    async fn take_whole(
        &mut self,
        found: &Found,
        before: Option<&Entry>,
    ) -> Result<(), DraftError> {
        let limit = usize::try_from(MAX_WHOLE).unwrap_or(usize::MAX);
        let (raw, stamp) = self.read(&found.key, 0, limit).await?;
        let masked = self.masks.apply(&raw);
        let mut hash = Running::default();
        hash.update(&masked);
        let copy = Copy {
            seen: Some(stamp),
            sha256: hash.digest(),
            bytes: masked.len() as u64,
            ..Copy::default()
        };
        if let Some(before) = before
            && before.live().sha256 == copy.sha256
        {
            let copy = Copy {
                pieces: before.live().pieces.clone(),
                ..copy
            };
            self.keep_on(found, before, copy, Vec::new());
            return Ok(());
        }
        let mut fresh = Vec::new();
        self.pack(&masked, &mut fresh).await?;
        match before {
            None => self.change(found, entry(found, copy), fresh),
            Some(before) => {
                let hollow = is_guarded(found.kind) && masked.is_empty() && before.good.bytes > 0;
                let verdict = if hollow {
                    Err(guard::Damage::Empty.to_string())
                } else {
                    Ok(())
                };
                self.rewritten(found, before, copy, fresh, verdict);
            }
        }
        Ok(())
    }

    /// The live copy grew, or is what it was.
    fn keep_on(&mut self, found: &Found, before: &Entry, copy: Copy, fresh: Vec<Packed>) {
        let mut entry = Entry {
            mode: found.mode,
            trouble: None,
            ..before.clone()
        };
        match &mut entry.damaged {
            Some(damaged) => *damaged = copy,
            None => entry.good = copy,
        }
        if fresh.is_empty() && before.mode == found.mode {
            self.looks.insert(found.key.clone(), entry);
        } else {
            self.change(found, entry, fresh);
        }
    }

    /// The file is another one now.
    fn rewritten(
        &mut self,
        found: &Found,
        before: &Entry,
        copy: Copy,
        fresh: Vec<Packed>,
        verdict: Result<(), String>,
    ) {
        let entry = match verdict {
            Ok(()) => entry(found, copy),
            Err(reason) => {
                self.guarded.push(Guarded {
                    key: found.key.clone(),
                    reason,
                });
                Entry {
                    damaged: Some(copy),
                    trouble: None,
                    ..before.clone()
                }
            }
        };
        self.change(found, entry, fresh);
    }

    fn change(&mut self, found: &Found, entry: Entry, fresh: Vec<Packed>) {
        self.fresh += fresh.iter().map(|piece| piece.length).sum::<u64>();
        let change = Change { entry, fresh };
        self.changes.insert(found.key.clone(), change);
    }

    /// Reads on from where the copy ends, after a look at what comes before. `records` takes what is read.
    async fn grow(
        &mut self,
        found: &Found,
        copy: &mut Copy,
        fresh: &mut Vec<Packed>,
        mut records: Option<&mut Records>,
    ) -> Result<Grown, DraftError> {
        let before = copy.bytes.min(TAIL);
        let mut offset = copy.bytes - before;
        let before = usize::try_from(before).unwrap_or(0);
        let (mut raw, stamp) = self.read(&found.key, offset, CHUNK + before).await?;
        let mut at_end = raw.len() < CHUNK + before;
        offset += raw.len() as u64;
        let Some(tail) = raw.get(..before) else {
            return Ok(Grown::Mismatch);
        };
        if copy.bytes > 0 && copy.tail.as_deref() != Some(&*digest(tail)) {
            return Ok(Grown::Mismatch);
        }
        let mut recent = tail.to_vec();
        raw.drain(..before);
        let mut hash = copy.hash.clone().unwrap_or_default();
        let masks = self.masks;
        let mut masking = masks.begin();
        let mut taken = 0;
        loop {
            at_end |= offset >= stamp.size;
            let cut = if at_end {
                cut::complete(&raw)
            } else if raw.len() > cut::MAX_LINE {
                raw.len()
            } else {
                memchr::memrchr(b'\n', &raw).map_or(0, |end| end + 1)
            };
            let (ready, _) = raw.split_at(cut);
            recent.extend_from_slice(
                ready
                    .get(ready.len().saturating_sub(TAIL_LEN)..)
                    .unwrap_or_default(),
            );
            recent.drain(..recent.len().saturating_sub(TAIL_LEN));
            let masked = masking.push(ready);
            hash.update(&masked);
            if let Some(records) = &mut records {
                records.push(&masked);
            }
            self.pack(&masked, fresh).await?;
            taken += cut as u64;
            raw.drain(..cut);
            if at_end {
                break;
            }
            let (more, _) = self.read(&found.key, offset, CHUNK).await?;
            at_end = more.len() < CHUNK;
            offset += more.len() as u64;
            raw.extend_from_slice(&more);
        }
        let rest = masking.finish();
        hash.update(&rest);
        if let Some(records) = records {
            records.push(&rest);
        }
        self.pack(&rest, fresh).await?;
        copy.bytes += taken;
        copy.seen = Some(stamp);
        copy.tail = Some(digest(&recent));
        copy.sha256 = hash.digest();
        copy.hash = Some(hash);
        Ok(Grown::Yes)
    }

    async fn read(
        &mut self,
        key: &Key,
        offset: u64,
        limit: usize,
    ) -> Result<(Vec<u8>, Stamp), DraftError> {
        let read = match self.collector.read(key, offset, limit).await {
            // The helper was killed, perhaps by an agent; the next request starts another one.
            Err(error) if !error.is_of_the_file() => self.collector.read(key, offset, limit).await,
            read => read,
        };
        let (content, stamp) = read?;
        self.read += content.len() as u64;
        Ok((content, stamp))
    }

    async fn pack(&mut self, content: &[u8], fresh: &mut Vec<Packed>) -> Result<(), DraftError> {
        let mut rest = content;
        loop {
            rest = self.packer.push(rest, fresh);
            if self.packer.is_full() {
                self.seal().await?;
            }
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// The open segment is compressed beside the reading of what comes next.
    async fn seal(&mut self) -> Result<(), DraftError> {
        self.settle().await?;
        if let Some(content) = self.packer.seal() {
            let salt = crate::random::bytes();
            let stored = tokio::task::spawn_blocking(move || pack::stored(&content, salt));
            self.on_its_way = Some(stored);
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), DraftError> {
        if let Some(stored) = self.on_its_way.take() {
            let stored = stored.await.map_err(io::Error::other);
            let (segment, stored) = stored
                .and_then(|stored| stored)
                .map_err(DraftError::Compress)?;
            self.put += segment.bytes;
            self.sink.put(&segment, stored).await?;
            self.sealed.push(segment);
        }
        Ok(())
    }

    /// Puts what is left; the changed entries, with all their pieces.
    ///
    /// # Errors
    /// [`DraftError`]: then nothing of the draft counts.
    pub async fn finish(&mut self) -> Result<BTreeMap<Key, Entry>, DraftError> {
        self.seal().await?;
        self.settle().await?;
        let changes = std::mem::take(&mut self.changes);
        let settled = changes.into_iter().map(|(key, change)| {
            let Change { mut entry, fresh } = change;
            let pieces = match &mut entry.damaged {
                Some(damaged) => &mut damaged.pieces,
                None => &mut entry.good.pieces,
            };
            pieces.extend(fresh.iter().filter_map(|packed| {
                Some(Held {
                    segment: self.sealed.get(packed.segment)?.clone(),
                    offset: packed.offset,
                    length: packed.length,
                })
            }));
            (key, entry)
        });
        Ok(settled.collect())
    }
}

/// [`TAIL`] as a length in memory.
#[expect(
    clippy::cast_possible_truncation,
    reason = "a constant of a few thousand"
)]
const TAIL_LEN: usize = TAIL as usize;

fn entry(found: &Found, copy: Copy) -> Entry {
    Entry {
        kind: found.kind,
        agent: found.agent.map(str::to_owned),
        mode: found.mode,
        good: copy,
        damaged: None,
        compared: 0,
        trouble: None,
    }
}

/// What people and agents said and did is guarded; our own files are what they are.
fn is_guarded(kind: Kind) -> bool {
    matches!(kind, Kind::Conversation | Kind::Shell)
}

fn digest(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}
