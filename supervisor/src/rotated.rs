//! Credentials that were given while running (`PUT /v1/credentials`): in force until newer ones come, also after a crash
//! of the supervisor that took them.
//!
//! In memory only: here, and in sealed memory that the keeper hands to the next supervisor and to no other process.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use whim_entrypoint::wire::read_memfd;
use whim_wire::spec::{ProviderKind, Sensitive};
use zeroize::Zeroizing;

use crate::boot::credentials::{GitCredentials, Remote};
use crate::config::Secret;
use crate::keeper::{Keeper, KeeperError};
use crate::spending::Spending;

/// Name at the keeper.
const NAME: &str = "rotated-credentials";
/// Largest content: a key per provider, a login and a token.
const LIMIT: usize = 1024 * 1024;

/// What was given.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Given {
    #[serde(default)]
    pub keys: BTreeMap<ProviderKind, Sensitive>,
    pub git: Option<Login>,
    /// The token of the platform's API.
    pub platform: Option<Sensitive>,
}

/// A login for git.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Login {
    /// The repository's URL: the login is given for it only.
    pub url: Sensitive,
    pub username: String,
    pub password: Sensitive,
}

impl Given {
    /// What is newer takes the place of what was there.
    fn merge(&mut self, newer: Self) {
        self.keys.extend(newer.keys);
        self.git = newer.git.or_else(|| self.git.take());
        self.platform = newer.platform.or_else(|| self.platform.take());
    }
}

/// See the module's header.
#[derive(Debug)]
pub struct Rotated {
    given: Mutex<Given>,
    keeper: Keeper,
}

impl Rotated {
    /// Takes over what the supervisor before was given.
    ///
    /// # Errors
    /// When the keeper's memory cannot be read.
    pub fn open(keeper: Keeper, held: &mut HashMap<String, OwnedFd>) -> io::Result<Self> {
        let given = match held.remove(NAME) {
            Some(memory) => {
                let json = Zeroizing::new(read_memfd(&memory, LIMIT)?);
                serde_json::from_slice(&json)?
            }
            None => Given::default(),
        };
        Ok(Self {
            given: Mutex::new(given),
            keeper,
        })
    }

    /// Keeps what was given, for the next supervisor too. Once this returns, a crash does not lose it.
    ///
    /// # Errors
    /// [`KeeperError`] when it is not kept for the next one.
    pub async fn keep(&self, newer: Given) -> Result<(), KeeperError> {
        let json = {
            let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
            given.merge(newer);
            Zeroizing::new(serde_json::to_vec(&*given).map_err(io::Error::from)?)
        };
        self.keeper.hold_sealed(NAME, &json).await
    }

    /// Puts the keys in, over those of the start.
    pub fn keys(&self, spending: &Spending) {
        for (kind, key) in self.given().keys {
            spending.rotate(kind, key.expose().to_owned());
        }
    }

    /// Puts the login for git in.
    pub fn login(&self, credentials: &GitCredentials) {
        let login = self.given().git;
        let remote = login.and_then(|login| Some((Remote::parse(login.url.expose())?.0, login)));
        if let Some((remote, login)) = remote {
            credentials.set(remote, login.username, login.password.expose().to_owned());
        }
    }

    /// The platform's token, if one was given since the start.
    #[must_use]
    pub fn token(&self) -> Option<Secret> {
        let token = self.given().platform?;
        Some(Secret::new(token.expose().to_owned()))
    }

    /// All of it, to be kept out of what leaves the container.
    #[must_use]
    pub fn secrets(&self) -> Vec<Secret> {
        let given = self.given();
        let login = given.git.map(|login| login.password);
        let all = given.keys.into_values().chain(login).chain(given.platform);
        all.map(|secret| Secret::new(secret.expose().to_owned()))
            .collect()
    }

    fn given(&self) -> Given {
        self.given
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_ones_take_the_place_of_older_ones_and_nothing_is_printed() {
        let mut given: Given = serde_json::from_value(serde_json::json!({
            "keys": {"anthropic": "old", "openai": "stays"}, "git": null, "platform": "token",
        }))
        .unwrap();
        let mut newer = Given::default();
        newer.keys.insert(ProviderKind::Anthropic, "new".into());
        given.merge(newer);
        assert_eq!(given.keys[&ProviderKind::Anthropic].expose(), "new");
        assert_eq!(given.keys[&ProviderKind::Openai].expose(), "stays");
        assert_eq!(given.platform.as_ref().unwrap().expose(), "token");
        let shown = format!("{given:?}");
        for secret in ["new", "stays", "\"token\""] {
            assert!(!shown.contains(secret), "{shown}");
        }
        let json = serde_json::to_vec(&given).unwrap();
        let again: Given = serde_json::from_slice(&json).unwrap();
        assert_eq!(again.keys, given.keys);
    }
}
