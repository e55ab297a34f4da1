//! Evidence about a session, from its sources' words into those of the fusion.
//!
//! [`Sources`] also keeps the dialog that is open, because its text, options and keys come from several of them.

use std::time::Duration;

use whim_wire::state::Dialog;

use crate::agents::hook::{HookEvent, Signal, Tool};
use crate::agents::observe::dialog::{AnswerError, Dialogs, ScreenDialog, read_screen};
use crate::agents::observe::escape::{CodexState, Sign};
use crate::agents::observe::session_file::{SessionFile, Status};
use crate::agents::observe::transcript::Record;
use crate::clock::boot_now;
use crate::state::moment::Moment;
use crate::state::observation::{Hook, Observation, Osc, Title, Word};
use crate::terminals::Typed;

/// Something that a source saw.
#[derive(Debug)]
pub enum Evidence {
    /// Already in the fusion's words (the wire, the process tree, the terminal).
    Seen {
        at: Moment,
        observation: Observation,
    },
    Hook {
        at: Moment,
        event: Box<HookEvent>,
    },
    /// Claude Code's session file; `None`: gone or not readable.
    File {
        at: Moment,
        file: Option<SessionFile>,
    },
    /// An escape sequence in the terminal's output.
    Sign {
        at: Moment,
        sign: Sign,
    },
    /// A record of the agent's transcript; `at`: when the agent wrote it.
    Record {
        at: Moment,
        record: Record,
    },
    /// Keys reached the terminal.
    Typed(Typed),
    /// A dialog of the agent's start is the person's; `None`: it is gone.
    Startup(Option<String>),
    /// The lines of the screen, while a dialog is open.
    Screen(Vec<String>),
}

impl Evidence {
    /// Seen just now.
    #[must_use]
    pub fn now(observation: Observation) -> Self {
        Self::Seen {
            at: boot_now(),
            observation,
        }
    }
}

/// What a piece of evidence comes to.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) observations: Vec<(Moment, Observation)>,
    /// What the agent calls its session.
    pub(super) agent_session: Option<String>,
}

/// The translation, with what it must remember.
#[derive(Debug)]
pub(super) struct Sources {
    dialogs: Dialogs,
    /// When the open dialog was told of.
    opened: Moment,
}

impl Sources {
    pub(super) fn new() -> Self {
        // Ids of dialogs must differ between supervisors.
        Self {
            dialogs: Dialogs::new(format!("d{}-", boot_now().since_boot().as_millis())),
            opened: Moment::default(),
        }
    }

    /// The open dialog, as well as it is known.
    pub(super) fn dialog(&self) -> Option<&Dialog> {
        self.dialogs.current()
    }

    /// How long the open dialog has been known.
    pub(super) fn dialog_age(&self) -> Duration {
        boot_now() - self.opened
    }

    /// The keys that answer the open dialog.
    pub(super) fn keys(&self, id: &str, option: usize) -> Result<Vec<u8>, AnswerError> {
        self.dialogs.answer(id, option)
    }

    /// Whether the screen shows the open dialog as far as that option.
    pub(super) fn shown_by(&self, screen: &ScreenDialog, option: usize) -> bool {
        self.dialogs.shown_by(screen, option)
    }

