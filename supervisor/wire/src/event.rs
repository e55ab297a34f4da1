//! Events: everything observable, numbered. A line of the journal, and `data` of the event stream, is one [`Event`].
//!
//! `seq`, `at` and `type` stand first; the fields of the type follow beside them. A reader that does not know a type
//! still gets all of its fields.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::time::Time;

/// Names of the types of events. Readers must expect others.
pub mod kind {
    /// The container's or a session's state changed: `session` (absent for the container's), `state`, `reason`,
    /// `stalled`, `since`, and `dialog` where known.
    pub const STATE_CHANGED: &str = "state.changed";
    /// `phase`, with `step` and `error` where they apply.
    pub const PHASE_CHANGED: &str = "phase.changed";
    /// A file was attached: `name`, `path`, `bytes`, `origin`.
    pub const ATTACHMENT_STORED: &str = "attachment.stored";
    /// A file could not be attached: `name`, `word`, `error`, `origin`.
    pub const ATTACHMENT_FAILED: &str = "attachment.failed";
    /// The layers were exchanged while running: JSON pointers `applied`, `needs_restart`, `next_boot`, and the sessions
    /// `restarted`.
    pub const CONFIG_CHANGED: &str = "config.changed";
    /// A reload that an earlier supervisor began could not be finished: `error`.
    pub const CONFIG_FAILED: &str = "config.failed";
    /// `paths` of the repository's submodules that could not be had.
    pub const SUBMODULES_MISSING: &str = "submodules.missing";
    /// A task was brought back from a backup.
    pub const TASK_RESTORED: &str = "task.restored";
    pub const SUPERVISOR_STARTED: &str = "supervisor.started";
    pub const SESSION_STARTED: &str = "session.started";
    pub const SESSION_EXITED: &str = "session.exited";
    pub const SESSION_RESTARTED: &str = "session.restarted";
    /// What an agent needs beside it (CCR's router) was started and answers, or was taken up: `session`, `name`, `pid`.
    pub const COMPANION_STARTED: &str = "companion.started";
    /// It ended while the agent goes on: `session`, `name`, `how`; `returns`: it is started again.
    pub const COMPANION_EXITED: &str = "companion.exited";
    pub const PROMPT_CHANGED: &str = "prompt.changed";
    pub const GENERATION_STARTED: &str = "generation.started";
    pub const GENERATION_ENDED: &str = "generation.ended";
    /// Whether model calls can succeed became known, or changed: `ok`, and `error` where they cannot.
    pub const PROVIDER_CHANGED: &str = "provider.changed";
    pub const BUDGET_CHANGED: &str = "budget.changed";
    pub const PORT_OPENED: &str = "port.opened";
    pub const PORT_CHANGED: &str = "port.changed";
    pub const PORT_CLOSED: &str = "port.closed";
    pub const PORTS_CHANGED: &str = "ports.changed";
    pub const BACKUP_FINISHED: &str = "backup.finished";
    pub const BACKUP_FAILED: &str = "backup.failed";
    pub const BACKUP_GUARDED: &str = "backup.guarded";
    /// The platform cannot be reached: `error`; and it can again: `owed_events`.
    pub const BACKEND_UNREACHABLE: &str = "backend.unreachable";
    pub const BACKEND_REACHED: &str = "backend.reached";
    /// Nobody and nothing has been at work for the idle time: `idle_s`, `action`.
    pub const IDLE_REACHED: &str = "idle.reached";
    /// The program of `exec:` ended: `program`, and `exit` (as a shell shows it) or `error`.
    pub const IDLE_ACTION: &str = "idle.action";
    /// The journal lost events: `first`, `last` (numbers that it could not write) and `error`, or `dropped`, how many
    /// came while its queue was full.
    pub const JOURNAL_GAP: &str = "journal.gap";
}

/// Names that an event has already; a payload must not use them.
const RESERVED: [&str; 3] = ["seq", "at", "type"];

/// An event that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Its number: 1 for the first of a container, then one more each, across restarts.
    pub seq: u64,
    pub at: Time,
    #[serde(rename = "type")]
    pub kind: Cow<'static, str>,
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// An event before it has a number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Draft {
    at: Time,
    #[serde(rename = "type")]
    kind: Cow<'static, str>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// Why a payload cannot become an event.
#[derive(Debug, thiserror::Error)]
pub enum DraftError {
    #[error("the payload of event {kind} cannot be written as JSON")]
    Encode {
        kind: Cow<'static, str>,
        source: serde_json::Error,
    },
    #[error("the payload of event {kind} is no JSON object")]
    NotAnObject { kind: Cow<'static, str> },
    #[error("the payload of event {kind} has a field `{field}` of its own")]
    Reserved {
        kind: Cow<'static, str>,
        field: &'static str,
    },
}

impl Draft {
    /// An event without fields of its own.
    #[must_use]
    pub fn bare(kind: impl Into<Cow<'static, str>>, at: Time) -> Self {
        Self {
            at,
            kind: kind.into(),
            fields: Map::new(),
        }
    }

    /// An event with the fields of `payload`.
    ///
    /// # Errors
    /// When `payload` is no object, or names `seq`, `at` or `type`.
    pub fn new(
        kind: impl Into<Cow<'static, str>>,
        at: Time,
        payload: &impl Serialize,
    ) -> Result<Self, DraftError> {
        let kind = kind.into();
        match serde_json::to_value(payload) {
            Ok(Value::Object(fields)) => {
                match RESERVED.into_iter().find(|name| fields.contains_key(*name)) {
                    None => Ok(Self { at, kind, fields }),
                    Some(field) => Err(DraftError::Reserved { kind, field }),
                }
            }
            Ok(_) => Err(DraftError::NotAnObject { kind }),
            Err(source) => Err(DraftError::Encode { kind, source }),
        }
    }

    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The event with its number.
    #[must_use]
    pub fn number(self, seq: u64) -> Event {
        Event {
            seq,
            at: self.at,
            kind: self.kind,
            fields: self.fields,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at() -> Time {
        "2026-11-22T03:04:05.678Z".parse().unwrap()
    }

    #[test]
    fn fields_stand_beside_number_time_and_type() {
        let event = Draft::new(kind::PORT_OPENED, at(), &json!({"port": {"port": 3000}}))
            .unwrap()
            .number(7);
        let line = serde_json::to_string(&event).unwrap();
        assert_eq!(
            line,
            r#"{"seq":7,"at":"2026-11-22T03:04:05.678Z","type":"port.opened","port":{"port":3000}}"#
        );
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn a_payload_cannot_overwrite_the_number() {
        for name in RESERVED {
            assert!(matches!(
                Draft::new("x", at(), &json!({name: 1})),
                Err(DraftError::Reserved { field, .. }) if field == name
            ));
        }
        assert!(matches!(
            Draft::new("x", at(), &json!([1])),
            Err(DraftError::NotAnObject { .. })
        ));
    }
}
