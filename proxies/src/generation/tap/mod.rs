//! Reads an answer while it passes: ids, model, stop reason, tool use, usage, errors, progress.
//!
//! Pure: decoded body bytes in, an [`Answer`] that grows out. It promises the same answer however the bytes are
//! split, flat memory however long they are, and no opinion on whether they should pass. Whether the body is an event
//! stream or one JSON document is decided by its first byte, since a stream may come without a content type and an
//! error may answer a request for a stream.

mod anthropic;
mod chat;
mod responses;

use whim_wire::generation::Usage;

use super::json::{Path, Reader, Scalar, Visit};
use super::route::Format;
use super::sse::{Parser, Piece};
use super::usage::Reported;

/// Bytes of an id that are kept, as the contract says.
const ID: usize = 256;

/// An error that an answer carried, in the provider's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorSeen {
    /// Type or code.
    pub kind: String,
    /// Message, cut to 256 bytes.
    pub message: String,
}

/// What is known of an answer so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The provider's id in the body.
    pub id: Option<String>,
    /// Model that answers.
    pub model: Option<String>,
    /// Why it stopped, in the provider's word; the final status for responses.
    pub stop_reason: Option<String>,
    /// Whether a tool was called.
    pub tool_use: bool,
    /// The event that ends this format's answers has passed.
    pub terminal: bool,
    /// An error in the body.
    pub error: Option<ErrorSeen>,
    /// Token counts and cost.
    pub reported: Reported,
    /// Bytes of generated text so far, as written in JSON.
    pub generated_bytes: u64,
    /// Events (or documents) read to their end.
    pub events: u64,
    /// Events that carried generated content.
    pub progress: u64,
}

impl Answer {
    /// Tokens generated so far, estimated upwards from what passed: providers put at least one token in an event, and
    /// a token of code or prose is rarely shorter than three bytes.
    #[must_use]
    pub fn estimated_output(&self) -> u64 {
        let by_bytes = self.generated_bytes.div_ceil(3);
        by_bytes
            .max(self.progress)
            .max(self.reported.output().unwrap_or(0))
    }

    /// Disjoint token buckets, if the answer reported any.
    #[must_use]
    pub fn usage(&self, format: Format, one_hour: bool) -> Option<Usage> {
        self.reported.buckets(format, one_hour)
    }
}

/// What one event (or document) said; emptied at its end.
#[derive(Debug, Default)]
struct Event {
    kind: String,
    id: String,
    model: String,
    stop: String,
    error: Option<ErrorSeen>,
    reported: Reported,
    tool_use: bool,
    generated: u64,
    content: bool,
}

impl Event {
    fn clear(&mut self) {
        self.kind.clear();
        self.id.clear();
        self.model.clear();
        self.stop.clear();
        self.error = None;
        if !self.reported.is_empty() {
            self.reported = Reported::default();
        }
        self.tool_use = false;
        self.generated = 0;
        self.content = false;
    }

    fn error_kind(&mut self, text: &str) {
        text.clone_into(&mut self.error.get_or_insert_default().kind);
    }

    fn error_message(&mut self, text: &str) {
        text.clone_into(&mut self.error.get_or_insert_default().message);
    }

    fn generate(&mut self, written: u64) {
        self.content = true;
        self.generated = self.generated.saturating_add(written);
    }
}

struct Visitor<'a> {
    format: Format,
    event: &'a mut Event,
}

impl Visit for Visitor<'_> {
    fn scalar(&mut self, path: &Path, value: Scalar<'_>) {
        match self.format {
            Format::Anthropic => anthropic::scalar(self.event, path, value),
            Format::Responses => responses::scalar(self.event, path, value),
            Format::Chat => chat::scalar(self.event, path, value),
        }
    }

    fn open(&mut self, path: &Path) {
        if path.is(&["error"]) || path.is(&["response", "error"]) {
            self.event.error.get_or_insert_default();
        }
    }
}

#[derive(Debug)]
enum Body {
    Unknown,
    Stream(Parser),
    Document,
}

