//! What a code snapshot is: the part of a manifest that tells how to bring a checkout back. Pure.
//!
//! A snapshot is one git bundle and this description. The bundle holds the commits of all local branches that the remote
//! does not have, and one commit more, [`Code::work_tree`]: its tree is the work tree as it was found, tracked and
//! untracked files alike, its first parent is `HEAD`, its second, where there is one, is what was staged. What the remote
//! has is named ([`Code::bases`]) and fetched from there again.
//!
//! Not saved, and said so: what holds a secret that the supervisor knows ([`Reason::Secret`], [`Code::withheld`]), what
//! is ignored, files over [`Limits`], the content of submodules and of repositories inside the work tree
//! ([`Code::left_out`], [`Code::submodules`]), and a merge or rebase that is under way ([`Code::operation`]: its files
//! are as they were, it has to be begun again).

use serde::{Deserialize, Serialize};

/// Name of the work tree's commit in the bundle.
pub const WORK_TREE_REF: &str = "refs/whim/work-tree";
/// Path of the bundle among the files of a manifest, place `code`.
pub const BUNDLE: &str = "code.bundle";
/// Most entries of [`Code::left_out`]; the rest is counted.
pub const MOST_LEFT_OUT: usize = 200;
/// Most entries of [`Code::withheld`].
pub const MOST_WITHHELD: usize = 200;
/// Most branches of a snapshot; a repository with more is somebody's mistake or malice.
pub const MOST_BRANCHES: usize = 10_000;

/// How to bring a checkout back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Code {
    /// Checked out; `None`: a detached `HEAD`.
    pub branch: Option<String>,
    /// Commit of `HEAD`; `None`: no commit yet.
    pub head: Option<String>,
    /// All local branches, also those that the remote has.
    pub branches: Vec<Branch>,
    /// Commits that the bundle builds on and does not hold.
    pub bases: Vec<String>,
    /// URL of `origin`, without a login.
    pub remote: Option<String>,
    /// Path of the bundle among the manifest's files.
    pub bundle: String,
    /// See the module's header.
    pub work_tree: String,
    /// The commit of what was staged, where that differs from `HEAD`.
    pub staged: Option<String>,
    /// What was under way: `merge`, `rebase`, `cherry-pick`, `revert`, `bisect`.
    pub operation: Option<String>,
    /// Paths of submodules: their commit is known, what was done inside is not saved.
    pub submodules: Vec<String>,
    pub left_out: Vec<LeftOut>,
    /// What `left_out` has no room for.
    pub left_out_more: u64,
    /// Commits that are not saved, because a secret that the supervisor knows is in them or in one before them. Of what
    /// they changed the work tree has all.
    pub withheld: Vec<String>,
    /// `sha1` or `sha256`.
    pub object_format: String,
    /// Equal for equal snapshots.
    pub fingerprint: String,
}

/// A local branch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    pub name: String,
    pub commit: String,
}

/// A file, or a directory, of the work tree that the snapshot does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    pub path: String,
    pub reason: Reason,
    #[serde(default)]
    pub bytes: u64,
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Untracked and over the limit of one file.
    TooLarge,
    /// The untracked files together are over their limit, and this is one of the largest.
    TooMuch,
    /// A repository of its own.
    Repository,
    /// Neither a file nor a link, or not readable.
    Unreadable,
    /// It holds a secret that the supervisor knows; where it is tracked, it is saved as `HEAD` has it.
    Secret,
    #[serde(other)]
    Other,
}

/// What of untracked files is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub file: u64,
    /// Bytes of all together.
    pub total: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file: 32 * 1024 * 1024,
            total: 512 * 1024 * 1024,
        }
    }
}

/// A description that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the code snapshot names {0:?} as a commit")]
    Commit(String),
    #[error("the code snapshot names {0:?} as a branch")]
    Branch(String),
    #[error("the code snapshot has more than {MOST_BRANCHES} branches")]
    Branches,
    #[error("the code snapshot has the object format {0:?}")]
    Format(String),
    #[error("the code snapshot's remote cannot be an option or hold control characters")]
    Remote,
}

