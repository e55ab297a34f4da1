//! A session's conversation in one shape, whichever agent wrote it: what `GET /v1/sessions/{id}/conversation` answers and
//! what is exported as JSONL.
//!
//! A turn is one record of the agent's transcript, in the order of the file, which need not be that of time: Claude Code
//! (2.1.197) was seen to write an answer before its prompt. Who shows a conversation goes by `at`. A turn's `offset` and
//! `bytes` say where it stands there, so it has the same `id` in every answer, and answers put one after the other by
//! their cursors have neither gaps nor overlaps. A sub-agent with a transcript of its own is read by itself
//! (`?subagent=ID`), with its own cursor: who follows a session sees in `subagents` which of them grew. What an agent
//! writes and this version does not know is a turn of role `unknown` with the record itself, shortened: nothing is dropped
//! for being new.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::generation::Usage;
use crate::time::Time;

/// A page of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Conversation {
    /// Id of the session.
    pub session: String,
    /// Kind of its agent.
    pub agent: String,
    /// What the agent calls the session; none until it said so.
    pub agent_session_id: Option<String>,
    /// The sub-agent that was asked for; none: the session itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subagent: Option<String>,
    /// Oldest first.
    pub turns: Vec<Turn>,
    /// Give it as `after` to get what is newer than this answer; none while there is no transcript. Opaque.
    pub next: Option<String>,
    /// More is there already: ask again at once. A page with `more` may be empty where long stretches hold nothing to show.
    pub more: bool,
    /// `after` was of another conversation than there is now (the agent began a new one, or the transcript was rewritten):
    /// this answer begins at its beginning, and what was known before is void.
    pub reset: bool,
    /// With `?recent=true`: bytes of the transcript before this answer's beginning.
    #[serde(default, skip_serializing_if = "none_missing")]
    pub skipped_bytes: u64,
    /// Sub-agents with transcripts of their own, which `?subagent=ID` reads; in the session's own answers only, the
    /// [`Conversation::SUBAGENTS_MAX`] that wrote last, oldest first.
    #[serde(default)]
    pub subagents: Vec<Subagent>,
}

impl Conversation {
    /// Most entries of `subagents`.
    pub const SUBAGENTS_MAX: usize = 64;
}

/// A sub-agent with a transcript of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subagent {
    /// What `?subagent=` takes.
    pub id: String,
    /// The agent's name for its kind, as `general-purpose`.
    pub kind: Option<String>,
    /// What it was started for.
    pub description: Option<String>,
    /// Id of the tool call that started it.
    pub call_id: Option<String>,
    /// Length of its transcript: grows as it works.
    pub bytes: u64,
}

/// One record of a transcript.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Turn {
    /// Names the turn within the session's conversation, for good.
    pub id: String,
    /// Where its record begins in the transcript, in bytes.
    pub offset: u64,
    /// Length of its record in the transcript, line end included.
    pub bytes: u64,
    /// Who speaks.
    pub role: Role,
    /// When, as the agent wrote it.
    pub at: Option<Time>,
    /// The agent's name of the record, as `assistant` or `response_item/message`; empty where it has none.
    pub record: String,
    /// The agent's own id of the record. A fork has copies with the same ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<String>,
    /// The record that this one goes on from, where the agent says so: after a rewind two records have one parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_id: Option<String>,
    /// The sub-agent that speaks; none: the session's agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subagent: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model call that this is of. An agent may write one answer as several records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    pub parts: Vec<Part>,
    /// Tokens of the whole `generation`, as far as known here: of several turns of one generation the last one counts,
    /// never their sum. What was paid is in `/v1/spend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// Who speaks in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The person, or who started the sub-agent.
    User,
    /// The model.
    Assistant,
    /// Tools: results only.
    Tool,
    /// The agent's program: instructions it adds, compaction, interrupts, errors.
    System,
    /// Bookkeeping of the agent's that says nothing new; only with `?all=true`.
    Record,
    /// Nothing that this version knows.
    Unknown,
}

/// A piece of a turn. Text is cut at [`Part::TEXT_MAX`] bytes; `omitted_bytes` says how much is missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    Text {
        text: String,
        #[serde(default, skip_serializing_if = "none_missing")]
        omitted_bytes: u64,
    },
    /// The model's reasoning; empty text: the provider keeps it to itself.
    Thinking {
        text: String,
        #[serde(default, skip_serializing_if = "none_missing")]
        omitted_bytes: u64,
    },
    ToolCall {
        /// Comes back in the result.
        call_id: Option<String>,
        name: String,
        /// As the agent understood it; of one too long, its beginning as a string.
        input: Value,
        #[serde(default, skip_serializing_if = "none_missing")]
        omitted_bytes: u64,
    },
    ToolResult {
        call_id: Option<String>,
        text: String,
        /// None: the agent does not say.
        failed: Option<bool>,
        /// The sub-agent that worked, where it has a transcript of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        subagent: Option<String>,
        #[serde(default, skip_serializing_if = "none_missing")]
        omitted_bytes: u64,
    },
    /// A sub-agent with a transcript of its own began, or did something else.
    Subagent {
        /// What `?subagent=` takes.
        id: String,
        /// The tool call that started it.
        call_id: Option<String>,
        name: String,
        /// The agent's word, as `started` or `completed`.
        state: String,
    },
    /// An image or file; its content stays in the transcript.
    Attachment {
        /// Media type, or path where that is all that is known.
        name: String,
    },
    /// Something that happened: `compaction`, `interrupted`, `error`, `subagent`, or the agent's own word.
    Notice {
        kind: String,
        text: String,
        #[serde(default, skip_serializing_if = "none_missing")]
        omitted_bytes: u64,
    },
    /// As the agent wrote it; shortened to [`Part::RAW_MAX`] bytes.
    Raw {
        text: String,
        #[serde(default, skip_serializing_if = "none_missing")]
        omitted_bytes: u64,
    },
}

impl Part {
    /// Longest text of a part, in bytes.
    pub const TEXT_MAX: usize = 256 * 1024;
    /// Longest text of [`Part::Raw`], in bytes.
    pub const RAW_MAX: usize = 16 * 1024;
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
const fn none_missing(bytes: &u64) -> bool {
    *bytes == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_name_their_type_and_leave_out_what_is_not_there() {
        let part = Part::ToolResult {
            call_id: Some("c".into()),
            text: "done".into(),
            failed: Some(false),
            subagent: None,
            omitted_bytes: 0,
        };
        let json = serde_json::to_string(&part).unwrap();
        assert_eq!(
            json,
            r#"{"type":"tool_result","call_id":"c","text":"done","failed":false}"#
        );
        assert_eq!(serde_json::from_str::<Part>(&json).unwrap(), part);
    }

    #[test]
    fn a_page_survives() {
        let text = r#"{"session":"main","agent":"claude","agent_session_id":null,"turns":[{"id":"0","offset":0,"bytes":9,"role":"user","at":null,"record":"user","parts":[{"type":"text","text":"hi"}]}],"next":null,"more":false,"reset":false,"subagents":[]}"#;
        let page: Conversation = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&page).unwrap(), text);
    }
}
