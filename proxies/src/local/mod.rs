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
mod limits;
mod memory;
mod pages;
mod refusal;
mod relay;
mod rewrite;
mod settings;
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
pub use limits::{Limits, LimitsError};
pub use settings::{Change, PortSettings, Settings};

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

/// How the proxy is set up.
#[derive(Debug)]
pub struct Config {
    pub limits: Limits,
    pub access: Access,
    /// `--preview-url`: address of a preview, `{port}` standing for the number.
    pub preview_url: Option<String>,
    /// Port that is served, for addresses of previews where there is no `preview_url`.
    pub port: u16,
    /// What people decided about ports.
    pub settings: Settings,
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
    settings: settings::Register,
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
            settings: settings::Register::new(config.settings),
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

    /// Everything that was decided, for [`Config::settings`] after a restart.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.settings.all()
    }

    /// Changes what is decided about a port, for what listens there now.
    pub fn change(&self, port: u16, change: Change) {
        let program = match self.ports.lookup(port) {
            Lookup::Known(server) => server.program,
            Lookup::Own | Lookup::Unknown => 0,
        };
        self.settings.change(port, program, change);
    }
}

#[cfg(test)]
mod tests;
