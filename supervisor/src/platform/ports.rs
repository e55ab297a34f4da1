//! What listens, to the platform's router: the complete list, once it has come to rest.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use whim_wire::platform::PortList;
use whim_wire::port::Port;

use super::client::{Call, Trouble};
use super::link::Link;
use super::retry::Backoff;
use crate::clock;
use crate::ports::PortsHandle;

/// A list that has not changed for this long is told.
const REST: Duration = Duration::from_millis(200);
/// One that never rests is told this long after its first change.
const LONGEST: Duration = Duration::from_secs(1);

/// What the platform knows and what it should know. Pure.
#[derive(Debug)]
struct Registration {
    wanted: Vec<Port>,
    /// None: nothing, or nothing that can be relied on.
    taken: Option<Vec<Port>>,
    /// The first and the last change that is not told.
    changed: Option<(Instant, Instant)>,
    not_before: Option<Instant>,
}

impl Registration {
    /// Even an empty list is to be told: a container before this one may have left another.
    fn new(now: Instant) -> Self {
        Self {
            wanted: Vec::new(),
            taken: None,
            changed: Some((now, now)),
            not_before: None,
        }
    }

    fn see(&mut self, now: Instant, list: &[Port]) {
        if self.wanted == list {
            return;
        }
        list.clone_into(&mut self.wanted);
        self.touch(now);
    }

    fn touch(&mut self, now: Instant) {
        let first = self.changed.map_or(now, |(first, _)| first);
        self.changed = Some((first, now));
    }

    /// When the list is to be told; none: the platform has it.
    fn due(&self) -> Option<Instant> {
        if self.taken.as_ref() == Some(&self.wanted) {
            return None;
        }
        let (first, last) = self.changed?;
        let rested = (last + REST).min(first + LONGEST);
        Some(self.not_before.map_or(rested, |until| rested.max(until)))
    }

    fn taken(&mut self, list: Vec<Port>) {
        self.not_before = None;
        self.taken = Some(list);
        if self.taken.as_ref() == Some(&self.wanted) {
            self.changed = None;
        }
    }

    fn failed(&mut self, until: Instant) {
        self.not_before = Some(until);
    }

    /// The platform was away: what it still knows is not known.
    fn doubt(&mut self, now: Instant) {
        self.taken = None;
        self.touch(now);
    }
}

/// Tells until the supervisor ends; once the container does, that nothing listens any more.
pub(super) async fn register(link: Arc<Link>, ports: PortsHandle) {
    tokio::select! {
        () = run(&link, &ports) => {}
        () = link.stop().cancelled() => {}
    }
}

async fn run(link: &Link, ports: &PortsHandle) {
    let mut picture = ports.watch();
    let mut returns = link.returns();
    let mut tokens = link.client().tokens();
    let mut backoff = Backoff::default();
    let mut registration = Registration::new(Instant::now());
    let hurry = link.hurry();
    // The first picture may not be there yet; an empty one would unregister what listens.
    ports.rescan().await;
    loop {
        let list = picture.borrow_and_update().ports.clone();
        registration.see(Instant::now(), &list);
        let due = registration.due();
        tokio::select! {
            biased;
            () = hurry.cancelled() => break,
            () = clock::until(due) => {}
            changed = picture.changed() => match changed {
                Ok(()) => continue,
                // The monitor has ended, which happens with the container only.
                Err(_) => return,
            },
            // The sender is the link's own, so that it cannot be gone.
            _ = returns.changed() => {
                registration.doubt(Instant::now());
                continue;
            }
            _ = tokens.changed() => {
                registration.not_before = None;
                continue;
            }
        }
        match tell(link, &list).await {
            Ok(()) => {
                backoff.succeeded();
                registration.taken(list);
            }
            Err(trouble) => {
                registration.failed(Instant::now() + Link::pause(&mut backoff, &trouble));
            }
        }
    }
    if registration
        .taken
        .as_ref()
        .is_none_or(|list| !list.is_empty())
    {
        // One try: a router finds out by itself that the container is gone.
        if let Err(trouble) = tell(link, &[]).await {
            tracing::debug!(%trouble, "the ports stay registered");
        }
    }
}

async fn tell(link: &Link, list: &[Port]) -> Result<(), Trouble> {
    let body = serde_json::to_vec(&PortList {
        ports: list.to_vec(),
    });
    let body = body.map_err(|error| Trouble::confused(&error.to_string()))?;
    link.call(Call::Ports, Bytes::from(body)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(numbers: &[u16]) -> Vec<Port> {
        let port = |number: &u16| {
            serde_json::from_value(serde_json::json!({
                "port": number, "address": "127.0.0.1", "family": 4, "process": null,
                "since": "2026-11-22T10:00:00.000Z", "preview": "", "http": null,
            }))
            .unwrap()
        };
        numbers.iter().map(port).collect()
    }

    const STEP: Duration = Duration::from_millis(50);

    #[test]
    fn the_first_list_is_told_also_when_it_is_empty() {
        let now = Instant::now();
        let mut registration = Registration::new(now);
        assert_eq!(registration.due(), Some(now + REST));
        registration.taken(ports(&[]));
        assert_eq!(registration.due(), None);
    }

    #[test]
    fn a_list_is_told_when_it_rests_and_at_the_latest_after_a_second() {
        let start = Instant::now();
        let mut registration = Registration::new(start);
        registration.taken(ports(&[]));
        registration.see(start, &ports(&[3000]));
        assert_eq!(registration.due(), Some(start + REST));
        let mut now = start;
        for number in 0..40u16 {
            now += STEP;
            registration.see(now, &ports(&[3000 + number % 7]));
            assert!(registration.due().unwrap() <= start + LONGEST);
        }
        assert_eq!(registration.due(), Some(start + LONGEST));
    }

    #[test]
    fn a_change_that_was_taken_back_is_not_told() {
        let now = Instant::now();
        let mut registration = Registration::new(now);
        registration.taken(ports(&[3000]));
        registration.see(now, &ports(&[3000, 3001]));
        registration.see(now + STEP, &ports(&[3000]));
        assert_eq!(registration.due(), None);
    }

    #[test]
    fn what_changes_while_it_is_told_is_told_next() {
        let now = Instant::now();
        let mut registration = Registration::new(now);
        registration.see(now, &ports(&[3000]));
        registration.see(now + STEP, &ports(&[3001]));
        registration.taken(ports(&[3000]));
        assert!(registration.due().is_some());
        registration.taken(ports(&[3001]));
        assert_eq!(registration.due(), None);
    }

    #[test]
    fn a_failure_waits_and_a_return_tells_the_whole_list_again() {
        let now = Instant::now();
        let mut registration = Registration::new(now);
        registration.see(now, &ports(&[3000]));
        registration.failed(now + Duration::from_secs(9));
        assert_eq!(registration.due(), Some(now + Duration::from_secs(9)));
        registration.taken(ports(&[3000]));
        assert_eq!(registration.due(), None);
        registration.doubt(now);
        assert_eq!(registration.due(), Some(now + REST));
    }
}
