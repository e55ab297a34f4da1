//! The hooks of one session, folded: is a turn open, which tools run, which dialog waits.
//!
//! Each hook is a process of its own, so they may arrive out of order, twice, or not at all; dates decide, and what
//! ended stays ended. At most [`MAX_OPEN`] tools and subagents are followed; beyond, the oldest is given up.

use std::collections::{BTreeMap, VecDeque};

use whim_wire::state::Dialog;

use crate::state::moment::Moment;
use crate::state::observation::Hook;

use super::timers::{Dated, advance, update};

const MAX_OPEN: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) name: String,
    pub(super) detail: Option<String>,
    pub(super) since: Moment,
    subagent: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) dialog: Dialog,
    /// The tool that waits for the answer, where it could be told.
    tool: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// Newest hook of the main agent that means work.
    pub(super) opened: Option<Moment>,
    /// Newest hook that means the end of a turn.
    pub(super) closed: Option<Moment>,
    pub(super) ready: Option<Moment>,
    pub(super) tools: BTreeMap<String, Tool>,
    ended: VecDeque<String>,
    pub(super) subagents: BTreeMap<String, Moment>,
    pub(super) dialog: Option<Dated<Asked>>,
    /// A dialog of which only the reminder came.
    pub(super) reminded: Option<Moment>,
    /// A tool reported that it was interrupted.
    pub(super) interrupted: Option<Moment>,
    /// A tool ended by itself.
    pub(super) tool_done: Option<Moment>,
    /// The newest hook of any kind.
    pub(super) last: Option<Moment>,
    /// The newest end of a tool or subagent.
    pub(super) step_ended: Option<Moment>,
    /// Dialogs until then are over, whatever is delivered late.
    pub(super) dialogs_over: Option<Moment>,
}

impl Hooks {
    pub(super) fn observe(&mut self, at: Moment, hook: &Hook) {
        match hook {
            // Says that the agent is up, not that nothing goes on: a compaction in mid-turn starts a session too.
            Hook::SessionStarted => advance(&mut self.ready, at),
            Hook::PromptSubmitted => {
                // An interrupted turn leaves tools without an end.
                self.tools
                    .retain(|_, tool| tool.subagent.is_some() || tool.since > at);
                self.dialog_over(at);
                advance(&mut self.opened, at);
            }
            Hook::ToolStarted {
                id,
                name,
                detail,
                subagent,
            } => self.tool_started(at, id, name, detail.as_ref(), subagent.as_ref()),
            Hook::ToolEnded { id, interrupted } => self.tool_ended(at, id, *interrupted),
            Hook::DialogOpened {
                dialog,
                tool,
                detail,
            } => {
                let asks = self.asking(tool.as_deref(), detail.as_deref());
                if let Some(open) = &mut self.dialog
                    && open.value.dialog.id == dialog.id
                {
                    open.value.dialog = dialog.clone();
                    // A standing signal may have told of it before the hook that knows whose it is.
                    if tool.is_some() && asks.is_some() {
                        open.value.tool = asks;
                    }
                    return;
                }
                let late = asks.is_none() && self.step_ended.is_some_and(|end| end > at);
                if !late && self.dialogs_over.is_none_or(|over| over < at) {
                    let dialog = dialog.clone();
                    let tool = asks;
                    update(&mut self.dialog, at, Asked { dialog, tool });
                }
            }
            Hook::DialogClosed { id } => {
                if self
                    .dialog
                    .as_ref()
                    .is_some_and(|open| open.value.dialog.id == *id)
                {
                    self.dialog_over(at);
                }
            }
            Hook::DialogReminder => {
                if self.dialogs_over.is_none_or(|over| over < at) {
                    advance(&mut self.reminded, at);
                }
                // The person's absence is no progress.
                return;
            }
            Hook::SubagentStarted { id } => {
                if !self.ended.contains(id) {
                    self.subagents.entry(id.clone()).or_insert(at);
                    drop_oldest(&mut self.subagents, |since| *since);
                }
            }
            Hook::SubagentStopped { id } => {
                self.subagents.remove(id);
                self.tools
                    .retain(|_, tool| tool.subagent.as_ref() != Some(id));
                self.bury(id);
                advance(&mut self.step_ended, at);
            }
            Hook::Compacting => advance(&mut self.opened, at),
            Hook::Stopped | Hook::IdleReminder => self.turn_over(at, false),
            Hook::Interrupted => {
                self.turn_over(at, false);
                advance(&mut self.interrupted, at);
            }
            Hook::SessionEnded => self.turn_over(at, true),
        }
        advance(&mut self.last, at);
    }

    /// The open tool that asks: of those that match what is known of it, the newest.
    fn asking(&self, name: Option<&str>, detail: Option<&str>) -> Option<String> {
        let open = self.tools.iter().filter(|(_, tool)| {
            name.is_none_or(|name| tool.name == name)
                && detail.is_none_or(|detail| tool.detail.as_deref() == Some(detail))
        });
        open.max_by_key(|(_, tool)| tool.since)
            .map(|(id, _)| id.clone())
    }

    fn tool_started(
        &mut self,
        at: Moment,
        id: &str,
        name: &str,
        detail: Option<&String>,
        subagent: Option<&String>,
    ) {
        let late = subagent.is_none() && self.closed.is_some_and(|end| at <= end);
        if late || self.ended.iter().any(|ended| ended == id) || self.tools.contains_key(id) {
            return;
        }
        let tool = Tool {
            name: name.to_owned(),
            detail: detail.cloned(),
            since: at,
            subagent: subagent.cloned(),
        };
        self.tools.insert(id.to_owned(), tool);
        drop_oldest(&mut self.tools, |tool| tool.since);
        if subagent.is_none() {
            advance(&mut self.opened, at);
        }
    }

    fn tool_ended(&mut self, at: Moment, id: &str, interrupted: bool) {
        self.tools.remove(id);
        self.bury(id);
        advance(&mut self.step_ended, at);
        if interrupted {
            advance(&mut self.interrupted, at);
        } else {
            advance(&mut self.tool_done, at);
        }
        if let Some(asked) = &self.dialog
            && asked.value.tool.as_deref().is_none_or(|tool| tool == id)
        {
            self.dialog_over(at);
        }
    }

    fn turn_over(&mut self, at: Moment, all: bool) {
        self.tools
            .retain(|_, tool| tool.since > at || (!all && tool.subagent.is_some()));
        if all {
            self.subagents.clear();
        }
        self.dialog_over(at);
        advance(&mut self.closed, at);
    }

    fn dialog_over(&mut self, at: Moment) {
        advance(&mut self.dialogs_over, at);
        if self.dialog.as_ref().is_some_and(|asked| asked.at <= at) {
            self.dialog = None;
        }
        if self.reminded.is_some_and(|reminded| reminded <= at) {
            self.reminded = None;
        }
    }

    fn bury(&mut self, id: &str) {
        if !self.ended.iter().any(|ended| ended == id) {
            self.ended.push_back(id.to_owned());
        }
        if self.ended.len() > MAX_OPEN {
            self.ended.pop_front();
        }
    }
}

fn drop_oldest<T>(open: &mut BTreeMap<String, T>, since: impl Fn(&T) -> Moment) {
    if open.len() > MAX_OPEN {
        let oldest = open.iter().min_by_key(|(_, value)| since(value));
        if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
            open.remove(&oldest);
        }
    }
}
