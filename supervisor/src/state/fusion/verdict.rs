//! What the fusion concludes, and what of it outlives a supervisor.

use serde::{Deserialize, Serialize};
use whim_wire::state::{AgentState, Dialog};

use crate::state::moment::Moment;

/// The state of one session's agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub state: AgentState,
    /// One sentence for people. It may change (ages, CPU use) while nothing else does.
    pub reason: String,
    /// Since when `state` is what it is.
    pub since: Moment,
    /// Working only because a prompt was delivered a moment ago: nothing shows yet that the agent took it up.
    pub credited: bool,
    /// Working, but without progress for long.
    pub stalled: bool,
    /// What is asked, with `needs_input`, where it can be known.
    pub dialog: Option<Dialog>,
    /// Model calls in flight, side calls left out.
    pub generations: u32,
    /// What an agent that rests left running, busiest first: reasons to stay awake.
    pub background: Vec<String>,
}

impl Verdict {
    /// Whether this is news: another state, stall or dialog, not just another wording.
    #[must_use]
    pub fn differs(&self, before: &Self) -> bool {
        let id = |verdict: &Self| verdict.dialog.as_ref().map(|dialog| dialog.id.clone());
        self.state != before.state || self.stalled != before.stalled || id(self) != id(before)
    }

    /// What a later supervisor needs to go on from here.
    #[must_use]
    pub fn remember(&self) -> Remembered {
        Remembered {
            state: self.state,
            reason: self.reason.clone(),
            dialog: self.dialog.clone(),
        }
    }
}

/// The last word of a supervisor about a session, as the next one finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    pub state: AgentState,
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialog: Option<Dialog>,
}
