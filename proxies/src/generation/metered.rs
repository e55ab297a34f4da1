//! What comes back: passed byte for byte, read by the tap, watched by the budget and a clock, settled at its end.
//!
//! A body is altered in one case only: a stream that would pass the cap ends with an error in its own format, between
//! two events. Where that cannot be (one document, an encoding, a stated length) the connection is cut instead. An
//! upstream that is cut looks cut to the agent as well.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::error::Elapsed;
use tokio::time::{Sleep, timeout};
use whim_wire::generation::Outcome;

use super::body::RequestBody;
use super::call::Call;
use super::decode::Decoder;
use super::proxy::Counters;
use super::refuse::Refusal;
use super::tap::Tap;
use super::watch::{self, Watch};
use crate::http::pool::{BodyError, PooledBody};

/// Bytes that are read before an answer's first event is passed.
const AHEAD: usize = 64 << 10;

/// Why an answer ended early on our side.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the budget is reached")]
    Cap,
    #[error("the upstream's answer was cut")]
    Cut,
    #[error("the upstream sent nothing for {0} s")]
    Silence(u64),
}

/// The beginning of an answer, before any of it has passed.
#[derive(Debug)]
pub(super) struct Opening {
    inner: Option<PooledBody<RequestBody>>,
    ahead: VecDeque<Bytes>,
    tap: Decoder<Tap>,
    broken: bool,
}

impl Opening {
    pub(super) const fn new(inner: PooledBody<RequestBody>, tap: Decoder<Tap>) -> Self {
        Self {
            inner: Some(inner),
            ahead: VecDeque::new(),
            tap,
            broken: false,
        }
    }

    /// Reads until the first event (or document) is whole, or something shows that must not wait: a comment, an end,
    /// [`AHEAD`] bytes. What was read is kept and passes first.
    ///
    /// Returns the type of an error that the answer begins with.
    ///
    /// # Errors
    /// [`Elapsed`]: no byte came for `silence`.
    pub(super) async fn first_event(
        &mut self,
        silence: Duration,
    ) -> Result<Option<String>, Elapsed> {
        let mut read = 0;
        loop {
            let tap = self.tap.feed_ref();
            let answer = tap.answer();
            if answer.events > 0 {
                let unpaid = answer.progress == 0 && answer.reported.is_empty();
                let error = answer.error.as_ref().filter(|_| unpaid);
                return Ok(error.map(|error| error.kind.clone()));
            }
            if tap.comments() > 0 || read > AHEAD || self.tap.blind() {
                return Ok(None);
            }
            let Some(inner) = self.inner.as_mut() else {
                return Ok(None);
            };
            let frame = std::future::poll_fn(|cx| Pin::new(&mut *inner).poll_frame(cx));
            match timeout(silence, frame).await? {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        read += data.len();
                        self.tap.write(&data);
                        self.ahead.push_back(data);
                    }
                }
                // How it ended is told when what was read has passed.
                ended => {
                    self.broken = ended.is_some();
                    self.inner = None;
                    return Ok(None);
                }
            }
        }
    }
}

/// An answer on its way to the agent.
#[derive(Debug)]
pub(super) struct Metered {
    inner: Option<PooledBody<RequestBody>>,
    /// Read already, to see how the answer begins.
    ahead: VecDeque<Bytes>,
    watch: Watch,
    tap: Decoder<Tap>,
    /// The upstream was cut while it was read ahead.
    broken: bool,
    settled: bool,
    cutting: bool,
    last: Option<Bytes>,
    /// Told at the next poll: the server writes what it has first, and drops it at an error.
    error: Option<BodyError>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Metered {
    pub(super) fn new(call: Call, opening: Opening) -> Self {
        let Opening {
            inner,
            ahead,
            tap,
            broken,
        } = opening;
        Self {
            inner,
            ahead,
            watch: Watch::new(call),
            tap,
            broken,
            settled: false,
            cutting: false,
            last: None,
            error: None,
            timer: None,
        }
    }

    fn passed(&mut self, data: &Bytes) {
        let answer = self.tap.feed_ref().answer();
        self.watch.passed(data.len() as u64, answer);
    }

    fn settle(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.settled, true) {
            if self.tap.blind() {
                Counters::add(&self.watch.call.proxy().counters.blind, 1);
            }
            self.watch
                .call
                .settle(outcome, self.tap.feed_ref().answer());
        }
    }

    /// How the answer ended, seen from what passed. `whole`: its HTTP framing was.
    fn outcome(&self, whole: bool, otherwise: Outcome) -> Outcome {
        let answer = self.tap.feed_ref().answer();
        let failed = self
            .watch
            .call
            .status
            .is_some_and(|status| !status.is_success());
        // Chat streams of some providers end without their last mark, but not without a finish reason.
        let finished =
            answer.terminal || (whole && (answer.stop_reason.is_some() || self.tap.blind()));
        if failed || answer.error.is_some() {
            Outcome::UpstreamError
        } else if finished {
            Outcome::Complete
        } else {
            otherwise
        }
    }

