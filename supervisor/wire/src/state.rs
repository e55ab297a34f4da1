//! The state object: what `/v1/state`, `/tmp/claude_state.json` and `whim status --json` show.
//!
//! One document for the whole container, with one entry per session. Absent optional objects that the contract shows
//! as `null` are written as `null`; `dialog`, `step` and `error` of a phase are left out where they do not apply.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::money::NanoUsd;
use crate::time::Time;

/// Version of the state object's shape.
pub const VERSION: u32 = 1;

/// What an agent is doing. Its word is what `/tmp/claude_state` contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentState {
    /// Not yet ready for a prompt.
    Starting,
    /// A turn is in progress.
    Working,
    /// A dialog waits for an answer; nothing goes on without one.
    NeedsInput,
    /// Ready for a prompt.
    Idle,
    /// The agent ended.
    Stopped,
}

impl AgentState {
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Working,
        Self::NeedsInput,
        Self::Idle,
        Self::Stopped,
    ];

    /// The word as files and the API write it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Working => "working",
            Self::NeedsInput => "needs_input",
            Self::Idle => "idle",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that names no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no state; use starting, working, needs_input, idle or stopped")]
pub struct UnknownState(pub String);

impl FromStr for AgentState {
    type Err = UnknownState;

    fn from_str(word: &str) -> Result<Self, UnknownState> {
        Self::ALL
            .into_iter()
            .find(|state| state.word() == word)
            .ok_or_else(|| UnknownState(word.to_owned()))
    }
}

/// Where the container is in its life. Flattened into the state object: `"phase":"booting","step":"clone"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// The boot works on `step`.
    Booting { step: String },
    /// A warm container without a task.
    WaitingForSpec,
    /// Booted; agents may run.
    Ready,
    /// The ordered end has begun.
    Stopping,
    /// The boot gave up at `step`.
    Failed { step: String, error: String },
}

/// What an agent waits for, where it can be known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dialog {
    /// Names this dialog in an answer; a later dialog has another id.
    pub id: String,
    pub kind: DialogKind,
    /// What is asked, for people.
    pub text: String,
    /// In the order shown; empty where only free text answers.
    pub options: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DialogKind {
    /// May the agent do this?
    Permission,
    /// The agent wants to know something.
    Question,
}

/// The state of the whole container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateObject {
    pub version: u32,
    pub state: AgentState,
    /// One sentence that explains `state` to a person.
    pub reason: String,
    /// Since when `state` is what it is.
    pub since: Time,
    /// When this object was made.
    pub at: Time,
    /// Number of the newest event that this object includes.
    pub seq: u64,
    #[serde(flatten)]
    pub phase: Phase,
    /// Working, but without progress for long.
    pub stalled: bool,
    /// Seconds without any agent at work; 0 while one works, starts, or waits for input.
    pub idle_s: u64,
    /// Why the machine should stay awake although no agent may be at work; empty: no reason.
    pub keep_awake: Vec<String>,
    /// Model calls in flight, side calls (titles, token counts) left out.
    pub active_generations: u32,
    pub supervisor: Supervisor,
    pub sessions: Vec<SessionState>,
    /// Ports that listen.
    pub ports: Vec<u16>,
    pub backup: Backup,
    /// The platform; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
    /// The dialog of the session that `state` is about, else of the first that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialog: Option<Dialog>,
    /// Why model calls fail, as far as is known; absent: nothing speaks against them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_error: Option<String>,
    /// What weakens the separation of agent and host here, as `whim doctor` says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weaknesses: Vec<String>,
}

