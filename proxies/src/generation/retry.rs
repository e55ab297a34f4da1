//! When a call that failed before its first byte is made again.
//!
//! Pure. Agents retry by themselves, ten times or more; what is added here is small on purpose and shared by all calls:
//! a bucket that fills by a fifth of a retry per call, so that a provider's bad hour costs at most that much more.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};

/// Bounds of retrying.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Calls upstream for one request, failovers included; a connection that had died in the pool does not count.
    pub attempts: u32,
    /// Pause before the second one.
    pub pause: Duration,
    /// The longest `Retry-After` that is waited out here; the agent is better at waiting longer.
    pub patience: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 2,
            pause: Duration::from_millis(250),
            patience: Duration::from_secs(2),
        }
    }
}

const FULL: u32 = 10_000;
const RETRY: u32 = 1_000;
const REFILL: u32 = 200;

/// What may still be retried, in thousandths of a retry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance(u32);

impl Default for Allowance {
    fn default() -> Self {
        Self(FULL)
    }
}

impl Allowance {
    pub(super) fn call(&mut self) {
        self.0 = (self.0 + REFILL).min(FULL);
    }

    pub(super) fn take(&mut self) -> bool {
        match self.0.checked_sub(RETRY) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

/// Whether a status is the provider's trouble and may be gone at the next try.
pub(super) fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 500 | 502 | 503 | 504 | 524 | 529)
}

/// Whether another provider may answer what this one did not.
pub(super) fn is_worth_failover(status: StatusCode) -> bool {
    is_transient(status) || status == StatusCode::TOO_MANY_REQUESTS
}

/// How long `Retry-After` asks to wait: seconds or a date (RFC 9110 10.2.3). Anything else says nothing; a date in
/// the past asks for no wait.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let at = SystemTime::from(date.timestamp());
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    #[test]
    fn retry_after_in_all_its_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let wait = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            retry_after(&headers, now)
        };
        assert_eq!(wait("3"), Some(Duration::from_secs(3)));
        assert_eq!(
            wait("99999999999999999999999"),
            Some(Duration::from_secs(u64::MAX))
        );
        assert_eq!(
            wait("Sun, 06 Nov 1994 08:49:47 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        for nonsense in ["-1", "", "soon", "1.5"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_storm_is_damped() {
        let mut allowance = Allowance::default();
        let retries = (0..1000).filter(|_| {
            allowance.call();
            allowance.take()
        });
        assert!((200..=220).contains(&retries.count()));
    }
}
