//! The responses of one WebSocket, each with its own account.
//!
//! Requests of one lane are answered in the order in which they came and never overlap, those of different lanes at the
//! same time. So an event belongs to the oldest request of its lane, and a response's id, where an event tells one, finds
//! it as well. Most events tell no id.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use jiff::Timestamp;
use whim_wire::generation::Outcome;
use whim_wire::time::Time;

use super::super::call::{Asked, Call};
use super::super::proxy::GenerationProxy;
use super::super::refuse::Refusal;
use super::super::request::Request;
use super::super::route::Format;
use super::super::tap::Tap;
use super::super::watch::Watch;
use super::event::Event;

/// Requests under way at a time: as many as the server answers at once, and as many in its queues.
const MOST: usize = 32;
/// Responses of which is known how long a conversation that continues them is.
const REMEMBERED: usize = 64;

/// One response, or a request that waits for its own.
#[derive(Debug)]
struct Running {
    lane: Option<String>,
    id: Option<String>,
    watch: Watch,
    tap: Tap,
}

impl Running {
    /// Whether nothing of its response has come.
    const fn waits(&self) -> bool {
        self.tap.answer().events == 0
    }

    fn settle(mut self, otherwise: Outcome) {
        let answer = self.tap.answer();
        let outcome = if answer.error.is_some() {
            Outcome::UpstreamError
        } else if answer.terminal {
            Outcome::Complete
        } else {
            otherwise
        };
        self.watch.call.settle(outcome, answer);
    }
}

/// Why a socket must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// A response would pass the cap: one alone cannot be stopped.
    Cap,
    /// Nothing came for so long.
    Silence(Duration),
}

/// The responses of a socket, oldest first.
#[derive(Debug)]
pub(super) struct Lanes {
    proxy: Arc<GenerationProxy>,
    /// `x-request-id` of the handshake: the provider has no other for what passes here.
    request_id: Option<String>,
    running: Vec<Running>,
    conversations: VecDeque<(String, u64)>,
    last: Option<(Asked, Request)>,
}

impl Lanes {
    pub(super) const fn new(proxy: Arc<GenerationProxy>, request_id: Option<String>) -> Self {
        Self {
            proxy,
            request_id,
            running: Vec::new(),
            conversations: VecDeque::new(),
            last: None,
        }
    }

    /// Whether no response is under way or waited for.
    pub(super) const fn idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Admits a request that is to be sent right after this.
    ///
    /// # Errors
    /// What to answer instead.
    pub(super) fn admit(
        &mut self,
        asked: Asked,
        mut request: Request,
        lane: Option<String>,
    ) -> Result<(), Refusal> {
        if self.running.len() >= MOST {
            let message = format!("{MOST} responses are under way on this connection");
            return Err(Refusal::unavailable(message));
        }
        if let Some(previous) = &request.previous {
            let known = self.conversations.iter().find(|(id, _)| id == previous);
            request.carried = known.map_or(0, |(_, tokens)| *tokens);
        }
        self.last = Some((asked.clone(), request.clone()));
        let mut call = Call::admit(&self.proxy, asked, request)?;
        call.attempts = 1;
        call.status = Some(StatusCode::SWITCHING_PROTOCOLS);
        call.upstream_request_id.clone_from(&self.request_id);
        self.running.push(Running {
            lane,
            id: None,
            watch: Watch::new(call),
            tap: Tap::new(Format::Responses),
        });
        Ok(())
    }