impl Code {
    /// What is not saved because of a secret in it, for people.
    #[must_use]
    pub fn secrets(&self) -> Option<String> {
        let files = self.left_out.iter();
        let files = files.filter(|left| left.reason == Reason::Secret);
        let files: Vec<&str> = files.map(|left| left.path.as_str()).collect();
        let mut parts = Vec::new();
        if !files.is_empty() {
            parts.push(format!("files: {}", shown(&files)));
        }
        if !self.withheld.is_empty() {
            let names = self.withheld.iter();
            let names: Vec<&str> = names.map(|name| name.get(..12).unwrap_or(name)).collect();
            parts.push(format!(
                "commits, saved as changes of the work tree only: {}",
                shown(&names)
            ));
        }
        (!parts.is_empty()).then(|| {
            format!(
                "a known secret is in it, so it is not in the snapshot: {}",
                parts.join("; ")
            )
        })
    }

    /// Everything in it that becomes an argument of git is what it should be.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn check(&self) -> Result<(), Invalid> {
        if !matches!(self.object_format.as_str(), "sha1" | "sha256") {
            return Err(Invalid::Format(self.object_format.clone()));
        }
        if self.branches.len() > MOST_BRANCHES || self.bases.len() > MOST_BRANCHES {
            return Err(Invalid::Branches);
        }
        let commits = self
            .branches
            .iter()
            .map(|branch| &branch.commit)
            .chain(&self.bases)
            .chain(&self.head)
            .chain(&self.staged)
            .chain([&self.work_tree]);
        for commit in commits {
            if !is_commit(commit) {
                return Err(Invalid::Commit(commit.clone()));
            }
        }
        let names = self.branches.iter().map(|branch| &branch.name);
        for name in names.chain(&self.branch) {
            if !is_branch(name) {
                return Err(Invalid::Branch(name.clone()));
            }
        }
        match &self.remote {
            Some(remote) if remote.starts_with('-') || remote.contains(char::is_control) => {
                Err(Invalid::Remote)
            }
            _ => Ok(()),
        }
    }
}

/// The first of them, and how many there are more.
fn shown(names: &[&str]) -> String {
    let first = names.get(..20).unwrap_or(names);
    match names.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// A full object name.
#[must_use]
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The rules of git-check-ref-format(1) for a branch.
#[must_use]
pub fn is_branch(name: &str) -> bool {
    let bad = |character: char| character.is_ascii_control() || " ~^:?*[\\".contains(character);
    !name.is_empty()
        && name.len() <= 1024
        && name != "@"
        && name != "HEAD"
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(bad)
        && name
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
}

/// A ref of `git for-each-ref --format=%(objectname) %(refname)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ref {
    pub(super) commit: String,
    pub(super) name: String,
}

pub(super) fn refs(listing: &str) -> Vec<Ref> {
    let parse = |line: &str| {
        let (commit, name) = line.split_once(' ')?;
        is_commit(commit).then(|| Ref {
            commit: commit.to_owned(),
            name: name.to_owned(),
        })
    };
    listing.lines().filter_map(parse).collect()
}

/// The file `packed-refs` with these refs. Sorted, as git wants it.
pub(super) fn packed(refs: &[Ref]) -> String {
    let mut lines: Vec<(&str, &str)> = refs
        .iter()
        .map(|entry| (entry.name.as_str(), entry.commit.as_str()))
        .collect();
    lines.sort_unstable();
    let mut text = String::from("# pack-refs with: sorted \n");
    for (name, commit) in lines {
        text.push_str(commit);
        text.push(' ');
        text.push_str(name);
        text.push('\n');
    }
    text
}

/// The commits that a bundle builds on, from its head (gitformat-bundle(5)): lines of `-<commit> <comment>` before the
/// refs. `None` when the head is not complete or none.
pub(super) fn prerequisites(head: &[u8]) -> Option<Vec<String>> {
    let end = memchr::memmem::find(head, b"\n\n")?;
    let text = String::from_utf8_lossy(head.get(..end)?);
    let mut lines = text.lines();
    if !lines.next()?.starts_with("# v") {
        return None;
    }
    let base = |line: &str| {
        let commit = line.strip_prefix('-')?.split(' ').next()?;
        is_commit(commit).then(|| commit.to_owned())
    };
    Some(lines.filter_map(base).collect())
}

