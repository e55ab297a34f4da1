//! What was asked and answered, for tests to assert on.
//!
//! Bounded: at most [`MAX_REQUESTS`] requests and [`MAX_BYTES`] of bodies are kept; the oldest go first and are
//! counted. Credentials are kept as they came, because which one arrived is the point of many tests.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::conversation::{Agent, Conversation, Dialect};

/// Requests kept.
pub const MAX_REQUESTS: usize = 4096;
/// Bytes of request and response bodies kept.
pub const MAX_BYTES: usize = 96 << 20;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Not yet.
    Open,
    /// The whole answer was handed to the connection.
    Complete,
    /// The client closed before that.
    ClientLeft,
    /// The script's fault happened.
    Fault,
}

/// One request and its answer.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Counts from 1.
    pub seq: u64,
    /// Milliseconds since the upstream started.
    pub at_ms: u64,
    pub method: String,
    /// With its query, as received.
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub agent: Agent,
    /// Nothing for requests that are no generation.
    pub dialect: Option<Dialect>,
    /// A request for a title.
    pub title: bool,
    pub model: String,
    pub prompt: String,
    pub round: usize,
    /// The rule that answered.
    pub rule: String,
    pub status: u16,
    /// The provider's id of the generation.
    pub generation: String,
    pub outcome: Outcome,
    /// The body that was sent, byte for byte.
    pub sent: Vec<u8>,
}

impl Recorded {
    /// The first header of this name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The credential, whichever header carried it.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        let bearer = self
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "));
        self.header("x-api-key").or(bearer)
    }

    /// Whether `secret` stands anywhere in the path, the headers or the body.
    #[must_use]
    pub fn mentions(&self, secret: &str) -> bool {
        let within = |bytes: &[u8]| {
            bytes
                .windows(secret.len().max(1))
                .any(|window| window == secret.as_bytes())
        };
        within(self.path.as_bytes())
            || within(&self.body)
            || self
                .headers
                .iter()
                .any(|(name, value)| within(name.as_bytes()) || within(value.as_bytes()))
    }

    /// A turn of a conversation: a generation that is not a title.
    #[must_use]
    pub fn is_turn(&self) -> bool {
        self.dialect.is_some() && !self.title
    }

    /// For the control port.
    pub(super) fn to_json(&self) -> Value {
        let body = serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&self.body).into_owned()));
        json!({
            "seq": self.seq, "at_ms": self.at_ms, "method": self.method, "path": self.path, "headers": self.headers,
            "body_bytes": self.body.len(), "body": body, "agent": self.agent, "dialect": self.dialect,
            "title": self.title, "model": self.model, "prompt": self.prompt, "round": self.round, "rule": self.rule,
            "status": self.status, "generation": self.generation, "outcome": self.outcome,
            "sent": String::from_utf8_lossy(&self.sent),
        })
    }

    fn weight(&self) -> usize {
        self.body.len() + self.sent.len()
    }
}

/// The bounded list.
#[derive(Debug, Default)]
pub(super) struct Record {
    all: VecDeque<Recorded>,
    bytes: usize,
    last: u64,
    dropped: u64,
}

impl Record {
    /// Takes up a request; returns its number.
    pub(super) fn add(&mut self, mut recorded: Recorded) -> u64 {
        self.last += 1;
        recorded.seq = self.last;
        self.bytes += recorded.weight();
        self.all.push_back(recorded);
        self.trim();
        self.last
    }

    /// Changes one that is still kept.
    pub(super) fn with(&mut self, seq: u64, change: impl FnOnce(&mut Recorded)) {
        if let Some(recorded) = self
            .all
            .iter_mut()
            .rev()
            .find(|recorded| recorded.seq == seq)
        {
            let before = recorded.weight();
            change(recorded);
            self.bytes = self.bytes + recorded.weight() - before;
            self.trim();
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Recorded> {
        self.all.iter()
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Forgets everything but the numbering.
    pub(super) fn clear(&mut self) {
        self.all.clear();
        self.bytes = 0;
        self.dropped = 0;
    }

    fn trim(&mut self) {
        while self.all.len() > MAX_REQUESTS || (self.bytes > MAX_BYTES && self.all.len() > 1) {
            let Some(oldest) = self.all.pop_front() else {
                return;
            };
            self.bytes -= oldest.weight();
            self.dropped += 1;
        }
    }
}

/// The parts of a record that the conversation gives.
pub(super) fn describe(recorded: &mut Recorded, conversation: &Conversation) {
    recorded.dialect = Some(conversation.dialect);
    recorded.title = conversation.title;
    recorded.model.clone_from(&conversation.model);
    recorded.prompt.clone_from(&conversation.prompt);
    recorded.round = conversation.round;
}

#[cfg(test)]
pub(super) fn blank() -> Recorded {
    Recorded {
        seq: 0,
        at_ms: 0,
        method: "POST".into(),
        path: "/".into(),
        headers: Vec::new(),
        body: Bytes::new(),
        agent: Agent::Other,
        dialect: None,
        title: false,
        model: String::new(),
        prompt: String::new(),
        round: 0,
        rule: String::new(),
        status: 200,
        generation: String::new(),
        outcome: Outcome::Open,
        sent: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_at_the_bound() {
        let mut record = Record::default();
        for _ in 0..MAX_REQUESTS + 3 {
            record.add(blank());
        }
        assert_eq!((record.all().count(), record.dropped()), (MAX_REQUESTS, 3));
        assert_eq!(record.all().next().unwrap().seq, 4);
        record.with(5, |recorded| recorded.sent = vec![0; MAX_BYTES + 1]);
        assert_eq!(
            record.bytes,
            record.all().map(Recorded::weight).sum::<usize>()
        );
        assert!(record.bytes <= MAX_BYTES);
    }

    #[test]
    fn a_secret_is_found_wherever_it_stands() {
        let mut recorded = blank();
        assert!(!recorded.mentions("s3cret"));
        recorded.headers = vec![("cookie".into(), "a=s3cret".into())];
        assert!(recorded.mentions("s3cret"));
    }
}
