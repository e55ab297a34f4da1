//! Lines as Claude Code 2.1.197 writes them: prompts, answers that call a tool, and what the tool said.
//!
//! What tools say is made of the lines of one repository, as what an agent reads is: the same lines come again and again.
//! Ids are random, times go on.

use std::fmt::Write as _;

use serde_json::json;

use crate::words::{Language, Random};

/// Lines of the repository that the agent reads.
const SOURCE: usize = 20_000;
/// When the first line was written.
const BEGIN: i64 = 1_790_000_000_000;

/// Somebody who writes a transcript.
pub(crate) struct Writer {
    random: Random,
    language: Language,
    source: Vec<String>,
    written: i64,
}

impl Writer {
    pub(crate) fn new(mut random: Random) -> Self {
        let language = Language::new(&mut random);
        let mut source = Vec::with_capacity(SOURCE);
        for _ in 0..SOURCE {
            let mut word = || language.word(&mut random).to_owned();
            let (name, of, with) = (word(), word(), word());
            source.push(match random.below(5) {
                0 => format!("    let {name} = self.{of}.{with}(&{name})?;"),
                1 => format!("        if {name}.{of}() > {} {{", random.below(1000)),
                2 => format!("    /// The {name} of \"{of}\", {with} otherwise."),
                3 => format!("use crate::{name}::{of}::{with};"),
                _ => "    }".to_owned(),
            });
        }
        Self {
            random,
            language,
            source,
            written: 0,
        }
    }

    /// Whole lines of `bytes` bytes or a little more.
    pub(crate) fn lines(&mut self, bytes: usize) -> String {
        let mut lines = String::with_capacity(bytes + 64 * 1024);
        let session = self.uuid();
        let mut parent = self.uuid();
        while lines.len() < bytes {
            let tool = format!("toolu_{}", self.hex(16));
            for message in [self.says(&tool), self.hears(&tool)] {
                let own = self.uuid();
                self.written += 1;
                let at = jiff::Timestamp::from_millisecond(BEGIN + self.written * 700);
                let line = json!({
                    "parentUuid": parent, "isSidechain": false, "type": message["role"], "message": message,
                    "uuid": own, "timestamp": at.unwrap_or_default().to_string(), "userType": "external",
                    "entrypoint": "cli", "cwd": "/app/repo", "sessionId": session, "version": "2.1.197",
                    "gitBranch": "main",
                });
                // Writing to a String cannot fail.
                let _ = writeln!(lines, "{line}");
                parent = own;
            }
        }
        lines
    }

    fn says(&mut self, tool: &str) -> serde_json::Value {
        let path = format!("src/{}.rs", self.language.word(&mut self.random));
        let input = if self.random.below(3) == 0 {
            let (old, new) = (self.code(4), self.code(6));
            json!({"file_path": path, "old_string": old, "new_string": new})
        } else {
            json!({"file_path": path})
        };
        let text = self.language.text(&mut self.random);
        json!({
            "id": format!("msg_{}", self.hex(20)), "type": "message", "role": "assistant", "model": "claude-opus-4-8",
            "content": [{"type": "text", "text": text},
                {"type": "tool_use", "id": tool, "name": "Read", "input": input}],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": self.random.below(2000), "cache_creation_input_tokens": self.random.below(9000),
                "cache_read_input_tokens": self.random.below(150_000), "output_tokens": self.random.below(3000),
                "service_tier": "standard"},
        })
    }

    fn hears(&mut self, tool: &str) -> serde_json::Value {
        let lines = [10, 40, 120, 300][self.random.below(4)];
        let content = self.code(lines);
        json!({"role": "user", "content": [{"tool_use_id": tool, "type": "tool_result", "content": content}]})
    }

    /// Lines that follow each other in the repository.
    fn code(&mut self, lines: usize) -> String {
        let from = self.random.below(SOURCE - lines);
        self.source[from..from + lines].join("\n")
    }

    fn uuid(&mut self) -> String {
        let parts = [8, 4, 4, 4, 12].map(|digits| self.hex(digits));
        parts.join("-")
    }

    fn hex(&mut self, digits: usize) -> String {
        let mut hex = String::new();
        while hex.len() < digits {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{:016x}", self.random.next());
        }
        hex.truncate(digits);
        hex
    }
}
