//! The way out of the container for calls of our own: outbound proxies and certificate authorities as the container's
//! environment names them.

use std::time::Duration;

use whim_proxies::http::dial::{DialError, Dialer, OutboundProxies};

use crate::config::Variables;

/// How calls leave the container.
#[derive(Clone, Debug)]
pub struct WayOut {
    pub proxies: OutboundProxies,
    /// Certificate authorities beside the public ones, PEM.
    pub extra_roots: Option<String>,
}

/// As the environment says: `HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY` (the lower-case ones first, as curl does it), and
/// the authorities in `SSL_CERT_FILE`.
///
/// # Errors
/// [`DialError::ProxyUrl`].
pub fn way_out(variables: &Variables) -> Result<WayOut, DialError> {
    let text = |names: [&str; 2]| {
        let value = names.iter().find_map(|name| variables.get(name));
        value.and_then(|value| value.to_str()).map(str::to_owned)
    };
    let proxies = OutboundProxies::new(
        text(["https_proxy", "HTTPS_PROXY"]).as_deref(),
        text(["http_proxy", "HTTP_PROXY"]).as_deref(),
        text(["no_proxy", "NO_PROXY"]).as_deref(),
    )?;
    let extra_roots = variables
        .get("SSL_CERT_FILE")
        .filter(|path| !path.is_empty())
        .and_then(|path| match std::fs::read_to_string(path) {
            Ok(pem) => Some(pem),
            Err(error) => {
                // It is set for other programs, too; what cannot be verified without it will say so.
                tracing::warn!(path = %path.display(), %error, "SSL_CERT_FILE cannot be read");
                None
            }
        });
    Ok(WayOut {
        proxies,
        extra_roots,
    })
}

/// Dials on that way. `deadline` bounds each step.
///
/// # Errors
/// [`DialError::ProxyUrl`], [`DialError::Roots`].
pub fn dialer(variables: &Variables, deadline: Duration) -> Result<Dialer, DialError> {
    let way = way_out(variables)?;
    Dialer::new(
        crate::resolve::resolver(),
        way.proxies,
        way.extra_roots.as_deref(),
        deadline,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialer_of(pairs: &[(&str, &str)]) -> Result<Dialer, DialError> {
        let variables = Variables::new(
            pairs
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into())),
        );
        dialer(&variables, Duration::from_secs(1))
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_told_without_its_password() {
        let error = dialer_of(&[("HTTPS_PROXY", "socks5://u:hunter2@proxy:1080")]).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(dialer_of(&[("HTTPS_PROXY", "")]).is_ok());
        let shown = dialer_of(&[("https_proxy", "http://u:hunter2@proxy:3128")]).unwrap();
        assert!(!format!("{shown:?}").contains("hunter2"));
    }

    #[test]
    fn authorities_that_are_no_certificates_are_told_and_missing_ones_are_not_fatal() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        let path = file.path().to_str().unwrap();
        assert!(matches!(
            dialer_of(&[("SSL_CERT_FILE", path)]),
            Err(DialError::Roots)
        ));
        assert!(dialer_of(&[("SSL_CERT_FILE", "/nowhere.pem")]).is_ok());
    }
}
