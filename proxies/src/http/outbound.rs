//! Outbound proxies, as a container's environment names them, and which targets go through them.
//!
//! Loopback never does. `NO_PROXY` holds names, domains and `host:port`, separated by commas; `*` is everything.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use http::Uri;

use super::dial::{DialError, Target};

/// An outbound proxy, as `HTTPS_PROXY` and `HTTP_PROXY` name it.
#[derive(Clone)]
pub struct OutboundProxy {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authorization: Option<String>,
}

impl fmt::Debug for OutboundProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OutboundProxy({}:{})", self.host, self.port)
    }
}

/// Which targets go through which proxy.
#[derive(Clone, Debug, Default)]
pub struct OutboundProxies {
    https: Option<OutboundProxy>,
    http: Option<OutboundProxy>,
    direct: Vec<String>,
}

impl OutboundProxies {
    /// From the values of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`; empty ones count as unset.
    ///
    /// # Errors
    /// A proxy URL that is not `http://[user:password@]host[:port]`; its text is not repeated, for it may hold a
    /// password.
    pub fn new(
        https: Option<&str>,
        http: Option<&str>,
        no_proxy: Option<&str>,
    ) -> Result<Self, DialError> {
        let parse = |url: Option<&str>| {
            url.filter(|u| !u.is_empty())
                .map(OutboundProxy::parse)
                .transpose()
        };
        let direct = no_proxy.unwrap_or_default().split(',');
        Ok(Self {
            https: parse(https)?,
            http: parse(http)?,
            direct: direct
                .map(|n| n.trim().to_ascii_lowercase())
                .filter(|n| !n.is_empty())
                .collect(),
        })
    }

    /// The proxy for a target; `None`: it is dialled directly.
    pub(super) fn pick(&self, target: &Target) -> Option<&OutboundProxy> {
        let proxy = if target.tls {
            self.https.as_ref()
        } else {
            self.http.as_ref()
        }?;
        let loopback = target.host == "localhost"
            || target
                .host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        let direct = self.direct.iter().any(|entry| {
            let (name, port) = match entry.rsplit_once(':') {
                Some((name, port)) if !name.contains(':') => (name, port.parse::<u16>().ok()),
                _ => (entry.as_str(), None),
            };
            let name = name.trim_start_matches("*.").trim_start_matches('.');
            let below = target
                .host
                .strip_suffix(name)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            port.is_none_or(|port| port == target.port) && (name == "*" || below)
        });
        (!loopback && !direct).then_some(proxy)
    }
}

impl OutboundProxy {
    fn parse(url: &str) -> Result<Self, DialError> {
        let with_scheme = if url.contains("://") {
            url.to_owned()
        } else {
            format!("http://{url}")
        };
        let uri: Uri = with_scheme.parse().map_err(|_| DialError::ProxyUrl)?;
        let authority = uri.authority().ok_or(DialError::ProxyUrl)?;
        if uri.scheme_str() != Some("http") {
            return Err(DialError::ProxyUrl);
        }
        let authorization = authority.as_str().rsplit_once('@').map(|(user, _)| {
            format!(
                "Basic {}",
                base64::engine::general_purpose::STANDARD.encode(unescape(user))
            )
        });
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authorization,
        })
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let mut ahead = bytes.clone();
        let hex = |b: Option<u8>| {
            b.and_then(|b| char::from(b).to_digit(16))
                .and_then(|d| u8::try_from(d).ok())
        };
        match (byte, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                bytes = ahead;
            }
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Target {
        Target::try_from(&url.parse::<Uri>().unwrap()).unwrap()
    }

    #[test]
    fn no_proxy_names_domains_hosts_and_ports() {
        let proxies = OutboundProxies::new(
            Some("http://user:p%40ss@proxy:3128"),
            None,
            Some("internal.example, .corp , exact.example:8443"),
        )
        .unwrap();
        for (url, proxied) in [
            ("https://api.example", true),
            ("https://internal.example", false),
            ("https://a.internal.example", false),
            ("https://notinternal.example", true),
            ("https://x.corp", false),
            ("https://exact.example", true),
            ("https://exact.example:8443", false),
            ("https://127.0.0.1", false),
            ("http://api.example", false),
        ] {
            assert_eq!(proxies.pick(&target(url)).is_some(), proxied, "{url}");
        }
        let proxy = proxies.https.unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNlcjpwQHNz"));
        assert!(!format!("{proxy:?}").contains("p%40ss"));
        assert!(OutboundProxies::new(Some("socks5://x"), None, None).is_err());
    }
}
