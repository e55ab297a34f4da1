//! Carrying a plan out: the checkout, the files, the record of `main`.
//!
//! Everything under checkout and home is written by the helper, as the agents' user; what is ours, under the state
//! directory, by ourselves. Looked at before anything is written: whether something is in the way. A try that broke off is
//! repeated: files that are there with the content they should have are passed over.
//!
//! Bounds: one part of a segment in memory; a piece of [`PIECE`] at a time to the helper.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use whim_wire::spec::{Mode, RestoreMode};

use super::brief::Brief;
use super::plan::{Begin, Placed, Plan, PlanError, Target, Wish, plan};
use super::repository::{Outcome, Repository, RepositoryError};
use super::rewrite::Rewriter;
use crate::backup::code::{self, Code};
use crate::backup::manifest::{File, Kind, Manifest, Place};
use crate::backup::store::{Content, Reader, Store, StoreError};
use crate::boot::git::Git;
use crate::conversation::lines::Lines;
use crate::conversation::turn;
use crate::helper::{Helper, HelperError};
use crate::paths::Paths;
use crate::sessions::beginning::digest;
use crate::sessions::{MAIN, Record, Restored};

/// Most bytes of one request to the helper.
const PIECE: usize = 8 * 1024 * 1024;
/// Bytes that are compared at a time.
const COMPARED: usize = 8 * 1024 * 1024;

/// Where and from what is restored.
#[derive(Debug)]
pub struct Restorer<'a> {
    pub git: &'a Git,
    pub helper: &'a Helper,
    pub paths: &'a Paths,
    pub store: &'a Store,
    pub manifest: &'a Manifest,
    /// A repository in place of the one that the snapshot names, without a login.
    pub remote: Option<String>,
    /// Name of a fork's branch; none: a new one.
    pub branch: Option<String>,
    /// Ledger and journal are put in their places: nobody has them open.
    pub with_state: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub task: String,
    pub snapshot: String,
    pub mode: String,
    /// The checkout was brought back.
    pub code: bool,
    /// Branch of the checkout; none: no code was saved, or a detached `HEAD`.
    pub branch: Option<String>,
    pub agent: Option<String>,
    /// How `main` begins: `resume`, `fork`, `told` or `new`.
    pub session: String,
    /// What the agent calls the session that goes on.
    pub agent_session_id: Option<String>,
    pub files: usize,
    pub bytes: u64,
    pub notes: Vec<String>,
}

