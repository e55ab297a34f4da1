//! The client's side of a connection: a socket, or one stream of an HTTP/2 connection.

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;

pub(crate) trait Client: AsyncRead + AsyncWrite + Unpin + Send + Sized {
    /// Makes closing look like a break, not an end.
    fn reset(&self);

    /// The socket, where it is one: tunnels between sockets need no buffers.
    fn into_tcp(self) -> Result<TcpStream, Self>;
}

impl Client for TcpStream {
    fn reset(&self) {
        // Closing with unsent or unread bytes would do as well, but not where all was sent and read.
        socket2::SockRef::from(self)
            .set_linger(Some(std::time::Duration::ZERO))
            .ok();
    }

    fn into_tcp(self) -> Result<TcpStream, Self> {
        Ok(self)
    }
}

impl Client for DuplexStream {
    /// Nothing to do: whoever reads it knows from the framing that the rest is missing, because its requests are
    /// HTTP/1.1 and an answer to such never ends by closing.
    fn reset(&self) {}

    fn into_tcp(self) -> Result<TcpStream, Self> {
        Err(self)
    }
}
