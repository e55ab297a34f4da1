//! Which secrets the supervisor knows, for keeping them out of what leaves the container.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::mask::Masks;
use super::platform::TOKEN;
use crate::boot::credentials::{GitCredentials, Remote};
use crate::config::settings::Backup;
use crate::config::values::StoreKind;
use crate::config::{Secret, Settings};
use crate::rotated::Rotated;

/// Parts of a store's variable names that say that the value is a secret.
const SECRET: &[&str] = &["SECRET", "KEY", "TOKEN", "PASSWORD", "SAS", "CREDENTIAL"];

/// All secrets that were ever known here: one that was replaced may still stand in a transcript.
#[derive(Debug)]
pub struct Secrets {
    known: Mutex<Vec<Secret>>,
    git: Arc<GitCredentials>,
    rotated: Arc<Rotated>,
}

impl Secrets {
    /// `own`: the control token and what else was made here.
    #[must_use]
    pub fn new(
        settings: &Settings,
        own: impl IntoIterator<Item = Secret>,
        git: Arc<GitCredentials>,
        rotated: Arc<Rotated>,
    ) -> Self {
        let mut known: Vec<Secret> = own.into_iter().collect();
        let given = &settings.provider.credentials;
        known.extend(
            [
                &given.anthropic_api_key,
                &given.claude_code_oauth_token,
                &given.openai_api_key,
                &given.openrouter_api_key,
                &given.provider_key,
                &settings.control_token,
                &settings.preview.secret,
            ]
            .into_iter()
            .flatten()
            .cloned(),
        );
        known.extend(settings.backend.iter().map(|backend| backend.token.clone()));
        known.extend(of_store(&settings.backup.environment));
        for url in settings.repo.iter().flat_map(|repo| {
            [Some(&repo.url), repo.mirror.as_ref()]
                .into_iter()
                .flatten()
        }) {
            let login = Remote::parse(url.expose()).and_then(|(_, login)| login);
            known.extend(login.map(|(_, password)| Secret::new(password)));
        }
        Self {
            known: Mutex::new(known),
            git,
            rotated,
        }
    }

    /// The store's settings with the platform's newest token, where the platform is the store.
    #[must_use]
    pub fn renewed(&self, settings: &Backup) -> Backup {
        let mut settings = settings.clone();
        if let (StoreKind::Backend, Some(token)) = (settings.kind, self.rotated.token()) {
            settings.environment.insert(TOKEN.to_owned(), token);
        }
        settings
    }

    /// What is looked for now.
    #[must_use]
    pub fn masks(&self) -> Masks {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in self.git.secrets().into_iter().chain(self.rotated.secrets()) {
            if !known.iter().any(|one| one.expose() == secret.expose()) {
                known.push(secret);
            }
        }
        Masks::new(known.iter())
    }
}

fn of_store(environment: &BTreeMap<String, Secret>) -> impl Iterator<Item = Secret> {
    let secret = |name: &&String| SECRET.iter().any(|word| name.contains(word));
    let found = environment
        .iter()
        .filter(move |(name, _)| secret(name))
        // The id of a key is no secret, and stands in logs.
        .filter(|(name, _)| !name.ends_with("_ID"));
    found.map(|(_, value)| value.clone())
}