/// Why something was not restored.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    #[error(transparent)]
    Helper(#[from] HelperError),
    #[error("{path} is there already and is another one: nothing is overwritten; move it away, or restore into an empty root", path = path.display())]
    InTheWay { path: PathBuf },
    #[error("{path}: {source}", path = path.display())]
    State {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the description of the backup's code cannot be read: {0}")]
    Code(serde_json::Error),
    #[error("the bundle of the backup's code is not among its files")]
    NoBundle,
}

impl Report {
    fn path(paths: &Paths) -> PathBuf {
        paths.state().join("restored.json")
    }

    /// What was restored into this root before.
    ///
    /// # Errors
    /// [`CarryError::State`].
    pub fn read(paths: &Paths) -> Result<Option<Self>, CarryError> {
        let path = Self::path(paths);
        let failed = |source| CarryError::State {
            path: path.clone(),
            source,
        };
        match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .map(Some)
                .map_err(|error| failed(error.into())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn write(&self, paths: &Paths) -> Result<(), CarryError> {
        let path = Self::path(paths);
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|json| crate::files::write(&path, 0o600, &json));
        written.map_err(|source| CarryError::State { path, source })
    }
}

impl<'a> Restorer<'a> {
    /// Restores.
    ///
    /// # Errors
    /// [`CarryError`]; a repetition goes on where it can.
    pub async fn run(&self, wish: &Wish) -> Result<Report, CarryError> {
        let target = Target {
            home: self.paths.home().to_owned(),
            checkout: self.paths.checkout(),
            state: self.paths.state(),
        };
        let mut progress = Progress::read(self.paths, &self.manifest.id.to_string(), wish)?;
        let mut plan = plan(self.manifest, &target, wish, &progress.fresh)?;
        if !self.with_state {
            plan.placed.retain(|placed| placed.place != Place::State);
        }
        let mut reader = self.store.reader(self.manifest);
        self.look(&plan, &mut reader).await?;
        let mut report = Report {
            task: self.manifest.task.clone(),
            snapshot: self.manifest.id.to_string(),
            mode: wish.mode.to_string(),
            code: self.manifest.code.is_some(),
            notes: std::mem::take(&mut plan.notes),
            ..Report::default()
        };
        if progress.checkout.is_none() {
            progress.checkout = Some(self.code(wish, &mut reader).await?);
            progress.write(self.paths)?;
        }
        let Outcome { branch, notes } = progress.checkout.clone().unwrap_or_default();
        report.branch = branch;
        report.notes.extend(notes);
        for placed in &plan.placed {
            self.place(placed, &mut reader).await?;
            report.files += 1;
            report.bytes += self.file(placed.file).map_or(0, |file| file.bytes);
        }
        self.beside(&plan)?;
        self.begin(&plan, &mut reader, &progress.fresh, &mut report)
            .await?;
        report.write(self.paths)?;
        Progress::forget(self.paths)?;
        Ok(report)
    }

    fn file(&self, index: usize) -> Option<&'a File> {
        self.manifest.files.get(index)
    }

    fn repository<'r>(&'r self, wish: &Wish, checkout: &'r Path) -> Repository<'r> {
        let forks = wish.mode == RestoreMode::Fork;
        let new = || format!("whim-{}", crate::random::short());
        Repository {
            git: self.git,
            helper: self.helper,
            checkout,
            remote: self.remote.clone(),
            branch: forks.then(|| self.branch.clone().unwrap_or_else(new)),
        }
    }

    /// Whether all is free, before anything is written.
    async fn look(&self, plan: &Plan, reader: &mut Reader<'a>) -> Result<(), CarryError> {
        let record = self.paths.session(MAIN);
        match Record::read(&record) {
            Ok(Some(record_there)) if !record_there.awaits_start() => {
                return Err(CarryError::InTheWay { path: record });
            }
            Ok(_) => {}
            Err(source) => {
                return Err(CarryError::State {
                    path: record,
                    source,
                });
            }
        }
        for placed in &plan.placed {
            self.is_free(placed, reader).await?;
        }
        Ok(())
    }

    /// Nothing is there, or what is to be there: then true.
    async fn is_free(&self, placed: &Placed, reader: &mut Reader<'a>) -> Result<bool, CarryError> {
        let Some(file) = self.file(placed.file) else {
            return Ok(false);
        };
        let there = match placed.place {
            Place::Home | Place::Code => self.digest_at_home(&placed.to).await?,
            Place::State => digest_of_ours(&placed.to)?,
        };
        let Some(there) = there else {
            return Ok(false);
        };
        let wanted = match &placed.rewrite {
            None => file.sha256.clone(),
            Some(_) => {
                let mut hash = Sha256::new();
                let mut parts = Parts::new(placed, reader.open(file));
                while let Some(part) = parts.next().await? {
                    hash.update(&part);
                }
                hex(hash)
            }
        };
        if there == wanted {
            return Ok(true);
        }
        Err(CarryError::InTheWay {
            path: placed.to.clone(),
        })
    }

    async fn digest_at_home(&self, path: &Path) -> Result<Option<String>, CarryError> {
        let mut hash = Sha256::new();
        let mut offset = 0;
        loop {
            let (part, _) = match self.helper.read_at(path, offset, COMPARED).await {
                Ok(read) => read,
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            if part.is_empty() {
                return Ok(Some(hex(hash)));
            }
            offset += part.len() as u64;
            hash.update(&part);
        }
    }

    async fn code(&self, wish: &Wish, reader: &mut Reader<'a>) -> Result<Outcome, CarryError> {
        let Some(value) = self.manifest.code.clone() else {
            return Ok(Outcome {
                branch: None,
                notes: vec!["no code was saved: the checkout is left as it is".into()],
            });
        };
        let code: Code = serde_json::from_value(value).map_err(CarryError::Code)?;
        let bundle = self
            .manifest
            .files
            .iter()
            .position(|file| file.kind == Kind::Code && file.path == code.bundle)
            .ok_or(CarryError::NoBundle)?;
        let scratch = self.paths.home().join(".cache/whim/restore");
        let to = scratch.join(code::BUNDLE);
        self.helper.remove_tree(&scratch).await?;
        let placed = Placed {
            file: bundle,
            to: to.clone(),
            place: Place::Code,
            rewrite: None,
        };
        let checkout = self.paths.checkout();
        let repository = self.repository(wish, &checkout);
        repository.check().await?;
        self.place(&placed, reader).await?;
        let restored = repository.restore(&code, &to).await;
        self.helper.remove_tree(&scratch).await?;
        Ok(restored?)
    }

    async fn place(&self, placed: &Placed, reader: &mut Reader<'a>) -> Result<(), CarryError> {
        let Some(file) = self.file(placed.file) else {
            return Ok(());
        };
        if self.is_free(placed, reader).await? {
            return Ok(());
        }
        let mut parts = Parts::new(placed, reader.open(file));
        let mut offset = 0_u64;
        let mut held: Option<Bytes> = None;
        // One part is held back: the last one puts the file in its place, once its checksum is known to be right.
        while let Some(part) = parts.next().await? {
            if let Some(before) = held.replace(part) {
                offset = self.put(placed, file.mode, offset, false, &before).await?;
            }
        }
        let last = held.unwrap_or_default();
        self.put(placed, file.mode, offset, true, &last).await?;
        Ok(())
    }

    /// Answers with where the next part begins.
    async fn put(
        &self,
        placed: &Placed,
        mode: u32,
        mut offset: u64,
        last: bool,
        part: &Bytes,
    ) -> Result<u64, CarryError> {
        let mut pieces = part.chunks(PIECE).peekable();
        if pieces.peek().is_none() {
            self.put_piece(placed, mode, offset, last, &[]).await?;
        }
        while let Some(piece) = pieces.next() {
            let last = last && pieces.peek().is_none();
            self.put_piece(placed, mode, offset, last, piece).await?;
            offset += piece.len() as u64;
        }
        Ok(offset)
    }

    async fn put_piece(
        &self,
        placed: &Placed,
        mode: u32,
        offset: u64,
        last: bool,
        piece: &[u8],
    ) -> Result<(), CarryError> {
        let path = &placed.to;
        // Never for others to run or write, whatever the manifest says.
        let mode = mode & 0o644 | 0o600;
        let in_the_way = || CarryError::InTheWay { path: path.clone() };
        if placed.place == Place::State {
            return match crate::helper::put(path, mode & 0o600, offset, last, piece) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    Err(in_the_way())
                }
                done => done.map_err(|source| CarryError::State {
                    path: path.clone(),
                    source,
                }),
            };
        }
        match self
            .helper
            .put(path, mode, offset, last, piece.to_vec())
            .await
        {
            Err(error) if error.is_in_the_way() => Err(in_the_way()),
            done => Ok(done?),
        }
    }

    /// Writes what `main` begins with.
    async fn begin(
        &self,
        plan: &Plan,
        reader: &mut Reader<'a>,
        fresh: &str,
        report: &mut Report,
    ) -> Result<(), CarryError> {
        let Some(begin) = &plan.begin else {
            report.session = "new".into();
            return Ok(());
        };
        let (first, brief) = self.read(begin, reader).await?;
        report.agent = Some(begin.agent.to_string());
        report.agent_session_id = begin.agent_session_id.clone();
        report.session = match (begin.told, &begin.fork_of) {
            (true, _) => "told",
            (false, Some(_)) => "fork",
            (false, None) if begin.agent_session_id.as_deref() == Some(fresh) => "fork",
            (false, None) => "resume",
        }
        .into();
        let forks = report.session == "fork";
        let checkout = self.paths.checkout();
        // The mode is that of the run that starts it.
        let mut record = Record::new(MAIN, begin.agent, Mode::Interactive, checkout, 0);
        record.agent_session_id = begin.agent_session_id.clone();
        record.restored = Some(Restored {
            fork_of: begin.fork_of.clone(),
            brief: begin.told.then_some(brief),
            // Another task asks what it asks.
            begun_with: first.filter(|_| !forks).map(|prompt| digest(&prompt)),
        });
        let path = self.paths.session(MAIN);
        record
            .write(&path)
            .map_err(|source| CarryError::State { path, source })
    }

    /// Records of the sessions beside `main`, to be gone on with when they are asked for. One that is there and was
    /// started stays as it is.
    fn beside(&self, plan: &Plan) -> Result<(), CarryError> {
        for (id, begin) in &plan.beside {
            let path = self.paths.session(id);
            let failed = |source| CarryError::State {
                path: path.clone(),
                source,
            };
            let there = Record::read(&path).map_err(failed)?;
            if there.is_some_and(|record| !record.awaits_start()) {
                continue;
            }
            let directory = self.paths.worktrees().join(id);
            let mut record = Record::new(id, begin.agent, Mode::Interactive, directory, 0);
            record.agent_session_id = begin.agent_session_id.clone();
            record.restored = Some(Restored {
                fork_of: begin.fork_of.clone(),
                ..Restored::default()
            });
            record.write(&path).map_err(failed)?;
        }
        Ok(())
    }

    /// The first prompt of the conversation, and the conversation as a brief.
    async fn read(
        &self,
        begin: &Begin,
        reader: &mut Reader<'a>,
    ) -> Result<(Option<String>, String), CarryError> {
        let mut brief = Brief::new(begin.before);
        let mut first = None;
        if let Some(file) = self.file(begin.transcript) {
            let mut content = reader.open(file);
            let mut lines = Lines::new(0);
            while let Some(part) = content.next().await? {
                lines.feed(&part);
                for line in lines.by_ref() {
                    let turn = turn(begin.before, &line, None);
                    first = first.or_else(|| Brief::first_prompt(&turn));
                    brief.turn(&turn);
                }
                if first.is_some() && !begin.told {
                    break;
                }
            }
        }
        Ok((first, brief.text()))
    }
}

