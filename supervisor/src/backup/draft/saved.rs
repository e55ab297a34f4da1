//! Looking again at what was saved before: to go on from it, to judge by it, to join its small pieces.

use super::*;

impl Draft<'_> {
    /// A damaged file that grew as large as the good copy may hold all of it again. It is compared when it has doubled
    /// since the last time, so that reading it costs no more than writing it did.
    pub(super) async fn recovered<'e>(
        &mut self,
        found: &Found,
        before: &'e Entry,
    ) -> Result<Recovered<'e>, DraftError> {
        let size = found.stamp.size;
        let due = before.damaged.is_some()
            && size >= before.good.bytes
            && size >= before.compared.saturating_mul(2);
        if !due {
            return Ok(Recovered::No(Box::new(Cow::Borrowed(before))));
        }
        let mut records = Records::default();
        let scanned = self.scan(found, &before.good, Some(&mut records)).await?;
        let mut fresh = Vec::new();
        if let Some((hash, tail)) = scanned {
            let mut copy = Copy {
                hash: Some(hash),
                tail: Some(tail),
                ..before.good.clone()
            };
            return match self.grow(found, &mut copy, &mut fresh, None).await? {
                Grown::Yes => Ok(Recovered::Good(Box::new(copy), fresh)),
                // It is being written; the next time tells.
                Grown::Mismatch => Ok(Recovered::No(Box::new(Cow::Borrowed(before)))),
            };
        }
        // Twice: of the file, so that nothing is put in vain, and of the very bytes that are saved.
        if self.judge(&before.good, records).await.is_ok() {
            let mut copy = Copy::default();
            let mut records = Records::default();
            self.grow(found, &mut copy, &mut fresh, Some(&mut records))
                .await?;
            if self.judge(&before.good, records).await.is_ok() {
                return Ok(Recovered::Good(Box::new(copy), fresh));
            }
        }
        let entry = Entry {
            compared: size,
            ..before.clone()
        };
        Ok(Recovered::No(Box::new(Cow::Owned(entry))))
    }

    /// Many small pieces become one, read back from where they are: the snapshot of a file that grew all day stays small.
    /// When they cannot be read now, they stay as they are.
    pub(super) async fn join(
        &mut self,
        copy: &mut Copy,
        fresh: &mut Vec<Packed>,
    ) -> Result<(), DraftError> {
        if fresh.is_empty() || copy.pieces.len() < PIECES {
            return Ok(());
        }
        let mut bytes = 0;
        let small = copy.pieces.iter().rev().take_while(|held| {
            bytes += held.length;
            bytes <= pack::FULL as u64 / 2
        });
        let count = small.count();
        if count < PIECES / 2 {
            return Ok(());
        }
        let from = copy.pieces.len() - count;
        let small = copy.pieces.split_off(from);
        let mut contents = Vec::new();
        for held in &small {
            match self.piece(held).await {
                Ok(content) => contents.push(content),
                Err(error) => {
                    tracing::warn!(%error, "small pieces cannot be joined now");
                    copy.pieces.extend(small);
                    return Ok(());
                }
            }
        }
        let mut joined = Vec::new();
        for content in contents {
            self.pack(&content, &mut joined).await?;
        }
        self.joined += joined.iter().map(|piece| piece.length).sum::<u64>();
        joined.append(fresh);
        *fresh = joined;
        Ok(())
    }

    /// Whether a file with these records may replace the good copy.
    pub(super) async fn judge(&mut self, good: &Copy, now: Records) -> Result<(), String> {
        let mut saved = Records::default();
        for held in &good.pieces {
            match self.piece(held).await {
                Ok(content) => saved.push(&content),
                Err(error) => {
                    return Err(format!("it cannot be compared with what is saved: {error}"));
                }
            }
        }
        let compared = tokio::task::spawn_blocking(move || guard::compare(saved, now)).await;
        match compared {
            Ok(verdict) => verdict.map_err(|damage| damage.to_string()),
            Err(_) => Err("it could not be compared with what is saved".to_owned()),
        }
    }

    pub(super) async fn piece(&mut self, held: &Held) -> Result<Bytes, StoreError> {
        let content = self.sink.get(&held.segment).await?;
        let range = usize::try_from(held.offset)
            .ok()
            .zip(usize::try_from(held.offset + held.length).ok())
            .filter(|(begin, end)| begin <= end && *end <= content.len());
        let (begin, end) = range.ok_or_else(|| StoreError::Segment {
            name: held.segment.name.clone(),
            what: "it is too short",
        })?;
        Ok(content.slice(begin..end))
    }

    /// Reads a file from its start: does it begin with what is saved, and which records are in it? The hash and the tail
    /// at the end of what is saved, if it does.
    pub(super) async fn scan(
        &mut self,
        found: &Found,
        saved: &Copy,
        mut records: Option<&mut Records>,
    ) -> Result<Option<(Running, String)>, DraftError> {
        let masks = self.masks;
        let mut masking = masks.begin();
        let mut hash = Running::default();
        let mut recent = Vec::new();
        let mut offset = 0;
        loop {
            let (raw, stamp) = self.read(&found.key, offset, CHUNK).await?;
            let left = saved.bytes.saturating_sub(offset);
            let (before, _) =
                raw.split_at(usize::try_from(left).unwrap_or(usize::MAX).min(raw.len()));
            recent.extend_from_slice(before);
            recent.drain(..recent.len().saturating_sub(TAIL_LEN));
            offset += raw.len() as u64;
            let end = raw.len() < CHUNK || offset >= stamp.size;
            let mut masked = masking.push(&raw);
            if end {
                masked.extend(std::mem::replace(&mut masking, masks.begin()).finish());
            }
            let left = saved.bytes.saturating_sub(hash.bytes());
            let left = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(masked.len());
            hash.update(masked.split_at(left).0);
            if let Some(records) = &mut records {
                records.push(&masked);
            }
            if end {
                break;
            }
        }
        let is_prefix = hash.bytes() == saved.bytes && hash.digest() == saved.sha256;
        Ok(is_prefix.then(|| (hash, digest(&recent))))
    }
}
