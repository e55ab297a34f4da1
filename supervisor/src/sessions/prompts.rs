//! The prompts of one session: a bounded queue, and what became of each.
//!
//! Pure. A prompt goes `queued → delivered → working → done | interrupted | failed`. At most one is on its way into the
//! agent. [`WAITING`] may wait; one more is refused. What became of the last [`REMEMBERED`] ended ones can be asked for.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use whim_wire::time::Time;

/// Prompts that may wait. A caller that is further ahead of the agent than this does not listen to it.
pub const WAITING: usize = 64;
/// Ended prompts that can still be asked for.
pub const REMEMBERED: usize = 256;
/// Longest prompt in bytes: what a person or a program would type, with a pasted log.
pub const LONGEST: usize = 1024 * 1024;

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

/// Why a prompt is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    #[error("the queue is full ({WAITING} prompts wait); wait until some are done")]
    Full,
    #[error("the text is empty")]
    Empty,
    #[error("the text has {0} bytes; at most {LONGEST} are taken")]
    TooLong(usize),
    #[error("the text contains the control character U+{0:04X}; only newline and tab are taken")]
    Control(u32),
    #[error("the session has ended")]
    Stopped,
}

/// The prompts of a session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Prompts {
    next: u64,
    waiting: VecDeque<Prompt>,
    current: Option<Prompt>,
    ended: VecDeque<Prompt>,
}

impl Prompts {
    /// Takes a prompt in.
    ///
    /// # Errors
    /// [`PromptError`].
    pub fn add(&mut self, text: &str, now: Time) -> Result<Prompt, PromptError> {
        check(text)?;
        if self.waiting.len() >= WAITING {
            return Err(PromptError::Full);
        }
        self.next += 1;
        let prompt = Prompt {
            id: format!("p{}", self.next),
            state: Progress::Queued,
            reason: None,
            at: now,
            since: now,
            text: Some(text.to_owned()),
        };
        self.waiting.push_back(prompt.clone());
        Ok(prompt)
    }

    /// Number of prompts that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// The one on its way into the agent, or that the agent works on.
    #[must_use]
    pub fn current(&self) -> Option<&Prompt> {
        self.current.as_ref()
    }

    /// Takes the next one up, if none is under way.
    pub fn begin(&mut self) -> Option<Prompt> {
        if self.current.is_some() {
            return None;
        }
        self.current = self.waiting.pop_front();
        self.current.clone()
    }

    /// The present one is now here; a final progress ends it. Steps back are ignored, so repeated signals do no harm.
    pub fn advance(&mut self, progress: Progress, reason: Option<String>, now: Time) -> Option<Prompt> {
        let current = self.current.as_mut()?;
        if rank(progress) <= rank(current.state) {
            return None;
        }
        current.state = progress;
        current.reason = reason;
        current.since = now;
        let changed = current.clone();
        if progress.is_final()
            && let Some(mut ended) = self.current.take()
        {
            // Its text is in the conversation; here only its fate is needed.
            ended.text = None;
            self.ended.push_back(ended);
            if self.ended.len() > REMEMBERED {
                self.ended.pop_front();
            }
        }
        Some(changed)
    }

    /// Everything that waits or is under way fails.
    pub fn fail_all(&mut self, reason: &str, now: Time) -> Vec<Prompt> {
        let mut failed: Vec<Prompt> = self.advance(Progress::Failed, Some(reason.to_owned()), now).into_iter().collect();
        while self.begin().is_some() {
            failed.extend(self.advance(Progress::Failed, Some(reason.to_owned()), now));
        }
        failed
    }

    #[must_use]
    pub fn find(&self, id: &str) -> Option<&Prompt> {
        self.current.iter().chain(&self.waiting).chain(&self.ended).find(|prompt| prompt.id == id)
    }
}

fn rank(progress: Progress) -> u8 {
    match progress {
        Progress::Queued => 0,
        Progress::Delivered => 1,
        Progress::Working => 2,
        Progress::Done | Progress::Interrupted | Progress::Failed => 3,
    }
}

/// Is this text a prompt?
///
/// # Errors
/// [`PromptError`] for control characters other than newline and tab, for an empty and for an overlong text.
pub fn check(text: &str) -> Result<(), PromptError> {
    if text.trim().is_empty() {
        return Err(PromptError::Empty);
    }
    if text.len() > LONGEST {
        return Err(PromptError::TooLong(text.len()));
    }
    match text.chars().find(|character| character.is_control() && !matches!(character, '\n' | '\t')) {
        Some(character) => Err(PromptError::Control(u32::from(character))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Time {
        Time::EPOCH
    }

    #[test]
    fn one_at_a_time_in_order() {
        let mut prompts = Prompts::default();
        let first = prompts.add("one", now()).unwrap();
        let second = prompts.add("two\n\tlines", now()).unwrap();
        assert_ne!(first.id, second.id);
        assert_eq!(prompts.begin().unwrap().id, first.id);
        assert_eq!(prompts.begin(), None);
        assert_eq!(prompts.advance(Progress::Delivered, None, now()).unwrap().state, Progress::Delivered);
        assert_eq!(prompts.advance(Progress::Working, None, now()).unwrap().state, Progress::Working);
        assert_eq!(prompts.advance(Progress::Delivered, None, now()), None);
        assert_eq!(prompts.advance(Progress::Done, None, now()).unwrap().state, Progress::Done);
        assert_eq!(prompts.advance(Progress::Failed, None, now()), None);
        assert_eq!(prompts.begin().unwrap().id, second.id);
        assert_eq!(prompts.find(&first.id).unwrap().state, Progress::Done);
    }

    #[test]
    fn bounds_are_kept() {
        let mut prompts = Prompts::default();
        for _ in 0..WAITING {
            prompts.add("x", now()).unwrap();
        }
        assert_eq!(prompts.add("x", now()), Err(PromptError::Full));
        assert_eq!(prompts.fail_all("stopped", now()).len(), WAITING);
        assert_eq!(prompts.queued(), 0);
        for _ in 0..2 * REMEMBERED {
            prompts.add("x", now()).unwrap();
            prompts.begin();
            prompts.advance(Progress::Done, None, now());
        }
        assert_eq!(prompts.ended.len(), REMEMBERED);
    }

    #[test]
    fn control_characters_are_refused_by_number() {
        assert_eq!(check("a\u{1b}[201~b"), Err(PromptError::Control(0x1b)));
        assert_eq!(check("a\rb"), Err(PromptError::Control(0x0d)));
        assert_eq!(check(" \n"), Err(PromptError::Empty));
        assert_eq!(check(&"x".repeat(LONGEST + 1)), Err(PromptError::TooLong(LONGEST + 1)));
        assert_eq!(check("grün\n\t漢"), Ok(()));
    }
}
