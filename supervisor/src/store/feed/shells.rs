//! The commands of shells, from the files that our integration appends to.

use std::path::Path;

use whim_wire::search::Kind;

use super::super::commands::{self, Command};
use super::super::mask::Mask;
use super::super::{Batch, Document, Origin, What};
use super::{FeedError, Feeder};
use crate::conversation::cursor::{CHECKED, Cursor};
use crate::conversation::lines::Lines;
use crate::helper::{Entry, EntryKind};

/// Bytes of one read, and about what one batch is made of.
const CHUNK: usize = 256 * 1024;
/// Files that are looked at: those written last.
const FILES: usize = 256;

impl Feeder {
    /// Reads what the terminals' files have more of.
    pub(super) async fn shells(&mut self) -> Result<(), FeedError> {
        let directory = self.setup.paths.histories();
        let mut files = match self.setup.helper.list(&directory).await {
            Ok(files) => files,
            // No shell was opened yet.
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if let Err(error) = self.setup.helper.watch(&directory).await {
            // A search looks here, too.
            tracing::debug!(%error, "not watched");
        }
        files.retain(|file| {
            file.kind == EntryKind::File && commands::terminal(&file.name).is_some()
        });
        files.sort_by_key(|file| std::cmp::Reverse(file.stamp.modified));
        let mut first = Ok(());
        for file in files.iter().take(FILES) {
            let path = directory.join(&file.name);
            if self.is_seen(&path, &file.stamp) {
                continue;
            }
            // One that cannot be read must not keep the others out.
            let read = self.history(&path, file).await;
            match read {
                Ok(()) => self.see(&path, file.stamp),
                Err(error) if first.is_ok() => first = Err(error),
                Err(_) => {}
            }
        }
        first
    }

    async fn history(&self, path: &Path, file: &Entry) -> Result<(), FeedError> {
        let origin = Origin {
            task: None,
            kind: Kind::Shell,
            session: commands::terminal(&file.name)
                .unwrap_or_default()
                .to_owned(),
            agent: None,
            agent_session_id: None,
            name: file.name.clone(),
        };
        let stored = self.setup.store.cursor(&origin).await?;
        let cursor = stored
            .as_deref()
            .and_then(|cursor| cursor.parse::<Cursor>().ok());
        let (mut place, mut before) = match &cursor {
            None => (0, Vec::new()),
            Some(cursor) => self.before(path, cursor).await?.unwrap_or_default(),
        };
        // What does not stand where it stood is another file.
        let mut anew = place == 0;
        let mut after = stored;
        let mut lines = Lines::new(place);
        loop {
            let read = self.setup.helper.read_at(path, lines.position(), CHUNK);
            let (bytes, _) = read.await?;
            let full = bytes.len() == CHUNK;
            lines.feed(&bytes);
            let mut documents = Vec::new();
            let mask = self.setup.secrets.clone();
            for line in lines.by_ref() {
                place = line.end();
                before.extend_from_slice(&line.bytes);
                before.drain(..before.len().saturating_sub(CHECKED));
                documents
                    .extend(commands::read(line.content()).map(|command| (line.offset, command)));
            }
            if !documents.is_empty() || Some(place) != cursor.as_ref().map(|cursor| cursor.offset) {
                let next = Cursor::new(&file.name, place, &before).to_string();
                let batch = Batch {
                    origin: origin.clone(),
                    after: after.replace(next.clone()),
                    anew: std::mem::take(&mut anew),
                    documents: hidden(documents, &mask),
                    cursor: Some(next),
                    names: Vec::new(),
                };
                self.setup.store.append(batch).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Where to go on and the bytes before it; `None`: something else stands there now.
    async fn before(
        &self,
        path: &Path,
        cursor: &Cursor,
    ) -> Result<Option<(u64, Vec<u8>)>, FeedError> {
        let length = cursor.offset.min(CHECKED as u64);
        let read = self
            .setup
            .helper
            .read_at(path, cursor.offset - length, CHECKED);
        let (bytes, _) = read.await?;
        let before = bytes.get(..usize::try_from(length).unwrap_or(CHECKED));
        let fits = before.filter(|before| cursor.fits(before));
        Ok(fits.map(|before| (cursor.offset, before.to_vec())))
    }
}

/// The rows, without secrets.
fn hidden(documents: Vec<(u64, Command)>, secrets: &super::Hidden) -> Vec<Document> {
    let mask = secrets.mask();
    let rows = documents.into_iter();
    rows.map(|(place, command)| document(place, command, &mask))
        .collect()
}

/// A command's row, without secrets.
pub(super) fn document(place: u64, command: Command, mask: &Mask) -> Document {
    Document {
        place,
        at: Some(command.began),
        text: mask.hide(command.text),
        what: What::Command {
            directory: mask.hide(command.directory),
            exit: command.exit,
            duration_ms: command.duration_ms,
        },
    }
}
