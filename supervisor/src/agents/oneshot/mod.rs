//! The structured output of a run without a terminal.
//!
//! Each CLI prints JSON lines: Claude Code `--output-format stream-json`, Codex `exec --json`, Copilot
//! `--output-format json`. [`Reader`] takes the bytes in any pieces and keeps what a caller wants to know at the end: the
//! final text, the agent's session id, usage, and whether it failed and why. A `custom` command's output is its text.
//!
//! Bounds: a line of more than [`MAX_LINE`] bytes is passed over and counted; of plain text the last [`MAX_TEXT`] bytes
//! are kept; an error's text is cut to [`MAX_ERROR`] characters.

mod claude;
mod codex;
mod copilot;

use serde_json::Value;
use whim_wire::spec::AgentKind;

use super::restart::Exit;

/// Longest line that is read, in bytes. A tool's result can fill one; nothing that is needed does.
pub const MAX_LINE: usize = 8 * 1024 * 1024;
/// Longest final text, in bytes.
pub const MAX_TEXT: usize = 4 * 1024 * 1024;
/// Longest error, in characters.
pub const MAX_ERROR: usize = 2000;

/// Exit code when the budget is spent.
pub const BUDGET_EXIT: i32 = 75;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The agent's last text.
    pub text: Option<String>,
    /// The agent's own session id.
    pub agent_session: Option<String>,
    pub usage: Usage,
    /// The CLI said that it came to its end (`result`, `turn.completed`, `turn.failed`).
    pub finished: bool,
    pub is_error: bool,
    pub error: Option<String>,
    /// HTTP status of the call that failed, where the CLI tells it.
    pub api_status: Option<u16>,
    /// Lines that were too long.
    pub skipped_lines: u64,
}

/// Tokens as the CLI counts them, for display only: the ledger has the truth. Buckets are disjoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cache_read_tokens: u64,
    pub cache_write_tokens: u64,
}

impl Outcome {
    /// The exit code to pass on. `refused`: the generation proxy refused a call of this session because the budget was
    /// spent.
    #[must_use]
    pub fn exit_code(&self, exit: Exit, refused: bool) -> i32 {
        let failed = exit != Exit::Code(0) || self.is_error;
        match (failed, exit) {
            (true, _) if refused => BUDGET_EXIT,
            // Claude Code ends with 0 after SIGINT although its result is an error.
            (true, Exit::Code(0)) => 1,
            (_, exit) => exit.shell(),
        }
    }

    fn fail(&mut self, error: Option<&str>) {
        self.is_error = true;
        if let Some(error) = error {
            self.error = Some(error.chars().take(MAX_ERROR).collect());
        }
    }

    fn set_text(&mut self, text: &str) {
        self.text = Some(last_bytes(text, MAX_TEXT).to_owned());
    }
}

/// The end of a text, beginning between two characters.
fn last_bytes(text: &str, limit: usize) -> &str {
    let start = text.ceil_char_boundary(text.len().saturating_sub(limit));
    text.get(start..).unwrap_or_default()
}

/// Reads a run's standard output.
#[derive(Debug)]
pub struct Reader {
    kind: AgentKind,
    line: Vec<u8>,
    skipping: bool,
    outcome: Outcome,
}

impl Reader {
    #[must_use]
    pub fn new(kind: AgentKind) -> Self {
        Self {
            kind,
            line: Vec::new(),
            skipping: false,
            outcome: Outcome::default(),
        }
    }

    /// The next piece of the output.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.kind == AgentKind::Custom {
            self.line.extend_from_slice(bytes);
            if self.line.len() > 2 * MAX_TEXT {
                self.line.drain(..self.line.len() - MAX_TEXT);
            }
            return;
        }
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let (content, ended) = match piece.split_last() {
                Some((b'\n', content)) => (content, true),
                _ => (piece, false),
            };
            if !self.skipping && self.line.len() + content.len() > MAX_LINE {
                self.skipping = true;
                self.line = Vec::new();
                self.outcome.skipped_lines += 1;
            }
            if !self.skipping {
                self.line.extend_from_slice(content);
            }
            if ended {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.skipping) {
            return;
        }
        // Warnings of the CLI may stand between the lines.
        let Ok(value) = serde_json::from_slice::<Value>(&line) else {
            return;
        };
        match self.kind {
            AgentKind::Claude | AgentKind::Ccr => claude::line(&value, &mut self.outcome),
            AgentKind::Codex => codex::line(&value, &mut self.outcome),
            AgentKind::Copilot => copilot::line(&value, &mut self.outcome),
            AgentKind::Custom => {}
        }
    }

    /// What was learned so far.
    #[must_use]
    pub fn so_far(&self) -> &Outcome {
        &self.outcome
    }

    /// The output is over.
    #[must_use]
    pub fn finish(mut self) -> Outcome {
        if self.kind == AgentKind::Custom {
            let text = String::from_utf8_lossy(&self.line).into_owned();
            self.outcome.set_text(&text);
            self.outcome.finished = true;
        } else {
            self.end_line();
        }
        self.outcome
    }
}

fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn text<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    value.pointer(path).and_then(Value::as_str)
}

#[cfg(test)]
mod tests;
