//! Taking a code snapshot, as the agents' user, without touching the checkout.
//!
//! Everything is done in a repository of our own beside it ([`Snapshots::scratch`]): it borrows the checkout's objects,
//! has an index of its own that knows the work tree (so that a snapshot costs what changed), and receives new objects and
//! the bundle. In the checkout git only reads; its index, branches and files stay as they are, and its configuration,
//! which somebody else wrote, has no part in what is written.
//!
//! Equal states give equal commits, because author and time are fixed: an unchanged checkout is recognised without a
//! bundle. A scratch repository that cannot be used (pruned objects, a crash, too much in it) is thrown away and begun
//! anew, once a snapshot.

mod clean;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use self::clean::Clean;
use self::clean::Cleaned;
use super::code::{
    self, BUNDLE, Branch, Code, LeftOut, Limits, MOST_LEFT_OUT, MOST_WITHHELD, Reason, Ref,
};
use super::mask::Masks;
use crate::boot::credentials::without_login;
use crate::boot::git::{Git, GitError, QUICK};
use crate::helper::{Helper, HelperError};

/// Hashing a large work tree for the first time, and packing what is not pushed.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Objects of our own, in KiB, beyond which the scratch repository is begun anew.
const SCRATCH_KIB: u64 = 1024 * 1024;
/// Exclude files and lists of people.
const SMALL: usize = 1024 * 1024;
/// An index of a quarter of a million files. What is staged in a larger one is saved as work tree only.
const INDEX: usize = 32 * 1024 * 1024;
/// Bytes of a bundle's head that are looked at: a base commit takes at most a line.
const HEAD: usize = 1024 * 1024;

