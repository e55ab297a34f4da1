//! The agent CLIs: how each is found, prepared, started, watched, prompted and restarted.
//!
//! Everything here is pure: no clock, no file, no process. Boot and sessions do the work (as the agents' user); this
//! module says what is to be done. One file per agent holds what is special about it, as an [`Agent`]; what they share
//! has rooms of its own:
//!
//! - [`setup`], [`command`]: what comes in, what is to be started.
//! - [`edit`]: changes to files of the CLIs, merged into what is there.
//! - [`locate`]: programs and the native binaries behind npm's wrappers.
//! - [`hook`]: what the CLIs tell at each step of a turn, and how they are told to.
//! - [`observe`]: their other signals: session files, escape sequences, transcripts, dialogs on the screen.
//! - [`prompt`]: a prompt's way into a terminal.
//! - `skill`: skills in the form that all of them read.
//! - [`restart`]: whether a crashed agent comes back.
//! - [`oneshot`]: structured output of a run without a terminal.
//!
//! Facts about the CLIs carry the version they were seen with: Claude Code 2.1.197, Codex 0.169.0, Claude Code Router
//! 2.0.0, Copilot CLI 1.0.102 (2026-11).

use std::fmt::Debug;
use std::path::PathBuf;

pub mod ccr;
pub mod claude;
pub mod codex;
pub mod command;
pub mod copilot;
pub mod custom;
pub mod edit;
pub mod hook;
mod inject;
pub mod locate;
pub mod observe;
pub mod oneshot;
pub mod plugins;
pub mod prompt;
pub mod restart;
pub mod setup;
mod skill;

pub use command::{Command, Companion, PromptRoute, Readiness};
pub use edit::FileEdit;
pub use prompt::PromptRules;
pub use setup::{AgentKind, Impossible, Setup, Start};

/// What is special about one agent CLI.
pub trait Agent: Send + Sync + Debug {
    fn kind(&self) -> AgentKind;

    /// Where its program is found; `None` when the command itself names it (`custom`).
    fn program(&self) -> Option<&'static locate::Program>;

    /// Every setting that this agent cannot have. Empty: it can be started.
    fn check(&self, setup: &Setup) -> Vec<Impossible>;

    /// Files to be merged before a start, in order. Safe to repeat; a running CLI rewrites some of them itself, so they
    /// are merged before a start and left alone while it runs.
    fn files(&self, setup: &Setup) -> Vec<FileEdit>;

    /// The agent's own command.
    ///
    /// # Errors
    /// The first finding of [`Agent::check`].
    fn command(&self, setup: &Setup, start: &Start) -> Result<Command, Impossible>;

    /// Plugins that its own program is to install before it starts.
    fn plugins(&self, _setup: &Setup) -> Vec<plugins::Installation> {
        Vec::new()
    }

    /// Processes that must be ready before it.
    fn companions(&self, _setup: &Setup) -> Vec<Companion> {
        Vec::new()
    }

    /// Dialogs that may come up before the first prompt although everything was prepared.
    fn startup_dialogs(&self, _setup: &Setup) -> Vec<StartupDialog> {
        Vec::new()
    }

    /// What to watch to know the agent's state.
    fn watch(&self, setup: &Setup) -> Watch;

    /// How its terminal takes a prompt.
    fn prompt_rules(&self) -> PromptRules;

    /// Whether the id of [`setup::Conversation::New`] becomes the agent's own session id. Otherwise the id is learned
    /// from its first signal.
    fn chooses_id(&self) -> bool;

    /// Whether its CLI begins a session from another one. Otherwise a copy under a new id is resumed.
    fn forks(&self) -> bool {
        false
    }
}

/// A dialog of the start, see [`observe::startup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartupDialog {
    /// Text that only this dialog shows.
    pub shows: &'static str,
    /// What the task's settings answer; `None`: nothing in them does, it is the person's.
    pub keys: Option<&'static [u8]>,
    /// For the log.
    pub why: &'static str,
}

/// What tells an agent's state, beside its hooks. None of it is sure to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Directory of Claude Code's session files, see [`observe::session_file`].
    pub session_files: Option<PathBuf>,
    /// The title's first character tells of work, see [`observe::escape`].
    pub title: bool,
    /// OSC 7501 tells of everything, see [`observe::escape`].
    pub osc_7501: bool,
    /// Its transcript tells of interrupts (and dialogs), see [`observe::transcript`].
    pub transcript: bool,
    /// Nothing tells that it is ready before its first prompt (Copilot's session starts with it): bracketed paste is on
    /// and the output has been quiet for a second. Copilot 1.0.102 turns the mode on before it reads keys; a prompt
    /// typed while it still shows its loading sign is lost.
    pub ready_by_paste: bool,
    /// It numbers the options of its dialogs, see [`observe::dialog`].
    pub dialogs: bool,
}

/// The agent of a kind.
#[must_use]
pub fn of(kind: AgentKind) -> &'static dyn Agent {
    match kind {
        AgentKind::Claude => &claude::Claude,
        AgentKind::Codex => &codex::Codex,
        AgentKind::Ccr => &ccr::Ccr,
        AgentKind::Copilot => &copilot::Copilot,
        AgentKind::Custom => &custom::Custom,
    }
}

/// `NO_PROXY` for an agent's environment: an outer proxy must never see the calls to our own, on loopback.
#[must_use]
pub fn no_proxy(existing: Option<&str>) -> String {
    let mut hosts: Vec<&str> = existing
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|host| !host.is_empty())
        .collect();
    for own in ["127.0.0.1", "localhost", "::1"] {
        if !hosts.contains(&own) {
            hosts.push(own);
        }
    }
    hosts.join(",")
}

#[cfg(test)]
mod tests;
