//! What a request's body says, read while it passes: model, limits, stream, tools, purpose.
//!
//! Pure and in flat memory. The estimate of prompt tokens is meant to be high enough for a reservation and is settled
//! by the provider's count; inlined files (base64) are counted apart, for their length says little about tokens.

use super::json::{Path, Reader, Scalar, Visit};
use super::usage::Terms;

/// Prompt bytes per token, for a reservation: JSON of prose and code has about four.
const BYTES_PER_TOKEN: u64 = 4;
/// A string of this length under `data` or `url` is a file.
const FILE_BYTES: u64 = 4096;
/// Base64 bytes per token of a file: a page of a PDF or a picture costs 1,500 tokens or more per some 100 kB.
const FILE_BYTES_PER_TOKEN: u64 = 32;
/// Models listed as fallbacks that are priced.
const FALLBACKS: usize = 16;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Model asked for.
    pub model: Option<String>,
    /// Models that may answer instead (OpenRouter's `models`).
    pub fallbacks: Vec<String>,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// Output tokens at most of each answer, where the request says so.
    pub max_output: Option<u64>,
    /// Answers asked for at once (`n` of chat completions), where the request says so. The prompt is paid for once.
    pub answers: Option<u64>,
    /// Whether the answer is to be made after the call has ended (`background` of responses).
    pub background: bool,
    /// Whether it offers tools.
    pub tools: bool,
    /// Whether it wants an answer in a JSON schema.
    pub schema: bool,
    /// Whether it asks for a cache that lives an hour.
    pub one_hour: bool,
    /// Service tier asked for.
    pub tier: Option<String>,
    /// Whether it asks for Anthropic's fast mode.
    pub fast: bool,
    /// Region that inference is to be bound to.
    pub geo: Option<String>,
    /// Only prepares a later call and generates nothing (`generate: false` of the Responses API's WebSocket).
    pub warm_up: bool,
    /// The response that this one continues: its conversation is part of the prompt, but not of the body.
    pub previous: Option<String>,
    /// Tokens of that conversation, as far as they are known.
    pub carried: u64,
    /// Bytes of the decoded body.
    pub bytes: u64,
    file_bytes: u64,
}

impl Request {
    /// Prompt tokens, estimated.
    #[must_use]
    pub const fn estimated_prompt(&self) -> u64 {
        let text = self.bytes.saturating_sub(self.file_bytes);
        let own = text.div_ceil(BYTES_PER_TOKEN) + self.file_bytes.div_ceil(FILE_BYTES_PER_TOKEN);
        own.saturating_add(self.carried)
    }

    /// The terms that are asked for.
    #[must_use]
    pub fn terms(&self) -> Terms<'_> {
        Terms {
            tier: self.tier.as_deref(),
            fast: self.fast,
            geo: self.geo.as_deref(),
            web_searches: 0,
        }
    }

    /// Output tokens at most of all answers together, where the request says so.
    #[must_use]
    pub fn most_output(&self) -> Option<u64> {
        self.max_output.map(|limit| self.of_all(limit))
    }

    /// As many tokens for each of the answers.
    #[must_use]
    pub fn of_all(&self, tokens: u64) -> u64 {
        tokens.saturating_mul(self.answers.unwrap_or(1).max(1))
    }

    /// Whether this looks like housekeeping beside the agent's turn: Claude Code asks for a title with a schema and
    /// without tools; Codex warms a connection up before anybody has said anything.
    #[must_use]
    pub const fn is_side_call(&self) -> bool {
        self.warm_up || (self.schema && !self.tools)
    }
}

/// Reads a body.
#[derive(Debug, Default)]
pub struct RequestReader {
    reader: Reader,
    found: Found,
}

#[derive(Debug, Default)]
struct Found(Request);

impl RequestReader {
    /// Takes the next decoded bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.found.0.bytes = self.found.0.bytes.saturating_add(bytes.len() as u64);
        self.reader.feed(bytes, &mut self.found);
    }

    /// What was read so far.
    #[must_use]
    pub const fn request(&self) -> &Request {
        &self.found.0
    }

    /// Whether a whole JSON document was read.
    #[must_use]
    pub const fn complete(&self) -> bool {
        self.reader.done()
    }
}