    /// Takes a message of the server, before it passes.
    ///
    /// # Errors
    /// The socket must end, and the message must not pass.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<(), Stop> {
        let event = Event::read(data);
        if !event.is_of_a_response() {
            return Ok(());
        }
        let Some(at) = self.find(&event)? else {
            return Ok(());
        };
        let Some(running) = self.running.get_mut(at) else {
            return Ok(());
        };
        running.tap.event(data);
        if running.id.is_none() {
            running.id = event.response;
        }
        let answer = running.tap.answer();
        running.watch.passed(data.len() as u64, answer);
        if let Some(status) = event.status {
            running.watch.call.status = Some(status);
        }
        if !running.watch.call.look(answer) {
            return Err(Stop::Cap);
        }
        if answer.terminal {
            self.finish(at);
        }
        Ok(())
    }

    /// Which response an event is about.
    fn find(&mut self, event: &Event) -> Result<Option<usize>, Stop> {
        let known = |id: &String| self.running.iter().position(|r| r.id.as_ref() == Some(id));
        if let Some(at) = event.response.as_ref().and_then(known) {
            return Ok(Some(at));
        }
        let first = self.running.iter().position(|r| r.lane == event.lane);
        if event.kind == "error" && event.lane.is_none() && first.is_none() {
            // The server could not tell whose it is. The newest that has heard nothing can have caused it.
            return Ok(self.running.iter().rposition(Running::waits));
        }
        let begins = event.kind == "response.created";
        match first {
            Some(at) if !begins || self.running.get(at).is_some_and(|r| r.id.is_none()) => {
                Ok(Some(at))
            }
            _ if begins => self.unasked(event),
            _ => Ok(None),
        }
    }

    /// A response that nobody asked for, which no message that passes should cause: it costs money all the same.
    fn unasked(&mut self, event: &Event) -> Result<Option<usize>, Stop> {
        let Some((asked, request)) = self.last.clone() else {
            return Ok(None);
        };
        tracing::warn!(
            session = asked.session.id,
            "a response began without a request"
        );
        let asked = Asked {
            started: Instant::now(),
            at: Time::from(Timestamp::now()),
            ..asked
        };
        let admitted = self.admit(asked, request, event.lane.clone());
        admitted.map_err(|_| Stop::Cap)?;
        Ok(self.running.len().checked_sub(1))
    }

    /// Settles a response that has ended; the next of its lane begins.
    fn finish(&mut self, at: usize) {
        if at >= self.running.len() {
            return;
        }
        let ended = self.running.remove(at);
        let next = self.running.iter_mut().find(|r| r.lane == ended.lane);
        if let Some(next) = next {
            next.watch.restart();
        }
        let usage = ended.tap.answer().usage(Format::Responses, false);
        if let (Some(id), Some(usage)) = (&ended.id, usage) {
            if self.conversations.len() >= REMEMBERED {
                self.conversations.pop_front();
            }
            let tokens = usage.prompt_tokens().saturating_add(usage.output_tokens);
            self.conversations.push_back((id.clone(), tokens));
        }
        ended.settle(Outcome::UpstreamCut);
    }

    /// Looks at the clocks of those that are being answered; the others wait for them.
    ///
    /// # Errors
    /// One has been silent for too long.
    pub(super) fn check(&mut self) -> Result<(), Stop> {
        let mut lanes: Vec<Option<String>> = Vec::new();
        for running in &mut self.running {
            if lanes.contains(&running.lane) {
                continue;
            }
            lanes.push(running.lane.clone());
            running.watch.check().map_err(Stop::Silence)?;
        }
        Ok(())
    }

    /// Ends all, because the socket does.
    pub(super) fn end(&mut self, outcome: Outcome) {
        for running in self.running.drain(..) {
            running.settle(outcome);
        }
    }

    /// Ends all at the cap: a message for each that says so.
    pub(super) fn cut(&mut self) -> Vec<String> {
        let Some(first) = self.running.first() else {
            return Vec::new();
        };
        let refusal = Refusal::budget(Format::Responses, first.watch.call.cut_message());
        let message = |running: &Running| {
            let answer = running.tap.answer();
            let (id, model) = (answer.id.as_deref(), answer.model.as_deref());
            refusal.last_message(running.lane.as_deref(), id, model)
        };
        let messages = self.running.iter().map(message).collect();
        self.end(Outcome::CutAtCap);
        messages
    }
}
