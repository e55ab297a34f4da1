//! Who may see a port: the platform's router by a secret, people by signed links, everybody where that was chosen.
//!
//! A link is a value that carries its id, port, end and the program it was made for, under a MAC; it is valid as often
//! as it is opened until it ends, so neither a prefetch nor a scanner uses it up. It also is the cookie that a browser
//! gets for it. Another program on the same port (a takeover) suspends a link until the port is confirmed. Bounds:
//! [`MAX_REVOKED`] revocations are held until their links end; beyond, revoking fails and says so.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};

use super::settings::PortSettings;

/// Most revocations that are held at a time.
pub const MAX_REVOKED: usize = 10_000;
/// Longest life of a link.
pub const MAX_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Name of the cookie.
pub(crate) const COOKIE: &str = "__whim";
/// Name of the parameter.
pub(crate) const PARAMETER: &str = "whim_link";

const VERSION: u8 = 1;
const PAYLOAD: usize = 1 + 8 + 2 + 8 + 8;
const MAC: usize = 16;

/// The router's secret (`WHIM_PREVIEW_SECRET`). Cannot be printed.
pub struct Secret(Vec<u8>);

impl Secret {
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// 256 random bits, for when none is configured.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn random() -> Result<Self, LinkError> {
        let mut bytes = [0; 32];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| LinkError::Randomness)?;
        Ok(Self(bytes.to_vec()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a link cannot be made or revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("the system gives no random numbers")]
    Randomness,
    #[error("a link lives between 1 s and 30 days")]
    Life,
    #[error("that is no id of a link")]
    Id,
    #[error("too many links are revoked at the moment; wait until some have ended")]
    TooMany,
}

/// A link as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Names the link for its revocation.
    pub id: String,
    /// The secret part: whoever has it may see the port.
    pub token: String,
    pub expires_at: SystemTime,
}

/// What a valid token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claims {
    id: [u8; 8],
    port: u16,
    expires: u64,
    program: u64,
}

/// A request's right to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// The platform's router; what it says about the client is believed.
    Router,
    Link,
    Public,
    /// The link was for a program that no longer listens there.
    Suspended,
    None,
}

#[derive(Debug)]
struct State {
    /// Id to end of the link.
    revoked: HashMap<[u8; 8], u64>,
}

