//! Providers: where their APIs are, how they want to be authenticated, what they have.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use http::Uri;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::route::{Format, Operation};
use super::secret::Secret;
use crate::http::dial::{Target, TargetError};

/// Kinds of provider, as the task names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Provider {
    /// api.anthropic.com, with an API key or a subscription's OAuth token.
    Anthropic,
    /// api.openai.com.
    OpenAi,
    /// openrouter.ai, which speaks all three formats.
    OpenRouter,
    /// Any endpoint that speaks one of the formats.
    Compatible,
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");
/// What Anthropic asks of calls with a subscription's token.
const OAUTH_BETA: &str = "oauth-2025-04-20";
const OAUTH_PREFIX: &str = "sk-ant-oat";
/// Where the WebSocket of the Responses API is documented to be
/// (<https://developers.openai.com/api/docs/guides/websocket-mode>).
const WEBSOCKET_HOST: &str = "api.openai.com";

impl Provider {
    /// Its name in the ledger and the spec.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
            Self::OpenRouter => "openrouter",
            Self::Compatible => "compatible",
        }
    }

    /// Its public base URL, without `/v1`; a compatible endpoint has none.
    #[must_use]
    pub const fn default_base(self) -> Option<&'static str> {
        match self {
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::OpenAi => Some("https://api.openai.com"),
            Self::OpenRouter => Some("https://openrouter.ai/api"),
            Self::Compatible => None,
        }
    }

    /// Whether it counts tokens; others are answered here. A compatible endpoint is asked.
    #[must_use]
    pub const fn counts_tokens(self) -> bool {
        matches!(self, Self::Anthropic | Self::Compatible)
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a base URL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// No URL at all.
    #[error("the upstream is no URL")]
    Url(#[source] http::uri::InvalidUri),
    /// It names no target.
    #[error("the upstream's URL cannot be used")]
    Target(#[from] TargetError),
    /// A compatible endpoint needs one.
    #[error("a compatible provider needs an upstream URL")]
    Missing,
    /// It has a query.
    #[error("the upstream's URL must not have a query")]
    Query,
}

/// A provider at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Whose API it is.
    pub provider: Provider,
    /// Where to connect.
    pub target: Target,
    /// `Host` header.
    host: HeaderValue,
    /// Path before `/v1`, without a slash at its end.
    prefix: String,
    /// It speaks the WebSocket of the Responses API.
    websocket: bool,
}

impl Upstream {
    /// At `base` (without `/v1`; one at its end is dropped), or at the provider's own address.
    ///
    /// # Errors
    /// [`BaseError`].
    pub fn new(provider: Provider, base: Option<&str>) -> Result<Self, BaseError> {
        let base = base
            .or_else(|| provider.default_base())
            .ok_or(BaseError::Missing)?;
        let uri: Uri = base.parse().map_err(BaseError::Url)?;
        let target = Target::try_from(&uri)?;
        if uri.query().is_some() {
            return Err(BaseError::Query);
        }
        let path = uri.path().trim_end_matches('/');
        let prefix = path.strip_suffix("/v1").unwrap_or(path).to_owned();
        let authority = uri.authority().map_or("", http::uri::Authority::as_str);
        let host = HeaderValue::from_str(authority).map_err(|_| TargetError::Host)?;
        let websocket = provider == Provider::OpenAi && target.host == WEBSOCKET_HOST;
        Ok(Self {
            provider,
            target,
            host,
            prefix,
            websocket,
        })
    }

    /// Says whether it speaks the WebSocket of the Responses API; unless told, only OpenAI's own address does.
    #[must_use]
    pub const fn with_websocket(mut self, websocket: bool) -> Self {
        self.websocket = websocket;
        self
    }

    /// Whether it speaks the WebSocket of the Responses API.
    #[must_use]
    pub const fn websocket(&self) -> bool {
        self.websocket
    }

    /// Path and query of a request to this upstream.
    #[must_use]
    pub fn path(&self, path: &str, query: Option<&str>) -> String {
        match query {
            Some(query) => format!("{}{path}?{query}", self.prefix),
            None => format!("{}{path}", self.prefix),
        }
    }

    /// The value of `Host`.
    #[must_use]
    pub const fn host(&self) -> &HeaderValue {
        &self.host
    }
}

/// Keys by provider, replaceable while running; never printed.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    keys: Arc<RwLock<HashMap<Provider, Secret>>>,
}

impl Credentials {
    /// Sets, replaces or removes a provider's key. Calls in flight keep the one that they started with.
    pub fn set(&self, provider: Provider, key: Option<Secret>) {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        match key {
            Some(key) => keys.insert(provider, key),
            None => keys.remove(&provider),
        };
    }

    /// Whether there is a key.
    #[must_use]
    pub fn has(&self, provider: Provider) -> bool {
        self.keys
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(&provider)
    }

