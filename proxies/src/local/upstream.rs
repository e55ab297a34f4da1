//! Connections to servers on this machine.
//!
//! Kept connections are used for requests that may be repeated, so that one which the server closes in that moment
//! costs a second try and never a request. Bounds: as [`Limits`](super::Limits) says; a connection beyond them or idle for
//! [`KEEP`] is closed (Node closes after 5 s).

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const KEEP: Duration = Duration::from_secs(4);
/// Most kept connections to all servers.
const KEEP_IN_ALL: usize = 512;

/// A connection's bytes.
#[derive(Debug)]
pub(crate) enum Io {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to a server, with what was read of it and not used yet.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) read: ReadHalf<Io>,
    pub(crate) write: WriteHalf<Io>,
    pub(crate) buffer: BytesMut,
    pub(crate) key: Key,
    /// It has answered a request before.
    pub(crate) is_used: bool,
}

/// Connections to the same place are interchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) address: SocketAddr,
    pub(crate) tls: bool,
}

/// Why a server that listens could not be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("cannot connect to {address}")]
    Connect {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("connecting to {address} took too long")]
    Timeout { address: SocketAddr },
    #[error("no TLS with {address}")]
    Tls {
        address: SocketAddr,
        source: io::Error,
    },
}

/// Opens a connection within `within`.
pub(crate) async fn dial(
    key: Key,
    tls: &TlsConnector,
    within: Duration,
) -> Result<Upstream, DialError> {
    let address = key.address;
    let work = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| DialError::Connect { address, source })?;
        // Small answers must not wait for an acknowledgement; without it they are only later.
        stream.set_nodelay(true).ok();
        if !key.tls {
            return Ok(Io::Tcp(stream));
        }
        let name = ServerName::try_from("localhost").map_err(|error| DialError::Tls {
            address,
            source: io::Error::other(error),
        })?;
        let stream = tls
            .connect(name, stream)
            .await
            .map_err(|source| DialError::Tls { address, source })?;
        Ok(Io::Tls(Box::new(stream)))
    };
    let io = tokio::time::timeout(within, work)
        .await
        .map_err(|_| DialError::Timeout { address })??;
    let (read, write) = tokio::io::split(io);
    Ok(Upstream {
        read,
        write,
        buffer: BytesMut::new(),
        key,
        is_used: false,
    })
}

impl Upstream {
    /// Nothing may come from a server that was asked nothing: an end or bytes make the connection useless.
    async fn is_quiet(&mut self) -> bool {
        poll_fn(|context| {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            let quiet = Pin::new(&mut self.read)
                .poll_read(context, &mut buffer)
                .is_pending();
            Poll::Ready(quiet)
        })
        .await
    }

    pub(crate) fn into_io(self) -> (Io, BytesMut) {
        (self.read.unsplit(self.write), self.buffer)
    }
}

/// Kept connections.
#[derive(Debug)]
pub(crate) struct Pool {
    per_server: usize,
    idle: Mutex<Idle>,
}

#[derive(Debug, Default)]
struct Idle {
    kept: HashMap<Key, Vec<(Instant, Upstream)>>,
    count: usize,
}

impl Pool {
    pub(crate) fn new(per_server: usize) -> Self {
        Self {
            per_server,
            idle: Mutex::new(Idle::default()),
        }
    }

    fn pop(&self, key: Key) -> Option<Upstream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let list = idle.kept.get_mut(&key)?;
        // The newest first: the oldest are the next to be closed, all those before an old one are older.
        let found = list.pop();
        let outdated = match &found {
            Some((since, _)) if since.elapsed() < KEEP => 0,
            Some(_) => 1 + list.len(),
            None => 0,
        };
        if outdated > 0 {
            list.clear();
            idle.count = idle.count.saturating_sub(outdated);
            return None;
        }
        idle.count = idle.count.saturating_sub(usize::from(found.is_some()));
        found.map(|(_, upstream)| upstream)
    }

    /// A kept connection that still looks alive.
    pub(crate) async fn take(&self, key: Key) -> Option<Upstream> {
        while let Some(mut upstream) = self.pop(key) {
            if upstream.is_quiet().await {
                return Some(upstream);
            }
        }
        None
    }

    /// Keeps a connection whose answer is complete.
    pub(crate) fn put(&self, mut upstream: Upstream) {
        if !upstream.buffer.is_empty() {
            return;
        }
        // A large download's buffer does not stay.
        if upstream.buffer.capacity() > 16 * 1024 {
            upstream.buffer = BytesMut::new();
        }
        upstream.is_used = true;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.count >= KEEP_IN_ALL {
            idle.kept.clear();
            idle.count = 0;
        }
        let list = idle.kept.entry(upstream.key).or_default();
        if list.len() < self.per_server {
            list.push((Instant::now(), upstream));
            idle.count += 1;
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for list in idle.kept.values_mut() {
            list.retain(|(since, _)| since.elapsed() < KEEP);
        }
        idle.kept.retain(|_, list| !list.is_empty());
        idle.count = idle.kept.values().map(Vec::len).sum();
    }
}

/// TLS to development servers: their certificates are self-signed, and the address is this machine's own, dialled by
/// number from the kernel's list of listeners, so there is no identity that a certificate could prove.
pub(crate) fn connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let schemes = provider
        .signature_verification_algorithms
        .supported_schemes();
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate { schemes }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[derive(Debug)]
struct AnyCertificate {
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
