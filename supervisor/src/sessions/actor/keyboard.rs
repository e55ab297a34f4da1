//! The session's task at the keyboard: what people type, dialogs and their answers, and when the agent takes a prompt.

use std::time::Duration;

use serde_json::Value;
use whim_wire::state::AgentState;

use super::Actor;
use crate::agents::observe::dialog;
use crate::agents::observe::startup::Step;
use crate::agents::prompt::{self, Activity, View};
use crate::sessions::SessionError;
use crate::sessions::evidence::Evidence;
use crate::sessions::running::Running;
use crate::state::observation::{Key, Observation};
use crate::terminals::Typed;

/// A dialog that is not on the screen by now cannot be read there (it has no numbers).
const SHOWN: Duration = Duration::from_secs(2);
/// Between two looks for it.
const LOOK_SHOWN: Duration = Duration::from_millis(50);
/// Looks that may meet a screen which is being painted again.
const REPAINT: u32 = 5;

impl Actor {
    pub(super) async fn answer(&mut self, id: &str, option: &Value) -> Result<(), SessionError> {
        let gone = || SessionError::NoDialog(self.record.id.clone());
        let asked = self
            .sources
            .dialog()
            .filter(|asked| asked.id == id)
            .ok_or_else(gone)?;
        let choice = match option {
            Value::String(text) => asked.options.iter().position(|known| known == text),
            Value::Number(number) => number
                .as_u64()
                .and_then(|number| usize::try_from(number).ok()),
            _ => None,
        };
        let unknown = || {
            SessionError::Invalid(format!(
                "option: {option} is none of {}",
                asked.options.join(", ")
            ))
        };
        let choice = choice.ok_or_else(unknown)?;
        let keys = self.sources.keys(id, choice);
        let keys = keys.map_err(|error| SessionError::Invalid(error.to_string()))?;
        if !self.until_shown(choice).await {
            return Err(gone());
        }
        let running = self
            .running
            .as_ref()
            .ok_or_else(|| SessionError::NotRunning(self.record.id.clone()))?;
        running
            .keys(keys)
            .await
            .map_err(|error| SessionError::Start(error.to_string()))?;
        self.observe(Observation::Key(Key::Submit));
        Ok(())
    }

    /// An agent tells of a dialog before it shows it, and takes no keys for it before: waits until the option can be read
    /// on the screen and the dialog is old enough, or is older than any agent needs. False when another dialog stands
    /// there, which the keys would answer.
    async fn until_shown(&self, option: usize) -> bool {
        let Some(terminal) = self.running.as_ref().and_then(Running::terminal) else {
            return true;
        };
        for look in 1.. {
            let late = self.sources.dialog_age() >= SHOWN && look > REPAINT;
            let shown = terminal.text().await.ok().and_then(|screen| {
                let lines: Vec<&str> = screen.text.lines().collect();
                dialog::read_screen(&lines)
            });
            match shown {
                Some(shown)
                    if self.sources.shown_by(&shown, option)
                        && self.sources.dialog_age() >= dialog::ANSWER_AFTER =>
                {
                    return true;
                }
                Some(_) if late => return false,
                None if late => return true,
                _ => {}
            }
            tokio::time::sleep(LOOK_SHOWN).await;
        }
        false
    }

    /// Keys reached the terminal: the fusion and the queue hear what they mean.
    pub(super) fn typed(&mut self, typed: Typed) {
        let before = std::mem::replace(&mut self.typed, typed);
        let asks = self.sources.dialog().is_some()
            || self
                .verdict
                .as_ref()
                .is_some_and(|verdict| verdict.state == AgentState::NeedsInput);
        if asks && typed.draft && !before.draft {
            self.dialog_draft = Some(typed.draft_from);
        }
        let draft = typed.draft && self.dialog_draft != Some(typed.draft_from);
        let by_person = typed.messages != before.messages;
        // What the supervisor itself types is no draft.
        if draft != self.record.draft && (by_person || !draft) {
            self.record.draft = draft;
            self.save();
        }
        if !by_person {
            return;
        }
        let escapes = crate::agents::of(self.record.agent)
            .prompt_rules()
            .interrupt
            == b"\x1b";
        let interrupt =
            typed.interrupted > before.interrupted || (escapes && typed.escaped > before.escaped);
        if interrupt {
            self.observe(Observation::Key(Key::Interrupt));
        }
        if typed.entered > before.entered {
            self.observe(Observation::Key(Key::Submit));
        } else if !interrupt {
            self.observe(Observation::Key(Key::Other));
        }
        self.deliver(&prompt::Event::HumanKey {
            leaves_draft: draft,
        });
        if typed.submitted > before.submitted && !asks {
            self.deliver(&prompt::Event::HumanSubmitted);
        }
    }

    /// Tells the queue how the agent's input stands. What the screen knows is asked for only while a prompt waits.
    pub(super) async fn look_at_input(&mut self) {
        let Some(verdict) = &self.verdict else { return };
        let asks = self
            .running
            .as_ref()
            .is_some_and(Running::in_startup_dialog);
        let activity = match verdict.state {
            // It hears nothing else yet; a prompt that it was started with is not taken up.
            _ if asks => Activity::Starting,
            AgentState::Starting | AgentState::Stopped => Activity::Starting,
            AgentState::Idle => Activity::Idle,
            // Its own credit is no sign that a prompt was taken up.
            AgentState::Working if verdict.credited => Activity::Idle,
            AgentState::Working => Activity::Working,
            AgentState::NeedsInput => Activity::Dialog,
        };
        let Some(terminal) = self.running.as_ref().and_then(Running::terminal) else {
            return;
        };
        // A screen that was rebuilt from the last output may have missed where the program turned it on.
        let wanted = self.queue.waiting() > 0 || self.queue.current().is_some();
        if wanted
            && !self.record.bracketed_paste
            && terminal
                .text()
                .await
                .is_ok_and(|screen| screen.bracketed_paste)
        {
            self.record.bracketed_paste = true;
            self.save();
        }
        let bracketed_paste = self.record.bracketed_paste;
        self.deliver(&prompt::Event::View(View {
            activity,
            bracketed_paste,
        }));
    }

    /// What a dialog of the agent's start wants.
    pub(super) fn startup(&mut self, step: Step) {
        match step {
            Step::Nothing => {}
            Step::Answer { keys, why } => {
                tracing::info!(
                    session = self.record.id,
                    why,
                    "answered the agent's question"
                );
                if let Some(terminal) = self.running.as_ref().and_then(Running::terminal).cloned() {
                    // Not waited for: a program that does not read must not hold the session.
                    drop(tokio::spawn(async move {
                        if let Err(error) = terminal.type_bytes(keys.to_vec()).await {
                            tracing::debug!(%error, "the answer was not typed");
                        }
                    }));
                }
            }
            Step::Ask(text) => self.evidence(Evidence::Startup(Some(text.to_owned()))),
            Step::Gone => self.evidence(Evidence::Startup(None)),
        }
    }

    /// A prompt is on its way: what the screen shows from now on is no dialog of the start.
    pub(super) fn started_up(&mut self) {
        if let Some(running) = &mut self.running {
            let step = running.started_up();
            self.startup(step);
        }
    }
}