    /// Passes a frame, or the part of it that ends an event when the stream is to be cut.
    fn take(&mut self, data: Bytes) -> Result<Bytes, Ended> {
        if !self.tap.plain() {
            self.tap.write(&data);
            self.passed(&data);
            return if self.watch() {
                Ok(data)
            } else {
                Err(Ended::Cap)
            };
        }
        if !self.cutting {
            self.tap.write(&data);
            self.passed(&data);
            if self.watch() {
                return Ok(data);
            }
            if !self.tap.feed_ref().is_stream() || self.has_length() {
                return Err(Ended::Cap);
            }
            self.cutting = true;
            if self.tap.feed_ref().between_events() {
                self.cut();
            }
            return Ok(data);
        }
        // On to the end of the event that is under way.
        let mut end = 0;
        while let Some(line) = data.get(end..).and_then(|rest| memchr::memchr(b'\n', rest)) {
            let next = end + line + 1;
            self.tap.write(data.get(end..next).unwrap_or_default());
            end = next;
            if self.tap.feed_ref().between_events() {
                self.cut();
                let passing = data.slice(..end);
                self.passed(&passing);
                return Ok(passing);
            }
        }
        self.tap.write(data.get(end..).unwrap_or_default());
        self.passed(&data);
        Ok(data)
    }

    fn watch(&mut self) -> bool {
        self.watch.call.look(self.tap.feed_ref().answer())
    }

    fn has_length(&self) -> bool {
        self.inner
            .as_ref()
            .is_some_and(|inner| inner.size_hint().exact().is_some())
    }

    /// Drops the upstream and prepares the last event.
    fn cut(&mut self) {
        self.inner = None;
        let answer = self.tap.feed_ref().answer();
        let refusal = Refusal::budget(self.watch.call.asked.format, self.watch.call.cut_message());
        self.last = Some(refusal.event(
            self.watch.call.asked.format,
            answer.id.as_deref(),
            answer.model.as_deref(),
        ));
        self.settle(Outcome::CutAtCap);
    }

    fn check_clock(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        let watch = &mut self.watch;
        let timer = self.timer.get_or_insert_with(|| {
            let tick = watch::tick(&watch.call.proxy().limits);
            Box::pin(tokio::time::sleep(tick))
        });
        while timer.as_mut().poll(cx).is_ready() {
            watch
                .check()
                .map_err(|silent| Ended::Silence(silent.as_secs()))?;
            let tick = watch::tick(&watch.call.proxy().limits);
            timer.as_mut().reset(tokio::time::Instant::now() + tick);
        }
        Ok(())
    }

    /// Ends with an error, once what has passed is written.
    fn fail(
        &mut self,
        error: BodyError,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.error = Some(error);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn end_early(
        &mut self,
        ended: Ended,
        cx: &Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.inner = None;
        let outcome = match ended {
            Ended::Cap => Outcome::CutAtCap,
            Ended::Cut | Ended::Silence(_) => self.outcome(false, Outcome::UpstreamCut),
        };
        self.settle(outcome);
        self.fail(ended.into(), cx)
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(data) = this.ahead.pop_front() {
            this.passed(&data);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(last) = this.last.take() {
            return Poll::Ready(Some(Ok(Frame::data(last))));
        }
        if let Some(error) = this.error.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let Some(inner) = &mut this.inner else {
            if this.settled {
                return Poll::Ready(None);
            }
            let broken = this.broken;
            this.settle(this.outcome(!broken, Outcome::UpstreamCut));
            return if broken {
                this.fail(Ended::Cut.into(), cx)
            } else {
                Poll::Ready(None)
            };
        };
        let Poll::Ready(frame) = Pin::new(inner).poll_frame(cx) else {
            return match this.check_clock(cx) {
                Ok(()) => Poll::Pending,
                Err(ended) => this.end_early(ended, cx),
            };
        };
        match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => match this.take(data) {
                    Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                    Err(ended) => this.end_early(ended, cx),
                },
                Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            },
            Some(Err(error)) => {
                this.inner = None;
                this.settle(this.outcome(false, Outcome::UpstreamCut));
                this.fail(error.into(), cx)
            }
            None => {
                this.inner = None;
                this.settle(this.outcome(true, Outcome::UpstreamCut));
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.settled
            && self.ahead.is_empty()
            && self.last.is_none()
            && self.error.is_none()
            && self.inner.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        // With bytes read ahead the rest's length is not the whole's; the header that the provider sent states it.
        match &self.inner {
            Some(inner) if self.ahead.is_empty() => inner.size_hint(),
            _ => SizeHint::default(),
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if !self.settled {
            // An answer of stated length is dropped with its last byte.
            let whole =
                self.inner.as_ref().is_some_and(Body::is_end_stream) && self.ahead.is_empty();
            let otherwise = if whole {
                Outcome::UpstreamCut
            } else {
                Outcome::ClientLeft
            };
            self.settle(self.outcome(whole, otherwise));
        }
    }
}

/// The body of any answer to an agent.
#[derive(Debug)]
pub(super) enum AnswerBody {
    /// Of our own.
    Own(Option<Bytes>),
    /// Passed, without account.
    Passed(PooledBody<RequestBody>),
    /// Passed, with one.
    Metered(Box<Metered>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(body) => Poll::Ready(body.take().map(|body| Ok(Frame::data(body)))),
            Self::Passed(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Self::Metered(body) => Pin::new(&mut **body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_none(),
            Self::Passed(body) => body.is_end_stream(),
            Self::Metered(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            Self::Passed(body) => body.size_hint(),
            Self::Metered(body) => body.size_hint(),
        }
    }
}
