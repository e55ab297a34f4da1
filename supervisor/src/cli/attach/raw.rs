//! Raw mode, and the way back.

use std::io::{self, Write as _};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::AttachError;
use crate::terminals::size::Size;

/// Undoes what a full-screen program may have set: alternate screen, margins, mouse and focus reports, bracketed paste,
/// keyboard protocols, synchronized output, pen, cursor.
pub(super) const RESTORE: &[u8] = b"\x1b[?1049l\x1b[r\x1b[?6l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\
    \x1b[?1006l\x1b[?1016l\x1b[?2004l\x1b[?2026l\x1b[?2031l\x1b[<99u\x1b[>4;0m\x1b[4l\x1b[?7h\x1b[?1l\x1b>\x1b(B\x0f\
    \x1b[0m\x1b]8;;\x1b\\\x1b[0 q\x1b[?25h";

/// The terminal is raw while this lives.
pub(super) struct RawMode {
    before: Termios,
    /// Whether a program's output was shown, so that its modes must be undone.
    pub(super) used: bool,
}

impl RawMode {
    pub(super) fn enter() -> Result<Self, AttachError> {
        let before = tcgetattr(io::stdin()).map_err(|_| AttachError::NotATerminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)
            .map_err(|error| AttachError::RawMode(error.into()))?;
        // Until it is known otherwise: a panic must undo everything.
        Ok(Self { before, used: true })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if self.used {
            let mut out = io::stdout().lock();
            // The terminal may be gone: nothing is left to restore then.
            drop(
                out.write_all(RESTORE)
                    .and_then(|()| out.write_all(b"\x1b[999;1H\r\n"))
                    .and_then(|()| out.flush()),
            );
        }
        let restored = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
        tracing::debug!(?restored, "the terminal's mode is restored");
    }
}

pub(super) fn size() -> Option<Size> {
    let window = tcgetwinsize(io::stdin()).ok()?;
    (window.ws_col > 0 && window.ws_row > 0).then(|| {
        Size {
            columns: window.ws_col,
            rows: window.ws_row,
        }
        .clamped()
    })
}
