//! The dialog that an agent waits on: what it asks, its options, and the keys that answer it.
//!
//! That there is one is said by the agent's own signals (hooks, session file, OSC 7501, Copilot's transcript); what it
//! looks like is read off the screen, because only there are the options as the person sees them. All CLIs number them
//! (`❯ 1. Yes`), and in all of them the digit alone selects and confirms (Claude Code 2.1.197, Codex 0.169.0, Copilot
//! 1.0.102); only Copilot's questions have no numbers and want arrows. Where the screen cannot be read, Enter takes the
//! first option (yes) and Escape says no.
//!
//! [`Dialogs`] keeps the one that is open and gives it an id that no other one gets. Parallel tool calls ask one after
//! the other, so one is enough.

use std::time::Duration;

use whim_wire::spec::AgentKind;
use whim_wire::state::{Dialog, DialogKind};

use super::super::hook::{HookEvent, Question, Signal, Tool, one_line};
use super::escape::CodexState;
use super::session_file::Status;
use super::transcript::Record;

/// How old a dialog should be before keys answer it: Codex drops those that come with its opening (at 40 ms they were
/// lost, at 100 ms they counted).
pub const ANSWER_AFTER: Duration = Duration::from_millis(250);

/// Lines above the first option that belong to the question, at most.
const MAX_QUESTION_LINES: usize = 14;
/// Lines between two options (a description, a rule), at most.
const MAX_GAP: usize = 4;

/// A dialog as the screen shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScreenDialog {
    pub text: String,
    /// Numbered from 1, in order.
    pub options: Vec<String>,
}

/// Finds the lowest numbered list with a selection mark on the screen. Only of use while the agent is known to wait: a
/// list in the conversation can look the same.
#[must_use]
pub fn read_screen(lines: &[&str]) -> Option<ScreenDialog> {
    let first = lines
        .iter()
        .rposition(|line| option(line).is_some_and(|option| option.number == 1))?;
    let mut options = Vec::new();
    let mut selected = false;
    let mut gap = 0;
    for line in lines.get(first..).unwrap_or_default() {
        match option(line) {
            Some(option) if option.number == options.len() + 1 => {
                selected |= option.selected;
                options.push(option.label);
                gap = 0;
            }
            _ => {
                gap += 1;
                if gap > MAX_GAP {
                    break;
                }
            }
        }
    }
    if !selected || options.len() < 2 {
        return None;
    }
    let mut question: Vec<String> = Vec::new();
    for line in lines.get(..first).unwrap_or_default().iter().rev() {
        let outer = line.trim_start();
        // The frame or the rule above the dialog; Codex has none: there its dialog follows the last step.
        if outer.starts_with(['╭', '─', '•', '›', '❯', '●']) || question.len() == MAX_QUESTION_LINES
        {
            break;
        }
        let text = inside(line);
        if !text.is_empty() {
            question.push(text.to_owned());
        }
    }
    question.reverse();
    Some(ScreenDialog {
        text: question.join("\n"),
        options,
    })
}

impl ScreenDialog {
    /// Whether the two are one list, of which one may be painted only in part: from its top, perhaps with a cut last line.
    fn continues(&self, options: &[String]) -> bool {
        let (short, long) = if options.len() < self.options.len() {
            (options, self.options.as_slice())
        } else {
            (self.options.as_slice(), options)
        };
        let Some((last, whole)) = short.split_last() else {
            return true;
        };
        long.starts_with(whole)
            && long
                .get(whole.len())
                .is_some_and(|option| option.starts_with(last) || last.starts_with(option))
    }
}

struct OptionLine {
    number: usize,
    label: String,
    selected: bool,
}

/// `❯ 1. Yes`, with or without the mark, a frame and trailing blanks.
fn option(line: &str) -> Option<OptionLine> {
    let text = inside(line);
    let unmarked = text.trim_start_matches(['❯', '›', '▶', '>']);
    let selected = unmarked.len() != text.len();
    let (number, label) = unmarked.trim_start().split_once(". ")?;
    if number.is_empty() || number.len() > 2 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(OptionLine {
        number: number.parse().ok()?,
        label: one_line(label, 200),
        selected,
    })
}

