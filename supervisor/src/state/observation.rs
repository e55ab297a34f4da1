//! The vocabulary of evidence: what the sources can say about one session.
//!
//! Sources translate into these terms at their edge; the fusion knows no file format, hook name or escape sequence.
//! Every text here comes from outside: sources cut it to [`MAX_TEXT`] and remove control characters (see [`clean`]).

use std::borrow::Cow;
use std::time::Duration;

use whim_wire::state::Dialog;

use super::moment::Moment;

/// Longest text in an observation, in bytes.
pub const MAX_TEXT: usize = 400;

/// One thing that a source saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// An agent process runs (for the first time, or again). Forgets what was known of an earlier one.
    Started { pid: u32 },
    /// The agent process ended. `note` explains what follows, e.g. that it will not be restarted.
    Exited { exit: Exit, note: Option<String> },
    /// What the agent's own status file says (Claude Code: `sessions/<pid>.json`). Its date is when the agent wrote it.
    Word(Word),
    /// The status file is gone or no longer readable: fall back to the other sources.
    WordGone,
    /// A hook of the agent ran, or its own record of the conversation says the same.
    Hook(Hook),
    /// A state sequence in the terminal's output (Codex: OSC 7501). Any process in the terminal can print one.
    Osc(Osc),
    /// A model call, as the generation proxy sees it; `call` numbers it uniquely.
    Generation { call: u64, event: Generation },
    /// All calls of turns that the proxy has in flight now, with their starts: to be given when events were lost. Adds
    /// those that are missing, ends those that are gone.
    Calls { in_flight: Vec<(u64, Moment)> },
    /// What runs beneath the agent.
    Tree(Sample),
    /// The agent's mark in the terminal's title.
    Title(Title),
    /// The terminal or the pipes gave output.
    Output { bytes: usize },
    /// A viewer typed, or the supervisor did on someone's behalf.
    Key(Key),
    /// The supervisor handed a prompt to the agent.
    PromptDelivered,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(u8),
    Signal(i32),
}

impl Exit {
    /// As a shell shows it: 128+N for signal N.
    #[must_use]
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => i32::from(code),
            Self::Signal(signal) => signal.saturating_add(128),
        }
    }
}

/// Status words of Claude Code 2.1.139 and later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Busy,
    Idle,
    /// `waitingFor` of the file, e.g. "permission prompt".
    Waiting {
        waiting_for: Option<String>,
    },
    /// No turn, but a command in the background (whose end wakes the agent), or one that is being interrupted.
    Shell,
}

/// Hooks of Claude Code and Codex.
#[derive(Clone, Debug, PartialEq)]
pub enum Hook {
    SessionStarted,
    PromptSubmitted,
    /// `PreToolUse`. `detail` is the command line, path or query.
    ToolStarted {
        id: String,
        name: String,
        detail: Option<String>,
        /// `agent_id` of the subagent in which it runs.
        subagent: Option<String>,
    },
    /// `PostToolUse` or `PostToolUseFailure`; `interrupted` as the latter says.
    ToolEnded {
        id: String,
        interrupted: bool,
    },
    /// `PermissionRequest`, or the start of a tool that asks a question. `tool` and `detail` as in its `ToolStarted`. The
    /// same id again, with options that were read from the screen since, only replaces the content.
    DialogOpened {
        dialog: Dialog,
        tool: Option<String>,
        detail: Option<String>,
    },
    /// The dialog of this id was answered or is gone.
    DialogClosed {
        id: String,
    },
    /// `Notification` that a permission or an answer is awaited; comes seconds late.
    DialogReminder,
    /// `Notification` of type `idle_prompt`; comes a minute late.
    IdleReminder,
    SubagentStarted {
        id: String,
    },
    SubagentStopped {
        id: String,
    },
    /// `PreCompact`.
    Compacting,
    /// `Stop`: the turn ended.
    Stopped,
    /// The turn was interrupted. No hook says so; Claude Code's transcript does.
    Interrupted,
    SessionEnded,
}

/// States of Codex's OSC 7501.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Osc {
    Working,
    Idle,
    Done,
    Blocked,
    Clear,
}

