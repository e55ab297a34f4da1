//! Which secrets the supervisor knows, to be put out of sight in what is kept or leaves the container.
//!
//! A secret once known stays known for this supervisor's life, also when another took its place: transcripts are older
//! than keys. Bounds: [`MOST`] of them; there are a dozen, and one more for each that is replaced.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use percent_encoding::percent_decode_str;
use whim_wire::spec::McpServer;
use zeroize::Zeroizing;

use crate::boot::credentials::{GitCredentials, Remote};
use crate::config::layers::Configuration;
use crate::config::{Secret, Settings, environment, names};
use crate::rotated::Rotated;

/// Shortest that is hidden, in bytes. Shorter ones are words: hiding them would hide half of every text and tell where
/// they stand.
pub const SHORTEST: usize = 6;
/// Most that are known.
const MOST: usize = 512;
/// Parts of a store's variable names that say that the value is a secret; regions and addresses stand beside them.
const SECRET: [&str; 6] = ["SECRET", "KEY", "TOKEN", "PASSWORD", "SAS", "CREDENTIAL"];

/// See the module's header.
#[derive(Debug)]
pub struct Secrets {
    known: Mutex<Vec<Secret>>,
    git: Arc<GitCredentials>,
    rotated: Arc<Rotated>,
}

impl Secrets {
    /// `own`: the control token and what else was made here. Those of git and the rotated ones are asked for each time.
    #[must_use]
    pub fn new(
        own: impl IntoIterator<Item = Secret>,
        git: Arc<GitCredentials>,
        rotated: Arc<Rotated>,
    ) -> Self {
        Self {
            known: Mutex::new(own.into_iter().collect()),
            git,
            rotated,
        }
    }

    /// Those of the container and of a task.
    pub fn learn(&self, settings: &Settings) {
        self.add(of(settings));
    }

