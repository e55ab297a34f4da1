//! One request: who asks, for what, may it, where to, and what comes back.

mod free;
mod head;
mod socket;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::time::timeout;
use whim_wire::generation::Outcome;
use whim_wire::time::Time;

use super::activity::Purpose;
use super::body::{self, Arrived, Gate, ReadError, RequestBody};
use super::call::{Asked, Call};
use super::decode::Decoder;
use super::metered::{AnswerBody, Metered, Opening};
use super::provider::{Provider, Upstream};
use super::proxy::{Counters, GenerationProxy};
use super::refuse::Refusal;
use super::retry;
use super::route::{self, Format, NoRoute, Operation};
use super::session::Session;
use super::socket::Sockets;
use super::tap::{Answer, Tap};
use crate::http::guard;
use crate::http::headers::is_websocket;
use crate::http::pool::{CallError, PooledBody};
use head::{answered, take_ids};

type Answered = Response<AnswerBody>;

fn own(response: Response<Bytes>) -> Answered {
    response.map(|body| AnswerBody::Own((!body.is_empty()).then_some(body)))
}

/// Refused before its body was read: the connection cannot serve another request.
fn refuse_early(refusal: &Refusal, format: Format) -> Answered {
    let mut response = refusal.response(format);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    own(response)
}

