//! Host and Origin, checked on every request and upgrade of the API.
//!
//! A page on another site must not reach this server with a person's browser: not across origins (Origin), not by pointing
//! its own name here (DNS rebinding: Host). Requests without Origin come from programs; they need a credential
//! like all others.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode, Uri, header};

use super::problem::Problem;

/// Which names this server answers to, besides addresses, `localhost` and `*.localhost`.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// Lower-case names; one that begins with a dot covers everything below it.
    names: Arc<[String]>,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// 421: this server does not answer to that name.
    Host,
    /// 403: the page is of another origin.
    Origin,
}

impl Guard {
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            names: names
                .into_iter()
                .map(|name| name.to_ascii_lowercase())
                .collect(),
        }
    }

    /// Checks one request.
    ///
    /// # Errors
    /// Says which header was wrong.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (uri.authority(), hosts.next(), hosts.next()) {
            // RFC 9112 3.2.2: the target's authority replaces Host.
            (Some(authority), _, None) => authority.as_str(),
            (None, Some(host), None) => host.to_str().map_err(|_| Refused::Host)?,
            _ => return Err(Refused::Host),
        };
        let host = Place::of(host).ok_or(Refused::Host)?;
        if !self.answers_to(&host.name) {
            return Err(Refused::Host);
        }
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (None, _) => Ok(()),
            (Some(origin), None) => {
                let origin = origin.to_str().map_err(|_| Refused::Origin)?;
                let (scheme, place) = origin.split_once("://").ok_or(Refused::Origin)?;
                let default = match scheme {
                    "http" => 80,
                    "https" => 443,
                    _ => return Err(Refused::Origin),
                };
                let origin = Place::of(place).ok_or(Refused::Origin)?;
                let same_port = origin.port.unwrap_or(default) == host.port.unwrap_or(default);
                if origin.name == host.name && same_port {
                    Ok(())
                } else {
                    Err(Refused::Origin)
                }
            }
            _ => Err(Refused::Origin),
        }
    }

    fn answers_to(&self, name: &str) -> bool {
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok()
            || name == "localhost"
            || name.ends_with(".localhost")
            || self.names.iter().any(|own| {
                name == own.trim_start_matches('.') && !own.starts_with('.')
                    || own.starts_with('.') && name.ends_with(own.as_str())
            })
    }
}

/// Host and port of an authority.
struct Place {
    name: String,
    port: Option<u16>,
}

impl Place {
    fn of(authority: &str) -> Option<Self> {
        let (name, port) = match authority
            .rfind(':')
            .filter(|colon| !authority.ends_with(']') || authority.rfind(']') < Some(*colon))
        {
            Some(colon) => {
                let (name, port) = authority.split_at_checked(colon)?;
                (name, Some(port.get(1..)?.parse().ok()?))
            }
            None => (authority, None),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        (!name.is_empty() && name.bytes().all(plain)).then(|| Self {
            name: name.to_ascii_lowercase().trim_end_matches('.').to_owned(),
            port,
        })
    }
}

/// The layer: `axum::middleware::from_fn_with_state(guard, guard::layer)`.
pub async fn layer(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    match guard.check(request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(Refused::Host) => Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            "this server does not answer to that host name",
        )
        .into_response(),
        Err(Refused::Origin) => Problem::new(
            StatusCode::FORBIDDEN,
            "requests from pages of another origin are refused",
        )
        .into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>) -> Result<(), Refused> {
        let guard = Guard::new(["ww-12.example".to_owned(), ".preview.example".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert("origin", origin.parse().unwrap());
        }
        guard.check(&"/v1/state".parse().unwrap(), &headers)
    }

    #[test]
    fn hosts() {
        for good in [
            "localhost",
            "localhost:7681",
            "127.0.0.1:7681",
            "[::1]:7681",
            "[::1]",
            "10.0.0.7",
            "a.localhost",
            "WW-12.example",
            "ww-12.example.:443",
            "x.preview.example",
        ] {
            assert_eq!(check(good, None), Ok(()), "{good}");
        }
        for bad in [
            "evil.example",
            "preview.example",
            "xww-12.example",
            "",
            "local host",
            "a:b:c",
            "localhost:x",
        ] {
            assert_eq!(check(bad, None), Err(Refused::Host), "{bad}");
        }
    }

    #[test]
    fn origins() {
        for (host, origin) in [
            ("localhost:7681", "http://localhost:7681"),
            ("[::1]:7681", "http://[::1]:7681"),
            ("ww-12.example", "https://ww-12.example"),
            ("ww-12.example:443", "https://ww-12.example"),
        ] {
            assert_eq!(check(host, Some(origin)), Ok(()), "{origin}");
        }
        for (host, origin) in [
            ("localhost:7681", "null"),
            ("localhost:7681", "http://localhost:3000"),
            ("localhost:7681", "http://localhost"),
            ("localhost:7681", "http://evil.example"),
            ("127.0.0.1:7681", "http://localhost:7681"),
            ("localhost:7681", "file://localhost:7681"),
            ("localhost:7681", ""),
        ] {
            assert_eq!(check(host, Some(origin)), Err(Refused::Origin), "{origin}");
        }
    }
}
