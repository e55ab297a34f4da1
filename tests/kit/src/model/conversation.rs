//! One view of a conversation, whichever wire format carried it.
//!
//! A request carries the whole conversation. What a script wants to know of it is small: the person's last prompt, how
//! many rounds of tools followed it, and what the last tool said. Agents put text of their own into user messages
//! (reminders, the environment, merged instructions); it is told from prompts by its enclosing tags. Nothing here fails:
//! what is missing or of another type is empty.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `POST /v1/messages`
    Anthropic,
    /// `POST /v1/responses`
    Responses,
    /// `POST /v1/chat/completions`
    Chat,
}

/// Who asks, told by its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Agent {
    Claude,
    Codex,
    /// The router: all that it forwards has the HTTP library's name.
    Ccr,
    Copilot,
    Other,
}

impl Agent {
    /// From the `User-Agent` header.
    #[must_use]
    pub fn of(user_agent: &str) -> Self {
        let is = |prefix: &str| user_agent.starts_with(prefix);
        if is("claude-cli/") {
            Self::Claude
        } else if is("codex") {
            Self::Codex
        } else if is("OpenAI/JS") || is("Anthropic/JS") || is("copilot") {
            Self::Copilot
        } else if user_agent == "node" {
            Self::Ccr
        } else {
            Self::Other
        }
    }
}

/// What a script may ask about a request.
#[derive(Clone, Debug)]
pub struct Conversation {
    pub dialect: Dialect,
    pub agent: Agent,
    pub model: String,
    /// The answer is wanted as a stream of events.
    pub stream: bool,
    /// A request for a title of the conversation, not a turn of it.
    pub title: bool,
    /// All system and developer text.
    pub system: String,
    /// The person's last words.
    pub prompt: String,
    /// Replies with tool calls since the prompt.
    pub round: usize,
    /// Text of the last tool result.
    pub last_result: String,
    /// Names of the tools on offer.
    pub tools: Vec<String>,
    /// The agent's directory, where its instructions name it.
    pub cwd: Option<String>,
}

impl Conversation {
    /// Reads a request's body.
    #[must_use]
    pub fn read(dialect: Dialect, agent: Agent, body: &Value) -> Self {
        let mut this = Self {
            dialect,
            agent,
            model: text(&body["model"]),
            stream: body["stream"].as_bool().unwrap_or(false),
            title: false,
            system: String::new(),
            prompt: String::new(),
            round: 0,
            last_result: String::new(),
            tools: tools_of(body),
            cwd: None,
        };
        match dialect {
            Dialect::Anthropic => this.read_anthropic(body),
            Dialect::Responses => this.read_responses(body),
            Dialect::Chat => this.read_chat(body),
        }
        this.title = wants_title(body, &this);
        if this.title {
            this.prompt = titled(&last_said(body)).to_owned();
        }
        let context = list(&body["messages"])
            .iter()
            .chain(list(&body["input"]))
            .map(|item| text(&item["content"]));
        this.cwd = std::iter::once(this.system.clone())
            .chain(context)
            .find_map(|text| working_directory(&text));
        this
    }

    fn read_anthropic(&mut self, body: &Value) {
        self.system = text(&body["system"]);
        for message in list(&body["messages"]) {
            let content = &message["content"];
            match message["role"].as_str() {
                Some("user") => {
                    for block in list(content)
                        .iter()
                        .filter(|block| block["type"] == "tool_result")
                    {
                        self.last_result = text(&block["content"]);
                    }
                    self.hear(&text(content));
                }
                Some("assistant")
                    if list(content)
                        .iter()
                        .any(|block| block["type"] == "tool_use") =>
                {
                    self.round += 1
                }
                Some("assistant") => {}
                _ => self.system.push_str(&text(content)),
            }
        }
    }

    fn read_chat(&mut self, body: &Value) {
        for message in list(&body["messages"]) {
            let content = text(&message["content"]);
            match message["role"].as_str() {
                Some("user") => self.hear(&content),
                Some("tool") => self.last_result = content,
                Some("assistant") if !list(&message["tool_calls"]).is_empty() => self.round += 1,
                Some("assistant") => {}
                _ => self.system.push_str(&content),
            }
        }
    }

    fn read_responses(&mut self, body: &Value) {
        self.system = text(&body["instructions"]);
        if let Some(prompt) = body["input"].as_str() {
            self.hear(prompt);
        }
        // Parallel calls of one reply stand side by side, followed by their results.
        let mut calling = false;
        for item in list(&body["input"]) {
            let kind = item["type"].as_str().unwrap_or("message");
            let call = kind.ends_with("_call");
            if call && !calling {
                self.round += 1;
            }
            calling = call || (calling && kind == "reasoning");
            if kind.ends_with("_call_output") {
                self.last_result = text(&item["output"]);
            } else if kind == "message" {
                match item["role"].as_str() {
                    Some("user") => self.hear(&text(&item["content"])),
                    Some("developer" | "system") => self.system.push_str(&text(&item["content"])),
                    _ => {}
                }
            }
        }
    }