    /// All, in the order in which they became known.
    #[must_use]
    pub fn all(&self) -> Vec<Secret> {
        self.add(self.git.secrets().into_iter().chain(self.rotated.secrets()));
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn add(&self, secrets: impl IntoIterator<Item = Secret>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for secret in secrets {
            let new = !known.iter().any(|one| one.expose() == secret.expose());
            if new && known.len() < MOST {
                known.push(secret);
            }
        }
    }
}

fn of(settings: &Settings) -> Vec<Secret> {
    let given = &settings.provider.credentials;
    let credentials = [
        &given.anthropic_api_key,
        &given.claude_code_oauth_token,
        &given.openai_api_key,
        &given.openrouter_api_key,
        &given.provider_key,
        &settings.control_token,
        &settings.preview.secret,
    ];
    let mut all: Vec<Secret> = credentials.into_iter().flatten().cloned().collect();
    all.extend(settings.backend.iter().map(|backend| backend.token.clone()));
    all.extend(of_store(&settings.backup.environment));
    let repo = settings.repo.iter();
    let urls = repo.flat_map(|repo| std::iter::once(&repo.url).chain(&repo.mirror));
    let urls = urls
        .chain(&settings.provider.upstream)
        .chain(settings.backend.iter().map(|backend| &backend.url));
    all.extend(urls.filter_map(|url| of_url(url.expose())));
    all.extend(of_layers(&settings.configuration));
    all
}

/// Those that the layers bring to agents and MCP servers.
fn of_layers(layers: &Configuration) -> Vec<Secret> {
    let mut all = Vec::new();
    for (name, variable) in environment::of_layers(layers) {
        all.extend(of_variable(&name, variable.value.expose()));
    }
    for server in layers.mcp_servers.values() {
        match &server.value {
            McpServer::Stdio { env, .. } => {
                let found = env.iter();
                all.extend(found.filter_map(|(name, value)| of_variable(name, value.expose())));
            }
            McpServer::Http { url, headers } => {
                all.extend(of_url(url.expose()));
                // After the scheme: `Bearer …`.
                let last = |value: &str| value.split_whitespace().next_back().map(str::to_owned);
                let found = headers.values().filter_map(|value| last(value.expose()));
                all.extend(found.filter(|word| looks_made(word)).map(Secret::new));
            }
        }
    }
    all
}

/// What is secret of a variable that a person named: a URL's password, or a value whose name says that it is one and
/// that no person would write as a word. `AUTH_MODE=production` must not hide `production` in every conversation.
fn of_variable(name: &str, value: &str) -> Option<Secret> {
    let password = url::Url::parse(value).ok().and_then(|url| {
        Some(
            percent_decode_str(url.password()?)
                .decode_utf8_lossy()
                .into_owned(),
        )
    });
    password.map(Secret::new).or_else(|| {
        let secret = names::is_likely_secret(name) && looks_made(value);
        secret.then(|| Secret::new(value.to_owned()))
    })
}

/// Letters and digits mixed, or a key of many lines.
fn looks_made(value: &str) -> bool {
    let has = |class: fn(&char) -> bool| value.chars().any(|one| class(&one));
    let plain = !value.contains("://") && !value.contains(char::is_whitespace);
    let mixed = has(char::is_ascii_digit) && has(char::is_ascii_alphabetic);
    value.starts_with("-----BEGIN ") || (value.len() >= 8 && plain && mixed)
}

fn of_store(environment: &BTreeMap<String, Secret>) -> impl Iterator<Item = Secret> {
    let secret = |name: &str| SECRET.iter().any(|word| name.contains(word));
    let found = environment
        .iter()
        // The id of a key is no secret, and stands in logs.
        .filter(move |(name, _)| secret(name) && !name.ends_with("_ID"));
    found.map(|(_, value)| value.clone())
}

/// The password of a URL, or a token that stands in its user's place.
fn of_url(url: &str) -> Option<Secret> {
    let (_, login) = Remote::parse(url)?;
    let (name, password) = login?;
    Some(Secret::new(if password.is_empty() {
        name
    } else {
        password
    }))
}

/// Every way in which a secret is commonly written: as it is, in JSON, in JSON inside JSON, in URLs, and line by line.
/// None of one that is too short.
#[must_use]
pub fn forms(secret: &str) -> Vec<Zeroizing<String>> {
    let secret = secret.trim();
    if secret.len() < SHORTEST {
        return Vec::new();
    }
    let json = in_json(secret);
    let url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let percent = url.replace('+', "%20");
    let mut forms = vec![secret.to_owned(), in_json(&json), json, url, percent];
    let lines = secret.lines().map(str::trim);
    let lines = lines.filter(|line| line.len() >= 4 * SHORTEST && *line != secret);
    forms.extend(lines.map(str::to_owned));
    let mut all: Vec<Zeroizing<String>> = Vec::new();
    for form in forms.into_iter().map(Zeroizing::new) {
        if !all.contains(&form) {
            all.push(form);
        }
    }
    all
}

fn in_json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(&quoted)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Given, Variables};

    #[test]
    fn a_secret_has_each_of_its_forms_once() {
        let forms = |secret: &str| -> Vec<String> {
            super::forms(secret)
                .iter()
                .map(|form| form.to_string())
                .collect()
        };
        assert_eq!(forms(" sk-123456\n"), ["sk-123456"]);
        assert_eq!(
            forms("p\"a/ss w"),
            [
                "p\"a/ss w",
                r#"p\\\"a/ss w"#,
                r#"p\"a/ss w"#,
                "p%22a%2Fss+w",
                "p%22a%2Fss%20w"
            ]
        );
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nshort";
        assert!(forms(key).contains(&"MIIEvQIBADANBgkqhkiG9w0BAQEFAASC".to_owned()));
        assert!(!forms(key).contains(&"short".to_owned()));
        assert!(forms("abc").is_empty());
    }

    #[test]
    fn a_urls_login_is_a_secret() {
        let of = |url: &str| of_url(url).map(|secret| secret.expose().to_owned());
        assert_eq!(
            of("https://bot:p%40ssword@host/a").as_deref(),
            Some("p@ssword")
        );
        assert_eq!(
            of("https://ghp_123456@host/a").as_deref(),
            Some("ghp_123456")
        );
        assert_eq!(of("ssh://gituser@host/a"), None);
        assert_eq!(of("https://host/a"), None);
    }

    #[test]
    fn of_a_layers_variables_those_count_that_no_person_would_write() {
        let of = |name: &str, value: &str| {
            of_variable(name, value).map(|secret| secret.expose().to_owned())
        };
        for (name, value, secret) in [
            ("GITHUB_TOKEN", "ghp_16C7e42F292c", Some("ghp_16C7e42F292c")),
            ("DATABASE", "postgres://app:pa55word@db/x", Some("pa55word")),
            ("AUTH_MODE", "production", None),
            ("AUTH_URL", "http://localhost:3000/login", None),
            ("BUILD", "ghp_16C7e42F292c", None),
            ("API_KEY", "short1", None),
        ] {
            assert_eq!(of(name, value).as_deref(), secret, "{name}={value}");
        }
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n";
        assert_eq!(of("SSH_PRIVATE_KEY", key).as_deref(), Some(key));
    }

    #[test]
    fn the_secrets_of_layers_and_of_every_address_are_known() {
        let spec = serde_json::json!({
            "version": 1,
            "provider": {"kind": "compatible", "upstream": "https://u:upstream-1@model.example"},
            "config": [{
                "layer": "user",
                "env": {"GITHUB_TOKEN": "ghp_16C7e42F292c"},
                "env_files": {".env": "DEPLOY_KEY=dk-${NUMBER:-77}abcdef"},
                "mcp_servers": {
                    "a": {"command": "x", "env": {"X_TOKEN": "mcp-token-1"}},
                    "b": {"url": "https://h/", "headers": {"Authorization": "Bearer head-token-2"}},
                },
            }],
        });
        let given = Given::parse(&[], Variables::new([])).unwrap();
        let resolved = given.resolve(Some(spec.to_string().as_bytes())).unwrap();
        let known: Vec<String> = of(&resolved.settings)
            .iter()
            .map(|secret| secret.expose().to_owned())
            .collect();
        for secret in [
            "upstream-1",
            "ghp_16C7e42F292c",
            "dk-77abcdef",
            "mcp-token-1",
            "head-token-2",
        ] {
            assert!(known.iter().any(|one| one == secret), "{secret}: {known:?}");
        }
    }

    #[test]
    fn of_a_stores_variables_those_count_that_are_named_so() {
        let environment = ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_REGION"]
            .map(|name| (name.to_owned(), Secret::new(name.to_lowercase())));
        let found = of_store(&environment.into())
            .map(|secret| secret.expose().to_owned())
            .collect::<Vec<_>>();
        assert_eq!(found, ["aws_secret_access_key"]);
    }
}
