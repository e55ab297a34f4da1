//! Terminals: the engines that own them, the viewers that watch them, and the protocols that carry both.
//!
//! ```text
//! source ──► engine ──► backlog ──► viewer ──► WebSocket (tty, tty.v2) · attach · recorder
//!              │  └───► screen model ── snapshots, answers, signals for the state
//! master ◄── input ◄──────────────── viewer, prompts
//! ```
//!
//! Each terminal is one task ([`engine`]); each viewer is whatever task serves it. They share the backlog (a short
//! lock) and two watched values (how far the output goes; title, size, exit).

pub mod answers;
pub mod attach;
pub mod backlog;
mod engine;
pub mod http;
mod input;
pub mod keep;
pub mod old;
pub mod pty;
pub mod record;
pub mod screen;
pub mod set;
pub mod size;
pub mod source;
pub mod terminal;
pub mod typed;
pub mod viewer;

pub use engine::ScreenText;
pub use input::TypeError;
pub use terminal::{
    Exit, Kind, Signal, Status, Terminal, TerminalError, TerminalId, TerminalOptions,
};
pub use typed::Typed;
pub use viewer::{Frame, Viewer, ViewerInput, ViewerOptions};

#[cfg(test)]
mod tests;
