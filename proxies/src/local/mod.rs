//! The local proxy: from one public port to whatever listens on this machine.
//!
//! HTTP/1 is forwarded by an engine of its own, because the bytes of heads and bodies must pass as they are (spelling,
//! interim answers, trailers, `Expect`, early answers, broken transfers); HTTP/2 from the platform's router comes in by
//! hyper. Servers are dialled at the address they listen on, never by name, and only those of the port table.
//!
//! - `head`, `wire`, `body`: HTTP/1 messages on the wire
//! - `target`, `access`, `refusal`: decisions; pure but for the links' state
//! - `rewrite`, `addresses`, `cookies`: heads put right; pure
//! - `memory`, `upstream`: what is known of a server, and connections to it
//! - `accept`, `connection`, `decide`, `forward`, `exchange`, `answer`, `relay`, `tunnel`: a request's way, in that order
//! - `http2`: the router's HTTP/2, over the same way
//! - `pages`, `environment`: answers of our own; variables for frameworks
//!
//! Bounds: see [`Limits`]; every one has a status that names it. Nothing is buffered beyond a read.

mod accept;
mod access;
mod addresses;
mod answer;
mod body;
mod client;
mod connection;
mod cookies;
mod decide;
mod environment;
mod exchange;
mod forward;
mod frames;
mod head;
mod http2;
mod memory;
mod pages;
mod refusal;
mod relay;
mod rewrite;
mod target;
mod tunnel;
mod upstream;
mod wire;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ring::rand::{SecureRandom, SystemRandom};

pub use accept::serve;
pub use access::{Access, Grant, LinkError, MAX_LIFE, MAX_REVOKED, Secret};
pub use environment::preview_environment;
pub use memory::HostMode;

/// A server as the port table knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub port: u16,
    /// Where to connect, best first; empty while it is down.
    pub addresses: Vec<SocketAddr>,
    /// The same after a restart of the same program, different for another one; never 0.
    pub program: u64,
    /// Does it speak HTTP? None: not known.
    pub http: Option<bool>,
}

/// What the port table says of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// One of this program's own.
    Own,
    /// Nothing ever listened there.
    Unknown,
    Known(Arc<Server>),
}

/// A future that a table hands out.
pub type Later = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The port table.
pub trait Ports: Send + Sync + 'static {
    fn lookup(&self, port: u16) -> Lookup;

    /// Where a request goes that names no port.
    fn default_port(&self) -> Option<u16>;

    /// Done at the first change after this call (not after the first poll).
    fn changed(&self) -> Later;

    /// Done when a look that began after this call is in the table.
    fn rescan(&self) -> Later;

    /// What a visitor's own request showed about the server.
    fn observed(&self, port: u16, http: bool);

    /// A person uses this port: called at most once a second per connection, never for bare pings.
    fn traffic(&self, port: u16);
}

/// Bounds of the proxy. A client that exceeds one is told by the status in parentheses.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Fields of a request (431).
    pub fields: usize,
    /// Bytes of a request's head (431).
    pub head: usize,
    /// Bytes of a request's target (414).
    pub url: usize,
    /// Fields of an answer (502).
    pub answer_fields: usize,
    /// Bytes of an answer's head (502).
    pub answer_head: usize,
    /// Client connections in all (503, connection closed).
    pub connections: usize,
    /// Requests and tunnels in progress per port (503).
    pub per_port: usize,
    /// Idle connections kept per server address; more are closed.
    pub idle_per_server: usize,
    /// A request's head must be complete within this (408).
    pub head_within: Duration,
    /// A kept connection is closed after this without a request.
    pub idle: Duration,
    /// How long requests that may wait do so for a server that is down (503).
    pub hold: Duration,
    /// Connecting to a server that listens (502).
    pub connect: Duration,
    /// From a complete request to the answer's head (504).
    pub answer_within: Duration,
    /// A peer that takes or gives nothing of a body for this long is gone.
    pub stall: Duration,
    /// Requests in progress get this long at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            fields: 256,
            head: 64 * 1024,
            url: 16 * 1024,
            answer_fields: 512,
            answer_head: 256 * 1024,
            connections: 4096,
            per_port: 1024,
            idle_per_server: 128,
            head_within: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            hold: Duration::from_secs(5),
            connect: Duration::from_secs(2),
            answer_within: Duration::from_secs(300),
            stall: Duration::from_secs(300),
            drain: Duration::from_secs(2),
        }
    }
}