/// A file's parts as they are to be written.
#[derive(Debug)]
struct Parts<'p, 'r, 'a> {
    content: Content<'r, 'a>,
    rewriter: Option<Rewriter<'p>>,
    ended: bool,
}

impl<'p, 'r, 'a> Parts<'p, 'r, 'a> {
    fn new(placed: &'p Placed, content: Content<'r, 'a>) -> Self {
        Self {
            content,
            rewriter: placed.rewrite.as_ref().map(Rewriter::new),
            ended: false,
        }
    }

    /// None after the last, and only when what was read was right.
    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let part = self.content.next().await?;
        self.ended = part.is_none();
        Ok(match (part, &mut self.rewriter) {
            (part, None) => part,
            (Some(part), Some(rewriter)) => Some(rewriter.feed(&part).into()),
            (None, Some(rewriter)) => Some(rewriter.end().into()),
        })
    }
}

/// How far a restore came, so that one that broke off goes on: the same ids, and a checkout that is done stays.
#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    snapshot: String,
    mode: RestoreMode,
    /// For a copied session.
    fresh: String,
    checkout: Option<Outcome>,
}

impl Progress {
    fn path(paths: &Paths) -> PathBuf {
        paths.state().join("restore.json")
    }

    /// What is written down of this restore; of another one, or damaged: a new beginning.
    fn read(paths: &Paths, snapshot: &str, wish: &Wish) -> Result<Self, CarryError> {
        let path = Self::path(paths);
        let known: Option<Self> = match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).ok(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(CarryError::State { path, source }),
        };
        let same = |known: &Self| known.snapshot == snapshot && known.mode == wish.mode;
        if let Some(known) = known.filter(same) {
            return Ok(known);
        }
        let new = Self {
            snapshot: snapshot.to_owned(),
            mode: wish.mode,
            fresh: crate::random::uuid(),
            checkout: None,
        };
        new.write(paths)?;
        Ok(new)
    }

    fn write(&self, paths: &Paths) -> Result<(), CarryError> {
        let path = Self::path(paths);
        let written = serde_json::to_vec(self)
            .map_err(std::io::Error::from)
            .and_then(|json| crate::files::write(&path, 0o600, &json));
        written.map_err(|source| CarryError::State { path, source })
    }

    fn forget(paths: &Paths) -> Result<(), CarryError> {
        let path = Self::path(paths);
        std::fs::remove_file(&path).map_err(|source| CarryError::State { path, source })
    }
}

fn digest_of_ours(path: &Path) -> Result<Option<String>, CarryError> {
    let failed = |source| CarryError::State {
        path: path.to_owned(),
        source,
    };
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut hash = Sha256::new();
    let mut part = vec![0; 64 * 1024];
    loop {
        let read = std::io::Read::read(&mut file, &mut part).map_err(failed)?;
        if read == 0 {
            return Ok(Some(hex(hash)));
        }
        hash.update(part.get(..read).unwrap_or_default());
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
