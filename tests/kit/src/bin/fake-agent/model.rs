//! Turns with the model: ask, run the tools it wants, ask again, until it has nothing more.
//!
//! Talks the streamed messages format to `ANTHROPIC_BASE_URL`, one connection per call, and keeps the conversation.
//! Dropping the future of a turn closes its connection, as an agent that is interrupted does. A turn has at most
//! [`MAX_ROUNDS`] rounds.

#![expect(
    clippy::indexing_slicing,
    reason = "a field that a JSON value lacks reads as null, and fields are set only in objects"
)]

use std::io;
use std::process::Stdio;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use whim_kit::client::EventReader;

const MAX_ROUNDS: usize = 64;

/// Why a turn failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TurnError {
    #[error("the base URL {0} is not http://HOST:PORT")]
    BaseUrl(String),
    #[error("cannot connect to {to}: {source}")]
    Connect { to: String, source: io::Error },
    #[error("no request: {0}")]
    Request(#[from] http::Error),
    #[error("the connection broke: {0}")]
    Http(#[from] hyper::Error),
    #[error("status {status}: {body}")]
    Status { status: u16, body: String },
    #[error("the model failed: {0}")]
    Model(Value),
    #[error("the stream ended before the answer did")]
    Cut,
    #[error("cannot run a tool: {0}")]
    Tool(io::Error),
    #[error("more than {MAX_ROUNDS} rounds of tools")]
    Rounds,
    #[error("cannot print: {0}")]
    Print(io::Error),
}

/// A conversation.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    messages: Vec<Value>,
}

impl Conversation {
    /// One turn. `print` gets what a person would see.
    pub(crate) async fn turn(
        &mut self,
        prompt: &str,
        mut print: impl FnMut(&str) -> io::Result<()>,
    ) -> Result<(), TurnError> {
        let Some(base) = std::env::var("ANTHROPIC_BASE_URL").ok() else {
            return print(&format!("you said: {prompt}\n")).map_err(TurnError::Print);
        };
        self.messages
            .push(json!({"role": "user", "content": prompt}));
        for _ in 0..MAX_ROUNDS {
            let content = self.call(&base, &mut print).await?;
            let calls: Vec<Value> = content
                .iter()
                .filter(|block| block["type"] == "tool_use")
                .cloned()
                .collect();
            self.messages
                .push(json!({"role": "assistant", "content": content}));
            if calls.is_empty() {
                return Ok(());
            }
            let mut results = Vec::new();
            for call in calls {
                let command = call["input"]["command"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned();
                print(&format!(
                    "[tool {}] {command}\n",
                    call["name"].as_str().unwrap_or_default()
                ))
                .map_err(TurnError::Print)?;
                let mut shell = tokio::process::Command::new("sh");
                shell
                    .arg("-c")
                    .arg(&command)
                    .stdin(Stdio::null())
                    .kill_on_drop(true);
                let output = shell.output().await.map_err(TurnError::Tool)?;
                let text = [output.stdout, output.stderr].concat();
                let text = String::from_utf8_lossy(&text).into_owned();
                print(&text).map_err(TurnError::Print)?;
                results.push(json!({
                    "type": "tool_result", "tool_use_id": call["id"], "content": text,
                    "is_error": !output.status.success(),
                }));
            }
            self.messages
                .push(json!({"role": "user", "content": results}));
        }
        Err(TurnError::Rounds)
    }

    /// One call; the content of the answer.
    async fn call(
        &self,
        base: &str,
        print: &mut impl FnMut(&str) -> io::Result<()>,
    ) -> Result<Vec<Value>, TurnError> {
        let authority = base
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'));
        let authority = authority
            .filter(|rest| !rest.is_empty())
            .ok_or_else(|| TurnError::BaseUrl(base.to_owned()))?;
        let (host, prefix) = authority
            .split_once('/')
            .map_or((authority, String::new()), |(host, path)| {
                (host, format!("/{path}"))
            });
        let body = json!({
            "model": std::env::var("ANTHROPIC_MODEL").unwrap_or_else(|_| "claude-opus-4-8".to_owned()),
            "max_tokens": 4096, "stream": true, "messages": self.messages,
            "tools": [{"name": "Bash", "description": "Run a shell command", "input_schema": {"type": "object"}}],
        });
        let mut request = Request::post(format!("{prefix}/v1/messages?beta=true"))
            .header("host", host)
            .header("content-type", "application/json")
            .header("user-agent", "fake-agent/1.0")
            .header("anthropic-version", "2023-06-01");
        if let Ok(token) = std::env::var("ANTHROPIC_AUTH_TOKEN") {
            request = request.header("authorization", format!("Bearer {token}"));
        } else if let Ok(key) = std::env::var("ANTHROPIC_API_KEY") {
            request = request.header("x-api-key", key);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())))?;
        let connected = TcpStream::connect(host).await;
        let stream = connected.map_err(|source| TurnError::Connect {
            to: host.to_owned(),
            source,
        })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let answer = async {
            let mut response = sender.send_request(request).await?;
            let status = response.status();
            if !status.is_success() {
                let body = response.body_mut().collect().await?.to_bytes();
                let body = String::from_utf8_lossy(&body).into_owned();
                return Err(TurnError::Status {
                    status: status.as_u16(),
                    body,
                });
            }
            let mut reader = EventReader::default();
            let mut blocks = Blocks::default();
            while let Some(frame) = response.body_mut().frame().await {
                for event in reader.take(frame?.data_ref().map_or(&[][..], |data| data)) {
                    if blocks.take(&event.json(), print)? {
                        return Ok(blocks.content);
                    }
                }
            }
            Err(TurnError::Cut)
        };
        // The connection is driven beside the answer and ends with it.
        tokio::pin!(answer);
        tokio::select! {
            answered = &mut answer => answered,
            driven = connection => { driven?; answer.await }
        }
    }
}

/// The content of an answer as it grows.
#[derive(Debug, Default)]
struct Blocks {
    content: Vec<Value>,
    input: String,
}

impl Blocks {
    /// Takes an event; true at the end of the message.
    fn take(
        &mut self,
        event: &Value,
        print: &mut impl FnMut(&str) -> io::Result<()>,
    ) -> Result<bool, TurnError> {
        match event["type"].as_str() {
            Some("content_block_start") => self.content.push(event["content_block"].clone()),
            Some("content_block_delta") => {
                let delta = &event["delta"];
                let text = |field: &str| delta[field].as_str().unwrap_or_default();
                print(text("text")).map_err(TurnError::Print)?;
                self.input.push_str(text("partial_json"));
                for field in ["text", "thinking", "signature"] {
                    if let Some(block) =
                        self.content.last_mut().filter(|_| delta[field].is_string())
                    {
                        let grown = format!(
                            "{}{}",
                            block[field].as_str().unwrap_or_default(),
                            text(field)
                        );
                        block[field] = grown.into();
                    }
                }
            }
            Some("content_block_stop") => {
                let input = std::mem::take(&mut self.input);
                if let Some(block) = self.content.last_mut() {
                    if block["type"] == "tool_use" {
                        block["input"] = serde_json::from_str(&input).unwrap_or_else(|_| json!({}));
                    } else if block["type"] == "text" {
                        print("\n").map_err(TurnError::Print)?;
                    }
                }
            }
            Some("error") => return Err(TurnError::Model(event["error"].clone())),
            Some("message_stop") => return Ok(true),
            _ => {}
        }
        Ok(false)
    }
}