/// Serves a request.
pub(super) async fn handle(
    proxy: Arc<GenerationProxy>,
    sockets: Sockets,
    request: Request<Incoming>,
) -> Answered {
    let (started, at) = (Instant::now(), Time::from(Timestamp::now()));
    let (parts, incoming) = request.into_parts();
    let path = parts.uri.path();
    let fallback = route::format_of(path);
    if let Err(refused) = guard::check(&parts.headers, parts.uri.authority()) {
        Counters::add(&proxy.counters.forbidden, 1);
        return refuse_early(&Refusal::forbidden(refused.to_string()), fallback);
    }
    let found = match route::route(&parts.method, path, is_websocket(&parts.headers)) {
        Ok(found) => found,
        Err(NoRoute::NotFound) => {
            let refusal = Refusal::not_found(
                StatusCode::NOT_FOUND,
                "there is no such path here".to_owned(),
            );
            return refuse_early(&refusal, fallback);
        }
        Err(NoRoute::Method(allowed)) => {
            let message = format!("this path takes {allowed}");
            let refusal = Refusal::not_found(StatusCode::METHOD_NOT_ALLOWED, message);
            let mut response = refuse_early(&refusal, fallback);
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
    };
    if found.operation == Operation::Probe {
        return own(Response::new(Bytes::new()));
    }
    let format = found.operation.format();
    let Some(session) = proxy.tokens.find(&parts.headers) else {
        Counters::add(&proxy.counters.unauthorized, 1);
        let refusal = Refusal::unauthorized("this address needs the token of a session".to_owned());
        return refuse_early(&refusal, format);
    };
    let (Some(provider), path) = (session.upstreams.first().map(|u| u.provider), found.path) else {
        let refusal = Refusal::upstream(
            StatusCode::BAD_GATEWAY,
            "this session has no provider".to_owned(),
        );
        return refuse_early(&refusal, format);
    };
    let forward = Forward {
        proxy,
        parts,
        path,
        operation: found.operation,
        format,
        session,
        provider,
        started,
        at,
    };
    match forward.operation {
        Operation::Generate(_) | Operation::Compact => forward.generate(incoming).await,
        Operation::CountTokens => forward.count_tokens(incoming).await,
        Operation::ResponsesSocket => forward.socket(&sockets).await,
        Operation::Models | Operation::Probe => forward.pass(incoming).await,
    }
}

struct Forward {
    proxy: Arc<GenerationProxy>,
    parts: Parts,
    path: String,
    operation: Operation,
    format: Format,
    session: Arc<Session>,
    provider: Provider,
    started: Instant,
    at: Time,
}

/// What an attempt came to.
enum Attempt {
    /// An answer to pass.
    Answer(Response<PooledBody<RequestBody>>),
    /// None; what to tell, and whether another attempt makes sense.
    Failed { refusal: Refusal, again: bool },
    /// None in time. The provider may be at work yet, so nobody asks for the same again.
    Late,
}

impl Forward {
    async fn read(&self, incoming: Incoming) -> Result<Arrived, Answered> {
        let read = body::read(&self.parts.headers, incoming, self.proxy.limits.body).await;
        read.map_err(|error| match error {
            ReadError::TooLarge(_) => self.too_large(),
            ReadError::Cut(_) => {
                let refusal = Refusal::invalid(StatusCode::BAD_REQUEST, error.to_string());
                refuse_early(&refusal, self.format)
            }
        })
    }

    fn too_large(&self) -> Answered {
        let message = format!(
            "the request's body is larger than {} bytes",
            self.proxy.limits.body
        );
        refuse_early(
            &Refusal::invalid(StatusCode::PAYLOAD_TOO_LARGE, message),
            self.format,
        )
    }

    async fn generate(self, incoming: Incoming) -> Answered {
        self.proxy.ledger.room().await;
        let mut arrived = match self.read(incoming).await {
            Ok(arrived) => arrived,
            Err(refused) => return refused,
        };
        if let Some(rest) = arrived.rest.take() {
            return self.generate_arriving(arrived, rest).await;
        }
        let call = match self.admit(&arrived.decoder) {
            Ok(call) => call,
            Err(refusal) => return own(refusal.response(self.format)),
        };
        self.attempts(call, arrived.frames).await
    }

    fn admit(&self, decoder: &Decoder<super::request::RequestReader>) -> Result<Call, Refusal> {
        if decoder.blind() {
            let message = "the request's content encoding cannot be read".to_owned();
            return Err(Refusal::invalid(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                message,
            ));
        }
        Call::admit(
            &self.proxy,
            self.asked(decoder.feed_ref().request()),
            decoder.feed_ref().request().clone(),
        )
    }

    fn asked(&self, request: &super::request::Request) -> Asked {
        let purpose = match self.operation {
            Operation::Compact => Purpose::Compaction,
            _ if request.is_side_call() => Purpose::Side,
            _ => Purpose::Turn,
        };
        Asked {
            session: Arc::clone(&self.session),
            provider: self.provider,
            format: self.format,
            path: self.path.clone(),
            purpose,
            agent_session: self.agent_session(),
            started: self.started,
            at: self.at,
        }
    }

    /// Forwards a body that is whole: it can be sent again.
    async fn attempts(self, mut call: Call, frames: Vec<Bytes>) -> Answered {
        let upstreams = self.session.upstreams.len();
        let policy = self.proxy.retry;
        let mut at = 0;
        self.allow().call();
        loop {
            call.attempts += 1;
            call.asked.provider = self
                .upstream(at)
                .map_or(self.provider, |upstream| upstream.provider);
            let more = call.attempts < policy.attempts;
            let next = (at + 1 < upstreams).then_some(at + 1);
            let attempt = match self.upstream(at) {
                Some(upstream) => self.attempt(upstream, &call, &frames).await,
                None => {
                    return own(
                        Refusal::unavailable("no provider".to_owned()).response(self.format)
                    );
                }
            };
            let (refusal, again) = match attempt {
                Attempt::Failed { refusal, again } => (Some(refusal), again),
                Attempt::Late => return self.late(call, self.proxy.limits.head),
                Attempt::Answer(answer) => {
                    let status = answer.status();
                    let may = match next {
                        Some(_) => retry::is_worth_failover(status),
                        None => retry::is_transient(status),
                    };
                    let wait = retry::retry_after(answer.headers(), SystemTime::now());
                    let patient = next.is_some() || wait.is_none_or(|wait| wait <= policy.patience);
                    if may && more && patient && self.allow().take() {
                        Counters::add(&self.proxy.counters.retries, 1);
                        if next.is_none() {
                            tokio::time::sleep(wait.unwrap_or(policy.pause)).await;
                        }
                        at = next.unwrap_or(at);
                        continue;
                    }
                    let (head, body) = answer.into_parts();
                    call.status = Some(status);
                    take_ids(&mut call, &head.headers);
                    let tap = Decoder::new(&head.headers, Tap::new(self.format));
                    let mut opening = Opening::new(body, tap);
                    if status == StatusCode::OK && call.request.stream {
                        let silence = self.proxy.limits.silence;
                        let Ok(error) = opening.first_event(silence).await else {
                            return self.late(call, silence);
                        };
                        let transient = error.as_deref().is_some_and(is_transient_error);
                        if transient && more && self.allow().take() {
                            Counters::add(&self.proxy.counters.retries, 1);
                            if next.is_none() {
                                tokio::time::sleep(policy.pause).await;
                            }
                            at = next.unwrap_or(at);
                            continue;
                        }
                    }
                    return answered(
                        head,
                        AnswerBody::Metered(Box::new(Metered::new(call, opening))),
                    );
                }
            };
            if again && more && self.allow().take() {
                Counters::add(&self.proxy.counters.retries, 1);
                if next.is_none() {
                    tokio::time::sleep(policy.pause).await;
                }
                at = next.unwrap_or(at);
                continue;
            }
            let refusal = refusal.unwrap_or_else(|| Refusal::unavailable("no answer".to_owned()));
            return self.failed(call, &refusal);
        }
    }

    fn failed(&self, mut call: Call, refusal: &Refusal) -> Answered {
        call.status = Some(refusal.status);
        call.settle(Outcome::UpstreamError, &Answer::default());
        own(refusal.response(self.format))
    }

    /// Ends a call whose upstream said nothing for so long.
    fn late(&self, mut call: Call, waited: Duration) -> Answered {
        call.given_up = true;
        let provider = call.asked.provider;
        let message = format!("{provider} did not answer within {} s", waited.as_secs());
        self.failed(
            call,
            &Refusal::upstream(StatusCode::GATEWAY_TIMEOUT, message),
        )
    }

    fn upstream(&self, at: usize) -> Option<&Upstream> {
        self.session.upstreams.get(at)
    }

    fn allow(&self) -> std::sync::MutexGuard<'_, retry::Allowance> {
        self.proxy
            .retries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn attempt(&self, upstream: &Upstream, call: &Call, frames: &[Bytes]) -> Attempt {
        let mut fresh = false;
        loop {
            let identity = call.capped && call.request.stream;
            let request = match self.head(upstream, RequestBody::whole(frames), identity) {
                Ok(request) => request,
                Err(refusal) => {
                    return Attempt::Failed {
                        refusal,
                        again: false,
                    };
                }
            };
            match self.send(upstream, request, fresh).await {
                // The connection had died in the pool, so the provider has seen nothing: no attempt was made.
                Err(CallError::Ended { reused: true, .. }) if !fresh => fresh = true,
                Err(error) => {
                    let refusal = unreachable(upstream, &error);
                    return Attempt::Failed {
                        refusal,
                        again: true,
                    };
                }
                Ok(None) => return Attempt::Late,
                Ok(Some(answer)) => return Attempt::Answer(answer),
            }
        }
    }

    async fn send(
        &self,
        upstream: &Upstream,
        request: Request<RequestBody>,
        fresh: bool,
    ) -> Result<Option<Response<PooledBody<RequestBody>>>, CallError> {
        let call = self.proxy.pool.call(&upstream.target, request, fresh);
        match timeout(self.proxy.limits.head, call).await {
            Ok(answer) => answer.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Forwards a body that still arrives: one attempt, its end held back until it is admitted.
    async fn generate_arriving(self, arrived: Arrived, rest: Incoming) -> Answered {
        let Some(upstream) = self.upstream(0) else {
            return refuse_early(&Refusal::unavailable("no provider".to_owned()), self.format);
        };
        let blind = arrived.decoder.blind();
        let capped = self.proxy.budget().is_capped();
        let identity = capped && arrived.decoder.feed_ref().request().stream;
        let gate = Gate::default();
        let body = RequestBody::arriving(arrived, rest, gate.clone());
        let request = match self.head(upstream, body, identity) {
            Ok(request) if !blind => request,
            Ok(_) => {
                let message = "the request's content encoding cannot be read".to_owned();
                return refuse_early(
                    &Refusal::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, message),
                    self.format,
                );
            }
            Err(refusal) => return refuse_early(&refusal, self.format),
        };
        let mut sending = std::pin::pin!(self.send(upstream, request, true));
        let mut call = None;
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut sending => break answer,
                finished = gate.finished(), if call.is_none() => {
                    let Some(request) = finished else { return self.too_large() };
                    match Call::admit(&self.proxy, self.asked(&request), request) {
                        Ok(mut admitted) => {
                            admitted.attempts = 1;
                            call = Some(admitted);
                            gate.admit();
                        }
                        Err(refusal) => return own(refusal.response(self.format)),
                    }
                }
            }
        };
        match (answer, call) {
            (Ok(Some(answer)), Some(mut call)) => {
                let (head, body) = answer.into_parts();
                call.status = Some(head.status);
                take_ids(&mut call, &head.headers);
                let tap = Decoder::new(&head.headers, Tap::new(self.format));
                let opening = Opening::new(body, tap);
                answered(
                    head,
                    AnswerBody::Metered(Box::new(Metered::new(call, opening))),
                )
            }
            // Answered before the body had passed: an error, for nobody has a whole request.
            (Ok(Some(answer)), None) => {
                let (head, body) = answer.into_parts();
                answered(head, AnswerBody::Passed(body))
            }
            (Ok(None), Some(call)) => self.late(call, self.proxy.limits.head),
            // Nobody has a whole request, so nobody answers it yet.
            (Ok(None), None) => {
                let message = format!("{} did not answer in time", upstream.target);
                let refusal = Refusal::upstream(StatusCode::GATEWAY_TIMEOUT, message);
                refuse_early(&refusal, self.format)
            }
            (Err(error), call) => {
                if gate.is_too_large() {
                    return self.too_large();
                }
                let refusal = unreachable(upstream, &error);
                match call {
                    Some(call) => self.failed(call, &refusal),
                    None => refuse_early(&refusal, self.format),
                }
            }
        }
    }
}

/// Errors that a provider may not have at the next try.
fn is_transient_error(kind: &str) -> bool {
    matches!(
        kind,
        "overloaded_error"
            | "api_error"
            | "server_error"
            | "internal_server_error"
            | "500"
            | "502"
            | "503"
            | "529"
    )
}

fn unreachable(upstream: &Upstream, error: &dyn std::error::Error) -> Refusal {
    let mut message = format!("{} cannot be reached: {error}", upstream.provider);
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    tracing::warn!(target = %upstream.target, error = message, "a call upstream failed");
    Refusal::upstream(StatusCode::BAD_GATEWAY, message)
}
