//! What an earlier life of the container brought and this one does not want: layers hold for one life.
//!
//! Only what [`Written`](super::Written) names is taken out, and only where it stands as we wrote it. What fails is logged
//! and tried again in the next life.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use whim_wire::spec::AgentKind;

use super::Grounds;
use super::again::OurFile;
use super::home::{self, HomeError};
use crate::agents::edit::Share;
use crate::agents::setup::Setup;

/// Removes files of ours that are not among `wanted`.
pub(super) fn own_files(grounds: &Grounds, wanted: &[OurFile]) {
    for path in grounds.written.files() {
        if !is_own(grounds, &path) {
            continue;
        }
        let mut prints = grounds.written.of(&path);
        if let Some(file) = wanted.iter().find(|file| file.path == path) {
            for print in file.print() {
                prints.remove(&print);
            }
            grounds.written.forget(&path, prints.iter());
            continue;
        }
        let ours = |content: &[u8]| {
            Share::among(&path, content, &prints).is_ok_and(|share| !share.is_empty())
        };
        let removed = match std::fs::read(&path) {
            Ok(content) if ours(&content) => std::fs::remove_file(&path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => grounds.written.forget(&path, prints.iter()),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a file of an earlier life stays");
            }
        }
    }
}

/// Takes out of the agents' files what none of these sessions wants. To be done before the first of them starts.
pub(super) async fn agents_files(grounds: &Grounds, sessions: &[(AgentKind, Setup)]) {
    let mut wanted: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (kind, setup) in sessions {
        for edit in crate::agents::of(*kind).files(setup) {
            match edit.share() {
                Ok(share) => wanted
                    .entry(edit.path)
                    .or_default()
                    .extend(share.fingerprints().cloned()),
                Err(error) => {
                    tracing::error!(%error, "what an earlier life brought stays");
                    return;
                }
            }
        }
    }
    for path in grounds.written.files() {
        if is_own(grounds, &path) {
            continue;
        }
        let mut prints = grounds.written.of(&path);
        if let Some(wanted) = wanted.get(&path) {
            prints.retain(|print| !wanted.contains(print));
        }
        if prints.is_empty() {
            continue;
        }
        let taken: Result<(), HomeError> = home::take_out(&grounds.helper, &path, &prints).await;
        match taken {
            Ok(()) => grounds.written.forget(&path, prints.iter()),
            Err(error) => tracing::warn!(%error, "what an earlier life brought stays"),
        }
    }
}

fn is_own(grounds: &Grounds, path: &std::path::Path) -> bool {
    path == grounds.paths.bashrc() || path.starts_with(grounds.paths.env_files())
}