/// Where snapshots are taken.
#[derive(Clone, Debug)]
pub struct Snapshots {
    pub git: Git,
    pub helper: Helper,
    pub checkout: PathBuf,
    /// A directory of the agents' user outside the checkout, for nothing else.
    pub scratch: PathBuf,
    pub limits: Limits,
    pub clean: Clean,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// There is no repository.
    None,
    /// As in the snapshot of this fingerprint.
    Unchanged,
    /// `bundle`: a file of the agents' user, good until the next snapshot; `bytes`: its size when git had written it.
    Taken {
        code: Box<Code>,
        bundle: PathBuf,
        bytes: u64,
    },
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Git(#[from] GitError),
    #[error(transparent)]
    Helper(#[from] HelperError),
    #[error("git's bundle {path} cannot be understood", path = path.display())]
    Bundle { path: PathBuf },
    #[error("git's list of changes {path} cannot be looked through for secrets", path = path.display())]
    Unclear { path: PathBuf },
    #[error("a known secret is in it and cannot be left out")]
    Secret,
    #[error(transparent)]
    Invalid(#[from] code::Invalid),
}

/// What git says about the checkout.
#[derive(Clone)]
struct Found {
    directory: PathBuf,
    common: PathBuf,
    format: String,
    head: Option<String>,
    branch: Option<String>,
    refs: Vec<Ref>,
    remote: Option<String>,
    operation: Option<String>,
}

impl Snapshots {
    /// Takes one without these secrets, unless all is as in the snapshot with the fingerprint `last`.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing is left in the checkout then either.
    pub async fn take(&self, last: Option<&str>, masks: &Masks) -> Result<Snapshot, SnapshotError> {
        let Some(found) = self.look().await? else {
            return Ok(Snapshot::None);
        };
        match self.attempt(&found, last, masks).await {
            Err(SnapshotError::Git(error @ GitError::Failed { .. })) if !error.is_disk_full() => {
                tracing::info!(%error, "the repository for snapshots is begun anew");
                self.helper.remove_tree(&self.scratch).await?;
                self.attempt(&found, last, masks).await
            }
            other => other,
        }
    }

    async fn attempt(
        &self,
        found: &Found,
        last: Option<&str>,
        masks: &Masks,
    ) -> Result<Snapshot, SnapshotError> {
        self.prepare(found).await?;
        let left_out = self.choose().await?;
        let mut notes = left_out;
        let unreadable = self.add().await?;
        notes.extend(unreadable);
        let Cleaned {
            found,
            work_tree,
            staged,
            notes: secret,
            withheld,
        } = self.clean(found, masks).await?;
        let found = &found;
        // First, so that no bound takes them.
        notes.splice(..0, secret);
        let modules = self.submodules(found, &work_tree, &mut notes).await?;
        for left in &mut notes {
            let path = masks.apply(left.path.as_bytes());
            left.path = String::from_utf8_lossy(&path).into_owned();
        }
        let more = notes.len().saturating_sub(MOST_LEFT_OUT) as u64;
        notes.truncate(MOST_LEFT_OUT);
        let branches = found.refs.iter().filter_map(|entry| {
            let name = entry.name.strip_prefix("refs/heads/")?;
            Some(Branch {
                name: name.to_owned(),
                commit: entry.commit.clone(),
            })
        });
        let mut code = Code {
            branch: found.branch.clone(),
            head: found.head.clone(),
            branches: branches.collect(),
            bases: Vec::new(),
            remote: found.remote.clone(),
            bundle: BUNDLE.into(),
            work_tree,
            staged,
            operation: found.operation.clone(),
            submodules: modules,
            left_out: notes,
            left_out_more: more,
            withheld: withheld.into_iter().take(MOST_WITHHELD).collect(),
            object_format: found.format.clone(),
            fingerprint: String::new(),
        };
        code.fingerprint = fingerprint(&code, &found.refs);
        if last == Some(code.fingerprint.as_str()) {
            return Ok(Snapshot::Unchanged);
        }
        let (bases, bytes) = self.bundle(found, &code).await?;
        code.bases = bases;
        code.check()?;
        Ok(Snapshot::Taken {
            code: Box::new(code),
            bundle: self.scratch.join(BUNDLE),
            bytes,
        })
    }

    async fn look(&self) -> Result<Option<Found>, SnapshotError> {
        let here = ["rev-parse", "--show-prefix", "--absolute-git-dir"];
        let asked = self.git.capture(&self.checkout, &here, QUICK).await?;
        let asked = String::from_utf8_lossy(&asked.stdout).into_owned();
        let mut lines = asked.lines();
        // A checkout inside somebody's repository is not one itself.
        let (Some(""), Some(directory)) = (lines.next(), lines.next()) else {
            return Ok(None);
        };
        let read = async |arguments: &[&str]| {
            let run = self.git.capture(&self.checkout, arguments, QUICK).await?;
            let text = String::from_utf8_lossy(&run.stdout).trim().to_owned();
            Ok::<_, GitError>(Some(text).filter(|text| run.exit.success() && !text.is_empty()))
        };
        let directory = PathBuf::from(directory);
        let common = read(&["rev-parse", "--path-format=absolute", "--git-common-dir"]).await?;
        let common = common.map_or_else(|| directory.clone(), PathBuf::from);
        let format = read(&["rev-parse", "--show-object-format"]).await?;
        let listing = read(&[
            "for-each-ref",
            "--format=%(objectname) %(refname)",
            "refs/heads",
            "refs/remotes/origin",
            "refs/stash",
        ])
        .await?;
        let head = read(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await?;
        let branch = read(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await?;
        let remote = read(&["config", "--get", "remote.origin.url"]).await?;
        let operation = self.operation(&directory).await?;
        Ok(Some(Found {
            format: format.unwrap_or_else(|| "sha1".into()),
            head,
            branch,
            refs: code::refs(&listing.unwrap_or_default()),
            remote: remote.map(|url| without_login(&url)),
            operation,
            directory,
            common,
        }))
    }

    async fn operation(&self, directory: &Path) -> Result<Option<String>, HelperError> {
        const SIGNS: [(&str, &str); 6] = [
            ("rebase-merge", "rebase"),
            ("rebase-apply", "rebase"),
            ("MERGE_HEAD", "merge"),
            ("CHERRY_PICK_HEAD", "cherry-pick"),
            ("REVERT_HEAD", "revert"),
            ("BISECT_LOG", "bisect"),
        ];
        for (name, operation) in SIGNS {
            match self.helper.stat(&directory.join(name)).await {
                Ok(_) => return Ok(Some(operation.to_owned())),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Makes the scratch repository, or brings it up to date with what the checkout has.
    async fn prepare(&self, found: &Found) -> Result<(), SnapshotError> {
        let mark = self.scratch.join("HEAD");
        let known = self.helper.read_optional(&mark, SMALL).await?.is_some();
        if known && self.is_large().await? {
            self.helper.remove_tree(&self.scratch).await?;
        }
        self.helper.make_directory(&self.scratch, 0o700).await?;
        let format = format!("--object-format={}", found.format);
        let init = ["init", "--quiet", "--bare", "--template=", &format, "."];
        self.git.run(&self.scratch, &init, QUICK).await?;
        let write = async |name: &str, text: String| {
            let path = self.scratch.join(name);
            self.helper
                .write(&path, 0o600, None, text.into_bytes())
                .await
        };
        let objects = format!("{}\n", found.common.join("objects").display());
        write("objects/info/alternates", objects).await?;
        write("packed-refs", code::packed(&found.refs)).await?;
        let shallow = found.common.join("shallow");
        match self.helper.read_optional(&shallow, SMALL).await? {
            Some((content, _)) => {
                let path = self.scratch.join("shallow");
                self.helper.write(&path, 0o600, None, content).await?;
            }
            None => self.forget("shallow").await?,
        }
        // A lock of a git that was killed.
        self.forget("index.lock").await?;
        self.sparse(found).await
    }

    /// What a sparse checkout leaves out is not there, and yet not deleted.
    async fn sparse(&self, found: &Found) -> Result<(), SnapshotError> {
        let asked = ["config", "--get", "--type=bool", "core.sparseCheckout"];
        let answer = self.git.capture(&self.checkout, &asked, QUICK).await?;
        if answer.stdout.trim_ascii() != b"true" {
            return Ok(());
        }
        let patterns = found.directory.join("info/sparse-checkout");
        let Some((patterns, _)) = self.helper.read_optional(&patterns, SMALL).await? else {
            return Ok(());
        };
        let path = self.scratch.join("info/sparse-checkout");
        self.helper.write(&path, 0o600, None, patterns).await?;
        self.inner(&["config", "core.sparseCheckout", "true"])
            .await?;
        // Its index must know them: from the commit, with the patterns, at every snapshot.
        self.forget("index").await?;
        if let Some(head) = &found.head {
            self.inner(&["read-tree", "-m", head]).await?;
        }
        Ok(())
    }

    async fn is_large(&self) -> Result<bool, GitError> {
        let counted = self
            .git
            .run(&self.scratch, &["count-objects", "-v"], QUICK)
            .await?;
        let kib = counted.lines().filter_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let counts = matches!(name, "size" | "size-pack");
            value.parse::<u64>().ok().filter(|_| counts)
        });
        Ok(kib.sum::<u64>() > SCRATCH_KIB)
    }

    async fn forget(&self, name: &str) -> Result<(), HelperError> {
        match self.helper.remove(&self.scratch.join(name)).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Git in the scratch repository, with the checkout as its work tree.
    async fn inner(&self, arguments: &[&str]) -> Result<String, GitError> {
        self.with(&[], arguments).await
    }

    async fn with(
        &self,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Result<String, GitError> {
        let directory = format!("--git-dir={}", self.scratch.display());
        let tree = format!("--work-tree={}", self.checkout.display());
        let arguments: Vec<&str> = [directory.as_str(), tree.as_str(), "--literal-pathspecs"]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        let mut git = self.git.clone();
        let own = [
            ("GIT_AUTHOR_NAME", "whim"),
            ("GIT_AUTHOR_EMAIL", "snapshot@whim.invalid"),
            ("GIT_AUTHOR_DATE", "@0 +0000"),
            ("GIT_COMMITTER_NAME", "whim"),
            ("GIT_COMMITTER_EMAIL", "snapshot@whim.invalid"),
            ("GIT_COMMITTER_DATE", "@0 +0000"),
        ];
        let pairs = own.iter().chain(environment);
        git.environment
            .extend(pairs.map(|(name, value)| ((*name).into(), (*value).into())));
        git.run(&self.checkout, &arguments, PATIENCE).await
    }

    /// Chooses what of the untracked files is saved, and tells our repository.
    async fn choose(&self) -> Result<Vec<LeftOut>, SnapshotError> {
        let list = ["ls-files", "--others", "--exclude-standard", "-z"];
        let listed = self.git.run(&self.checkout, &list, PATIENCE).await?;
        let names: Vec<String> = listed
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let (repositories, files): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.ends_with('/'));
        let mut sizes = Vec::with_capacity(files.len());
        // A request's body is bounded, and names may be long.
        for part in files.chunks(2_000) {
            sizes.extend(self.helper.sizes(&self.checkout, part).await?);
        }
        let chosen = code::left_out(&sizes, self.limits);
        let mut out: Vec<LeftOut> = chosen
            .into_iter()
            .filter_map(|(index, reason)| {
                Some(LeftOut {
                    path: files.get(index)?.clone(),
                    reason,
                    bytes: sizes.get(index).copied().flatten().unwrap_or(0),
                })
            })
            .collect();
        out.extend(repositories.into_iter().map(|path| LeftOut {
            path: path.trim_end_matches('/').to_owned(),
            reason: Reason::Repository,
            bytes: 0,
        }));
        let theirs = [
            "rev-parse",
            "--path-format=absolute",
            "--git-path",
            "info/exclude",
        ];
        let theirs = self.git.run(&self.checkout, &theirs, QUICK).await?;
        let theirs = Path::new(theirs.trim());
        let mut text = match self.helper.read_optional(theirs, SMALL).await? {
            Some((content, _)) => content,
            None => Vec::new(),
        };
        text.push(b'\n');
        let lines = out.iter().filter_map(|left| code::exclude(&left.path));
        text.extend(lines.flat_map(String::into_bytes));
        let path = self.scratch.join("info/exclude");
        self.helper.write(&path, 0o600, None, text).await?;
        if !out.is_empty() {
            // Files that were small enough before are in our index still.
            let names: Vec<&str> = out.iter().map(|left| left.path.as_str()).collect();
            let path = self.scratch.join("left-out");
            let content = names.join("\0").into_bytes();
            self.helper.write(&path, 0o600, None, content).await?;
            let from = format!("--pathspec-from-file={}", path.display());
            self.inner(&[
                "rm",
                "-r",
                "--cached",
                "--force",
                "--quiet",
                "--ignore-unmatch",
                &from,
                "--pathspec-file-nul",
            ])
            .await?;
        }
        Ok(out)
    }

    /// Brings our index to the work tree. What cannot be read is left out and told.
    async fn add(&self) -> Result<Option<LeftOut>, SnapshotError> {
        let added = self.inner(&["add", "--all", "--ignore-errors", "."]).await;
        let Err(GitError::Failed { stderr, .. }) = &added else {
            return added.map(|_| None).map_err(Into::into);
        };
        let unreadable = stderr.contains("Permission denied") || stderr.contains("unable to index");
        if !unreadable || crate::files::says_disk_full(stderr) {
            return added.map(|_| None).map_err(Into::into);
        }
        Ok(Some(LeftOut {
            path: stderr.chars().take(500).collect(),
            reason: Reason::Unreadable,
            bytes: 0,
        }))
    }

    /// The work tree's commit, and that of what is staged, if that is wanted.
    async fn commits(
        &self,
        found: &Found,
        as_staged: bool,
    ) -> Result<(String, Option<String>), SnapshotError> {
        let tree = self.inner(&["write-tree"]).await?;
        let staged = if as_staged {
            self.staged(found).await?
        } else {
            None
        };
        let parents: Vec<&str> = found
            .head
            .iter()
            .chain(&staged)
            .map(String::as_str)
            .collect();
        let commit = self.commit(tree.trim(), "Work tree", &parents).await?;
        Ok((commit, staged))
    }

    async fn commit(
        &self,
        tree: &str,
        message: &str,
        parents: &[&str],
    ) -> Result<String, GitError> {
        let mut arguments = vec!["commit-tree", tree, "-m", message];
        arguments.extend(parents.iter().flat_map(|parent| ["-p", *parent]));
        Ok(self.inner(&arguments).await?.trim().to_owned())
    }

    /// `None` where nothing is staged, and where it cannot be told: conflicts, or an index in parts.
    async fn staged(&self, found: &Found) -> Result<Option<String>, SnapshotError> {
        let Some(head) = &found.head else {
            return Ok(None);
        };
        let index = match self
            .helper
            .read(&found.directory.join("index"), INDEX)
            .await
        {
            Ok((index, _)) => index,
            Err(HelperError::Io { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let copy = self.scratch.join("staged");
        self.helper.write(&copy, 0o600, None, index).await?;
        let copy = copy.to_string_lossy();
        let tree = match self
            .with(&[("GIT_INDEX_FILE", &copy)], &["write-tree"])
            .await
        {
            Ok(tree) => tree,
            Err(GitError::Failed { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let committed = format!("{head}^{{tree}}");
        let committed = self.inner(&["rev-parse", "--verify", &committed]).await?;
        if committed.trim() == tree.trim() {
            return Ok(None);
        }
        Ok(Some(self.commit(tree.trim(), "Staged", &[head]).await?))
    }

    /// Paths of submodules; repositories that are none are told as left out.
    async fn submodules(
        &self,
        found: &Found,
        work_tree: &str,
        notes: &mut Vec<LeftOut>,
    ) -> Result<Vec<String>, SnapshotError> {
        // Of directories and commits only (`-d`): a listing of every file has no bound.
        let links_of = async |commit| self.inner(&["ls-tree", "-r", "-d", "-z", commit]).await;
        let listed = links_of(work_tree).await?;
        let modules: Vec<String> = links(&listed).map(str::to_owned).collect();
        if modules.is_empty() {
            return Ok(modules);
        }
        let known = match &found.head {
            Some(head) => links_of(head).await?,
            None => String::new(),
        };
        let known: Vec<&str> = links(&known).collect();
        let (submodules, others): (Vec<String>, Vec<String>) = modules
            .into_iter()
            .partition(|path| known.contains(&path.as_str()));
        notes.extend(others.into_iter().map(|path| LeftOut {
            path,
            reason: Reason::Repository,
            bytes: 0,
        }));
        Ok(submodules)
    }

    /// Packs what the remote does not have; answers with the commits that it builds on, and the bundle's size.
    async fn bundle(
        &self,
        found: &Found,
        code: &Code,
    ) -> Result<(Vec<String>, u64), SnapshotError> {
        self.inner(&["update-ref", code::WORK_TREE_REF, &code.work_tree])
            .await?;
        let path = self.scratch.join(BUNDLE);
        let file = path.to_string_lossy();
        let mut arguments = vec!["bundle", "create", "--quiet", &file];
        arguments.extend(saved(found));
        self.inner(&arguments).await?;
        let (head, stamp) = self.helper.read_at(&path, 0, HEAD).await?;
        let bases = code::prerequisites(&head).ok_or(SnapshotError::Bundle { path })?;
        Ok((bases, stamp.size))
    }
}

/// What is saved, as arguments: what `origin` does not have of these refs.
fn saved(found: &Found) -> Vec<&'static str> {
    let stash = found.refs.iter().any(|entry| entry.name == "refs/stash");
    let stash = stash.then_some("refs/stash");
    std::iter::once(code::WORK_TREE_REF)
        .chain(stash)
        .chain(["--branches", "--not", "--remotes=origin"])
        .collect()
}

/// Paths of the commits in a listing of `ls-tree`.
fn links(listing: &str) -> impl Iterator<Item = &str> {
    listing.split('\0').filter_map(|line| {
        let (entry, path) = line.split_once('\t')?;
        entry.starts_with("160000 ").then_some(path)
    })
}

/// Of everything that a restore would do differently.
fn fingerprint(code: &Code, refs: &[Ref]) -> String {
    let mut hash = Sha256::new();
    let mut word = |text: &str| {
        hash.update(text.as_bytes());
        hash.update([0]);
    };
    word(&code.work_tree);
    word(code.branch.as_deref().unwrap_or_default());
    word(code.operation.as_deref().unwrap_or_default());
    word(code.remote.as_deref().unwrap_or_default());
    for entry in refs {
        word(&entry.name);
        word(&entry.commit);
    }
    for left in &code.left_out {
        word(&left.path);
    }
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod clean_tests;
#[cfg(test)]
mod tests;
