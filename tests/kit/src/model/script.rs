//! The script: which answer the scripted model gives to which conversation.
//!
//! A script is a list of rules; the first rule that matches and is not used up answers. A rule's replies are by *round*:
//! the first answers the prompt, the second the results of the first reply's tools, and so on; past its last reply a
//! rule no longer matches. What no rule answers, directives in the prompt do ([`super::directives`]), else `fallback`.
//! As JSON every field is optional and an unknown one is refused, so that a misspelt script fails when it is loaded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conversation::{Agent, Conversation, Dialect};

/// All that the scripted model knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Tried in order.
    pub rules: Vec<Rule>,
    /// Obey `[[…]]` in prompts that no rule answers.
    pub directives: bool,
    /// Answers what nothing else does.
    pub fallback: Reply,
    /// 401 for a request that does not carry this value as bearer or `x-api-key`.
    pub require_key: Option<String>,
    /// `GET /v1/responses` switches to a WebSocket.
    pub websocket: bool,
    /// Listed by `GET /v1/models`.
    pub models: Vec<String>,
    /// How often `GET /api/v1/generation` says 404 for an id before it answers, as OpenRouter does for some time.
    pub generation_misses: u32,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            directives: true,
            fallback: Reply::say("All done."),
            require_key: None,
            websocket: false,
            models: [
                "claude-opus-4-8",
                "gpt-5.1-codex",
                "anthropic/claude-sonnet-4.5",
            ]
            .map(String::from)
            .to_vec(),
            generation_misses: 0,
        }
    }
}

impl Script {
    /// A script of these rules.
    #[must_use]
    pub fn of(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            rules: rules.into_iter().collect(),
            ..Self::default()
        }
    }
}

/// One rule: a condition and the replies by round.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Shown in the record of every request it answered.
    pub name: String,
    /// Matches everything but title requests when left out.
    pub when: When,
    /// How many requests it answers before it is used up; no limit when left out.
    pub times: Option<u32>,
    /// Answer every round with the first reply.
    pub every_round: bool,
    /// Directives in the prompt go before this rule.
    pub after_directives: bool,
    /// By round.
    pub replies: Vec<Reply>,
}

impl Rule {
    /// A rule that answers prompts which contain `text` with these replies, one per round.
    #[must_use]
    pub fn prompt(text: impl Into<String>, replies: impl IntoIterator<Item = Reply>) -> Self {
        let text = text.into();
        Self {
            name: text.clone(),
            when: When {
                prompt_contains: Some(text),
                ..When::default()
            },
            replies: replies.into_iter().collect(),
            ..Self::default()
        }
    }

    /// A rule that answers everything, in any round, with one reply.
    #[must_use]
    pub fn always(reply: Reply) -> Self {
        Self {
            name: "always".into(),
            every_round: true,
            replies: vec![reply],
            ..Self::default()
        }
    }

    /// The same rule, used up after `times` requests.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// The reply for this conversation, if the rule has one.
    pub(super) fn reply(&self, conversation: &Conversation, path: &str) -> Option<&Reply> {
        if !self.when.matches(conversation, path) {
            return None;
        }
        self.replies.get(if self.every_round {
            0
        } else {
            conversation.round
        })
    }
}

/// The condition of a rule; all given parts must hold.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// The last prompt of the person contains this text.
    pub prompt_contains: Option<String>,
    /// The system or developer text contains this text.
    pub system_contains: Option<String>,
    /// The result of the last tool contains this text.
    pub result_contains: Option<String>,
    /// The wire format.
    pub dialect: Option<Dialect>,
    /// Who asks, as far as its headers tell.
    pub agent: Option<Agent>,
    /// The model's name is this.
    pub model: Option<String>,
    /// The path of the request starts with this.
    pub path: Option<String>,
    /// The number of tool rounds since the prompt is this.
    pub round: Option<usize>,
    /// `true`: only requests for a title of the conversation. Otherwise these never match.
    pub title: bool,
}

impl When {
    fn matches(&self, conversation: &Conversation, path: &str) -> bool {
        let holds = |wanted: &Option<String>, text: &str| {
            wanted.as_deref().is_none_or(|wanted| text.contains(wanted))
        };
        self.title == conversation.title
            && holds(&self.prompt_contains, &conversation.prompt)
            && holds(&self.system_contains, &conversation.system)
            && holds(&self.result_contains, &conversation.last_result)
            && self
                .dialect
                .is_none_or(|dialect| dialect == conversation.dialect)
            && self.agent.is_none_or(|agent| agent == conversation.agent)
            && self
                .model
                .as_ref()
                .is_none_or(|model| *model == conversation.model)
            && self
                .path
                .as_deref()
                .is_none_or(|prefix| path.starts_with(prefix))
            && self.round.is_none_or(|round| round == conversation.round)
    }
}

