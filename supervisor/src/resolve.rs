//! Names to addresses, by a resolver of our own.
//!
//! `getaddrinfo` in a static binary loads whatever plug-ins the image's nsswitch.conf names. So `/etc/hosts` and
//! `/etc/resolv.conf` are read by hickory. It is built with the first name that is asked for: at the start nobody needs
//! it, and a container may get its network later.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use hickory_resolver::TokioResolver;
use whim_proxies::http::dial::{Resolve, Resolving};

/// The resolver for everything that dials out.
#[must_use]
pub fn resolver() -> Arc<dyn Resolve> {
    Arc::new(Hickory::default())
}

#[derive(Default)]
struct Hickory {
    resolver: OnceLock<TokioResolver>,
}

impl std::fmt::Debug for Hickory {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Hickory")
    }
}

impl Hickory {
    fn get(&self) -> io::Result<&TokioResolver> {
        if let Some(resolver) = self.resolver.get() {
            return Ok(resolver);
        }
        let built = TokioResolver::builder_tokio()
            .and_then(|builder| builder.build())
            .map_err(io::Error::other)?;
        Ok(self.resolver.get_or_init(|| built))
    }
}

impl Resolve for Hickory {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            if let Ok(address) = host.parse::<IpAddr>() {
                return Ok(vec![address]);
            }
            // Defined to be loopback (RFC 6761), also where /etc/hosts does not say so.
            if host == "localhost" || host.ends_with(".localhost") {
                return Ok(vec![
                    IpAddr::from([127, 0, 0, 1]),
                    "::1".parse().map_err(io::Error::other)?,
                ]);
            }
            let found = self
                .get()?
                .lookup_ip(host)
                .await
                .map_err(io::Error::other)?;
            Ok(found.iter().collect())
        })
    }
}
