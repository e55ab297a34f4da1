//! Who may open which terminal: short-lived tokens, links, and the limit on failures.
//!
//! Three ways in: the control token as bearer; an `AuthToken` fetched with it (60 s, one terminal); a link, whose path
//! is itself the credential for one terminal. Secrets are compared in constant time; of links only hashes are kept.
//!
//! Bounds: [`MAX_TOKENS`] tokens (the oldest goes), [`MAX_LINKS`] links (a new one is refused), [`MAX_SOURCES`] sources
//! with failures (the longest quiet one goes).

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::terminals::TerminalId;

/// How long an `AuthToken` is good (CONTRACT §6c).
pub const TOKEN_LIFE: Duration = Duration::from_secs(60);
const MAX_TOKENS: usize = 4096;
pub const MAX_LINKS: usize = 256;
const MAX_SOURCES: usize = 1024;
/// Failures of one source within [`FAILURE_WINDOW`] after which further failures are answered 429.
const MAX_FAILURES: u32 = 20;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// What every link's path begins with; no terminal can have the name.
pub const LINK_PREFIX: &str = "cap-";

/// Checks the bearer. Must compare in constant time.
pub type VerifyBearer = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Compares without telling by its duration where the difference is (only the length shows).
pub fn same(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// No randomness could be had from the kernel.
#[derive(Debug, thiserror::Error)]
#[error("the kernel gave no random bytes: {0}")]
pub struct NoRandomness(getrandom::Error);

fn random() -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// What a credential lets its holder do with one terminal.
#[derive(Clone, Debug)]
pub struct Grant {
    pub terminal: TerminalId,
    pub read_only: bool,
    /// Ends the viewers of a link when it is revoked.
    pub revoked: CancellationToken,
    pub expires: Option<Instant>,
}

#[derive(Debug)]
struct Token {
    value: String,
    terminal: TerminalId,
    expires: Instant,
}

/// A link as it is kept.
#[derive(Debug)]
struct Link {
    number: u64,
    hash: [u8; 32],
    grant: Grant,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    since: Instant,
}

#[derive(Debug, Default)]
struct Books {
    tokens: VecDeque<Token>,
    links: Vec<Link>,
    last_link: u64,
    failures: BTreeMap<Option<IpAddr>, Failures>,
}

/// A new link.
#[derive(Debug)]
pub struct NewLink {
    pub number: u64,
    /// Last part of the path: `cap-…`.
    pub secret: String,
}

/// Why there is no new link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error("there are {MAX_LINKS} links already; revoke one")]
    TooMany,
}