impl Visit for Found {
    fn scalar(&mut self, path: &Path, value: Scalar<'_>) {
        let request = &mut self.0;
        if path.len() > 3 {
            if let Scalar::Text(text, written) = value {
                let key = path.key(path.len() - 1);
                if written > FILE_BYTES && matches!(key, b"data" | b"url" | b"file_data") {
                    request.file_bytes = request.file_bytes.saturating_add(written);
                }
                request.one_hour |= key == b"ttl" && text == "1h";
            }
            return;
        }
        match (path.key(0), value, path.len()) {
            (b"model", Scalar::Text(text, _), 1) => request.model = Some(text.to_owned()),
            (b"models", Scalar::Text(text, _), 2) if request.fallbacks.len() < FALLBACKS => {
                request.fallbacks.push(text.to_owned());
            }
            (b"stream", Scalar::Bool(stream), 1) => request.stream = stream,
            (b"generate", Scalar::Bool(generate), 1) => request.warm_up = !generate,
            (b"previous_response_id", Scalar::Text(id, _), 1) => {
                request.previous = Some(id.to_owned());
            }
            (
                b"max_tokens" | b"max_output_tokens" | b"max_completion_tokens",
                Scalar::Number(text),
                1,
            ) => {
                if let Ok(limit) = text.parse() {
                    // Two names at once: which of them counts is the provider's to say.
                    request.max_output = request.max_output.max(Some(limit));
                }
            }
            (b"n", Scalar::Number(text), 1) => request.answers = text.parse().ok(),
            (b"background", Scalar::Bool(background), 1) => request.background = background,
            (b"service_tier", Scalar::Text(text, _), 1) => request.tier = Some(text.to_owned()),
            (b"speed", Scalar::Text(speed, _), 1) => request.fast = speed == "fast",
            (b"inference_geo", Scalar::Text(geo, _), 1) => request.geo = Some(geo.to_owned()),
            (_, Scalar::Text("json_schema" | "json_object", _), 2 | 3) => {
                request.schema |= path.is(&["output_config", "format", "type"])
                    || path.is(&["output_format", "type"])
                    || path.is(&["response_format", "type"])
                    || path.is(&["text", "format", "type"]);
            }
            (b"cache_control", Scalar::Text("1h", _), 2) => {
                request.one_hour |= path.key(1) == b"ttl"
            }
            (_, Scalar::Text("1h", _), 3) => request.one_hour |= path.key(2) == b"ttl",
            _ => {}
        }
    }

    fn open(&mut self, path: &Path) {
        // The first element of `tools`, not the array itself.
        if path.len() == 2 && path.key(0) == b"tools" {
            self.0.tools = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Request {
        let mut reader = RequestReader::default();
        for chunk in body.as_bytes().chunks(7) {
            reader.feed(chunk);
        }
        assert!(reader.complete(), "{body}");
        reader.request().clone()
    }

    #[test]
    fn a_turn_of_claude_code() {
        let r = read(
            r#"{"model":"claude-opus-4-8","messages":[{"role":"user","content":[{"type":"text","text":"model",
            "cache_control":{"type":"ephemeral","ttl":"1h"}}]}],"tools":[{"name":"Bash"}],"max_tokens":64000,
            "thinking":{"type":"adaptive"},"output_config":{"effort":"high"},"stream":true}"#,
        );
        assert_eq!(r.model.as_deref(), Some("claude-opus-4-8"));
        assert_eq!(
            (r.stream, r.max_output, r.tools, r.schema, r.one_hour),
            (true, Some(64000), true, false, true)
        );
        assert!(!r.is_side_call());
    }

    #[test]
    fn a_title_is_a_side_call() {
        let r = read(
            r#"{"model":"m","tools":[],"output_config":{"format":{"type":"json_schema","schema":{}}},"stream":true}"#,
        );
        assert!(r.is_side_call());
        assert!(read(r#"{"response_format":{"type":"json_schema"}}"#).is_side_call());
        assert!(
            !read(r#"{"tools":[{"name":"x"}],"text":{"format":{"type":"json_schema"}}}"#)
                .is_side_call()
        );
    }

    #[test]
    fn limits_that_are_no_numbers_are_passed_over() {
        let r =
            read(r#"{"max_tokens":18446744073709551615,"max_output_tokens":"9","stream":"true"}"#);
        assert_eq!((r.max_output, r.stream), (Some(u64::MAX), false));
        assert_eq!(
            read(r#"{"max_tokens":-1,"models":["a","b"]}"#).fallbacks,
            ["a", "b"]
        );
    }

    #[test]
    fn what_multiplies_or_outlives_an_answer_is_read() {
        let r = read(r#"{"n":8,"max_tokens":100,"max_completion_tokens":50,"background":true}"#);
        assert_eq!((r.most_output(), r.background), (Some(800), true));
        let r = read(r#"{"n":0,"max_tokens":100,"background":"true","messages":[{"n":9}]}"#);
        assert_eq!((r.most_output(), r.background), (Some(100), false));
    }

    #[test]
    fn files_count_little() {
        let text = "x".repeat(400_000);
        let plain = read(&format!(r#"{{"messages":[{{"content":"{text}"}}]}}"#));
        assert!(plain.estimated_prompt() >= 100_000);
        let file = read(&format!(
            r#"{{"messages":[{{"content":[{{"source":{{"data":"{text}"}}}}]}}]}}"#
        ));
        assert!(
            (5_000..20_000).contains(&file.estimated_prompt()),
            "{}",
            file.estimated_prompt()
        );
    }
}
