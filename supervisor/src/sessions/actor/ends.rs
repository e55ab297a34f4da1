//! What the session's task does when its agent ends: start it again, or end with it.

use std::time::Duration;

use serde_json::json;
use tokio::sync::oneshot as answer;
use tokio::time::Instant;
use whim_wire::event::kind;
use whim_wire::spec::Mode;

use super::{Actor, End, STOP_GRACE};
use crate::agents::hook::Signal;
use crate::agents::prompt;
use crate::agents::restart::{self, Decision};
use crate::clock::{self, boot_now};
use crate::keeper::Exit;
use crate::sessions::{Evidence, SessionError, launch};
use crate::state::observation::{self, Observation};

/// No agent ends its session of its own accord so soon after its start.
const LATE: Duration = Duration::from_secs(2);

impl Actor {
    /// A session whose end an earlier supervisor saw, and perhaps told nobody.
    pub(super) async fn has_ended(&mut self) {
        self.observe(Observation::Exited {
            exit: self.recorded_exit(),
            note: self.record.ended_because.clone(),
        });
        if launch::is_main(&self.record.id) {
            let end = self.record.end.unwrap_or(End::Well);
            drop(self.ground.ended.send((self.record.id.clone(), end)).await);
        }
    }

    pub(super) async fn exited(&mut self, exit: Exit) {
        let Some(running) = self.running.take() else {
            return;
        };
        let code = i32::from(exit.code());
        self.record.exit = Some(code);
        // Ended with the container, not by itself: after a restart of the container the session goes on.
        let with_container = self.ground.keeper.stopping().borrow().is_some();
        let decision =
            if with_container || (self.record.mode == Mode::Oneshot && !self.record.ended) {
                None
            } else if self.record.restarting && !self.record.ended {
                Some(Decision::Restart {
                    after: Duration::ZERO,
                    resume: self.record.agent_session_id.is_some(),
                    reason: "restarted, to load its configuration anew".into(),
                })
            } else {
                Some(self.decide(exit))
            };
        let result = running.close(exit).await;
        self.note(
            kind::SESSION_EXITED,
            json!({"exit": code, "how": exit.to_string()}),
        );
        if with_container || self.ground.keeper.stopping().borrow().is_some() {
            self.observe(Observation::Exited {
                exit: observed(exit),
                note: Some("the container ends".into()),
            });
            self.save();
            return;
        }
        let Some(decision) = decision else {
            return self.oneshot_ended(exit, result.outcome).await;
        };
        match decision {
            Decision::Stopped { reason } if self.record.ended || exit.success() => {
                self.ended(exit, &reason, End::Well).await
            }
            Decision::Stopped { reason } => self.give_up(&reason).await,
            Decision::Restart {
                after,
                resume,
                reason,
            } => {
                if !resume {
                    self.record.agent_session_id = None;
                }
                self.observe(Observation::Exited {
                    exit: observed(exit),
                    note: Some(reason.clone()),
                });
                self.note(
                    kind::SESSION_RESTARTED,
                    json!({"reason": reason, "resume": resume}),
                );
                self.writing = None;
                self.deliver(&prompt::Event::Gone {
                    returns: true,
                    reason: &reason,
                });
                self.restart_at = Some(Instant::now() + after);
                self.save();
            }
        }
    }

    /// A deadline has come: the queue's, or that of a restart.
    pub(super) async fn due(&mut self) {
        self.deliver(&prompt::Event::Tick);
        if self.restart_at.is_some_and(|at| at <= Instant::now()) {
            self.restart_at = None;
            let started = self.start(false).await;
            for answer in self.restarted.drain(..) {
                let outcome = match &started {
                    Ok(()) => Ok(()),
                    Err(error) => Err(SessionError::Start(error.to_string())),
                };
                // Whoever asked may have given up waiting.
                drop(answer.send(outcome));
            }
            if let Err(error) = started {
                self.give_up(&format!("it could not be started again: {error}"))
                    .await;
            }
        }
    }

    /// Ends the agent to start it again. The intention is on disk before: the next supervisor takes its end for what it is.
    pub(super) async fn restart(&mut self, answer: answer::Sender<Result<(), SessionError>>) {
        // Whoever asked may have given up waiting.
        if self.record.mode == Mode::Oneshot {
            let why = "a oneshot session is one run: it cannot be restarted";
            drop(answer.send(Err(SessionError::Invalid(why.into()))));
            return;
        }
        if self.running.is_none() && self.restart_at.is_none() {
            drop(answer.send(Err(SessionError::NotRunning(self.record.id.clone()))));
            return;
        }
        self.restarted.push(answer);
        // One that crashed comes back anyway, and with all that is new.
        if self.running.is_none() {
            return;
        }
        self.record.restarting = true;
        self.save();
        let ended = match &self.running {
            Some(running) => running.process().end(STOP_GRACE).await,
            None => Ok(()),
        };
        if let Err(error) = ended {
            self.record.restarting = false;
            self.save();
            for answer in self.restarted.drain(..) {
                drop(answer.send(Err(SessionError::Start(error.to_string()))));
            }
        }
    }