/// Without frame characters and blanks at both ends.
fn inside(line: &str) -> &str {
    line.trim_matches(|c: char| c.is_whitespace() || ('\u{2500}'..='\u{257f}').contains(&c))
}

/// Why a dialog cannot be answered this way.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    #[error("no dialog is open")]
    None,
    #[error("dialog {given} is over; open is {open}")]
    Over { given: String, open: String },
    #[error("dialog has {count} options, not an option {given}")]
    NoSuchOption { given: usize, count: usize },
    #[error("it wants more than one choice: answer in the terminal")]
    Several,
}

/// How an option is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    /// By its number.
    Digit,
    /// Down to it, and Enter.
    Arrows,
    /// The options are not known: Enter for the first, Escape for anything else.
    Blind,
}

/// The keys that choose option `index` (from 0).
fn keys(index: usize, count: usize, choice: Choice) -> Result<Vec<u8>, AnswerError> {
    if index >= count {
        return Err(AnswerError::NoSuchOption {
            given: index + 1,
            count,
        });
    }
    match (choice, index) {
        (Choice::Digit, 0..9) => Ok((index + 1).to_string().into_bytes()),
        // Two-digit numbers are no keys.
        (Choice::Digit | Choice::Arrows, _) => {
            let mut keys = b"\x1b[B".repeat(index);
            keys.push(b'\r');
            Ok(keys)
        }
        (Choice::Blind, 0) => Ok(b"\r".to_vec()),
        (Choice::Blind, _) => Ok(b"\x1b".to_vec()),
    }
}

/// The open dialog of one session.
#[derive(Debug)]
pub struct Dialogs {
    /// Distinguishes the dialogs of one supervisor from those of the next.
    prefix: String,
    count: u64,
    open: Option<Open>,
    /// A question that Codex may be about to ask.
    announced: Option<(Tool, Question)>,
}

#[derive(Debug)]
struct Open {
    dialog: Dialog,
    tool: Option<Tool>,
    several: bool,
    choice: Choice,
    /// The agent's standing signal said so, too: its change ends the dialog.
    confirmed: bool,
    /// Only that signal said so, and nothing what it is about.
    standing: bool,
    /// Id in the agent's transcript.
    record: Option<String>,
    /// Of the agent's start: only the screen tells of it, and of its end.
    startup: bool,
}

impl Dialogs {
    /// `prefix` differs between supervisors, so that an id never comes again.
    #[must_use]
    pub fn new(prefix: impl Into<String>) -> Self {
        Self {
            prefix: prefix.into(),
            count: 0,
            open: None,
            announced: None,
        }
    }

    #[must_use]
    pub fn current(&self) -> Option<&Dialog> {
        self.open.as_ref().map(|open| &open.dialog)
    }