impl StateObject {
    /// The same state as seen at `now`: only the clocks in it move on.
    #[must_use]
    pub fn seen_at(&self, now: Time) -> Self {
        let mut seen = self.clone();
        let passed = now
            .as_millisecond()
            .saturating_sub(self.at.as_millisecond());
        if let Ok(passed) = u64::try_from(passed) {
            seen.at = now;
            if matches!(self.state, AgentState::Idle | AgentState::Stopped) {
                seen.idle_s = self.idle_s.saturating_add(passed / 1_000);
            }
        }
        seen
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Supervisor {
    /// As numbered in the container.
    pub pid: u32,
    /// How many supervisors ran before this one.
    pub restarts: u32,
    pub version: String,
}

/// One agent at work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionState {
    pub id: String,
    /// The agent's kind as the spec names it; a text, so that an older reader survives a newer kind.
    pub agent: String,
    /// The mode as the spec names it.
    pub mode: String,
    pub state: AgentState,
    pub reason: String,
    pub since: Time,
    #[serde(default)]
    pub stalled: bool,
    /// What the agent itself calls this session.
    pub agent_session_id: Option<String>,
    /// Process id of the agent.
    pub pid: Option<u32>,
    /// Terminal that shows it.
    pub terminal: Option<String>,
    pub queued_prompts: u32,
    /// Exit status of the ended agent, as a shell shows it: 0..=255, 128+N for signal N.
    pub exit: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialog: Option<Dialog>,
    pub spend: Spend,
}

/// What a session cost so far. Buckets are disjoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spend {
    pub usd: NanoUsd,
    /// The cap that holds for it; none: not capped.
    pub budget_usd: Option<NanoUsd>,
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backup {
    /// End of the last backup that is durable.
    pub last_ok: Option<Time>,
    /// Bytes that exist here only.
    pub pending_bytes: u64,
    /// Why the last attempt failed; none after a good one.
    pub error: Option<String>,
}

/// How it stands with the platform. What is owed to it waits on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backend {
    /// The last call had an answer, and a good one.
    pub reachable: bool,
    /// Since when `reachable` is what it is.
    pub since: Time,
    /// Why the last call failed; none after a good one.
    pub error: Option<String>,
    /// Events that it has not acknowledged yet.
    pub owed_events: u64,
    /// Events that it will never get, since this supervisor began: the journal had to let them go.
    pub lost_events: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = r#"{"version":1,"state":"working","reason":"tool Bash running 83 s: cargo test","since":"2026-11-22T03:00:00.000Z","at":"2026-11-22T03:01:23.000Z","seq":42,"phase":"ready","stalled":false,"idle_s":0,"keep_awake":["preview traffic on 3000, 4 s ago"],"active_generations":0,"supervisor":{"pid":7,"restarts":0,"version":"0.1.0"},"sessions":[{"id":"main","agent":"claude","mode":"interactive","state":"working","reason":"x","since":"2026-11-22T03:00:00.000Z","stalled":false,"agent_session_id":null,"pid":31,"terminal":"main","queued_prompts":0,"exit":null,"spend":{"usd":"0.012345678","budget_usd":"5.00","requests":3,"input_tokens":1,"output_tokens":1,"cache_read_tokens":1,"cache_write_tokens":1}}],"ports":[3000],"backup":{"last_ok":null,"pending_bytes":0,"error":null}}"#;

    #[test]
    fn the_contracts_object_survives_unchanged() {
        let state: StateObject = serde_json::from_str(EXAMPLE).unwrap();
        assert_eq!(state.phase, Phase::Ready);
        assert_eq!(state.sessions[0].spend.usd, NanoUsd(12_345_678));
        assert_eq!(serde_json::to_string(&state).unwrap(), EXAMPLE);
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let newer = EXAMPLE.replacen('{', r#"{"from_the_future":[1],"#, 1);
        assert_eq!(
            serde_json::from_str::<StateObject>(&newer).unwrap(),
            serde_json::from_str(EXAMPLE).unwrap()
        );
    }

    #[test]
    fn phases_carry_step_and_error_beside_their_name() {
        let mut state: StateObject = serde_json::from_str(EXAMPLE).unwrap();
        for (phase, step, error) in [
            (
                Phase::Booting {
                    step: "clone".into(),
                },
                Some("clone"),
                None,
            ),
            (Phase::WaitingForSpec, None, None),
            (Phase::Stopping, None, None),
            (
                Phase::Failed {
                    step: "init".into(),
                    error: "exit 1".into(),
                },
                Some("init"),
                Some("exit 1"),
            ),
        ] {
            state.phase = phase;
            let json = serde_json::to_value(&state).unwrap();
            assert!(json["phase"].is_string());
            assert_eq!(json.get("step").and_then(|v| v.as_str()), step);
            assert_eq!(json.get("error").and_then(|v| v.as_str()), error);
            assert_eq!(serde_json::from_value::<StateObject>(json).unwrap(), state);
        }
    }

    #[test]
    fn words_are_the_json_names() {
        for state in AgentState::ALL {
            assert_eq!(
                serde_json::to_string(&state).unwrap(),
                format!("\"{}\"", state.word())
            );
            assert_eq!(state.word().parse(), Ok(state));
        }
        assert!("busy".parse::<AgentState>().is_err());
    }

    #[test]
    fn clocks_move_on_and_never_back() {
        let mut state: StateObject = serde_json::from_str(EXAMPLE).unwrap();
        let later: Time = "2026-11-22T03:01:33.500Z".parse().unwrap();
        assert_eq!(state.seen_at(later).idle_s, 0, "somebody works");
        state.state = AgentState::Idle;
        state.idle_s = 5;
        let seen = state.seen_at(later);
        assert_eq!((seen.at, seen.idle_s), (later, 15));
        assert_eq!(state.seen_at(Time::EPOCH), state);
    }

    #[test]
    fn the_schema_describes_the_document() {
        let schema = schemars::schema_for!(StateObject);
        let text = serde_json::to_string(&schema).unwrap();
        for field in ["keep_awake", "waiting_for_spec", "needs_input", "date-time"] {
            assert!(text.contains(field), "{field}");
        }
    }
}
