//! Known secrets stay out of a snapshot. Inside a bundle nothing can be replaced (it is compressed, and every object is
//! named after its content), so what holds one is left out, and named:
//!
//! - a file of the work tree is saved as `HEAD` has it, or not at all; what was staged is not saved as such then;
//! - a commit that is not pushed is not saved, nor what was built on it. Branches that it is in are left to the remote; the
//!   checked out one goes back to the newest commit before it, and everything since is in the work tree, uncommitted.
//!
//! What is pushed is the remote's already. Of the rest the newest [`MOST_COMMITS`] commits are looked through, those that
//! were found clean only once, as long as no other secret became known; older ones count as clean: they are of a time long
//! before this container. What cannot be made clean, or read, is not saved.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::super::leaks::{self, Leak, Looking};
use super::super::mask::Masks;
use super::*;

/// Commits that are looked through, the newest first.
const MOST_COMMITS: &str = "--max-count=10000";
/// Most of them that are remembered: one of each branch.
const MOST_CLEAN: usize = 1000;
/// Rounds: commits, then what is left of them in the index and the work tree.
const ROUNDS: usize = 4;
/// Bytes that are looked through at once.
const PART: usize = 8 * 1024 * 1024;

/// Commits that were looked through, with all before them; and how many forms of secrets were known then. Shared by
/// clones. What a supervisor before this one looked through is looked through again.
#[derive(Clone, Debug, Default)]
pub struct Clean(Arc<Mutex<(usize, Vec<String>)>>);

impl Clean {
    fn of(&self, masks: &Masks) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (forms, commits) = &*known;
        if *forms == masks.known() {
            commits.clone()
        } else {
            Vec::new()
        }
    }

    fn set(&self, masks: &Masks, commits: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (masks.known(), commits);
    }
}

/// The work tree's commits, and what of the repository may be saved with them.
pub(super) struct Cleaned {
    pub(super) found: Found,
    pub(super) work_tree: String,
    pub(super) staged: Option<String>,
    pub(super) notes: Vec<LeftOut>,
    pub(super) withheld: BTreeSet<String>,
}

impl Snapshots {
    /// The commits of the work tree as our index has it, without what holds a secret.
    pub(super) async fn clean(
        &self,
        found: &Found,
        masks: &Masks,
    ) -> Result<Cleaned, SnapshotError> {
        let (mut found, mut notes, mut withheld) = (found.clone(), Vec::new(), BTreeSet::new());
        let mut as_staged = true;
        for _ in 0..ROUNDS {
            let (work_tree, staged) = self.commits(&found, as_staged).await?;
            self.inner(&["update-ref", code::WORK_TREE_REF, &work_tree])
                .await?;
            let leaks = self.leaks(&found, masks).await?;
            if leaks.is_empty() {
                // The remote's are left out of each look anyway.
                let own = found
                    .refs
                    .iter()
                    .filter(|entry| !entry.name.starts_with("refs/remotes/"));
                let tips = own.map(|entry| entry.commit.clone());
                let tips = std::iter::once(work_tree.clone()).chain(tips);
                self.clean.set(masks, tips.take(MOST_CLEAN).collect());
                return Ok(Cleaned {
                    found,
                    work_tree,
                    staged,
                    notes,
                    withheld,
                });
            }
            let (own, commits): (Vec<Leak>, Vec<Leak>) = leaks.into_iter().partition(|leak| {
                leak.commit == work_tree || Some(&leak.commit) == staged.as_ref()
            });
            let temporary = [Some(work_tree), staged];
            let mut paths: Vec<String> = own.into_iter().filter_map(|leak| leak.path).collect();
            if !paths.is_empty() {
                paths.sort_unstable();
                paths.dedup();
                as_staged = false;
                self.as_committed(&found, &paths).await?;
                notes.extend(paths.into_iter().map(|path| LeftOut {
                    path,
                    reason: Reason::Secret,
                    bytes: 0,
                }));
            }
            if !commits.is_empty() {
                let leaking = commits.iter().map(|leak| leak.commit.as_str()).collect();
                let gone = self.withhold(&mut found, &leaking).await?;
                // Those of the work tree are made anew.
                let of_the_work_tree =
                    |commit: &String| temporary.iter().flatten().any(|one| one == commit);
                withheld.extend(gone.into_iter().filter(|commit| !of_the_work_tree(commit)));
            }
        }
        Err(SnapshotError::Secret)
    }