    /// A hook's word.
    pub fn hook(&mut self, event: &HookEvent) {
        match &event.signal {
            // Copilot's own record may have told of it already.
            Signal::PermissionAsked(tool)
                if self
                    .open
                    .as_ref()
                    .is_some_and(|open| open.record.is_some() && open.tool.is_none()) =>
            {
                if let Some(open) = &mut self.open {
                    open.tool = Some(tool.clone());
                }
            }
            Signal::PermissionAsked(tool) => {
                let text = if tool.detail.is_empty() {
                    tool.name.clone()
                } else {
                    format!("{}: {}", tool.name, tool.detail)
                };
                self.open(DialogKind::Permission, text, Vec::new());
                if let Some(open) = &mut self.open {
                    open.tool = Some(tool.clone());
                }
            }
            Signal::QuestionAsked { tool, questions } => {
                let Some(question) = questions.first() else {
                    return;
                };
                if event.agent == AgentKind::Codex {
                    self.announced = Some((tool.clone(), question.clone()));
                } else {
                    let choice = match event.agent {
                        AgentKind::Copilot => Choice::Arrows,
                        _ => Choice::Digit,
                    };
                    self.ask(tool, question, questions.len() > 1, choice);
                }
            }
            Signal::Notified { kind, text }
                if kind == "permission_prompt" && self.open.is_none() =>
            {
                self.open(DialogKind::Permission, one_line(text, 1000), Vec::new());
            }
            Signal::Notified { kind, text }
                if kind == "elicitation_dialog" && self.open.is_none() =>
            {
                self.open(DialogKind::Question, one_line(text, 1000), Vec::new());
            }
            Signal::ToolEnded { tool, .. } => {
                // Another tool that ran meanwhile ends nothing.
                let other = self
                    .open
                    .as_ref()
                    .and_then(|open| open.tool.as_ref())
                    .is_some_and(|asked| asked.name != tool.name || asked.detail != tool.detail);
                if !other {
                    self.open = None;
                }
            }
            Signal::SessionStarted { .. }
                if self.open.as_ref().is_some_and(|open| open.startup) => {}
            Signal::PromptSubmitted { .. }
            | Signal::TurnEnded { .. }
            | Signal::Interrupted
            | Signal::SessionStarted { .. }
            | Signal::SessionEnded { .. }
                if event.subagent.is_none() =>
            {
                self.open = None;
                self.announced = None;
            }
            _ => {}
        }
    }

    /// Claude Code's session file.
    pub fn status(&mut self, status: &Status) {
        match status {
            // A menu that the person opened asks nothing of them.
            Status::Waiting(what) if what == "dialog open" => self.standing(false, String::new),
            Status::Waiting(what) => self.standing(true, || format!("Claude Code waits: {what}")),
            Status::Busy | Status::Idle | Status::Shell => self.standing(false, String::new),
            Status::Other(_) => {}
        }
    }

    /// Codex's OSC 7501.
    pub fn codex(&mut self, state: CodexState) {
        if state == CodexState::Blocked
            && self.open.is_none()
            && let Some((tool, question)) = self.announced.take()
        {
            self.ask(&tool, &question, false, Choice::Digit);
        }
        self.standing(state == CodexState::Blocked, || {
            "Codex waits for an answer".into()
        });
    }

    /// A record of Copilot's transcript.
    pub fn record(&mut self, record: &Record) {
        match record {
            Record::Asked {
                id,
                text,
                options,
                question,
            } => {
                let fresh = self.open.as_ref().is_none_or(|open| open.record.is_some());
                if fresh {
                    let kind = if *question {
                        DialogKind::Question
                    } else {
                        DialogKind::Permission
                    };
                    self.open(kind, text.clone(), options.clone());
                }
                if let Some(open) = &mut self.open {
                    open.record = Some(id.clone());
                }
            }
            Record::Answered { id } => {
                if self
                    .open
                    .as_ref()
                    .is_some_and(|open| open.record.as_ref().is_none_or(|known| known == id))
                {
                    self.open = None;
                }
            }
            Record::Interrupted => self.open = None,
        }
    }

    /// A dialog of the agent's start that is the person's; `None`: it is gone.
    pub fn startup(&mut self, text: Option<&str>) {
        match text {
            Some(text) => {
                self.open(DialogKind::Permission, one_line(text, 1000), Vec::new());
                if let Some(open) = &mut self.open {
                    open.startup = true;
                }
            }
            None if self.open.as_ref().is_some_and(|open| open.startup) => self.open = None,
            None => {}
        }
    }

    /// The screen while a dialog is open: its text and options, word for word. Other options are another dialog, unless
    /// they are the same ones painted further: an agent writes its screen in pieces.
    pub fn screen(&mut self, screen: &ScreenDialog) {
        let Some(open) = &mut self.open else { return };
        if open.dialog.options == screen.options {
            return;
        }
        let permission = open.dialog.kind == DialogKind::Permission;
        let another =
            permission && open.choice == Choice::Digit && !screen.continues(&open.dialog.options);
        open.dialog.options.clone_from(&screen.options);
        if !screen.text.is_empty() && permission {
            open.dialog.text.clone_from(&screen.text);
        }
        // In some of those of the start a digit selects without confirming.
        open.choice = if open.startup {
            Choice::Arrows
        } else {
            Choice::Digit
        };
        if another {
            open.tool = None;
            self.count += 1;
            open.dialog.id = format!("{}{}", self.prefix, self.count);
        }
    }

