//! What became of the prompts of one session.
//!
//! The way into the agent is [`crate::agents::prompt::Queue`]'s; here are the names, states and texts that are asked for
//! and that outlive the supervisor. Ended prompts are forgotten beyond [`REMEMBERED`], their texts at once: they are in
//! the conversation.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use whim_wire::time::Time;

use crate::agents::prompt::{self, QueueFull, Refused, Saved, Status};

/// Ended prompts that can still be asked for.
const REMEMBERED: usize = 256;

/// Where a prompt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Waits for its turn.
    Queued,
    /// Typed into the agent.
    Delivered,
    /// The agent works on it.
    Working,
    /// Its turn ended.
    Done,
    /// Its turn was interrupted.
    Interrupted,
    /// It did not reach the agent, or the agent ended on it.
    Failed,
}

impl Progress {
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Interrupted | Self::Failed)
    }
}

/// A prompt and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Prompt {
    #[serde(rename = "prompt_id")]
    pub id: String,
    pub state: Progress,
    /// Why it failed or was interrupted.
    pub reason: Option<String>,
    pub at: Time,
    /// When it reached its present state.
    pub since: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl From<Status> for Progress {
    fn from(status: Status) -> Self {
        match status {
            Status::Queued => Self::Queued,
            Status::Delivered => Self::Delivered,
            Status::Working => Self::Working,
            Status::Done => Self::Done,
            Status::Interrupted => Self::Interrupted,
            Status::Failed => Self::Failed,
        }
    }
}

/// Why a prompt is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    #[error("the queue is full: {0}; wait until some are done")]
    Full(#[from] QueueFull),
    #[error("text: {0}")]
    Refused(#[from] Refused),
    #[error("the session has ended")]
    Stopped,
}

/// The prompts of a session, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Prompts {
    next: u64,
    known: VecDeque<Known>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    #[serde(flatten)]
    prompt: Prompt,
    /// Bytes of it may be in the agent's input box.
    #[serde(default)]
    typing: bool,
}

impl Prompts {
    /// A new prompt, not yet queued anywhere.
    pub fn add(&mut self, text: &str, now: Time) -> Prompt {
        self.next += 1;
        let id = format!("p{}", self.next);
        let prompt = Prompt {
            id,
            state: Progress::Queued,
            reason: None,
            at: now,
            since: now,
            text: Some(text.to_owned()),
        };
        self.known.push_back(Known {
            prompt: prompt.clone(),
            typing: false,
        });
        let mut ended = self
            .known
            .iter()
            .filter(|known| known.prompt.state.is_final())
            .count();
        self.known.retain(|known| {
            let forget = ended > REMEMBERED && known.prompt.state.is_final();
            ended -= usize::from(forget);
            !forget
        });
        prompt
    }

    /// Takes a prompt back that could not be queued.
    pub fn remove(&mut self, id: &str) {
        self.known.retain(|known| known.prompt.id != id);
    }

    /// Its bytes are about to be typed.
    pub fn typing(&mut self, id: &str) {
        if let Some(known) = self.find_mut(id) {
            known.typing = true;
        }
    }

    /// They were not.
    pub fn untyped(&mut self, id: &str) {
        if let Some(known) = self.find_mut(id) {
            known.typing = false;
        }
    }

    /// It is here now.
    pub fn report(
        &mut self,
        id: &str,
        progress: Progress,
        reason: Option<String>,
        now: Time,
    ) -> Option<Prompt> {
        let known = self.find_mut(id)?;
        known.typing = false;
        if known.prompt.state == progress {
            return None;
        }
        known.prompt.state = progress;
        known.prompt.reason = reason;
        known.prompt.since = now;
        if progress.is_final() {
            known.prompt.text = None;
        }
        Some(known.prompt.clone())
    }

    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Prompt> {
        self.known
            .iter()
            .map(|known| &known.prompt)
            .find(|prompt| prompt.id == id)
    }

    /// Whether something that happened at `when` can concern the prompt `id`: it had reached its present state by then.
    #[must_use]
    pub fn concerned(&self, id: &str, when: Time) -> bool {
        self.find(id).is_some_and(|prompt| prompt.since <= when)
    }

    /// Whether any was delivered, or failed on its way.
    #[must_use]
    pub fn any_reached(&self) -> bool {
        self.known
            .iter()
            .any(|known| known.prompt.state != Progress::Queued)
    }

    /// Those that are not done, for the queue of a later supervisor.
    #[must_use]
    pub fn saved(&self) -> Vec<Saved> {
        let open = self
            .known
            .iter()
            .filter(|known| !known.prompt.state.is_final());
        open.map(|known| Saved {
            id: known.prompt.id.clone(),
            text: known.prompt.text.clone().unwrap_or_default(),
            progress: match known.prompt.state {
                _ if known.typing => prompt::Progress::Typing,
                Progress::Delivered => prompt::Progress::Delivered,
                Progress::Working => prompt::Progress::Working,
                _ => prompt::Progress::Queued,
            },
        })
        .collect()
    }

    fn find_mut(&mut self, id: &str) -> Option<&mut Known> {
        self.known.iter_mut().find(|known| known.prompt.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_kept_texts_are_not_and_both_are_bounded() {
        let mut prompts = Prompts::default();
        let now = Time::EPOCH;
        for _ in 0..2 * REMEMBERED {
            let id = prompts.add("x", now).id;
            assert_eq!(
                prompts
                    .report(&id, Progress::Delivered, None, now)
                    .unwrap()
                    .state,
                Progress::Delivered
            );
            assert_eq!(prompts.report(&id, Progress::Delivered, None, now), None);
            assert_eq!(
                prompts.report(&id, Progress::Done, None, now).unwrap().text,
                None
            );
        }
        assert!(prompts.known.len() <= REMEMBERED + 1);
        assert!(prompts.saved().is_empty());
    }

    #[test]
    fn what_is_open_is_saved_as_it_stands() {
        let mut prompts = Prompts::default();
        let ids: Vec<String> = ["a", "b", "c"]
            .iter()
            .map(|text| prompts.add(text, Time::EPOCH).id)
            .collect();
        prompts.report(&ids[0], Progress::Working, None, Time::EPOCH);
        prompts.typing(&ids[1]);
        let saved = prompts.saved();
        let progress: Vec<_> = saved.iter().map(|saved| saved.progress).collect();
        assert_eq!(
            progress,
            [
                prompt::Progress::Working,
                prompt::Progress::Typing,
                prompt::Progress::Queued
            ]
        );
        assert_eq!(saved[1].text, "b");
    }
}
