//! What is to be started: the agent itself, and processes that it needs beside it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::locate::Program;
use super::setup::Surface;

/// Longest prompt that travels as an argument, in bytes. The kernel takes 128 KiB for one argument
/// (`MAX_ARG_STRLEN`); what is longer goes through the terminal.
pub const MAX_PROMPT_ARGUMENT: usize = 100 * 1024;

/// A program with its arguments and environment.
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    /// Name or path, to be resolved with [`super::locate`].
    pub program: PathBuf,
    /// Without argv\[0].
    pub arguments: Vec<String>,
    /// Set on top of the session's environment; wins over it.
    pub environment: Vec<(String, String)>,
    /// Removed from the session's environment: would lead the agent past the proxy or change its account.
    pub unset: Vec<&'static str>,
    pub directory: PathBuf,
    pub surface: Surface,
    /// Written to standard input, which is closed after it. None: `/dev/null` (with a terminal: the terminal).
    pub stdin: Option<Vec<u8>>,
    /// How the first prompt reaches the agent.
    pub prompt: PromptRoute,
    /// What the person who reads the log should know about this combination.
    pub notes: Vec<String>,
}

/// Arguments may hold a prompt and the environment holds the session token: only their shape is printed.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("arguments", &self.arguments.len())
            .field(
                "environment",
                &self
                    .environment
                    .iter()
                    .map(|(name, _)| name)
                    .collect::<Vec<_>>(),
            )
            .field("directory", &self.directory)
            .field("surface", &self.surface)
            .field("prompt", &self.prompt)
            .field("notes", &self.notes)
            .finish_non_exhaustive()
    }
}

/// How the first prompt reaches the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptRoute {
    /// There is none.
    None,
    /// It is in the arguments or on standard input: the agent takes it up by itself.
    Given,
    /// To be queued and typed into the terminal once the agent is ready.
    Terminal,
}

/// A process that the agent needs beside it, started before it and ended after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Companion {
    /// Name in logs.
    pub name: &'static str,
    /// Where its program is found.
    pub program: &'static Program,
    pub command: Command,
    pub ready: Readiness,
}

/// When a companion can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// A GET on this address answers 200.
    pub url: String,
    /// Given up after this long.
    pub deadline: Duration,
}