    /// Puts the provider's key into a request's head. False if there is none (or it is no header value).
    #[must_use]
    pub fn apply(&self, provider: Provider, operation: Operation, headers: &mut HeaderMap) -> bool {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let Some(key) = keys.get(&provider) else {
            return false;
        };
        let key = key.expose();
        let sensitive = |text: &str| {
            let mut value = HeaderValue::from_str(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        let bearer = || sensitive(&format!("Bearer {key}"));
        let messages = matches!(
            operation,
            Operation::Generate(Format::Anthropic) | Operation::CountTokens
        );
        let (authorization, x_api_key) = match provider {
            Provider::Anthropic if key.starts_with(OAUTH_PREFIX) => {
                add_beta(headers);
                (bearer(), None)
            }
            Provider::Anthropic => (None, sensitive(key)),
            // Some gateways look for Anthropic's header where they speak Anthropic's format, others for the usual one.
            Provider::Compatible if messages => (bearer(), sensitive(key)),
            Provider::OpenAi | Provider::OpenRouter | Provider::Compatible => (bearer(), None),
        };
        let found = authorization.is_some() || x_api_key.is_some();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(value) = x_api_key {
            headers.insert(X_API_KEY, value);
        }
        found
    }
}

/// The headers of a request's head that hold a key.
pub(super) fn shown(headers: &HeaderMap) -> HeaderMap {
    [AUTHORIZATION, X_API_KEY]
        .into_iter()
        .filter_map(|name| Some((name.clone(), headers.get(name)?.clone())))
        .collect()
}

/// Adds Anthropic's OAuth beta to those that the agent asked for.
fn add_beta(headers: &mut HeaderMap) {
    let values: Vec<&str> = headers
        .get_all(&ANTHROPIC_BETA)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    if values
        .iter()
        .flat_map(|v| v.split(','))
        .any(|v| v.trim() == OAUTH_BETA)
    {
        return;
    }
    let joined = [&values[..], &[OAUTH_BETA]].concat().join(",");
    if let Ok(value) = HeaderValue::from_str(&joined) {
        headers.insert(ANTHROPIC_BETA, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let path = |base| {
            Upstream::new(Provider::Compatible, Some(base))
                .unwrap()
                .path("/v1/messages", Some("beta=true"))
        };
        assert_eq!(path("http://localhost:9/"), "/v1/messages?beta=true");
        assert_eq!(
            path("https://openrouter.ai/api"),
            "/api/v1/messages?beta=true"
        );
        assert_eq!(
            path("https://gateway.example/x/v1"),
            "/x/v1/messages?beta=true"
        );
        assert!(matches!(
            Upstream::new(Provider::Compatible, None),
            Err(BaseError::Missing)
        ));
        assert!(matches!(
            Upstream::new(Provider::OpenAi, Some("https://k:s@h/")),
            Err(BaseError::Target(_))
        ));
        let own = Upstream::new(Provider::OpenRouter, None).unwrap();
        assert_eq!(
            (
                own.host().to_str().unwrap(),
                own.path("/v1/responses", None).as_str()
            ),
            ("openrouter.ai", "/api/v1/responses")
        );
    }

    #[test]
    fn only_openais_own_address_speaks_websocket_unless_told() {
        let speaks = |provider, base| Upstream::new(provider, base).unwrap().websocket();
        assert!(speaks(Provider::OpenAi, None));
        assert!(speaks(Provider::OpenAi, Some("https://api.openai.com/v1")));
        assert!(!speaks(Provider::OpenAi, Some("https://gateway.example")));
        assert!(!speaks(Provider::OpenRouter, None));
        let told = Upstream::new(Provider::Compatible, Some("http://localhost:9")).unwrap();
        assert!(!told.websocket() && told.with_websocket(true).websocket());
    }

    fn applied(provider: Provider, key: &str, operation: Operation) -> HeaderMap {
        let credentials = Credentials::default();
        credentials.set(provider, Some(Secret::new(key.to_owned())));
        let mut headers = HeaderMap::new();
        headers.insert(ANTHROPIC_BETA, HeaderValue::from_static("a,b"));
        assert!(credentials.apply(provider, operation, &mut headers));
        headers
    }

    #[test]
    fn each_provider_gets_its_header() {
        let messages = Operation::Generate(Format::Anthropic);
        let h = applied(Provider::Anthropic, "sk-ant-api-1", messages);
        assert_eq!(
            (h.get(X_API_KEY).unwrap(), h.get(AUTHORIZATION)),
            (&HeaderValue::from_static("sk-ant-api-1"), None)
        );
        let h = applied(Provider::Anthropic, "sk-ant-oat01-1", messages);
        assert_eq!(
            (h.get(X_API_KEY), h.get(AUTHORIZATION).unwrap()),
            (None, &HeaderValue::from_static("Bearer sk-ant-oat01-1"))
        );
        assert_eq!(h.get(ANTHROPIC_BETA).unwrap(), "a,b,oauth-2025-04-20");
        let h = applied(Provider::OpenRouter, "k", messages);
        assert_eq!(
            (h.get(X_API_KEY), h.get(AUTHORIZATION).unwrap()),
            (None, &HeaderValue::from_static("Bearer k"))
        );
        let h = applied(Provider::Compatible, "k", messages);
        assert!(h.contains_key(X_API_KEY) && h.contains_key(AUTHORIZATION));
        assert!(!format!("{h:?}").contains("Bearer k"), "{h:?}");
    }
}
