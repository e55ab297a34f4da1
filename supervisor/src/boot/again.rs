//! What follows from the layers beside the agents' own files, made once more when the layers change.

use std::path::PathBuf;
use std::sync::Arc;

use super::agents::records;
use super::{Grounds, environment_for, setup};
use crate::agents::setup::Setup;
use crate::config::Settings;
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
