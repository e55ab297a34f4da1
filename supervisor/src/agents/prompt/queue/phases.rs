//! The current prompt, from the cleared input box to the end of its turn: one method per phase.

use super::super::super::hook::MAX_TEXT;
use super::super::{Activity, Effect, Event, Moment, Status, paste};
use super::*;

impl Queue {
    /// The current prompt's next step.
    pub(super) fn step(&mut self, event: &Event<'_>, now: Moment, effects: &mut Vec<Effect>) {
        let Some(mut current) = self.current.take() else {
            return;
        };
        let next = match current.phase {
            Phase::Clearing { since, mut taken } => {
                if matches!(event, Event::Written) {
                    taken = taken.or(Some(now));
                }
                if taken.is_some_and(|at| now >= at + CLEAR_DELAY) {
                    Some(self.begin_paste(&current.text, now, effects))
                } else if taken.is_none() && now >= since + WRITE_DEADLINE {
                    effects.push(report(&current.id, Status::Failed, Some(stuck())));
                    None
                } else {
                    Some(Phase::Clearing { since, taken })
                }
            }
            Phase::Pasting { bytes, sent, since } => {
                self.pasting(&current.id, bytes, sent, since, event, now, effects)
            }
            Phase::Settling { since } => {
                let reacted = matches!(event, Event::Output);
                let ready = reacted || now >= since + ECHO_DEADLINE;
                // A dialog that came up meanwhile would take Enter as "yes".
                if ready && self.view.activity != Activity::Dialog {
                    effects.push(Effect::Write(b"\r".to_vec()));
                    effects.push(if current.again {
                        let id = current.id.clone();
                        Effect::Untyped { id }
                    } else {
                        report(&current.id, Status::Delivered, None)
                    });
                    // Enters whatever else came into the box meanwhile.
                    self.human.draft = false;
                    Some(Phase::Entered {
                        since: now,
                        last: now,
                        tries: 1,
                        sign: None,
                    })
                } else {
                    Some(Phase::Settling { since })
                }
            }
            Phase::Entered {
                since,
                last,
                tries,
                sign,
            } => self.entered(
                &current.id,
                &current.text,
                (since, last, tries, sign),
                event,
                now,
                effects,
            ),
            Phase::Turn {
                since,
                seen_working,
                interrupt_asked,
                heard,
            } => self.turn(
                &current.id,
                (since, seen_working, interrupt_asked, heard),
                event,
                now,
                effects,
            ),
        };
        let next = match next {
            Some(Phase::Entered {
                since,
                tries,
                sign: None,
                ..
            }) if !current.again && self.is_lost(&current.text, tries, since, now) => {
                current.again = true;
                let id = current.id.clone();
                effects.push(Effect::Typing { id });
                Some(self.retype(&current.text, now, effects))
            }
            next => next,
        };
        if let Some(phase) = next {
            current.phase = phase;
            self.current = Some(current);
        } else if let Some(Effect::Report {
            status: Status::Interrupted,
            ..
        }) = effects.last()
        {
            self.leftover = current.text.lines().count();
        }
    }

    /// Nothing at all came of it, and the input box waits.
    fn is_lost(&self, text: &str, tries: u32, since: Moment, now: Moment) -> bool {
        let local = text.trim_start().starts_with(self.rules.local);
        !local && !self.enter_again(local, tries) && now >= since + RETYPE && self.may_type(now)
    }

