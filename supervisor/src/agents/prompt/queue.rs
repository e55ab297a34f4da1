//! The state machine of [`super`].

mod phases;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use super::{
    Activity, Effect, Event, MAX_QUEUED, MAX_QUEUED_BYTES, Moment, Progress, PromptRules,
    QueueFull, Saved, Status, View, paste,
};

/// Bytes of one write. Below the 4 KiB that a tty's input buffer takes at once.
const CHUNK: usize = 2048;
/// A terminal that takes nothing for so long takes no prompt.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Between the keys that clear the input box and the paste: in one piece Claude Code takes the keys for text, and
/// nothing tells that it has read them.
const CLEAR_DELAY: Duration = Duration::from_millis(300);
/// How long a reaction to the paste is waited for before Enter.
const ECHO_DEADLINE: Duration = Duration::from_secs(2);
/// After Enter without any sign: Enter again, so often, after this and then its double and triple. Claude Code drops an
/// Enter in the moments after its start.
const ENTER_GAP: Duration = Duration::from_secs(1);
const ENTER_TRIES: u32 = 4;
/// After Enter without any sign: typed once more. Claude Code that resumes a long conversation shows its input box, and
/// then another one that knows nothing of what was typed into the first.
const RETYPE: Duration = Duration::from_secs(8);
/// After Enter without any sign: given up.
const TAKEN_DEADLINE: Duration = Duration::from_secs(15);
/// With a sign that is no proof (a model call, a busy agent): taken up.
const SIGN_DELAY: Duration = Duration::from_secs(1);
/// A command of the agent's own that begins no turn within this is done.
const LOCAL_DELAY: Duration = Duration::from_secs(2);
/// Idle for so long without a word about the turn's end: it ended.
const IDLE_DELAY: Duration = Duration::from_secs(1);
/// A person's last key must be so long ago.
const HUMAN_QUIET: Duration = Duration::from_secs(2);
/// What a person entered begins a turn within this, or it began none (a command of the agent's own).
const HUMAN_TURN: Duration = Duration::from_secs(5);
/// A draft left in the input box for so long is cleared.
const DRAFT_PATIENCE: Duration = Duration::from_secs(60);
/// Lines of a draft that are cleared at most.
const MAX_CLEARED: usize = 64;

/// The prompts of one session.
#[derive(Debug)]
pub struct Queue {
    rules: PromptRules,
    waiting: VecDeque<(String, String)>,
    waiting_bytes: usize,
    current: Option<Current>,
    view: View,
    idle_since: Option<Moment>,
    human: Human,
    interrupted_at: Option<Moment>,
    /// Lines of an interrupted prompt that may stand in the input box again.
    leftover: usize,
}

#[derive(Debug, Default)]
struct Human {
    last_key: Option<Moment>,
    draft: bool,
    /// When they entered something of which no turn was seen yet.
    submitted: Option<Moment>,
}

#[derive(Debug)]
struct Current {
    id: String,
    text: String,
    phase: Phase,
    /// It was typed before, and the agent did not take it up.
    again: bool,
}

#[derive(Debug)]
enum Phase {
    /// The input box is being cleared; `taken`: when the terminal had taken the keys.
    Clearing {
        since: Moment,
        taken: Option<Moment>,
    },
    /// The paste goes out piece by piece; `sent` bytes were written, the last piece at `since`.
    Pasting {
        bytes: Vec<u8>,
        sent: usize,
        since: Moment,
    },
    /// All of it was taken, at `since`; waits for a reaction, then Enter.
    Settling { since: Moment },
    /// Enter was pressed at `since`, `tries` times; `signs`: when something happened that is no proof yet.
    Entered {
        since: Moment,
        last: Moment,
        tries: u32,
        sign: Option<Moment>,
    },
    /// The turn runs.
    Turn {
        since: Moment,
        seen_working: bool,
        interrupt_asked: bool,
        /// A hook told of the prompt, so one would have told of the turn's end.
        heard: bool,
    },
}

impl Queue {
    #[must_use]
    pub fn new(rules: PromptRules) -> Self {
        Self {
            rules,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            current: None,
            view: View {
                activity: Activity::Starting,
                bracketed_paste: false,
            },
            idle_since: None,
            human: Human::default(),
            interrupted_at: None,
            leftover: 0,
        }
    }

