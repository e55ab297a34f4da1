//! The work tree's part of a backup. It comes after the conversations', in a snapshot of its own: they neither wait for
//! git nor fail with it.
//!
//! A look is a task of its own. One that takes longer than a backup waits for goes on, and the next backup takes what it
//! found, and only then looks again: never do two gits work in the same scratch repository.

use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::super::code::Code;
use super::super::snapshot::{Snapshot, SnapshotError, Snapshots};
use super::*;
use crate::boot::git::GitError;

/// How long a backup waits for a look: the first at a large work tree takes minutes, after that it costs what changed.
const LOOK: Duration = Duration::from_secs(45);
/// At the container's end.
const LAST_LOOK: Duration = Duration::from_secs(3);
/// For reading a bundle and putting it; other backups wait that long.
const BUNDLE: Duration = Duration::from_secs(5 * 60);

/// Looks at the work tree, one at a time.
#[derive(Debug)]
pub(super) struct Looks {
    /// None: it is not saved.
    snapshots: Option<Snapshots>,
    under_way: Option<AbortOnDropHandle<Result<Snapshot, SnapshotError>>>,
}

/// What became of a look.
enum Looked {
    /// As it was.
    As,
    /// There is no repository, or no git.
    None,
    Taken {
        code: Box<Code>,
        bundle: PathBuf,
        bytes: u64,
    },
    /// It goes on.
    Late,
    Failed(String),
}

impl Looks {
    pub(super) fn new(snapshots: Option<Snapshots>) -> Self {
        Self {
            snapshots,
            under_way: None,
        }
    }

    /// Waits until `until` for the look that is under way, else for a new one. Not waiting any more loses nothing.
    async fn look(&mut self, last: Option<&str>, masks: &Masks, until: Instant) -> Looked {
        let Some(snapshots) = &self.snapshots else {
            return Looked::As;
        };
        let under_way = self.under_way.get_or_insert_with(|| {
            let (snapshots, last) = (snapshots.clone(), last.map(str::to_owned));
            let masks = masks.clone();
            AbortOnDropHandle::new(tokio::spawn(async move {
                snapshots.take(last.as_deref(), &masks).await
            }))
        });
        let Ok(ended) = timeout_at(until, under_way).await else {
            return Looked::Late;
        };
        self.under_way = None;
        match ended {
            Ok(Ok(Snapshot::None)) => Looked::None,
            Ok(Ok(Snapshot::Unchanged)) => Looked::As,
            Ok(Ok(Snapshot::Taken {
                code,
                bundle,
                bytes,
            })) => Looked::Taken {
                code,
                bundle,
                bytes,
            },
            Ok(Err(SnapshotError::Git(GitError::Missing { .. }))) => Looked::None,
            Ok(Err(error)) => Looked::Failed(error.to_string()),
            Err(_) => Looked::Failed("the look ended early".to_owned()),
        }
    }
}

impl Engine {
    /// Saves the work tree if it changed; what is wrong is noted as unreadable. The last snapshot of it stays then.
    pub(super) async fn save_work_tree(
        &mut self,
        reason: &str,
        sessions: &[Session],
        masks: &Masks,
        done: &mut Done,
    ) {
        let last = reason == "stop";
        let patience = if last { LAST_LOOK } else { LOOK };
        let until = Instant::now() + patience;
        let hurry = self.setup.hurry.clone();
        loop {
            // What it found is from before this backup was asked for.
            let earlier = self.looks.under_way.is_some();
            let step = self.look(until, masks, done);
            let next = if last {
                step.await
            } else {
                tokio::select! {
                    next = step => next,
                    () = hurry.cancelled() => Err("the container ends".to_owned()),
                }
            };
            let saved = match next {
                Ok(Some(next)) => {
                    let put = self.put(reason, sessions.to_vec(), next).await;
                    put.map(|()| true).map_err(|error| error.to_string())
                }
                Ok(None) => Ok(false),
                Err(error) => Err(error),
            };
            match saved {
                Ok(taken) => done.taken |= taken,
                Err(error) => {
                    done.unreadable.push(Guarded {
                        key: bundle::key(),
                        reason: format!("the work tree is not saved: {error}"),
                    });
                    return;
                }
            }
            if !earlier {
                return;
            }
        }
    }

    /// One look; the index with what it found, if there is news.
    async fn look(
        &mut self,
        until: Instant,
        masks: &Masks,
        done: &mut Done,
    ) -> Result<Option<Index>, String> {
        let code = self.index.code.as_ref();
        let last = code.map(|code| code.fingerprint.as_str());
        let (code, path, bytes) = match self.looks.look(last, masks, until).await {
            Looked::As => return Ok(None),
            Looked::None => return Ok(self.without_code()),
            Looked::Taken {
                code,
                bundle,
                bytes,
            } => (code, bundle, bytes),
            Looked::Late => {
                done.unfinished = true;
                return Err("git takes long, and goes on".to_owned());
            }
            Looked::Failed(error) => return Err(error),
        };
        let Some(snapshots) = &self.looks.snapshots else {
            return Ok(None);
        };
        let Setup {
            collector, sink, ..
        } = &mut self.setup;
        let mut draft = Draft::new(collector, masks, sink);
        let taken = async {
            let helper = &snapshots.helper;
            draft.take_bundle(helper, &path, bytes).await?;
            draft.finish().await
        };
        let late = |_| format!("its bundle was not put within {} s", BUNDLE.as_secs());
        let taken = timeout(BUNDLE, taken).await.map_err(late)?;
        let changes = taken.map_err(|error| error.to_string())?;
        done.read_bytes += draft.read;
        done.new_bytes += draft.fresh;
        done.put_bytes += draft.put;
        // Said once, not with every change of something else.
        let said = self.index.code.as_ref().and_then(|code| code.secrets());
        let secrets = code
            .secrets()
            .filter(|secrets| said.as_ref() != Some(secrets));
        done.guarded.extend(secrets.map(|reason| Guarded {
            key: bundle::key(),
            reason,
        }));
        let mut next = Index::clone(&self.index);
        next.files.extend(changes);
        next.code = Some(code);
        Ok(Some(next))
    }

    /// There is no repository any more. What another container saved of its own stays, as its other files do.
    fn without_code(&self) -> Option<Index> {
        let own = self
            .index
            .files
            .get(&bundle::key())
            .is_some_and(Entry::is_own);
        own.then(|| {
            let mut next = Index::clone(&self.index);
            next.files.remove(&bundle::key());
            next.code = None;
            next
        })
    }
}
