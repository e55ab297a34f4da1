//! Connections to upstreams, kept for the next call.
//!
//! A connection is driven by whoever uses it: the task that waits for the answer's head or reads its body polls the
//! connection as well. So forwarding takes no hop between tasks, a reader that stops reading stops the upstream, and
//! dropping the body closes the connection: that is how a call is cancelled.
//!
//! At the bounds: [`IDLE`] connections wait per target, the oldest goes; none waits longer than [`IDLE_TIME`]. A
//! connection that was closed, or that waited while the machine slept, is replaced before it is used. An answer has at
//! most the 100 headers that hyper reads without allocating.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant, SystemTime};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nix::time::{ClockId, clock_gettime};

use super::dial::{DialError, Dialer, Stream, Target};

/// Idle connections that are kept per target.
pub const IDLE: usize = 64;
/// How long one is kept; below the idle time-out of the providers' front ends.
pub const IDLE_TIME: Duration = Duration::from_secs(50);
/// A difference between clocks that count sleep and those that do not, from which the machine must have slept.
const SLEPT: Duration = Duration::from_secs(2);

/// An error of a request's body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request's body, as connections are made for.
pub trait Payload: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static {}

impl<B: Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static> Payload for B {}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection ended before an answer's head.
    #[error("the connection ended before an answer")]
    Ended {
        /// What HTTP said.
        #[source]
        source: hyper::Error,
        /// The connection had served before, so that its end may have been on its way already.
        reused: bool,
    },
}

struct Conn<B: Payload> {
    sender: http1::SendRequest<B>,
    connection: Pin<Box<http1::Connection<TokioIo<Stream>, B>>>,
    reused: bool,
}

struct Idle<B: Payload> {
    conn: Conn<B>,
    since: Clocks,
}

#[derive(Clone, Copy)]
struct Clocks {
    /// Stands still while the machine sleeps.
    awake: Instant,
    /// Counts sleep.
    boot: Duration,
    /// Jumps when a frozen machine wakes.
    wall: SystemTime,
}

impl Clocks {
    fn now() -> Self {
        let boot = clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            .unwrap_or_default();
        Self {
            awake: Instant::now(),
            boot,
            wall: SystemTime::now(),
        }
    }

    /// Whether a connection that waited from here to `now` may still be good.
    fn fresh(self, now: Self) -> bool {
        let awake = now.awake.saturating_duration_since(self.awake);
        let boot = now.boot.saturating_sub(self.boot);
        let wall = now.wall.duration_since(self.wall).unwrap_or_default();
        awake < IDLE_TIME && boot.max(wall) < awake + SLEPT
    }
}

/// Connections by target. `B` is the body of requests.
pub struct Pool<B: Payload> {
    dialer: Dialer,
    idle: Mutex<HashMap<Target, Vec<Idle<B>>>>,
}

impl<B: Payload> std::fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("dialer", &self.dialer)
            .finish_non_exhaustive()
    }
}