    /// Goes on where an earlier supervisor stopped. A prompt that was being typed is reported `failed`: half of it may
    /// stand in the input box, so the paste is closed and the box cleared.
    #[must_use]
    pub fn restore(rules: PromptRules, saved: Vec<Saved>, now: Moment) -> (Self, Vec<Effect>) {
        let mut queue = Self::new(rules);
        let mut effects = Vec::new();
        for prompt in saved {
            match prompt.progress {
                Progress::Queued => {
                    queue.waiting_bytes += prompt.text.len();
                    queue.waiting.push_back((prompt.id, prompt.text));
                }
                Progress::Typing => {
                    let mut keys = paste::END.to_vec();
                    keys.extend(clear(&rules, prompt.text.lines().count()));
                    effects.push(Effect::Write(keys));
                    effects.push(Effect::Report {
                        id: prompt.id,
                        status: Status::Failed,
                        reason: Some("the supervisor was restarted while it was typed".into()),
                    });
                }
                Progress::Delivered | Progress::Working => {
                    queue.current = Some(Current {
                        id: prompt.id,
                        text: prompt.text,
                        phase: if prompt.progress == Progress::Working {
                            Phase::Turn {
                                since: now,
                                seen_working: false,
                                interrupt_asked: false,
                                heard: false,
                            }
                        } else {
                            // Whether Enter arrived is not known: it is not pressed again.
                            Phase::Entered {
                                since: now,
                                last: now,
                                tries: ENTER_TRIES,
                                sign: None,
                            }
                        },
                        // What an earlier supervisor typed may still be taken up.
                        again: true,
                    });
                }
            }
        }
        (queue, effects)
    }