/// One answer of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reply {
    /// A block of reasoning before the text.
    pub thinking: Option<String>,
    /// Visible text.
    pub text: Option<String>,
    /// Tool calls after the text.
    pub tools: Vec<ToolCall>,
    /// What the answer says it used.
    pub usage: Usage,
    /// Leave usage out altogether, as some providers do.
    pub no_usage: bool,
    /// The provider's word, where it should differ from what follows from text and tools.
    pub stop_reason: Option<String>,
    /// Headers added to the answer.
    pub headers: BTreeMap<String, String>,
    /// SSE comments before the first event; OpenRouter's shape has one anyway.
    pub comments: usize,
    /// How fast.
    pub pace: Pace,
    /// Hold after the first event until the gate of this name is opened.
    pub gate: Option<String>,
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// Sent in place of all of the above but pace, gate and fault.
    pub raw: Option<Raw>,
}

impl Reply {
    /// Text, then the end of the turn.
    #[must_use]
    pub fn say(text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            ..Self::default()
        }
    }

    /// One tool call.
    #[must_use]
    pub fn call(tool: ToolCall) -> Self {
        Self {
            tools: vec![tool],
            ..Self::default()
        }
    }

    /// One shell command through whatever tool the agent has for it.
    #[must_use]
    pub fn shell(command: impl Into<String>) -> Self {
        Self::call(ToolCall::Shell(command.into()))
    }

    /// This fault in place of an answer, or in the middle of it.
    #[must_use]
    pub fn fault(fault: Fault) -> Self {
        Self {
            fault: Some(fault),
            ..Self::say("This answer is cut short.")
        }
    }

    /// An HTTP status with the provider's error body.
    #[must_use]
    pub fn status(code: u16) -> Self {
        Self::fault(Fault::Status {
            code,
            body: None,
            retry_after: None,
        })
    }

    /// The same reply, held after its first event until [`super::Upstream::open`] is called with this name.
    #[must_use]
    pub fn gated(mut self, gate: impl Into<String>) -> Self {
        self.gate = Some(gate.into());
        self
    }

    /// The same reply with this usage.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = usage;
        self
    }

    /// The same reply at this pace.
    #[must_use]
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }
}

/// A tool call, named by what it does; each agent's own tool is chosen from the tools it offers ([`super::tools`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToolCall {
    /// A command line for the shell.
    Shell(String),
    /// Show a file, given relative to the agent's directory.
    Read(String),
    /// Make or replace a file.
    Write { path: String, content: String },
    /// Replace one passage of a file.
    Edit {
        path: String,
        old: String,
        new: String,
    },
    /// Exactly this tool; a string as input is a custom (free-form) call where the dialect has such.
    Named { name: String, input: Value },
}

/// Token counts. The buckets are disjoint; each dialect adds up what its provider would ([`super::anthropic`] …).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Fresh prompt tokens.
    pub input: u64,
    /// Prompt tokens read from the cache.
    pub cache_read: u64,
    /// Prompt tokens written to the five-minute cache.
    pub cache_write_5m: u64,
    /// Prompt tokens written to the one-hour cache.
    pub cache_write_1h: u64,
    /// Answer tokens, reasoning included.
    pub output: u64,
    /// Reasoning tokens, part of `output`.
    pub reasoning: u64,
    /// OpenRouter's `usage.cost`, any JSON value so that nonsense can be tried; a small amount when left out.
    pub cost: Option<Value>,
    /// OpenRouter's `cost_details.upstream_inference_cost`; its presence makes the call a bring-your-own-key one.
    pub upstream_cost: Option<Value>,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            input: 1234,
            cache_read: 1000,
            cache_write_5m: 200,
            cache_write_1h: 0,
            output: 57,
            reasoning: 7,
            cost: None,
            upstream_cost: None,
        }
    }
}

/// Delays in milliseconds, and how the stream is cut into writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pace {
    /// Before the status line.
    pub headers_ms: u64,
    /// Between the head and the first event.
    pub first_event_ms: u64,
    /// Between two writes.
    pub between_ms: u64,
    /// Bytes per write; an event per write when left out.
    pub split: Option<usize>,
}

/// What goes wrong. `after` counts writes of the body that still arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// A status with a body, by default the provider's own error shape.
    Status {
        code: u16,
        #[serde(default)]
        body: Option<Value>,
        /// Verbatim, so that dates and nonsense can be tried.
        #[serde(default)]
        retry_after: Option<String>,
    },
    /// Take the request and never answer.
    Hang,
    /// End the connection in the middle of the body, without the terminating chunk.
    Cut { after: usize },
    /// The same by RST.
    Reset { after: usize },
    /// Send nothing more, keep the connection.
    Stall { after: usize },
    /// Status 200, then the provider's error event, and nothing after it.
    Error {
        after: usize,
        kind: String,
        message: String,
    },
}

/// A body given literally.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raw {
    /// Status; 200 when left out.
    pub status: Option<u16>,
    /// No header when left out.
    pub content_type: Option<String>,
    /// One write each.
    pub writes: Vec<String>,
}
