//! What `GET /v1/search` answers: turns of conversations and commands of shells, best first.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Time;

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    /// Best first; of equal ones the newest first.
    pub results: Vec<Hit>,
    /// How many there are in all.
    pub total: u64,
    /// Everything that transcripts and shells held when the question came was searched; `false`: the index is still
    /// being filled, ask again for the rest.
    pub complete: bool,
}

/// A turn or a command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hit {
    pub kind: Kind,
    /// Id of the session; of a command that of its terminal.
    pub session: String,
    /// The task that it was in; none: this container's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What the agent calls the session.
    pub agent_session_id: Option<String>,
    /// Kind of the agent; none: a shell.
    pub agent: Option<String>,
    /// When it was said, or the command began; none: the agent does not say.
    pub at: Option<Time>,
    /// Who speaks, as in a conversation's turns; none: a shell.
    pub role: Option<String>,
    /// The turn's id within its conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn: Option<String>,
    /// The sub-agent that speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subagent: Option<String>,
    /// The place that fits best, with `…` where more stands before or after it.
    pub snippet: String,
    /// What was found in the snippet: begin and end in characters, the end not included.
    pub highlights: Vec<[u32; 2]>,
    /// How well it fits, beside the best of this answer: 1 for that one.
    pub score: f64,
    /// Exit status of a command, as the shell told it.
    pub exit: Option<i32>,
    /// Directory that a command ran in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// How long a command ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// What can be searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Turns of agents' conversations.
    Conversation,
    /// Commands of the web terminals' shells.
    Shell,
}

impl Kind {
    /// Its name, as in the API.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Shell => "shell",
        }
    }
}

/// What `POST /v1/search/rebuild` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rebuilt {
    /// Turns and commands in the index now.
    pub documents: u64,
    /// `false`: it is still being filled.
    pub complete: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_has_the_fields_of_the_contract() {
        let text = r#"{"results":[{"kind":"conversation","session":"main","agent_session_id":"u","agent":"claude","at":"2026-11-22T03:04:05.678Z","role":"user","snippet":"… x …","highlights":[[2,3]],"score":1.0,"exit":null}],"total":1,"complete":true}"#;
        let answer: Answer = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
    }
}
