//! Opens connections to upstreams: resolve, connect, tunnel through an outbound proxy, TLS.
//!
//! Every step has a deadline and its own error. All addresses of a name are tried, families alternating, a new attempt
//! beside a silent one after 250 ms (RFC 8305). Sockets get TCP_NODELAY, keepalive, and TCP_USER_TIMEOUT: a peer that
//! no longer acknowledges is given up after [`UNACKNOWLEDGED`] instead of the kernel's quarter of an hour. The TLS
//! configuration is built at the first use, so that a start pays nothing for it.

mod outbound;
mod target;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use outbound::tunnel;
pub use outbound::{OutboundProxies, OutboundProxy};
pub use target::{Target, TargetError};

/// How long sent bytes may stay without acknowledgement.
pub const UNACKNOWLEDGED: Duration = Duration::from_secs(30);
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// How long a name that a proxy will look up is looked up here.
const PROXIED_LOOKUP: Duration = Duration::from_secs(2);

/// Turns names into addresses. The program brings its own (a static binary must not load the image's NSS plug-ins).
pub trait Resolve: fmt::Debug + Send + Sync {
    /// All addresses of a name.
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a>;
}

/// A lookup under way.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + 'a>>;

/// The C library's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((host, 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// Which step of dialling failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The proxy's URL cannot be used.
    #[error("the outbound proxy must be given as http://[user:password@]host[:port]")]
    ProxyUrl,
    /// A certificate file of extra authorities cannot be read.
    #[error("the extra certificate authorities are no PEM certificates")]
    Roots,
    /// The TLS configuration cannot be built.
    #[error("TLS cannot be set up")]
    TlsSetup(#[source] rustls::Error),
    /// The name has no address.
    #[error("cannot resolve {host}")]
    Resolve {
        /// Name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name leads where this dialer must not go, see [`Dialer::only_to`].
    #[error("{target} leads to an address that is not permitted")]
    Forbidden {
        /// Target.
        target: Target,
        /// The address; not for those who chose the name: it tells them what the resolver knows.
        address: IpAddr,
    },
    /// No address accepted.
    #[error("cannot connect to {target}")]
    Connect {
        /// Target.
        target: Target,
        /// The last attempt's error.
        source: io::Error,
    },
    /// The proxy did not open a tunnel.
    #[error("the outbound proxy {proxy} refused a tunnel to {target}: {answer}")]
    Tunnel {
        /// Proxy.
        proxy: String,
        /// Target.
        target: Target,
        /// First line of its answer.
        answer: String,
    },
    /// TLS failed.
    #[error("TLS with {target} failed")]
    Tls {
        /// Target.
        target: Target,
        /// What the handshake said.
        source: io::Error,
    },
    /// A step took too long.
    #[error("{step} {target} took longer than {seconds} s")]
    Timeout {
        /// What was waited for.
        step: &'static str,
        /// Target.
        target: Target,
        /// The deadline.
        seconds: u64,
    },
}

/// A connection to an upstream.
#[derive(Debug)]
pub enum Stream {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens connections.
#[derive(Debug)]
pub struct Dialer {
    resolver: Arc<dyn Resolve>,
    proxies: OutboundProxies,
    extra_roots: Vec<CertificateDer<'static>>,
    tls: OnceLock<Arc<rustls::ClientConfig>>,
    deadline: Duration,
    permitted: Option<fn(IpAddr) -> bool>,
}

impl Dialer {
    /// `extra_roots` is PEM text of authorities to trust beside the public ones; `deadline` bounds each step.
    ///
    /// # Errors
    /// [`DialError::Roots`].
    pub fn new(
        resolver: Arc<dyn Resolve>,
        proxies: OutboundProxies,
        extra_roots: Option<&str>,
        deadline: Duration,
    ) -> Result<Self, DialError> {
        let pem = extra_roots.unwrap_or_default();
        let extra_roots = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| DialError::Roots)?;
        if !pem.trim().is_empty() && extra_roots.is_empty() {
            return Err(DialError::Roots);
        }
        Ok(Self {
            resolver,
            proxies,
            extra_roots,
            tls: OnceLock::new(),
            deadline,
            permitted: None,
        })
    }

    /// Dials only where `permitted` says so of every address of the target: a name with one good and one bad address is
    /// refused, because which of them answers is up to whoever serves the name. What is checked is what is dialled; there
    /// is no second look-up between. Outbound proxies themselves may be anywhere. For a target behind one, the proxy
    /// looks the name up: then what can be learned here is checked, and a name that is not known here is the proxy's to
    /// judge.
    #[must_use]
    pub fn only_to(mut self, permitted: fn(IpAddr) -> bool) -> Self {
        self.permitted = Some(permitted);
        self
    }

    /// Opens a connection that is ready for a request.
    ///
    /// # Errors
    /// [`DialError`] names the step.
    pub async fn dial(&self, target: &Target) -> Result<Stream, DialError> {
        let tcp = match self.proxies.pick(target) {
            None => {
                let addresses = self.addresses(&target.host, target).await?;
                self.check(&addresses, target)?;
                self.connect(addresses, target.port, target).await?
            }
            Some(proxy) => {
                if self.permitted.is_some() {
                    self.check_before_proxy(target).await?;
                }
                let addresses = self.addresses(&proxy.host, target).await?;
                let tcp = self.connect(addresses, proxy.port, target).await?;
                self.bounded("the tunnel to", target, tunnel(tcp, proxy, target))
                    .await?
            }
        };
        if !target.tls {
            return Ok(Stream::Plain(tcp));
        }
        let tls_error = |source| DialError::Tls {
            target: target.clone(),
            source,
        };
        let name = ServerName::try_from(target.host.clone())
            .map_err(|error| tls_error(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let connector = TlsConnector::from(self.tls_config()?);
        let handshake = async { connector.connect(name, tcp).await.map_err(tls_error) };
        let tls = self
            .bounded("the TLS handshake with", target, handshake)
            .await?;
        Ok(Stream::Tls(Box::new(tls)))
    }

    async fn bounded<T>(
        &self,
        step: &'static str,
        target: &Target,
        work: impl Future<Output = Result<T, DialError>>,
    ) -> Result<T, DialError> {
        let late = || DialError::Timeout {
            step,
            target: target.clone(),
            seconds: self.deadline.as_secs(),
        };
        timeout(self.deadline, work)
            .await
            .unwrap_or_else(|_| Err(late()))
    }

    async fn addresses(&self, host: &str, target: &Target) -> Result<Vec<IpAddr>, DialError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![address]);
        }
        let lookup = async {
            let found = self.resolver.resolve(host).await;
            found.map_err(|source| DialError::Resolve {
                host: host.to_owned(),
                source,
            })
        };
        self.bounded("resolving", target, lookup).await
    }

    fn check(&self, addresses: &[IpAddr], target: &Target) -> Result<(), DialError> {
        let Some(permitted) = self.permitted else {
            return Ok(());
        };
        match addresses.iter().find(|address| !permitted(**address)) {
            None => Ok(()),
            Some(address) => Err(DialError::Forbidden {
                target: target.clone(),
                address: *address,
            }),
        }
    }

    async fn check_before_proxy(&self, target: &Target) -> Result<(), DialError> {
        match timeout(PROXIED_LOOKUP, self.addresses(&target.host, target)).await {
            Ok(Ok(addresses)) => self.check(&addresses, target),
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    async fn connect(
        &self,
        addresses: Vec<IpAddr>,
        port: u16,
        target: &Target,
    ) -> Result<TcpStream, DialError> {
        let race = async {
            let tcp = race(alternate(addresses), port).await;
            let tcp = tcp.map_err(|source| DialError::Connect {
                target: target.clone(),
                source,
            })?;
            prepare(&tcp).map_err(|source| DialError::Connect {
                target: target.clone(),
                source,
            })?;
            Ok(tcp)
        };
        self.bounded("connecting to", target, race).await
    }

    fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>, DialError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let (usable, unusable) = roots.add_parsable_certificates(self.extra_roots.iter().cloned());
        if unusable > 0 {
            // A machine's own bundle may hold a few that are too old to be read.
            tracing::warn!(
                usable,
                unusable,
                "extra certificate authorities cannot be used"
            );
            if usable == 0 {
                return Err(DialError::Roots);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(DialError::TlsSetup)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // One call per connection: cancelling closes it, and no stream waits behind another's lost segment.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::clone(self.tls.get_or_init(|| Arc::new(config))))
    }
}

/// IPv6 and IPv4 in turn, beginning with the family that the resolver put first.
fn alternate(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|a| a.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    std::iter::from_fn(|| Some([first.next(), second.next()]))
        .take_while(|pair| pair.iter().any(Option::is_some))
        .flatten()
        .flatten()
        .collect()
}

async fn race(addresses: Vec<IpAddr>, port: u16) -> io::Result<TcpStream> {
    let mut waiting = addresses.into_iter();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        if let Some(address) = waiting.next() {
            running.push(TcpStream::connect(SocketAddr::new(address, port)));
        } else if running.is_empty() {
            return Err(last);
        }
        let next = async {
            if waiting.len() == 0 {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(ATTEMPT_DELAY).await;
        };
        tokio::select! {
            done = running.next() => match done {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => last = error,
                None => {}
            },
            () = next => {}
        }
    }
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let millis = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
    setsockopt(tcp, sockopt::TcpUserTimeout, &millis)?;
    setsockopt(tcp, sockopt::KeepAlive, &true)?;
    setsockopt(tcp, sockopt::TcpKeepIdle, &30)?;
    setsockopt(tcp, sockopt::TcpKeepInterval, &10)?;
    setsockopt(tcp, sockopt::TcpKeepCount, &3)?;
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |list: &[&str]| {
            list.iter()
                .map(|a| a.parse().unwrap())
                .collect::<Vec<IpAddr>>()
        };
        let mixed = parse(&["::1", "::2", "::3", "1.1.1.1"]);
        assert_eq!(alternate(mixed), parse(&["::1", "1.1.1.1", "::2", "::3"]));
        assert!(alternate(Vec::new()).is_empty());
    }
}