    /// Types it once more, in a box that is cleared of what may be left of it.
    fn retype(&self, text: &str, now: Moment, effects: &mut Vec<Effect>) -> Phase {
        let keys = clear(&self.rules, text.lines().count().max(1));
        if keys.is_empty() {
            return self.begin_paste(text, now, effects);
        }
        effects.push(Effect::Write(keys));
        Phase::Clearing {
            since: now,
            taken: None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one phase taken apart")]
    fn pasting(
        &self,
        id: &str,
        bytes: Vec<u8>,
        sent: usize,
        since: Moment,
        event: &Event<'_>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> Option<Phase> {
        if matches!(event, Event::Written) {
            if sent == bytes.len() {
                return Some(Phase::Settling { since: now });
            }
            let end = bytes.len().min(sent + CHUNK);
            let chunk = bytes.get(sent..end).unwrap_or_default().to_vec();
            effects.push(Effect::Write(chunk));
            return Some(Phase::Pasting {
                bytes,
                sent: end,
                since: now,
            });
        }
        if now >= since + WRITE_DEADLINE {
            effects.push(Effect::Write(paste::END.to_vec()));
            effects.push(report(id, Status::Failed, Some(stuck())));
            return None;
        }
        Some(Phase::Pasting { bytes, sent, since })
    }

    fn entered(
        &self,
        id: &str,
        text: &str,
        (mut since, mut last, mut tries, mut sign): (Moment, Moment, u32, Option<Moment>),
        event: &Event<'_>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> Option<Phase> {
        let mut taken = false;
        let local = text.trim_start().starts_with(self.rules.local);
        if self.view.activity == Activity::Starting {
            // The clock begins when the agent can hear.
            (since, last) = (now, now);
        }
        let heard = matches!(event, Event::Submitted(submitted) if same_prompt(text, submitted));
        taken |= heard;
        match event {
            Event::GenerationStarted => sign = sign.or(Some(now)),
            // A command of the agent's own may open a menu: that is no turn.
            Event::View(View {
                activity: Activity::Dialog,
                ..
            }) if local => {}
            Event::View(View {
                activity: Activity::Working | Activity::Dialog,
                ..
            }) => {
                if self.rules.tells_submit {
                    sign = sign.or(Some(now));
                } else {
                    taken = true;
                }
            }
            // The turn can be over before anything else of it was heard.
            Event::TurnEnded { .. } | Event::Interrupted if sign.is_some() => {
                effects.push(report(id, Status::Working, None));
                return self.turn(id, (now, true, false, false), event, now, effects);
            }
            _ => {}
        }
        taken |= sign.is_some_and(|at| now >= at + SIGN_DELAY);
        if taken {
            effects.push(report(id, Status::Working, None));
            return Some(Phase::Turn {
                since: now,
                seen_working: self.view.activity == Activity::Working,
                interrupt_asked: false,
                heard,
            });
        }
        if local && sign.is_none() && now >= since + LOCAL_DELAY {
            effects.push(report(
                id,
                Status::Done,
                Some(if self.view.activity == Activity::Dialog {
                    "a command of the agent's own: it opened a menu in the terminal".into()
                } else {
                    "a command of the agent's own".into()
                }),
            ));
            return None;
        }
        if sign.is_none() && now >= since + TAKEN_DEADLINE {
            effects.push(report(id, Status::Failed, Some(untaken())));
            return None;
        }
        if sign.is_none() && self.enter_again(local, tries) && now >= last + ENTER_GAP * tries {
            effects.push(Effect::Write(b"\r".to_vec()));
            tries += 1;
            last = now;
        }
        Some(Phase::Entered {
            since,
            last,
            tries,
            sign,
        })
    }

    /// Enter may have been swallowed. While the agent is idle no dialog is open, and a second Enter in an empty input
    /// box does nothing.
    pub(super) fn enter_again(&self, local: bool, tries: u32) -> bool {
        self.view.activity == Activity::Idle && !local && tries < ENTER_TRIES
    }

    fn turn(
        &self,
        id: &str,
        (since, mut seen_working, interrupt_asked, mut heard): (Moment, bool, bool, bool),
        event: &Event<'_>,
        now: Moment,
        effects: &mut Vec<Effect>,
    ) -> Option<Phase> {
        heard |= matches!(event, Event::Submitted(_));
        seen_working |= matches!(self.view.activity, Activity::Working | Activity::Dialog);
        let idle = self.idle_since.is_some_and(|idle| {
            now >= idle + IDLE_DELAY && (seen_working || now >= since + TAKEN_DEADLINE)
        });
        let (status, reason) = match event {
            Event::Interrupted => (Status::Interrupted, None),
            Event::TurnEnded { failed: true } => (
                Status::Failed,
                Some("the turn ended with an error".to_owned()),
            ),
            Event::TurnEnded { failed: false } => (Status::Done, None),
            // An interrupt by hand: neither Claude Code nor Copilot runs a hook then.
            _ if idle && (interrupt_asked || heard) => (Status::Interrupted, None),
            _ if idle => (Status::Done, None),
            _ => {
                return Some(Phase::Turn {
                    since,
                    seen_working,
                    interrupt_asked,
                    heard,
                });
            }
        };
        effects.push(report(id, status, reason));
        None
    }

    pub(super) fn begin_paste(&self, text: &str, now: Moment, effects: &mut Vec<Effect>) -> Phase {
        let bytes = paste::encode(text, self.view.bracketed_paste);
        let sent = bytes.len().min(CHUNK);
        effects.push(Effect::Write(
            bytes.get(..sent).unwrap_or_default().to_vec(),
        ));
        Phase::Pasting {
            bytes,
            sent,
            since: now,
        }
    }
}

fn stuck() -> String {
    format!(
        "the terminal took no input for {} s",
        WRITE_DEADLINE.as_secs()
    )
}

/// Whether the agent's hook tells of our prompt. Blanks may differ; a long text was cut on its way.
pub(super) fn same_prompt(ours: &str, submitted: &str) -> bool {
    let joined = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (ours, theirs) = (joined(ours), joined(submitted));
    // The cut is at a character's boundary, at most three bytes early.
    let cut = submitted.len() + 3 >= MAX_TEXT;
    ours == theirs || (cut && ours.starts_with(&theirs)) || theirs.is_empty()
}
