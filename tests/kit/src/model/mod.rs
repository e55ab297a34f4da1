//! A model provider that follows a script.
//!
//! [`Upstream`] serves on loopback what Anthropic, OpenAI and OpenRouter serve, as far as the agent CLIs and the
//! generation proxy use it; the [`script`] decides what it says and where it fails, and every request is recorded. It
//! runs on a thread of its own and stops when dropped. The same is a program, `scripted-model`, with a [`control`] port.
//!
//! | path (also under `/api`, then in OpenRouter's shape) | answers |
//! |---|---|
//! | `POST /v1/messages` · `/v1/responses` · `/v1/chat/completions` | by script, streamed or whole |
//! | `POST /v1/messages/count_tokens` · `GET /v1/models` | a quarter of the bytes · the script's list |
//! | `GET /v1/generation?id=` | OpenRouter's account of an earlier answer, after the script's number of 404s |
//! | `HEAD /`, `GET /` | 200 |
//! | `GET /v1/responses` | a WebSocket that is answered by script, where the script says so ([`Script::websocket`]), else 426 |
//!
//! What the CLIs do with it (Claude Code 2.1.197, Codex 0.169.0, Copilot 1.0.102, CCR 2.0.0; the kit's own tests run
//! them, the interactive ones were tried by hand):
//!
//! * Titles: Claude Code's terminal asks once per session, with the prompt between `<session>` tags; Codex's once per
//!   prompt, behind `User prompt:`, and its schema allows 36 characters. Both stop asking when the answer parses. In
//!   `-p` and `exec` there is none.
//! * Copilot with a GPT model offers `apply_patch` (a free-form tool, also over chat) and no `edit` or `create`; edits
//!   go through its shell. It puts `<current_datetime>…</current_datetime>` before the prompt.
//! * Codex's default model (`gpt-6.1-sol`) gets its tools as an `additional_tools` item of the conversation, in
//!   namespaces, and has no shell among them: a free-form tool `exec` takes JavaScript that calls
//!   `tools.exec_command({cmd})`. A model that Codex does not know (`gpt-5.1-codex`) has `exec_command` itself.
//! * Codex shows a failing command as an item with status `failed` when it has no sandbox.
//! * Codex with its home under `/tmp` warns that it makes no helper binaries there, and works.
//! * All read a directory from their own instructions (`<cwd>`, `Primary working directory:`), which is how
//!   [`tools`] finds absolute paths.

mod account;
mod answer;
mod anthropic;
mod chat;
mod choose;
pub mod control;
pub mod conversation;
pub mod demo;
pub mod directives;
mod generate;
mod play;
pub mod record;
mod responses;
pub mod script;
mod serve;
mod shared;
mod socket;
pub mod tools;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::background::Background;
use crate::wait::TimedOut;
use record::Recorded;
use script::Script;
use shared::{Shared, locked};

/// A scripted provider, serving until dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    // Dropped last: its tasks hold `shared`.
    background: Background,
}

impl Upstream {
    /// Serves `script` on a free loopback port.
    ///
    /// # Errors
    /// When no port or thread can be had.
    pub fn start(script: Script) -> io::Result<Self> {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script)
    }

    /// Serves `script` at this address.
    ///
    /// # Errors
    /// When the port or a thread cannot be had.
    pub fn start_at(address: SocketAddr, script: Script) -> io::Result<Self> {
        let background = Background::start("scripted-model")?;
        let shared = Arc::new(Shared::new(script));
        let (listener, address) = listen(&background, address)?;
        drop(
            background
                .handle()
                .spawn(serve::serve(listener, Arc::clone(&shared))),
        );
        Ok(Self {
            address,
            shared,
            background,
        })
    }

    /// Opens a control port ([`control`]).
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn control_at(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        let (listener, address) = listen(&self.background, address)?;
        drop(
            self.background
                .handle()
                .spawn(control::serve(listener, Arc::clone(&self.shared))),
        );
        Ok(address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL, without `/v1`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The base URL in OpenRouter's shape, without `/v1`.
    #[must_use]
    pub fn router_url(&self) -> String {
        format!("http://{}/api", self.address)
    }

    /// Replaces the script; nothing of it is used up yet.
    pub fn set_script(&self, script: Script) {
        self.shared.set_script(script);
    }

    /// Lets the replies go on that wait for this gate, now and later.
    pub fn open(&self, gate: &str) {
        self.shared.set_gate(gate, true);
    }

    /// Holds such replies again.
    pub fn close(&self, gate: &str) {
        self.shared.set_gate(gate, false);
    }

    /// All requests kept, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        locked(&self.shared.record).all().cloned().collect()
    }

    /// The generations among them that are no titles.
    #[must_use]
    pub fn turns(&self) -> Vec<Recorded> {
        locked(&self.shared.record)
            .all()
            .filter(|recorded| recorded.is_turn())
            .cloned()
            .collect()
    }

    /// Answers under way.
    #[must_use]
    pub fn active(&self) -> usize {
        self.shared.active()
    }

    /// Forgets all requests.
    pub fn forget(&self) {
        self.shared.forget();
    }

    /// Waits until `seen` finds what it looks for among the requests.
    ///
    /// # Errors
    /// After `limit`, naming `what` and the requests there were.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut seen: impl FnMut(&[&Recorded]) -> Option<T>,
    ) -> Result<T, TimedOut> {
        let deadline = Instant::now() + limit;
        let mut record = locked(&self.shared.record);
        loop {
            let all: Vec<&Recorded> = record.all().collect();
            if let Some(found) = seen(&all) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let line = |recorded: &&Recorded| {
                    let Recorded {
                        seq,
                        method,
                        path,
                        status,
                        rule,
                        outcome,
                        ..
                    } = recorded;
                    format!("{seq} {method} {path} {status} {rule} {outcome:?}")
                };
                return Err(TimedOut::new(
                    what,
                    limit,
                    all.iter().map(line).collect::<Vec<_>>().join("; "),
                ));
            }
            record = self
                .shared
                .changed
                .wait_timeout(record, left)
                .map_or_else(|error| error.into_inner().0, |(record, _)| record);
        }
    }
}

fn listen(
    background: &Background,
    address: SocketAddr,
) -> io::Result<(tokio::net::TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let _entered = background.handle().enter();
    Ok((tokio::net::TcpListener::from_std(listener)?, address))
}
