//! A session's terminal output on its way from the keeper's ring to the screen, with an eye on the signs in it.
//!
//! What is seen goes to the session through a bounded channel; a sign that finds it full is lost, which the fusion
//! closes from its other sources. Output is reported at most once in [`PACE`], with the bytes since the last report.

use std::io;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::evidence::Evidence;
use crate::agents::observe::escape::Scanner;
use crate::keeper::Output;
use crate::state::clock;
use crate::state::observation::Observation;
use crate::terminals::source::{Source, Taken};

/// Between two reports of output.
const PACE: Duration = Duration::from_millis(200);
/// Evidence that may wait for the session.
pub(super) const WAITING: usize = 128;

/// The source of a session's terminal.
#[derive(Debug)]
pub(super) struct Tap {
    output: Output,
    scanner: Scanner,
    evidence: mpsc::Sender<Evidence>,
    unreported: usize,
    reported: Option<Instant>,
}

impl Tap {
    pub(super) fn new(output: Output, evidence: mpsc::Sender<Evidence>) -> Self {
        Self { output, scanner: Scanner::new(), evidence, unreported: 0, reported: None }
    }

    fn look(&mut self, bytes: &[u8]) {
        for sign in self.scanner.feed(bytes) {
            drop(self.evidence.try_send(Evidence::Sign { at: clock::now(), sign }));
        }
        self.unreported += bytes.len();
        if self.reported.is_none_or(|reported| reported.elapsed() >= PACE) {
            let seen = Evidence::now(Observation::Output { bytes: self.unreported });
            if self.evidence.try_send(seen).is_ok() {
                self.unreported = 0;
                self.reported = Some(Instant::now());
            }
        }
    }
}

impl Source for Tap {
    fn offset(&self) -> u64 {
        self.output.position()
    }

    async fn ready(&mut self) -> io::Result<()> {
        self.output.ready().await
    }

    fn read(&mut self, into: &mut Vec<u8>, most: usize) -> io::Result<Taken> {
        let start = into.len();
        let taken = self.output.read(into, most);
        let bytes = into.get(start..).unwrap_or_default().to_vec();
        self.look(&bytes);
        Ok(Taken { lost: taken.lost, bytes: bytes.len(), ended: taken.ended })
    }

    fn acknowledge(&mut self, offset: u64) {
        self.output.acknowledge(offset);
    }
}