    /// Whether a hook was told by the run before and delivered late: an agent that is ended to be started again says that
    /// its session ends, which would make the one that starts look ready.
    pub(super) fn is_of_the_run_before(&self, evidence: &Evidence) -> bool {
        let Evidence::Hook { at, event } = evidence else {
            return false;
        };
        let ends = matches!(event.signal, Signal::SessionEnded { .. });
        let early = ends && self.record.mode != Mode::Oneshot && *at < self.began + LATE;
        self.running.is_some() && (*at < self.began || early)
    }

    /// Whether there is something to resume: an agent that was never asked anything has written no transcript, and most
    /// refuse to resume what is not there.
    pub(super) async fn has_conversation(&self) -> bool {
        match &self.record.transcript {
            Some(path) => self.ground.helper.stat(path).await.is_ok(),
            // It never said where: then what it was asked decides.
            None => self.record.prompts.any_reached(),
        }
    }

    /// What follows the end of the agent. Counted on disk before the keeper forgets the process: a supervisor that dies
    /// between the two counts it once more, never once less.
    fn decide(&mut self, exit: Exit) -> Decision {
        let resumable = self.record.agent_session_id.is_some();
        let now = boot_now().since_boot();
        let decision = self.restarts.ended(
            ending(exit),
            self.record.ended,
            self.began.since_boot(),
            resumable,
            now,
        );
        self.record.restarts = self.restarts.remember(now, clock::now());
        self.save();
        decision
    }

    async fn oneshot_ended(
        &mut self,
        exit: Exit,
        outcome: Option<crate::agents::oneshot::Outcome>,
    ) {
        let outcome = outcome.unwrap_or_default();
        let refused = self.ground.spending.was_refused(&self.record.id);
        let code = outcome.exit_code(ending(exit), refused);
        if let Some(id) = &outcome.agent_session {
            self.record.agent_session_id = Some(id.clone());
        }
        if launch::is_main(&self.record.id) {
            if let Some(text) = &outcome.text {
                print(text);
            }
            if let Some(error) = &outcome.error {
                tracing::error!(error, "the agent failed");
            }
        }
        let end = match (code, exit) {
            (crate::agents::oneshot::BUDGET_EXIT, _) if refused => End::BudgetSpent,
            (_, Exit::Signal(_)) => End::Exit(exit),
            (code, Exit::Code(_)) => End::Exit(Exit::Code(code)),
        };
        self.ended(exit, "the run is over", end).await;
    }

    pub(super) async fn give_up(&mut self, reason: &str) {
        self.observe(Observation::Exited {
            exit: self.recorded_exit(),
            note: Some(reason.to_owned()),
        });
        self.record.ended_because = Some(reason.to_owned());
        self.finish(End::GaveUp).await;
    }

    /// The end of the last run, as a shell shows it.
    pub(super) fn recorded_exit(&self) -> observation::Exit {
        let exit = self.record.exit.unwrap_or(127);
        observation::Exit::Code(u8::try_from(exit).unwrap_or(u8::MAX))
    }

    async fn ended(&mut self, exit: Exit, note: &str, end: End) {
        self.observe(Observation::Exited {
            exit: observed(exit),
            note: Some(note.to_owned()),
        });
        self.record.ended_because = Some(note.to_owned());
        self.finish(end).await;
    }

    pub(super) async fn finish(&mut self, end: End) {
        self.record.ended = true;
        self.record.restarting = false;
        for answer in self.restarted.drain(..) {
            let ended = SessionError::NotRunning(self.record.id.clone());
            drop(answer.send(Err(ended)));
        }
        self.record.end = Some(end);
        self.ground.spending.dismiss(&self.record.id);
        self.writing = None;
        if matches!(end, End::Well | End::Exit(Exit::Code(0))) {
            self.deliver(&prompt::Event::TurnEnded { failed: false });
        }
        self.deliver(&prompt::Event::Gone {
            returns: false,
            reason: "the session ended",
        });
        self.save();
        self.judge();
        // Sent once a session; the receiver is gone only when the container ends anyway.
        drop(self.ground.ended.send((self.record.id.clone(), end)).await);
    }
}

fn ending(exit: Exit) -> restart::Exit {
    match exit {
        Exit::Code(code) => restart::Exit::Code(code),
        Exit::Signal(signal) => restart::Exit::Signal(signal),
    }
}

/// The agent's final text, on our own standard output.
fn print(text: &str) {
    use std::io::Write;
    let mut output = std::io::stdout().lock();
    // Whoever closed it does not want it.
    drop(writeln!(output, "{text}").and_then(|()| output.flush()));
}

fn observed(exit: Exit) -> observation::Exit {
    match exit {
        Exit::Code(code) => observation::Exit::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        Exit::Signal(signal) => observation::Exit::Signal(signal),
    }
}
