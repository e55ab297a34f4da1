//! Opening a terminal on what the keeper gave: with the screen as an earlier supervisor left it, kept for the next one,
//! and recorded.

use std::path::Path;

use tokio::sync::mpsc;

use super::launch::{COLUMNS, Ground, ROWS};
use crate::keeper::Output;
use crate::terminals::keep::Keep;
use crate::terminals::pty::Master;
use crate::terminals::record::record;
use crate::terminals::screen::Screen;
use crate::terminals::size::Size;
use crate::terminals::source::Source;
use crate::terminals::{Kind, Signal, Terminal, TerminalId, TerminalOptions};

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
    let keep = std::fs::create_dir_all(&directory)
        .map_err(|error| error.to_string())
        .and_then(|()| Keep::begin(&directory, &id, &mut screen, offset).map_err(|error| error.to_string()))
        .inspect_err(|error| tracing::warn!(terminal = %id, error, "a restart of the supervisor would lose the screen"))
        .ok();
    drop(ground.terminals.remove(&id));
    let options = TerminalOptions {
        id: id.clone(),
        kind,
        size,
        signals: Some(told(ground)),
        keep,
    };
    let terminal = Terminal::start_with(options, source(output), master, screen);
    if let Err(error) = ground.terminals.add(terminal.clone()) {
        tracing::error!(terminal = %id, %error, "the terminal cannot be reached");
        return None;
    }
    let recorded = terminal.clone();
    drop(tokio::spawn(async move {
        if let Err(error) = record(recorded, directory).await {
            tracing::warn!(terminal = %id, %error, "the recording ends here");
        }
    }));
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

fn restore(directory: &Path, id: &TerminalId) -> Option<(Screen, u64)> {
    match Keep::restore(directory, id) {
        Ok(restored) => restored.map(|restored| (restored.screen, restored.offset)),
        Err(error) => {
            tracing::warn!(terminal = %id, %error, "the screen begins anew");
            None
        }
    }
}