    pub(super) fn read(&mut self, evidence: Evidence) -> Reading {
        let before = self.dialogs.current().map(|dialog| dialog.id.clone());
        let mut reading = Reading::default();
        let mut closed = false;
        let asked = match &evidence {
            Evidence::Hook { event, .. } => match &event.signal {
                Signal::PermissionAsked(tool) => Some(tool.clone()),
                _ => None,
            },
            _ => None,
        };
        let at = match evidence {
            Evidence::Seen { at, observation } => {
                reading.observations.push((at, observation));
                return reading;
            }
            Evidence::Hook { at, event } => {
                self.dialogs.hook(&event);
                // A subagent's session id is not the session's.
                reading.agent_session = if event.subagent.is_none() {
                    event.agent_session.clone()
                } else {
                    None
                };
                reading
                    .observations
                    .extend(hook(*event).map(|hook| (at, Observation::Hook(hook))));
                at
            }
            Evidence::File { at, file } => {
                let Some(file) = file else {
                    reading.observations.push((at, Observation::WordGone));
                    return reading;
                };
                if let Some(status) = &file.status {
                    self.dialogs.status(status);
                }
                // A word of a later version is none: the other sources must do.
                let said = word(&file).map_or(Observation::WordGone, Observation::Word);
                reading.observations.push((said_at(&file, at), said));
                reading.agent_session = file.agent_session;
                at
            }
            Evidence::Sign { at, sign } => {
                if let Sign::Codex(state) = sign {
                    self.dialogs.codex(state);
                }
                reading
                    .observations
                    .extend(seen(&sign).map(|observation| (at, observation)));
                at
            }
            Evidence::Record { at, record } => {
                self.dialogs.record(&record);
                match record {
                    Record::Interrupted => reading
                        .observations
                        .push((at, Observation::Hook(Hook::Interrupted))),
                    Record::Answered { .. } => closed = true,
                    // Told below, with all that is known of it.
                    Record::Asked { .. } => {}
                }
                at
            }
            // What keys mean depends on the agent: see the session's task.
            Evidence::Typed(_) => return reading,
            Evidence::Startup(text) => {
                closed = text.is_none();
                self.dialogs.startup(text.as_deref());
                boot_now()
            }
            Evidence::Screen(lines) => {
                let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
                if let Some(screen) = read_screen(&lines) {
                    self.dialogs.screen(&screen);
                }
                boot_now()
            }
        };
        // Over only if nothing else is open in its place.
        if let (true, Some(id), None) = (closed, &before, self.dialogs.current()) {
            let closed = Hook::DialogClosed { id: id.clone() };
            reading.observations.push((at, Observation::Hook(closed)));
        }
        let another = |dialog: &Dialog| before.as_ref() != Some(&dialog.id);
        if let Some(dialog) = self.dialogs.current()
            && (another(dialog) || asked.is_some())
        {
            if another(dialog) {
                self.opened = boot_now();
            }
            let opened = Hook::DialogOpened {
                dialog: dialog.clone(),
                tool: asked.as_ref().map(|tool| tool.name.clone()),
                detail: asked.as_ref().and_then(detail),
            };
            // In place of the hook that opened it, which knew less.
            reading.observations.retain(|(_, known)| {
                !matches!(known, Observation::Hook(Hook::DialogOpened { .. }))
            });
            reading.observations.push((at, Observation::Hook(opened)));
        }
        reading
    }
}

fn hook(event: HookEvent) -> Option<Hook> {
    let HookEvent {
        subagent, signal, ..
    } = event;
    let inside = subagent.is_some();
    Some(match signal {
        Signal::ToolStarted(tool) => Hook::ToolStarted {
            id: id(&tool),
            name: tool.name.clone(),
            detail: detail(&tool),
            subagent,
        },
        Signal::ToolEnded {
            tool,
            failed: _,
            interrupted,
        } => Hook::ToolEnded {
            id: id(&tool),
            interrupted,
        },
        Signal::Notified { kind, .. } => match kind.as_str() {
            "permission_prompt" | "elicitation_dialog" => Hook::DialogReminder,
            "idle_prompt" => Hook::IdleReminder,
            _ => return None,
        },
        Signal::SubagentStarted => Hook::SubagentStarted {
            id: subagent.unwrap_or_default(),
        },
        Signal::SubagentEnded => Hook::SubagentStopped {
            id: subagent.unwrap_or_default(),
        },
        Signal::Compacting => Hook::Compacting,
        _ if inside => return None,
        Signal::SessionStarted { .. } => Hook::SessionStarted,
        Signal::PromptSubmitted { .. } => Hook::PromptSubmitted,
        Signal::TurnEnded { .. } => Hook::Stopped,
        Signal::Interrupted => Hook::Interrupted,
        Signal::SessionEnded { .. } => Hook::SessionEnded,
        // Dialogs are told by `Sources::read`, with all that is known of them.
        Signal::PermissionAsked(_) | Signal::QuestionAsked { .. } | Signal::Other => return None,
    })
}

