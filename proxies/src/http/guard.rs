//! Keeps browsers out of a loopback service.
//!
//! A page in some browser can make requests to 127.0.0.1. Two things give it away: it sends `Origin` with whatever
//! changes state, and after a DNS rebinding its `Host` is a name of the attacker's. So `Host` must be a loopback
//! address or `localhost`, and no request with `Origin` is served.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap, ORIGIN};
use http::uri::Authority;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `Host` is missing, doubled, or not loopback.
    #[error("the Host header must be a loopback address or localhost")]
    Host,
    /// A browser made it.
    #[error("requests made by a web page are refused")]
    Origin,
}

/// Checks a request's head. `authority` is that of an absolute-form target, which outranks `Host` (RFC 9112 3.2.2).
///
/// # Errors
/// [`Refused`] says what gave it away.
pub fn check(headers: &HeaderMap, authority: Option<&Authority>) -> Result<(), Refused> {
    if headers.contains_key(ORIGIN) {
        return Err(Refused::Origin);
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|value| value.to_str().ok());
    let (Some(host), None) = (host, hosts.next()) else {
        return Err(Refused::Host);
    };
    let named = host.parse::<Authority>().map_err(|_| Refused::Host)?;
    let local = is_loopback(named.host()) && authority.is_none_or(|a| is_loopback(a.host()));
    if local { Ok(()) } else { Err(Refused::Host) }
}

fn is_loopback(host: &str) -> bool {
    let bare = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    fn with(host: &'static str) -> Result<(), Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        check(&headers, None)
    }

    #[test]
    fn only_loopback_names_pass() {
        for host in [
            "127.0.0.1:3001",
            "127.0.0.1",
            "localhost:3001",
            "LOCALHOST",
            "[::1]:3001",
            "127.8.8.8",
        ] {
            assert_eq!(with(host), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "0.0.0.0:3001",
            "10.0.0.1",
            "",
        ] {
            assert_eq!(with(host), Err(Refused::Host), "{host}");
        }
    }

    #[test]
    fn missing_or_doubled_host_and_any_origin_are_refused() {
        let mut headers = HeaderMap::new();
        assert_eq!(check(&headers, None), Err(Refused::Host));
        headers.append(HOST, HeaderValue::from_static("localhost"));
        let evil = Authority::from_static("evil.example");
        assert_eq!(check(&headers, Some(&evil)), Err(Refused::Host));
        headers.append(HOST, HeaderValue::from_static("localhost"));
        assert_eq!(check(&headers, None), Err(Refused::Host));
        headers.insert(HOST, HeaderValue::from_static("localhost"));
        headers.insert(ORIGIN, HeaderValue::from_static("http://localhost"));
        assert_eq!(check(&headers, None), Err(Refused::Origin));
    }
}
