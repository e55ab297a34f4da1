//! A person at the terminal: `whim attach` in a real terminal of its own.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use whim_kit::{Whim, wait};

use crate::support::PATIENCE;

/// Attached to a session's terminal; detached when dropped.
pub(crate) struct Person {
    child: Box<dyn Child + Send + Sync>,
    keys: Box<dyn Write + Send>,
    seen: Arc<Mutex<Vec<u8>>>,
    terminal: Box<dyn MasterPty + Send>,
}

impl Person {
    /// Attaches, and waits until the terminal shows something.
    pub(crate) fn at(whim: &Whim, terminal: &str) -> Self {
        let size = PtySize {
            rows: 40,
            cols: 120,
            pixel_width: 0,
            pixel_height: 0,
        };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_whim"));
        command.args(["attach", terminal]);
        command.env_clear();
        command.env("WHIM_ROOT", whim.root().path());
        command.env("WHIM_CONTROL_TOKEN", whim.token());
        command.env("TERM", "xterm-256color");
        let child = pair.slave.spawn_command(command).unwrap();
        let mut output = pair.master.try_clone_reader().unwrap();
        let seen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let all = seen.clone();
        // Ends with the terminal.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                all.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        let person = Self {
            child,
            keys: pair.master.take_writer().unwrap(),
            seen,
            terminal: pair.master,
        };
        wait::until("the attached terminal", PATIENCE, || {
            (!person.seen.lock().unwrap().is_empty()).then_some(())
        })
        .unwrap();
        person
    }

    /// Waits until the terminal has shown this in one piece: programs repaint only what changed.
    pub(crate) fn sees(&self, text: &str) {
        let found = wait::until(text, PATIENCE, || {
            let seen = self.seen.lock().unwrap();
            seen.windows(text.len())
                .any(|part| part == text.as_bytes())
                .then_some(())
        });
        if let Err(error) = found {
            let seen = self.seen.lock().unwrap().clone();
            panic!("{error}: {}", String::from_utf8_lossy(&seen));
        }
    }

    pub(crate) fn types(&mut self, keys: &[u8]) {
        self.keys.write_all(keys).unwrap();
        self.keys.flush().unwrap();
    }

    /// The person's window changes; [`Self::sees`] then means what is shown from now on.
    pub(crate) fn resize(&self, size: PtySize) {
        self.seen.lock().unwrap().clear();
        self.terminal.resize(size).unwrap();
    }

    /// Waits for the end of the command; its exit code.
    pub(crate) fn ended(&mut self) -> u32 {
        let child = &mut self.child;
        let status = wait::until("the end of attach", PATIENCE, || child.try_wait().unwrap());
        status.unwrap().exit_code()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // It may have ended with its terminal.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
