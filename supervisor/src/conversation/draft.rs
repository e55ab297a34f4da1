//! A turn while it is made: parts within the bounds of one turn.

use serde_json::Value;
use whim_wire::conversation::{Part, Role, Turn};

use super::object::{Object, list, text, tree};

/// Text that one turn holds in all, in bytes; parts beyond are empty and say what they left out.
const TURN_MAX: usize = 1024 * 1024;
/// Most parts of one turn; the last says how many there were beyond.
const PARTS_MAX: usize = 500;
/// Longest name or id, in bytes.
const NAME_MAX: usize = 1024;

/// What a record comes to.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) turn: Turn,
    left: usize,
    beyond: usize,
}

impl Draft {
    /// Nothing is known yet; `record` is the agent's name of it.
    pub(super) fn new(role: Role, record: String) -> Self {
        Self {
            turn: Turn {
                id: String::new(),
                offset: 0,
                bytes: 0,
                role,
                at: None,
                record,
                record_id: None,
                parent_id: None,
                subagent: None,
                model: None,
                generation: None,
                stop_reason: None,
                parts: Vec::new(),
                usage: None,
            },
            left: TURN_MAX,
            beyond: 0,
        }
    }

    fn push(&mut self, part: Part) {
        if self.turn.parts.len() < PARTS_MAX {
            self.turn.parts.push(part);
        } else {
            self.beyond += 1;
        }
    }

    fn cut(&mut self, text: &str, most: usize) -> (String, u64) {
        let length = text.floor_char_boundary(most.min(self.left));
        let kept = text.get(..length).unwrap_or_default();
        self.left -= kept.len();
        (kept.to_owned(), (text.len() - kept.len()) as u64)
    }

    pub(super) fn text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let (text, omitted_bytes) = self.cut(text, Part::TEXT_MAX);
        self.push(Part::Text {
            text,
            omitted_bytes,
        });
    }

    pub(super) fn thinking(&mut self, text: &str) {
        let (text, omitted_bytes) = self.cut(text, Part::TEXT_MAX);
        self.push(Part::Thinking {
            text,
            omitted_bytes,
        });
    }

    /// `input`: JSON.
    pub(super) fn call(&mut self, call_id: Option<String>, name: String, input: &str) {
        let (input, omitted_bytes) = match tree(input, Part::TEXT_MAX.min(self.left)) {
            Some(value) => {
                self.left -= input.len();
                (value, 0)
            }
            None => {
                let (start, omitted) = self.cut(input, Part::RAW_MAX);
                (Value::String(start), omitted)
            }
        };
        self.push(Part::ToolCall {
            call_id,
            name,
            input,
            omitted_bytes,
        });
    }

    pub(super) fn result(
        &mut self,
        call_id: Option<String>,
        text: &str,
        failed: Option<bool>,
        subagent: Option<String>,
    ) {
        let (text, omitted_bytes) = self.cut(text, Part::TEXT_MAX);
        self.push(Part::ToolResult {
            call_id,
            text,
            failed,
            subagent,
            omitted_bytes,
        });
    }

    pub(super) fn subagent(
        &mut self,
        id: String,
        call_id: Option<String>,
        name: String,
        state: String,
    ) {
        self.push(Part::Subagent {
            id,
            call_id,
            name,
            state,
        });
    }

    pub(super) fn attachment(&mut self, name: &str) {
        let (name, _) = self.cut(name, NAME_MAX);
        self.push(Part::Attachment { name });
    }

    pub(super) fn notice(&mut self, kind: &str, text: &str) {
        let (text, omitted_bytes) = self.cut(text, Part::TEXT_MAX);
        self.push(Part::Notice {
            kind: kind.to_owned(),
            text,
            omitted_bytes,
        });
    }

    pub(super) fn raw(&mut self, text: &str) {
        let (text, omitted_bytes) = self.cut(text, Part::RAW_MAX);
        self.push(Part::Raw {
            text,
            omitted_bytes,
        });
    }

    /// Text that comes as a string or as a list of blocks, some of which may be images: a tool's result.
    pub(super) fn flat(&mut self, raw: &str) -> String {
        if let Some(text) = text(raw) {
            return text;
        }
        let Some(blocks) = list(raw) else {
            return raw.to_owned();
        };
        let mut flat = String::new();
        for block in blocks {
            let piece = Object::parse(block).map_or_else(
                || text(block).unwrap_or_else(|| block.to_owned()),
                |block_object| match block_object.text("text") {
                    Some(text) => text,
                    None => match media(&block_object) {
                        Some(name) => {
                            self.attachment(&name);
                            String::new()
                        }
                        None => block.to_owned(),
                    },
                },
            );
            if !flat.is_empty() && !piece.is_empty() {
                flat.push('\n');
            }
            flat.push_str(&piece);
        }
        flat
    }

    pub(super) fn done(mut self) -> Turn {
        if self.beyond > 0 {
            self.turn.parts.push(Part::Notice {
                kind: "more_parts".into(),
                text: self.beyond.to_string(),
                omitted_bytes: 0,
            });
        }
        let turn = &mut self.turn;
        clip(&mut turn.record);
        let names = [
            &mut turn.record_id,
            &mut turn.parent_id,
            &mut turn.subagent,
            &mut turn.model,
            &mut turn.generation,
            &mut turn.stop_reason,
        ];
        names.into_iter().flatten().for_each(clip);
        for part in &mut turn.parts {
            match part {
                Part::ToolCall { call_id, name, .. } => {
                    call_id.iter_mut().for_each(clip);
                    clip(name);
                }
                Part::ToolResult {
                    call_id, subagent, ..
                } => {
                    [call_id, subagent].into_iter().flatten().for_each(clip);
                }
                Part::Subagent {
                    id,
                    call_id,
                    name,
                    state,
                } => {
                    [id, name, state].into_iter().for_each(clip);
                    call_id.iter_mut().for_each(clip);
                }
                Part::Notice { kind, .. } => clip(kind),
                Part::Text { .. }
                | Part::Thinking { .. }
                | Part::Attachment { .. }
                | Part::Raw { .. } => {}
            }
        }
        self.turn
    }
}

/// Shortens a name to what no agent's own is longer than.
fn clip(name: &mut String) {
    name.truncate(name.floor_char_boundary(NAME_MAX));
}

/// The media type of an image or document block, of Anthropic's or OpenAI's shape.
pub(super) fn media(block: &Object<'_>) -> Option<String> {
    let kind = block.word("type");
    match kind.as_str() {
        "image" | "document" => {
            let source = block.object("source").unwrap_or_default();
            let named = source
                .text("media_type")
                .or_else(|| block.text("mimeType"))
                .or_else(|| block.text("title"));
            Some(named.unwrap_or(kind))
        }
        "input_image" | "input_file" | "image_url" | "input_audio" | "local_image" => {
            let of_data = |url: String| {
                let media = url.strip_prefix("data:")?.split([';', ',']).next()?;
                Some(media.to_owned())
            };
            let named = block
                .text("image_url")
                .and_then(of_data)
                .or_else(|| block.text("filename"))
                .or_else(|| block.text("path"));
            Some(named.unwrap_or(kind))
        }
        _ => None,
    }
}