    /// Adds a prompt that [`super::check`] took.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub fn push(
        &mut self,
        id: String,
        text: String,
        now: Moment,
    ) -> Result<Vec<Effect>, QueueFull> {
        let bytes = self.waiting_bytes + text.len();
        if self.waiting.len() >= MAX_QUEUED || bytes > MAX_QUEUED_BYTES {
            return Err(QueueFull {
                waiting: self.waiting.len(),
                bytes: self.waiting_bytes,
            });
        }
        self.waiting_bytes = bytes;
        let mut effects = vec![report(&id, Status::Queued, None)];
        self.waiting.push_back((id, text));
        self.advance(now, &mut effects);
        Ok(effects)
    }

    /// A first prompt that the agent was started with: it is on its way without being typed.
    pub fn given(&mut self, id: String, text: String, now: Moment) -> Vec<Effect> {
        let effects = vec![report(&id, Status::Delivered, None)];
        self.current = Some(Current {
            id,
            text,
            phase: Phase::Entered {
                since: now,
                last: now,
                tries: ENTER_TRIES,
                sign: None,
            },
            again: true,
        });
        effects
    }

    /// Prompts that wait; the one at work is not among them.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The prompt that is being delivered or worked on.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.id.as_str())
    }

    /// Interrupts the turn or leaves the dialog; the keys are not repeated within the rules' gap.
    pub fn interrupt(&mut self, now: Moment) -> Vec<Effect> {
        let too_soon = self
            .interrupted_at
            .is_some_and(|last| now.saturating_sub(last) < self.rules.interrupt_gap);
        let keys = match self.view.activity {
            _ if too_soon => return Vec::new(),
            Activity::Working => self.rules.interrupt,
            Activity::Dialog => self.rules.leave_dialog,
            Activity::Starting | Activity::Idle => return Vec::new(),
        };
        self.interrupted_at = Some(now);
        if let Some(Current {
            phase: Phase::Turn {
                interrupt_asked, ..
            },
            ..
        }) = &mut self.current
        {
            *interrupt_asked = true;
        }
        vec![Effect::Write(keys.to_vec())]
    }

    /// Tells what happened and gets what to do.
    pub fn on(&mut self, event: &Event<'_>, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::View(view) => {
                self.view = *view;
                self.idle_since = match view.activity {
                    Activity::Idle => self.idle_since.or(Some(now)),
                    _ => None,
                };
                if view.activity == Activity::Working {
                    self.human.submitted = None;
                }
            }
            Event::HumanKey { leaves_draft } => {
                self.human.last_key = Some(now);
                self.human.draft = *leaves_draft;
                self.give_way(&mut effects);
            }
            Event::HumanSubmitted => self.human.submitted = Some(now),
            Event::Gone { returns, reason } => self.gone(*returns, reason, &mut effects),
            _ => {}
        }
        self.step(event, now, &mut effects);
        self.advance(now, &mut effects);
        effects
    }

    fn gone(&mut self, returns: bool, reason: &str, effects: &mut Vec<Effect>) {
        self.view = View {
            activity: Activity::Starting,
            bracketed_paste: false,
        };
        self.idle_since = None;
        self.human = Human::default();
        self.leftover = 0;
        let mut lost: Vec<String> = self
            .current
            .take()
            .map(|current| current.id)
            .into_iter()
            .collect();
        if !returns {
            lost.extend(self.waiting.drain(..).map(|(id, _)| id));
            self.waiting_bytes = 0;
        }
        effects.extend(lost.iter().map(|id| {
            report(
                id,
                Status::Failed,
                Some(format!("the agent ended: {reason}")),
            )
        }));
    }

    /// A person types while the input box is only being cleared: the prompt waits again, and longer.
    fn give_way(&mut self, effects: &mut Vec<Effect>) {
        match self.current.take() {
            // Said to be delivered, and not to be said so again.
            Some(Current {
                id,
                phase: Phase::Clearing { .. },
                again: true,
                ..
            }) => effects.push(report(&id, Status::Failed, Some(untaken()))),
            Some(Current {
                id,
                text,
                phase: Phase::Clearing { .. },
                again: false,
            }) => {
                effects.push(Effect::Untyped { id: id.clone() });
                self.waiting_bytes += text.len();
                self.waiting.push_front((id, text));
            }
            current => self.current = current,
        }
    }

    /// Begins with the next prompt if it may.
    fn advance(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.current.is_some() || !self.may_type(now) {
            return;
        }
        let Some((id, text)) = self.waiting.pop_front() else {
            return;
        };
        self.waiting_bytes -= text.len();
        effects.push(Effect::Typing { id: id.clone() });
        // How many lines a draft has is not known; a usual one has one.
        let draft = usize::from(std::mem::take(&mut self.human.draft));
        let keys = clear(&self.rules, std::mem::take(&mut self.leftover).max(draft));
        let phase = if keys.is_empty() {
            self.begin_paste(&text, now, effects)
        } else {
            effects.push(Effect::Write(keys));
            Phase::Clearing {
                since: now,
                taken: None,
            }
        };
        self.current = Some(Current {
            id,
            text,
            phase,
            again: false,
        });
    }

    fn may_type(&self, now: Moment) -> bool {
        self.takes_text() && self.human_quiet_at().is_none_or(|quiet| now >= quiet)
    }

    /// The agent is idle at its input box.
    fn takes_text(&self) -> bool {
        self.view.activity == Activity::Idle
            && (self.view.bracketed_paste || !self.rules.paste_required)
    }

    /// When a person who typed counts as gone.
    fn human_quiet_at(&self) -> Option<Moment> {
        let patience = if self.human.draft {
            DRAFT_PATIENCE
        } else {
            HUMAN_QUIET
        };
        let typed = self.human.last_key.map(|last| last + patience);
        typed.max(self.human.submitted.map(|at| at + HUMAN_TURN))
    }

    /// When to send [`Event::Tick`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Moment> {
        let Some(current) = &self.current else {
            let waits = !self.waiting.is_empty() && self.takes_text();
            return waits.then(|| self.human_quiet_at()).flatten();
        };
        match &current.phase {
            Phase::Clearing { since, taken } => Some(match taken {
                Some(at) => *at + CLEAR_DELAY,
                None => *since + WRITE_DEADLINE,
            }),
            Phase::Pasting { since, .. } => Some(*since + WRITE_DEADLINE),
            Phase::Settling { since } => {
                (self.view.activity != Activity::Dialog).then_some(*since + ECHO_DEADLINE)
            }
            Phase::Entered {
                since,
                last,
                tries,
                sign,
            } => {
                let local = current.text.trim_start().starts_with(self.rules.local);
                match sign {
                    Some(at) => Some(*at + SIGN_DELAY),
                    None if self.view.activity == Activity::Starting => None,
                    None if local => Some(*since + LOCAL_DELAY),
                    None if self.enter_again(local, *tries) => {
                        Some((*last + ENTER_GAP * *tries).min(*since + TAKEN_DEADLINE))
                    }
                    None if !current.again && self.takes_text() => {
                        let quiet = self.human_quiet_at().unwrap_or(Moment::ZERO);
                        Some((*since + RETYPE).max(quiet).min(*since + TAKEN_DEADLINE))
                    }
                    None => Some(*since + TAKEN_DEADLINE),
                }
            }
            Phase::Turn {
                since,
                seen_working,
                ..
            } => self.idle_since.map(|idle| {
                let heard = if *seen_working {
                    Moment::ZERO
                } else {
                    *since + TAKEN_DEADLINE
                };
                heard.max(idle + IDLE_DELAY)
            }),
        }
    }
}

fn report(id: &str, status: Status, reason: Option<String>) -> Effect {
    Effect::Report {
        id: id.to_owned(),
        status,
        reason,
    }
}

fn untaken() -> String {
    "the agent did not take it up".to_owned()
}

/// Keys that delete so many lines from the input box.
fn clear(rules: &PromptRules, lines: usize) -> Vec<u8> {
    rules.clear_line.repeat(2 * lines.min(MAX_CLEARED))
}