/// Which untracked files are not saved: unreadable ones (`None`), those over the limit of one file, and then the largest
/// until the others fit together. Answers with indices and reasons, in the files' order.
pub(super) fn left_out(sizes: &[Option<u64>], limits: Limits) -> Vec<(usize, Reason)> {
    let mut out = Vec::new();
    let mut kept = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        match size {
            None => out.push((index, Reason::Unreadable)),
            Some(size) if *size > limits.file => out.push((index, Reason::TooLarge)),
            Some(size) => kept.push((*size, index)),
        }
    }
    let mut total = kept
        .iter()
        .fold(0_u64, |sum, (size, _)| sum.saturating_add(*size));
    kept.sort_unstable();
    while total > limits.total {
        let Some((size, index)) = kept.pop() else {
            break;
        };
        total = total.saturating_sub(size);
        out.push((index, Reason::TooMuch));
    }
    out.sort_unstable_by_key(|(index, _)| *index);
    out
}

/// A line of an exclude file that means this path and nothing else (gitignore(5)). `None` for a path that no line can
/// mean: one with a line end.
pub(super) fn exclude(path: &str) -> Option<String> {
    if path.contains('\n') {
        return None;
    }
    let mut line = String::from("/");
    for character in path.chars() {
        if "\\*?[ \t\r".contains(character) {
            line.push('\\');
        }
        line.push(character);
    }
    line.push('\n');
    Some(line)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn code() -> Code {
        Code {
            branch: Some("whim-x".into()),
            head: Some(COMMIT.into()),
            work_tree: COMMIT.into(),
            object_format: "sha1".into(),
            ..Code::default()
        }
    }

    #[test]
    fn what_could_be_an_option_or_a_path_is_refused() {
        assert_eq!(code().check(), Ok(()));
        for branch in [
            "--upload-pack=x",
            "a..b",
            "",
            "@",
            "x.lock",
            "a//b",
            "a b",
            "/a",
            ".a",
            "a\n",
        ] {
            let mut bad = code();
            bad.branch = Some(branch.into());
            assert_eq!(bad.check(), Err(Invalid::Branch(branch.into())));
        }
        for commit in ["HEAD", "-x", "0123", "--output=x"] {
            let mut bad = code();
            bad.work_tree = commit.into();
            assert_eq!(bad.check(), Err(Invalid::Commit(commit.into())));
        }
        let mut bad = code();
        bad.remote = Some("--upload-pack=touch x".into());
        assert_eq!(bad.check(), Err(Invalid::Remote));
    }

    #[test]
    fn a_bundles_head_tells_what_it_builds_on() {
        let head = format!("# v2 git bundle\n-{COMMIT} Start\n{COMMIT} refs/heads/x\n\nPACK");
        assert_eq!(prerequisites(head.as_bytes()), Some(vec![COMMIT.into()]));
        let full = format!("# v3 git bundle\n@object-format=sha1\n{COMMIT} refs/heads/x\n\nPACK");
        assert_eq!(prerequisites(full.as_bytes()), Some(Vec::new()));
        assert_eq!(prerequisites(b"# v2 git bundle\n-0123"), None);
        assert_eq!(prerequisites(b"PACK\n\n"), None);
    }

    #[test]
    fn the_largest_go_first_and_only_as_many_as_must() {
        let limits = Limits {
            file: 10,
            total: 12,
        };
        let sizes = [Some(3), Some(11), None, Some(8), Some(4)];
        let out = left_out(&sizes, limits);
        assert_eq!(
            out,
            [
                (1, Reason::TooLarge),
                (2, Reason::Unreadable),
                (3, Reason::TooMuch)
            ]
        );
    }

    #[test]
    fn excludes_mean_one_path() {
        assert_eq!(exclude("a/b c*").unwrap(), "/a/b\\ c\\*\n");
        assert_eq!(exclude("#x").unwrap(), "/#x\n");
        assert_eq!(exclude("a\nb"), None);
    }

    proptest! {
        #[test]
        fn what_is_kept_fits(sizes in prop::collection::vec(prop::option::of(0..50_u64), 0..40), file in 0..50_u64, total in 0..300_u64) {
            let out = left_out(&sizes, Limits { file, total });
            let kept: u64 = (0..sizes.len())
                .filter(|index| out.iter().all(|(other, _)| other != index))
                .map(|index| sizes[index].unwrap())
                .sum();
            prop_assert!(kept <= total);
        }
    }
}
