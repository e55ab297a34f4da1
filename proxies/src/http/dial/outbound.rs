//! Outbound proxies: which targets go through one, and the tunnel that it opens.

use std::fmt;
use std::io;
use std::net::IpAddr;

use base64::Engine as _;
use http::Uri;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{DialError, Target};

/// An outbound proxy, as `HTTPS_PROXY` and `HTTP_PROXY` name it.
#[derive(Clone)]
pub struct OutboundProxy {
    pub(super) host: String,
    pub(super) port: u16,
    authorization: Option<String>,
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
                base64::engine::general_purpose::STANDARD
                    .encode(percent_decode_str(user).collect::<Vec<u8>>())
            )
        });
        Ok(Self {
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authorization,
        })
    }
}

/// Asks an outbound proxy for a tunnel (RFC 9110 9.3.6).
pub(super) async fn tunnel(
    mut tcp: TcpStream,
    proxy: &OutboundProxy,
    target: &Target,
) -> Result<TcpStream, DialError> {
    let refused = |answer: String| DialError::Tunnel {
        proxy: format!("{}:{}", proxy.host, proxy.port),
        target: target.clone(),
        answer,
    };
    let credentials = proxy.authorization.as_ref();
    let credentials = credentials.map_or_else(String::new, |value| {
        format!("Proxy-Authorization: {value}\r\n")
    });
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{credentials}\r\n");
    let io_error = |error: io::Error| refused(error.to_string());
    tcp.write_all(request.as_bytes()).await.map_err(io_error)?;
    // Byte by byte, for what follows the head belongs to the tunnel; heads are small and rare.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 8192 {
            return Err(refused("its answer has no end".to_owned()));
        }
        head.push(tcp.read_u8().await.map_err(io_error)?);
    }
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line)
        .chars()
        .filter(|c| !c.is_control())
        .take(120)
        .collect::<String>();
    let mut words = line.split(' ');
    let opened = words.next().is_some_and(|v| v.starts_with("HTTP/1."))
        && words.next().is_some_and(|c| c.starts_with('2'));
    if opened { Ok(tcp) } else { Err(refused(line)) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(
                proxies
                    .pick(&Target::try_from(&url.parse::<Uri>().unwrap()).unwrap())
                    .is_some(),
                proxied,
                "{url}"
            );
        }
        let proxy = proxies.https.unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNlcjpwQHNz"));
        assert!(!format!("{proxy:?}").contains("p%40ss"));
        assert!(OutboundProxies::new(Some("socks5://x"), None, None).is_err());
    }
}
