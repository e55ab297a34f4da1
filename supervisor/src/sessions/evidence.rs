//! Evidence about a session, from its sources' words into those of the fusion.

use crate::agents::observe::hook::{HookEvent, Question, Signal, Tool};
use crate::state::clock;
use crate::state::moment::Moment;
use crate::state::observation::{Hook, Observation};
use whim_wire::state::{Dialog, DialogKind};

/// What a source saw, with what it tells besides.
#[derive(Debug)]
pub struct Evidence {
    pub at: Moment,
    /// None: nothing for the fusion, but perhaps an id.
    pub observation: Option<Observation>,
    /// What the agent calls its session.
    pub agent_session: Option<String>,
}

impl Evidence {
    /// As of now.
    #[must_use]
    pub fn now(observation: Observation) -> Self {
        Self { at: clock::now(), observation: Some(observation), agent_session: None }
    }
}

/// What a hook tells.
#[must_use]
pub fn of_hook(event: HookEvent) -> Evidence {
    let HookEvent { agent_session, subagent, signal, .. } = event;
    // A subagent's session id is not the session's.
    let agent_session = if subagent.is_none() { agent_session } else { None };
    Evidence { at: clock::now(), observation: hook(signal, subagent).map(Observation::Hook), agent_session }
}

fn hook(signal: Signal, subagent: Option<String>) -> Option<Hook> {
    let inside = subagent.is_some();
    Some(match signal {
        Signal::SessionStarted { .. } if inside => return None,
        Signal::SessionStarted { .. } => Hook::SessionStarted,
        Signal::PromptSubmitted { .. } => Hook::PromptSubmitted,
        Signal::ToolStarted(tool) => {
            Hook::ToolStarted { id: id(&tool), name: tool.name.clone(), detail: detail(&tool), subagent: inside }
        }
        Signal::ToolEnded { tool, failed: _, interrupted } => Hook::ToolEnded { id: id(&tool), interrupted },
        Signal::PermissionAsked(tool) => {
            Hook::DialogOpened { dialog: permission(&tool), tool: Some(tool.name.clone()), detail: detail(&tool) }
        }
        Signal::QuestionAsked { questions } => Hook::DialogOpened { dialog: question(&questions), tool: None, detail: None },
        Signal::Notified { kind, .. } => match kind.as_str() {
            "permission_prompt" | "elicitation_dialog" => Hook::DialogReminder,
            "idle_prompt" => Hook::IdleReminder,
            _ => return None,
        },
        Signal::TurnEnded { .. } if inside => return None,
        Signal::TurnEnded { .. } => Hook::Stopped,
        Signal::Interrupted => Hook::Interrupted,
        Signal::SubagentStarted => Hook::SubagentStarted { id: subagent.unwrap_or_default() },
        Signal::SubagentEnded => Hook::SubagentStopped { id: subagent.unwrap_or_default() },
        Signal::Compacting => Hook::Compacting,
        Signal::SessionEnded { .. } => Hook::SessionEnded,
        Signal::Other => return None,
    })
}

/// Agents that give no id have one tool of a name at a time.
fn id(tool: &Tool) -> String {
    tool.id.clone().unwrap_or_else(|| tool.name.clone())
}

fn detail(tool: &Tool) -> Option<String> {
    (!tool.detail.is_empty()).then(|| tool.detail.clone())
}