/// How the proxy is set up.
#[derive(Debug)]
pub struct Config {
    pub limits: Limits,
    pub access: Access,
    /// `--preview-url`: address of a preview, `{port}` standing for the number.
    pub preview_url: Option<String>,
    /// Port that is served, for addresses of previews where there is no `preview_url`.
    pub port: u16,
    /// Overrides the table's choice.
    pub default_port: Option<u16>,
}

/// Why the proxy cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("the system gives no random numbers")]
    Randomness,
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// A link as the API hands it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Names the link for its revocation.
    pub id: String,
    /// By `preview_url`; without one a path on this proxy.
    pub url: String,
    /// Without `preview_url`: an address with a host of its own, so that the page's absolute paths work. It is for
    /// browsers on this machine, or where the port is published under the same number: they take every name below
    /// `localhost` for loopback (RFC 6761 §6.3).
    pub local_url: Option<String>,
    pub expires_at: SystemTime,
}

/// The proxy, shared by its connections and the API.
pub struct Proxy {
    limits: Limits,
    access: Access,
    preview_url: Option<Arc<str>>,
    port: u16,
    default_port: Option<u16>,
    ports: Arc<dyn Ports>,
    memory: memory::Memory,
    pool: upstream::Pool,
    load: decide::Load,
    via: Arc<str>,
    tls: tokio_rustls::TlsConnector,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("limits", &self.limits)
            .field("preview_url", &self.preview_url)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// # Errors
    /// When there is no randomness or no TLS.
    pub fn new(config: Config, ports: Arc<dyn Ports>) -> Result<Self, SetupError> {
        let mut mark = [0; 8];
        SystemRandom::new()
            .fill(&mut mark)
            .map_err(|_| SetupError::Randomness)?;
        Ok(Self {
            pool: upstream::Pool::new(config.limits.idle_per_server),
            limits: config.limits,
            access: config.access,
            preview_url: config.preview_url.map(Arc::from),
            port: config.port,
            default_port: config.default_port,
            ports,
            memory: memory::Memory::default(),
            load: decide::Load::default(),
            via: format!("1.1 whim-{:016x}", u64::from_be_bytes(mark)).into(),
            tls: upstream::connector()?,
        })
    }

    /// The table knows what listens; the program it names is the one the link is for.
    ///
    /// # Errors
    /// When `life` is out of range or there is no randomness.
    pub fn create_link(&self, port: u16, life: Duration) -> Result<Link, LinkError> {
        let program = match self.ports.lookup(port) {
            Lookup::Known(server) => server.program,
            Lookup::Own | Lookup::Unknown => 0,
        };
        let grant = self.access.grant(port, program, life)?;
        let query = format!("{}={}", access::PARAMETER, grant.token);
        let (base, local_url) = match &self.preview_url {
            Some(template) => (template.replace("{port}", &port.to_string()), None),
            None => {
                let served = self.port;
                let local_url = format!("http://{port}-whim.localhost:{served}/?{query}");
                (format!("/proxy/{port}/"), Some(local_url))
            }
        };
        Ok(Link {
            id: grant.id,
            url: format!("{base}?{query}"),
            local_url,
            expires_at: grant.expires_at,
        })
    }

    /// Ends a link and what was made of it; see [`Access::revoke`].
    ///
    /// # Errors
    /// When `id` is none, or too many are revoked.
    pub fn revoke_link(&self, id: &str) -> Result<(), LinkError> {
        self.access.revoke(id)
    }

    /// What must be remembered across a restart, for [`Access::new`].
    #[must_use]
    pub fn revocations(&self) -> Vec<(String, SystemTime)> {
        self.access.revocations()
    }

    /// Links that a takeover suspended hold again for the program that listens now.
    pub fn confirm(&self, port: u16) {
        if let Lookup::Known(server) = self.ports.lookup(port) {
            self.access.confirm(port, server.program);
        }
    }

    /// Everybody may see `port`, or no longer.
    pub fn set_public(&self, port: u16, public: bool) {
        self.access.set_public(port, public);
    }

    /// How the server on `port` is told its host.
    pub fn set_host_mode(&self, port: u16, mode: HostMode) {
        self.memory.set_mode(port, mode);
    }
}

#[cfg(test)]
mod tests;
