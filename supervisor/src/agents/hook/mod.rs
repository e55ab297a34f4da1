//! Hooks: the agent CLIs run a command of ours at each step of a turn.
//!
//! Transport: the command is `whim hook AGENT EVENT`. It reads the CLI's JSON from standard input, cuts it down to what
//! is needed ([`record`]), connects to the unix socket that `WHIM_HOOK_SOCKET` names, writes one line and closes. The
//! keeper holds the listening socket, so lines sent while the supervisor restarts wait in the kernel and are read
//! afterwards. The command never prints (output would become part of the conversation), never fails and never waits
//! ([`client`]); without the two variables, in a shell of the user's, it does nothing.
//!
//! Which session a line belongs to is said by `WHIM_SESSION`; that the sender is the agents' user, by the socket's peer
//! credentials. More is not claimed: the agent could send any line itself, so a hook is the agent's word, no evidence.
//!
//! Bounds: [`MAX_PAYLOAD`] bytes are read, a line has at most [`MAX_RECORD`] bytes; longer texts are cut, at worst the
//! tool's input is left out.
//!
//! How each CLI is told: Claude Code by `--settings`, Codex by `-c` overrides with their trust hash, Copilot by a file
//! of ours in `~/.copilot/hooks` (1.0.102 reads every `*.json` there, version 1). Seen to fire: facts 1.5 and 2.3;
//! beyond them Codex 0.169.0 has `Interrupt` (Esc and Ctrl-C) and `SessionEnd` (not on TERM), Copilot all of
//! [`COPILOT_EVENTS`] but nothing on an interrupt. Claude Code fires none on an interrupt either.

pub mod client;
mod event;
mod record;
mod wiring;

pub use event::{HookError, HookEvent, Question, Signal, Tool, one_line, parse, tool_detail};
pub use record::{MAX_TEXT, record};
pub use wiring::{CLAUDE_EVENTS, CODEX_EVENTS, COPILOT_EVENTS};
pub(super) use wiring::{claude_settings, codex_overrides, copilot_file, environment};

/// Name of the variable with our session's id.
pub const SESSION_VARIABLE: &str = "WHIM_SESSION";
/// Name of the variable with the socket's path.
pub const SOCKET_VARIABLE: &str = "WHIM_HOOK_SOCKET";

/// Largest payload that is read from the CLI, in bytes. A tool's whole response is in it.
pub const MAX_PAYLOAD: usize = 16 * 1024 * 1024;
/// Longest line on the socket, in bytes, with its newline. Fits the default buffer of a unix socket (208 KiB), so that
/// a write never waits for a reader.
pub const MAX_RECORD: usize = 64 * 1024;

#[cfg(test)]
mod tests;
