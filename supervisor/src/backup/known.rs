//! The sessions, as a snapshot names them.

use std::path::Path;

use super::index::is_plain;
use super::manifest::Session;
use crate::agents::observe::transcript;
use crate::paths::Paths;
use crate::sessions::record::Record;

/// All sessions that have a record. One whose record cannot be read is left out: its files are saved all the same.
#[must_use]
pub fn sessions(paths: &Paths) -> Vec<Session> {
    let Ok(entries) = std::fs::read_dir(paths.sessions()) else {
        return Vec::new();
    };
    let mut sessions: Vec<Session> = entries
        .flatten()
        .filter_map(|entry| match Record::read(&entry.path()) {
            Ok(record) => Some(session(&record?, paths.home())),
            Err(error) => {
                tracing::warn!(path = %entry.path().display(), %error, "a session's record cannot be read");
                None
            }
        })
        .collect();
    sessions.sort_by(|one, other| one.id.cmp(&other.id));
    sessions
}

fn session(record: &Record, home: &Path) -> Session {
    let kind = serde_json::to_value(record.agent).unwrap_or_default();
    let place = record.agent_session_id.as_deref().and_then(|id| {
        let told = record.transcript.as_deref();
        transcript::place(record.agent, home, &record.directory, id, told)
    });
    let below = place.and_then(|place| {
        let below = place.strip_prefix(home).ok()?.to_str()?.to_owned();
        is_plain(&below).then_some(below)
    });
    Session {
        id: record.id.clone(),
        agent: kind.as_str().unwrap_or_default().to_owned(),
        agent_session_id: record.agent_session_id.clone(),
        cwd: record.directory.to_string_lossy().into_owned(),
        transcript: below,
    }
}
