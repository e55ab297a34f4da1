//! Where a connection goes.

use std::fmt;

use http::Uri;

/// Where a connection goes; connections are pooled by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Why a URL names no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither `http` nor `https`.
    #[error("the scheme must be http or https")]
    Scheme,
    /// No host.
    #[error("the host is missing")]
    Host,
    /// A password in a URL would end in logs.
    #[error("the URL must not contain credentials")]
    Credentials,
}

impl TryFrom<&Uri> for Target {
    type Error = TargetError;

    fn try_from(uri: &Uri) -> Result<Self, TargetError> {
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(TargetError::Scheme),
        };
        let authority = uri.authority().ok_or(TargetError::Host)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::Credentials);
        }
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(TargetError::Host);
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self {
            tls,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(url: &str) -> Result<Target, TargetError> {
        Target::try_from(&url.parse::<Uri>().unwrap())
    }

    #[test]
    fn targets() {
        let t = target("https://API.example/base").unwrap();
        assert_eq!((t.tls, t.host.as_str(), t.port), (true, "api.example", 443));
        assert_eq!(
            target("http://[::1]:8080/").unwrap().to_string(),
            "[::1]:8080"
        );
        assert_eq!(target("ftp://x/"), Err(TargetError::Scheme));
        assert_eq!(
            target("http://user:secret@x/"),
            Err(TargetError::Credentials)
        );
    }
}