/// Decides and issues.
pub struct Access {
    /// Compares in constant time by comparing MACs of what is compared.
    secret: hmac::Key,
    expected: hmac::Tag,
    links: hmac::Key,
    state: Mutex<State>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Access {
    /// Links are valid as long as the secret stays; `revoked` is what [`Self::revocations`] gave before a restart.
    #[must_use]
    pub fn new(secret: &Secret, revoked: Vec<(String, SystemTime)>) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
        let derived = hmac::sign(&key, b"whim preview links v1");
        let revoked = revoked
            .into_iter()
            .filter_map(|(id, end)| Some((decode_id(&id)?, seconds(end))))
            .collect();
        Self {
            expected: hmac::sign(&key, &secret.0),
            links: hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()),
            secret: key,
            state: Mutex::new(State { revoked }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is one insertion or removal; a panic elsewhere leaves nothing half-done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a link to `port` for the program that is there now (0: whichever comes).
    ///
    /// # Errors
    /// When `life` is out of range or there is no randomness.
    pub fn grant(&self, port: u16, program: u64, life: Duration) -> Result<Grant, LinkError> {
        if life < Duration::from_secs(1) || life > MAX_LIFE {
            return Err(LinkError::Life);
        }
        let mut id = [0; 8];
        SystemRandom::new()
            .fill(&mut id)
            .map_err(|_| LinkError::Randomness)?;
        let expires_at = SystemTime::now() + life;
        let claims = Claims {
            id,
            port,
            expires: seconds(expires_at),
            program,
        };
        Ok(Grant {
            id: encode_id(id),
            token: self.sign(&claims),
            expires_at: UNIX_EPOCH + Duration::from_secs(claims.expires),
        })
    }

    /// From now on the link and the cookies made of it are worth nothing.
    ///
    /// # Errors
    /// When `id` is none, or too many are revoked.
    pub fn revoke(&self, id: &str) -> Result<(), LinkError> {
        let id = decode_id(id).ok_or(LinkError::Id)?;
        let now = SystemTime::now();
        let mut state = self.state();
        if state.revoked.len() >= MAX_REVOKED {
            state.revoked.retain(|_, end| *end > seconds(now));
        }
        if state.revoked.len() >= MAX_REVOKED {
            return Err(LinkError::TooMany);
        }
        state.revoked.insert(id, seconds(now + MAX_LIFE));
        Ok(())
    }

    /// What must be remembered across a restart.
    #[must_use]
    pub fn revocations(&self) -> Vec<(String, SystemTime)> {
        self.state()
            .revoked
            .iter()
            .map(|(id, end)| (encode_id(*id), UNIX_EPOCH + Duration::from_secs(*end)))
            .collect()
    }

    pub(crate) fn is_router(&self, given: &[u8]) -> bool {
        // A MAC of the given value under the secret equals that of the secret only if the values are equal.
        hmac::verify(&self.secret, given, self.expected.as_ref()).is_ok()
    }

    /// Is `token` good for `port` now, with `program` listening there, by what was decided about that port?
    pub(crate) fn check(
        &self,
        token: &[u8],
        (port, settings): (u16, PortSettings),
        program: u64,
        now: SystemTime,
    ) -> Right {
        let Some(claims) = self.verify(token) else {
            return Right::None;
        };
        let state = self.state();
        if claims.port != port
            || claims.expires <= seconds(now)
            || state.revoked.contains_key(&claims.id)
        {
            return Right::None;
        }
        if settings.holds_for(claims.program, program) {
            Right::Link
        } else {
            Right::Suspended
        }
    }

    /// Seconds that a valid token has left, for its cookie.
    pub(crate) fn remaining(&self, token: &[u8], now: SystemTime) -> u64 {
        self.verify(token)
            .map_or(0, |claims| claims.expires.saturating_sub(seconds(now)))
    }

    fn sign(&self, claims: &Claims) -> String {
        let mut bytes = Vec::with_capacity(PAYLOAD + MAC);
        bytes.push(VERSION);
        bytes.extend_from_slice(&claims.id);
        bytes.extend_from_slice(&claims.port.to_be_bytes());
        bytes.extend_from_slice(&claims.expires.to_be_bytes());
        bytes.extend_from_slice(&claims.program.to_be_bytes());
        let mac = hmac::sign(&self.links, &bytes);
        bytes.extend_from_slice(mac.as_ref().get(..MAC).unwrap_or_default());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn verify(&self, token: &[u8]) -> Option<Claims> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (payload, _) = bytes.split_at_checked(PAYLOAD)?;
        let (version, rest) = payload.split_first_chunk::<1>()?;
        let (id, rest) = rest.split_first_chunk::<8>()?;
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let (expires, rest) = rest.split_first_chunk::<8>()?;
        let (program, _) = rest.split_first_chunk::<8>()?;
        let claims = Claims {
            id: *id,
            port: u16::from_be_bytes(*port),
            expires: u64::from_be_bytes(*expires),
            program: u64::from_be_bytes(*program),
        };
        // Both are MACed once more, so that where they differ does not show in the time it takes.
        let given = hmac::sign(&self.secret, token);
        let right = self.sign(&claims);
        (*version == [VERSION]
            && hmac::verify(&self.secret, right.as_bytes(), given.as_ref()).is_ok())
        .then_some(claims)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

fn encode_id(id: [u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(id))
}

fn decode_id(id: &str) -> Option<[u8; 8]> {
    if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(id, 16).ok().map(u64::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use whim_wire::port::HostMode;

    const NOTHING: PortSettings = PortSettings {
        public: None,
        confirmed: None,
        host: HostMode::Auto,
    };
    use proptest::prelude::*;

    fn access() -> Access {
        Access::new(&Secret::new("s"), Vec::new())
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_link_is_good_for_its_port_and_time_and_until_revoked() {
        let (access, now) = (access(), SystemTime::now());
        let grant = access.grant(3000, 7, HOUR).unwrap();
        let check =
            |port, program, at| access.check(grant.token.as_bytes(), (port, NOTHING), program, at);
        assert_eq!(check(3000, 7, now), Right::Link);
        assert_eq!(
            check(3000, 7, now),
            Right::Link,
            "opening does not use it up"
        );
        assert_eq!(check(3001, 7, now), Right::None);
        assert_eq!(check(3000, 7, now + HOUR), Right::None);
        access.revoke(&grant.id).unwrap();
        assert_eq!(check(3000, 7, now), Right::None);
        let later = Access::new(&Secret::new("s"), access.revocations());
        assert_eq!(
            later.check(grant.token.as_bytes(), (3000, NOTHING), 7, now),
            Right::None,
            "across a restart"
        );
        let other = access.grant(3000, 7, HOUR).unwrap();
        assert_eq!(
            later.check(other.token.as_bytes(), (3000, NOTHING), 7, now),
            Right::Link,
            "the same secret"
        );
        let foreign = Access::new(&Secret::new("t"), Vec::new());
        assert_eq!(
            foreign.check(other.token.as_bytes(), (3000, NOTHING), 7, now),
            Right::None
        );
    }

    #[test]
    fn a_takeover_suspends_until_confirmed() {
        let (access, now) = (access(), SystemTime::now());
        let grant = access.grant(3000, 7, HOUR).unwrap();
        assert_eq!(
            access.check(grant.token.as_bytes(), (3000, NOTHING), 8, now),
            Right::Suspended
        );
        let confirmed = PortSettings {
            confirmed: Some(8),
            ..NOTHING
        };
        assert_eq!(
            access.check(grant.token.as_bytes(), (3000, confirmed), 8, now),
            Right::Link
        );
        assert_eq!(
            access.check(grant.token.as_bytes(), (3000, confirmed), 9, now),
            Right::Suspended
        );
        assert_eq!(
            access.check(grant.token.as_bytes(), (3000, NOTHING), 7, now),
            Right::Link
        );
    }

    #[test]
    fn the_secret_must_be_all_of_it() {
        let access = Access::new(&Secret::new("correct"), Vec::new());
        assert!(access.is_router(b"correct"));
        for wrong in [&b""[..], b"correc", b"correct ", b"Correct"] {
            assert!(!access.is_router(wrong));
        }
        assert!(!format!("{:?} {access:?}", Secret::new("correct")).contains("correct"));
    }

    #[test]
    fn limits_are_told() {
        let access = access();
        assert_eq!(access.grant(1, 0, Duration::ZERO), Err(LinkError::Life));
        assert_eq!(access.grant(1, 0, MAX_LIFE + HOUR), Err(LinkError::Life));
        assert_eq!(access.revoke("+000000000000001"), Err(LinkError::Id));
        for id in 0..MAX_REVOKED {
            access.revoke(&format!("{id:016x}")).unwrap();
        }
        assert_eq!(access.revoke("ffffffffffffffff"), Err(LinkError::TooMany));
    }

    proptest! {
        #[test]
        fn no_changed_token_is_valid(at in 0usize..58, with in "[A-Za-z0-9_-]") {
            let access = access();
            let grant = access.grant(3000, 7, HOUR).unwrap();
            let mut token = grant.token.clone().into_bytes();
            prop_assume!(token[at] != with.as_bytes()[0]);
            token[at] = with.as_bytes()[0];
            prop_assert_eq!(access.check(&token, (3000, NOTHING), 7, SystemTime::now()), Right::None);
        }

        #[test]
        fn no_bytes_are_a_token(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(access().check(&bytes, (3000, NOTHING), 0, SystemTime::now()), Right::None);
        }
    }
}
