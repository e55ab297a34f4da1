//! Why the machine should stay awake, by who says so. Pure.
//!
//! A reason that holds for [`LONGEST`] without any agent at work in between counts no more: a page that reloads a preview
//! for ever, a job that hangs, must not keep a machine for ever. What an agent does shows that it is alive, so its work
//! gives every reason its whole time again; a reason that was taken back and given again begins anew, too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a reason counts while no agent works.
pub const LONGEST: Duration = Duration::from_secs(4 * 60 * 60);

/// See the module's header.
#[derive(Debug, Default)]
pub struct Awake {
    by_source: BTreeMap<String, Held>,
}

#[derive(Debug)]
struct Held {
    reasons: Vec<String>,
    since: Instant,
}

impl Awake {
    /// The reasons of one source; none takes them back. True when that changes what is shown.
    pub fn set(&mut self, source: &str, reasons: Vec<String>, now: Instant) -> bool {
        if reasons.is_empty() {
            return self.by_source.remove(source).is_some();
        }
        match self.by_source.get_mut(source) {
            Some(held) if held.reasons == reasons => false,
            Some(held) => {
                held.reasons = reasons;
                true
            }
            None => {
                let held = Held {
                    reasons,
                    since: now,
                };
                self.by_source.insert(source.to_owned(), held);
                true
            }
        }
    }

    /// An agent is, or was until now, at work.
    pub fn worked(&mut self, now: Instant) {
        for held in self.by_source.values_mut() {
            held.since = now;
        }
    }

    /// The reasons that count.
    #[must_use]
    pub fn reasons(&self, now: Instant) -> Vec<String> {
        let counts = |held: &&Held| now.saturating_duration_since(held.since) < LONGEST;
        let held = self.by_source.values().filter(counts);
        held.flat_map(|held| held.reasons.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(seconds: u64) -> Vec<String> {
        vec![format!("preview traffic on 3000, {seconds} s ago")]
    }

    #[test]
    fn a_reason_counts_until_it_is_taken_back() {
        let now = Instant::now();
        let mut awake = Awake::default();
        assert!(awake.set("previews", traffic(1), now));
        assert!(!awake.set("previews", traffic(1), now));
        assert!(awake.set("jobs", vec!["a job".into()], now));
        assert_eq!(awake.reasons(now).len(), 2);
        assert!(awake.set("previews", Vec::new(), now));
        assert_eq!(awake.reasons(now), ["a job"]);
        assert!(!awake.set("previews", Vec::new(), now));
    }

    #[test]
    fn a_wedged_reason_expires_however_often_its_words_change() {
        let start = Instant::now();
        let mut awake = Awake::default();
        let mut now = start;
        while now < start + LONGEST {
            awake.set("previews", traffic((now - start).as_secs() % 60), now);
            assert_eq!(awake.reasons(now).len(), 1);
            now += Duration::from_secs(5);
        }
        assert!(awake.reasons(now).is_empty());
        awake.set("previews", traffic(3), now);
        assert!(awake.reasons(now).is_empty(), "the same reason goes on");
        // One that begins later counts.
        awake.set("jobs", vec!["a job".into()], now);
        assert_eq!(awake.reasons(now), ["a job"]);
    }

    #[test]
    fn work_and_a_new_beginning_give_the_whole_time_again() {
        let start = Instant::now();
        let mut awake = Awake::default();
        awake.set("previews", traffic(1), start);
        let worked = start + LONGEST - Duration::from_secs(1);
        awake.worked(worked);
        assert_eq!(awake.reasons(start + LONGEST).len(), 1);
        assert!(awake.reasons(worked + LONGEST).is_empty());
        awake.set("previews", Vec::new(), worked + LONGEST);
        awake.set("previews", traffic(1), worked + LONGEST);
        assert_eq!(awake.reasons(worked + LONGEST).len(), 1);
    }
}
