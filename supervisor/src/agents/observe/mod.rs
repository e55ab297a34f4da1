//! The agents' own signals beside their hooks, as pure parsers.
//!
//! - [`session_file`]: Claude Code's `sessions/<pid>.json`.
//! - [`escape`]: escape sequences in the raw output of a terminal: Codex's OSC 7501, titles, progress.
//! - [`dialog`]: the dialog on the screen, its options and the keys that answer it.
//! - [`startup`]: dialogs before the first prompt, and their answers.
//! - [`transcript`]: where a conversation is written.
//!
//! Every signal is optional: all but the transcripts are undocumented or lossy, and an escape sequence can be forged by
//! any program that prints. The fusion decides what they are worth.

pub mod dialog;
pub mod escape;
pub mod session_file;
pub mod startup;
pub mod transcript;