    /// The keys that answer dialog `id` with its option `index` (from 0); to be written once it is [`ANSWER_AFTER`] old.
    /// The dialog stays open until the agent says otherwise.
    ///
    /// # Errors
    /// When that dialog or option is not there; nothing must be typed then.
    pub fn answer(&self, id: &str, index: usize) -> Result<Vec<u8>, AnswerError> {
        let open = self.open.as_ref().ok_or(AnswerError::None)?;
        if open.dialog.id != id {
            return Err(AnswerError::Over {
                given: id.to_owned(),
                open: open.dialog.id.clone(),
            });
        }
        if open.several {
            return Err(AnswerError::Several);
        }
        keys(index, open.dialog.options.len(), open.choice)
    }

    /// Whether keys for option `index` (from 0) of the open dialog would reach it: the screen shows that dialog, at least
    /// as far as that option.
    #[must_use]
    pub fn shown_by(&self, screen: &ScreenDialog, index: usize) -> bool {
        self.open.as_ref().is_some_and(|open| {
            // What is not read off the screen need not stand there in these words.
            open.choice != Choice::Digit
                || (screen.continues(&open.dialog.options) && index < screen.options.len())
        })
    }

    fn ask(&mut self, tool: &Tool, question: &Question, more: bool, choice: Choice) {
        // Claude Code tells a question twice: as a tool and as a permission.
        let told = self.current().is_some_and(|dialog| {
            dialog.kind == DialogKind::Question && dialog.text == question.text
        });
        if told {
            return;
        }
        self.open(
            DialogKind::Question,
            question.text.clone(),
            question.options.clone(),
        );
        if let Some(open) = &mut self.open {
            open.tool = Some(tool.clone());
            open.several = question.several || more;
            open.choice = choice;
        }
    }

    /// Opens another dialog; or tells what one is about of which only a standing signal has told: hooks are processes,
    /// and on a busy machine later than the agent's file.
    fn open(&mut self, kind: DialogKind, text: String, options: Vec<String>) {
        let standing = self.open.take().filter(|open| open.standing);
        let mut open = Open {
            dialog: Dialog {
                id: String::new(),
                kind,
                text,
                options,
            },
            tool: None,
            several: false,
            choice: Choice::Blind,
            confirmed: standing.is_some(),
            standing: false,
            record: None,
            startup: false,
        };
        if open.dialog.options.is_empty() && kind == DialogKind::Permission {
            open.dialog.options = vec!["Yes".into(), "No".into()];
        }
        if let Some(standing) = standing {
            if kind == DialogKind::Permission && standing.choice == Choice::Digit {
                // Read off the screen already.
                open.dialog.options = standing.dialog.options;
                open.dialog.text = standing.dialog.text;
                open.choice = standing.choice;
            }
            open.dialog.id = standing.dialog.id;
        } else {
            self.count += 1;
            open.dialog.id = format!("{}{}", self.prefix, self.count);
        }
        self.open = Some(open);
    }

    /// A signal that lasts: `waiting` opens a dialog nobody told of; its end closes one that it had confirmed. A late
    /// `busy` from before the dialog closes nothing.
    fn standing(&mut self, waiting: bool, text: impl FnOnce() -> String) {
        match (&mut self.open, waiting) {
            (Some(open), true) => open.confirmed = true,
            (None, true) => {
                self.open(DialogKind::Permission, text(), Vec::new());
                if let Some(open) = &mut self.open {
                    open.confirmed = true;
                    open.standing = true;
                }
            }
            (Some(open), false) if open.confirmed => self.open = None,
            (_, false) => {}
        }
    }
}

#[cfg(test)]
#[path = "dialog_tests.rs"]
mod tests;
