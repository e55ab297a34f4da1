//! Server-sent events, read as their bytes come.

use serde_json::Value;

/// An event of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub event: String,
    pub data: String,
}

impl Event {
    /// The data as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or(Value::Null)
    }
}

/// Takes the bytes of an event stream as they come and gives the events that are complete
/// (<https://html.spec.whatwg.org/multipage/server-sent-events.html>). Holds the one event that is not.
#[derive(Debug, Default)]
pub struct EventReader {
    pending: Vec<u8>,
    event: Event,
}

impl EventReader {
    /// The events that these bytes complete.
    pub fn take(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                events.extend((event != Event::default()).then_some(event));
            } else {
                self.field(line);
            }
        }
        events
    }

    fn field(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.event.id),
            "event" => value.clone_into(&mut self.event.event),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // Comments have an empty name.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_wherever_the_bytes_are_cut() {
        let stream =
            ": hello\n\nid: 7\nevent: port.opened\ndata: {\"a\":\ndata: \"ä\"}\n\ndata: x\r\n\r\n"
                .as_bytes();
        for cut in 0..=stream.len() {
            let mut reader = EventReader::default();
            let (head, tail) = stream.split_at(cut);
            let mut events = reader.take(head);
            events.extend(reader.take(tail));
            assert_eq!(events.len(), 2, "cut at {cut}");
            assert_eq!(
                (events[0].id.as_str(), events[0].event.as_str()),
                ("7", "port.opened")
            );
            assert_eq!(events[0].json(), serde_json::json!({"a": "ä"}));
            assert_eq!(events[1].data, "x");
        }
    }
}
