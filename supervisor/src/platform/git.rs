//! A login for the task's repository, renewed before it ends, so that git works for days.
//!
//! Ends are times of day that the platform names, so the wall clock is asked, at least every [`LOOK`]: a machine that was
//! suspended wakes with a login that is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use whim_wire::platform::{GitLogin, GitQuestion};
use whim_wire::time::Time;

use super::client::{Call, Trouble};
use super::link::Link;
use super::retry::{Backoff, Kind};
use crate::boot::credentials::{GitCredentials, Remote};
use crate::clock;

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_secs(30);
/// A login must hold this much longer to be given to git; of a short life, half.
const SPARE_MS: i64 = 30_000;
/// Least distance of two questions because git asks: it may ask in a loop.
const BETWEEN: Duration = Duration::from_secs(2);
/// Questions of git that may wait; one beyond is answered with what is there.
const ASKED: usize = 64;

/// The life of a login. Pure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    from: Time,
    /// None: nobody knows.
    until: Option<Time>,
}

impl Life {
    /// Milliseconds from getting it to its end. Where the clocks disagree so far that it came after its end, a minute.
    fn length(self) -> Option<i64> {
        let length = self.until?.as_millisecond() - self.from.as_millisecond();
        Some(if length > 0 { length.max(1000) } else { 60_000 })
    }

    /// Milliseconds from `now` until it is to be renewed: when four fifths are over.
    fn renew_in(self, now: Time) -> Option<i64> {
        let at = self.from.as_millisecond() + self.length()? / 5 * 4;
        Some((at - now.as_millisecond()).max(0))
    }

    /// Whether it may be given to git.
    fn is_good(self, now: Time) -> bool {
        self.length().is_none_or(|length| {
            let end = self.from.as_millisecond() + length;
            now.as_millisecond() + SPARE_MS.min(length / 2) < end
        })
    }
}

/// How it stands with the login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Unknown,
    Held(Life),
    /// The platform answered, and gives none.
    Refused,
}

/// Handle to the login of one remote. The task ends with `stop`.
#[derive(Clone, Debug)]
pub(super) struct Login {
    remote: Remote,
    standing: watch::Receiver<Standing>,
    asks: mpsc::Sender<Ask>,
    stop: CancellationToken,
}

/// Git asks.
#[derive(Debug)]
struct Ask {
    /// A server refused the login that is held.
    refused: bool,
    answer: oneshot::Sender<()>,
}

impl Login {
    /// Begins to keep a login for `remote` in `credentials`, until [`Login::end`] or the supervisor's.
    pub(super) fn keep(link: Arc<Link>, remote: Remote, credentials: Arc<GitCredentials>) -> Self {
        let (standing_sender, standing) = watch::channel(Standing::default());
        let (asks, asked) = mpsc::channel(ASKED);
        let stop = link.stop().child_token();
        let login = Self {
            remote: remote.clone(),
            standing,
            asks,
            stop: stop.clone(),
        };
        let renewal = Renewal {
            link,
            remote,
            credentials,
            standing: standing_sender,
            asked,
        };
        drop(tokio::spawn(async move {
            tokio::select! {
                () = renewal.run() => {}
                () = stop.cancelled() => {}
            }
        }));
        login
    }

    /// Waits until there is a login, or the platform says that it gives none.
    pub(super) async fn first(&self) {
        let mut standing = self.standing.clone();
        // An error means that the task has ended: there is nothing to wait for.
        drop(
            standing
                .wait_for(|standing| *standing != Standing::Unknown)
                .await,
        );
    }

    pub(super) fn is_for(&self, protocol: &str, host: &str, path: &str) -> bool {
        self.remote.is(protocol, host, path)
    }

    /// Git asks: returns when the login is good, or could not be renewed.
    pub(super) async fn freshen(&self) {
        if let Standing::Held(life) = *self.standing.borrow()
            && life.is_good(clock::now())
        {
            return;
        }
        self.ask(false).await;
    }

    /// The login is not good, whatever its end: returns when there is another, or could not be.
    pub(super) async fn renew(&self) {
        self.ask(true).await;
    }

    async fn ask(&self, refused: bool) {
        let (answer, answered) = oneshot::channel();
        if self.asks.try_send(Ask { refused, answer }).is_ok() {
            // Dropped unanswered when the task ends: what is there is given.
            drop(answered.await);
        }
    }

    /// No login is kept any more.
    pub(super) fn end(&self) {
        self.stop.cancel();
    }
}

struct Renewal {
    link: Arc<Link>,
    remote: Remote,
    credentials: Arc<GitCredentials>,
    standing: watch::Sender<Standing>,
    asked: mpsc::Receiver<Ask>,
}