/// Agents that give no id have one tool of a name at a time.
fn id(tool: &Tool) -> String {
    tool.id.clone().unwrap_or_else(|| tool.name.clone())
}

fn detail(tool: &Tool) -> Option<String> {
    (!tool.detail.is_empty()).then(|| tool.detail.clone())
}

/// When the agent wrote its word; the file is read a little later.
fn said_at(file: &SessionFile, read: Moment) -> Moment {
    let since = file.since_ms.and_then(|since| i64::try_from(since).ok());
    let since = since.and_then(|since| jiff::Timestamp::from_millisecond(since).ok());
    since.map_or(read, |since| {
        crate::state::clock::moment(since, read, jiff::Timestamp::now())
    })
}

fn word(file: &SessionFile) -> Option<Word> {
    Some(match file.status.as_ref()? {
        Status::Busy => Word::Busy,
        Status::Idle => Word::Idle,
        Status::Shell => Word::Shell,
        Status::Waiting(what) => Word::Waiting {
            waiting_for: Some(what.clone()),
        },
        Status::Other(_) => return None,
    })
}

fn seen(sign: &Sign) -> Option<Observation> {
    Some(match sign {
        Sign::Codex(state) => Observation::Osc(match state {
            CodexState::Working => Osc::Working,
            CodexState::Idle => Osc::Idle,
            CodexState::Done => Osc::Done,
            CodexState::Blocked => Osc::Blocked,
            CodexState::Clear => Osc::Clear,
        }),
        Sign::Title {
            working: Some(working),
            ..
        }
        | Sign::Progress { working } => Observation::Title(if *working {
            Title::Spinning
        } else {
            Title::Resting
        }),
        Sign::Title { working: None, .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::observe::transcript::entry;
    use whim_wire::spec::AgentKind;

    fn read(sources: &mut Sources, line: &str) -> Vec<Observation> {
        let record = entry(AgentKind::Copilot, line.as_bytes()).unwrap().record;
        let at = boot_now();
        let reading = sources.read(Evidence::Record { at, record });
        assert!(reading.observations.iter().all(|(dated, _)| *dated == at));
        reading
            .observations
            .into_iter()
            .map(|(_, observation)| observation)
            .collect()
    }

    #[test]
    fn copilots_records_open_and_close_its_dialogs() {
        let mut sources = Sources::new();
        let asked = read(
            &mut sources,
            r#"{"type":"permission.requested","data":{"requestId":"r1","permissionRequest":{"kind":"shell","fullCommandText":"make"}}}"#,
        );
        let [Observation::Hook(Hook::DialogOpened { dialog, .. })] = &asked[..] else {
            panic!("{asked:?}");
        };
        assert_eq!(dialog.text, "Run: make");
        let other = read(
            &mut sources,
            r#"{"type":"permission.completed","data":{"requestId":"r0"}}"#,
        );
        assert_eq!(other, [], "another request's answer closes nothing");
        let answered = read(
            &mut sources,
            r#"{"type":"permission.completed","data":{"requestId":"r1"}}"#,
        );
        let id = dialog.id.clone();
        assert_eq!(answered, [Observation::Hook(Hook::DialogClosed { id })]);
        assert!(sources.dialog().is_none());
    }

    #[test]
    fn copilots_abort_is_an_interrupt() {
        let seen = read(
            &mut Sources::new(),
            r#"{"type":"abort","data":{"reason":"user_abort"}}"#,
        );
        assert_eq!(seen, [Observation::Hook(Hook::Interrupted)]);
    }
}