    /// Where secrets are in what the bundle is to hold.
    async fn leaks(&self, found: &Found, masks: &Masks) -> Result<BTreeSet<Leak>, SnapshotError> {
        if masks.known() == 0 {
            return Ok(BTreeSet::new());
        }
        let path = self.scratch.join("changes");
        let output = format!("--output={}", path.display());
        let clean = self.clean.of(masks);
        let mut arguments: Vec<&str> = leaks::ARGUMENTS.to_vec();
        arguments.extend([output.as_str(), MOST_COMMITS, "--ignore-missing"]);
        arguments.extend(saved(found));
        arguments.extend(clean.iter().map(String::as_str));
        self.inner(&arguments).await?;
        let looked = self.look_through(&path, masks).await;
        self.forget("changes").await?;
        looked
    }

    async fn look_through(
        &self,
        path: &Path,
        masks: &Masks,
    ) -> Result<BTreeSet<Leak>, SnapshotError> {
        let mut looking = Looking::new(masks);
        let mut at = 0;
        loop {
            let (part, _) = self.helper.read_at(path, at, PART).await?;
            if part.is_empty() {
                break;
            }
            at += part.len() as u64;
            looking.push(&part).map_err(|_| unclear(path))?;
            // Eight megabytes are some milliseconds.
            tokio::task::yield_now().await;
        }
        looking.finish().map_err(|_| unclear(path))
    }

    /// Takes files back to what `HEAD` has of them, in our index.
    async fn as_committed(&self, found: &Found, paths: &[String]) -> Result<(), SnapshotError> {
        let list = self.scratch.join("left-out");
        let content = paths.join("\0").into_bytes();
        self.helper.write(&list, 0o600, None, content).await?;
        let from = format!("--pathspec-from-file={}", list.display());
        let remove = ["rm", "--cached", "--force", "--quiet", "--ignore-unmatch"];
        let mut arguments = match &found.head {
            Some(_) => vec!["reset", "--quiet"],
            None => remove.to_vec(),
        };
        arguments.extend([from.as_str(), "--pathspec-file-nul"]);
        arguments.extend(found.head.as_deref());
        self.inner(&arguments).await?;
        Ok(())
    }

    /// Takes commits and all after them out of what is saved; answers with those that are not.
    async fn withhold(
        &self,
        found: &mut Found,
        leaking: &BTreeSet<&str>,
    ) -> Result<BTreeSet<String>, SnapshotError> {
        let mut arguments = vec!["rev-list", "--parents", "--topo-order", "--reverse"];
        arguments.extend(saved(found));
        let listing = self.inner(&arguments).await?;
        let tainted = leaks::tainted(&listing, leaking);
        found
            .refs
            .retain(|entry| !tainted.contains(entry.commit.as_str()));
        if let Some(head) = found.head.clone()
            && tainted.contains(head.as_str())
        {
            let mut arguments = vec!["rev-list", "--first-parent", "--parents", &head];
            arguments.extend(["--not", "--remotes=origin"]);
            let line = self.inner(&arguments).await?;
            // The newest first; of the last one the parent is the remote's.
            found.head = line.lines().find_map(|line| {
                let mut names = line.split(' ');
                names.next().filter(|commit| tainted.contains(commit))?;
                let parent = names.next()?;
                (!tainted.contains(parent)).then(|| parent.to_owned())
            });
        }
        let packed = self.scratch.join("packed-refs");
        let content = code::packed(&found.refs).into_bytes();
        self.helper.write(&packed, 0o600, None, content).await?;
        Ok(tainted.into_iter().map(str::to_owned).collect())
    }
}

fn unclear(path: &Path) -> SnapshotError {
    SnapshotError::Unclear {
        path: PathBuf::from(path),
    }
}
