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
use crate::clock::boot_now;
use crate::keeper::Output;
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
        Self {
            output,
            scanner: Scanner::new(),
            evidence,
            unreported: 0,
            reported: None,
        }
    }
}

fn look(
    scanner: &mut Scanner,
    evidence: &mpsc::Sender<Evidence>,
    unreported: &mut usize,
    reported: &mut Option<Instant>,
    bytes: &[u8],
) {
    for sign in scanner.feed(bytes) {
        drop(evidence.try_send(Evidence::Sign {
            at: boot_now(),
            sign,
        }));
    }
    *unreported += bytes.len();
    if !bytes.is_empty() && reported.is_none_or(|reported| reported.elapsed() >= PACE) {
        let seen = Evidence::now(Observation::Output { bytes: *unreported });
        if evidence.try_send(seen).is_ok() {
            *unreported = 0;
            *reported = Some(Instant::now());
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
        let (_, lost) = self.output.read(into, most);
        let bytes = into.get(start..).unwrap_or_default();
        let count = bytes.len();
        look(
            &mut self.scanner,
            &self.evidence,
            &mut self.unreported,
            &mut self.reported,
            bytes,
        );
        Ok(Taken {
            lost,
            bytes: count,
            ended: count == 0 && self.output.is_over(),
        })
    }

    fn acknowledge(&mut self, offset: u64) {
        self.output.acknowledge(offset);
    }
}