    /// Takes a user message: a prompt starts its own count of rounds, an agent's context does not.
    fn hear(&mut self, message: &str) {
        let prompt = without_context(message);
        if !prompt.is_empty() {
            self.prompt = prompt.to_owned();
            self.round = 0;
        }
    }
}

/// The elements of an array; none of anything else.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// What a JSON pointer leads to; null where it leads nowhere.
pub(super) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// All text in a string, a block, or a list of blocks, tool results left out.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let texts = blocks
                .iter()
                .filter(|block| block["type"] != "tool_result")
                .map(text);
            texts
                .filter(|text| !text.is_empty())
                .collect::<Vec<_>>()
                .join("\n")
        }
        Value::Object(_) => value["text"].as_str().unwrap_or_default().to_owned(),
        _ => String::new(),
    }
}

/// Names of all tools on offer. Codex gives those of its newer models in the conversation (`additional_tools`), grouped
/// in namespaces.
fn tools_of(body: &Value) -> Vec<String> {
    let added = list(&body["input"])
        .iter()
        .filter(|item| item["type"] == "additional_tools");
    let mut open: Vec<&Value> = list(&body["tools"])
        .iter()
        .chain(added.flat_map(|item| list(&item["tools"])))
        .collect();
    let mut names = Vec::new();
    while !open.is_empty() {
        let (groups, tools): (Vec<&Value>, Vec<&Value>) = open
            .into_iter()
            .partition(|tool| tool["type"] == "namespace");
        names.extend(tools.into_iter().map(tool_name));
        open = groups
            .into_iter()
            .flat_map(|group| list(&group["tools"]))
            .collect();
    }
    names
}

fn tool_name(tool: &Value) -> String {
    let name = tool["name"]
        .as_str()
        .or_else(|| at(tool, "/function/name").as_str());
    name.or_else(|| tool["type"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// What is left of a user message without the blocks that agents add: `<tag>…</tag>`, notes of an interrupt, and
/// Codex's merged instructions.
fn without_context(message: &str) -> &str {
    let mut rest = message.trim();
    loop {
        let before = rest;
        if let Some(tagged) = rest.strip_prefix('<')
            && let Some((tag, _)) = tagged.split_once('>')
            && let Some(name) = tag
                .split_whitespace()
                .next()
                .filter(|name| !name.starts_with('/'))
            && let Some((_, after)) = rest.split_once(&format!("</{name}>"))
        {
            rest = after.trim_start();
        }
        if rest.starts_with("# AGENTS.md instructions")
            && let Some((_, after)) = rest.split_once("</INSTRUCTIONS>")
        {
            rest = after.trim_start();
        }
        // Claude Code, beside the result of a search for tools.
        if rest == "Tool loaded." {
            rest = "";
        }
        if rest.starts_with("[Request interrupted") {
            rest = rest
                .split_once(']')
                .map_or("", |(_, after)| after.trim_start());
        }
        if let Some(body) = rest.strip_suffix("</system-reminder>")
            && let Some((before, _)) = body.rsplit_once("<system-reminder>")
        {
            rest = before.trim_end();
        }
        if rest == before {
            return rest;
        }
    }
}

/// Claude Code and Codex ask for a title of the conversation in a call of its own, recognised by a schema with exactly
/// that property; through the router the schema is lost and only the instruction is left.
fn wants_title(body: &Value, conversation: &Conversation) -> bool {
    let formats = [
        at(body, "/output_config/format"),
        at(body, "/text/format"),
        at(body, "/response_format/json_schema"),
    ];
    let titled = |schema: &Value| {
        schema["properties"]
            .as_object()
            .is_some_and(|all| all.contains_key("title"))
    };
    formats.iter().any(|format| titled(&format["schema"]))
        || (conversation.tools.is_empty() && conversation.system.contains("\"title\""))
}

/// The text of the last message, as it came.
fn last_said(body: &Value) -> String {
    let messages = list(&body["messages"])
        .last()
        .or_else(|| list(&body["input"]).last());
    messages
        .map(|message| text(&message["content"]))
        .unwrap_or_default()
}

/// What a title request wants a title for: Claude Code puts it between tags, Codex behind a heading.
fn titled(message: &str) -> &str {
    let session = message
        .split_once("<session>")
        .and_then(|(_, rest)| rest.split_once("</session>"));
    let prompt = message.split_once("User prompt:").map(|(_, rest)| rest);
    session
        .map(|(session, _)| session)
        .or(prompt)
        .unwrap_or(message)
        .trim()
}

fn working_directory(context: &str) -> Option<String> {
    const MARKS: [&str; 4] = [
        "<cwd>",
        "Primary working directory: ",
        "Working directory: ",
        "working directory: ",
    ];
    let rest = MARKS
        .iter()
        .find_map(|mark| context.split_once(mark))
        .map(|(_, rest)| rest)?;
    let path = rest.split(['\n', '<']).next().unwrap_or_default().trim();
    path.starts_with('/').then(|| path.to_owned())
}

#[cfg(test)]
mod tests;