/// See the module's header.
#[derive(Clone)]
pub struct Access {
    verify: VerifyBearer,
    books: Arc<Mutex<Books>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    pub fn new(verify: VerifyBearer) -> Self {
        Self {
            verify,
            books: Arc::default(),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        act(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the request shows the control token: `None` when it shows no credential at all.
    pub fn bearer(&self, headers: &http::HeaderMap) -> Option<bool> {
        let value = headers.get(http::header::AUTHORIZATION)?.as_bytes();
        let (scheme, token) = value.split_at_checked(7).unwrap_or((value, b""));
        Some(scheme.eq_ignore_ascii_case(b"bearer ") && (self.verify)(token))
    }

    /// A fresh `AuthToken` for one terminal.
    ///
    /// # Errors
    /// Without randomness.
    pub fn issue(&self, terminal: &TerminalId) -> Result<String, NoRandomness> {
        let value = random()?;
        let token = Token {
            value: value.clone(),
            terminal: terminal.clone(),
            expires: Instant::now() + TOKEN_LIFE,
        };
        self.with(|books| {
            books.forget_tokens();
            if books.tokens.len() == MAX_TOKENS {
                books.tokens.pop_front();
            }
            books.tokens.push_back(token);
        });
        Ok(value)
    }

    /// Whether `value` is a token of this terminal that still lives. May be used again while it does: a page that
    /// reconnects within the minute need not ask for another.
    pub fn redeem(&self, value: &str, terminal: &TerminalId) -> bool {
        self.with(|books| {
            books.forget_tokens();
            // No early exit: every token is compared, so that the time tells nothing.
            books.tokens.iter().fold(false, |found, token| {
                found
                    | (same(token.value.as_bytes(), value.as_bytes())
                        && token.terminal == *terminal)
            })
        })
    }

    /// Whether anyone can hold a living token of this terminal.
    pub fn has_token(&self, terminal: &TerminalId) -> bool {
        self.with(|books| {
            books.forget_tokens();
            books.tokens.iter().any(|token| token.terminal == *terminal)
        })
    }

    /// A new link to one terminal.
    ///
    /// # Errors
    /// Without randomness, or with too many links.
    pub fn link(
        &self,
        terminal: &TerminalId,
        read_only: bool,
        life: Duration,
    ) -> Result<NewLink, LinkError> {
        let secret = format!("{LINK_PREFIX}{}", random()?);
        let grant = Grant {
            terminal: terminal.clone(),
            read_only,
            revoked: CancellationToken::new(),
            expires: Some(Instant::now() + life),
        };
        self.with(|books| {
            books.forget_links();
            if books.links.len() >= MAX_LINKS {
                return Err(LinkError::TooMany);
            }
            books.last_link += 1;
            let number = books.last_link;
            books.links.push(Link {
                number,
                hash: hash(&secret),
                grant,
            });
            Ok(NewLink {
                number,
                secret: secret.clone(),
            })
        })
    }

    /// What a path part that begins with [`LINK_PREFIX`] opens.
    pub fn open(&self, secret: &str) -> Option<Grant> {
        let wanted = hash(secret);
        self.with(|books| {
            books.forget_links();
            books
                .links
                .iter()
                .find(|link| same(&link.hash, &wanted))
                .map(|link| link.grant.clone())
        })
    }

    /// Revokes a link of this terminal and cuts its viewers. False when there is none.
    pub fn revoke(&self, terminal: &TerminalId, number: u64) -> bool {
        self.with(|books| {
            let place = books
                .links
                .iter()
                .position(|link| link.number == number && link.grant.terminal == *terminal);
            let link = place.map(|place| books.links.swap_remove(place));
            if let Some(link) = &link {
                link.grant.revoked.cancel();
            }
            link.is_some()
        })
    }

    /// The terminal is closed: its links and tokens open nothing any more. Who looks on sees its end.
    pub fn forget(&self, terminal: &TerminalId) {
        self.with(|books| {
            books.links.retain(|link| link.grant.terminal != *terminal);
            books.tokens.retain(|token| token.terminal != *terminal);
        });
    }

    /// Counts a failed credential; true when this source has had too many lately.
    pub fn failed(&self, source: Option<IpAddr>) -> bool {
        self.with(|books| books.count_failure(source))
    }

    /// Whether this source has had too many failures lately.
    pub fn is_limited(&self, source: Option<IpAddr>) -> bool {
        self.with(|books| {
            books.failures.get(&source).is_some_and(|failures| {
                failures.count > MAX_FAILURES && failures.since.elapsed() < FAILURE_WINDOW
            })
        })
    }
}

impl Books {
    fn forget_tokens(&mut self) {
        let now = Instant::now();
        self.tokens.retain(|token| token.expires > now);
    }

    fn forget_links(&mut self) {
        let now = Instant::now();
        self.links
            .retain(|link| link.grant.expires.is_none_or(|expires| expires > now));
    }

    fn count_failure(&mut self, source: Option<IpAddr>) -> bool {
        if self.failures.len() >= MAX_SOURCES && !self.failures.contains_key(&source) {
            let quiet = self
                .failures
                .iter()
                .min_by_key(|(_, failures)| failures.since);
            if let Some(quiet) = quiet.map(|(source, _)| *source) {
                self.failures.remove(&quiet);
            }
        }
        let failures = self.failures.entry(source).or_insert_with(|| Failures {
            count: 0,
            since: Instant::now(),
        });
        if failures.since.elapsed() >= FAILURE_WINDOW {
            *failures = Failures {
                count: 0,
                since: Instant::now(),
            };
        }
        failures.count = failures.count.saturating_add(1);
        failures.count > MAX_FAILURES
    }
}

fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access() -> Access {
        Access::new(Arc::new(|token| same(token, b"control")))
    }

    fn main() -> TerminalId {
        TerminalId::new("main").unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_open_one_terminal_for_a_minute() {
        let access = access();
        let token = access.issue(&main()).unwrap();
        assert!(access.redeem(&token, &main()));
        assert!(!access.redeem(&token, &TerminalId::new("shell-1").unwrap()));
        assert!(!access.redeem("", &main()));
        tokio::time::advance(TOKEN_LIFE).await;
        assert!(!access.redeem(&token, &main()));
        assert!(!access.has_token(&main()));
    }

    #[tokio::test(start_paused = true)]
    async fn links_can_be_revoked_and_expire() {
        let access = access();
        let link = access.link(&main(), true, Duration::from_secs(10)).unwrap();
        let grant = access.open(&link.secret).unwrap();
        assert!(grant.read_only && grant.terminal == main());
        assert!(access.open("cap-nonsense").is_none());
        assert!(!access.revoke(&TerminalId::new("shell-1").unwrap(), link.number));
        assert!(access.revoke(&main(), link.number));
        assert!(grant.revoked.is_cancelled() && access.open(&link.secret).is_none());
        let link = access
            .link(&main(), false, Duration::from_secs(10))
            .unwrap();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(access.open(&link.secret).is_none());
    }

    #[test]
    fn what_opened_a_closed_terminal_opens_nothing() {
        let access = access();
        let shell = TerminalId::new("shell-1").unwrap();
        let life = Duration::from_secs(10);
        let (link, token) = (
            access.link(&shell, false, life).unwrap(),
            access.issue(&shell).unwrap(),
        );
        let other = access.link(&main(), false, life).unwrap();
        access.forget(&shell);
        assert!(access.open(&link.secret).is_none() && !access.redeem(&token, &shell));
        assert!(access.open(&other.secret).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_limited_by_source_and_forgotten() {
        let access = access();
        let source = Some("192.0.2.1".parse().unwrap());
        for _ in 0..MAX_FAILURES {
            assert!(!access.failed(source));
        }
        assert!(access.failed(source) && access.is_limited(source));
        assert!(!access.is_limited(Some("192.0.2.2".parse().unwrap())));
        tokio::time::advance(FAILURE_WINDOW).await;
        assert!(!access.is_limited(source));
    }

    #[test]
    fn the_bearer_is_read_as_http_says() {
        let access = access();
        let with = |value: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert("authorization", value.parse().unwrap());
            access.bearer(&headers)
        };
        assert_eq!(access.bearer(&http::HeaderMap::new()), None);
        assert_eq!(with("Bearer control"), Some(true));
        assert_eq!(with("bearer control"), Some(true));
        assert_eq!(with("Bearer other"), Some(false));
        assert_eq!(with("Basic control"), Some(false));
    }
}
