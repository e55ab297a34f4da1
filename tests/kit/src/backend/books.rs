//! What the reference backend knows: what it was told, what it has against that, and what is to go wrong.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::{Value, json};

/// The calls, by the document's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    Spec,
    Events,
    Ports,
    GitCredentials,
    Workspace,
    BackupList,
    BackupGet,
    BackupPut,
    BackupDelete,
}

impl Call {
    pub(super) fn of(operation: &str) -> Option<Self> {
        Some(match operation {
            "spec" => Self::Spec,
            "events" => Self::Events,
            "ports" => Self::Ports,
            "git_credentials" => Self::GitCredentials,
            "workspace" => Self::Workspace,
            "backup_list" => Self::BackupList,
            "backup_get" => Self::BackupGet,
            "backup_put" => Self::BackupPut,
            "backup_delete" => Self::BackupDelete,
            _ => return None,
        })
    }
}

/// What goes wrong with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// This status, and nothing done.
    Status(u16),
    /// This status with `Retry-After` in seconds, and nothing done.
    Later(u16, u64),
    /// All is done; then this status: the sender cannot know.
    Unheard(u16),
    /// All is done after this time.
    Slow(Duration),
    /// No answer while the connection lasts.
    Silence,
}

/// A call as it came.
#[derive(Clone, Debug)]
pub struct Taken {
    pub call: Call,
    /// Of the answer; 0: there was none.
    pub status: u16,
    pub body: Value,
    /// The bearer token.
    pub token: String,
    /// Milliseconds since the backend's start.
    pub at_ms: u64,
}

/// One numbering of events.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub acknowledged: u64,
    pub events: BTreeMap<u64, Value>,
    /// Numbers that will never come.
    pub missing: Vec<(u64, u64)>,
    /// Events that came again.
    pub repeats: u64,
    /// The sender was told to come back to a lower number.
    rewound: bool,
}

/// See the module's header.
#[derive(Debug, Default)]
pub struct Books {
    /// Of backups, by kind and name.
    pub(super) objects: super::objects::Objects,
    /// All calls, oldest first.
    pub calls: Vec<Taken>,
    /// By name, in the order of their first batch.
    pub streams: Vec<(String, Stream)>,
    /// None: nothing was told yet.
    pub ports: Option<Vec<Value>>,
    /// Rules that were broken.
    pub violations: Vec<String>,
    /// Logins given so far.
    pub logins: u32,
    pub(super) token: String,
    pub(super) spec: Option<Value>,
    /// User name and life of a login.
    pub(super) login: Option<(String, Duration)>,
    pub(super) troubles: BTreeMap<Call, VecDeque<Trouble>>,
}

impl Books {
    /// Number of the objects of backups.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.objects.len()
    }

    /// The stream that began last.
    #[must_use]
    pub fn stream(&self) -> Stream {
        self.streams
            .last()
            .map(|(_, stream)| stream.clone())
            .unwrap_or_default()
    }

    /// The newest stream's events, by number.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.stream().events.into_values().collect()
    }

    /// Port numbers as they were told last.
    #[must_use]
    pub fn port_numbers(&self) -> Option<Vec<u64>> {
        let ports = self.ports.as_ref()?;
        Some(
            ports
                .iter()
                .filter_map(|port| port.get("port")?.as_u64())
                .collect(),
        )
    }

    /// Calls of one kind.
    #[must_use]
    pub fn of(&self, call: Call) -> Vec<&Taken> {
        self.calls
            .iter()
            .filter(|taken| taken.call == call)
            .collect()
    }

    /// Passwords given to git begin with this.
    #[must_use]
    pub fn password(number: u32) -> String {
        format!("password-{number}")
    }

    pub(super) fn violation(&mut self, what: impl Into<String>) {
        self.violations.push(what.into());
    }

    /// Forgets all events above this number of the newest stream, as a backend does that was restored.
    pub(super) fn rewind(&mut self, number: u64) {
        if let Some((_, stream)) = self.streams.last_mut() {
            stream.acknowledged = number;
            stream.events.retain(|seq, _| *seq <= number);
            stream.missing.retain(|(_, last)| *last <= number);
            stream.rewound = true;
        }
    }

    /// Takes a batch that fits the document; the answer.
    pub(super) fn batch(&mut self, batch: &Value) -> (u16, Value) {
        let number = |name: &str| batch.get(name).and_then(Value::as_u64).unwrap_or(0);
        let (first, last) = (number("first"), number("last"));
        let name = batch
            .get("stream")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned();
        let events: Vec<(u64, &Value)> = batch
            .get("events")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|event| (event.get("seq").and_then(Value::as_u64).unwrap_or(0), event))
            .collect();
        let missing: Vec<(u64, u64)> = batch
            .get("missing")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|range| {
                let number = |name: &str| range.get(name).and_then(Value::as_u64).unwrap_or(0);
                (number("first"), number("last"))
            })
            .collect();
        if let Err(wrong) = covers(first, last, &events, &missing) {
            self.violation(format!("batch {first} to {last}: {wrong}"));
            return (422, json!({"detail": wrong}));
        }
        let index = match self.streams.iter().position(|(known, _)| *known == name) {
            Some(index) => index,
            None => {
                self.streams.push((name, Stream::default()));
                self.streams.len() - 1
            }
        };
        let mut wrong = Vec::new();
        let Some((_, stream)) = self.streams.get_mut(index) else {
            return (500, Value::Null);
        };
        if first > stream.acknowledged + 1 {
            let acknowledged = stream.acknowledged;
            if !stream.rewound {
                self.violation(format!(
                    "a gap: {first} to {last} follows on {acknowledged}"
                ));
            }
            return (409, json!({"acknowledged": acknowledged}));
        }
        stream.rewound = false;
        for (seq, event) in events {
            match stream.events.get(&seq) {
                Some(known) if known != event => {
                    wrong.push(format!("event {seq} came again and is another"));
                }
                Some(_) => stream.repeats += 1,
                None if seq <= stream.acknowledged => {
                    wrong.push(format!("event {seq} came after it was said to be missing"));
                }
                None => drop(stream.events.insert(seq, event.clone())),
            }
        }
        for range in missing {
            if range.1 > stream.acknowledged {
                stream.missing.push(range);
            }
        }
        stream.acknowledged = stream.acknowledged.max(last);
        let acknowledged = stream.acknowledged;
        self.violations.extend(wrong);
        (200, json!({"acknowledged": acknowledged}))
    }
}