impl Renewal {
    async fn run(mut self) {
        let mut tokens = self.link.client().tokens();
        let mut backoff = Backoff::default();
        let mut retry = Some(Instant::now());
        let mut tried: Option<Instant> = None;
        loop {
            let life = match *self.standing.borrow() {
                Standing::Held(life) => Some(life),
                Standing::Unknown | Standing::Refused => None,
            };
            let left = life.and_then(|life| life.renew_in(clock::now()));
            let wait = left.map(|left| Duration::from_millis(u64::try_from(left).unwrap_or(0)));
            // After a failure the pause counts, else the login's age.
            let due = retry.or_else(|| wait.map(|wait| Instant::now() + wait.min(LOOK)));
            let mut asking = None;
            tokio::select! {
                () = clock::until(due) => {
                    let over = life.is_none_or(|life| life.renew_in(clock::now()).is_some_and(|left| left == 0));
                    if retry.is_none() && !over {
                        continue;
                    }
                }
                ask = self.asked.recv() => {
                    let Some(ask) = ask else { return };
                    let good = life.is_some_and(|life| life.is_good(clock::now()));
                    if (good && !ask.refused) || tried.is_some_and(|tried| tried.elapsed() < BETWEEN) {
                        // The asker may have left.
                        ask.answer.send(()).ok();
                        continue;
                    }
                    asking = Some(ask);
                }
                _ = tokens.changed(), if retry.is_some() => {}
            }
            tried = Some(Instant::now());
            match self.ask().await {
                Ok(life) => {
                    backoff.succeeded();
                    retry = None;
                    self.standing.send_replace(Standing::Held(life));
                }
                Err(trouble) => {
                    tracing::warn!(%trouble, "the platform gives no login for git");
                    retry = Some(Instant::now() + Link::pause(&mut backoff, &trouble));
                    if trouble.kind == Kind::Refused && life.is_none() {
                        self.standing.send_replace(Standing::Refused);
                    }
                }
            }
            if let Some(ask) = asking {
                ask.answer.send(()).ok();
            }
        }
    }

    async fn ask(&self) -> Result<Life, Trouble> {
        let question = GitQuestion {
            url: self.remote.url(),
        };
        let confused = |error: serde_json::Error| Trouble::confused(&position(&error));
        let question = serde_json::to_vec(&question).map_err(confused)?;
        let from = clock::now();
        let answer = self
            .link
            .call(Call::GitCredentials, Bytes::from(question))
            .await?;
        let login: GitLogin = serde_json::from_slice(&answer).map_err(confused)?;
        self.credentials.set(
            self.remote.clone(),
            login.username,
            login.password.expose().to_owned(),
        );
        Ok(Life {
            from,
            until: login.expires_at,
        })
    }
}

/// Where JSON is wrong; its own words may repeat what stands there, which is a password.
fn position(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    #[test]
    fn a_login_is_renewed_when_four_fifths_are_over() {
        let life = Life {
            from: at("2026-11-22T10:00:00Z"),
            until: Some(at("2026-11-22T11:00:00Z")),
        };
        assert_eq!(life.renew_in(at("2026-11-22T10:00:00Z")), Some(48 * 60_000));
        assert_eq!(life.renew_in(at("2026-11-22T10:50:00Z")), Some(0));
        assert!(life.is_good(at("2026-11-22T10:59:29Z")));
        assert!(!life.is_good(at("2026-11-22T10:59:30Z")));
        assert!(!life.is_good(at("2026-11-23T10:00:00Z")), "after a sleep");
    }

    #[test]
    fn a_login_of_unknown_life_is_kept() {
        let life = Life {
            from: at("2026-11-22T10:00:00Z"),
            until: None,
        };
        assert_eq!(life.renew_in(at("2026-11-29T10:00:00Z")), None);
        assert!(life.is_good(at("2026-11-29T10:00:00Z")));
    }

    #[test]
    fn clocks_that_disagree_make_no_busy_loop() {
        let life = Life {
            from: at("2026-11-22T10:00:00Z"),
            until: Some(at("2026-11-22T09:00:00Z")),
        };
        assert_eq!(life.renew_in(at("2026-11-22T10:00:00Z")), Some(48_000));
        assert!(life.is_good(at("2026-11-22T10:00:00Z")));
        assert!(!life.is_good(at("2026-11-22T10:00:31Z")));
    }

    #[test]
    fn a_broken_answer_is_not_repeated() {
        let error = serde_json::from_str::<GitLogin>(r#"{"username":1,"password":"hunter2"}"#);
        assert_eq!(position(&error.unwrap_err()), "line 1, column 13");
    }
}
