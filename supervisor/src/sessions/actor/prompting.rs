//! What the session's task does with prompts: takes them in, types them as the queue says, and tells how they fare.

use serde_json::json;
use tokio::sync::oneshot as answer;
use whim_wire::event::kind;

use super::Actor;
use crate::agents::command::PromptRoute;
use crate::agents::prompt::{self, Effect, Queue};
use crate::clock::{self, boot_now};
use crate::sessions::SessionError;
use crate::sessions::prompts::{Progress, Prompt, PromptError};
use crate::sessions::running::Running;
use crate::sessions::{beginning, launch};
use crate::state::observation::{Key, Observation};

impl Actor {
    /// Goes on with the prompts of an earlier supervisor.
    pub(super) fn recall_prompts(&mut self) {
        let rules = crate::agents::of(self.record.agent).prompt_rules();
        let saved = self.record.prompts.saved();
        let (queue, effects) = Queue::restore(rules, saved, boot_now().since_boot());
        self.queue = queue;
        self.carry_out(effects);
    }

    /// The agent was started with its first prompt by a supervisor that did not live to note it.
    pub(super) async fn note_first_prompt(&mut self) {
        if let Some(text) = beginning::prompt(&self.record, self.prompt.as_deref()) {
            let setup = self.record.setup(&self.ground.task().setup);
            match launch::route(&self.ground, &setup, &self.record, &text).await {
                Ok(route) => self.first_prompt(&text, route),
                Err(error) => tracing::error!(%error, "the first prompt is not followed"),
            }
        }
        self.save();
    }

    pub(super) fn first_prompt(&mut self, text: &str, route: PromptRoute) {
        self.prompt = None;
        if route == PromptRoute::Given {
            let prompt = self.record.prompts.add(text, clock::now());
            let effects = self
                .queue
                .given(prompt.id, text.to_owned(), boot_now().since_boot());
            self.carry_out(effects);
            self.observe(Observation::PromptDelivered);
        } else if let Err(error) = self.enqueue(text) {
            tracing::error!(%error, "the first prompt is not taken");
        }
    }

    pub(super) fn enqueue(&mut self, text: &str) -> Result<Prompt, SessionError> {
        if self.record.ended {
            return Err(PromptError::Stopped.into());
        }
        prompt::check(text).map_err(PromptError::from)?;
        let prompt = self.record.prompts.add(text, clock::now());
        match self
            .queue
            .push(prompt.id.clone(), text.to_owned(), boot_now().since_boot())
        {
            Ok(effects) => {
                self.tell(&prompt);
                self.save();
                self.carry_out(effects);
                Ok(prompt)
            }
            Err(full) => {
                self.record.prompts.remove(&prompt.id);
                Err(PromptError::from(full).into())
            }
        }
    }

    pub(super) async fn interrupt(&mut self) -> Result<(), SessionError> {
        let running = self
            .running
            .as_ref()
            .ok_or_else(|| SessionError::NotRunning(self.record.id.clone()))?;
        if running.terminal().is_none() {
            running
                .interrupt()
                .await
                .map_err(|error| SessionError::Start(error.to_string()))?;
        } else {
            let effects = self.queue.interrupt(boot_now().since_boot());
            if effects.is_empty() {
                // Nothing is under way, or the key was just pressed.
                return Ok(());
            }
            self.carry_out(effects);
        }
        self.observe(Observation::Key(Key::Interrupt));
        Ok(())
    }

    /// Tells the queue what happened, and does what it says.
    pub(super) fn deliver(&mut self, event: &prompt::Event<'_>) {
        let effects = self.queue.on(event, boot_now().since_boot());
        self.carry_out(effects);
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut bytes = Vec::new();
        for effect in effects {
            match effect {
                Effect::Typing { id } => {
                    self.started_up();
                    self.record.prompts.typing(&id);
                    self.save();
                }
                Effect::Untyped { id } => {
                    self.record.prompts.untyped(&id);
                    self.save();
                }
                Effect::Write(piece) => bytes.extend_from_slice(&piece),
                Effect::Report { id, status, reason } => {
                    let prompt =
                        self.record
                            .prompts
                            .report(&id, status.into(), reason, clock::now());
                    if let Some(prompt) = prompt {
                        if prompt.state == Progress::Delivered {
                            self.observe(Observation::PromptDelivered);
                        }
                        self.tell(&prompt);
                        self.save();
                    }
                }
            }
        }
        if let Some(terminal) = self.running.as_ref().and_then(Running::terminal)
            && !bytes.is_empty()
        {
            // Typed beside this task: a program that does not read must not keep the session from hearing of its end.
            let (done, written) = answer::channel();
            let terminal = terminal.clone();
            drop(tokio::spawn(async move {
                let taken = terminal.type_bytes(bytes).await.is_ok();
                // Nobody waits any more when the session ended.
                let _ = done.send(taken);
            }));
            self.writing = Some(written);
        }
    }

    pub(super) fn tell(&self, prompt: &Prompt) {
        let event = json!({"prompt_id": prompt.id, "state": prompt.state, "reason": prompt.reason});
        self.note(kind::PROMPT_CHANGED, event);
    }
}