/// Every number from `first` to `last` once, events in order.
fn covers(
    first: u64,
    last: u64,
    events: &[(u64, &Value)],
    missing: &[(u64, u64)],
) -> Result<(), String> {
    if !events.is_sorted_by(|one, next| one.0 < next.0) {
        return Err("the events are out of order, or one is twice there".into());
    }
    let mut ranges: Vec<(u64, u64)> = events.iter().map(|(seq, _)| (*seq, *seq)).collect();
    ranges.extend(missing);
    ranges.sort_unstable();
    let mut next = first;
    for (from, to) in ranges {
        if from != next || to < from {
            return Err(format!("{next} should follow, and {from} to {to} does"));
        }
        next = to + 1;
    }
    if next == last + 1 && last >= first {
        Ok(())
    } else {
        Err(format!("it ends before {next}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, last: u64, events: &[u64], missing: &[(u64, u64)]) -> Value {
        let events: Vec<Value> = events.iter().map(|seq| json!({"seq": seq})).collect();
        let missing: Vec<Value> = missing
            .iter()
            .map(|(first, last)| json!({"first": first, "last": last}))
            .collect();
        json!({"stream": "s", "first": first, "last": last, "events": events, "missing": missing})
    }

    #[test]
    fn batches_that_follow_are_taken_and_repeats_are_counted() {
        let mut books = Books::default();
        assert_eq!(
            books.batch(&batch(1, 3, &[1, 3], &[(2, 2)])),
            (200, json!({"acknowledged": 3}))
        );
        assert_eq!(books.batch(&batch(3, 4, &[3, 4], &[])).0, 200);
        assert_eq!(books.stream().repeats, 1);
        assert_eq!(books.stream().acknowledged, 4);
        assert_eq!(books.violations, Vec::<String>::new());
    }

    #[test]
    fn every_broken_rule_is_found() {
        for (bad, status) in [
            (batch(1, 3, &[1, 3], &[]), 422),
            (batch(1, 2, &[2, 1], &[]), 422),
            (batch(1, 2, &[1, 1, 2], &[]), 422),
            (batch(1, 2, &[1, 2], &[(2, 2)]), 422),
            (batch(1, 3, &[1, 2], &[]), 422),
            (batch(2, 2, &[2], &[]), 409),
        ] {
            let mut books = Books::default();
            assert_eq!(books.batch(&bad).0, status, "{bad}");
            assert_eq!(books.violations.len(), 1, "{bad}");
        }
        let mut books = Books::default();
        books.batch(&batch(1, 1, &[1], &[]));
        let mut other = batch(1, 1, &[1], &[]);
        other["events"][0]["type"] = json!("other");
        books.batch(&other);
        assert!(books.violations[0].contains("is another"));
    }

    #[test]
    fn a_backend_that_was_restored_asks_for_the_rest() {
        let mut books = Books::default();
        books.batch(&batch(1, 3, &[1, 2, 3], &[]));
        books.rewind(1);
        assert_eq!(
            books.batch(&batch(4, 4, &[4], &[])),
            (409, json!({"acknowledged": 1}))
        );
        assert_eq!(books.batch(&batch(2, 4, &[2, 3, 4], &[])).0, 200);
        assert!(books.violations.is_empty());
    }
}
