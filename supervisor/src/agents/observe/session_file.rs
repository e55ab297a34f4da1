//! Claude Code's own state file, `~/.claude/sessions/<pid>.json`.
//!
//! Undocumented; seen with 2.1.139 to 2.1.197. The interactive CLI rewrites it at each change of `status`: `busy`,
//! `idle`, `waiting` (with `waitingFor`: `permission prompt`, also for questions; `dialog open` for its own menus) and,
//! by report, `shell`. It is right after an interrupt, where no hook fires. In print mode it has no `status`. It is
//! removed at a clean exit and stays after a kill, so it counts only for a live process whose start time agrees with
//! `procStart` (field 22 of `/proc/<pid>/stat`): pids come again.

use std::path::PathBuf;

use serde::Deserialize;

use super::super::setup::Setup;

/// Largest file that is read, in bytes; a usual one has 400.
pub const MAX_FILE: usize = 64 * 1024;

/// Where the file of a process is.
#[must_use]
pub fn path(setup: &Setup, pid: u32) -> PathBuf {
    directory(setup).join(format!("{pid}.json"))
}

/// The directory to watch.
#[must_use]
pub fn directory(setup: &Setup) -> PathBuf {
    setup.home.join(".claude/sessions")
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFile {
    /// The agent's own session id; `/clear` and `/resume` change it while the process stays.
    pub agent_session: Option<String>,
    pub status: Option<Status>,
    /// Milliseconds of the Unix epoch.
    pub since_ms: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    Busy,
    Idle,
    /// No turn, but a command of the person's own (`!ls`) or in the background runs.
    Shell,
    /// Waits for its user; with what for.
    Waiting(String),
    /// A word of a later version.
    Other(String),
}

/// Why the file says nothing about the process.
#[derive(Debug, thiserror::Error)]
pub enum SessionFileError {
    #[error("session file of {0} bytes is larger than {MAX_FILE}")]
    TooLarge(usize),
    #[error("session file is no JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    #[error("session file is of process {found}, not of {wanted}")]
    OtherProcess { found: u32, wanted: u32 },
    #[error(
        "session file is of an earlier process with this pid (started at {found}, not at {wanted})"
    )]
    EarlierProcess { found: String, wanted: u64 },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    pid: u32,
    session_id: Option<String>,
    proc_start: Option<Start>,
    status: Option<String>,
    waiting_for: Option<String>,
    status_updated_at: Option<u64>,
}

/// Written as text by 2.1.197.
#[derive(Deserialize)]
#[serde(untagged)]
enum Start {
    Text(String),
    Number(u64),
}

/// Reads the file of process `pid`, which started `start_ticks` clock ticks after boot. A file caught half-written is
/// [`SessionFileError::NotJson`]; the next change brings a whole one.
///
/// # Errors
/// When the file is not this process's or cannot be understood.
pub fn parse(content: &[u8], pid: u32, start_ticks: u64) -> Result<SessionFile, SessionFileError> {
    if content.len() > MAX_FILE {
        return Err(SessionFileError::TooLarge(content.len()));
    }
    let raw: Raw = serde_json::from_slice(content)?;
    if raw.pid != pid {
        return Err(SessionFileError::OtherProcess {
            found: raw.pid,
            wanted: pid,
        });
    }
    let start = match raw.proc_start {
        None => None,
        Some(Start::Number(ticks)) => Some(ticks.to_string()),
        Some(Start::Text(ticks)) => Some(ticks),
    };
    if let Some(found) = start
        && found != start_ticks.to_string()
    {
        return Err(SessionFileError::EarlierProcess {
            found,
            wanted: start_ticks,
        });
    }
    Ok(SessionFile {
        agent_session: raw.session_id,
        status: raw.status.map(|status| match status.as_str() {
            "busy" => Status::Busy,
            "shell" => Status::Shell,
            "idle" => Status::Idle,
            "waiting" => Status::Waiting(raw.waiting_for.unwrap_or_default()),
            _ => Status::Other(status),
        }),
        since_ms: raw.status_updated_at,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(change: &serde_json::Value) -> Vec<u8> {
        let mut file = json!({
            "pid": 31, "sessionId": "u", "cwd": "/app/repo", "startedAt": 0, "procStart": "221174",
            "version": "2.1.197", "kind": "interactive", "status": "busy", "statusUpdatedAt": 5
        });
        for (name, value) in change.as_object().unwrap() {
            file[name] = value.clone();
        }
        file.to_string().into_bytes()
    }

    fn status(change: &serde_json::Value) -> Option<Status> {
        parse(&file(change), 31, 221_174).unwrap().status
    }

    #[test]
    fn every_word_is_understood() {
        assert_eq!(status(&json!({})), Some(Status::Busy));
        assert_eq!(status(&json!({"status": "idle"})), Some(Status::Idle));
        assert_eq!(status(&json!({"status": "shell"})), Some(Status::Shell));
        assert_eq!(
            status(&json!({"status": "waiting", "waitingFor": "permission prompt"})),
            Some(Status::Waiting("permission prompt".into()))
        );
        assert_eq!(
            status(&json!({"status": "dreaming"})),
            Some(Status::Other("dreaming".into()))
        );
        assert_eq!(status(&json!({"status": null})), None);
    }

    #[test]
    fn a_file_left_by_another_process_counts_for_nothing() {
        assert!(matches!(
            parse(&file(&json!({})), 31, 999),
            Err(SessionFileError::EarlierProcess { .. })
        ));
        assert!(matches!(
            parse(&file(&json!({"pid": 30})), 31, 221_174),
            Err(SessionFileError::OtherProcess {
                found: 30,
                wanted: 31
            })
        ));
        assert!(parse(&file(&json!({"procStart": 221_174})), 31, 221_174).is_ok());
        assert!(parse(&file(&json!({"procStart": null})), 31, 1).is_ok());
    }

    #[test]
    fn a_torn_file_is_no_answer() {
        let whole = file(&json!({}));
        for end in 0..whole.len() {
            assert!(parse(&whole[..end], 31, 221_174).is_err());
        }
        assert!(matches!(
            parse(&vec![b' '; MAX_FILE + 1], 31, 1),
            Err(SessionFileError::TooLarge(_))
        ));
    }
}
