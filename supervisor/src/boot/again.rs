//! What follows from the layers beside the agents' own files, made once more when the layers change.

use std::path::PathBuf;
use std::sync::Arc;

use super::agents::records;
use super::{Grounds, environment_for, setup};
use crate::agents::FileEdit;
use crate::agents::edit::Edit;
use crate::agents::setup::Setup;
use crate::config::Settings;
use crate::config::environment::Environment;
use crate::sessions::{Record, Task};
use whim_wire::spec::AgentKind;

/// A file of ours that agents read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OurFile {
    pub path: PathBuf,
    pub text: String,
    /// For everybody, or for the agents' group only.
    pub public: bool,
}

impl OurFile {
    /// Its fingerprint, as [`Written`](super::Written) knows it.
    pub(super) fn print(&self) -> Vec<String> {
        let edit = FileEdit {
            path: self.path.clone(),
            mode: 0o644,
            edit: Edit::Replace(self.text.clone().into_bytes()),
        };
        // Of a file that is ours as a whole nothing has to be understood.
        let share = edit.share();
        share.map_or_else(
            |_| Vec::new(),
            |share| share.fingerprints().cloned().collect(),
        )
    }
}

/// The files of ours that follow from the layers, and the environment of the agents' processes.
#[must_use]
pub(super) fn ours(grounds: &Grounds, settings: &Settings) -> (Vec<OurFile>, Environment) {
    let mut env_files = Vec::new();
    let environment = environment_for(grounds, settings, &mut env_files);
    let mut files: Vec<OurFile> = env_files
        .into_iter()
        .map(|(name, text)| OurFile {
            path: grounds.paths.env_files().join(name),
            text,
            public: false,
        })
        .collect();
    files.extend(settings.configuration.bashrc_text().map(|text| OurFile {
        path: grounds.paths.bashrc(),
        text,
        public: true,
    }));
    (files, environment)
}

/// See the module's header.
#[derive(Debug)]
pub struct Made {
    pub task: Task,
    pub files: Vec<OurFile>,
    /// Every session of this life of the container, with its agent's setup.
    pub sessions: Vec<(AgentKind, Setup)>,
}

/// Makes it; `main` is the record of the session `main`.
#[must_use]
pub fn make(grounds: &Grounds, settings: &Settings, main: &Record) -> Made {
    let (files, environment) = ours(grounds, settings);
    let setup = setup::setup(grounds, settings, main);
    let sessions = records(&grounds.paths, grounds.started_ms)
        .into_iter()
        .map(|record| (record.agent, record.setup(&setup)))
        .collect();
    Made {
        task: Task {
            environment: environment.for_terminal().into_pairs(),
            setup,
            configuration: Arc::new(settings.configuration.clone()),
        },
        files,
        sessions,
    }
}

/// Puts a file of ours in its place, and notes that it is ours if it was not there.
///
/// # Errors
/// Those of the file system; the old file is then as it was.
pub fn put(grounds: &Grounds, file: &OurFile) -> std::io::Result<()> {
    let present = std::fs::read(&file.path).ok();
    if present.as_deref() != Some(file.text.as_bytes()) {
        grounds.written.note(&file.path, file.print());
    }
    write(grounds, &file.path, file.text.as_bytes(), file.public)
}

/// Writes a file of ours as the boot does.
///
/// # Errors
/// Those of the file system; the old file is then as it was.
pub fn write(
    grounds: &Grounds,
    path: &std::path::Path,
    text: &[u8],
    public: bool,
) -> std::io::Result<()> {
    if public {
        crate::files::write(path, 0o644, text)
    } else {
        setup::write_for_agents(path, text, &grounds.identity)
    }
}
