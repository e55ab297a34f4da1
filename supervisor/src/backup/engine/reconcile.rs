//! The index and the store, compared: what the store has and we do not know of, and the other way round.

use super::super::collect::{Shape, shape};
use super::*;

/// Snapshots that are tried, the newest first, when one cannot be read.
const TRIED: usize = 5;

impl Engine {
    /// The first time all of it, later only whether the newest snapshot is still there.
    pub(super) async fn reconcile(&mut self) -> Result<(), StoreError> {
        let store = self.setup.sink.target()?;
        if self.reconciled {
            match &self.index.newest {
                Some(newest) if !store.has_manifest(newest).await? => {
                    tracing::warn!("the store lost the newest snapshot: everything is saved anew");
                    let index = Arc::make_mut(&mut self.index);
                    index.forget_stored();
                    // What else is there may be older than what was forgotten, and is all that is left of it.
                    index.adopted = false;
                    self.known = false;
                    self.reconciled = false;
                }
                _ => return Ok(()),
            }
        }
        let ids = store.list_manifests().await?;
        // Those that the index had no time to follow: what it says of their files is true, if behind.
        let (known, container) = (self.known, self.index.container.clone());
        let ours = |id: &SnapshotId| known && id.as_str().ends_with(&container);
        match ids.last() {
            None => Arc::make_mut(&mut self.index).forget_stored(),
            Some(newest) => {
                let news = self.index.newest.as_ref() != Some(newest) && !ours(newest);
                let others: Vec<SnapshotId> = ids.iter().filter(|id| !ours(id)).cloned().collect();
                // Our own may be the newest although nobody ever looked at those before: it waited in the spool.
                if (news || !self.index.adopted) && !others.is_empty() {
                    let theirs = readable(&store, &others).await?;
                    let theirs = Index::adopt(container.clone(), &theirs);
                    let joined = join(Arc::make_mut(&mut self.index), theirs);
                    self.incomplete |= joined && ours(newest);
                }
                let index = Arc::make_mut(&mut self.index);
                index.newest = index.newest.take().max(Some(newest.clone()));
            }
        }
        Arc::make_mut(&mut self.index).adopted = true;
        self.reconciled = true;
        self.written = false;
        Ok(())
    }
}

/// What another container saved joins what this one did; whether that made a difference.
fn join(own: &mut Index, mut theirs: Index) -> bool {
    let mut joined = false;
    if own.code.is_none() {
        own.code = theirs.code;
    } else {
        // The newest is what counts.
        theirs.files.remove(&bundle::key());
    }
    for (key, entry) in theirs.files {
        joined |= match own.files.get_mut(&key) {
            None => own.files.insert(key, entry).is_none(),
            Some(known) => beside(known, entry, &key),
        };
    }
    joined
}

/// A file of the same name that both saved, and neither looked at the other's. What was said there first must not go for
/// what is said here: it is judged as if it had been known, with what is here as the copy that has to hold all of it.
fn beside(known: &mut Entry, theirs: Entry, key: &Key) -> bool {
    let guarded = matches!(known.kind, Kind::Conversation | Kind::Shell)
        && shape(&key.path, known.kind) == Shape::Lines;
    let differs = theirs.kind == known.kind && theirs.good.sha256 != known.good.sha256;
    if guarded && differs {
        let own = std::mem::take(&mut known.good);
        known.good = theirs.good;
        known.damaged = Some(own);
        known.compared = 0;
        // So that it is looked at though nothing changed.
        known.trouble = Some("another container saved it, too".to_owned());
    }
    guarded && differs
}

/// The newest snapshot that can be read.
async fn readable(store: &Store, ids: &[SnapshotId]) -> Result<Manifest, StoreError> {
    let mut first = None;
    for id in ids.iter().rev().take(TRIED) {
        match store.get_manifest(id).await {
            Ok(manifest) => return Ok(manifest),
            Err(error) => {
                tracing::warn!(%error, "a snapshot cannot be read");
                first.get_or_insert(error);
            }
        }
    }
    Err(first.unwrap_or_else(|| StoreError::Segment {
        name: String::new(),
        what: "there is no snapshot",
    }))
}
