//! What is sent upstream: a body that was read whole, or one that still arrives.
//!
//! A body up to [`WHOLE`] bytes is read before anything is sent, so that it can be judged, and sent again. A larger one
//! passes as it comes, in flat memory: its reader sees every byte before the upstream does, and the end is held back
//! until [`Gate::admit`] is called, so no provider has a whole request that was not admitted.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::decode::Decoder;
use super::request::{Request, RequestReader};
use crate::http::pool::BodyError;

/// Bytes up to which a body is read before it is forwarded.
pub(super) const WHOLE: usize = 1 << 20;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("the request's body is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the request's body ended early")]
    Cut(#[source] hyper::Error),
}

/// A request's body as far as it was read before forwarding.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) frames: Vec<Bytes>,
    pub(super) decoder: Decoder<RequestReader>,
    /// What still arrives; none if the body is whole.
    pub(super) rest: Option<Incoming>,
    length: u64,
    limit: u64,
}

/// Reads a body to its end or to [`WHOLE`] bytes.
pub(super) async fn read(
    headers: &HeaderMap,
    mut incoming: Incoming,
    limit: u64,
) -> Result<Arrived, ReadError> {
    let mut arrived = Arrived {
        frames: Vec::new(),
        decoder: Decoder::new(headers, RequestReader::default()),
        rest: None,
        length: 0,
        limit,
    };
    if incoming.size_hint().lower() > limit {
        return Err(ReadError::TooLarge(limit));
    }
    loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await;
        let Some(frame) = frame else { break };
        if let Ok(data) = frame.map_err(ReadError::Cut)?.into_data() {
            arrived.length += data.len() as u64;
            if arrived.length > limit {
                return Err(ReadError::TooLarge(limit));
            }
            arrived.decoder.write(&data);
            arrived.frames.push(data);
        }
        if arrived.length > WHOLE as u64 && !incoming.is_end_stream() {
            arrived.rest = Some(incoming);
            break;
        }
    }
    Ok(arrived)
}

/// Reads the rest of a body without keeping it.
pub(super) async fn drain(arrived: &mut Arrived, mut rest: Incoming) -> Result<(), ReadError> {
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(ReadError::Cut)?.into_data() {
            arrived.length += data.len() as u64;
            if arrived.length > arrived.limit {
                return Err(ReadError::TooLarge(arrived.limit));
            }
            arrived.decoder.write(&data);
        }
    }
    Ok(())
}

#[derive(Debug, Default)]
struct GateState {
    finished: Option<Request>,
    too_large: bool,
    admitted: bool,
    body: Option<Waker>,
    judge: Option<Waker>,
}

/// Between a body that arrives and the one who admits it.
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<Mutex<GateState>>);

impl Gate {
    fn lock(&self) -> std::sync::MutexGuard<'_, GateState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when the body's last byte has been read (but not sent): what it says, or that it is too large.
    pub(super) async fn finished(&self) -> Option<Request> {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.too_large {
                return Poll::Ready(None);
            }
            match state.finished.take() {
                Some(request) => Poll::Ready(Some(request)),
                None => {
                    state.judge = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Whether the body was given up for its size.
    pub(super) fn is_too_large(&self) -> bool {
        self.lock().too_large
    }

    /// Lets the body's end pass.
    pub(super) fn admit(&self) {
        let mut state = self.lock();
        state.admitted = true;
        if let Some(waker) = state.body.take() {
            waker.wake();
        }
    }
}

/// A body for the upstream.
#[derive(Debug)]
pub(super) enum RequestBody {
    /// Whole.
    Whole { frames: VecDeque<Bytes>, left: u64 },
    /// Still arriving.
    Arriving(Box<Arriving>),
}

#[derive(Debug)]
pub(super) struct Arriving {
    ahead: VecDeque<Bytes>,
    rest: Incoming,
    decoder: Decoder<RequestReader>,
    gate: Gate,
    length: u64,
    limit: u64,
    exact: Option<u64>,
    told: bool,
    ended: bool,
}

impl RequestBody {
    pub(super) fn whole(frames: &[Bytes]) -> Self {
        let left = frames.iter().map(|frame| frame.len() as u64).sum();
        Self::Whole {
            frames: frames.iter().cloned().collect(),
            left,
        }
    }

    pub(super) fn arriving(arrived: Arrived, rest: Incoming, gate: Gate) -> Self {
        let exact = rest.size_hint().exact().map(|left| left + arrived.length);
        Self::Arriving(Box::new(Arriving {
            ahead: arrived.frames.into(),
            rest,
            decoder: arrived.decoder,
            gate,
            length: arrived.length,
            limit: arrived.limit,
            exact,
            told: false,
            ended: false,
        }))
    }
}

impl Arriving {
    /// Always a frame behind what was read, so that the last one waits at the gate.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.ended && self.ahead.len() < 2 {
            match ready!(Pin::new(&mut self.rest).poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else {
                        continue;
                    };
                    self.length += data.len() as u64;
                    if self.length > self.limit {
                        let mut state = self.gate.lock();
                        state.too_large = true;
                        if let Some(waker) = state.judge.take() {
                            waker.wake();
                        }
                        return Poll::Ready(Some(Err(ReadError::TooLarge(self.limit).into())));
                    }
                    self.decoder.write(&data);
                    self.ahead.push_back(data);
                }
            }
        }
        if self.ahead.len() <= 1 {
            let mut state = self.gate.lock();
            if !state.admitted {
                if !std::mem::replace(&mut self.told, true) {
                    state.finished = Some(self.decoder.feed_ref().request().clone());
                }
                state.body = Some(cx.waker().clone());
                if let Some(waker) = state.judge.take() {
                    waker.wake();
                }
                return Poll::Pending;
            }
        }
        Poll::Ready(self.ahead.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Whole { frames, left } => Poll::Ready(frames.pop_front().map(|data| {
                *left = left.saturating_sub(data.len() as u64);
                Ok(Frame::data(data))
            })),
            Self::Arriving(arriving) => arriving.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole { frames, .. } => frames.is_empty(),
            Self::Arriving(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { left, .. } => SizeHint::with_exact(*left),
            Self::Arriving(arriving) => match arriving.exact {
                Some(exact) => SizeHint::with_exact(exact),
                None => SizeHint::default(),
            },
        }
    }
}