impl<B: Payload> Pool<B> {
    /// An empty pool.
    #[must_use]
    pub fn new(dialer: Dialer) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            idle: Mutex::default(),
        })
    }

    /// The dialer, for connections that are not pooled.
    #[must_use]
    pub const fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// Sends a request and waits for the answer's head. `fresh` forbids a connection that has served before.
    ///
    /// # Errors
    /// [`CallError`]. Dropping the future cancels the call.
    pub async fn call(
        self: &Arc<Self>,
        target: &Target,
        request: Request<B>,
        fresh: bool,
    ) -> Result<Response<PooledBody<B>>, CallError> {
        let waiting = if fresh { None } else { self.checkout(target) };
        let mut conn = match waiting {
            Some(conn) => conn,
            None => self.connect(target).await?,
        };
        let mut answer = Box::pin(conn.sender.send_request(request));
        let answer = std::future::poll_fn(|cx| {
            // The connection may end in the same moment as it delivers: the answer is asked last.
            let _ended: Poll<_> = conn.connection.as_mut().poll(cx);
            answer.as_mut().poll(cx)
        })
        .await;
        let reused = conn.reused;
        let answer = answer.map_err(|source| CallError::Ended { source, reused })?;
        let (pool, target) = (Arc::clone(self), target.clone());
        Ok(answer.map(|incoming| PooledBody {
            incoming,
            home: Some(Home { conn, pool, target }),
        }))
    }

    /// Drops connections that have waited too long.
    pub fn sweep(&self) {
        let now = Clocks::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for waiting in idle.values_mut() {
            waiting.retain(|idle| idle.since.fresh(now));
        }
        idle.retain(|_, waiting| !waiting.is_empty());
    }

    async fn connect(&self, target: &Target) -> Result<Conn<B>, CallError> {
        let stream = self.dialer.dial(target).await?;
        let (sender, connection) = http1::Builder::new()
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| CallError::Ended {
                source,
                reused: false,
            })?;
        Ok(Conn {
            sender,
            connection: Box::pin(connection),
            reused: false,
        })
    }

    fn checkout(&self, target: &Target) -> Option<Conn<B>> {
        let now = Clocks::now();
        loop {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let Idle { mut conn, since } = idle.get_mut(target)?.pop()?;
            drop(idle);
            let mut context = Context::from_waker(Waker::noop());
            // Polling reads: an end or a stray byte that has arrived shows here.
            let open = conn.connection.as_mut().poll(&mut context).is_pending();
            if open && conn.sender.is_ready() && since.fresh(now) {
                conn.reused = true;
                return Some(conn);
            }
        }
    }
}

impl<B: Payload> Pool<B> {
    fn checkin(&self, target: Target, conn: Conn<B>) {
        let since = Clocks::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.entry(target).or_default();
        if waiting.len() >= IDLE {
            waiting.remove(0);
        }
        waiting.push(Idle { conn, since });
    }
}

struct Home<B: Payload> {
    conn: Conn<B>,
    pool: Arc<Pool<B>>,
    target: Target,
}

/// An answer's body; drives its connection, and returns it to the pool at a clean end.
pub struct PooledBody<B: Payload> {
    incoming: Incoming,
    home: Option<Home<B>>,
}

impl<B: Payload> std::fmt::Debug for PooledBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PooledBody")
            .field("incoming", &self.incoming)
            .finish_non_exhaustive()
    }
}

impl<B: Payload> PooledBody<B> {
    /// The body was read to its end: its connection may serve another call.
    fn go_home(&mut self) {
        let Some(mut home) = self.home.take() else {
            return;
        };
        let mut context = Context::from_waker(Waker::noop());
        let open = home
            .conn
            .connection
            .as_mut()
            .poll(&mut context)
            .is_pending();
        if open && home.conn.sender.is_ready() {
            home.pool.checkin(home.target, home.conn);
        }
    }
}

impl<B: Payload> Drop for PooledBody<B> {
    fn drop(&mut self) {
        // A body of stated length is dropped with its last byte, without a look at its end.
        if self.incoming.is_end_stream() {
            self.go_home();
        }
    }
}

impl<B: Payload> Body for PooledBody<B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = &mut *self;
        let mut frame = Pin::new(&mut this.incoming).poll_frame(cx);
        if frame.is_pending()
            && let Some(home) = &mut this.home
        {
            // An error of the connection reaches the body as well, which tells it better.
            if home.conn.connection.as_mut().poll(cx).is_ready() {
                this.home = None;
            }
            frame = Pin::new(&mut this.incoming).poll_frame(cx);
        }
        let frame = ready!(frame);
        match frame {
            Some(Ok(_)) => {}
            Some(Err(_)) => this.home = None,
            None => this.go_home(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_and_age_make_a_connection_stale() {
        let since = Clocks::now();
        let later = |awake: u64, boot: u64, wall: u64| Clocks {
            awake: since.awake + Duration::from_secs(awake),
            boot: since.boot + Duration::from_secs(boot),
            wall: since.wall + Duration::from_secs(wall),
        };
        assert!(since.fresh(later(10, 10, 10)));
        assert!(!since.fresh(later(51, 51, 51)), "old");
        assert!(!since.fresh(later(10, 30, 30)), "slept");
        assert!(!since.fresh(later(10, 10, 3600)), "was frozen");
        let back = Clocks {
            wall: since.wall - Duration::from_secs(3600),
            ..later(10, 10, 0)
        };
        assert!(since.fresh(back), "a clock set back says nothing");
    }
}