/// Reads one answer.
#[derive(Debug)]
pub struct Tap {
    format: Format,
    body: Body,
    reader: Reader,
    event: Event,
    /// First bytes of an event's data, to know `[DONE]`.
    first: [u8; 8],
    first_len: usize,
    comments: u64,
    answer: Answer,
}

impl Tap {
    /// A tap on an answer in this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            format,
            body: Body::Unknown,
            reader: Reader::default(),
            event: Event::default(),
            first: [0; 8],
            first_len: 0,
            comments: 0,
            answer: Answer::default(),
        }
    }

    /// What is known so far.
    #[must_use]
    pub const fn answer(&self) -> &Answer {
        &self.answer
    }

    /// Comment lines seen: life of the transport, not of the model.
    #[must_use]
    pub const fn comments(&self) -> u64 {
        self.comments
    }

    /// Whether the body is an event stream; false while nothing was seen.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        matches!(self.body, Body::Stream(_))
    }

    /// Whether the bytes so far end between two events, where another may be put in.
    #[must_use]
    pub fn between_events(&self) -> bool {
        match &self.body {
            Body::Stream(parser) => parser.between_events(),
            _ => false,
        }
    }

    /// Takes the next decoded bytes of the body.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        if matches!(self.body, Body::Unknown) {
            // Blanks before the first byte are nobody's, whether they come with it or before it.
            bytes = bytes.trim_ascii_start();
            self.body = match bytes.first() {
                None => return,
                Some(b'{') => Body::Document,
                Some(_) => Body::Stream(Parser::default()),
            };
        }
        if let Body::Stream(mut parser) = std::mem::replace(&mut self.body, Body::Document) {
            parser.feed(bytes, &mut |piece| self.piece(piece));
            self.body = Body::Stream(parser);
        } else {
            self.read(bytes);
            if self.reader.done() && self.answer.events == 0 {
                self.end_document();
            }
        }
    }

    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Data(bytes) => {
                for byte in bytes {
                    let Some(slot) = self.first.get_mut(self.first_len) else {
                        break;
                    };
                    *slot = *byte;
                    self.first_len += 1;
                }
                self.read(bytes);
            }
            Piece::Comment => self.comments += 1,
            Piece::End => {
                if self.first.get(..self.first_len) == Some(b"[DONE]") {
                    self.answer.terminal = true;
                }
                self.first_len = 0;
                self.end_data();
            }
        }
    }

    /// Takes one whole event, as a message of a WebSocket carries it: what is an event's data in a stream.
    pub fn event(&mut self, data: &[u8]) {
        self.read(data);
        self.end_data();
    }

    fn end_data(&mut self) {
        let mut visitor = Visitor {
            format: self.format,
            event: &mut self.event,
        };
        self.reader.finish(&mut visitor);
        self.reader.reset();
        self.end_event();
    }

    fn read(&mut self, bytes: &[u8]) {
        let mut visitor = Visitor {
            format: self.format,
            event: &mut self.event,
        };
        self.reader.feed(bytes, &mut visitor);
    }

    fn end_document(&mut self) {
        self.event.content = false;
        self.end_event();
        self.answer.terminal = true;
    }

    fn end_event(&mut self) {
        let (event, answer) = (&mut self.event, &mut self.answer);
        answer.events += 1;
        answer.progress += u64::from(event.content);
        answer.generated_bytes = answer.generated_bytes.saturating_add(event.generated);
        answer.tool_use |= event.tool_use;
        if answer.id.is_none() && !event.id.is_empty() {
            answer.id = Some(cut(&event.id));
        }
        if !event.model.is_empty() && answer.model.as_deref() != Some(&event.model) {
            answer.model = Some(cut(&event.model));
        }
        if !event.stop.is_empty() {
            answer.stop_reason = Some(cut(&event.stop));
        }
        if !event.reported.is_empty() {
            answer.reported.update(std::mem::take(&mut event.reported));
        }
        if answer.error.is_none() {
            answer.error = event.error.take();
        }
        answer.terminal |= match self.format {
            Format::Anthropic => event.kind == "message_stop",
            Format::Responses => responses::is_terminal(&event.kind),
            Format::Chat => false,
        };
        event.clear();
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(ID);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