impl Osc {
    /// No turn goes on.
    #[must_use]
    pub fn rests(self) -> bool {
        matches!(self, Self::Idle | Self::Done | Self::Clear)
    }
}

/// Steps of a model call.
#[derive(Clone, Debug, PartialEq)]
pub enum Generation {
    /// The request arrived. `side`: a title, a token count, a probe: no part of a turn.
    Started {
        side: bool,
    },
    /// Bytes of the answer arrived (throttled by the proxy).
    Progress,
    Ended(Stop),
}

/// How a model call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model asks for a tool.
    Tool,
    /// The model's turn is over.
    EndTurn,
    /// Cut at the token limit, or paused: the agent decides whether to go on.
    Limit,
    /// The agent hung up.
    ClientLeft,
    /// The provider failed; agents try again by themselves.
    Error,
    /// The proxy refused it: budget or credentials.
    Refused,
}

/// One look at the processes beneath the agent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// The roots of what the agent started, oldest first.
    pub children: Vec<Child>,
    /// CPU use of the agent and all beneath it since the look before, percent of one core; none in the first look.
    pub cpu_percent: Option<u32>,
}

/// A process that the agent started, with all beneath it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub pid: u32,
    pub started: Moment,
    /// What it runs, for people: of its processes the one that tells most.
    pub command: String,
    /// CPU use of it and all beneath it since the look before, percent of one core.
    pub cpu_percent: Option<u32>,
}

/// What the title's first character says (Claude Code: `✳` at rest, `⠂` or `⠐` at work).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Title {
    Spinning,
    Resting,
}

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// Escape or Ctrl-C alone.
    Interrupt,
    /// Enter.
    Submit,
    Other,
}

/// What can be expected of an agent's sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    pub manner: Manner,
    /// May open permission dialogs (not in bypass mode).
    pub asks: bool,
    /// Paints its terminal all the while it works, so that a still screen means something.
    pub animates: bool,
}

/// How an agent is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Turns in a terminal.
    Interactive,
    /// One prompt, then it ends: at work until it does.
    Oneshot,
    /// Any command: at work while it prints or uses CPU.
    Custom,
}

impl Profile {
    pub const INTERACTIVE: Self = Self {
        manner: Manner::Interactive,
        asks: true,
        animates: true,
    };
    pub const ONESHOT: Self = Self {
        manner: Manner::Oneshot,
        asks: false,
        animates: false,
    };
    pub const CUSTOM: Self = Self {
        manner: Manner::Custom,
        asks: false,
        animates: false,
    };
}

/// `text` fit for one line of a status: control characters and runs of white space become one space, cut at
/// `limit` bytes with an ellipsis. Bidirectional overrides go too, because they reorder the sentence around them.
#[must_use]
pub fn clean(text: &str, limit: usize) -> Cow<'_, str> {
    let plain = |c: char| !c.is_control() && !is_bidi(c) && (!c.is_whitespace() || c == ' ');
    if text.len() <= limit && text.chars().all(plain) && !text.contains("  ") && text.trim() == text
    {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len().min(limit));
    let mut gap = false;
    for c in text.chars() {
        if !plain(c) || c == ' ' {
            gap = !line.is_empty();
            continue;
        }
        let wanted = c.len_utf8() + usize::from(gap);
        if line.len() + wanted + '…'.len_utf8() > limit {
            line.push('…');
            break;
        }
        if gap {
            line.push(' ');
            gap = false;
        }
        line.push(c);
    }
    Cow::Owned(line)
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Everything typed within this time before a small output explains that output as its echo.
pub const ECHO: Duration = Duration::from_millis(150);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cleaned() {
        assert_eq!(clean("cargo test", 100), "cargo test");
        assert_eq!(clean(" a\n\tb \u{1b}[31mred\u{202e}", 100), "a b [31mred");
        assert_eq!(clean("abcdefghij", 8), "abcde…");
        assert_eq!(clean("ééééé", 8), "éé…");
    }

    proptest! {
        #[test]
        fn cleaned_text_is_short_and_plain(text: String, limit in 4usize..60) {
            let line = clean(&text, limit);
            prop_assert!(line.len() <= limit);
            prop_assert!(!line.chars().any(char::is_control));
            prop_assert_eq!(clean(&line, limit), line.clone());
        }
    }
}
