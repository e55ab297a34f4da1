//! Opening a terminal on what the keeper gave: with the screen as an earlier supervisor left it, kept for the next one,
//! and recorded.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc;

use super::launch::{COLUMNS, Ground, ROWS};
use crate::keeper::Output;
use crate::terminals::keep::Keep;
use crate::terminals::pty::Master;
use crate::terminals::record::{RecordError, record};
use crate::terminals::screen::Screen;
use crate::terminals::size::Size;
use crate::terminals::source::Source;
use crate::terminals::{Kind, Signal, Terminal, TerminalId, TerminalOptions};

/// Between two attempts to record where the disk takes nothing.
const RECORD_AGAIN: Duration = Duration::from_secs(30);

/// What a terminal is opened with.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) id: TerminalId,
    pub(super) kind: Kind,
    pub(super) size: Size,
    /// It ran under an earlier supervisor.
    pub(super) adopted: bool,
}

/// Signals of a terminal that wait to be taken.
const SIGNALS: usize = 64;

/// The size of terminals until a viewer brings its own.
pub(super) const SIZE: Size = Size {
    columns: COLUMNS,
    rows: ROWS,
};

/// Opens and lists a terminal, in place of an ended one of the same name.
pub(super) fn open<S: Source>(
    ground: &Ground,
    opening: Opening,
    mut output: Output,
    master: Master,
    source: impl FnOnce(Output) -> S,
) -> Option<Terminal> {
    let Opening {
        id,
        kind,
        size,
        adopted,
    } = opening;
    let directory = ground.paths.terminals();
    let restored = if adopted {
        restore(&directory, &id)
    } else {
        None
    };
    let mut screen = match restored {
        Some((screen, offset)) => {
            output.go_on_at(offset);
            screen
        }
        None => Screen::new(size),
    };
    let offset = output.position();
    let begun = std::fs::create_dir_all(&directory)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            Keep::begin(&directory, &id, &mut screen, offset).map_err(|error| error.to_string())
        });
    let keep = begun.unwrap_or_else(|error| {
        tracing::warn!(terminal = %id, error, "a restart of the supervisor would lose the screen");
        Keep::later(&directory, &id)
    });
    drop(ground.terminals.remove(&id));
    let options = TerminalOptions {
        id: id.clone(),
        kind,
        size,
        signals: Some(told(ground)),
        keep: Some(keep),
    };
    let terminal = Terminal::start_with(options, source(output), master, screen);
    if let Err(error) = ground.terminals.add(terminal.clone()) {
        tracing::error!(terminal = %id, %error, "the terminal cannot be reached");
        return None;
    }
    let recorded = terminal.clone();
    drop(tokio::spawn(record_always(recorded, directory)));
    Some(terminal)
}

/// Where a terminal tells what its output says. Of that only printed addresses are of use here.
fn told(ground: &Ground) -> mpsc::Sender<Signal> {
    let (sender, mut signals) = mpsc::channel(SIGNALS);
    let ports = ground.ports.clone();
    // Ends with the terminal, which holds the sender.
    drop(tokio::spawn(async move {
        while let Some(signal) = signals.recv().await {
            if let Signal::Listen(port) = signal {
                ports.name(port);
            }
        }
    }));
    sender
}

/// Records the terminal to its end. A disk that takes no more leaves a gap.
async fn record_always(terminal: Terminal, directory: PathBuf) {
    let mut told = false;
    loop {
        match record(terminal.clone(), directory.clone()).await {
            Ok(()) => return,
            Err(error @ RecordError::Terminal(_)) => {
                tracing::debug!(terminal = %terminal.id(), %error, "the recording ends with its terminal");
                return;
            }
            Err(error @ RecordError::Write { .. }) if !told => {
                tracing::warn!(terminal = %terminal.id(), %error, "the recording has a gap from here");
                told = true;
            }
            Err(RecordError::Write { .. }) => {}
        }
        tokio::time::sleep(RECORD_AGAIN).await;
    }
}

fn restore(directory: &Path, id: &TerminalId) -> Option<(Screen, u64)> {
    match Keep::restore(directory, id) {
        Ok(restored) => restored.map(|restored| (restored.screen, restored.offset)),
        Err(error) => {
            tracing::warn!(terminal = %id, %error, "the screen begins anew");
            None
        }
    }
}
