//! Who may call: tokens that are worth nothing elsewhere, each of one session.

use std::sync::{Arc, PoisonError, RwLock};

use http::header::{AUTHORIZATION, HeaderMap};

use super::provider::Upstream;
use super::secret::Secret;

/// What a token stands for.
#[derive(Clone, Debug)]
pub struct Session {
    /// Session id.
    pub id: String,
    /// Kind of agent, for the ledger.
    pub agent: String,
    /// Where its calls go: the first, and where to turn when that fails before an answer.
    pub upstreams: Vec<Upstream>,
}

#[derive(Debug)]
struct Grant {
    token: Secret,
    session: Arc<Session>,
}

/// The tokens that are valid now; replaceable while running. A handful, so each look-up compares all of them.
#[derive(Clone, Debug, Default)]
pub struct SessionTokens {
    grants: Arc<RwLock<Vec<Grant>>>,
}

impl SessionTokens {
    /// Makes a token `whim-<session>-<random>` for a session; an older one of the same session stays valid.
    ///
    /// # Errors
    /// The kernel gave no randomness.
    pub fn issue(&self, session: Session) -> Result<Secret, getrandom::Error> {
        let mut random = [0u8; 24];
        getrandom::fill(&mut random)?;
        let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let token = Secret::new(format!("whim-{}-{hex}", session.id));
        self.adopt(token.clone(), session);
        Ok(token)
    }

    /// Takes over a token that was issued before a restart.
    pub fn adopt(&self, token: Secret, session: Session) {
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        grants.retain(|grant| !grant.token.is(token.expose().as_bytes()));
        let session = Arc::new(session);
        grants.push(Grant { token, session });
    }

    /// Makes all tokens of a session invalid. Calls in flight go on.
    pub fn revoke(&self, session: &str) {
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        grants.retain(|grant| grant.session.id != session);
    }

    /// The session whose token a request carries as bearer or as `x-api-key`. If it carries both, both must be good.
    #[must_use]
    pub fn find(&self, headers: &HeaderMap) -> Option<Arc<Session>> {
        let bearer = headers.get_all(AUTHORIZATION).iter().map(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7).unwrap_or_default();
            if scheme.eq_ignore_ascii_case(b"bearer ") {
                token.trim_ascii()
            } else {
                b""
            }
        });
        let keys = headers
            .get_all("x-api-key")
            .iter()
            .map(|value| value.as_bytes());
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Option<Arc<Session>> = None;
        for presented in bearer.chain(keys) {
            let mut this = None;
            for grant in grants.iter() {
                if grant.token.is(presented) {
                    this = Some(&grant.session);
                }
            }
            match (this, &found) {
                (Some(session), None) => found = Some(Arc::clone(session)),
                (Some(session), Some(before)) if session.id == before.id => {}
                _ => return None,
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    fn session(id: &str) -> Session {
        Session {
            id: id.to_owned(),
            agent: "claude".to_owned(),
            upstreams: Vec::new(),
        }
    }

    fn find(tokens: &SessionTokens, headers: &[(&'static str, String)]) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        tokens.find(&map).map(|session| session.id.clone())
    }

    #[test]
    fn only_issued_tokens_find_their_session() {
        let tokens = SessionTokens::default();
        let a = tokens.issue(session("main")).unwrap();
        let b = tokens.issue(session("other")).unwrap();
        let a = a.expose();
        assert!(a.starts_with("whim-main-") && a.len() > 40);
        assert_eq!(
            find(&tokens, &[("authorization", format!("Bearer {a}"))]),
            Some("main".into())
        );
        assert_eq!(
            find(&tokens, &[("authorization", format!("bearer {a}"))]),
            Some("main".into())
        );
        assert_eq!(
            find(&tokens, &[("x-api-key", a.to_owned())]),
            Some("main".into())
        );
        let both = [
            ("x-api-key", a.to_owned()),
            ("authorization", format!("Bearer {a}")),
        ];
        assert_eq!(find(&tokens, &both), Some("main".into()));
        let two = [
            ("x-api-key", b.expose().to_owned()),
            ("authorization", format!("Bearer {a}")),
        ];
        assert_eq!(find(&tokens, &two), None, "two sessions in one request");
        for bad in [a.get(..a.len() - 1).unwrap(), "", "whim-main-", "Basic x"] {
            assert_eq!(
                find(&tokens, &[("authorization", format!("Bearer {bad}"))]),
                None,
                "{bad}"
            );
            assert_eq!(
                find(&tokens, &[("x-api-key", bad.to_owned())]),
                None,
                "{bad}"
            );
        }
        assert_eq!(find(&tokens, &[]), None);
        tokens.revoke("main");
        assert_eq!(find(&tokens, &[("x-api-key", a.to_owned())]), None);
    }
}
